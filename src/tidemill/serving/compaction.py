"""The logs of answers and of feedback, moved into tables: sealed, taken chunk by chunk, and deleted when all of a part is there.

Each chunk is one commit, which tells too up to where the log is moved. Killed at any moment, the next compaction goes on behind the last
commit: nothing is lost, and nothing comes twice.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tidemill import data
from tidemill.core import StoreError
from tidemill.serving.appending import seal
from tidemill.serving.dataset import Log, Part, answers_at, day_of, deployments_in
from tidemill.serving.feedback import feedback_of
from tidemill.serving.lines import FEEDBACK, Form, rows_sql, write_rows
from tidemill.store import store_error, writer

CHUNK = 64 << 20  # bytes of lines in one commit
COMMAND = "predictions compact"
Listen = Callable[[int], object]  # lines that were moved


@dataclass(frozen=True)
class Compacted:
    """What was moved of one log: `lines`, and bytes of them; lines that are `damaged` are kept aside. `rows` and `stored` are those of
    the table for this deployment now, `dropped` the rows of days that were too old."""

    deployment: str
    what: str
    lines: int = 0
    bytes: int = 0
    damaged: int = 0
    rows: int = 0
    stored: int = 0
    dropped: int = 0

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def compact(
    folder: Path, names: Collection[str] = (), *, keep_since: int = 0, wait: float = 0.0, chunk: int = CHUNK, listen: Listen = int
) -> list[Compacted]:
    """Move the logs in a folder, of all deployments or of some, into their tables; days before `keep_since` (microseconds UTC) are
    deleted, of all. Raises Busy while another process does so, after `wait` seconds, StoreError and Damaged: then all lines are where
    they were, or moved."""
    if not folder.is_dir():
        return []
    with writer(folder / "compaction.lock", COMMAND, wait=wait):
        found = list[Compacted]()
        for log in logs_in(folder, names):
            found.append(_compact(log, chunk, listen))
        for table in {log.table.folder: log.table for log in logs_in(folder)}.values():
            dropped = table.drop(day_of(keep_since)) if keep_since else 0
            found = [replace(one, dropped=dropped) if one.what == table.folder.name else one for one in found]
            table.tidy()
        return [_measured(folder, one) for one in found]


def logs_in(folder: Path, names: Collection[str] = ()) -> list[Log]:
    """The logs of answers and of feedback in a folder, of all deployments or of some."""
    found = list[Log]()
    for name in deployments_in(folder):
        if not names or name in names:
            answers = answers_at(folder / f"{name}.jsonl")
            found += [answers, Log(feedback_of(answers.live), folder, FEEDBACK)]
    return found


def is_due(folder: Path, now: int, *, size: int, age: int) -> bool:
    """Whether a log has more than so many bytes (`size`), or its first line that can be read is older than so many microseconds (`age`)."""
    for path in (*folder.glob("*.jsonl"), *folder.glob("feedback/*.jsonl")):
        with suppress(FileNotFoundError):
            form = FEEDBACK if path.parent != folder else answers_at(path).form
            if path.stat().st_size > size or _first(path, form) < now - age:
                return True
    return any(folder.glob("sealed/*/*.jsonl"))


def _first(path: Path, form: Form) -> int | float:
    """When the first line that is whole and can be read was written; never where there is none."""
    with path.open("rb") as file:
        for line in file:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                if line.endswith(b"\n"):
                    return int(form.row_of(line)[form.by])
    return inf


def _compact(log: Log, chunk: int, listen: Listen) -> Compacted:
    found, opened = Compacted(log.deployment, log.form.name), log.table.open()
    moved = opened.position(log.deployment) if opened else 0
    try:
        seal(log.live, log.sealed, max([moved, *(part.end for part in log.parts)]))
        for part in log.parts:
            if part.end > moved:
                with part.path.open("rb") as file:
                    for end, lines, damaged in _chunks(log, file, part, max(moved, part.begin), chunk):
                        found = replace(found, lines=found.lines + lines, damaged=found.damaged + damaged)
                        listen(lines)
                        moved = end
            found = replace(found, bytes=found.bytes + part.end - part.begin)
            part.path.unlink()
    except StoreError:
        raise
    except OSError as error:
        raise store_error(error, str(log.live.parent), f"{log.form.what}, {log.deployment}") from error
    return found


def _chunks(log: Log, file: BinaryIO, part: Part, begin: int, chunk: int) -> Iterator[tuple[int, int, int]]:
    """Move a part from a place on; of each chunk its end, and how many lines were moved and how many are damaged."""
    scratch = log.folder / ".compacting"
    scratch.mkdir(exist_ok=True)
    file.seek(begin - part.begin)
    try:
        while begin < part.end:
            _check_room(log, min(chunk, part.end - begin))
            end, lines, odd = write_rows(log.form, file, begin, begin + chunk, scratch / "rows.json")
            if odd:
                _keep_aside(log, begin, odd)
            if lines:
                _append(log, scratch / "rows.json", end)
            yield end, lines, len(odd)
            begin = end
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_room(log: Log, needed: int) -> None:
    """Raise StoreError before the disk is full in the midst of it."""
    if shutil.disk_usage(log.folder).free < 2 * needed:
        raise store_error(OSError(28, f"compaction takes {2 * needed / 1e6:,.0f} MB for a while"), str(log.folder), log.form.what)


def _append(log: Log, rows: Path, position: int) -> None:
    """Rows that were written to a file, into the table; the log is moved up to a position then."""
    form = log.form
    sql = rows_sql(form, rows, f"{data.literal(log.deployment)} AS deployment", f"make_timestamp({form.by})::DATE AS day")
    with data.engine() as connection, data.explained(f"lines of {form.what} cannot be taken", str(rows)):
        connection.execute("SET threads = 1")
        log.table.append(connection.sql(sql), log.deployment, position)


def _keep_aside(log: Log, begin: int, lines: Sequence[bytes]) -> None:
    """Damaged lines in a file of their own, before the part they come from is deleted; written again it is the same file."""
    folder = log.live.parent / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / f"{log.deployment}-{begin:020d}.txt").write_bytes(b"".join(lines))


def _measured(folder: Path, one: Compacted) -> Compacted:
    log = next(log for log in logs_in(folder, [one.deployment]) if log.form.name == one.what)
    table = log.table.open()
    files = table.of(one.deployment) if table else []
    return replace(one, rows=sum(file.rows for file in files), stored=sum(file.size for file in files))
