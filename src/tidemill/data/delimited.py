"""CSV files (RFC 4180, UTF-8, delimiter found): into a table of the engine, or the line, column and value that forbid it.

What is at fault is looked for only once reading has failed: the engine says that a file of a million lines is wrong, not where.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tidemill.core import DataError
from tidemill.data.engine import TWINS, has_zone, literal, named, quote, twins

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DELIMITERS = ",;\t|"
SHAPE = 'fields are parted by commas (or ; or tabs), each line has as many as the first, and one that holds a comma stands in "quotes"'
QUOTES = 'close the quote; inside a field it stands twice: "a ""quoted"" word"'
KINDS = {"DOUBLE": "number", "TIMESTAMP WITH TIME ZONE": "time"}
LONGEST = 2_000_000  # characters that the engine takes for one line
MOST = 0.9  # the share of values that makes a column one of numbers or times


def csv_table(path: Path, null_values: Sequence[str], *, typed: bool = True) -> str:
    """A CSV file as an SQL table; of texts alone where it is not `typed`. Two things are not left to be guessed: the quote, since one that
    is not closed would make all others part of their values, and where the names stand, since lines of another shape would be taken for a
    title, and dropped."""
    nulls = ", ".join(literal(value) for value in ("", *null_values))
    types = "sample_size = -1" if typed else "all_varchar = true"
    shape = f"header = true, skip = {_above(path)}, {types}, quote = '\"'"
    return f"read_csv({named(path)}, {shape}, nullstr = [{nulls}]{', compression = gzip' if _packed(path) else ''})"


def _above(path: Path) -> int:
    """How many lines stand above the names of the columns: a title, which has no delimiter, and what is empty."""
    with _binary(path) as file:
        for number, line in enumerate(islice(file, 20)):
            if any(mark in line for mark in (b'"', b"#", *map(str.encode, DELIMITERS))):
                return number
    return 0


@contextmanager
def read_as_csv(path: Path, file: Path | None = None) -> Iterator[None]:
    """Turn the engine's refusal of a path into a DataError with the line at fault. `file` is the one to name, if another."""
    import duckdb

    file = file or path
    try:
        try:
            yield
        except duckdb.Error as error:
            unknown = DataError(f"{file.name} cannot be read as CSV: {str(error).splitlines()[0]}", where=str(file), hint=SHAPE)
            raise _fault(path, file) or unknown from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        why = "it ends too early" if isinstance(error, EOFError) else f"it is damaged ({error})"
        raise DataError(f"{file.name} is packed with gzip and cannot be unpacked: {why}", where=str(file), hint="fetch it again") from None


def load_csv(connection: "DuckDBPyConnection", name: str, path: Path, null_values: Sequence[str], file: Path | None = None) -> None:
    """Make the table `name` of a CSV file; raises DataError. `file` is the one to name, if another."""
    with read_as_csv(path, file):
        connection.execute(f"CREATE TABLE {quote(name)} AS SELECT * FROM {csv_table(path, null_values)}")
        _check_names(connection.table(quote(name)).columns, path, file or path)
        _check_zones(connection, name, path, null_values, file or path)
    if len(connection.table(quote(name)).columns) == 1:  # so is read what cannot be parted
        found = _fault(path, file or path)
        if found:
            raise found


def _check_names(there: Sequence[str], path: Path, file: Path) -> None:
    """Raise DataError for two columns of one name: the engine gives the second another."""
    with suppress(DataError):  # it reads some quotes that are not in order
        names = next(_records(path, file), (0, []))[1]
    if set(map(str.casefold, names)) <= set(map(str.casefold, there)) and (both := twins(names)):
        raise DataError(f"{file.name} has {both}", where=str(file), available=names, hint=TWINS)


def _check_zones(connection: "DuckDBPyConnection", name: str, path: Path, null_values: Sequence[str], file: Path) -> None:
    """Raise DataError for a time without a zone in a column whose others have one: the engine takes it for one in UTC."""
    kinds = connection.execute(f"DESCRIBE {quote(name)}").fetchall()
    for column in (column for column, kind, *_ in kinds if kind == "TIMESTAMP WITH TIME ZONE"):
        texts = csv_table(path, null_values, typed=False)
        odd = connection.execute(f"SELECT {quote(column)} FROM {texts} WHERE NOT {has_zone(quote(column))} LIMIT 1").fetchone()
        if odd:
            line = line_of(path, column, odd[0])
            what = f"line {line} of {file.name} has {_brief(odd[0])!r} in column {column!r}: no time zone, as others there have"
            raise DataError(what, where=f"{file}:{line}", hint="write its offset, for example 2024-01-31T12:00:00+01:00")


