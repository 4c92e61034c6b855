"""The rows that are to be scored, in the engine: what each says, the digest of that, and its time. Read some at a time, by columns.

Two numbers of 64 bits are a row's digest, so that a million rows have theirs in a tenth of a second; texts are in it by their MD5. It is of
what a row says, not of its columns' width: a file whose whole numbers have grown says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Array, Ints, digest_value
from tidemill.data import explained, literal, quote
from tidemill.features import Brought, open_rows, time_sql, types_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNTIMED = np.iinfo(np.int64).min  # the time of a row that has none
WHOLE = {f"{sign}{size}": "BIGINT" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER")} | {"BIGINT": "BIGINT"}
FLOATING = ("FLOAT", "DOUBLE")
PLAIN = {*WHOLE, *FLOATING, "UBIGINT", "HUGEINT", "UHUGEINT", "BOOLEAN", "VARCHAR"}  # types whose values are as JSON has them


@dataclass(frozen=True)
class When:
    """The times of rows: those of a `column` (in `timezone`, where they state none), one `time` for all (microseconds UTC), or of each its
    own prediction time."""

    column: str = ""
    time: int | None = None
    timezone: str = ""

    @property
    def own(self) -> bool:
        """Whether each row has its own."""
        return not self.column and self.time is None


@dataclass(frozen=True)
class Asked:
    """The table `asked`: `d1`, `d2`, `at` and the columns of `types`, in the order of the rows. `left_out` are columns that are not read.
    Of a row of features (`given`) a DECIMAL is a number, otherwise a text, as a client would send it."""

    connection: "DuckDBPyConnection"
    types: Mapping[str, str]
    given: bool
    left_out: Sequence[str]

    @classmethod
    def of(cls, connection: "DuckDBPyConnection", brought: Brought, columns: Sequence[str], when: When, *, given: bool) -> "Asked":
        """Read rows, of `columns` those that they have. Raises DataError."""
        opened = open_rows(connection, brought.given, [when.column] if when.column else [], whole=True)
        types = types_of(connection, opened)
        read = {name: types[name] for name in columns if name in types}
        at = time_sql(opened.what, when.column, types[when.column], when.timezone) if when.column else str(when.time)
        shown = {"at": f"coalesce(CAST({'NULL' if when.own else at} AS BIGINT), {UNTIMED})", **{f"c:{name}": quote(name) for name in read}}
        with explained(f"{opened.what} cannot be read", str(brought.file)):
            rows = f"SELECT {', '.join(f'{sql} AS {quote(name)}' for name, sql in shown.items())} FROM {opened.table}"
            connection.execute(f"CREATE TABLE asked AS SELECT {_digests(read)}, * FROM ({rows})")
        return cls(connection, read, given, [name for name in opened.names if name not in (*read, when.column)])

    def some(self, numbers: Ints) -> "Chunk":
        """Rows by their numbers, which ascend."""
        return Chunk(self, numbers)

    def sent(self, name: str) -> str:
        """SQL for a column as a client would send it: times as texts."""
        kind = self.types[name]
        if kind in PLAIN or kind.endswith("[]") or kind.startswith("STRUCT"):
            return quote(f"c:{name}")
        return f"CAST({quote(f'c:{name}')} AS {'DOUBLE' if self.given and kind.startswith('DECIMAL') else 'VARCHAR'})"


@dataclass(frozen=True)
class Chunk:
    """Some rows, by their `numbers` (n,) among all."""

    asked: Asked
    numbers: Ints

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, some: Any) -> "Chunk":
        """Some of them: a slice, or which."""
        return Chunk(self.asked, self.numbers[some])

    @property
    def table(self) -> str:
        """SQL for these rows, in their order. It holds until another chunk is asked for its own."""
        first, last = int(self.numbers[0]), int(self.numbers[-1])
        near = f"rowid >= {first} AND rowid <= {last}"
        if last - first + 1 == len(self):
            return f"(SELECT * FROM asked WHERE {near})"
        self.asked.connection.register("chosen", {"r": self.numbers})
        return f"(SELECT * FROM asked WHERE {near} AND rowid IN (SELECT r FROM chosen) ORDER BY rowid)"

    def columns(self, shown: Mapping[str, str]) -> dict[str, Array]:
        """Columns (n,), from SQL by name."""
        columns = ", ".join(f"{sql} AS {quote(name)}" for name, sql in shown.items())
        return dict(self.asked.connection.execute(f"SELECT {columns} FROM {self.table}").fetchnumpy())

    @property
    def at(self) -> Ints:
        """The times of the rows; UNTIMED where there is none."""
        return np.asarray(self.columns({"at": quote("at")})["at"], dtype=np.int64)

    def rows(self) -> list[dict[str, Any]]:
        """The rows as a client would send them."""
        names = list(self.asked.types)
        shown = ", ".join(self.asked.sent(name) for name in names)
        found = self.asked.connection.execute(f"SELECT {shown} FROM {self.table}").fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]

    def values(self, name: str) -> list[Any]:
        """A column as a client would send it."""
        return [row[0] for row in self.asked.connection.execute(f"SELECT {self.asked.sent(name)} FROM {self.table}").fetchall()]


def _digests(types: Mapping[str, str]) -> str:
    """SQL for the digest of what a row says."""
    import duckdb

    kinds = [[name, WHOLE.get(kind, "DOUBLE" if kind in FLOATING else kind)] for name, kind in types.items()]
    salt = literal(digest_value([*kinds, duckdb.__version__]))  # the engine may spread bits otherwise one day
    one, two = [quote("at"), salt], [salt, quote("at")]
    for name, kind in types.items():
        column = quote(f"c:{name}")
        if kind in WHOLE:
            parts = [f"CAST({column} AS BIGINT)"] * 2
        elif kind in FLOATING:
            number = f"CAST({column} AS DOUBLE)"
            parts = [number, f"{number}, ({number} = 0 AND signbit({number}))"]  # both zeros are one to the engine, and not to a model
        elif kind in PLAIN or kind.startswith(("DECIMAL", "DATE", "TIMESTAMP")):
            parts = [column, f"md5_number({column})" if kind == "VARCHAR" else column]
        else:
            parts = [f"CAST({column} AS VARCHAR)", f"md5_number(CAST({column} AS VARCHAR))"]
        one, two = [*one, parts[0]], [parts[1], *two]
    return f"hash({', '.join(one)}) AS d1, hash({', '.join(two)}) AS d2"
