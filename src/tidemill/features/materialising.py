"""A view log into the online store: part by part, so that memory does not grow with it, and going on where a killed process ended."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from tidemill.core import Array, Bools, definition, digest_bytes
from tidemill.features.forms import form_of
from tidemill.features.online import Making, Mark, OnlineStore, space_of
from tidemill.features.state import recoded
from tidemill.features.views import ViewLog

PART = 10_000  # entities written at once
EVENTS = 1_000_000  # events read at once, unless one entity has more
UInts = np.ndarray[Any, np.dtype[np.uint64]]
Words = dict[str, list[str]]
Told = Callable[[int, int], object]  # entities written, of how many


def quiet(done: int, of: int) -> None:
    """Tell nobody."""


def materialise(store: OnlineStore, log: ViewLog, until: int, *, version: str = "", tell: Told = quiet) -> int:
    """Bring a view's space up to what was known by `until`; returns the number of entities written. Only those with news are, unless the
    rows known by its mark are others than they were: then all are made anew. An older time changes nothing."""
    space, mark = space_of(log.view), Mark.of(store.mark(space_of(log.view)))
    if mark and mark.until is not None and not mark.making:
        same = (version, until) == (mark.version, mark.until)
        if same or until < mark.until:
            return 0
    work = _Work(store, space, log, until, version)
    written = work.run(work.begun(mark), tell)
    if written:
        store.settle()
    return written


@dataclass(frozen=True)
class _Work:
    store: OnlineStore
    space: str
    log: ViewLog
    until: int
    version: str

    def begun(self, mark: Mark | None) -> Mark:
        """The mark under which it is written."""
        going = mark.making if mark else None
        if mark and going and (going.version, going.until) == (self.version, self.until):
            return mark
        words = {name: list(self.log.vocabularies[full]) for name, full in self._coded.items()}
        if mark and not going and mark.until is not None:
            more = {name: [*own, *sorted({*words[name]}.difference(own))] for name, own in mark.words.items()}
            if self.version == mark.version or self._digest(self.log.events.known <= mark.until, more) == int(mark.digest, 16):
                return msgspec.structs.replace(mark, words=more, making=Making(self.version, self.until, 0, whole=False))
        self.store.keep([space for space in self.store.spaces() if space != self.space])
        making = Making(self.version, self.until, 0, whole=True)
        return Mark(definition(self.log.view), words=words, making=making)

    def run(self, mark: Mark, tell: Told) -> int:
        """Write what is to be written; returns the number of entities."""
        making = mark.making
        assert making is not None
        known, entity = self.log.events.known, self.log.events.entity
        news = known <= self.until
        if not making.whole and mark.until is not None:
            news = news & (known > mark.until)
        some = np.unique(entity[news])
        done = making.done
        tell(done, len(some))
        for low, high in self._parts(some[done:]):
            part = some[done + low : done + high]
            states = self._states(part, mark.words)
            now = msgspec.structs.replace(mark, making=msgspec.structs.replace(making, done=done + high))
            self.store.update(self.space, [], lambda _, __, now=now, states=states: (now.bytes(), states))  # type: ignore[misc]
            tell(done + high, len(some))
        digest = _sum(int(mark.digest or "0", 16), self._digest(news, mark.words))
        whole = msgspec.structs.replace(mark, version=self.version, until=self.until, digest=f"{digest:x}", making=None)
        self.store.update(self.space, [], lambda _, __: (whole.bytes(), {}))
        return len(some) - done

    def _parts(self, entities: Array) -> list[tuple[int, int]]:
        """Stretches of entities, each with no more events than are read at once."""
        found, start, events = list[tuple[int, int]](), 0, 0
        for i, many in enumerate((self.log.events.starts[entities + 1] - self.log.events.starts[entities]).tolist()):
            if i > start and (events + many > EVENTS or i - start >= PART):
                found.append((start, i))
                start, events = i, 0
            events += many
        return [*found, (start, len(entities))] if len(entities) > start else found

    def _states(self, entities: Array, words: Words) -> dict[str, bytes]:
        """The states of some entities, which are ascending."""
        events = self.log.events
        sizes = events.starts[entities + 1] - events.starts[entities]
        rows = np.repeat(events.starts[entities] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        rows = rows[events.known[rows] <= self.until] if len(rows) else rows
        columns = {name: self._column(name, words)[rows] for name in self.log.columns}
        owner = np.searchsorted(entities, events.entity[rows])
        form = form_of(self.log.view)
        found = form.states(owner, events.event[rows], events.known[rows], columns, len(entities), self.until)
        return {self.log.entities[one]: data for one, data in zip(entities.tolist(), found, strict=True) if data}

    def _column(self, name: str, words: Words) -> Array:
        full = self._coded.get(name[2:])
        column = self.log.columns[name]
        return column if full is None else recoded(column, self.log.vocabularies[full], words[name[2:]])

    @cached_property
    def _coded(self) -> dict[str, str]:
        """The features of categories, and the name under which their words are."""
        view = self.log.view
        return {name: view.names_of(name)[0] for name, feature in view.columns.items() if feature.category}

    def _digest(self, rows: Bools, words: Words) -> int:
        """Of some rows, in whatever order: a sum of 128 bits, to which more rows can be added."""
        there, owner = np.unique(self.log.events.entity[rows], return_inverse=True)
        names = [int(digest_bytes(self.log.entities[one].encode())[:16], 16) for one in there.tolist()]
        mixed = np.array(names, dtype=np.uint64)[owner]
        for column in (self.log.events.event, self.log.events.known, *(self._column(name, words) for name in self.log.columns)):
            mixed = _mix(mixed ^ column[rows].view(np.uint64))
        high, low = (int(part.sum(dtype=np.uint64)) for part in (mixed, _mix(mixed + np.uint64(1))))
        return high << 64 | low


def _mix(bits: UInts) -> UInts:
    """Bits of which each depends on each (the end of splitmix64; Steele, Lea, Flood, Fast splittable pseudorandom number generators,
    OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _sum(one: int, two: int) -> int:
    """The sum of two digests, each half by itself."""
    half = 1 << 64
    return ((one >> 64) + (two >> 64)) % half << 64 | (one + two) % half
