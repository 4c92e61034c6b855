"""What a server counts, in memory that several processes may share: each writes to a part of its own, and all read all.

A count is there once it was written, whatever becomes of who wrote it; who takes the place of a process that ended goes on with its counts.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from mmap import mmap
from threading import Lock
from typing import TypeAlias

log = logging.getLogger(__name__)
SIZE = 4 << 20  # bytes of a part; only what was written takes memory
NOW = "now"  # what the name of a row begins with that tells of the process that lives: forgotten when it ends
_USED, _READY, _OPEN, _FIRST = 0, 1, 2, 8  # numbers of a part: how many are used; of the process itself; where its rows begin
Name = tuple[str, ...]
Row: TypeAlias = "memoryview[float]"


BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counters:
    """Rows of numbers by name. A row lies in a part as how long its name and it are, the name, and its numbers: doubles throughout, so
    that whole numbers are exact up to 2**53.

    >>> memory = mmap(-1, 2 * SIZE)
    >>> one, two = Counters(memory, 0), Counters(memory, 1)
    >>> one.row("answers", "late", width=2)[0] += 3
    >>> two.row("answers", "late", width=2)[0] += 4
    >>> [list(row) for row in one.rows("answers", "late")]
    [[3.0, 0.0], [4.0, 0.0]]
    """

    def __init__(self, memory: mmap | None = None, part: int = 0) -> None:
        """Without memory, of this process alone."""
        whole = memory or mmap(-1, SIZE)
        self._parts = [_Part(memoryview(whole)[start : start + SIZE].cast("d")) for start in range(0, len(whole), SIZE)]
        self._own, self._lock = self._parts[part], Lock()

    def row(self, *name: str, width: int = 1) -> Row:
        """The row of this process, to be written to."""
        with self._lock:
            found = self._own.rows.get(name)
            return self._own.append(name, width) if found is None else found

    def rows(self, *name: str) -> list[Row]:
        """The rows of a name in all parts."""
        return [part.rows[name] for part in self._read() if name in part.rows]

    def names(self, *first: str) -> list[Name]:
        """The names that begin so."""
        found = (name for part in self._read() for name in [*part.rows] if name[: len(first)] == first)
        return [*dict.fromkeys(found)]

    def of(self, *first: str) -> "Counted":
        """The counts whose names begin so."""
        return Counted(self, first)

    def begin(self) -> None:
        """This process takes the place of another."""
        self.forget(self._parts.index(self._own))

    def forget(self, part: int) -> None:
        """A process ended: what it told of itself does not hold any more, what it counted does."""
        one = self._parts[part]
        one.numbers[_READY] = one.numbers[_OPEN] = 0
        one.read()
        for name in [name for name in one.rows if name[0] == NOW]:
            one.rows[name][:] = memoryview(bytes(8 * len(one.rows[name]))).cast("d")

    @property
    def open(self) -> int:
        """How many connections this process has."""
        return int(self._own.numbers[_OPEN])

    @open.setter
    def open(self, number: int) -> None:
        self._own.numbers[_OPEN] = number

    def ready(self) -> None:
        """This process takes requests from now on."""
        self._own.numbers[_READY] = 1

    @property
    def processes(self) -> int:
        """How many processes take requests."""
        return sum(part.numbers[_READY] > 0 for part in self._parts)

    @property
    def fewest(self) -> int:
        """The fewest connections that a process has which takes requests."""
        return int(min((part.numbers[_OPEN] for part in self._parts if part.numbers[_READY]), default=0))

    def _read(self) -> "Sequence[_Part]":
        with self._lock:
            for part in self._parts:
                part.read()
        return self._parts


class _Part:
    """The rows of one process, as far as they were read."""

    def __init__(self, numbers: Row) -> None:
        self.numbers, self.rows, self._at = numbers, dict[Name, Row](), _FIRST
        self._bytes = numbers.cast("B")
        self.read()

    def read(self) -> None:
        """Find what was added."""
        while self._at < self.numbers[_USED]:
            size, width = int(self.numbers[self._at]), int(self.numbers[self._at + 1])
            start = self._at + 2
            name = tuple(str(self._bytes[8 * start : 8 * start + size], "utf-8").split("\0"))
            self._at = start + -(-size // 8) + width
            self.rows[name] = self.numbers[self._at - width : self._at]

    def append(self, name: Name, width: int) -> Row:
        """A new row; where there is no room for it, one that nobody else sees."""
        text = "\0".join(name).encode(errors="replace")
        start = self._at + 2
        end = start + -(-len(text) // 8) + width
        if end > len(self.numbers):
            log.warning("counters=full name=%s counted=nowhere", name)
            self.rows[name] = memoryview(bytearray(8 * width)).cast("d")
            return self.rows[name]
        self.numbers[self._at], self.numbers[self._at + 1] = len(text), width
        self._bytes[8 * start : 8 * start + len(text)] = text
        self.numbers[_USED] = end  # last: who reads sees whole rows
        self.read()
        return self.rows[name]


class Counted(Mapping[str, int]):
    """Counts by name; what is read is the sum over all processes.

    >>> counts = Counters().of("answers", "late")
    >>> counts.add("champion", 2)
    >>> counts.add("champion", 1)
    >>> dict(counts)
    {'champion': 3}
    """

    def __init__(self, counters: Counters, first: Name) -> None:
        self._counters, self._first, self._rows = counters, first, dict[str, Row]()

    def add(self, what: str, by: int) -> None:
        """Count, in one thread at a time."""
        row = self._rows.get(what)
        if row is None:
            row = self._rows[what] = self._counters.row(*self._first, what)
        row[0] += by

    def clear(self) -> None:
        """Forget what this process counted."""
        for row in self._rows.values():
            row[0] = 0

    def __getitem__(self, what: str) -> int:
        found = int(sum(row[0] for row in self._counters.rows(*self._first, what)))
        if not found:
            raise KeyError(what)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name[-1] for name in self._counters.names(*self._first) if sum(row[0] for row in self._counters.rows(*name)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
