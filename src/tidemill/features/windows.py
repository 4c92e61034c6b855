"""Point-in-time reading: which events a row may see. Pure: arrays in, arrays out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from tidemill.core import Bools, Instants, Ints

T = TypeVar("T")
Status = np.ndarray[Any, np.dtype[np.uint8]]

PRESENT, NULL, UNKNOWN, EXPIRED = 0, 1, 2, 3
STATUS = ("present", "null", "unknown", "expired")
AFTER = 2**62  # all times


@dataclass(frozen=True)
class Events:
    """Events sorted by (entity, event time, knowledge time, row).

    `place` (n,) is entity · `span` + the rank of the event time, ascending, so that one binary search finds an entity and a time; the rank
    is the time since the first event, or where that is too much for 64 bits, its number among the distinct `times`. `starts`
    (entities + 1,): where each entity begins.
    """

    event: Instants
    known: Instants
    place: Ints
    span: int
    starts: Ints
    times: Instants | None
    late: bool = field(default=True)

    @classmethod
    def of(cls, entity: Ints, event: Instants, known: Instants, entities: int) -> "Events":
        """Index events that are sorted already."""
        span = int(event.max()) - int(event.min()) + 2 if len(event) else 2
        times = np.unique(event) if span * (entities + 1) >= AFTER else None
        span, rank = (span, event - event.min(initial=AFTER) + 1) if times is None else (len(times) + 1, np.searchsorted(times, event) + 1)
        place = entity.astype(np.int64) * span + rank
        return cls(event, known, place, span, np.searchsorted(entity, np.arange(entities + 1)), times, bool(np.any(known > event)))

    @cached_property
    def entity(self) -> Ints:
        """The entity of each event."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def first(self) -> int:
        """The first event time."""
        return int(self.event.min(initial=AFTER))

    @cached_property
    def usual(self) -> tuple[int, int]:
        """The least and greatest delay between an event and its becoming known, but for one in a thousand at either end."""
        if len(self.event) < 1_000:
            return 0, 0
        low, high = np.quantile(self.known - self.event, [0.001, 0.999], method="nearest")
        return int(low), int(high)

    @cached_property
    def longest(self) -> int:
        """The greatest delay."""
        return int((self.known - self.event).max(initial=0))

    @cached_property
    def odd(self) -> Ints:
        """The events with another delay."""
        low, high = self.usual
        delay = self.known - self.event
        return np.flatnonzero((delay < low) | (delay > high))

    @cached_property
    def news(self) -> Instants:
        """All knowledge times, ascending."""
        return np.sort(self.known)

    @cached_property
    def _soonest(self) -> tuple[Instants, Ints]:
        """The least knowledge time of each block of 1, 2, 4, … events, behind each other, and where the blocks of a size begin."""
        sizes = [self.known]
        while len(sizes[-1]) > 1:
            even = np.append(sizes[-1], AFTER) if len(sizes[-1]) % 2 else sizes[-1]
            sizes.append(np.minimum(even[::2], even[1::2]))
        return np.concatenate(sizes), np.cumsum([0, *(len(size) for size in sizes)])

    def soonest(self, event: Ints, level: Ints) -> Instants:
        """The least knowledge time of the block of 2 ** level events in which an event lies."""
        known, starts = self._soonest
        return known[starts[level] + (event >> level)]

    def before(self, entity: Ints, at: Instants, *, inclusive: bool) -> Ints:
        """How many events, counted over all entities in order, precede (entity, at)."""
        if self.times is None:
            rank = np.clip(at - (self.first - 1), 0, self.span) if inclusive else np.clip(at - self.first, 0, self.span)
        else:
            rank = np.searchsorted(self.times, at, side="right" if inclusive else "left")
        return np.searchsorted(self.place, entity * self.span + rank, side="right")


def status_of(seen: Bools, young: Bools, null: Bools | bool = False) -> Status:
    """The status of rows: which see an event, have one that is within the time it counts, and whose values are all null."""
    return np.select([~seen, ~young, null & young], [UNKNOWN, EXPIRED, NULL], PRESENT).astype(np.uint8)


def newest(events: Events, entity: Ints, at: Instants) -> Ints:
    """For each row the newest event at or before `at` that was known by then; −1 for none. `entity` −1 matches nothing."""
    row = reached(events, entity, at)
    return known_by(events, row, entity, at) if events.late else row


def reached(events: Events, entity: Ints, at: Instants) -> Ints:
    """For each row the newest event at or before `at`, known or not; −1 for none."""
    row = events.before(np.maximum(entity, 0), at, inclusive=True) - 1
    return np.where((entity >= 0) & (row >= events.starts[np.maximum(entity, 0)]), row, -1)


def known_by(events: Events, row: Ints, entity: Ints, at: Instants) -> Ints:
    """For each row its event, or the nearest one before that was known at `at`; −1 for none. Where many were not, whole blocks of them
    are passed over by the least knowledge time of each."""
    found, level = row.copy(), np.zeros(len(row), dtype=np.int64)
    early = np.flatnonzero((row >= 0) & (events.known[row] > at)) if len(events.known) else np.empty(0, np.int64)
    start = events.starts[entity[early]]
    while len(early):
        place, step = found[early], level[early]
        hidden = (place + 1) & ((1 << step) - 1) == 0  # a block of this size ends here
        hidden[hidden] = events.soonest(place[hidden], step[hidden]) > at[early[hidden]]
        found[early] = np.where(hidden, place - (1 << step), place)
        level[early] = np.where(hidden, step + 1, step - 1)
        found[early[found[early] < start]] = -1
        more = (level[early] >= 0) & (found[early] >= 0)
        early, start = early[more], start[more]
    return found


