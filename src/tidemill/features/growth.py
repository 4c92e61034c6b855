"""What a newer version of a view has that an older one has not, in time: answers of before that hold still."""

from typing import TYPE_CHECKING

import numpy as np

from tidemill.core import Array
from tidemill.data import engine, quote
from tidemill.features.views import ViewLog

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def differ_since(one: ViewLog, other: ViewLog) -> int | None:
    """From which knowledge time on (microseconds UTC) two versions of a view hold other events, None where they hold the same: a read at a
    time before it gives equal values from both."""
    with engine() as connection:
        for name, log in (("one", one), ("other", other)):
            _register(connection, name, log)
        beside = "(FROM one EXCEPT ALL FROM other) UNION ALL (FROM other EXCEPT ALL FROM one)"
        row = connection.execute(f"SELECT min({quote('known')}) FROM ({beside})").fetchone()
    return int(row[0]) if row and row[0] is not None else None


def _register(connection: "DuckDBPyConnection", name: str, log: ViewLog) -> None:
    """The events of a view as a table: entities and categories by their words, since numbers change with the version."""
    words = np.array([*log.entities, None], dtype=object)
    columns: dict[str, Array] = {"entity": words[log.events.entity], "event": log.events.event, "known": log.events.known}
    for column, values in log.columns.items():
        columns[column] = _texts(log, column, values) if log.view.kept[column][1] == "text" else values
    connection.register("columns", columns)
    texts = {"entity", *(column for column, values in columns.items() if values.dtype == object)}
    shown = (f"CAST({quote(column)} AS VARCHAR) AS {quote(column)}" if column in texts else quote(column) for column in columns)
    connection.execute(f"CREATE TABLE {name} AS SELECT {', '.join(shown)} FROM columns")
    connection.unregister("columns")


def _texts(log: ViewLog, column: str, codes: Array) -> Array:
    """The words of a column; None for nothing."""
    known = next((log.vocabularies[full] for full in log.view.names_of(column.partition(":")[2]) if full in log.vocabularies), ())
    place: Array = np.nan_to_num(codes, nan=len(known)).astype(np.int64)
    return np.array([*known, None], dtype=object)[place]
