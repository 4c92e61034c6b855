"""Rows of a dataset that come one by one: a log in the records. A row is known from when it is written there, and the next version of the
dataset holds it. Where a source numbers its rows, each of them is taken once, whoever sends it again.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text

from tidemill.core import MINUTE, DataError, StoreError, digest_bytes, show
from tidemill.data.declarations import Dataset
from tidemill.ledger import Ledger
from tidemill.store import Driver

MOST_PUSHED = 10_000  # rows at once
AT_ONCE = 10_000  # rows read at once, and the rest of the last push
AHEAD = MINUTE  # how far the clocks of those who push may differ: rows would be known later than they are
PUT_OFFSET = (
    "INSERT INTO push_source (dataset, source, offset_) VALUES (?, ?, ?) "
    "ON CONFLICT (dataset, source) DO UPDATE SET offset_ = excluded.offset_"
)
PushedRow = Mapping[str, Any]
ERASED = dict[str, Any]()  # what stands in the place of a row that was erased

push_tables = MetaData()
Table(
    "push",
    push_tables,
    Column("dataset", Text, primary_key=True),
    Column("last", BigInteger, primary_key=True),  # the number of its last row
    Column("known", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),  # of all rows of the dataset so far
)
Table(
    "push_source",
    push_tables,
    Column("dataset", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("offset_", BigInteger, nullable=False),
)


class Push(NamedTuple):
    """Rows that came together: `first` is the number of the first one, and all are known since `known` (microseconds UTC).
    One that was erased is empty."""

    first: int
    known: int
    rows: list[PushedRow]

    @property
    def last(self) -> int:
        """The number of the last row."""
        return self.first + len(self.rows) - 1


class Pushed(NamedTuple):
    """Up to where a log goes: the number of its last row, and the digest of all; 0 and "" of an empty one."""

    last: int
    digest: str


def append_push(
    ledger: Ledger, dataset: str, rows: Sequence[PushedRow], now: int, *, source: str = "", offsets: Sequence[int] = ()
) -> Push | None:
    """Write rows of plain data to the log of a dataset, all or none. `offsets` (n,), ascending, are their numbers in a source: rows that it
    gave before are left out; None where nothing is left. They survive the end of the process. Raises DataError, and
    StoreError where the log is ahead of `now` by more than clocks may differ."""
    if len(rows) > MOST_PUSHED:
        raise DataError(f"{len(rows):,} rows are pushed at once", hint=f"push at most {MOST_PUSHED:,}, or bring a file to the dataset")
    if (offsets or source) and (not source or len(offsets) != len(rows) or any(b <= a for a, b in pairwise(offsets))):
        raise DataError(
            "the offsets of a push do not fit",
            hint="name the source, and give one ascending whole number for each row: without both, nothing tells which came before",
        )
    with ledger.records.transaction(synced=False) as sql:
        if offsets:
            seen = sql.one("SELECT offset_ FROM push_source WHERE dataset = ? AND source = ?", (dataset, source))
            rows = [row for row, offset in zip(rows, offsets, strict=True) if seen is None or offset > seen[0]]
        if not rows:
            return None
        before = sql.one("SELECT last, known, digest FROM push WHERE dataset = ? ORDER BY last DESC LIMIT 1", (dataset,)) or (0, now, "")
        if before[1] > now + AHEAD:
            what = f"the newest row of dataset {dataset!r} is known since {show(before[1])}, and here it is {show(now)}"
            raise StoreError(what, where=dataset, hint="set the clock of this machine, or of the one that pushed before")
        found = Push(before[0] + 1, max(now, before[1]), list(rows))
        content = msgspec.json.encode(found.rows)
        digest = chained(before[2], found.known, content)
        sql.run(
            "INSERT INTO push (dataset, last, known, content, digest) VALUES (?, ?, ?, ?, ?)",
            (dataset, found.last, found.known, content, digest),
        )
        if offsets:
            sql.run(PUT_OFFSET, (dataset, source, offsets[-1]))
        return found


def chained(before: str, known: int, content: bytes) -> str:
    """The digest of all rows, from that of those before a push."""
    return digest_bytes(before.encode(), known.to_bytes(8, "little", signed=True), content)


def pushed(ledger: Ledger, dataset: str, upto: int = 2**62) -> Pushed:
    """Up to where the log of a dataset goes, or went when a row was its last."""
    row = ledger.records.row("SELECT last, digest FROM push WHERE dataset = ? AND last <= ? ORDER BY last DESC LIMIT 1", (dataset, upto))
    return Pushed(*row) if row else Pushed(0, "")


def pushed_offset(ledger: Ledger, dataset: str, source: str) -> int | None:
    """The offset of the last row that a source gave: it goes on after it."""
    row = ledger.records.row("SELECT offset_ FROM push_source WHERE dataset = ? AND source = ?", (dataset, source))
    return int(row[0]) if row else None


def pushed_by(ledger: Ledger, dataset: str, known: int) -> int:
    """The number of the last row that was known by a time."""
    query = "SELECT last FROM push WHERE dataset = ? AND known <= ? ORDER BY last DESC LIMIT 1"
    row = ledger.records.row(query, (dataset, known))
    return int(row[0]) if row else 0


def pushed_since(ledger: Ledger, dataset: str, after: int) -> int | None:
    """From when what was pushed behind a row is known; None where nothing was."""
    row = ledger.records.row("SELECT min(known) FROM push WHERE dataset = ? AND last > ?", (dataset, after))
    return None if row is None or row[0] is None else int(row[0])


def pushed_times(ledger: Ledger, dataset: str, since: int, upto: int) -> set[int]:
    """The times later than `since` at which rows became known, up to one; none at which later rows did too."""
    after, own = pushed_by(ledger, dataset, since), "SELECT known FROM push WHERE dataset = ? AND last > ?"
    with ledger.records.snapshot() as sql:
        found = {known for (known,) in sql.all(f"{own} AND last <= ?", (dataset, after, upto))}
        return found - {known for (known,) in sql.all(f"{own} ORDER BY last LIMIT 1", (dataset, upto))}  # times ascend with rows


def pushes(ledger: Ledger, dataset: str, after: int, upto: int) -> Iterator[Push]:
    """What was pushed behind one row, up to another."""
    while after < upto:
        with ledger.records.snapshot() as sql:
            found = _read(sql, dataset, after, min(upto, after + AT_ONCE))
        if not found:
            return
        for push in found:
            yield Push(max(push.first, after + 1), push.known, push.rows[max(after + 1 - push.first, 0) : upto + 1 - push.first])
        after = found[-1].last


def _read(sql: Driver, dataset: str, after: int, upto: int) -> list[Push]:
    """The pushes that have rows behind one, up to another, whole."""
    query = (
        "SELECT last, known, content FROM push WHERE dataset = ? AND last > ? AND last <= "
        "COALESCE((SELECT MIN(last) FROM push WHERE dataset = ? AND last >= ?), ?) ORDER BY last"
    )
    found = []
    for last, known, content in sql.all(query, (dataset, after, dataset, upto, upto)):
        rows = msgspec.json.decode(content)
        found.append(Push(last - len(rows) + 1, known, rows))
    return found


def check_pushable(dataset: Dataset) -> None:
    """Raise DataError for a dataset whose rows depend on each other: it takes whole files only; and for one of another project."""
    if dataset.elsewhere:
        what = f"rows of dataset {dataset.name!r} cannot be pushed here: they are another project's"
        raise DataError(what, where=str(dataset.where), hint="push to it there; the next version here has them")
    single = [check.name for check in dataset.checks if check.kind_of == "unique"]
    if dataset.keys or single:
        what = f"rows of dataset {dataset.name!r} cannot be pushed: it has {'one row for each key' if dataset.keys else single[0]}"
        raise DataError(what, where=str(dataset.where), hint="push to a dataset of events, which has no key")
