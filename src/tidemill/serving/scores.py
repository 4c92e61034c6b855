"""Files of scores: the answers to all rows that a file, frame or dataset holds, in their order.

Comes in: rows, a deployment, a folder of answers that are kept. Goes out: a Parquet file. Each chunk of answers is kept under the
digest of its rows' content, as soon as it is there: what was killed goes on, and of rows that have grown only the new ones are asked about.
What is kept is a cache; without it all is asked again.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tidemill.core import DataError, digest_value
from tidemill.data import engine, explained, literal, named, quote
from tidemill.features import Brought, Listen, open_rows, quiet, time_sql, types_of, write_rows
from tidemill.serving.batch import Batch, Scores, Unscored
from tidemill.store import store_error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "128MB"  # of the engine; it spills to disk
CHUNK, SLICE = 10_000, 2**17  # rows
PLAIN = {"BOOLEAN", "DOUBLE", "FLOAT", "VARCHAR", *(f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE"))}
PLAIN |= {"INTEGER", "UINTEGER"}  # types whose values are as JSON has them
KEPT = {"digest": "VARCHAR", "key": "VARCHAR", "at": "BIGINT", "upcoming": "BOOLEAN", "probability": "DOUBLE", "version": "VARCHAR"}
KEPT |= {"rung": "VARCHAR", "unexpected": "VARCHAR", "missing": "VARCHAR"}
FAILED = {"digest": "VARCHAR", "key": "VARCHAR", "at": "BIGINT", "error": "VARCHAR"}
LEAVE_OUT = "correct or drop it, or let `keep_going` (--keep-going) write why; what was scored is kept, and is not done again"
TOLD = ("probability", "version", "rung", "unexpected", "missing")


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
class Tally:
    """What came of the rows: how many there are, how many were asked about now (equal ones once), and how many could not be answered, with
    the `first` reason; `by` has the answers by version and rung, `unexpected` and `missing` the rows of which such is told; `left_out` are
    columns that were not read."""

    rows: int
    scored: int
    failed: int
    first: str
    by: Mapping[tuple[str, str], int]
    unexpected: int
    missing: int
    left_out: Sequence[str]


def write_scores(
    brought: Brought,
    batch: Batch,
    when: When,
    to: Path,
    kept: Path,
    *,
    chunk: int = 0,
    keep_going: bool = False,
    listen: Listen = quiet,
) -> Tally:
    """Score rows into a Parquet file: whole or not at all. `kept` is the folder of answers that hold still. Raises DataError for the first
    row that cannot be answered, with its number, or with `keep_going` writes why; what was answered before is kept."""
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine(str(Path(scratch) / "rows.db")) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        left_out, missed, failed = _ask(connection, brought, batch, when), list[Path](), 0
        store = _Kept(connection, kept, batch)
        rows, todo = store.compare()
        listen(rows - todo, rows)
        for start in range(0, todo, chunk or CHUNK):
            stop = min(start + (chunk or CHUNK), todo)
            asked = _read(connection, batch, start, stop)
            answers = list(_until_wrong(batch.scored(asked.rows, asked.at, asked.numbers), keep_going))
            store.keep([one for one in answers if isinstance(one, Scores)], asked)
            wrong = [one for one in answers if isinstance(one, Unscored)]
            if wrong and not keep_going:
                raise DataError(wrong[0].error, where=str(brought.file), hint=LEAVE_OUT)
            failed += len(wrong)
            missed += [_note(connection, wrong, asked, Path(scratch) / f"failed-{start}.parquet")] if wrong else []
            listen(rows - todo + stop, rows)
        brought.check()
        slices = store.slices(rows, missed, Path(scratch))
        store.settle(slices)
        with explained(f"{to.name} cannot be written", str(to)):
            write_rows(connection, _output(batch, slices), to, "zstd")
            return _tally(connection, to, todo - failed, left_out)


def keep_until(folder: Path, cut: int) -> None:
    """Of the answers that are kept, only those of times before `cut` (microseconds UTC) hold still. The others are deleted."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return
    with engine() as connection:
        rows = f'SELECT * FROM read_parquet([{", ".join(map(named, files))}]) WHERE "at" < {cut}'
        whole = folder / f"{digest_value([cut, *(one.name for one in files)])}.parquet"
        _copy(connection, rows, whole)
    for one in files:
        one.unlink(missing_ok=True)


class _Asked(NamedTuple):
    """Some rows: as a client would send them, their times, their numbers among all, and by these the digests of their content."""

    rows: list[dict[str, Any]]
    at: list[int | None]
    numbers: list[int]
    digests: dict[int, str]


