"""What a case is made of, and the rule by which every answer can be worked out: slow, plain, and the same for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Key = tuple[int | str | None, ...]
Value = float | None


@dataclass(frozen=True)
class History:
    """One row of a view: its key, when it happened, when it became known, and two values. Rows of a view have an order."""

    key: Key
    event: datetime
    known: datetime
    values: tuple[Value, Value]


@dataclass(frozen=True)
class View:
    """A view by name: columns of the key, how old its newest row may be, and its rows in their order. Its features are `x` and `y`."""

    name: str
    keys: tuple[str, ...]
    rows: tuple[History, ...]
    ttl: timedelta | None = None


@dataclass(frozen=True)
class Case:
    """Rows that are asked for, each a key and a time, and the values of each view that they must get, in the order of the rows."""

    name: str
    views: tuple[View, ...]
    asked: tuple[tuple[Key, datetime], ...]
    answers: tuple[tuple[tuple[Value, Value], ...], ...]
    as_known: bool = True


def time(text: str) -> datetime:
    """`10:00` of 10 March 2024 in UTC, `03-09 10:00` of another day of that year, or ISO 8601.

    >>> time("10:00:00.5").isoformat()
    '2024-03-10T10:00:00.500000+00:00'
    """
    if "T" not in text:
        day, _, clock = text.rpartition(" ")
        text = f"2024-{day or '03-10'}T{clock}"
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def expected(rows: Sequence[History], key: Key, at: datetime, ttl: timedelta | None, *, as_known: bool) -> tuple[Value, Value]:
    """The rule: of the rows with this key that happened by then (and were known by then) the one with the latest event, of those the one
    that became known last, of those the last; nothing where that one is older than the TTL. A key of which a part is null has no rows."""
    best: History | None = None
    for row in rows:
        if None in key or row.key != key or row.event > at or (as_known and row.known > at):
            continue
        if best is None or (row.event, row.known) >= (best.event, best.known):
            best = row
    if best is None or (ttl is not None and at - best.event > ttl):
        return None, None
    return best.values
