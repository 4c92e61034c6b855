"""The gateway's own log of answers: one line of JSON each, appended with a single write before the answer leaves.

A line that was acknowledged survives the end of the process; one that was cut by it is skipped by the reader. Of an answer
that a full disk took in part, nothing stays.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidemill.core import canonical
from tidemill.data import Prediction
from tidemill.serving.endpoint import Answer
from tidemill.store import store_error

T = TypeVar("T")


class AnswerLog:
    """An append-only file of answers of one deployment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = _opened(path)
        except OSError as error:
            raise store_error(error, str(path), "the log of answers") from error

    def append(self, answers: Sequence[Answer], now: int, branch: str) -> None:
        """Write the answers of a branch's versions; raises StoreError when the disk refuses, and then nothing was acknowledged."""
        known = {"asked": now, "branch": branch}
        lines = [canonical({**known, "at_us": answer.at, **replace(answer, inputs=None).plain(0)}) + b"\n" for answer in answers]
        try:
            self._locked(b"".join(lines))
            while not self._is_there():
                self._locked(b"".join(lines))
        except OSError as error:
            raise store_error(error, str(self.path), "the log of answers") from error

    def _locked(self, data: bytes) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)  # a second server may write to it: only what is ours is taken back
        try:
            self._write(data)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _is_there(self) -> bool:
        """Whether what was written lies under the log's name. A file whose name was deleted or moved is opened anew: a line that nobody
        can read is no line."""
        try:
            if os.path.samestat(os.fstat(self._file), self.path.stat()):
                return True
        except FileNotFoundError:
            pass
        old, self._file = self._file, _opened(self.path)
        os.close(old)
        return False

    def _write(self, data: bytes) -> None:
        """All or nothing, behind what is there; what was cut gets a line of its own."""
        size = os.fstat(self._file).st_size
        cut = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        if os.write(self._file, b"\n" * cut + data) != cut + len(data):
            os.ftruncate(self._file, size)
            raise OSError(28, "the disk took only a part")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


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


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    """The lines that are such a value; one that was cut or damaged is none."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The answers of a log, oldest first; a line that was cut or damaged is left out."""
    return _lines(path, dict[str, Any])


def find_answers(path: Path, branch: str, key: str = "") -> list[Prediction]:
    """What the versions of a branch answered, to one key or to all, oldest first."""
    found = (one for one in _lines(path, _Line) if one.branch == branch and (not key or one.key == key))
    return [Prediction(branch, path.stem, one.key, one.at_us, one.probability, one.version, one.rung) for one in found]
