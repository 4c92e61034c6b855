"""Model versions, aliases and promotion. A deployment's aliases `champion` and `challenger` move only here, with a passing verdict."""

from tidemill.registry.tables import tables
from tidemill.registry.versions import Version, promote, record_verdict, register, roll_back, version, versions

__all__ = ["Version", "promote", "record_verdict", "register", "roll_back", "tables", "version", "versions"]
