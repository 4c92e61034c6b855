"""The format of the records, and how a ledger of an earlier one moves forward with its data in place.

A new format is a new step at the end of `STEPS`. Its statements run on SQLite and PostgreSQL alike, each where its table is there already:
what is not there yet is made in its newest form by the stage that brings it. A process of the version before may still be at work, so a
step adds and fills; what is no longer used goes a version later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, inspect


@dataclass(frozen=True)
class Step:
    """What leads to format `to` from the one before: (table that must be there, statement)."""

    to: int
    why: str
    changes: tuple[tuple[str, str], ...]


STEPS = (
    Step(2, "what was made from a thing is found at once", (("edge", "CREATE INDEX edge_by_parent ON edge (parent)"),)),
    Step(3, "runs are listed by their end", (("execution", "CREATE INDEX execution_by_end ON execution ((ended_at / 1000))"),)),
)


def newest(steps: Sequence[Step] = STEPS) -> int:
    """The format that this version writes."""
    return steps[-1].to if steps else 1


def move_forward(connection: Connection, found: int, steps: Sequence[Step] = STEPS) -> None:
    """Take the steps that a ledger of format `found` has not taken yet."""
    for step in steps:
        if step.to > found:
            there = set(inspect(connection).get_table_names())
            for table, statement in step.changes:
                if table in there:
                    connection.exec_driver_sql(statement)
