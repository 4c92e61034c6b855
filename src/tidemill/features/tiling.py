"""The states of many entities of a view with windows, from all their events."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.core import Array, Floats, Instants, Ints, partials
from tidemill.features.folds import Column, bucket_of, columns_of, fold, square_of
from tidemill.features.state import sliced
from tidemill.features.tiles import Hop, Part, Slot, Tiles
from tidemill.features.windows import AFTER, Window

Section = tuple[Ints, Ints]  # of words (m, width), the entity of each (m,), ascending


def states(
    tiles: Tiles, entity: Ints, event: Instants, known: Instants, columns: dict[str, Array], entities: int, until: int
) -> list[bytes]:
    """The state of each entity at a time, from its events known by then, sorted by (entity, event, known); of none b""."""
    past = event <= until
    later = tiles.layout.table(event[~past], known[~past], [columns[name][~past] for name in tiles.layout.columns])
    made = _Made(tiles, entity[past], event[past], known[past], {name: column[past] for name, column in columns.items()}, entities)
    sections, sums, squares = made.sections(until)
    sections.append((entity[~past], later))
    counts = np.array([np.bincount(owner, minlength=entities) for owner, _ in sections])
    folded = np.bincount(entity[past], minlength=entities) > 0
    there = folded | (counts[-1] > 0)
    lengths = counts[[*range(0, 2 * len(tiles.hops), 2), *range(2 * len(tiles.hops), len(sections) - 1)]]
    ones = np.ones(entities, dtype=np.int64)
    head = np.stack([until * ones, folded * ones, counts[-1], sums * ones, squares * ones, *lengths], axis=1)
    sections.insert(0, (np.flatnonzero(there), head[there]))
    return _assembled(sections, entities)


class _Made:
    """The sections of the states of many entities, from their events."""

    def __init__(self, tiles: Tiles, entity: Ints, event: Instants, known: Instants, kept: dict[str, Array], entities: int) -> None:
        self._tiles, self._entity, self._event, self._known = tiles, entity.astype(np.int64), event, known
        self._ends = np.searchsorted(entity, np.arange(entities), side="right")
        by_name = columns_of(tiles.view, kept)
        self._columns = {tiles.parts[name]: column for name, column in by_name.items()}

    def sections(self, until: int) -> tuple[list[Section], int, int]:
        """All but the rows that came later, and how many words a sum and a sum of squares have."""
        tiles, tails = self._tiles, [self._tails(one, until) for one in self._tiles.hops]
        sums, squares = (
            max((words.shape[1] for _, _, slots in tails for s, words in zip(tiles.slots, slots, strict=True) if s.kind == kind), default=0)
            for kind in ("sum", "square")
        )
        found = list[Section]()
        for low, start, slots in tails:
            wide = [
                np.pad(words, ((0, 0), (0, size - words.shape[1]))) for words, size in zip(slots, tiles.sizes(sums, squares), strict=True)
            ]
            rows = self._ends[self._entity[low]] - low
            owner = self._entity[low]
            found += [(owner, start[:, None]), (owner, np.concatenate([rows[:, None], *wide], axis=1))]
        first = tiles.whole.begin(until)
        found += [self._newest(part, many) for part, many in tiles.newest.items()]
        found += [self._different(part, first) for part in tiles.different]
        found += [self._buckets(one, part, until) for one, part in tiles.buckets]
        return found, sums, squares

    def _tails(self, one: Hop, until: int) -> tuple[Ints, Ints, list[Ints]]:
        """Where the tails of a hop begin, the starts of their tiles, and the words of each slot."""
        tile = one.tile(self._event)
        new = tile >= one.begin(until)
        new[1:] &= (tile[1:] != tile[:-1]) | (self._entity[1:] != self._entity[:-1])
        low = np.flatnonzero(new)
        high = self._ends[self._entity[low]]
        return low, tile[low], [self._slot(slot, low, high) for slot in self._tiles.slots]

    def _slot(self, slot: Slot, low: Ints, high: Ints) -> Ints:
        column = self._columns[slot.part]
        rows = Window(low, high, np.arange(len(low)))
        if column.rank is not None:
            rows = Window(column.rank[low], column.rank[high], rows.starts)
        if slot.kind == "count":
            return rows.count[:, None]
        if slot.kind in ("least", "greatest"):
            values = fold("min" if slot.kind == "least" else "max", Column(column.values), rows)
            return values.view(np.int64)[:, None]
        if slot.kind == "first":
            place, some = np.minimum(rows.low, max(len(column.values) - 1, 0)), rows.count > 0
            place = self._rows(column)[place] if len(column.values) else place
            numbers = np.append(column.values, np.nan)[np.where(some, rows.low, -1)]
            times = [np.where(some, (np.append(time, AFTER))[np.where(some, place, -1)], AFTER) for time in (self._event, self._known)]
            return np.stack([*times, numbers.view(np.int64)], axis=1)
        sums = column.sums if slot.kind == "sum" else column.squares
        return _exact(sums, column, rows, slot).view(np.int64)

    def _rows(self, column: Column) -> Ints:
        """The rows of a column's values."""
        return np.arange(len(column.values)) if column.rank is None else np.flatnonzero(np.diff(column.rank))

    def _newest(self, part: Part, many: int) -> Section:
        rows = self._rows(self._columns[part])
        owner = self._entity[rows]
        ends = np.searchsorted(owner, owner, side="right")
        some = ends - np.arange(len(rows)) <= many
        values = self._columns[part].values[some]
        return owner[some], np.stack([self._event[rows[some]], self._known[rows[some]], values.view(np.int64)], axis=1)

    def _different(self, part: Part, first: int) -> Section:
        rows = self._rows(self._columns[part])
        recent = self._event[rows] >= first
        rows, values = rows[recent], self._columns[part].values[recent]
        order = np.lexsort((self._event[rows], values, self._entity[rows]))
        rows, values = rows[order], values[order]
        last = np.append((values[1:] != values[:-1]) | (self._entity[rows[1:]] != self._entity[rows[:-1]]), True)[: len(rows)]
        return self._entity[rows[last]], np.stack([values[last].view(np.int64), self._event[rows[last]]], axis=1)

    def _buckets(self, one: Hop, part: Part, until: int) -> Section:
        rows = self._rows(self._columns[part])
        tile, bucket = one.tile(self._event[rows]), bucket_of(self._columns[part].values)
        some = tile >= one.begin(until)
        keys = np.stack([self._entity[rows[some]], tile[some], bucket[some]], axis=1)
        keys, many = np.unique(keys, axis=0, return_counts=True)
        return keys[:, 0], np.concatenate([keys[:, 1:], many[:, None]], axis=1)


