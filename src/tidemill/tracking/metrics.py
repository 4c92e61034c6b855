"""Metrics of runs: every value is kept, the newest of each name stands ready for search, and long curves are read down-sampled."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Records
from tidemill.tracking.limits import check_key, invalid, missing
from tidemill.tracking.values import Metric

T = TypeVar("T")
Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Point = tuple[str, float, int, int, int]  # key, value, 1 for not a number, timestamp, step
PAGE = 25_000
MOST = 1_000_000  # values that one call reads
SMALL = 50_000  # rows that are looked through here and not by the database
_NAMES: WeakKeyDictionary[Records, dict[str, int]] = WeakKeyDictionary()  # names are never changed, so what is known stays known
_PUT = "INSERT INTO metric (run, name, timestamp, step, value, nan) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_LATEST = """INSERT INTO metric_latest (run, name, experiment, value, nan, step, timestamp) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE SET value = excluded.value, nan = excluded.nan, step = excluded.step, timestamp = excluded.timestamp
WHERE (excluded.step, excluded.timestamp, excluded.value) >= (metric_latest.step, metric_latest.timestamp, metric_latest.value)"""


def names_of(sql: Driver, records: Records, names: Iterable[str]) -> dict[str, int]:
    """The numbers of metric names, made where they are new. Tell `remember` once the transaction is done."""
    known = _NAMES.setdefault(records, {})
    found = {}
    for name in set(names):
        number = known.get(name)
        if number is None:
            sql.run("INSERT INTO metric_name (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            number = (sql.one("SELECT id FROM metric_name WHERE name = ?", (name,)) or (0,))[0]
        found[name] = number
    return found


def remember(records: Records, names: dict[str, int]) -> None:
    """Keep numbers of names that are committed."""
    _NAMES.setdefault(records, {}).update(names)


def put_metrics(sql: Driver, records: Records, run: int, experiment: int, points: Sequence[Point]) -> dict[str, int]:
    """Append values of a run; returns the names' numbers, for `remember`."""
    names = names_of(sql, records, (point[0] for point in points))
    sql.many(_PUT, [(run, names[key], timestamp, step, value, nan) for key, value, nan, timestamp, step in points])
    newest: dict[str, tuple[int, int, float, int]] = {}
    for key, value, nan, timestamp, step in points:
        one = (step, timestamp, value, nan)
        if key not in newest or one >= newest[key]:
            newest[key] = one
    sql.many(_LATEST, [(run, names[key], experiment, value, nan, step, at) for key, (step, at, value, nan) in newest.items()])
    return names