class _Kept:
    """The answers that hold still, in files of a folder. One of now, whose row's own time is still to come, holds for one run."""

    def __init__(self, connection: "DuckDBPyConnection", folder: Path, batch: Batch) -> None:
        self._connection, self._folder, self._now = connection, folder, batch.now
        self._types = {**KEPT, **_input_types(batch)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, str(folder)) from error

    @property
    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))

    @property
    def _valid(self) -> str:
        """SQL for what is kept and holds."""
        return f'SELECT * FROM {_table(self._files, self._types)} WHERE NOT upcoming OR "at" = {self._now}'

    def compare(self) -> tuple[int, int]:
        """Make the table `todo` of the rows that are to be asked about, equal ones once. Returns how many rows there are, and how many of
        these."""
        with self._read():
            new = f"SELECT digest, min(rowid) AS r FROM asked ANTI JOIN ({self._valid}) USING (digest) GROUP BY digest"
            self._connection.execute(f"CREATE TABLE todo AS SELECT r FROM ({new}) ORDER BY r")
        found = [self._connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("asked", "todo")]
        rows, todo = (int(row[0]) if row else 0 for row in found)
        return rows, todo

    def keep(self, scores: Sequence[Scores], asked: _Asked) -> None:
        """Write down answers; they survive the end of the process when this returns."""
        if not scores:
            return
        digests = [asked.digests[one.number] for one in scores]
        columns: dict[str, Sequence[Any]] = {"digest": digests}
        columns |= {name: [getattr(one, name) for one in scores] for name in KEPT if name != "digest"}
        columns |= {name: [one.inputs[name] for one in scores] for name in self._types if name not in KEPT}
        _write(self._connection, columns, self._types, self._folder / f"{digest_value(digests)}.parquet")

    def slices(self, rows: int, missed: Sequence[Path], scratch: Path) -> list[Path]:
        """The answers to all rows in their order, in files of `scratch`, so many rows in each that no more of them are held at once."""
        found, own = list[Path](), ", ".join(f"k.{quote(name)}" for name in self._types if name != "digest")
        failed = f"(SELECT * FROM {_table(missed, FAILED)})"
        for start in range(0, max(rows, 1), SLICE):
            some = f"(SELECT rowid AS r, digest FROM asked WHERE rowid >= {start} AND rowid < {start + SLICE})"
            kept = f"(SELECT DISTINCT ON (digest) * FROM (SELECT * FROM ({self._valid}) SEMI JOIN {some} USING (digest)))"
            wrong = f"(SELECT * FROM {failed} SEMI JOIN {some} USING (digest))"
            joins = f"{some} s LEFT JOIN {kept} k ON s.digest = k.digest LEFT JOIN {wrong} f ON s.digest = f.digest"
            told = 'f.key AS "f:key", f."at" AS "f:at", f.error'
            found.append(scratch / f"slice-{start}.parquet")
            with self._read():
                _copy(self._connection, f"SELECT s.digest, {own}, {told} FROM {joins} ORDER BY s.r", found[-1])
        return found

    def settle(self, slices: Sequence[Path]) -> None:
        """Make one file of what is kept: what no row asks for any more goes."""
        files = self._files
        if len(files) > 1:
            whole = self._folder / f"{digest_value([one.name for one in files])}.parquet"
            names = ", ".join(map(quote, self._types))
            _copy(self._connection, f"SELECT {names} FROM {_table(slices, {})} WHERE rung IS NOT NULL", whole)
            for one in files:
                one.unlink(missing_ok=True)
        for other in self._folder.parent.iterdir():
            if other.is_dir() and other != self._folder:
                rmtree(other, ignore_errors=True)  # of an earlier version

    def _read(self) -> AbstractContextManager[None]:
        return explained(
            f"the answers that are kept cannot be read; delete {self._folder}, and all rows are asked about", str(self._folder)
        )


def _until_wrong(answers: Iterator[Scores | Unscored], keep_going: bool) -> Iterator[Scores | Unscored]:
    """Answers up to the first that there is not."""
    for one in answers:
        yield one
        if isinstance(one, Unscored) and not keep_going:
            return


def _ask(connection: "DuckDBPyConnection", brought: Brought, batch: Batch, when: When) -> list[str]:
    """Make the table `asked`: the digest of what each row says, its time, and its columns. Returns the columns that are not read."""
    given = open_rows(connection, brought.given, [when.column] if when.column else [], whole=True)
    types = types_of(connection, given)
    read = [name for name in batch.columns if name in types]
    at = time_sql(given.what, when.column, types[when.column], when.timezone) if when.column else "NULL" if when.own else str(when.time)
    columns = {"at": f"CAST({at} AS BIGINT)", **{f"c:{name}": _value(name, types[name], batch.form) for name in read}}
    texts = [f"CAST({quote(name)} AS VARCHAR)" for name in columns]
    spelt = " || ".join(f"coalesce(length({text}) || ':' || {text}, '-')" for text in texts)  # no two rows have one text
    with explained(f"{given.what} cannot be read", str(brought.file)):
        shown = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
        rows = f"SELECT substr(sha256({spelt}), 1, 40) AS digest, * FROM (SELECT {shown} FROM {given.table})"
        connection.execute(f"CREATE TABLE asked AS {rows}")
    return [name for name in given.names if name not in (*read, when.column)]


