"""Request features of rows that somebody brings: the engine computes them for all rows, and they are held against what one request gives.

Comes in: rows with the columns that the expressions of a request view read. Goes out: a column for each feature, as at serving.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Array, Coded
from tidemill.data import Column, Columns, explained, fetch, quote
from tidemill.features.declarations import RequestView
from tidemill.features.expressions import columns_read
from tidemill.features.frames import Given
from tidemill.features.matching import column_sql
from tidemill.features.own import TYPES, OwnColumns
from tidemill.features.request_build import COMPARED, compare
from tidemill.features.requests import view_columns, with_functions

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NOTHING = {"__none": "INTEGER"}  # what a constant reads: the engine knows no row without a column


@dataclass(frozen=True)
class Computed:
    """A request view that is asked of rows: the types of the columns that it reads, and what computes it for one row."""

    view: RequestView
    types: Mapping[str, str]
    own: OwnColumns

    @classmethod
    def of(cls, view: RequestView, types: Mapping[str, str]) -> "Computed":
        """A view over the columns of its dataset. Raises DefinitionError, with file and line, for what cannot be computed for one row."""
        plain = {name: kind for name, kind in types.items() if not name.startswith("__")}
        columns = view_columns(view, plain)
        OwnColumns.over(view.dataset, plain, [view], columns)
        read = {name: plain[name] for name in columns_read(plain, [sql for sql, _ in columns.values()])}
        return cls(view, read, OwnColumns.over(view.dataset, read or NOTHING, [view], columns))

    def values(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """The features of a few rows, as one request gives them: None for nothing. Raises DataError for a missing or mistyped column."""
        sent = rows if self.types else [dict.fromkeys(NOTHING)] * len(rows)
        found = {name.removeprefix("x:"): column for name, column in self.own.features(sent).items()}
        columns = [found[name] for name in self.view.names]
        texts = [column.texts() if isinstance(column, Coded) else column.tolist() for column in columns]
        return [[None if value != value else value for value in row] for row in zip(*texts, strict=True)]  # NaN is not itself

    @property
    def _table(self) -> str:
        return quote(f"own {self.view.name}")

    def ask(self, connection: "DuckDBPyConnection", given: Given, types: Mapping[str, str], timezone: str) -> None:
        """Make a table of what is computed of the rows, in their order. Raises DataError for a column of another type, and DefinitionError
        where one row by itself gives something else."""
        place = self.view.dataset.timezone
        casts = [column_sql(given.what, name, types[name], kind, timezone, place) for name, kind in self.types.items()]
        columns = [
            *(f"NULL AS {name}" for name in NOTHING),
            *(f"{sql} AS {quote(name)}" for sql, name in zip(casts, self.types, strict=True)),
        ]
        rows = f"SELECT {', '.join(columns)} FROM {given.table}"
        shown = [f"CAST(({sql}\n) AS {TYPES[kind]}) AS {quote(name)}" for name, (sql, kind) in self.own.columns.items()]
        sent = [f"CAST({quote(name)} AS VARCHAR) AS {quote(f'c:{name}')}" for name in self.own.types]
        with explained(f"view {self.view.name!r} cannot be computed of {given.what}", str(self.view.where)):
            kinds = {name: kind for name, (_, kind) in self.own.columns.items()} | {f"c:{name}": "text" for name in self.own.types}
            some = fetch(connection, f"SELECT {', '.join([*shown, *sent])} FROM ({rows} LIMIT {COMPARED})", kinds)
            connection.execute(f"CREATE TABLE {self._table} AS SELECT {', '.join(shown)} FROM ({rows})")
        compare(self.own, some, str(self.view.where))

    def read(self, connection: "DuckDBPyConnection", some: str) -> dict[str, Array]:
        """The features of some of the rows."""
        kinds = {name: kind for name, (_, kind) in self.own.columns.items()}
        raw = fetch(connection, f"SELECT * FROM {self._table} WHERE {some} ORDER BY rowid", kinds)
        found: Columns = with_functions([self.view], raw)
        return {name.removeprefix("x:"): _array(column) for name, column in found.items()}


def _array(column: Column) -> Array:
    """Texts as objects, null as None."""
    return np.array([*column.vocabulary, None], dtype=object)[column.codes] if isinstance(column, Coded) else column
