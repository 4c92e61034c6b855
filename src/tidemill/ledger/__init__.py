"""The record of all artifacts, executions, lineage edges, aliases, decisions and branches; the content cache `once`."""

from tidemill.ledger.code import Code, code_of, environment, own_code
from tidemill.ledger.ledger import Ledger, told
from tidemill.ledger.lineage import Node, lineage
from tidemill.ledger.values import Artifact, Branch, Decision, Edge, Execution, Made, Once

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
    "environment",
    "lineage",
    "own_code",
    "told",
]
