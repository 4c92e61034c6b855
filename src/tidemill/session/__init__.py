"""`tidemill.open(folder)`: a project by hand, in a notebook or a script."""

from tidemill.session.session import Handle, Result, Session, now, online_store, open, policy_of
from tidemill.session.status import plain_tree

__all__ = ["Handle", "Result", "Session", "now", "online_store", "open", "plain_tree", "policy_of"]