def _fault(path: Path, file: Path) -> DataError | None:
    """What is wrong with a file: no text, or the first line that breaks its shape; None where nothing is found."""
    with _binary(path) as opened:
        head = opened.read(65536)
    if not head.strip():
        return DataError(f"{file.name} is empty", where=str(file), hint="it needs a line of column names, and rows")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return DataError(f"{file.name} is not text in UTF-8: it looks like UTF-16", where=str(file), hint=_convert("utf-16", file))
    if head[:4] == b"PAR1":
        hint = f'of a source say so: tm.Source("{file.name}", format="parquet"); rows are to be in a file ….parquet'
        return DataError(f"{file.name} is not a CSV file: it is Parquet", where=str(file), hint=hint)
    if head[:2] == b"PK" or b"\0" in head:
        hint = "unpack it, or save it as CSV in UTF-8"
        return DataError(f"{file.name} is not a CSV file: it holds bytes that are no text", where=str(file), hint=hint)
    names: list[str] = []
    try:
        for line, fields in _records(path, file):
            if names and len(fields) != len(names):
                what = f"line {line} of {file.name} has {len(fields)} fields, there are {len(names)} columns: {_brief(','.join(fields))}"
                return DataError(what, where=f"{file}:{line}", available=names, hint=SHAPE)
            names = names or fields
    except DataError as error:
        return error
    return _mixed_ends(path, file)


def _mixed_ends(path: Path, file: Path) -> DataError | None:
    """The first line that ends in another way than the first one."""
    first = ""
    for number, line in enumerate(_lines(path, file), 1):
        end = line[len(line.rstrip("\r\n")) :]
        first = first or end
        if end and end != first:
            said = {"\n": "LF, as on Linux", "\r\n": "CRLF, as on Windows"}
            what = f"line {number} of {file.name} ends with {said.get(end, repr(end))}, the first line with {said.get(first, repr(first))}"
            return DataError(
                what, where=f"{file}:{number}", hint=f"make all line ends the same, for example: sed -i 's/\\r$//' {file.name}"
            )
    return None


def _records(path: Path, file: Path) -> Iterator[tuple[int, list[str]]]:
    """The line and the fields of each record, the names first. Raises DataError for bytes that are no UTF-8, and wrong quotes."""
    first = _above(path)
    rows, line = csv.reader(islice(_lines(path, file), first, None), delimiter=_delimiter(path), strict=True), first + 1
    limit = csv.field_size_limit(LONGEST)
    try:
        for fields in rows:
            if fields and not fields[0].startswith("#"):
                yield line, fields
            line = first + rows.line_num + 1
    except csv.Error as error:
        text = next(islice(_lines(path, file), line - 1, None))
        why, hint = ("a quote that is not closed, or stands alone inside a field", QUOTES) if '"' in text else (f"a {error}", SHAPE)
        raise DataError(f"line {line} of {file.name} has {why}: {_brief(text)}", where=f"{file}:{line}", hint=hint) from None
    finally:
        csv.field_size_limit(limit)


def _delimiter(path: Path) -> str:
    """What parts the names of the columns."""
    return max(DELIMITERS, key=next(islice(_lines(path, path), _above(path), None), "").count)


def _lines(path: Path, file: Path) -> Iterator[str]:
    with _binary(path) as opened:
        for number, line in enumerate(opened, 1):
            try:
                yield line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                found = line[max(error.start - 20, 0) : error.end + 20].strip()
                what = f"{file.name} is not text in UTF-8: line {number} has {found!r}"
                raise DataError(what, where=f"{file}:{number}", hint=_convert("latin1", file)) from None


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path) if _packed(path) else path.open("rb")  # type: ignore[return-value]


def _packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _convert(encoding: str, file: Path) -> str:
    return f"convert it, for example: iconv -f {encoding} -t utf-8 {file.name} > utf8.csv"


def _brief(text: str) -> str:
    return text.strip() if len(text) <= 80 else text[:79] + "…"


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class OddValue:
    """Texts in a column whose `others` are all numbers or times (`kind`): because of them the column was read as text. `value` is the
    first of `count`, `values` are those that differ."""

    column: str
    value: str
    kind: str
    others: int
    count: int
    values: tuple[str, ...]

    def error(self, path: Path, file: Path) -> DataError:
        """The error that names it, with its line in `path`; `file` is the one to name."""
        line = line_of(path, self.column, self.value)
        found = f"{_brief(self.value)!r} in column {self.column!r}: no {self.kind}, as {self.others:,} others are"
        what = f"line {line} of {file.name} has {found}" if line else f"{file.name} has {found}"
        hint = f'correct it; where it stands for nothing: Source(…, null_values=["{_brief(self.value)}"])'
        return DataError(what, where=f"{file}:{line}" if line else str(file), hint=hint)

    def told(self, path: Path) -> str:
        """How many there are, and the first with its line, for a person who was not looking for them."""
        line = line_of(path, self.column, self.value)
        many = f"{self.count:,} of {self.count + self.others:,} values are no {self.kind}"
        return f"{many}{', the first' if self.count > 1 else ''}: {_brief(self.value)!r}{f' in line {line}' if line else ''}"


