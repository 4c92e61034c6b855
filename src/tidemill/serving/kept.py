"""Answers that hold still, in files of a folder: columns beside the digests of the rows that they are to.

It is a cache; without it all is asked again. `place` says of each row in which file its answer lies, and where in it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import numpy as np

from tidemill.core import Array, Coded, Ints, digest_bytes, digest_value
from tidemill.data import engine, explained, literal, named, quote
from tidemill.serving.asked import Asked
from tidemill.serving.batch import Scores, Unscored
from tidemill.store import store_error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KEPT = {"d1": "UBIGINT", "d2": "UBIGINT", "key": "VARCHAR", "at": "BIGINT", "upcoming": "BOOLEAN", "probability": "DOUBLE"}
KEPT |= {"version": "VARCHAR", "rung": "VARCHAR", "unexpected": "VARCHAR", "missing": "VARCHAR"}
TOLD = ("probability", "version", "rung", "unexpected", "missing")
SLICE = 2**17  # rows whose answers are brought into their order together
RUNS, FILES = 100, 64  # stretches of a slice, and files, from which on it takes less to sort, or to make one of them
WORDS = 16  # different texts of a column, up to which they are written down as SQL


class Kept:
    """The answers in a folder, with the types of their columns. One of `now`, whose row's own time is still to come, holds for one run."""

    def __init__(self, asked: Asked, folder: Path, inputs: Mapping[str, str], now: int) -> None:
        """`inputs` are the features that are kept too, by their types."""
        self._asked, self._connection, self._folder, self._now, self._inputs = asked, asked.connection, folder, now, inputs
        self._types = {**KEPT, **inputs}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, str(folder)) from error
        self._files = sorted(folder.glob("*.parquet"))

    def compare(self) -> tuple[int, int]:
        """Find the answers that are there, and make the table `todo` of the rows that are to be asked about, equal ones once. Returns how
        many rows there are, and how many of these."""
        self._connection.execute('CREATE TABLE failed (r BIGINT, key VARCHAR, "at" BIGINT, error VARCHAR)')
        self._connection.execute("CREATE TABLE place (r BIGINT, f BIGINT, k BIGINT)")
        self._find()
        self._connection.execute(
            "CREATE TABLE todo AS SELECT min(r) AS r FROM (SELECT rowid AS r, d1, d2 FROM asked ANTI JOIN place ON asked.rowid = place.r) "
            "GROUP BY d1, d2 ORDER BY r"
        )
        return self._count("asked"), self._count("todo")

    def todo(self, start: int, stop: int) -> Ints:
        """Some of the rows that are to be asked about."""
        found = self._connection.execute(f"SELECT r FROM todo WHERE rowid >= {start} AND rowid < {stop}").fetchnumpy()["r"]
        return np.asarray(found, dtype=np.int64)

    def _find(self) -> None:
        """Put the rows without a place where their answers lie, if these are there."""
        if not self._files:
            return
        valid = f'SELECT d1, d2, file_index AS f, file_row_number AS k FROM {_table(self._files)} WHERE NOT upcoming OR "at" = {self._now}'
        rows = "SELECT rowid AS r, d1, d2 FROM asked ANTI JOIN place ON asked.rowid = place.r"
        with self._read():
            self._connection.execute(f"INSERT INTO place SELECT r, f, k FROM ({rows}) JOIN ({valid}) USING (d1, d2)")
        if self._count("place") > self._count("asked"):  # some are there twice: two runs of one time
            self._connection.execute("CREATE OR REPLACE TABLE place AS SELECT DISTINCT ON (r) r, f, k FROM place ORDER BY r, f, k")

    def keep(self, scores: Scores) -> None:
        """Write down answers; they survive the end of the process when this returns."""
        digests = self._asked.some(scores.numbers).columns({"d1": "d1", "d2": "d2"})
        columns: dict[str, Array | Coded] = {name: np.asarray(digests[name]) for name in ("d1", "d2")}
        columns |= {name: getattr(scores, name) for name in KEPT if name not in columns} | scores.inputs
        file = self._folder / f"{digest_bytes(b''.join(columns[name].tobytes() for name in ('d1', 'd2')))}.parquet"  # type: ignore[union-attr]
        write(self._connection, columns, self._types, file)
        self._files += [file] if file not in self._files else []
        places = {"r": scores.numbers, "f": np.full(len(scores), self._files.index(file)), "k": np.arange(len(scores))}
        self._connection.register("places", places)
        self._connection.execute("INSERT INTO place SELECT r, f, k FROM places")

    def miss(self, wrong: Sequence[Unscored]) -> None:
        """Note rows that cannot be answered, for this run."""
        self._connection.executemany("INSERT INTO failed VALUES (?, ?, ?, ?)", [[*one] for one in wrong])

    def collect(self, rows: int, scratch: Path) -> None:
        """Make the table `told` of the answers to all rows, in their order."""
        if self._count("place") + self._count("failed") < rows:
            self._repeat()
        self._connection.execute("SET threads = 1")  # in their order
        parts = [sql for start in range(0, rows, SLICE) for sql in self._slice(start, min(start + SLICE, rows), scratch)]
        empty = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in self._types.items())
        parts = parts or [f"SELECT {self._told('', 'NULL')} FROM (SELECT {empty}) LIMIT 0"]
        with self._read():
            self._connection.execute(f"CREATE TABLE told AS {' UNION ALL '.join(parts)}")

    def _repeat(self) -> None:
        """Give rows that are equal to one that was asked about the same answer, or the same reason why there is none."""
        rows = "SELECT rowid AS r, d1, d2 FROM asked ANTI JOIN (SELECT r FROM place UNION ALL SELECT r FROM failed) t ON asked.rowid = t.r"
        first = "SELECT d1, d2, todo.r AS first FROM todo JOIN asked ON asked.rowid = todo.r"
        self._connection.execute(f"CREATE TABLE again AS SELECT r, first FROM ({rows}) JOIN ({first}) USING (d1, d2)")
        self._connection.execute("INSERT INTO place SELECT a.r, p.f, p.k FROM again a JOIN place p ON p.r = a.first")
        self._connection.execute('INSERT INTO failed SELECT a.r, p.key, p."at", p.error FROM again a JOIN failed p ON p.r = a.first')

    def _slice(self, start: int, stop: int, scratch: Path) -> Iterator[str]:
        """SQL for the answers to some rows: stretch by stretch, as they lie in the files; where these are many, sorted and set aside."""
        found = self._connection.execute(f"SELECT r, f, k FROM place WHERE r >= {start} AND r < {stop} ORDER BY r").fetchnumpy()
        r, f, k = (np.asarray(found[name], dtype=np.int64) for name in ("r", "f", "k"))
        edges = [0, *(np.flatnonzero((np.diff(r) != 1) | (np.diff(f) != 0) | (np.diff(k) != 1)) + 1).tolist(), len(r)]
        if len(r) == stop - start and len(edges) <= RUNS:
            for low, high in pairwise(edges):
                lies = f"file_row_number >= {k[low]} AND file_row_number <= {k[high - 1]}"
                yield f"SELECT {self._told('', 'CAST(NULL AS VARCHAR)')} FROM {_table([self._files[f[low]]])} WHERE {lies}"
            return
        files = [self._files[i] for i in np.unique(f).tolist()]
        places = f"(SELECT r, f, k FROM place WHERE r >= {start} AND r < {stop})"
        index = ", ".join(f"({place}, {self._files.index(file)})" for place, file in enumerate(files))
        lying = f"SELECT *, file_index AS i, file_row_number AS n FROM {_table(files)}" if files else ""
        answered = f"SELECT p.r, {self._told('q.', 'CAST(NULL AS VARCHAR)')} FROM {places} p JOIN (VALUES {index}) m(i, f) ON p.f = m.f "
        answered += f"JOIN ({lying}) q ON q.i = m.i AND q.n = p.k"
        nothing = {name: f"CAST(NULL AS {kind})" for name, kind in self._types.items()}
        shown = ", ".join(f"{nothing[name]} AS {quote(name)}" for name in (*TOLD, *self._inputs))
        failed = f'SELECT r, key, make_timestamptz("at") AS "at", {shown}, error FROM failed WHERE r >= {start} AND r < {stop}'
        both = f"{answered} UNION ALL {failed}" if files else failed
        aside = scratch / f"slice-{start}.parquet"
        with self._read():
            self._connection.execute(f"COPY (SELECT * EXCLUDE r FROM ({both}) ORDER BY r) TO {literal(str(aside))} (FORMAT parquet)")
        yield f"SELECT * FROM {_table([aside])}"

    def _told(self, of: str, error: str) -> str:
        """SQL for the columns that are told of an answer."""
        told = ", ".join(f"{of}{quote(name)}" for name in (*TOLD, *self._inputs))
        return f'{of}key, make_timestamptz({of}"at") AS "at", {told}, {error} AS error'

    def settle(self) -> None:
        """Leave only what rows ask for, in a few files."""
        if self._files:
            lying = self._connection.execute(f"SELECT count(*) FROM {_table(self._files)}").fetchone()
            used = self._connection.execute("SELECT count(*) FROM (SELECT DISTINCT f, k FROM place)").fetchone()
            if used != lying or len(self._files) > FILES:
                self._rewrite()
        for other in self._folder.parent.iterdir():
            if other.is_dir() and other != self._folder:
                rmtree(other, ignore_errors=True)  # of an earlier version

    def _rewrite(self) -> None:
        whole = self._folder / f"{digest_value([self._now, *(one.name for one in self._files)])}.parquet"
        lying = f"SELECT *, file_index AS f, file_row_number AS k FROM {_table(self._files)}"
        copy(self._connection, f"SELECT {', '.join(map(quote, self._types))} FROM ({lying}) SEMI JOIN place USING (f, k)", whole)
        for one in self._files:
            one.unlink(missing_ok=True)

    def _count(self, table: str) -> int:
        row = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0

    def _read(self) -> AbstractContextManager[None]:
        return explained(
            f"the answers that are kept cannot be read; delete {self._folder}, and all rows are asked about", str(self._folder)
        )


