"""A CSV file as `tidemill init` sees it: its columns, what its times, label and keys are as SQL, and clear refusals of what is no table."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core import DataError, DefinitionError, MissingFile, TidemillError
from tidemill.data import (
    CommaNumbers,
    OddValue,
    comma_numbers,
    csv_table,
    engine,
    explained,
    literal,
    load_csv,
    odd_values,
    quote,
    read_as_csv,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Read as null in a column that is else one of numbers, times or truths.
NULLS = (
    *(" ", "  ", "?", "-", "--", "."),
    *("NA", "na", "N/A", "n/a", "n.a.", "<NA>", "NULL", "Null", "null", "None", "none", "nan", "NaN", "NAN", "#N/A", "#DIV/0!", "#VALUE!"),
)
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE")
TIMES = ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_MS", "DATE")
POSITIVE = {"yes", "y", "true", "t", "1", "positive", "pos", "bad", "late", "fraud", "churned", "default", "won", "ja", "oui", "si", "sí"}
# Texts that the engine does not take for times by itself. Where day and month could change places, only one of both fits all rows.
FORMATS = tuple(
    f"{day}{time}"
    for day in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%y")
    for time in ("", " %H:%M", " %H:%M:%S")
)
FEW = 50  # labelled rows, and a fifth of it of each class: with less nothing can be learnt or judged


@dataclass(frozen=True)
class Column:
    """A column of the file: its type, how many rows are null, how many different values there are, and how its texts spell a time."""

    name: str
    type: str
    nulls: int
    distinct: int
    format: str = ""

    @property
    def is_time(self) -> bool:
        return self.type in TIMES or bool(self.format)

    @property
    def is_number(self) -> bool:
        return self.type in NUMBERS or self.type.startswith("DECIMAL")

    @property
    def is_whole(self) -> bool:
        return self.is_number and self.type not in ("FLOAT", "DOUBLE") and not self.type.startswith("DECIMAL")


@dataclass(frozen=True)
class Table:
    """The rows of a file in an engine of their own, as the table `data`."""

    path: Path
    connection: "DuckDBPyConnection"
    rows: int
    columns: tuple[Column, ...]
    null_values: tuple[str, ...]
    reserved: frozenset[str]
    odd: dict[str, OddValue]
    commas: tuple[CommaNumbers, ...]

    def sql(self, name: str) -> str:
        """A column's name as SQL, in quotes only where it needs them."""
        return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in self.reserved else quote(name)

    def get(self, name: str) -> Column | None:
        """A column by name; the case may differ where that is clear."""
        alike = [column for column in self.columns if column.name.casefold() == name.strip().casefold()]
        exact = [column for column in alike if column.name == name]
        return exact[0] if exact else alike[0] if len(alike) == 1 else None

    def need(self, name: str, what: str) -> Column:
        """A column by name; raises DefinitionError."""
        found = self.get(name)
        if found is None:
            raise DefinitionError(f"{what}: there is no column {name!r}", where=str(self.path), available=[c.name for c in self.columns])
        return found

    def one(self, sql: str) -> tuple[Any, ...]:
        """The only row of a query."""
        with explained("the file cannot be looked at", str(self.path)):
            return self.connection.execute(sql).fetchone() or ()


@contextmanager
def opened(path: Path, null: Sequence[str] = ()) -> Iterator[Table]:
    """The table of a CSV file; `null` are texts that stand for null in it, besides the usual ones. Raises MissingFile and DataError."""
    _refuse_what_is_no_file(path)
    with engine() as connection:
        nulls = tuple(dict.fromkeys([*_nulls(connection, path, tuple(null)), *null]))
        load_csv(connection, "data", path, nulls)
        commas = tuple(comma_numbers(connection, "data", path))
        for one in commas:
            connection.execute(f"ALTER TABLE data ALTER COLUMN {quote(one.column)} TYPE DOUBLE USING {one.sql}")
        columns = connection.execute("DESCRIBE data").fetchall()
        rows = (connection.execute("SELECT count(*) FROM data").fetchone() or (0,))[0]
        _refuse_what_is_no_table(path, [row[0] for row in columns], rows)
        found = [_column(connection, name, kind) for name, kind, *_ in columns]
        odd = {one.column: one for one in odd_values(connection, "data")}
        yield Table(path, connection, rows, tuple(found), nulls, _reserved(connection), odd, commas)


def _reserved(connection: "DuckDBPyConnection") -> frozenset[str]:
    """Words that SQL keeps for itself."""
    rows = connection.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'").fetchall()
    return frozenset(row[0] for row in rows)


