"""Runs in an order, page by page. A page goes on after the last row of the one before, by its values (keyset), so it costs the same at
any depth.

Three ways lead to a page, and the cheapest is taken. *Few*: a filter leaves few runs, which are looked up and sorted. *Walk*: an index
is read in the order of the first key until the page is full. *All*: no index knows the first key, and everything that fits is sorted.
Where very many runs are alike in the first key, they are a search of their own: in the order of the other keys.
"""

from collections.abc import Sequence
from math import inf
from typing import Literal, NamedTuple

from tidemill.store import Driver
from tidemill.tracking.conditions import IS_NAN, IS_NULL, PREFIX, RUN, Conditions, Sql, all_of
from tidemill.tracking.filters import Comparison, Order
from tidemill.tracking.metrics import Long

RUNS = "run AS r"
Value = float | Long | str | None
Rank = Literal[0, 1, 2]
Key = tuple[Rank, Value]  # of a row: rank, 0 a value, 1 not a number, 2 missing; and the value


class Place(NamedTuple):
    """Where a row stands: its keys, its start and its id."""

    keys: tuple[Key, ...]
    start: Long
    uid: str


class Found(NamedTuple):
    """A row of a search: the number of its execution, and where it stands."""

    number: int
    place: Place


class Index(NamedTuple):
    """How the runs that have a value of a key are read in the order of that value: from which table, which rows of it, `entry`: the
    expression that the index is of, `value`: that of the key, the columns of the run and, where each has its own part, the experiment."""

    table: str
    where: Sql
    entry: str
    value: str
    run: str = "r.execution"
    experiment: str = ""


BY_START = Index(RUNS, Sql("1 = 1"), "r.started_at", "r.started_at", experiment="r.experiment")
_ATTRIBUTES = {
    "start_time": BY_START,
    "run_id": Index(RUNS, Sql("1 = 1"), "r.uid", "r.uid"),
    "end_time": Index("execution AS e", Sql(f"{RUN['end_time']} IS NOT NULL"), RUN["end_time"], RUN["end_time"], "e.id"),
}
_NAN: tuple[Key, str] = ((1, 0.0), IS_NAN)
_MISSING: tuple[Key, str] = ((2, None), IS_NULL)
_GAPS = {"metric": (_NAN, _MISSING), "param": (_MISSING,), "tag": (_MISSING,)}


