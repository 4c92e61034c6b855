"""`tidemill.open(folder)`: a project by hand, in a notebook or a script."""

from tidemill.project import now
from tidemill.session.answered import log_of
from tidemill.session.history import plain_tree
from tidemill.session.online import online_store, opened_as_built, types_of
from tidemill.session.session import Handle, Result, Session, open, policy_of, serving_branch, shadows_of

__all__ = [
    "Handle",
    "Result",
    "Session",
    "log_of",
    "now",
    "online_store",
    "open",
    "opened_as_built",
    "plain_tree",
    "policy_of",
    "serving_branch",
    "shadows_of",
    "types_of",
]
