"""A view log into the online store: part by part, so that memory does not grow with it, and going on where a killed process ended."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from tidemill.core import Array, Bools, Damaged, Floats, digest_bytes, find
from tidemill.features.forms import Windowed, form_of
from tidemill.features.latest import Latest
from tidemill.features.online import Making, Mark, OnlineStore, States, mark_of, space_of
from tidemill.features.pushing import Feed, Rows, catch_up
from tidemill.features.state import in_numbers, numbers_of
from tidemill.features.views import ViewLog
from tidemill.features.words import Numbering, SpaceWords, Vocabulary, chunks_of, counts_of

PART = 10_000  # entities written at once
DIGESTED = 2**15  # events whose digest is taken at once: they stay in the cache of the processor
EVENTS = 1_000_000  # events read at once, unless one entity has more
UInts = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = dict[str, Floats]  # of the words of the log among those of the space, by column
Told = Callable[[int, int], object]  # entities written, of how many


def quiet(done: int, of: int) -> None:
    """Tell nobody."""


def materialise(store: OnlineStore, log: ViewLog, until: int, *, version: str = "", feed: Feed | None = None, tell: Told = quiet) -> int:
    """Bring a view's space up to what was known by `until`, and to all that was pushed; returns the number of entities written. Only those
    with news are, unless the rows known by its mark are others than they were: then all are made anew. An older time changes nothing.
    Whoever writes the last view settles the store."""
    work, written = _Work(store, space_of(log.view), log, until, version, feed), 0
    with suppress(_Elsewhere):
        while work.is_due():
            with suppress(_Changed):
                written = work.run(work.begun(), tell)
    if feed:
        catch_up(store, feed)
    return written


def bring_up(store: OnlineStore, log: ViewLog, now: int, *, version: str = "", feed: Feed | None = None, tell: Told = quiet) -> int:
    """The same up to the newest of the rows that are known by now, so that doing it twice costs nothing, and no less far than the store is,
    for the rows behind may be gone; what a killed process began for an earlier moment is ended first."""
    mark, known = Mark.of(mark_of(store, space_of(log.view))), log.events.news
    newest = int(known[np.searchsorted(known, now, side="right") - 1]) if len(known) and known[0] <= now else now
    if mark and mark.until is not None and mark.until <= now:
        newest = max(newest, mark.until)
    going = mark.making if mark else None
    begun = [going.until] if going and going.version == version and going.until < newest else []
    return sum(materialise(store, log, until, version=version, feed=feed, tell=tell) for until in [*begun, newest])


class _Changed(Exception):
    """Somebody else has written to the space."""


class _Elsewhere(Exception):
    """Somebody else is bringing the space up to other data."""


@dataclass
class _Work:
    store: OnlineStore
    space: str
    log: ViewLog
    until: int
    version: str
    feed: Feed | None
    seen: bytes | None = None  # the mark as it was last read or written here: where it is another, somebody else was at work
    words: SpaceWords = field(init=False)
    begins: int = 0
    goes_on: dict[tuple[int, str], bool] = field(default_factory=dict)  # whether the log goes on from rows with a digest

    def __post_init__(self) -> None:
        self.words = SpaceWords(self.space)

    def is_due(self) -> bool:
        """Whether there is anything to do. Raises _Elsewhere."""
        self.seen = mark_of(self.store, self.space)
        mark = Mark.of(self.seen)
        if mark and mark.making and self.begins and (mark.making.version, mark.making.until) != (self.version, self.until):
            raise _Elsewhere
        self.begins += 1
        if mark is None or mark.until is None or mark.making:
            return True
        if self.until < mark.until:
            return False
        try:
            return (self.version, self.until) != (mark.version, mark.until) or self._own(mark) is None
        except _Changed:
            return True

    def begun(self) -> Mark:
        """The mark under which it is written."""
        mark = Mark.of(self.seen)
        own = self._own(mark) if mark else None
        going = mark.making if mark else None
        if mark and own is not None and going and (going.version, going.until) == (self.version, self.until):
            return mark
        there = min(self.log.pushed, self.feed.known_by(self.until)) if self.feed else 0  # the rest is added behind, part by part
        if mark and own is not None and not going and mark.until is not None:
            words, past = self._numbering(own), (mark.until, mark.digest)
            if past not in self.goes_on:
                same = self.version == mark.version or self._digest(self.log.events.known <= mark.until, self._numbers(words)) == int(
                    mark.digest, 16
                )
                self.goes_on[past] = same
            if self.goes_on[past]:
                making = Making(self.version, self.until, 0, whole=False, pushed=max(there, mark.pushed))
                return self._begin(mark, making, words)  # from here on what is pushed waits
        self.store.drop(self.space)
        self.seen = None
        words = self._numbering({name: Vocabulary() for name in self._coded})
        return self._begin(Mark.new(self.log.view), Making(self.version, self.until, 0, whole=True, pushed=there), words)

    def _own(self, mark: Mark) -> Mapping[str, Vocabulary] | None:
        """The words of the space as it is; None where they are not what was written, so that it is made anew. Raises _Changed."""
        try:
            return self.words.read(self.store, self.seen, mark.words)
        except Damaged:
            return None
        except LookupError:
            raise _Changed from None

    def _begin(self, mark: Mark, making: Making, words: Mapping[str, Numbering]) -> Mark:
        begun = msgspec.structs.replace(mark, words=counts_of(words), making=making)
        self._put(begun, chunks_of(words))
        self.words.keep(words)
        return begun

    def run(self, mark: Mark, tell: Told) -> int:
        """Write what is to be written; returns the number of entities."""
        making = mark.making
        assert making is not None
        known, entity = self.log.events.known, self.log.events.entity
        news = known <= self.until
        if not making.whole and mark.until is not None:
            news = news & (known > mark.until)
        later, words = self._later(making.pushed, mark)
        numbers = self._numbers(words)
        places: Array = np.flatnonzero(np.bincount(entity[news]))
        names, done = [self.log.entities[one] for one in places.tolist()], making.done
        if later:
            names = sorted({*names, *later})
            places = find(self.log.entities, names)
        tell(done, len(names))
        for low, high in self._parts(places, done):
            states = self._states(places[low:high][places[low:high] >= 0], numbers)
            whole = states | {name: self._form.added(states.get(name), later[name]) for name in names[low:high] if name in later}
            self._put(msgspec.structs.replace(mark, making=msgspec.structs.replace(making, done=high)), whole)
            tell(high, len(names))
        digest = _sum(int(mark.digest or "0", 16), self._digest(news, numbers))
        self._put(Mark(mark.written, self.version, self.until, f"{digest:x}", counts_of(words), making.pushed), chunks_of(words))
        return len(names) - done

    def _put(self, mark: Mark, states: States) -> None:
        """Write states with a mark, if nobody else wrote since. Raises _Changed."""
        found = False

        def change(data: bytes | None, _: list[bytes | None]) -> tuple[bytes, States] | None:
            nonlocal found
            found = data == self.seen
            return (mark.bytes(), states) if found else None

        self.store.update(self.space, [], change)
        if not found:
            raise _Changed
        self.seen = mark.bytes()

    @cached_property
    def _form(self) -> Latest | Windowed:
        return form_of(self.log.view)

    def _later(self, upto: int, mark: Mark) -> tuple[Rows, Mapping[str, Numbering]]:
        """What was pushed and is not in the log, or was not known by the time; and the words with its categories."""
        words = {name: Numbering(own) for name, own in self.words.read(self.store, self.seen, mark.words).items()}
        if self.feed is None:
            return {}, words
        return self.feed.rows(self.feed.between(min(self.log.pushed, self.feed.known_by(self.until)), upto), words), words

    def _parts(self, places: Array, done: int) -> list[tuple[int, int]]:
        """Stretches of entities, each with no more events than are read at once."""
        sizes = np.append(np.diff(self.log.events.starts), 0)[places]  # of one that is not in the log: none
        if int(sizes.max(initial=0)) * PART <= EVENTS:
            return [(low, min(low + PART, len(places))) for low in range(done, len(places), PART)]
        found, start, events = list[tuple[int, int]](), done, 0
        for i, many in enumerate(sizes[done:].tolist(), done):
            if i > start and (events + many > EVENTS or i - start >= PART):
                found.append((start, i))
                start, events = i, 0
            events += many
        return [*found, (start, len(places))] if len(places) > start else found

    def _states(self, entities: Array, numbers: Numbers) -> dict[str, bytes]:
        """The states of some entities, which are ascending."""
        events = self.log.events
        sizes = events.starts[entities + 1] - events.starts[entities]
        rows = np.repeat(events.starts[entities] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        rows = rows[events.known[rows] <= self.until] if len(rows) else rows
        columns = {name: self._column(name, rows, numbers) for name in self.log.columns}
        owner = np.searchsorted(entities, events.entity[rows])
        found = self._form.states(owner, events.event[rows], events.known[rows], columns, len(entities), self.until)
        return {self.log.entities[one]: data for one, data in zip(entities.tolist(), found, strict=True) if data}

    def _numbering(self, known: Mapping[str, Vocabulary]) -> Mapping[str, Numbering]:
        """Words with those of the log behind them."""
        found = {name: Numbering(own) for name, own in known.items()}
        for name, full in self._coded.items():
            for word in self.log.vocabularies[full]:
                found[name](word)
        return found

    def _numbers(self, words: Mapping[str, Numbering]) -> Numbers:
        """Of each category the numbers of the log's words among others, where these are others."""
        own = {name: (self.log.vocabularies[full], words[name].words) for name, full in self._coded.items()}
        return {f"x:{name}": numbers_of(log, others) for name, (log, others) in own.items() if others != log}

    def _column(self, name: str, rows: Array, numbers: Numbers) -> Array:
        """A column of some rows, categories in numbers."""
        column = self.log.columns[name][rows]
        return in_numbers(column, numbers[name]) if name in numbers else column

    @cached_property
    def _coded(self) -> dict[str, str]:
        """The features of categories, and the name under which their words are."""
        view = self.log.view
        return {name: view.names_of(name)[0] for name, feature in view.columns.items() if feature.category}

    def _digest(self, rows: Bools, numbers: Numbers) -> int:
        """Of some rows, in whatever order: a sum of 128 bits, to which more rows can be added. Those of an entity lie together, or it takes
        longer."""
        found, events = 0, self.log.events
        for start in range(0, len(rows), DIGESTED):
            chosen = start + np.flatnonzero(rows[start : start + DIGESTED])
            owner = events.entity[chosen]
            first = np.flatnonzero(np.diff(owner, prepend=-1))
            names = _numbers([self.log.entities[one] for one in owner[first].tolist()])
            mixed = np.repeat(names, np.diff(first, append=len(owner)))
            columns = (self._column(name, chosen, numbers) for name in self.log.columns)
            for column in (events.event[chosen], events.known[chosen], *columns):
                mixed = _mix(mixed ^ column.view(np.uint64))
            high, low = (int(part.sum(dtype=np.uint64)) for part in (mixed, _mix(mixed + np.uint64(1))))
            found = _sum(found, high << 64 | low)
        return found


def _numbers(names: Sequence[str]) -> UInts:
    """A number for each name, by its first 64 bytes, or the digest of a longer one."""
    texts = list(map(str.encode, names))
    if max(map(len, texts), default=0) > 64:
        texts = [text if len(text) <= 64 else digest_bytes(text).encode() for text in texts]
    found = np.zeros(len(names), dtype=np.uint64)
    for part in np.array(texts, dtype="S64").view(np.uint64).reshape(-1, 8).T:
        found = _mix(found ^ part)
    return found


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
