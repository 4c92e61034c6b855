"""Files of scores: the answers to all rows that a file, frame or dataset holds, in their order.

Comes in: rows, a deployment, a folder of answers that are kept. Goes out: a Parquet file. Each chunk of answers is kept beside the digests
of its rows as soon as it is there: what was killed goes on, and of rows that have grown only the new ones are asked about.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core import DataError
from tidemill.data import engine, explained, literal
from tidemill.features import Brought, Listen, quiet, write_rows
from tidemill.serving.asked import Asked, When
from tidemill.serving.batch import Batch, Scores, Unscored
from tidemill.serving.kept import Kept

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "128MB"  # of the engine; it spills to disk
CHUNK, CELLS = 2**16, 2**21  # rows, and values of features, that are held at once
LEAVE_OUT = "correct or drop it, or let `keep_going` (--keep-going) write why; what was scored is kept, and is not done again"


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
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = {literal(scratch)}")
        asked, failed = Asked.of(connection, brought, batch.columns, when, given=batch.form == "features"), 0
        store = Kept(asked, kept, batch.inputs, batch.now)
        rows, todo = store.compare()
        listen(rows - todo, rows)
        size = chunk or max(1, min(CHUNK, CELLS // len(batch.features)))
        for start in range(0, todo, size):
            stop = min(start + size, todo)
            answers = list(_until_wrong(batch.scored(asked.some(store.todo(start, stop))), keep_going))
            scores = [one for one in answers if isinstance(one, Scores)]
            if scores:
                store.keep(Scores.joined(scores))
            wrong = [one for one in answers if isinstance(one, Unscored)]
            if wrong and not keep_going:
                raise DataError(wrong[0].error, where=str(brought.file), hint=LEAVE_OUT)
            if wrong:
                store.miss(wrong)
            failed += len(wrong)
            listen(rows - todo + stop, rows)
        brought.check()
        store.collect(rows, Path(scratch))
        store.settle()
        with explained(f"{to.name} cannot be written", str(to)):
            write_rows(connection, "SELECT * FROM told", to, "zstd")
            return _tally(connection, todo - failed, asked.left_out)


def _until_wrong(answers: Iterator[Scores | Unscored], keep_going: bool) -> Iterator[Scores | Unscored]:
    """Answers up to the first that there is not."""
    for one in answers:
        yield one
        if isinstance(one, Unscored) and not keep_going:
            return


def _tally(connection: "DuckDBPyConnection", scored: int, left_out: Sequence[str]) -> Tally:
    """What was told."""
    by = connection.execute("SELECT version, rung, count(*) FROM told WHERE error IS NULL GROUP BY ALL ORDER BY ALL").fetchall()
    counts = "count(*), count(error), count(unexpected), count(missing), arg_min(error, rowid) FILTER (error IS NOT NULL)"
    found = connection.execute(f"SELECT {counts} FROM told").fetchone()
    rows, failed, unexpected, missing, first = found or (0, 0, 0, 0, None)
    return Tally(rows, scored, failed, first or "", {(one[0], one[1]): one[2] for one in by}, unexpected, missing, left_out)
