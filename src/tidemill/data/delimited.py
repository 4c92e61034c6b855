"""CSV files (RFC 4180, UTF-8, delimiter found): into a table of the engine, or the line, column and value that forbid it.

What is at fault is looked for only once reading has failed: the engine says that a file of a million lines is wrong, not where.
"""

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tidemill.core import DataError
from tidemill.data.engine import literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DELIMITERS = ",;\t|"
SHAPE = 'fields are parted by commas (or ; or tabs), each line has as many as the first, and one that holds a comma stands in "quotes"'
QUOTES = 'close the quote; inside a field it stands twice: "a ""quoted"" word"'
KINDS = {"DOUBLE": "number", "TIMESTAMP WITH TIME ZONE": "time"}
LONGEST = 2_000_000  # characters that the engine takes for one line
MOST = 0.9  # the share of values that makes a column one of numbers or times


def csv_table(path: Path, null_values: Sequence[str]) -> str:
    """A CSV file as an SQL table. Two things are not left to be guessed: the quote, since one that is not closed would make all others
    part of their values, and where the names stand, since lines of another shape would be taken for a title, and dropped."""
    nulls = ", ".join(literal(value) for value in ("", *null_values))
    return f"read_csv({literal(str(path))}, header = true, skip = {_above(path)}, sample_size = -1, quote = '\"', nullstr = [{nulls}])"


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

    try:
        yield
    except duckdb.Error as error:
        file = file or path
        unknown = DataError(f"{file.name} cannot be read as CSV: {str(error).splitlines()[0]}", where=str(file), hint=SHAPE)
        raise _fault(path, file) or unknown from None


def load_csv(connection: "DuckDBPyConnection", name: str, path: Path, null_values: Sequence[str], file: Path | None = None) -> None:
    """Make the table `name` of a CSV file; raises DataError. `file` is the one to name, if another."""
    with read_as_csv(path, file):
        connection.execute(f"CREATE TABLE {quote(name)} AS SELECT * FROM {csv_table(path, null_values)}")
    if len(connection.table(quote(name)).columns) == 1:  # so is read what cannot be parted
        found = _fault(path, file or path)
        if found:
            raise found


def _fault(path: Path, file: Path) -> DataError | None:
    """What is wrong with a file: no text, or the first line that breaks its shape; None where nothing is found."""
    with _binary(path) as opened:
        head = opened.read(65536)
    if not head.strip():
        return DataError(f"{file.name} is empty", where=str(file), hint="it needs a line of column names, and rows")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return DataError(f"{file.name} is not text in UTF-8: it looks like UTF-16", where=str(file), hint=_convert("utf-16", file))
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
    delimiter = max(DELIMITERS, key=next(islice(_lines(path, file), first, None)).count)
    rows, line = csv.reader(islice(_lines(path, file), first, None), delimiter=delimiter, strict=True), first + 1
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
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _convert(encoding: str, file: Path) -> str:
    return f"convert it, for example: iconv -f {encoding} -t utf-8 {file.name} > utf8.csv"


def _brief(text: str) -> str:
    return text.strip() if len(text) <= 80 else text[:79] + "…"


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class OddValue:
    """A text in a column whose `others` are all numbers or times (`kind`): because of it the column was read as text."""

    column: str
    value: str
    kind: str
    others: int

    def error(self, path: Path, file: Path) -> DataError:
        """The error that names it, with its line in `path`; `file` is the one to name."""
        line = _line_of(path, self.column, self.value)
        found = f"{_brief(self.value)!r} in column {self.column!r}: no {self.kind}, as {self.others:,} others are"
        what = f"line {line} of {file.name} has {found}" if line else f"{file.name} has {found}"
        hint = f'correct it; where it stands for nothing: Source(…, null_values=["{_brief(self.value)}"])'
        return DataError(what, where=f"{file}:{line}" if line else str(file), hint=hint)


def odd_values(connection: "DuckDBPyConnection", name: str) -> list[OddValue]:
    """The first odd value of each column of text of a table that has one."""
    found = []
    texts = [row[0] for row in connection.execute(f"DESCRIBE {quote(name)}").fetchall() if row[1] == "VARCHAR"]
    for column in texts:
        for sql, kind in KINDS.items():
            cast = f"TRY_CAST({quote(column)} AS {sql})"
            odd = f"arg_min({quote(column)}, rowid) FILTER ({quote(column)} IS NOT NULL AND {cast} IS NULL)"
            row = connection.execute(f"SELECT count({quote(column)}), count({cast}), {odd} FROM {quote(name)}").fetchone() or (0, 0, None)
            if row[1] < row[0] and row[1] >= MOST * row[0]:
                found.append(OddValue(column, row[2], kind, row[1]))
    return found


def _line_of(path: Path, column: str, value: str) -> int:
    """The first line with a value in a column; 0 where it cannot be told."""
    place = -1
    with suppress(DataError):  # the engine reads some quotes that are not in order
        for line, fields in _records(path, path):
            if place >= 0 and fields[place : place + 1] == [value]:
                return line
            place = fields.index(column) if place < 0 and column in fields else place
    return 0
