"""Search of runs and experiments: filters and orders as SQL, page by page.

In the order of their start or of one metric, a page of runs goes on after the last row of the one before (keyset), so it costs the same at
any depth; in other orders, and for what is fewer, the pages before are skipped (offset). Where runs are ordered by a
metric, the index of its newest values is walked in that order and the walk ends when the page is full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidemill.core import DataError
from tidemill.ledger import Ledger
from tidemill.store import Driver
from tidemill.tracking.experiments import COLUMNS as EXPERIMENT_COLUMNS
from tidemill.tracking.experiments import experiments_of, number_of
from tidemill.tracking.filters import EXPERIMENTS, LIST_OPS, RUNS, Comparison, Order, parse, parse_order
from tidemill.tracking.limits import experiment_numbers, page_size
from tidemill.tracking.metrics import Count, Long, read_token, rows_before, write_token
from tidemill.tracking.runs import COLUMNS, STATUS, rows_of, runs_of
from tidemill.tracking.values import Experiment, Run

STAGES = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}
FEW = 20_000  # only a filter that leaves fewer runs than this is looked up first
_STATUS = "CASE e.status " + " ".join(f"WHEN '{ours}' THEN '{theirs}'" for theirs, ours in STATUS.items()) + " END"
_RUN = {
    "run_id": "r.uid",
    "run_name": "r.name",
    "user_id": "r.who",
    "status": _STATUS,
    "artifact_uri": "r.location",
    "experiment_id": "CAST(r.experiment AS TEXT)",
    "start_time": "r.started_at",
    "end_time": "(e.ended_at / 1000)",
}
_EXPERIMENT = {"name": "name", "experiment_id": "CAST(id AS TEXT)", "creation_time": "created_at", "last_update_time": "updated_at"}


class _Place(NamedTuple):
    """Where a page ended: after so many rows (`skips`), or after this row, by its rank, value, start and id."""

    skips: bool
    number: Count
    value: float | None = None
    start: Long = 0
    uid: str = ""


@dataclass(frozen=True)
class Sql:
    """A piece of SQL with the values of its marks."""

    text: str
    values: tuple[Any, ...] = ()

    def __add__(self, other: "Sql") -> "Sql":
        return Sql(f"{self.text}{other.text}", (*self.values, *other.values))


def all_of(parts: Sequence[Sql]) -> Sql:
    """Conditions joined by AND."""
    return Sql(" AND ".join(part.text for part in parts) or "1 = 1", tuple(value for part in parts for value in part.values))


def compare(sql: Driver, expression: str, one: Comparison) -> Sql:
    """A comparison of an expression with the value that it is compared with."""
    if one.op in LIST_OPS:
        return Sql(f"{expression} {one.op} ({', '.join('?' * len(one.value))})", tuple(one.value))
    if one.op in ("LIKE", "ILIKE"):
        return sql.like(expression, one.value, any_case=one.op == "ILIKE", make=Sql)
    return Sql(f"{expression} {one.op} ?", (one.value,))


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def search_runs(
    ledger: Ledger,
    experiment_ids: Sequence[str],
    text: str = "",
    *,
    view: str = "ACTIVE_ONLY",
    order_by: Sequence[str] = (),
    max_results: int | None = None,
    page_token: str = "",
) -> tuple[list[Run], str | None]:
    """A page of runs and the token of the next. Without an order, and among equals: the newest first, then by id. Missing values come
    last, and just before them those that are not numbers. Raises DataError."""
    size = page_size(max_results, 1_000, 50_000)
    if view not in STAGES:
        raise DataError(f"Invalid run_view_type {view!r}", available=list(STAGES))
    wanted, orders = parse(text, RUNS), parse_order(order_by, RUNS)
    numbers = experiment_numbers(experiment_ids)
    if not numbers:
        return [], None
    with ledger.records.snapshot() as sql:
        after = read_token(page_token, _Place) if page_token else None
        walk = _Walk(sql, numbers, STAGES[view], wanted, orders, after)
        rows = walk.rows(size + 1)
        more, rows = len(rows) > size, rows[:size]
        runs = runs_of(sql, [row[:10] for row in rows])
        return runs, write_token(walk.place(rows[-1])) if more else None


class _Walk:
    """The rows of a search in their order: COLUMNS, then rank (0 a value, 1 not a number, 2 missing) and value of the first order."""

    def __init__(
        self,
        sql: Driver,
        experiments: list[int],
        stages: Sequence[str],
        wanted: list[Comparison],
        orders: list[Order],
        after: _Place | None,
    ) -> None:
        self.sql, self.experiments, self.stages, self.wanted, self.orders = sql, experiments, stages, wanted, orders
        self.skips = after is not None and after.skips
        self.skipped = after.number if after is not None and self.skips else 0
        self.after = None if after is None or self.skips else after[1:]

    def rows(self, size: int) -> list[tuple[Any, ...]]:
        """The first `size` rows after the page before."""
        one = self.orders[0] if len(self.orders) == 1 else None
        by_start = not self.orders or (one is not None and (one.kind, one.key) == ("attribute", "start_time"))
        by_metric = one is not None and one.kind == "metric"
        few = self._few(size, walks=by_start or by_metric) if self.after is None else None
        self.skips = self.skips or few is not None or not (by_start or by_metric)
        if self.skips:
            return self._sorted(size, few or self._foremost(size))
        if by_start:
            return self._by_start(size, descending=one is None or one.descending)
        assert one is not None
        return self._by_metric(one, size)

    def place(self, row: tuple[Any, ...]) -> _Place:
        """Where a row stands, for the token of the next page."""
        return _Place(True, row[11]) if self.skips else _Place(False, row[10], row[11], row[6], row[1])

    def _conditions(self, run: str = "r.execution") -> list[Sql]:
        """What a row must fulfil; `run` is the column that names the run earliest."""
        marks = ", ".join("?" * len(self.experiments))
        where = [Sql(f"r.experiment IN ({marks})", tuple(self.experiments))]
        if len(self.stages) == 1:
            where.append(Sql("r.stage = ?", tuple(self.stages)))
        return [*where, *(self._condition(one, run) for one in self.wanted)]

    def _condition(self, one: Comparison, run: str) -> Sql:
        if one.kind == "attribute":
            return compare(self.sql, _RUN[one.key], one)
        if one.kind == "dataset":
            column = "i.context" if one.key == "context" else f"d.{one.key}"
            inner = f"SELECT 1 FROM run_input AS i JOIN run_dataset AS d ON d.id = i.dataset WHERE i.run = {run} AND "
            return Sql(f"EXISTS ({inner}") + compare(self.sql, column, one) + Sql(")")
        if one.kind == "model":
            column = "m.id" if one.key == "model_id" else "m.name"
            own = f"m.run = r.uid OR m.id IN (SELECT model FROM run_model WHERE run = {run})"
            inner = f"SELECT 1 FROM logged_model AS m WHERE ({own}) AND m.stage = 'active' AND "
            return Sql(f"EXISTS ({inner}") + compare(self.sql, column, one) + Sql(")")
        if one.kind == "metric":
            inner = f"SELECT 1 FROM metric_latest AS l WHERE l.run = {run} AND l.name = ? AND l.nan = 0 AND "
            return Sql(f"EXISTS ({inner}", (self._metric(one.key),)) + compare(self.sql, "l.value", one) + Sql(")")
        there = Sql(f"EXISTS (SELECT 1 FROM {one.kind} AS p WHERE p.run = {run} AND p.key = ?", (one.key,))
        if one.value is None:
            return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
        return there + Sql(" AND ") + compare(self.sql, "p.value", one) + Sql(")")

    def _metric(self, name: str) -> int:
        row = self.sql.one("SELECT id FROM metric_name WHERE name = ?", (name,))
        return int(row[0]) if row else -1

    def _foremost(self, size: int) -> Sql | None:
        """The runs that may stand on this page, where runs are ordered by a metric first: those up to the value with which it is full,
        all that share it among them. None where that is many."""
        one = self.orders[0] if self.orders else None
        if one is None or one.kind != "metric" or self.skipped + size > FEW:
            return None
        rows = self._values(self._metric(one.key), 0, None, self.skipped + size, one.descending)
        if len(rows) < self.skipped + size:
            return None
        found = self._indexed(Comparison("metric", one.key, ">=" if one.descending else "<=", rows[-1][11]))
        return found if found is not None and self._count(found) <= FEW else None

    def _few(self, size: int, *, walks: bool) -> Sql | None:
        """The runs that the narrowest filter leaves, where to look them up and sort them is less than to walk on until a page is full,
        or where there is no way to walk."""
        counts = [(self._count(found), found) for one in self.wanted if (found := self._indexed(one)) is not None]
        narrow = [(count, found) for count, found in counts if count <= FEW]
        if not narrow:
            return None
        row = self.sql.one("SELECT count(*) FROM run")
        total, share = max(int(row[0]) if row else 1, 1), 1.0
        for count, _ in narrow:
            share *= count / total
        count, found = min(narrow, key=lambda pair: pair[0])
        return found if not walks or not share or count <= size / share else None

    def _count(self, found: Sql) -> int:
        row = self.sql.one(f"SELECT count(*) FROM (SELECT 1 FROM ({found.text}) AS a LIMIT {FEW + 1}) AS b", found.values)
        return int(row[0]) if row else 0

    def _indexed(self, one: Comparison) -> Sql | None:
        if one.kind == "metric" and one.op != "!=":
            marks = ", ".join("?" * len(self.experiments))
            inner = f"SELECT run FROM metric_latest WHERE experiment IN ({marks}) AND name = ? AND nan = 0 AND "
            return Sql(inner, (*self.experiments, self._metric(one.key))) + compare(self.sql, "value", one)
        if one.kind in ("param", "tag") and one.op == "=":
            # written plainly, `value = ?` would be put into substr(value, …) by SQLite, which then no longer knows its index
            inner = f"SELECT run FROM {one.kind} WHERE key = ? AND substr(value, 1, 64) = ? AND value || '' = ?"
            return Sql(inner, (one.key, one.value[:64], one.value))
        return None

    # Each way gives rows in one order; a page that a way does not fill goes on in the next.

    def _by_start(self, size: int, *, descending: bool) -> list[tuple[Any, ...]]:
        where = self._conditions()
        if self.after is not None:
            _, _, start, uid = self.after
            where.append(Sql(f"(r.started_at {'<' if descending else '>'} ? OR (r.started_at = ? AND r.uid > ?))", (start, start, uid)))
        chosen = all_of(where)
        columns = COLUMNS.replace(" FROM", ", 0, NULL FROM", 1)
        query = f"SELECT {columns} WHERE {chosen.text} ORDER BY r.started_at {_to(descending)}, r.uid LIMIT ?"
        return self.sql.all(query, (*chosen.values, size))

    def _by_metric(self, order: Order, size: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        name, start_rank = self._metric(order.key), 0 if self.after is None else self.after[0]
        for rank in range(start_rank, 3):
            after = self.after if rank == start_rank else None
            way: Callable[..., list[tuple[Any, ...]]] = self._values if rank < 2 else self._missing
            found += way(name, rank, after, size - len(found), order.descending)
            if len(found) >= size:
                break
        return found

    def _values(
        self, name: int, rank: int, after: tuple[int, float | None, int, str] | None, size: int, descending: bool
    ) -> list[tuple[Any, ...]]:
        """Runs with a value (rank 0), or with one that is no number (1)."""
        found: list[tuple[Any, ...]] = []
        where = self._conditions("o.run")[1:]
        if after is not None:
            _, value, start, uid = after
            then = Sql("o.value = ? AND (r.started_at < ? OR (r.started_at = ? AND r.uid > ?))", (value, start, start, uid))
            where.append(Sql(f"(o.value {'<' if descending else '>'} ? OR (", (value,)) + then + Sql("))"))
            where.append(Sql(f"o.value {'<=' if descending else '>='} ?", (value,)))  # from here on in the index
        chosen = all_of(where)
        columns = COLUMNS.replace(" FROM run AS r", f", {rank}, o.value FROM metric_latest AS o CROSS JOIN run AS r", 1)
        columns = columns.replace(" JOIN execution AS e ON e.id = r.execution", " CROSS JOIN execution AS e")
        for experiment in self.experiments:
            query = (
                f"SELECT {columns} WHERE o.experiment = ? AND o.name = ? AND o.nan = ? AND r.execution = o.run AND e.id = r.execution "
                f"AND {chosen.text} ORDER BY o.value {_to(descending)}, r.started_at DESC, r.uid LIMIT ?"
            )
            found += self.sql.all(query, (experiment, name, rank, *chosen.values, size))
        if len(self.experiments) > 1:
            found.sort(key=lambda row: ((-row[11] if descending else row[11]), -row[6], row[1]))
        return found[:size]

    def _missing(
        self, name: int, rank: int, after: tuple[int, float | None, int, str] | None, size: int, descending: bool
    ) -> list[tuple[Any, ...]]:
        where = [
            *self._conditions(),
            Sql("NOT EXISTS (SELECT 1 FROM metric_latest AS o WHERE o.run = r.execution AND o.name = ?)", (name,)),
        ]
        if after is not None:
            where.append(Sql("(r.started_at < ? OR (r.started_at = ? AND r.uid > ?))", (after[2], after[2], after[3])))
        chosen = all_of(where)
        query = f"SELECT {COLUMNS.replace(' FROM', ', 2, NULL FROM')} WHERE {chosen.text} ORDER BY r.started_at DESC, r.uid LIMIT ?"
        return self.sql.all(query, (*chosen.values, size))

    def _sorted(self, size: int, few: Sql | None) -> list[tuple[Any, ...]]:
        """Any order: all that matches is sorted, and the rows of the pages before are skipped."""
        joins, keys = Sql(""), []
        for i, order in enumerate(self.orders):
            join, rank, value = self._key(order, f"k{i}")
            joins += join
            keys += [rank, f"{value} {_to(order.descending)}"]
        where = self._conditions()
        if few is not None:
            where = [Sql("r.execution IN (") + few + Sql(")"), *where]
        chosen = all_of(where)
        sort = ", ".join([*keys, "r.started_at DESC", "r.uid"])
        used = any(column in f"{sort} {chosen.text}" for column in ("e.status", "e.ended_at"))
        ended = "JOIN execution AS e ON e.id = r.execution" if used else ""
        query = f"SELECT r.execution FROM run AS r {ended}{joins.text} WHERE {chosen.text} ORDER BY {sort} LIMIT ? OFFSET ?"
        found = [row[0] for row in self.sql.all(query, (*joins.values, *chosen.values, size, self.skipped))]
        rows = {row[0]: row for row in rows_of(self.sql, found)}  # only now: what is sorted is as narrow as can be
        return [(*rows[one], 0, self.skipped + i + 1) for i, one in enumerate(found)]

    def _key(self, order: Order, name: str) -> tuple[Sql, str, str]:
        """(join, rank, value) of one key of a sort."""
        if order.kind == "attribute":
            value = _RUN[order.key]
            return Sql(""), f"CASE WHEN {value} IS NULL THEN 2 ELSE 0 END", value
        if order.kind == "metric":
            join = Sql(f" LEFT JOIN metric_latest AS {name} ON {name}.run = r.execution AND {name}.name = ?", (self._metric(order.key),))
            return join, f"CASE WHEN {name}.run IS NULL THEN 2 ELSE {name}.nan END", f"{name}.value"
        join = Sql(f" LEFT JOIN {order.kind} AS {name} ON {name}.run = r.execution AND {name}.key = ?", (order.key,))
        return join, f"CASE WHEN {name}.run IS NULL THEN 2 ELSE 0 END", f"{name}.value"


def _to(descending: bool) -> str:
    return "DESC" if descending else "ASC"


# ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────


def search_experiments(
    ledger: Ledger,
    text: str = "",
    *,
    view: str = "ACTIVE_ONLY",
    order_by: Sequence[str] = (),
    max_results: int | None = None,
    page_token: str = "",
) -> tuple[list[Experiment], str | None]:
    """A page of experiments and the token of the next; the newest first where no order is given. Raises DataError."""
    size = page_size(max_results, 1_000, 50_000)
    if view not in STAGES:
        raise DataError(f"Invalid view_type {view!r}", available=list(STAGES))
    wanted, orders = parse(text, EXPERIMENTS), parse_order(order_by, EXPERIMENTS)
    stages = STAGES[view]
    before = rows_before(page_token)
    with ledger.records.snapshot() as sql:
        where = [Sql(f"stage IN ({', '.join('?' * len(stages))})", stages), *(_experiment_condition(sql, one) for one in wanted)]
        chosen = all_of(where)
        keys = [f"{_EXPERIMENT[order.key]} {_to(order.descending)}" for order in orders if order.kind == "attribute"]
        sort = ", ".join([*(keys or ["created_at DESC"]), "id DESC" if not keys else "id"])
        query = f"SELECT {EXPERIMENT_COLUMNS} FROM experiment WHERE {chosen.text} ORDER BY {sort} LIMIT ? OFFSET ?"
        rows = sql.all(query, (*chosen.values, size + 1, before))
        return experiments_of(sql, rows[:size]), write_token([before + size]) if len(rows) > size else None


def _experiment_condition(sql: Driver, one: Comparison) -> Sql:
    if one.kind == "attribute":
        return compare(sql, _EXPERIMENT[one.key], one)
    there = Sql("EXISTS (SELECT 1 FROM experiment_tag AS t WHERE t.experiment = experiment.id AND t.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    return there + Sql(" AND ") + compare(sql, "t.value", one) + Sql(")")


def search_datasets(ledger: Ledger, experiment_ids: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """(experiment, name, digest, context) of the datasets that runs of these experiments read."""
    with ledger.records.snapshot() as sql:
        numbers = [number_of(sql, one) for one in experiment_ids]
        query = (
            "SELECT DISTINCT d.experiment, d.name, d.digest, i.context FROM run_dataset AS d JOIN run_input AS i ON i.dataset = d.id "
            f"WHERE d.experiment IN ({', '.join('?' * len(numbers))}) ORDER BY 1, 2, 3, 4 LIMIT 1000"
        )
        return [(str(e), name, digest, context) for e, name, digest, context in (sql.all(query, numbers) if numbers else [])]
