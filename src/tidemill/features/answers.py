"""Features of windows, read from states by tiles."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from math import floor, nan
from typing import Any, NamedTuple

import numpy as np

from tidemill.core import total
from tidemill.features.folds import bucket_of, deviation_of, middle_of
from tidemill.features.state import EVENT, FIRST, KNOWN, NEVER, SEQ, not_a_state
from tidemill.features.tiles import (
    EMPTY,
    FOLDED,
    LATER,
    LENGTHS,
    SQUARE,
    SUM,
    UNTIL,
    Asked,
    Event,
    Tiles,
    events_of,
    folded,
    joined,
    views_of,
)
from tidemill.features.windows import EXPIRED, PRESENT, UNKNOWN


def answered(tiles: Tiles, data: bytes, at: int) -> tuple[list[float], int]:
    """The values of a state at a time, by the view's names, and the status. Raises LookupError where it cannot be read then, and Damaged
    for what is no state."""
    if len(data) % 8 or len(data) < 8 * tiles.head:
        raise not_a_state()
    q, d = views_of(data)
    sizes = tiles.sizes(q[SUM], q[SQUARE])
    tails, lists = _laid_out(tiles, q, 1 + sum(sizes))
    if q[UNTIL] > at:
        raise LookupError
    rows = _later(tiles, q, d, at) if q[LATER] else []
    if not rows and not q[FOLDED]:
        return nothing(tiles)
    values: list[float] = []
    filled = False
    entry = 1 + sum(sizes)
    for hop, number, length in tiles.windows:
        begin = NEVER if length is None else (at - length) // hop.step * hop.step
        fresh = [row for row in rows if row[EVENT] >= begin] if rows else rows
        low, high = tails[number]
        first = bisect_left(q, begin, low, high)
        slots = tiles.entry(q, d, high + (first - low) * entry + 1, sizes) if first < high else [EMPTY[slot.kind] for slot in tiles.slots]
        if fresh:
            later = (folded(slot.kind, events_of(slot.part, fresh)) for slot in tiles.slots)
            slots = [joined(slot.kind, own, more) for slot, own, more in zip(tiles.slots, slots, later, strict=True)]
        filled = filled or first < high or bool(fresh)
        seen = _Seen(tiles, q, d, lists, hop.step, begin, slots, fresh)
        for one in tiles.plan:
            values += _READ[one.function](seen, one)
    return values, PRESENT if filled else EXPIRED


def nothing(tiles: Tiles) -> tuple[list[float], int]:
    """The same where there is no state."""
    return [nan] * len(tiles.view.names), UNKNOWN


def _later(tiles: Tiles, q: Any, d: Any, at: int) -> list[Any]:
    """The rows that came later and had happened and were known at a time."""
    wide = tiles.layout.width
    starts = (start for start in range(len(q) - wide * q[LATER], len(q), wide) if max(q[start + EVENT], q[start + KNOWN]) <= at)
    rows = [(*q[start : start + FIRST], *d[start + FIRST : start + wide]) for start in starts]
    return sorted(rows, key=lambda row: (row[EVENT], row[KNOWN], row[SEQ]))


def _laid_out(tiles: Tiles, q: Any, entry: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where the starts of the tails of each hop lie, whose entries have so many words, and each list. Raises Damaged where they do not
    fill the state."""
    lengths, place = q[LENGTHS : tiles.head].tolist(), tiles.head
    tails, lists = [], []
    for many in lengths[: len(tiles.hops)]:
        tails.append((place, place + many))
        place += many * (1 + entry)
    for size, many in zip(tiles.lists, lengths[len(tiles.hops) :], strict=True):
        lists.append((place, place + size * many))
        place += size * many
    if place + q[LATER] * tiles.layout.width != len(q):
        raise not_a_state()
    return tails, lists


class _Seen(NamedTuple):
    """What a window sees of a state: its words, where the lists lie, its own step and begin, the slots, and the rows that came later."""

    tiles: Tiles
    q: Any
    d: Any
    lists: list[tuple[int, int]]
    step: int
    begin: int
    slots: list[Any]
    fresh: list[Any]

    def places(self, one: Asked, size: int, step: int = 0) -> list[int]:
        """Where the entries of a list begin, each of so many words."""
        low, high = self.lists[self.tiles.places[one.function, one.part, step]]
        return list(range(low, high, size))

    def events(self, one: Asked) -> list[Event]:
        """The rows that came later and count."""
        return events_of(one.part, self.fresh) if self.fresh else []


# ── each function ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _count(seen: _Seen, one: Asked) -> list[float]:
    return [float(seen.slots[one.slots[0]])]


def _extreme(seen: _Seen, one: Asked) -> list[float]:
    return [seen.slots[one.slots[0]]]


def _first(seen: _Seen, one: Asked) -> list[float]:
    return [seen.slots[one.slots[0]][2]]


def _sum(seen: _Seen, one: Asked) -> list[float]:
    count, numbers = (seen.slots[slot] for slot in one.slots)
    if not count:
        return [nan]
    return [numbers[0] if len(numbers) == 1 else total(numbers)]


def _mean(seen: _Seen, one: Asked) -> list[float]:
    return [_sum(seen, one)[0] / (seen.slots[one.slots[0]] or nan)]


def _std(seen: _Seen, one: Asked) -> list[float]:
    count, numbers, squares = (seen.slots[slot] for slot in one.slots)
    return [deviation_of(count, *_pair(numbers), *_pair(squares)) if count > 1 else nan]


def _pair(numbers: list[float]) -> tuple[float, float]:
    """A sum as its nearest number and the rest."""
    high = total(numbers)
    return high, total([*numbers, -high])


def _last(seen: _Seen, one: Asked) -> list[float]:
    q, d, many = seen.q, seen.d, one.n or 1
    events = [(q[k], q[k + 1], d[k + 2]) for k in seen.places(one, 3) if q[k] >= seen.begin]
    if seen.fresh:
        events = sorted([*events, *seen.events(one)], key=lambda event: event[:2])
    values = [event[2] for event in reversed(events[-many:])]
    return [*values, *[nan] * (many - len(values))]


def _distinct(seen: _Seen, one: Asked) -> list[float]:
    values = {seen.d[k] for k in seen.places(one, 2) if seen.q[k + 1] >= seen.begin}
    return [float(len(values.union(event[2] for event in seen.events(one))))]


def _quantile(seen: _Seen, one: Asked) -> list[float]:
    q, counted = seen.q, Counter[int]()
    for k in seen.places(one, 3, seen.step):
        if q[k] >= seen.begin:
            counted[q[k + 1]] += q[k + 2]
    if events := seen.events(one):
        counted.update(bucket_of(np.array([event[2] for event in events])).tolist())
    rank = floor(one.q * max(counted.total() - 1, 0))
    for bucket, many in sorted(counted.items()):
        if rank < many:
            return [_middle(bucket)]
        rank -= many
    return [nan]


@lru_cache(10_000)
def _middle(bucket: int) -> float:
    return float(middle_of(np.array([bucket]))[0])


_READ: dict[str, Callable[[_Seen, Asked], list[float]]] = {
    "count": _count,
    "min": _extreme,
    "max": _extreme,
    "first": _first,
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "last": _last,
    "count_distinct": _distinct,
    "approx_quantile": _quantile,
}