def _value(name: str, kind: str, form: str) -> str:
    """SQL for a column as a client would send it: times as texts."""
    if kind in PLAIN or kind.endswith("[]") or kind.startswith("STRUCT"):
        return quote(name)
    if kind.startswith("DECIMAL") and form == "features":
        return f"CAST({quote(name)} AS DOUBLE)"
    return f"CAST({quote(name)} AS VARCHAR)"


def _read(connection: "DuckDBPyConnection", batch: Batch, start: int, stop: int) -> _Asked:
    """Some of the rows that are to be asked about."""
    some = f"SELECT r FROM todo WHERE rowid >= {start} AND rowid < {stop}"
    near = f"rowid >= (SELECT min(r) FROM ({some})) AND rowid <= (SELECT max(r) FROM ({some}))"
    cursor = connection.execute(f"SELECT rowid, * FROM asked WHERE {near} AND rowid IN ({some}) ORDER BY rowid")
    names = [column[0].removeprefix("c:") for column in cursor.description[3:]]
    found = cursor.fetchall()
    rows = [dict(zip(names, row[3:], strict=True)) for row in found]
    return _Asked(rows, [row[2] for row in found], [row[0] for row in found], {row[0]: row[1] for row in found})


def _note(connection: "DuckDBPyConnection", wrong: Sequence[Unscored], asked: _Asked, file: Path) -> Path:
    """Write down the rows that cannot be answered, for this run."""
    columns = {"digest": [asked.digests[one.number] for one in wrong]}
    _write(connection, columns | {name: [getattr(one, name) for one in wrong] for name in FAILED if name != "digest"}, FAILED, file)
    return file


def _input_types(batch: Batch) -> dict[str, str]:
    """The columns of features, where they are wanted."""
    if not batch.explain:
        return {}
    categories = batch.endpoint.given.signature.categories
    return {name: "VARCHAR" if name in categories else "DOUBLE" for name in batch.features}


def _write(connection: "DuckDBPyConnection", columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], file: Path) -> None:
    """Write columns as a file."""
    connection.register("columns", {name: _array(columns[name], kind) for name, kind in types.items()})
    _copy(
        connection,
        f"SELECT {', '.join(f'CAST({quote(name)} AS {kind}) AS {quote(name)}' for name, kind in types.items())} FROM columns",
        file,
    )
    connection.unregister("columns")


def _array(values: Sequence[Any], kind: str) -> Any:
    if kind == "DOUBLE":
        return np.array([np.nan if one is None else float(one) for one in values])  # "inf" is a number again
    whole = kind == "BIGINT" and None not in values
    return np.array(values, dtype=np.int64 if whole else bool if kind == "BOOLEAN" else object)


def _copy(connection: "DuckDBPyConnection", rows: str, file: Path) -> None:
    """Write rows as a file that survives, whole or not at all."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with explained(f"{file.name} cannot be written", str(file)):
            connection.execute(f"COPY ({rows}) TO {literal(str(part))} (FORMAT parquet, COMPRESSION zstd)")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except OSError as error:
        raise store_error(error, str(file)) from error
    finally:
        part.unlink(missing_ok=True)


def _table(files: Sequence[Path], types: Mapping[str, str]) -> str:
    """SQL for the rows of files, one after the other; where there are none, for none of these types."""
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in types.items())
    return f"read_parquet([{', '.join(map(named, files))}])" if files else f"(SELECT {empty} LIMIT 0)"


def _output(batch: Batch, slices: Sequence[Path]) -> str:
    """SQL for what is written of the answers."""
    told = ", ".join(map(quote, (*TOLD, *_input_types(batch))))
    head = 'coalesce(key, "f:key") AS key, make_timestamptz(coalesce("at", "f:at")) AS "at"'
    return f"SELECT {head}, {told}, error FROM {_table(slices, {})}"


def _tally(connection: "DuckDBPyConnection", to: Path, scored: int, left_out: Sequence[str]) -> Tally:
    """What stands in a file."""
    table = f"read_parquet({named(to)})"
    by = connection.execute(f"SELECT version, rung, count(*) FROM {table} WHERE error IS NULL GROUP BY ALL ORDER BY ALL").fetchall()
    counts = "count(*), count(error), count(unexpected), count(missing), arg_min(error, file_row_number) FILTER (error IS NOT NULL)"
    found = connection.execute(f"SELECT {counts} FROM read_parquet({named(to)}, file_row_number = true)").fetchone()
    rows, failed, unexpected, missing, first = found or (0, 0, 0, 0, None)
    return Tally(rows, scored, failed, first or "", {(one[0], one[1]): one[2] for one in by}, unexpected, missing, left_out)
