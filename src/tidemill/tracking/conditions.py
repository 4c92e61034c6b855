"""Comparisons as SQL: what a row must fulfil, and which index knows the rows that do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.store import Driver
from tidemill.tracking.filters import LIST_OPS, NUMBER_OPS, Comparison
from tidemill.tracking.runs import STATUS

IS_NAN, IS_NULL = "IS NAN", "IS NULL"  # the first is of the search itself, and no filter's
RUN = {
    "run_id": "r.uid",
    "run_name": "r.name",
    "user_id": "r.who",
    "status": "CASE e.status " + " ".join(f"WHEN '{ours}' THEN '{theirs}'" for theirs, ours in STATUS.items()) + " END",
    "artifact_uri": "r.location",
    "experiment_id": "CAST(r.experiment AS TEXT)",
    "start_time": "r.started_at",
    "end_time": "(e.ended_at / 1000)",
}
_BY = {"run_id": ("SELECT execution FROM run", "uid"), "end_time": ("SELECT id FROM execution", "(ended_at / 1000)")}  # and the start
_NARROW = {*NUMBER_OPS, "IN"} - {"!="}
FEW = 20_000  # only a filter that leaves no more runs than this is looked up first
MANY = 10_000  # more runs than this that are alike in the first key of an order are a search of their own
SMALL = 20  # to read so many runs of an experiment costs what it costs to ask for them
PREFIX = 64  # so many signs of a value are in the index


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


class Conditions:
    """What is asked of the runs of some experiments, in an open transaction."""

    def __init__(self, sql: Driver, experiments: Sequence[int], stages: Sequence[str]) -> None:
        self._sql, self._stages = sql, stages
        self.among = Sql(f"IN ({', '.join('?' * len(experiments))})", tuple(experiments))
        self._counts: dict[Sql, int] = {}

    def of(self, wanted: Sequence[Comparison], run: str = "r.execution") -> list[Sql]:
        """What a row must fulfil besides its experiment; `run` is the column that names the run earliest."""
        stage = [Sql("r.stage = ?", tuple(self._stages))] if len(self._stages) == 1 else []
        return [*stage, *(self._condition(one, run) for one in wanted)]

    def _condition(self, one: Comparison, run: str) -> Sql:
        if one.kind == "attribute":
            return Sql(f"{RUN[one.key]} IS NULL") if one.op == IS_NULL else compare(self._sql, RUN[one.key], one)
        if one.kind == "dataset":
            column = "i.context" if one.key == "context" else f"d.{one.key}"
            inner = f"SELECT 1 FROM run_input AS i JOIN run_dataset AS d ON d.id = i.dataset WHERE i.run = {run} AND "
            return Sql(f"EXISTS ({inner}") + compare(self._sql, column, one) + Sql(")")
        if one.kind == "model":
            column = "m.id" if one.key == "model_id" else "m.name"
            own = f"m.run = r.uid OR m.id IN (SELECT model FROM run_model WHERE run = {run})"
            inner = f"SELECT 1 FROM logged_model AS m WHERE ({own}) AND m.stage = 'active' AND "
            return Sql(f"EXISTS ({inner}") + compare(self._sql, column, one) + Sql(")")
        if one.kind == "metric":
            there = Sql(f"SELECT 1 FROM metric_latest AS v WHERE v.run = {run} AND v.name = ?", (self.metric(one.key),))
            real = Sql(" AND v.nan = 0 AND ")
        else:
            there = Sql(f"SELECT 1 FROM {one.kind} AS v WHERE v.run = {run} AND v.key = ?", (one.key,))
            real = Sql(" AND ")
        if one.op == IS_NAN:
            there += Sql(" AND v.nan = 1")
        elif one.value is not None:
            there += real + compare(self._sql, "v.value", one)
        return Sql("NOT EXISTS (" if one.op == IS_NULL else "EXISTS (") + there + Sql(")")

    def metric(self, name: str) -> int:
        """The number of a metric's name; -1 where no run has it."""
        row = self._sql.one("SELECT id FROM metric_name WHERE name = ?", (name,))
        return int(row[0]) if row else -1

    def indexed(self, one: Comparison) -> Sql | None:
        """The query for the runs that fulfil a comparison, where an index knows them."""
        if one.kind == "metric" and one.op not in ("!=", IS_NULL):
            inner = Sql("SELECT run FROM metric_latest WHERE experiment ") + self.among + Sql(" AND name = ?", (self.metric(one.key),))
            return inner + (Sql(" AND nan = 1") if one.op == IS_NAN else Sql(" AND nan = 0 AND ") + compare(self._sql, "value", one))
        if one.kind == "attribute" and one.op in _NARROW:
            if one.key == "start_time":
                return (
                    Sql("SELECT execution FROM run WHERE experiment ") + self.among + Sql(" AND ") + compare(self._sql, "started_at", one)
                )
            query, own = _BY.get(one.key, ("", ""))
            return Sql(f"{query} WHERE ") + compare(self._sql, own, one) if query else None
        if one.kind in ("param", "tag") and one.op == "=":
            # written plainly, `value = ?` would be put into substr(value, …) by SQLite, which then no longer knows its index
            query = f"SELECT run FROM {one.kind} WHERE key = ? AND substr(value, 1, {PREFIX}) = ? AND value || '' = ?"
            return Sql(query, (one.key, one.value[:PREFIX], one.value))
        return None

    def few(self, wanted: Sequence[Comparison], ways: Sequence[Sql], most: float) -> Sql | None:
        """The runs that the narrowest filter leaves (or the narrowest of `ways`, queries for runs too), where these are fewer than those
        that a walk meets until it has found `most` that fulfil everything."""
        counts = [(self.count(found), found) for found in [*ways, *filter(None, map(self.indexed, wanted))]]
        narrow = [(count, found) for count, found in counts if count <= FEW]
        if not narrow:
            return None
        row = self._sql.one("SELECT count(*) FROM run")
        total, share = max(int(row[0]) if row else 1, 1), 1.0
        for count, _ in narrow:
            share *= count / total
        count, found = min(narrow, key=lambda pair: pair[0])
        return found if not share or count <= most / share else None

    def small(self, found: Sql, experiments: int) -> bool:
        """Whether the runs of so many experiments are as soon looked up as each experiment is asked."""
        return self.count(found) <= min(FEW, SMALL * experiments)

    def many(self, found: Sql) -> bool:
        """Whether a query finds more than MANY rows."""
        return self._sql.one(f"{found.text} LIMIT 1 OFFSET {MANY}", found.values) is not None

    def count(self, found: Sql) -> int:
        """How many runs a query finds, counted no further than it matters."""
        if found not in self._counts:
            row = self._sql.one(f"SELECT count(*) FROM (SELECT 1 FROM ({found.text}) AS a LIMIT {FEW + 1}) AS b", found.values)
            self._counts[found] = int(row[0]) if row else 0
        return self._counts[found]