class Search:
    """The runs of some experiments, in an open transaction."""

    def __init__(self, sql: Driver, experiments: Sequence[int], stages: Sequence[str]) -> None:
        self._sql, self._experiments = sql, experiments
        self._conditions = Conditions(sql, experiments, stages)

    def rows(self, wanted: Sequence[Comparison], orders: Sequence[Order], after: Place | None, size: int) -> list[Found]:
        """The first `size` runs that fulfil all that is wanted, after a place: by their keys, then the newest first, then by id."""
        index, own = self._index(orders[0]) if orders else BY_START, self._conditions.among
        whole = Sql("SELECT execution FROM run WHERE experiment ") + own
        if index is None or not index.experiment:
            few = self._conditions.few(wanted, [whole], size if index else inf)
        elif len(self._experiments) > 1 and self._conditions.small(whole, len(self._experiments)):
            few = whole
        else:
            few = self._conditions.few(wanted, [], size)
        where = [Sql(f"{self._sql.unindexed('r.experiment')} ") + own, *self._conditions.of(wanted)]
        if few is not None:
            return self._read(RUNS, [Sql("r.execution IN (") + few + Sql(")"), *where], orders, after, size)
        if index is None:
            return self._read("", where, orders, after, size)
        if not orders:
            return self._walk(BY_START, wanted, orders, after, size, [] if after is None else [Sql("r.started_at <= ?", (after.start,))])
        rank = 0 if after is None else after.keys[0][0]
        found = self._values(index, wanted, orders, after, size) if rank == 0 else []
        for key, op in _GAPS.get(orders[0].kind, (_MISSING,) if orders[0].key == "end_time" else ()):
            if key[0] >= rank and len(found) < size:
                found += self._alike(wanted, orders, key, op, after, size - len(found))
        return found

    def _index(self, order: Order) -> Index | None:
        """The index that is in the order of a key."""
        if order.kind == "attribute":
            return _ATTRIBUTES.get(order.key)
        if order.kind == "metric":
            where = Sql("o.name = ? AND o.nan = 0", (self._conditions.metric(order.key),))
            return Index("metric_latest AS o", where, "o.value", "o.value", "o.run", "o.experiment")
        return Index(f"{order.kind} AS o", Sql("o.key = ?", (order.key,)), f"substr(o.value, 1, {PREFIX})", "o.value", "o.run")

    def _values(self, index: Index, wanted: Sequence[Comparison], orders: Sequence[Order], after: Place | None, size: int) -> list[Found]:
        """Rows that have a value of the first key."""
        order, found = orders[0], list[Found]()
        to, floor = "<" if order.descending else ">", list[Sql]()
        if after is not None:
            value = after.keys[0][1]
            floor = [Sql(f"{index.entry} {to}= ?", (value[:PREFIX] if isinstance(value, str) else value,))]
        while len(found) < size and (value := self._heavy(index, order, floor, size - len(found))) is not None:
            before = Sql(f"{index.entry} {'>' if order.descending else '<'} ?", (value,))
            found += self._walk(index, wanted, orders, after, size - len(found), [*floor, before])
            if len(found) < size:
                found += self._alike(wanted, orders, (0, value), "=", after, size - len(found))
            floor = [Sql(f"{index.entry} {to} ?", (value,))]
        return found + self._walk(index, wanted, orders, after, size - len(found), floor)

    def _heavy(self, index: Index, order: Order, floor: list[Sql], size: int) -> Value:
        """The first value that very many runs have, of those to which the next `size` entries of an index come, in one of its parts."""
        if order.kind == "attribute":
            return None
        heavy = list[float | str]()
        for part in self._parts(index):
            whole = all_of([index.where, part])
            chosen = all_of([whole, *floor])
            query = f"SELECT {index.entry} FROM {index.table} WHERE {chosen.text} ORDER BY 1 {_to(order.descending)} LIMIT 1 OFFSET ?"
            for (value,) in self._sql.all(query, (*chosen.values, size)):
                short = not isinstance(value, str) or len(value) < PREFIX  # a longer one may be the start of several
                alike = Sql(f"SELECT 1 FROM {index.table} WHERE ") + whole + Sql(f" AND {index.entry} = ?", (value,))
                if short and self._conditions.many(alike):
                    heavy.append(value)
        return (max if order.descending else min)(heavy, default=None)

    def _alike(
        self, wanted: Sequence[Comparison], orders: Sequence[Order], key: Key, op: str, after: Place | None, size: int
    ) -> list[Found]:
        """Rows that are alike in the first key, in the order of the others."""
        alike = Comparison(orders[0].kind, orders[0].key, op, key[1] if op == "=" else None)
        inner = Place(after.keys[1:], after.start, after.uid) if after is not None and after.keys[0] == key else None
        rows = self.rows([*wanted, alike], orders[1:], inner, size)
        return [Found(number, Place((key, *place.keys), place.start, place.uid)) for number, place in rows]

    def _parts(self, index: Index) -> list[Sql]:
        """An index that has a part for each experiment is read part by part."""
        if not index.experiment:
            return [Sql("1 = 1")]
        return [Sql(f"{index.experiment} = ?", (one,)) for one in self._experiments]

    def _walk(
        self, index: Index, wanted: Sequence[Comparison], orders: Sequence[Order], after: Place | None, size: int, floor: list[Sql]
    ) -> list[Found]:
        """Rows as an index has them; those that are alike in the first key are sorted as they come."""
        if size <= 0:
            return []
        source, where = index.table, [index.where, *floor]
        if index.run != "r.execution":
            source, where = f"{index.table} CROSS JOIN {RUNS}", [*where, Sql(f"r.execution = {index.run}")]
        if not index.experiment:
            where.append(Sql(f"{self._sql.unindexed('r.experiment')} ") + self._conditions.among)
        where += self._conditions.of(wanted, index.run)
        parts = self._parts(index)
        found = [row for part in parts for row in self._read(source, [part, *where], orders, after, size, index)]
        return in_order(found, orders)[:size] if len(parts) > 1 else found

    def _read(
        self, source: str, where: Sequence[Sql], orders: Sequence[Order], after: Place | None, size: int, index: Index | None = None
    ) -> list[Found]:
        """Rows of a table or two in their order; `index` is that of the first key, where the tables are read as it has them. Without a
        source all runs are read, in the order that they lie in: by an index SQLite would look for each of them."""
        joins, keys, sort = Sql(""), list[tuple[str, str]](), list[str]()
        for i, order in enumerate(orders):
            if i == 0 and index is not None:
                keys, sort = [("0", index.value)], [f"{index.entry} {_to(order.descending)}"]
            else:
                join, rank, value = self._key(order, f"k{i}")
                joins, keys, sort = joins + join, [*keys, (rank, value)], [*sort, *([rank] if rank != "0" else [])]
            sort.append(f"{keys[i][1]} {_to(order.descending)}")
        chosen = all_of([*where, *([_beyond(after, keys, orders)] if after is not None else [])])
        columns = ", ".join(["r.execution, r.started_at, r.uid", *(column for key in keys for column in key)])
        last = ", ".join([*sort, "r.started_at DESC", "r.uid"])
        if any(column in f"{columns} {chosen.text}" for column in ("e.status", "e.ended_at")):
            chosen = Sql("e.id = r.execution AND ") + chosen
            if "execution AS e" not in source:
                source = f"{source} CROSS JOIN execution AS e" if source else f"execution AS e CROSS JOIN {RUNS}"
        query = f"SELECT {columns} FROM {source or RUNS}{joins.text} WHERE {chosen.text} ORDER BY {last} LIMIT ?"
        rows = self._sql.search(query, (*joins.values, *chosen.values, size), as_written=index is not None)
        return [Found(row[0], Place(tuple(zip(row[3::2], row[4::2], strict=True)), row[1], row[2])) for row in rows]

    def _key(self, order: Order, name: str) -> tuple[Sql, str, str]:
        """(join, rank, value) of a key."""
        if order.kind == "attribute":
            value = RUN[order.key]
            return Sql(""), f"CASE WHEN {value} IS NULL THEN 2 ELSE 0 END" if "e." in value else "0", value
        if order.kind == "metric":
            number = self._conditions.metric(order.key)
            join = Sql(f" LEFT JOIN metric_latest AS {name} ON {name}.run = r.execution AND {name}.name = ?", (number,))
            return join, f"CASE WHEN {name}.run IS NULL THEN 2 ELSE {name}.nan END", f"{name}.value"
        join = Sql(f" LEFT JOIN {order.kind} AS {name} ON {name}.run = r.execution AND {name}.key = ?", (order.key,))
        return join, f"CASE WHEN {name}.run IS NULL THEN 2 ELSE 0 END", f"{name}.value"