def keep_until(folder: Path, cut: int) -> None:
    """Of the answers that are kept, only those of times before `cut` (microseconds UTC) hold still. The others are deleted."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return
    with engine() as connection:
        whole = folder / f"{digest_value([cut, *(one.name for one in files)])}.parquet"
        copy(connection, f'SELECT * FROM {_table(files)} WHERE "at" < {cut}', whole)
    for one in files:
        one.unlink(missing_ok=True)


def _table(files: Sequence[Path]) -> str:
    """SQL for the rows of files, one after the other."""
    return f"read_parquet([{', '.join(map(named, files))}])"


def write(connection: "DuckDBPyConnection", columns: Mapping[str, Array | Coded], types: Mapping[str, str], file: Path) -> None:
    """Write columns as a file."""
    arrays, shown = dict[str, Array](), list[str]()
    for name, kind in types.items():
        column, sql = columns[name], quote(name)
        if isinstance(column, Coded):
            if len(column.vocabulary) > WORDS:
                arrays[name] = np.array([*column.vocabulary, None], dtype=object)[column.codes]
            else:
                arrays[name] = column.codes
                cases = " ".join(f"WHEN {code} THEN {literal(word)}" for code, word in enumerate(column.vocabulary))
                sql = f"CASE {sql} {cases} END" if cases else "NULL"
        else:
            arrays[name] = column
        shown.append(f"CAST({sql} AS {kind}) AS {quote(name)}")
    connection.register("columns", arrays)
    copy(connection, f"SELECT {', '.join(shown)} FROM columns", file, "uncompressed")
    connection.unregister("columns")


def copy(connection: "DuckDBPyConnection", rows: str, file: Path, compression: str = "zstd") -> None:
    """Write rows as a file that survives, whole or not at all."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with explained(f"{file.name} cannot be written", str(file)):
            connection.execute(f"COPY ({rows}) TO {literal(str(part))} (FORMAT parquet, COMPRESSION {compression})")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except OSError as error:
        raise store_error(error, str(file)) from error
    finally:
        part.unlink(missing_ok=True)