def _refuse_what_is_no_file(path: Path) -> None:
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        raise MissingFile(f"there is no file {str(path)!r}", where=str(path.parent), available=near, hint="name a CSV file")
    if not path.is_file():
        raise DataError(f"{str(path)!r} is not a file", hint="name a CSV file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error


def _nulls(connection: "DuckDBPyConnection", path: Path, given: tuple[str, ...]) -> tuple[str, ...]:
    """Texts that stand for null: those without which a column would be one of numbers or times, or would be but for a few values."""

    def types(nulls: tuple[str, ...]) -> dict[str, str]:
        with read_as_csv(path):
            rows = connection.execute(f"DESCRIBE SELECT * FROM {csv_table(path, nulls)}").fetchall()
        return {row[0]: row[1] for row in rows}

    plain = types(given)
    try:
        read = types((*given, *NULLS))
    except TidemillError:
        return ()
    load_csv(connection, "read", path, (*given, *NULLS))
    others = {one.column for one in odd_values(connection, "read")} | {one.column for one in comma_numbers(connection, "read", path)}
    connection.execute("DROP TABLE read")
    changed = [name for name, kind in plain.items() if kind == "VARCHAR" and (read.get(name, kind) != kind or name in others)]
    if not changed:
        return ()
    columns = ", ".join(quote(name) for name in changed)
    found = connection.execute(
        f"SELECT DISTINCT value FROM (UNPIVOT (SELECT {columns} FROM {csv_table(path, given)}) ON {columns}) "
        f"WHERE value IN ({', '.join(literal(value) for value in NULLS)}) ORDER BY value"
    ).fetchall()
    return tuple(row[0] for row in found)


def _refuse_what_is_no_table(path: Path, names: list[str], rows: int) -> None:
    if len(names) < 3:
        hint = "fields are parted by commas (or ; or tabs), and each line has as many as the first"
        raise DataError(
            f"{path.name} is not a table: a label, a time and something to learn from are needed",
            where=str(path),
            available=names,
            hint=hint,
        )
    odd = [name for name in names if _is_value(name)]
    if len(odd) * 2 > len(names):
        hint = "add a first line with the names of the columns"
        raise DataError(
            f"{path.name} has no line of column names: its first line holds values", where=str(path), available=names, hint=hint
        )
    if not rows:
        raise DataError(f"{path.name} has column names and no rows", where=str(path), available=names)


def _is_value(name: str) -> bool:
    """Whether a column's name looks like a number or a date instead."""
    plain = name.strip().replace("-", "").replace(":", "").replace("/", "").replace(".", "").replace("T", "").replace(" ", "")
    return plain.isdigit()


def _column(connection: "DuckDBPyConnection", name: str, kind: str) -> Column:
    column = quote(name)
    row = connection.execute(f"SELECT count(*) - count({column}), count(DISTINCT {column}) FROM data").fetchone() or (0, 0)
    return Column(name, kind, row[0], row[1], _format(connection, column) if kind == "VARCHAR" and row[1] else "")


def _format(connection: "DuckDBPyConnection", column: str) -> str:
    """The only format in which all texts of a column are times; nothing for none, and for several."""
    first = connection.execute(f"SELECT {column} FROM data WHERE {column} IS NOT NULL LIMIT 1").fetchone()
    fit = [one for one in FORMATS if connection.execute("SELECT try_strptime(?, ?)", [*(first or ("",)), one]).fetchone() != (None,)]
    wrong = f"SELECT count(*) FROM data WHERE {column} IS NOT NULL AND try_strptime({column}, ?) IS NULL"
    fit = [one for one in fit if connection.execute(wrong, [one]).fetchone() == (0,)]
    return fit[0] if len(fit) == 1 else ""


# ── what a person names: times, label, key ──────────────────────────────────────────────────────────────────────


def time_sql(table: Table, column: Column, timezone: str) -> str:
    """SQL for the instants of a column; raises DataError when they are no times. A time without a zone is read in `timezone`."""
    name = table.sql(column.name)
    if column.type == "TIMESTAMP WITH TIME ZONE":
        return name
    if column.format:
        return f"timezone({literal(timezone)}, strptime({name}, {literal(column.format)}))"
    if column.is_time:
        stamp = name if column.type == "TIMESTAMP" else f"CAST({name} AS TIMESTAMP)"
        return f"timezone({literal(timezone)}, {stamp})"
    if column.is_whole:
        low, high = table.one(f"SELECT min({name}), max({name}) FROM data")
        for parts in (1, 1000, 1_000_000):  # seconds, milliseconds, microseconds since 1970; of 1980 to 2100
            if low is not None and 315_532_800 * parts <= low and high < 4_102_444_800 * parts:
                return f"to_timestamp({name})" if parts == 1 else f"to_timestamp({name} / {parts}.0)"
    if column.name in table.odd:
        raise table.odd[column.name].error(table.path, table.path)
    raise DataError(
        f"column {column.name!r} holds no times: it was read as {column.type}{_example(table, column)}",
        where=str(table.path),
        available=[c.name for c in table.columns if c.is_time],
        hint="write times as 2024-01-31 12:00:00, with an offset where they have one",
    )


def _example(table: Table, column: Column) -> str:
    name = table.sql(column.name)
    wrong = f"WHERE try_cast({name} AS TIMESTAMP) IS NULL AND" if column.type == "VARCHAR" else "WHERE"
    row = table.one(f"SELECT CAST({name} AS VARCHAR) FROM data {wrong} {name} IS NOT NULL LIMIT 1")
    return f", for example {row[0]!r}" if row else ""


def label_sql(table: Table, text: str) -> str:
    """SQL that is true, false or null, of a column with two values or of an SQL expression; raises DataError and DefinitionError."""
    column = table.get(text)
    sql = _of_column(table, column) if column else _of_expression(table, text)
    with explained(f"the label {text!r} cannot be computed", str(table.path)):
        rows = table.connection.execute(f"SELECT y, count(*) FROM (SELECT {sql} AS y FROM data) GROUP BY y ORDER BY y").fetchall()
    counts = {row[0]: row[1] for row in rows if row[0] is not None}
    if len(counts) < 2:
        said = f"always {'true' if next(iter(counts)) else 'false'}" if counts else "always null"
        hint = "choose another column, or an expression that is true for some rows and false for others"
        raise DataError(f"the label {text!r} is {said}", where=str(table.path), hint=hint)
    if min(counts.values()) < FEW // 5 or sum(counts.values()) < FEW:
        told = f"{counts[True]:,} rows are true, {counts[False]:,} are false"
        hint = f"at least {FEW} labelled rows are needed, {FEW // 5} of each kind"
        raise DataError(f"the label {text!r} has too few rows to learn from: {told}", where=str(table.path), hint=hint)
    return sql


def _of_column(table: Table, column: Column) -> str:
    name = table.sql(column.name)
    if column.distinct > 2:
        raise DataError(
            f"the label {column.name!r} has {column.distinct:,} different values; tasks with two (binary) are supported",
            where=str(table.path),
            hint=f"make two of them with an SQL expression: --label {_two_of(table, column)}",
        )
    if column.type == "BOOLEAN" or not column.distinct:
        return name
    ordered = f"SELECT CAST({name} AS VARCHAR) FROM data WHERE {name} IS NOT NULL GROUP BY {name} ORDER BY count(*), {name}"
    values = [row[0] for row in table.connection.execute(ordered).fetchall()]
    if len(values) < 2:
        said = f"the label {column.name!r} is always {values[0]!r}"
        raise DataError(said, where=str(table.path), hint="choose another column: one with two values")
    positive = next((value for value in values if value.strip().casefold().removesuffix(".0") in POSITIVE), values[0])
    return f"({name} = {positive if column.is_number else literal(positive)})"


def _two_of(table: Table, column: Column) -> str:
    """An expression with two values out of a column with many."""
    name = table.sql(column.name)
    if column.is_number:
        return f"'{name} > {table.one(f'SELECT median({name}) FROM data')[0]:g}'"
    common = table.one(f"SELECT CAST(mode({name}) AS VARCHAR) FROM data")[0]
    return f'"{name.replace(chr(34), chr(92) + chr(34))} = {literal(str(common))}"'


def _of_expression(table: Table, text: str) -> str:
    names = [column.name for column in table.columns]
    if ";" in text or "--" in text:
        raise DefinitionError(f"the label {text!r} is neither a column nor an SQL expression", where=str(table.path), available=names)
    try:
        with explained(f"the label {text!r} is neither a column nor an SQL expression", str(table.path)):
            kind = table.connection.execute(f"DESCRIBE SELECT 1 AS one, ({text}) AS y FROM data WHERE ({text}) IS NOT NULL").fetchall()[1][
                1
            ]
    except TidemillError as error:
        error.available = error.available or names
        raise
    if kind != "BOOLEAN":
        hint = "compare it with something"
        raise DataError(f"the label {text!r} gives {kind}, not true or false", where=str(table.path), hint=hint)
    return f"({text})"


def uses(table: Table, sql: str) -> set[str]:
    """The columns that an expression reads: those without which the engine refuses it."""
    import duckdb

    found = set()
    for column in table.columns:
        others = ", ".join(quote(other.name) for other in table.columns if other is not column)
        try:
            table.connection.execute(f"DESCRIBE SELECT ({sql}) AS y FROM (SELECT {others} FROM data)")
        except duckdb.BinderException:
            found.add(column.name)
    return found


def refuse_bad_key(table: Table, names: tuple[str, ...]) -> None:
    """Raises DataError when these columns are no key."""
    key = ", ".join(quote(name) for name in names)
    nulls = table.one(f"SELECT count(*) FROM data WHERE {' OR '.join(f'{quote(name)} IS NULL' for name in names)}")[0]
    twice = table.one(
        f"SELECT count(*), min(k) FROM (SELECT CAST(row({key}) AS VARCHAR) AS k FROM data GROUP BY {key} HAVING count(*) > 1)"
    )
    wrong = (
        f"{nulls:,} rows have none" if nulls else f"{twice[0]:,} values stand more than once, for example {twice[1]}" if twice[0] else ""
    )
    if wrong:
        hint = "name another, several (--key A --key B), or none (--key ''): then rows are numbered"
        raise DataError(f"{', '.join(names)} is no key: {wrong}", where=str(table.path), hint=hint)
