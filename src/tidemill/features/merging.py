"""Rows that came later, added to the state of an entity of a view with windows."""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.features.folds import bucket_of
from tidemill.features.state import EVENT, FIRST, KNOWN, NEVER, SEQ, Row, settled
from tidemill.features.tiles import (
    EMPTY,
    FOLDED,
    LATER,
    LENGTHS,
    SQUARE,
    SUM,
    UNTIL,
    Event,
    Hop,
    Tiles,
    events_of,
    folded,
    joined,
    normal,
    reals,
    views_of,
)

MANY = 32  # rows that came later, from which on they are merged


@dataclass
class Opened:
    """A state as values, to be changed: tails by start, each the number of its rows and its slots; and the lists."""

    until: int
    folded: bool
    tails: list[dict[int, tuple[int, list[Any]]]] = field(default_factory=list)
    newest: list[list[Event]] = field(default_factory=list)
    different: list[dict[float, int]] = field(default_factory=list)
    buckets: list[Counter[tuple[int, int]]] = field(default_factory=list)
    later: list[Row] = field(default_factory=list)


def added(tiles: Tiles, data: bytes | None, rows: Sequence[Row]) -> bytes:
    """A state with more rows. It reads the same in whatever order they come, but for rows of equal times."""
    data = data or NEVER.to_bytes(8, "little", signed=True) + bytes(8 * (tiles.head - 1))
    later = int.from_bytes(data[8 * LATER : 8 * LATER + 8], "little") + len(rows)
    if later <= MANY:
        count = later.to_bytes(8, "little")
        return b"".join((data[: 8 * LATER], count, data[8 * LATER + 8 :], *(struct.pack(f"<{len(row)}q", *row) for row in rows)))
    opened = _opened(tiles, data)
    return _closed(tiles, _merged(tiles, opened, [*opened.later, *rows]))


def _opened(tiles: Tiles, data: bytes) -> Opened:
    q, d = views_of(data)
    place, sizes = tiles.head, tiles.sizes(q[SUM], q[SQUARE])
    lengths, found = q[LENGTHS:place].tolist(), Opened(q[UNTIL], bool(q[FOLDED]))
    entry = 1 + sum(sizes)
    for many in lengths[: len(tiles.hops)]:
        first = place + many
        found.tails.append({q[place + i]: (q[first + i * entry], tiles.entry(q, d, first + i * entry + 1, sizes)) for i in range(many)})
        place = first + many * entry
    for i, (size, many) in enumerate(zip(tiles.lists, lengths[len(tiles.hops) :], strict=True)):
        starts = range(place, place + size * many, size)
        if i < len(tiles.newest):
            found.newest.append([(q[k], q[k + 1], d[k + 2]) for k in starts])
        elif size == 2:
            found.different.append({d[k]: q[k + 1] for k in starts})
        else:
            found.buckets.append(Counter({(q[k], q[k + 1]): q[k + 2] for k in starts}))
        place += size * many
    wide = tiles.layout.width
    found.later = [tuple(q[k : k + wide].tolist()) for k in range(place, place + wide * q[LATER], wide)]
    return found


def _closed(tiles: Tiles, state: Opened) -> bytes:
    """The words of a state."""
    entries = [slots for tails in state.tails for _, slots in tails.values()]
    sums, squares = (
        max((len(v) for slots in entries for s, v in zip(tiles.slots, slots, strict=True) if s.kind == kind), default=0)
        for kind in ("sum", "square")
    )
    words: list[int | float] = [state.until, int(state.folded), len(state.later), sums, squares]
    words += [len(one) for group in (state.tails, state.newest, state.different, state.buckets) for one in group]
    for tails in state.tails:
        words += sorted(tails)
        for _, (rows, slots) in sorted(tails.items()):
            words.append(rows)
            for slot, value, size in zip(tiles.slots, slots, tiles.sizes(sums, squares), strict=True):
                several = list(value) if slot.kind in ("first", "sum", "square") else [value]
                words += [*several, *[0.0] * (size - len(several))]
    words += [word for events in state.newest for event in events for word in event]
    words += [word for values in state.different for pair in values.items() for word in pair]
    words += [word for buckets in state.buckets for (tile, bucket), n in buckets.items() for word in (tile, bucket, n)]
    words += [word for row in state.later for word in row]
    return struct.pack("<" + "".join("d" if isinstance(word, float) else "q" for word in words), *words)


def _merged(tiles: Tiles, state: Opened, rows: list[Row]) -> Opened:
    """A state with rows folded that happened and were known by the time when most of them are known."""
    until = settled(rows, state.until, MANY // 2)
    fresh = [
        (*row[:FIRST], *reals(row))
        for row in sorted(rows, key=lambda row: (row[EVENT], row[KNOWN], row[SEQ]))
        if row[EVENT] <= until and row[KNOWN] <= until
    ]
    first = tiles.whole.begin(until)
    return Opened(
        until,
        state.folded or bool(fresh),
        [_tails(tiles, one, own, fresh, until) for one, own in zip(tiles.hops, state.tails, strict=True)],
        [
            sorted([*own, *events_of(part, fresh)], key=lambda event: event[:2])[-many:]
            for (part, many), own in zip(tiles.newest.items(), state.newest, strict=True)
        ],
        [
            {v: e for v, e in _latest(own, events_of(part, fresh)).items() if e >= first}
            for part, own in zip(tiles.different, state.different, strict=True)
        ],
        [
            Counter({key: n for key, n in _counted(one, own, events_of(part, fresh)).items() if key[0] >= one.begin(until)})
            for (one, part), own in zip(tiles.buckets, state.buckets, strict=True)
        ],
        [row for row in rows if row[EVENT] > until or row[KNOWN] > until],
    )


def _tails(
    tiles: Tiles, one: Hop, own: dict[int, tuple[int, list[Any]]], fresh: Sequence[Any], until: int
) -> dict[int, tuple[int, list[Any]]]:
    """The tails of a hop with later rows, which are sorted by time; those that no read will need are left out."""
    begin, found = one.begin(until), {}
    rows = [row for row in fresh if one.tile(row[EVENT]) >= begin]
    starts = sorted({start for start in (*own, *(one.tile(row[EVENT]) for row in rows)) if start >= begin}, reverse=True)
    last: tuple[int, list[Any]] = (0, [EMPTY[slot.kind] for slot in tiles.slots])
    more, place = last[1], len(rows)
    for start in starts:
        last, before = own.get(start, last), place
        while place and one.tile(rows[place - 1][EVENT]) >= start:
            place -= 1
        if place < before:
            more = [normal(slot.kind, folded(slot.kind, events_of(slot.part, rows[place:]))) for slot in tiles.slots]
        slots = [normal(slot.kind, joined(slot.kind, *pair)) for slot, *pair in zip(tiles.slots, last[1], more, strict=True)]
        found[start] = (last[0] + len(rows) - place, slots)
    return found


def _latest(own: dict[float, int], events: Sequence[Event]) -> dict[float, int]:
    found = dict(own)
    for event, _, value in events:
        found[value] = max(found.get(value, event), event)
    return found


def _counted(one: Hop, own: Counter[tuple[int, int]], events: Sequence[Event]) -> Counter[tuple[int, int]]:
    found = Counter(own)
    buckets = bucket_of(np.array([event[2] for event in events])).tolist() if events else []
    found.update((one.tile(event[0]), bucket) for event, bucket in zip(events, buckets, strict=True))
    return found
