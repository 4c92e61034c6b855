"""The user's folder → settings and declarations with file and line, and its ledger; the files of a new one."""

from tidemill.project.others import Elsewhere, elsewhere, settings_around
from tidemill.project.project import SCRIPT, Project, ensure, find, imported_at, importing, load, now
from tidemill.project.scaffold import Item, Names, Scaffold, Sizes, files, window_line
from tidemill.project.settings import FILE, SETTINGS, Settings, read_settings

__all__ = [
    "FILE",
    "SCRIPT",
    "SETTINGS",
    "Elsewhere",
    "Item",
    "Names",
    "Project",
    "Scaffold",
    "Settings",
    "Sizes",
    "elsewhere",
    "ensure",
    "files",
    "find",
    "imported_at",
    "importing",
    "load",
    "now",
    "read_settings",
    "settings_around",
    "window_line",
]
