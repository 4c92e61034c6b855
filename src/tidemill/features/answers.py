"""Features of windows, read from states by tiles."""

from bisect import bisect_left
from collections import Counter
from math import floor, isfinite, nan
from typing import Any

import numpy as np

from tidemill.core import Floats, total
from tidemill.features.folds import bucket_of, deviation, deviation_of, middle_of
from tidemill.features.state import EVENT, FIRST, KNOWN, NEVER, SEQ
from tidemill.features.tiles import EMPTY, FOLDED, LATER, LENGTHS, SQUARE, SUM, UNTIL, Tiles, events_of, folded, joined, views_of
from tidemill.features.windows import EXPIRED, PRESENT, UNKNOWN

FEW = 64  # standard deviations that are computed faster one by one


class Answers:
    """Values read from states, one after the other."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles, self._found = tiles, list[float]()
        self._spread, self._middle = list[tuple[int, list[float]]](), list[tuple[int, int]]()  # places of what is computed at the end

    def nothing(self) -> int:
        self._found += [nan] * len(self._tiles.view.names)
        return UNKNOWN

    def add(self, data: bytes, at: int) -> int:
        """One state at one time; returns the status. Raises LookupError where it cannot be read at that time."""
        tiles, (q, d) = self._tiles, views_of(data)
        if q[UNTIL] > at:
            raise LookupError
        rows = self._rows(q, d, at) if q[LATER] else []
        if not rows and not q[FOLDED]:
            return self.nothing()
        lengths, place, sizes = q[LENGTHS : tiles.head].tolist(), tiles.head, tiles.sizes(q[SUM], q[SQUARE])
        entry, tails = 1 + sum(sizes), []
        for many in lengths[: len(tiles.hops)]:
            tails.append((place, place + many))
            place += many * (1 + entry)
        lists = []
        for size, many in zip(tiles.lists, lengths[len(tiles.hops) :], strict=True):
            lists.append((place, place + size * many))
            place += size * many
        filled = False
        for one, number, length in tiles.windows:
            begin = NEVER if length is None else (at - length) // one.step * one.step
            fresh = [row for row in rows if row[EVENT] >= begin] if rows else rows
            low, high = tails[number]
            i = bisect_left(q, begin, low, high)
            slots = tiles.entry(q, d, high + (i - low) * entry + 1, sizes) if i < high else [EMPTY[slot.kind] for slot in tiles.slots]
            filled = filled or i < high or bool(fresh)
            if fresh:
                later = (folded(slot.kind, events_of(slot.part, fresh)) for slot in tiles.slots)
                slots = [joined(slot.kind, own, more) for slot, own, more in zip(tiles.slots, slots, later, strict=True)]
            self._window(slots, fresh, begin, number, q, d, lists)
        return PRESENT if filled else EXPIRED

    def _rows(self, q: Any, d: Any, at: int) -> list[Any]:
        """The rows that came later and had happened and were known at a time."""
        wide = self._tiles.layout.width
        starts = (start for start in range(len(q) - wide * q[LATER], len(q), wide) if max(q[start + EVENT], q[start + KNOWN]) <= at)
        rows = [(*q[start : start + FIRST], *d[start + FIRST : start + wide]) for start in starts]
        return sorted(rows, key=lambda row: (row[EVENT], row[KNOWN], row[SEQ]))

    def _window(self, slots: list[Any], fresh: list[Any], begin: int, number: int, q: Any, d: Any, lists: list[tuple[int, int]]) -> None:
        """The features of one window."""
        found, tiles = self._found, self._tiles
        for function, part, needs, n, share in tiles.plan:
            if function == "count":
                found.append(float(slots[needs[0]]))
            elif function in ("min", "max"):
                found.append(slots[needs[0]])
            elif function == "first":
                found.append(slots[needs[0]][2])
            elif function in ("sum", "mean"):
                count, numbers = slots[needs[0]], slots[needs[1]]
                value = (numbers[0] if len(numbers) == 1 else total(numbers)) if count else nan
                found.append(value / count if function == "mean" and count else value)
            elif function == "std":
                count, numbers, squares = (slots[need] for need in needs)
                if count > 1 and all(map(isfinite, numbers)):
                    self._spread.append((len(found), [count, *_pair(numbers), *_pair(squares)]))
                found.append(nan)
            elif function == "last":
                low, high = lists[tiles.places[function, part, 0]]
                events = [(q[k], q[k + 1], d[k + 2]) for k in range(low, high, 3) if q[k] >= begin]
                if fresh:
                    events = sorted([*events, *events_of(part, fresh)], key=lambda event: event[:2])
                values = [event[2] for event in reversed(events[-(n or 1) :])]
                found += [*values, *[nan] * ((n or 1) - len(values))]
            elif function == "count_distinct":
                low, high = lists[tiles.places[function, part, 0]]
                values_ = {d[k] for k in range(low, high, 2) if q[k + 1] >= begin}
                found.append(float(len(values_.union(event[2] for event in events_of(part, fresh)))))
            else:
                low, high = lists[tiles.places[function, part, tiles.hops[number].step]]
                counted = Counter[int]()
                for k in range(low, high, 3):
                    if q[k] >= begin:
                        counted[q[k + 1]] += q[k + 2]
                if fresh and (events := events_of(part, fresh)):
                    counted.update(bucket_of(np.array([event[2] for event in events])).tolist())
                if counted:
                    self._middle.append((len(found), _ranked(counted, share)))
                found.append(nan)

    def values(self) -> Floats:
        """All of them: (n, names)."""
        values = np.array(self._found)
        if len(self._spread) < FEW:
            for place, numbers in self._spread:
                values[place] = deviation_of(*numbers)
        else:
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                found = deviation(*np.array([numbers for _, numbers in self._spread], dtype=np.float64).T)
            values[[place for place, _ in self._spread]] = found
        if self._middle:
            places, buckets = zip(*self._middle, strict=True)
            values[list(places)] = middle_of(np.array(buckets))
        return values.reshape(-1, len(self._tiles.view.names))


def _pair(numbers: list[float]) -> tuple[float, float]:
    high = total(numbers)
    return high, total([*numbers, -high])


def _ranked(counted: Counter[int], q: float) -> int:
    """The bucket of a rank."""
    rank = floor(q * max(counted.total() - 1, 0))
    for bucket, many in sorted(counted.items()):
        if rank < many:
            return bucket
        rank -= many
    raise AssertionError
