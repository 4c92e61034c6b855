"""One writer for each project. The lock is the kernel's, so it ends with the process that holds it, however that ends."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.core import Busy, store_error


def holder(path: Path) -> dict[str, object]:
    """Who wrote the lock file last: pid and command."""
    try:
        found = json.loads(path.read_text() or "{}")
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go at once: a writer that looks in between is turned away
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


@contextmanager
def writer(path: Path, command: str, *, wait: float = 0.0, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the project's writer lock, waiting up to `wait` seconds; raises Busy, which names the holder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise store_error(error, str(path)) from error
    try:
        _acquire(handle, path, wait, waiting)
        _sign(handle, path, command)
        yield
    finally:
        os.close(handle)


def _sign(handle: int, path: Path, command: str) -> None:
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "command": command}).encode(), 0)
    except OSError as error:
        raise store_error(error, str(path)) from error


def _acquire(handle: int, path: Path, wait: float, waiting: Callable[[str], None] | None) -> None:
    deadline, told = time.monotonic() + wait, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            held = holder(path)
            who = f"process {held.get('pid', '?')} ({held.get('command', 'unknown command')})"
        if time.monotonic() >= deadline:
            raise Busy(
                f"{who} is writing to this project", where=str(path.parent), hint="wait until it is done, or end it; reading always works"
            )
        if waiting and not told:
            waiting(f"waiting for {who}")
            told = True
        time.sleep(0.1)
