"""The answers of a deployment as one table: typed columns, a column for each feature, and beside each answer what people said of it."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill import data
from tidemill.serving.dataset import FOREVER, Log, answers_at, day_of
from tidemill.serving.feedback import feedback_of
from tidemill.serving.lines import FEEDBACK, rows_sql, write_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOLD = ("id", "asked", "at", "key", "probability", "version", "rung", "branch", "route", "request", "latency_us", "features_from")
SAID = ("label", "comment", "labelled_at")
LAST = """
    SELECT id, arg_max(label, place) FILTER (label IS NOT NULL) AS label, arg_max(comment, place) FILTER (comment <> '') AS comment,
        max(labelled_at) AS labelled_at FROM feedback GROUP BY id"""


@dataclass(frozen=True)
class PredictionTable:
    """Answers as an Arrow stream, as often as it is asked for: `polars.DataFrame(x)`, `pyarrow.table(x)` and pandas'
    `DataFrame.from_arrow(x)` take it. `columns` are their names."""

    columns: Sequence[str]
    _sql: str
    _connection: "DuckDBPyConnection"
    _kept: ExitStack = field(repr=False)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an `ArrowArrayStream`."""
        cursor = self._connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        return cursor.sql(self._sql).__arrow_c_stream__(requested_schema)


def prediction_table(path: Path, since: int = 0, until: int = FOREVER) -> PredictionTable:
    """The answers of a log that were asked in [since, until) (microseconds UTC), wherever they lie, in the order of the log."""
    with ExitStack() as last:
        connection = last.enter_context(data.engine())
        answers = answers_at(path)
        _view(connection, answers, since, until)
        _view(connection, Log(feedback_of(path), path.parent, FEEDBACK), 0, FOREVER)
        names = {kind: _names(connection, kind) for kind in ("features", "categories")}
        features = dict.fromkeys(sorted({*names["features"], *names["categories"]}))
        told = [f"p.{data.quote(name)}" for name in TOLD] + [f"f.{name}" for name in SAID]
        as_column = {name: name if name not in (*TOLD, *SAID, "sent") else f"feature.{name}" for name in features}
        told += [f"{_feature(name, names['categories'])} AS {data.quote(column)}" for name, column in as_column.items()]
        when = f"epoch_us(p.asked) >= {since} AND epoch_us(p.asked) < {until}"
        sql = f"SELECT {', '.join(told)}, p.sent FROM predictions p LEFT JOIN ({LAST}) f USING (id) WHERE {when} ORDER BY p.place"
        return PredictionTable([*TOLD, *SAID, *as_column.values(), "sent"], sql, connection, last.pop_all())


def _feature(name: str, texts: Sequence[str]) -> str:
    """SQL for a feature: a number, or a text where any answer has one."""
    number, text = f"p.features[{data.literal(name)}]", f"p.categories[{data.literal(name)}]"
    return f"coalesce({text}, CAST({number} AS VARCHAR))" if name in texts else number


def _names(connection: "DuckDBPyConnection", column: str) -> list[str]:
    return [row[0] for row in connection.execute(f"SELECT DISTINCT unnest(map_keys({column})) FROM predictions").fetchall()]


def _view(connection: "DuckDBPyConnection", log: Log, since: int, until: int) -> None:
    """All rows of a log as a view by the name of its form: those in files are taken now, and those in the table are read later."""
    name, types = log.form.name, {**log.form.columns, data.PLACE: "BIGINT"}
    nulls = ", ".join(f"NULL::{kind} AS {data.quote(column)}" for column, kind in types.items())
    connection.execute(f"CREATE TABLE {name}_live AS SELECT {nulls} LIMIT 0")
    with ExitStack() as last, tempfile.TemporaryDirectory(prefix="tidemill-") as scratch:
        opened, rows = log.open(last), Path(scratch) / "rows.json"
        for number, (file, begin) in enumerate(opened.files):
            file.seek(begin)
            if write_rows(log.form, file, (number + 1) << 48, FOREVER, rows)[1]:  # behind those of the table
                connection.execute(f"INSERT INTO {name}_live BY NAME {rows_sql(log.form, rows)}")
    files = [one.path for one in opened.table.of(log.deployment, day_of(since), day_of(until))] if opened.table else []
    sql = f"SELECT * FROM {name}_live"
    if files:
        stored = f"read_parquet([{', '.join(map(data.named, files))}], union_by_name = true, hive_partitioning = false)"
        sql = f"{sql} UNION ALL BY NAME SELECT * FROM {stored}"
    connection.execute(f"CREATE VIEW {name} AS {sql}")
