"""An append-only file of lines, which several processes may write or one alone: all or nothing, never to a file that was taken away."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from itertools import count
from pathlib import Path
from threading import Lock

from tidemill.core import StoreError, store_error

log = logging.getLogger(__name__)
LOOK_AGAIN = 0.005  # seconds; to look with each line costs as much as to write it
TRIED = b"\n" * (64 << 10)  # a disk that takes no more than this is full


class Lines:
    """What `write` returned from survives the end of the process. Who moves the file or puts another in its place holds its lock (flock)
    and writes an empty line to its end: then nobody writes to it any more. One that was taken away otherwise is missed after a moment."""

    what = "the log of answers"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one = Lock()  # threads share the lock of the file
        self._end, self._look = -1, 0.0  # where what was written last ends, if that is known; when it is looked whether the file is there
        self._refused = False  # what was to be written last
        try:
            self._open()
        except OSError as error:
            raise store_error(error, str(path), self.what) from error

    def write(self, lines: Sequence[bytes], *, stay: bool = True) -> None:
        """Write lines, all or none; they `stay`, or are taken back. Raises StoreError when the disk refuses, and then nothing was
        acknowledged, or when the log is closed."""
        if not lines:
            return
        data = lines[0] + b"\n" if len(lines) == 1 else b"\n".join([*lines, b""])
        with self._one:
            if self._file < 0:
                raise StoreError(f"{self.what} is closed", where=str(self.path), hint="ask before the server ends")
            try:
                while not self._written(data, stay=stay):
                    old = self._file
                    self._open()
                    os.close(old)
            except OSError as error:
                if not self._refused:
                    self._refused = True
                    why = error.strerror or error
                    log.error("log=%s error=%s cannot be written: what is to be in it is refused", self.path, why)
                raise store_error(error, str(self.path), self.what) from error
            if self._refused:
                self._refused = False
                log.warning("log=%s is written again", self.path)

    @property
    def is_writable(self) -> bool:
        """Whether it takes lines. While the disk refuses, it is tried: who is not ready is asked nothing that would find out."""
        if self._refused:
            with suppress(StoreError):
                self.write([TRIED], stay=False)
        return not self._refused

    def _written(self, data: bytes, *, stay: bool) -> bool:
        """Write where the file still lies under the log's name; whether it does. A line that nobody can read is no line."""
        flock(self._file, LOCK_EX)  # a second server may write to it: only what is ours is taken back
        try:
            size, now = os.lseek(self._file, 0, os.SEEK_END), time.monotonic()
            if size != self._end or now >= self._look:
                if not self._is_there():
                    return False
                self._look = now + LOOK_AGAIN
            if size != self._end and self._is_cut():
                data = b"\n" + data  # what was cut gets a line of its own
            if os.write(self._file, data) != len(data):
                os.ftruncate(self._file, size)
                raise _partly()
            if not stay:
                os.ftruncate(self._file, size)
            self._end = size + len(data) if stay else -1  # what was before may be cut
        finally:
            flock(self._file, LOCK_UN)
        return True

    def _is_there(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return found.st_ino == self._inode and found.st_dev == self._device

    def _is_cut(self) -> bool:
        """Whether the file ends with half a line."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def _open(self) -> None:
        self._take(_opened(self.path))

    def _take(self, file: int) -> None:
        found = os.fstat(file)
        self._file, self._inode, self._device = file, found.st_ino, found.st_dev
        self._end, self._look = -1, 0.0

    def close(self) -> None:
        """Close the file; again changes nothing."""
        with self._one:
            file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class OwnLines(Lines):
    """Lines of one process alone, so that none waits for another or looks each time what others wrote: who opens a log that somebody writes
    gets NAME+2.jsonl beside NAME.jsonl, then NAME+3.jsonl. Who ends leaves its file to the next."""

    def __init__(self, path: Path) -> None:
        self.first, self._cut = path, False
        super().__init__(path)

    def _open(self) -> None:
        for number in count(1):
            path = self.first if number == 1 else self.first.with_stem(f"{self.first.stem}+{number}")
            file = _opened(path)
            try:
                flock(file, LOCK_EX | LOCK_NB)  # as long as it is open
            except BlockingIOError:
                os.close(file)
            except OSError:
                os.close(file)
                raise
            else:
                self.path = path
                self._take(file)
                return

    def _written(self, data: bytes, *, stay: bool) -> bool:
        now = time.monotonic()
        if now >= self._look:
            if not self._is_there():
                return False
            self._look, self._cut = now + LOOK_AGAIN, self._is_cut()
        if self._cut:
            data = b"\n" + data
        written = os.write(self._file, data)
        if written == len(data) and stay:
            self._cut = False
            return True
        self._cut = True  # should it not be taken back
        os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_END) - written)
        self._cut = self._is_cut()
        if written != len(data):
            raise _partly()
        return True


def _partly() -> OSError:
    return OSError(28, "the disk took only a part")


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


def seal(path: Path, folder: Path, begin: int) -> None:
    """Move what was written so far to a folder, as `BEGIN-END.jsonl`; who writes goes on in a new file. Raises OSError."""
    try:
        file = os.open(path, os.O_RDWR)  # to lock it takes the right to write
    except FileNotFoundError:
        return
    try:
        flock(file, LOCK_EX)  # nobody is in the midst of a line
        if os.lseek(file, 0, os.SEEK_END):
            size = _leave(file)
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
        flock(file, LOCK_EX)
        with path.open("rb") as lines:
            if not any(map(gone, lines)):
                return
            lines.seek(0)
            aside = path.with_name(f".{path.name}.part")
            with aside.open("wb") as kept:
                kept.writelines(line for line in lines if not gone(line))
            aside.replace(path)
            _leave(file)
    except OSError as error:
        raise store_error(error, str(path), Lines.what) from error
    finally:
        os.close(file)


def _leave(file: int) -> int:
    """Tell who writes to a file, whose lock is held, to look where it lies: by an empty line. Returns its bytes."""
    os.lseek(file, 0, os.SEEK_END)
    os.write(file, b"\n")
    return os.lseek(file, 0, os.SEEK_END)
