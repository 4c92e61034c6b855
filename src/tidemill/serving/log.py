"""The gateway's own log of answers: one line of JSON each, appended with a single write before the answer leaves.

A line that was acknowledged survives the end of the process; one that was cut, by it or by a full disk, is skipped by the reader.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core import canonical
from tidemill.serving.endpoint import Answer
from tidemill.store import store_error


class AnswerLog:
    """An append-only file of answers of one deployment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(self._file).st_size
            self._cut = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        except OSError as error:
            raise store_error(error, str(path)) from error

    def append(self, answers: Sequence[Answer], now: int) -> None:
        """Write answers; raises StoreError when the disk refuses, and then nothing was acknowledged."""
        lines = [canonical({"asked": now, "at_us": answer.at, **replace(answer, inputs=None).plain(0)}) + b"\n" for answer in answers]
        data = b"".join([b"\n"] * self._cut + lines)  # what was cut gets a line of its own
        try:
            written = os.write(self._file, data)
            self._cut = self._cut if not written else data[written - 1 : written] != b"\n"
            if written != len(data):
                raise OSError(28, "the disk took only a part")
        except OSError as error:
            raise store_error(error, str(self.path)) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The answers of a log, oldest first; a last line that was cut is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                try:
                    yield msgspec.json.decode(line)
                except msgspec.DecodeError:  # one that was cut
                    continue
