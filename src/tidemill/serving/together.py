"""A bare model that several processes serve: what one of them is told to load or unload the others load or unload too.

They have a file between them, in memory: the bytes of the model as they were loaded last, and a number that grows with each change. A
process looks at the number before it answers, so what was acknowledged holds for whatever is asked after that, of whomever; and one that
is started later serves what the others do, whatever became of the model's own file.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import PAGESIZE, mmap
from threading import Lock
from typing import ClassVar

from tidemill.core import TidemillError
from tidemill.serving.repository import Served, Tensors


class Shelf:
    """The file between processes: in its first page the number of changes, and of how many bytes the model is (-1: it is unloaded)."""

    def __init__(self, file: int) -> None:
        self._file, self._state = file, memoryview(mmap(file, PAGESIZE)).cast("q")

    @property
    def changes(self) -> int:
        """How often something was changed."""
        return self._state[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reads or writes."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self) -> bytes | None:
        """The bytes of the model; None while it is unloaded."""
        size = self._state[1]
        return None if size < 0 else os.pread(self._file, size, PAGESIZE)

    def write(self, data: bytes | None) -> int:
        """Keep those of another model, or of none; returns the number of changes."""
        os.ftruncate(self._file, PAGESIZE + len(data or b""))
        os.pwrite(self._file, data or b"", PAGESIZE)
        self._state[1] = -1 if data is None else len(data)
        self._state[0] += 1
        return self._state[0]


@dataclass
class Together(Served):
    """A bare model of one of several processes. `fetch` reads its bytes from where it lies, and `opened` makes a model of them."""

    shared: ClassVar[bool] = True
    shelf: Shelf = field(kw_only=True)
    fetch: Callable[[], bytes] = field(kw_only=True)
    opened: Callable[[bytes], Tensors] = field(kw_only=True)
    _seen: int = 0
    _lock: Lock = field(default_factory=Lock)

    def catch_up(self) -> None:
        """Load or unload what another process did, or what all serve where this one was just started."""
        if self.shelf.changes == self._seen:
            return
        with self._lock:
            with self.shelf.held():
                if (seen := self.shelf.changes) == self._seen:
                    return
                data, model, why = self.shelf.read(), None, "it was unloaded"
            if data is not None:  # opened while others may do so too
                try:
                    model, why = self.opened(data), ""
                except TidemillError as error:  # another process could; this one says why it cannot
                    why = error.what
            self.model, self.why, self._seen = model, why, seen

    def load_anew(self) -> None:
        """Load it from where it lies, and for the others; raises what that raises, and then the one before stays."""
        try:
            data = self.fetch()
            model = self.opened(data)
        except TidemillError as error:
            self.why = error.what
            raise
        self._put(data, model, "")

    def unload(self) -> None:
        """Give it back, here and for the others."""
        self._put(None, None, "it was unloaded")

    def _put(self, data: bytes | None, model: Tensors | None, why: str) -> None:
        with self._lock, self.shelf.held():
            seen = self.shelf.write(data)
            self.model, self.why, self._seen = model, why, seen
