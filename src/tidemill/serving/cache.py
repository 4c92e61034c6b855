"""What models said, by the digest of what they were asked with: an equal question costs no run.

The version is part of what is asked, so a promotion leaves nothing to be taken back. Kept in memory, up to so many bytes; what was asked
for longest ago is forgotten first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np

from tidemill.core import Array, Floats
from tidemill.serving import oip
from tidemill.serving.counters import NOW, Counters

ENTRY = 256  # bytes of a key with a number, with what Python needs to hold them
DIGEST = 20  # bytes
TURNS = 64
Scores = tuple[Floats, list[bool]]  # probabilities, and which of them were known


class AnswerCache:
    """Values by key, of `most` bytes. Many threads ask.

    >>> cache = AnswerCache(2 * ENTRY)
    >>> for key in (b"a", b"b", b"a", b"c"):
    ...     _ = cache.find(key) or cache.keep(key, key.decode())
    >>> [cache.find(key) for key in (b"a", b"b", b"c")]
    ['a', None, 'c']
    >>> cache.counted() == (3, 4, 2 * ENTRY)
    True
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._kept, self._lock = OrderedDict[bytes, tuple[Any, int]](), Lock()
        self._turns = [Lock() for _ in range(TURNS)]
        self.count_in(Counters())

    def count_in(self, counters: Counters, *name: str) -> None:
        """Count there from now on, under a name."""
        self._counters, self._name = counters, ("cache", *name)
        self._asked, self._held = counters.row(*self._name, width=2), counters.row(NOW, *self._name)
        self._held[0] = self.bytes

    def counted(self) -> tuple[int, int, int]:
        """Hits and misses so far, and bytes that are held now, in all processes."""
        hits, misses = map(sum, zip(*self._counters.rows(*self._name), strict=True))
        return int(hits), int(misses), int(sum(row[0] for row in self._counters.rows(NOW, *self._name)))

    def find(self, key: bytes) -> Any:
        """A value, or None; counted."""
        with self._lock:
            found = self._look(key)
            self._asked[found is None] += 1
        return found

    def _look(self, key: bytes) -> Any:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(self, key: bytes, value: Any, size: int = 0) -> None:
        """Keep a value of `size` bytes beyond those of an entry; one that is larger than all is let go."""
        size += ENTRY
        with self._lock:
            if size > self.most:
                return
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = value, size
            self.bytes += size - before
            while self.bytes > self.most:
                self.bytes -= self._kept.popitem(last=False)[1][1]
            self._held[0] = self.bytes

    def turn(self, key: bytes) -> AbstractContextManager[object]:
        """Who holds it asks alone: those with an equal question wait, and then find the answer; an event loop does not, or all would."""
        return self._turns[key[0] % TURNS] if asyncio._get_running_loop() is None else nullcontext()

    def known(self, version: str, features: Floats) -> list[float] | None:
        """What a version said to rows (n, f), where all of them are known; then they are counted."""
        with self._lock:
            found = [self._look(key) for key in _keys(version, features)]
            if None in found:
                return None
            self._asked[0] += len(found)
        return found

    def partly(self, version: str, features: Floats) -> list[float | None]:
        """What a version said to each of some rows (n, f), None where it is not known; counted."""
        return [self.find(key) for key in _keys(version, features)]

    def note(self, version: str, features: Floats, scores: Floats) -> None:
        """Keep what a version says to rows (n, f)."""
        for key, score in zip(_keys(version, features), scores.tolist(), strict=True):
            if score == score:  # NaN is no answer
                self.keep(key, score)

    def scores(self, version: str, features: Floats, run: Callable[[Floats], Floats]) -> Scores:
        """What a version says to rows (n, f): `run` is asked about those that are not known, together."""
        keys = _keys(version, features)
        if len(keys) > 1:
            return self._scores(keys, features, run)
        with self.turn(keys[0]):
            return self._scores(keys, features, run)

    def _scores(self, keys: Sequence[bytes], features: Floats, run: Callable[[Floats], Floats]) -> Scores:
        found = [self.find(key) for key in keys]
        was = [one is not None for one in found]
        new = [i for i, known in enumerate(was) if not known]
        if new:
            for i, score in zip(new, run(features if len(new) == len(keys) else features[new]).tolist(), strict=True):
                found[i] = score
                if score == score:  # NaN is no answer
                    self.keep(keys[i], score)
        return np.array(found, dtype=np.float64), was


def _keys(version: str, features: Floats) -> list[bytes]:
    """A digest of each row; all NaN are one."""
    rows = np.ascontiguousarray(np.where(np.isnan(features), np.nan, features))
    start = blake2b(version.encode(), digest_size=DIGEST)
    found = []
    for row in rows:
        one = start.copy()
        one.update(row)
        found.append(one.digest())
    return found


def digest_of(tensors: Mapping[str, Array], wanted: Sequence[str]) -> bytes:
    """The digest of tensors and of the outputs that are wanted; all NaN are one."""
    one = blake2b(repr([sorted(wanted), [(name, tensors[name].dtype.str, tensors[name].shape) for name in sorted(tensors)]]).encode())
    for name in sorted(tensors):
        array = tensors[name]
        one.update(oip.raw_of(np.where(np.isnan(array), array.dtype.type(np.nan), array) if array.dtype.kind == "f" else array))
    return one.digest()[:DIGEST]


def size_of(array: Array) -> int:
    """Bytes that an array holds, and its own."""
    return array.nbytes + 128 + (sum(len(one) + 60 for one in array.ravel().tolist()) if array.dtype.kind == "O" else 0)