def _to(descending: bool) -> str:
    return "DESC" if descending else "ASC"


def _beyond(after: Place, keys: Sequence[tuple[str, str]], orders: Sequence[Order]) -> Sql:
    """The condition that a row stands after a place: alike in the first keys, and beyond it in the next one. Written flat, since SQLite
    does not read ten keys one within the other."""
    alike, ways = list[Sql](), list[Sql]()
    for (rank, value), order, (number, there) in zip(keys, orders, after.keys, strict=True):
        if number == 2:  # nothing stands after what is missing
            alike.append(Sql(f"{rank} = 2"))
            continue
        then = f"({rank} > ? OR ({rank} = ? AND {value} {'<' if order.descending else '>'} ?))"
        ways.append(all_of([*alike, Sql(then, (number, number, there))]))
        alike.append(Sql(f"{rank} = ? AND {value} = ?", (number, there)))
    last = Sql("(r.started_at < ? OR (r.started_at = ? AND r.uid > ?))", (after.start, after.start, after.uid))
    ways.append(all_of([*alike, last]))
    return Sql(f"({' OR '.join(way.text for way in ways)})", tuple(value for way in ways for value in way.values))


def in_order(rows: list[Found], orders: Sequence[Order]) -> list[Found]:
    """Rows of several parts as one.

    >>> in_order([Found(1, Place(((2, None),), 5, "a")), Found(2, Place(((0, 1.5),), 4, "b"))], [Order("metric", "loss", True)])[0].number
    2
    """
    rows = sorted(rows, key=lambda row: (-row.place.start, row.place.uid))
    for i, order in reversed(list(enumerate(orders))):
        rows.sort(key=lambda row: (row.place.keys[i][1] is not None, row.place.keys[i][1]), reverse=order.descending)
        rows.sort(key=lambda row: row.place.keys[i][0])
    return rows
