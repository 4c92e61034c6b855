"""`tidemill.open(folder)`: a project by hand, in a notebook or a script."""

from tidemill.session.session import Handle, Session, open

__all__ = ["Handle", "Session", "open"]
