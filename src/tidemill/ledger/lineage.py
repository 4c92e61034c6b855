"""The way back from a thing to its sources, as a tree of refs."""

from dataclasses import dataclass

from tidemill.core import Ref, UnknownName
from tidemill.ledger.history import History
from tidemill.ledger.values import Execution


@dataclass(frozen=True)
class Node:
    """A thing, the role it played for the node above, the execution that made it, and what it was made from."""

    ref: Ref
    role: str
    meta: dict[str, object]
    execution: Execution | None
    parents: tuple["Node", ...]


def lineage(ledger: History, ref: Ref, *, role: str = "") -> Node:
    """The tree above a ref. A thing that is reached twice is expanded each time; the graph has no circles."""
    edges = ledger.parents(ref)
    newest = max((edge.execution for edge in edges), default=0)
    found = ledger.execution(newest) if newest else None
    parents = [lineage(ledger, _whole(ledger, edge.parent), role=edge.role) for edge in edges if edge.execution == newest]
    return Node(ref, role, _meta(ledger, ref), found, tuple(parents))


def _whole(ledger: History, text: str) -> Ref:
    try:
        return ledger.artifact(Ref.parse(text)).ref
    except UnknownName:
        return Ref.parse(text)


def _meta(ledger: History, ref: Ref) -> dict[str, object]:
    try:
        return ledger.artifact(ref).meta
    except UnknownName:
        return {}
