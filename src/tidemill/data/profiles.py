"""What the columns of a version hold, in numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill.data.engine import quote
from tidemill.data.erased import is_number

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FEW = 10_000  # different values of a column that are counted
AT_ONCE = 50  # aggregates that are computed together


def profile(connection: "DuckDBPyConnection", rows: str, types: Mapping[str, str]) -> dict[str, Any]:
    """Counts and ranges. How many different values a column has is exact up to `FEW`; beyond, it is an estimate, right within some per cent
    (HyperLogLog; Flajolet et al., 2007), which is a tenth of the work."""
    head = ("count(*)", "min(__event)", "max(__event)", "max(__known)")
    asked = {name: ["count(*) - count({0})", "least(approx_count_distinct({0}), count({0}))"] for name in types}
    for name, kind in types.items():
        asked[name] += ["min({0})::DOUBLE", "max({0})::DOUBLE", "avg({0}::DOUBLE)"] if is_number(kind) or kind == "BOOLEAN" else []
    columns = [(name, one.format(quote(name))) for name, some in asked.items() for one in some]
    shown: dict[str, list[Any]] = {name: [] for name in types}
    for (name, _), value in zip(columns, _ask(connection, rows, [sql for _, sql in columns]), strict=True):
        shown[name].append(value)
    few = [name for name, (_, distinct, *_) in shown.items() if distinct <= FEW * 1.25]  # an estimate may be too high
    for name, distinct in zip(few, _ask(connection, rows, [f"count(DISTINCT {quote(name)})" for name in few]), strict=True):
        shown[name][1] = distinct
    told = {name: dict(zip(("nulls", "distinct", "min", "max", "mean"), some, strict=False)) for name, some in shown.items()}
    found = zip(("rows", "first_event", "last_event", "last_known"), _ask(connection, rows, head), strict=True)
    return {**dict(found), "profile": told}


def _ask(connection: "DuckDBPyConnection", rows: str, aggregates: Sequence[str]) -> list[Any]:
    """The values of aggregates over rows, some at a time: the engine takes far longer for many at once."""
    parts = [aggregates[i : i + AT_ONCE] for i in range(0, len(aggregates), AT_ONCE)]
    return [value for part in parts for value in connection.execute(f"SELECT {', '.join(part)} FROM {rows}").fetchone() or ()]