def put_points(
    sql: Driver, records: Records, run: int, experiment: int, called: Mapping[int, str], points: Sequence[tuple[int, int, int, float]]
) -> dict[str, int]:
    """Append many values of a run, each (number of its name, µs since 1970, step, value); returns the names' numbers, for `remember`."""
    names = names_of(sql, records, {called[number] for number in {point[0] for point in points}})
    own = {number: names[name] for number, name in called.items() if name in names}
    rows = [
        (run, own[n], at // 1000, step, value, 0) if value == value else (run, own[n], at // 1000, step, 0.0, 1)
        for n, at, step, value in points
    ]
    newest: dict[int, tuple[int, int, float, int]] = {}
    for _, name, at, step, value, nan in rows:  # in the order of logging, so that of one moment the last one counts
        if name not in newest or (step, at) >= newest[name][:2]:
            newest[name] = step, at, value, nan
    rows.sort()  # as the table lies: three times faster than as they came
    sql.many(_PUT, rows)
    sql.many(_LATEST, [(run, name, experiment, value, nan, step, at) for name, (step, at, value, nan) in newest.items()])
    return names


def _value(value: float, nan: int) -> float:
    return float("nan") if nan else value


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def history(
    ledger: Ledger, run_id: str, key: str, *, page_token: str = "", max_results: int | None = None
) -> tuple[list[Metric], str | None]:
    """The values of a metric of a run by (timestamp, step): a page of them, or else all up to a million, with the token of the next."""
    if max_results is not None and max_results < 1:
        raise invalid(max_results, "max_results", "It must be a positive integer.")
    size = min(max_results or (PAGE if page_token else MOST), MOST)
    with ledger.records.snapshot() as sql:
        run, name = _place(sql, run_id, key)
        if name is None:
            return [], None
        after = ""
        values: list[object] = [run, name]
        if page_token:
            after = " AND (timestamp, step, value, nan) > (?, ?, ?, ?)"
            values += read_token(page_token, tuple[Long, Long, float, Count])
        query = (
            f"SELECT timestamp, step, value, nan FROM metric WHERE run = ? AND name = ?{after} ORDER BY timestamp, step, value, nan LIMIT ?"
        )
        rows = sql.all(query, [*values, size + 1])
    token = None
    if len(rows) > size:
        rows = rows[:size]
        token = write_token(rows[-1])
    return [Metric(key, _value(value, nan), timestamp, step) for timestamp, step, value, nan in rows], token


def _place(sql: Driver, run_id: str, key: str) -> tuple[int, int | None]:
    if not key:
        raise missing("metric_key")
    row = sql.one("SELECT execution FROM run WHERE uid = ?", (run_id,))
    if row is None:
        raise UnknownName(f"Run with id={run_id} not found")
    name = sql.one("SELECT id FROM metric_name WHERE name = ?", (key,))
    return row[0], name[0] if name else None


def bulk_history(ledger: Ledger, run_ids: Sequence[str], key: str, max_results: int = PAGE) -> list[Metric]:
    """The first values of a metric of several runs, by run, timestamp and step."""
    found: list[Metric] = []
    for run_id in sorted(run_ids):
        points, _ = history(ledger, run_id, key, max_results=max(max_results - len(found), 1))
        found += [Metric(one.key, one.value, one.timestamp, one.step, run_id=run_id) for one in points[: max_results - len(found)]]
    return found


def sampled_history(
    ledger: Ledger, run_ids: Sequence[str], key: str, *, start_step: int | None = None, end_step: int | None = None, points: int = 320
) -> list[Metric]:
    """At most `points` values of a metric of each run, by step: the first, the last, and the least and the greatest of each of
    stretches with equally many values in the order of logging, so that no extreme is lost."""
    if (start_step is None) != (end_step is None):
        raise DataError("If either start step or end step are specified, both must be specified.")
    found = []
    with ledger.records.snapshot() as sql:
        for run_id in run_ids:
            run, name = _place(sql, run_id, check_key(key, "metric_key"))
            rows = [] if name is None else _sample(sql, run, name, start_step, end_step, max(points, 1))
            found += [Metric(key, _value(value, nan), timestamp, step, run_id=run_id) for step, timestamp, value, nan in rows]
    return found


Row = tuple[int, int, float, int]  # step, timestamp, value, nan


def _sample(sql: Driver, run: int, name: int, start: int | None, end: int | None, points: int, small: int = SMALL) -> list[Row]:
    """The rows of a curve, at most `points`, by step. Up to `small` rows are read and looked through here; of more, each stretch is looked
    through by the database, in the order in which its rows lie."""
    which, values = "run = ? AND name = ?", [run, name]
    if start is not None and end is not None:
        which += " AND step BETWEEN ? AND ?"
        values += [start, end]
    row = sql.one(f"SELECT count(*) FROM metric WHERE {which}", values)
    count = int(row[0]) if row else 0
    buckets = max((points - 2) // 2, 1)
    size = -(-count // buckets)
    if count <= max(points, small):
        rows = sql.all(f"SELECT step, timestamp, value, nan FROM metric WHERE {which} ORDER BY timestamp, step, value, nan", values)
        if count <= points:
            return sorted(rows)
        ends = {rows[0], rows[-1]}
        stretches = [rows[at : at + size] for at in range(0, count, size)]
        found = {one for stretch in stretches for one in _extremes([row for row in stretch if not row[3]])}
    else:
        ends = {_end(sql, which, values, to) for to in ("ASC", "DESC")}
        found = {one for stretch in _stretches(sql, which, values, size) for one in _extremes_of(sql, which, values, *stretch)}
    return sorted(ends | found) if points > 3 else sorted(ends)[-points:]


def _extremes(rows: list[Row]) -> list[Row]:
    """The least and the greatest value, of equal ones the first."""
    if not rows:
        return []
    return [min(rows, key=lambda row: (row[2], row[1], row[0])), min(rows, key=lambda row: (-row[2], row[1], row[0]))]


def _end(sql: Driver, which: str, values: list[int], to: str) -> Row:
    order = f"timestamp {to}, step {to}, value {to}, nan {to}"
    row = sql.one(f"SELECT step, timestamp, value, nan FROM metric WHERE {which} ORDER BY {order} LIMIT 1", values)
    assert row is not None
    return row[0], row[1], row[2], row[3]


_KEY = "(timestamp, step, value, nan)"  # the order in which rows lie; no two rows have the same


def _stretches(sql: Driver, which: str, values: list[int], size: int) -> Iterator[tuple[str, list[Any]]]:
    """Ranges of `size` rows in their order, as a condition and its values."""
    query = f"SELECT timestamp, step, value, nan FROM metric WHERE {which} AND {_KEY} >= (?, ?, ?, ?) ORDER BY timestamp, step, value, nan"
    first = sql.one(f"{query} LIMIT 1", [*values, -(2**63), -(2**63), float("-inf"), 0])
    while first is not None:
        after = sql.one(f"{query} LIMIT 1 OFFSET ?", [*values, *first, size])
        upper = "" if after is None else f" AND {_KEY} < (?, ?, ?, ?)"
        yield f"{_KEY} >= (?, ?, ?, ?){upper}", [*first, *(after or ())]
        first = after


def _extremes_of(sql: Driver, which: str, values: list[int], within: str, edges: list[Any]) -> list[Row]:
    rows = f"FROM metric WHERE {which} AND {within} AND nan = 0"
    edge = sql.one(f"SELECT min(value), max(value) {rows}", [*values, *edges])
    if edge is None or edge[0] is None:
        return []
    query = f"SELECT step, timestamp, value, nan {rows} AND value = ? ORDER BY timestamp, step LIMIT 1"
    found = [sql.one(query, [*values, *edges, value]) for value in edge]
    return [(row[0], row[1], row[2], row[3]) for row in found if row is not None]


# ── tokens of pages ─────────────────────────────────────────────────────────────────────────────────────────────


def write_token(values: Sequence[object]) -> str:
    """Where a page ended, as text."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(values)).decode()


def read_token(text: str, kind: type[T]) -> T:
    """What `write_token` wrote, as a tuple of this type; raises DataError for anything else."""
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text.encode()), type=kind)
    except (ValueError, RecursionError) as error:  # also msgspec's and base64's own errors
        raise DataError(f"Invalid page token, could not decode it: {text[:100]!r}", hint="send the token as it was received") from error


def rows_before(token: str) -> int:
    """How many rows stand on the pages before, where a token says no more than that; none without a token. Raises DataError."""
    return read_token(token, tuple[Count])[0] if token else 0