def _exact(sums: Any, column: Column, rows: Window, slot: Slot) -> Floats:
    """Numbers (m, k) whose sum is that of a stretch."""
    if sums.infinite is None:
        try:
            found: Floats = sums.exact(rows.low, rows.high)
            return found
        except OverflowError:
            pass
    numbers = [column.values[i:j].tolist() for i, j in zip(rows.low.tolist(), rows.high.tolist(), strict=True)]
    if slot.kind == "square":
        numbers = [[part for value in some for part in square_of(value)] for some in numbers]
    few = [partials(some) for some in numbers]
    size = max(map(len, few), default=0)
    return np.array([[*some, *[0.0] * (size - len(some))] for some in few]).reshape(len(few), size)


def _assembled(sections: Sequence[Section], entities: int) -> list[bytes]:
    """The words of each entity, section behind section."""
    sizes = [np.bincount(owner, minlength=entities) * words.shape[1] for owner, words in sections]
    whole = np.sum(sizes, axis=0)
    found, start = np.empty(int(whole.sum()), dtype="<i8"), np.cumsum(whole) - whole
    for (owner, words), size in zip(sections, sizes, strict=True):
        if words.size:
            before = np.cumsum(size) - size
            place = start[owner] - before[owner] + np.arange(len(owner)) * words.shape[1]
            found[place[:, None] + np.arange(words.shape[1])] = words
        start = start + size
    return sliced(found, whole)
