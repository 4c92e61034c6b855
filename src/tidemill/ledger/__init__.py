"""The record of all artifacts, executions, lineage edges, aliases, decisions and branches; the content cache `once`."""

from importlib import import_module
from typing import TYPE_CHECKING

from tidemill.ledger.code import Code, code_of, environment, own_code, user
from tidemill.ledger.values import Artifact, Branch, Decision, Edge, Execution, Made, Once

if TYPE_CHECKING:
    from tidemill.ledger.ancestry import Node as Node
    from tidemill.ledger.ancestry import descendants as descendants
    from tidemill.ledger.ancestry import lineage as lineage
    from tidemill.ledger.ancestry import nodes as nodes
    from tidemill.ledger.ledger import Ledger as Ledger
    from tidemill.ledger.ledger import told as told

_WITH_SQL = {
    "Ledger": "ledger",
    "told": "ledger",
    "Node": "ancestry",
    "descendants": "ancestry",
    "lineage": "ancestry",
    "nodes": "ancestry",
}  # a training that logs needs no database

__all__ = [
    "Artifact",
    "Branch",
    "Code",
    "Decision",
    "Edge",
    "Execution",
    "Ledger",
    "Made",
    "Node",
    "Once",
    "code_of",
    "descendants",
    "environment",
    "lineage",
    "nodes",
    "own_code",
    "told",
    "user",
]


def __getattr__(name: str) -> object:
    if name not in _WITH_SQL:
        raise AttributeError(f"module 'tidemill.ledger' has no attribute {name!r}")
    value = getattr(import_module(f"tidemill.ledger.{_WITH_SQL[name]}"), name)
    globals()[name] = value
    return value
