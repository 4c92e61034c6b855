"""The way back from a thing to its sources, as a tree of refs; and what was made from it in the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, not_, select

from tidemill.core import Ref, UnknownName
from tidemill.ledger.journal import Journal
from tidemill.ledger.tables import edge
from tidemill.ledger.values import Execution


@dataclass(frozen=True)
class Node:
    """A thing, the role it played for the node above, the execution that made it, and what it was made from."""

    ref: Ref
    role: str
    meta: dict[str, object]
    execution: Execution | None
    parents: tuple["Node", ...]

    def __repr__(self) -> str:
        """The tree, a line for each thing, what it was made from below it."""
        run = self.execution
        made = f"  (run {run.id}, code {run.code[:12]}, environment {run.environment[:12]})" if run else ""
        lines = [f"{self.role} {self.ref}{made}".lstrip(), *(line for one in self.parents for line in repr(one).splitlines())]
        return "\n  ".join(lines)


def lineage(ledger: Journal, ref: Ref, *, role: str = "") -> Node:
    """The tree above a ref. A thing that is reached twice is expanded each time; the graph has no circles."""
    edges = ledger.parents(ref)
    newest = max((edge.execution for edge in edges), default=0)
    found = ledger.execution(newest) if newest else None
    parents = [lineage(ledger, _whole(ledger, edge.parent), role=edge.role) for edge in edges if edge.execution == newest]
    return Node(ref, role, _meta(ledger, ref), found, tuple(parents))


def nodes(tree: Node) -> Iterator[Node]:
    """A tree, node by node. Of a model below, whose output something is, what it was made from is left out: that is its own affair."""
    yield tree
    for parent in tree.parents:
        yield from [parent] if parent.ref.kind == "model" else nodes(parent)


def descendants(ledger: Journal, refs: Sequence[str], kind: str, *, through: bool = True) -> list[tuple[str, str]]:
    """The things of a kind that were made from others, near or far, or without `through` not by another of the kind: (the one that it was
    made from, as `refs` spell it, the thing)."""
    below = select(edge.c.parent.label("origin"), edge.c.child.label("ref")).where(edge.c.parent.in_(refs)).cte("below", recursive=True)
    of_kind = below.c.ref.startswith(f"{kind}:", autoescape=True)
    near = edge.c.parent == below.c.ref if through else and_(edge.c.parent == below.c.ref, not_(of_kind))
    below = below.union(select(below.c.origin, edge.c.child).join(edge, near))
    query = select(below).where(below.c.ref.startswith(f"{kind}:", autoescape=True)).order_by(below.c.origin, below.c.ref)
    with ledger.records.read() as connection:
        return [(row.origin, row.ref) for row in connection.execute(query)]


def _whole(ledger: Journal, text: str) -> Ref:
    try:
        return ledger.artifact(Ref.parse(text)).ref
    except UnknownName:
        return Ref.parse(text)


def _meta(ledger: Journal, ref: Ref) -> dict[str, object]:
    try:
        return ledger.artifact(ref).meta
    except UnknownName:
        return {}