@dataclass(frozen=True)
class Window:
    """The events of each row that it may see, as stretches [low, high) (s,) of their order; those of a row are `starts` (rows,) and what
    follows until the next row's. No stretch is empty but the only one of a row without events."""

    low: Ints
    high: Ints
    starts: Ints
    memo: dict[Any, Any] = field(default_factory=dict, compare=False)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What several features need, made for the first of them."""
        if key not in self.memo:
            self.memo[key] = make()
        found: T = self.memo[key]
        return found

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts)

    @property
    def several(self) -> Ints | None:
        """Where each row begins; None where each has one stretch."""
        return self.starts if len(self.low) > len(self.starts) else None

    @cached_property
    def count(self) -> Ints:
        """How many events each row sees."""
        size = self.high - self.low
        return size if self.several is None or not len(size) else np.add.reduceat(size, self.starts)

    def some(self, rows: Ints) -> Iterator[list[slice]]:
        """The stretches of some rows."""
        ends = np.append(self.starts[1:], len(self.low))
        for start, end in zip(self.starts[rows].tolist(), ends[rows].tolist(), strict=True):
            yield [slice(low, high) for low, high in zip(self.low[start:end].tolist(), self.high[start:end].tolist(), strict=True)]

    def each(self) -> Iterator[Ints]:
        """The events of each row."""
        for parts in self.some(np.arange(self.rows)):
            yield np.concatenate([np.arange(part.start, part.stop) for part in parts])

    def since(self, first: Ints) -> "Window":
        """What of each row is not before an event (rows,)."""
        first = first if self.several is None else np.repeat(first, np.diff(self.starts, append=len(self.low)))
        low = np.maximum(self.low, first)
        return _whole(low, np.maximum(self.high, low), self.starts)

    def narrowed(self, rank: Ints) -> "Window":
        """The same among some events only, of which `rank` (events + 1,) come before each."""
        return _whole(rank[self.low], rank[self.high], self.starts)


def _whole(low: Ints, high: Ints, starts: Ints) -> Window:
    """Stretches without those that are empty."""
    if len(low) == len(starts):
        return Window(low, high, starts)
    some = high > low
    any_ = np.add.reduceat(some, starts, dtype=np.int64) > 0
    keep = some.copy()
    keep[starts[~any_]] = True
    return Window(low[keep], high[keep], np.concatenate([[0], np.cumsum(keep)])[starts])


def visible(events: Events, entity: Ints, at: Instants) -> Window:
    """The events of each row's entity that had happened and were known at `at`; `entity` -1 has none."""
    some = np.maximum(entity, 0)
    low = events.starts[some]
    high = np.where(entity >= 0, events.before(some, at, inclusive=True), low)
    if not events.late or not len(at):
        return Window(low, high, np.arange(len(at)))
    least, most = events.usual
    edges = [np.clip(events.before(some, at - delay, inclusive=True), low, high) for delay in (events.longest, most, least)]
    return _known(events, low, edges[0], edges[1], np.maximum(edges[2], edges[1]), high, at)


def begin(events: Events, entity: Ints, at: Instants, width: int, step: int) -> Ints:
    """The first event from floor(at - width, step) on of each row's entity."""
    return events.before(np.maximum(entity, 0), (at - width) // step * step, inclusive=False)


def _known(events: Events, low: Ints, old: Ints, sure: Ints, never: Ints, high: Ints, at: Instants) -> Window:
    """What of [low, high) was known at `at`: all before `old`; but for the odd events all before `sure`, and none from `never` on. What is
    sure is cut where an odd event was not known yet; of the rest each event that was known is a stretch of its own."""
    rows, odd = np.arange(len(at)), events.odd
    row, event = _each(np.searchsorted(odd, old), np.searchsorted(odd, sure))
    hidden = events.known[odd[event]] > at[row]
    cut_row, cut = row[hidden], odd[event[hidden]]
    row, event = _each(np.searchsorted(odd, never), np.searchsorted(odd, high))
    some_row, some = _each(sure, never)
    some_row, some = np.concatenate([some_row, row]), np.concatenate([some, odd[event]])
    shown = events.known[some] <= at[some_row]
    some_row, some = some_row[shown], some[shown]
    row = np.concatenate([rows, cut_row, some_row])
    begin, end = np.concatenate([low, cut + 1, some]), np.concatenate([sure, sure[cut_row], some + 1])
    order = np.lexsort((begin, row))
    cuts = np.flatnonzero((order >= len(rows)) & (order < len(rows) + len(cut)))
    row, begin, end = row[order], begin[order], end[order]
    end[cuts - 1] = begin[cuts] - 1
    return _whole(begin, end, np.searchsorted(row, rows))


def _each(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """The row and the number of each event of [low, high)."""
    size = np.maximum(high - low, 0)
    ends = np.cumsum(size)
    row = np.repeat(np.arange(len(low)), size)
    return row, np.arange(len(row)) + np.repeat(low - (ends - size), size)
