"""`tidemill.open(folder)`: a project by hand, in a notebook or a script."""

from tidemill.project import now
from tidemill.session.history import plain_tree
from tidemill.session.session import Handle, Result, Session, log_of, online_store, open, policy_of, serving_branch

__all__ = ["Handle", "Result", "Session", "log_of", "now", "online_store", "open", "plain_tree", "policy_of", "serving_branch"]