@dataclass(frozen=True)
class CommaNumbers:
    """A column of text whose values are all numbers with commas in them: `sql` makes numbers of it; `example` is the first with a comma."""

    column: str
    sql: str
    kind: str
    example: str

    @property
    def kinds(self) -> str:
        return self.kind.replace("number", "numbers", 1)

    def error(self, path: Path, file: Path) -> DataError:
        """The error where the column was taken for one of numbers."""
        line = line_of(path, self.column, self.example)
        what = f"column {self.column!r} of {file.name} holds {self.kinds}, such as {self.example!r} in line {line}: it is read as text"
        return DataError(what, where=f"{file}:{line}", hint=f"make numbers of it in the query: {self.sql}")


_DECIMAL = r"\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?\s*"
_THOUSANDS = r"\s*[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?\s*"


def _kinds(column: str) -> dict[str, tuple[str, str]]:
    """For each kind of value: whether a text is one, and the value, as SQL. 1,234 is of both kinds with commas."""
    plain = {kind: (f"TRY_CAST({column} AS {sql}) IS NOT NULL", f"CAST({column} AS {sql})") for sql, kind in KINDS.items()}
    decimal = f"CAST(replace(replace({column}, '.', ''), ',', '.') AS DOUBLE)"
    return {
        "number": plain["number"],
        "number with decimal comma": (f"regexp_full_match({column}, {literal(_DECIMAL)})", decimal),
        "number with commas between thousands": (
            f"regexp_full_match({column}, {literal(_THOUSANDS)})",
            f"CAST(replace({column}, ',', '') AS DOUBLE)",
        ),
        "time": plain["time"],
    }


def _texts(connection: "DuckDBPyConnection", name: str) -> list[str]:
    return [row[0] for row in connection.execute(f"DESCRIBE {quote(name)}").fetchall() if row[1] == "VARCHAR"]


def _count(connection: "DuckDBPyConnection", name: str, column: str) -> tuple[int, dict[str, int]]:
    """How many values of a column there are, and how many of them are of each kind."""
    kinds = _kinds(quote(column))
    counts = ", ".join(f"count_if({fits})" for fits, _ in kinds.values())
    total, *of = connection.execute(f"SELECT count({quote(column)}), {counts} FROM {quote(name)}").fetchone() or (0,)
    return total, {kind: count or 0 for kind, count in zip(kinds, of, strict=False)}


def odd_values(connection: "DuckDBPyConnection", name: str) -> list[OddValue]:
    """The odd values of each column of text of a table that has some among many that are no text."""
    found = []
    for column in _texts(connection, name):
        total, of = _count(connection, name, column)
        kind = max(of, key=lambda one: of[one])
        if MOST * total <= of[kind] < total:
            odd = f"{quote(column)} IS NOT NULL AND NOT ({_kinds(quote(column))[kind][0]})"
            query = f"SELECT {quote(column)}, count(*) FROM {quote(name)} WHERE {odd} GROUP BY ALL ORDER BY min(rowid)"
            rows = connection.execute(query).fetchall()
            found.append(OddValue(column, rows[0][0], kind, of[kind], total - of[kind], tuple(row[0] for row in rows)))
    return found


def comma_numbers(connection: "DuckDBPyConnection", name: str, path: Path) -> list[CommaNumbers]:
    """The columns of text that hold only numbers with commas. Where 1,234 could be both, the file decides: one that is parted by commas
    has them between thousands, any other before decimals."""
    decimal, thousands = list(_kinds(""))[1:3]
    found = []
    for column in _texts(connection, name):
        total, of = _count(connection, name, column)
        fit = [kind for kind in (decimal, thousands) if total and of[kind] == total and of["number"] < total]
        if fit:
            kind = fit[0] if len(fit) == 1 else thousands if _delimiter(path) == "," else decimal
            first = f"SELECT {quote(column)} FROM {quote(name)} WHERE contains({quote(column)}, ',') ORDER BY rowid LIMIT 1"
            example = (connection.execute(first).fetchone() or ("",))[0]
            found.append(CommaNumbers(column, _kinds(quote(column))[kind][1], kind, example))
    return found


def line_of(path: Path, column: str, value: str) -> int:
    """The first line with a value in a column; 0 where it cannot be told."""
    place = -1
    with suppress(DataError):  # the engine reads some quotes that are not in order
        for line, fields in _records(path, path):
            if place >= 0 and fields[place : place + 1] == [value]:
                return line
            place = fields.index(column) if place < 0 and column in fields else place
    return 0
