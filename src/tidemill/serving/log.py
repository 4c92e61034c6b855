"""The gateway's own log of answers: one line of JSON each, appended with a single write before the answer leaves.

A line that was acknowledged survives the end of the process; one that was cut by it is skipped by the reader. Of an answer
that a full disk took in part, nothing stays.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from tidemill.core import canonical
from tidemill.data import Prediction
from tidemill.serving.answers import Answer
from tidemill.serving.caller import caller
from tidemill.serving.dataset import answers_at
from tidemill.serving.ids import new_ids
from tidemill.serving.routing import share
from tidemill.serving.spans import span
from tidemill.serving.withheld import Withheld
from tidemill.store import store_error


class Lines:
    """An append-only file of lines. What `write` returned from survives the end of the process."""

    what = "the log of answers"

    def __init__(self, path: Path) -> None:
        self.path, self._name = path, str(path)
        self._one = Lock()  # threads share the lock of the file
        try:
            self._open()
        except OSError as error:
            raise store_error(error, str(path), self.what) from error

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, all or none; raises StoreError when the disk refuses, and then nothing was acknowledged."""
        data = b"\n".join([*lines, b""])
        try:
            with self._one:
                while not self._written(data):
                    old = self._file
                    self._open()
                    os.close(old)
        except OSError as error:
            raise store_error(error, str(self.path), self.what) from error

    def _written(self, data: bytes) -> bool:
        """Write where the file still lies under the log's name; whether it does. One whose name was deleted or moved is not written to: a
        line that nobody can read is no line, and a part that was sealed is at its end. Who seals it holds the lock."""
        fcntl.flock(self._file, fcntl.LOCK_EX)  # a second server may write to it: only what is ours is taken back
        try:
            if not self._is_there():
                return False
            self._write(data)
            return True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _is_there(self) -> bool:
        try:
            found = os.stat(self._name)  # noqa: PTH116 – with every answer: a path takes longer
            return found.st_ino == self._inode and found.st_dev == self._device
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self._file = _opened(self.path)
        found = os.fstat(self._file)
        self._inode, self._device, self._end = found.st_ino, found.st_dev, -1  # where what was written last ends is not known

    def _write(self, data: bytes) -> None:
        """All or nothing, behind what is there; what was cut gets a line of its own."""
        size = os.fstat(self._file).st_size
        cut = size not in (0, self._end) and os.pread(self._file, 1, size - 1) != b"\n"
        if os.write(self._file, b"\n" * cut + data) != cut + len(data):
            os.ftruncate(self._file, size)
            raise OSError(28, "the disk took only a part")
        self._end = size + cut + len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def seal(path: Path, folder: Path, begin: int) -> None:
    """Move what was written so far to a folder, as `BEGIN-END.jsonl`; who writes goes on in a new file. Raises OSError."""
    try:
        file = os.open(path, os.O_RDWR)  # to lock it takes the right to write
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # nobody is in the midst of a line
        size = os.fstat(file).st_size
        if size:
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / f"{begin:020d}-{begin + size:020d}.jsonl")
    finally:
        os.close(file)


def rewrite(path: Path, gone: Callable[[bytes], bool]) -> None:
    """Leave lines out of a file of a log; who writes to it waits, and goes on behind them. Raises StoreError."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        with path.open("rb") as lines:
            if not any(map(gone, lines)):
                return
            lines.seek(0)
            aside = path.with_name(f".{path.name}.part")
            with aside.open("wb") as kept:
                kept.writelines(line for line in lines if not gone(line))
            aside.replace(path)
    except OSError as error:
        raise store_error(error, str(path), Lines.what) from error
    finally:
        os.close(file)


class AnswerLog(Lines):
    """The answers of one deployment. `keep`: the share of them whose features are written down too, but for what is `withheld`."""

    def __init__(self, path: Path, keep: float = 1.0, withheld: Withheld | None = None) -> None:
        super().__init__(path)
        self.keep, self._withheld = keep, withheld

    def append(self, answers: Sequence[Answer], now: int, branch: str, *, begun: int = 0, **how: str) -> list[str]:
        """Write the answers of a branch's versions, and `how` they were asked for; returns the id of each. `begun` is when the request
        came, by `time.perf_counter_ns`. Raises StoreError when the disk refuses, and then nothing was acknowledged."""
        known = {"asked": now, "branch": branch, **how}
        known |= {"latency_us": (time.perf_counter_ns() - begun) // 1_000} if begun else {}
        known |= {"trace": trace} if (trace := caller().trace) else {}
        ids = new_ids(now, len(answers))
        lines = [{"id": name, **known, **answer.line()} for name, answer in zip(ids, answers, strict=True)]
        with span("log append", rows=len(answers)):
            self.write([canonical(line) for line in (map(self._withheld.of, lines) if self._withheld else lines)])
        return ids


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


class _Line(msgspec.Struct):
    """What the loop reads of a line."""

    branch: str
    key: str
    at_us: int
    probability: float
    version: str
    rung: str


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the log with what it rests on: `inputs` are the values that were served, categories as text; `versions` what they were
    read from; `sent` the columns that the request brought. Of an answer without its features both are empty. `withheld` are the names of
    `inputs` and of `sent` that are left out, or digests."""

    branch: str
    asked: int
    key: str
    at_us: int
    version: str
    rung: str
    features_from: str = ""
    features_missing: dict[str, str] = {}
    inputs: dict[str, float | str | None] = {}
    versions: dict[str, str] = {}
    sent: dict[str, Any] | None = None
    withheld: dict[str, list[str]] = {}


@dataclass(frozen=True)
class Sample:
    """Some answers of a branch's log, asked in [since, until): `rows` of those `kept` with their features, of `answers` in all."""

    since: int
    until: int
    answers: int
    kept: int
    rows: Sequence[Logged]


def sample_answers(path: Path, branch: str, since: int, until: int, most: int) -> Sample:
    """At most so many answers of versions of a branch, with what they rest on, in the order of the log. Which ones, a digest of key and
    times tells: the same every time, all alike likely. The constant of the ladder rests on nothing and is not counted."""
    answers = kept = 0
    heap: list[tuple[float, int, Logged]] = []  # those of the least shares, the greatest of them first
    for one in answers_at(path).read(Logged, since=since, until=until, like={"branch": branch}):
        if one.branch == branch and one.version and since <= one.asked < until:
            answers += 1
            if one.versions:
                kept += 1
                heappush(heap, (-share(f"{one.key}/{one.at_us}/{one.asked}", "skew"), -kept, one))
                if len(heap) > most:
                    heappop(heap)
    return Sample(since, until, answers, kept, [one for _, _, one in sorted(heap, key=lambda found: -found[1])])


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The answers of a log, oldest first; a line that was cut or damaged is left out."""
    return answers_at(path).read(dict[str, Any])


def find_answers(path: Path, branch: str, key: str = "") -> list[Prediction]:
    """What the versions of a branch answered, to one key or to all, oldest first."""
    like = {"branch": branch} | ({"key": key} if key else {})
    found = (one for one in answers_at(path).read(_Line, like=like) if one.branch == branch and (not key or one.key == key))
    return [Prediction(branch, path.stem, one.key, one.at_us, one.probability, one.version, one.rung) for one in found]
