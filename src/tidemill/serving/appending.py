"""An append-only file of lines, which several processes may write: all or nothing, never to a file that was deleted or moved away."""

import os
import time
from collections.abc import Callable, Sequence
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path
from threading import Lock

from tidemill.core import store_error

LOOK_AGAIN = 0.005  # seconds; to look with each line costs as much as to write it


class Lines:
    """What `write` returned from survives the end of the process. Who moves the file or puts another in its place holds its lock (flock)
    and writes an empty line to its end: then nobody writes to it any more. One that was taken away otherwise is missed after a moment."""

    what = "the log of answers"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end, self._look = -1, 0.0  # where what was written last ends, if that is known
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
        """Write where the file still lies under the log's name; whether it does. A line that nobody can read is no line."""
        flock(self._file, LOCK_EX)  # a second server may write to it: only what is ours is taken back
        try:
            size, now = os.lseek(self._file, 0, os.SEEK_END), time.monotonic()
            if size != self._end or now >= self._look:
                if not self._is_there():
                    return False
                self._look = now + LOOK_AGAIN
            if size not in (0, self._end) and os.pread(self._file, 1, size - 1) != b"\n":
                data = b"\n" + data  # what was cut gets a line of its own
            if os.write(self._file, data) != len(data):
                os.ftruncate(self._file, size)
                raise OSError(28, "the disk took only a part")
            self._end = size + len(data)
        finally:
            flock(self._file, LOCK_UN)
        return True

    def _is_there(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return found.st_ino == self._inode and found.st_dev == self._device

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        found = os.fstat(self._file)
        self._inode, self._device = found.st_ino, found.st_dev
        self._end = -1

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
