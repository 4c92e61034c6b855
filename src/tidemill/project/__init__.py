"""The user's folder → settings and declarations with file and line, and its ledger; the files of a new one."""

from tidemill.project.project import Project, find, load, now, user
from tidemill.project.scaffold import Item, Names, Scaffold, Sizes, files, window_line
from tidemill.project.settings import FILE, SETTINGS, Settings, read_settings

__all__ = [
    "FILE",
    "SETTINGS",
    "Item",
    "Names",
    "Project",
    "Scaffold",
    "Settings",
    "Sizes",
    "files",
    "find",
    "load",
    "now",
    "read_settings",
    "user",
    "window_line",
]
