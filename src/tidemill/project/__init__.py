"""The user's folder → settings and declarations with file and line, and its ledger."""

from tidemill.project.project import Project, load
from tidemill.project.settings import FILE, SETTINGS, Settings, read_settings

__all__ = ["FILE", "SETTINGS", "Project", "Settings", "load", "read_settings"]
