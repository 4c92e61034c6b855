"""The state of an entity of a view without windows: the newest row, and those that may follow it.

Words: the time since which it can be read, then rows by (event time, knowledge time, order of coming).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from struct import Struct
from typing import Any

import numpy as np

from tidemill.core import Array, Bools, Floats, Instants, Ints, duration
from tidemill.features.declarations import FeatureView
from tidemill.features.state import EVENT, FIRST, KNOWN, NEVER, SEQ, Layout, Row, Value, not_a_state, settled, sliced
from tidemill.features.windows import AFTER, EXPIRED, NULL, PRESENT, UNKNOWN, Status, status_of

MANY = 50  # states from which on they are looked at as one array, where all of them are alike
KEPT = 8  # rows from which on, at each doubling, those that a newer one hides are dropped


def _time(row: Row) -> Row:
    """By what rows are ordered."""
    return row[EVENT], row[KNOWN], row[SEQ]


@dataclass(frozen=True)
class Latest:
    """How such states are made, added to and read."""

    view: FeatureView

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.view)

    @cached_property
    def ttl(self) -> int | None:
        return duration(self.view.ttl) if self.view.ttl else None

    def states(self, entity: Ints, event: Instants, known: Instants, columns: dict[str, Array], entities: int, until: int) -> list[bytes]:
        """The state of each entity at a time, from its events known by then, sorted by (entity, event, known); of none b""."""
        past = event <= until
        hidden = np.append(past[:-1] & past[1:] & (entity[1:] == entity[:-1]), False) if len(event) else past
        rows = np.flatnonzero(~hidden)
        table = self.layout.table(event[rows], known[rows], [columns[name][rows] for name in self.layout.columns])
        counts = np.bincount(entity[rows], minlength=entities)
        there, width = counts > 0, self.layout.width
        sizes = counts * width + there
        words = np.full(int(sizes.sum()), until, dtype="<i8")
        first = np.ones(len(words), dtype=bool)
        first[(np.cumsum(sizes) - sizes)[there]] = False
        words[first] = table.ravel()
        return sliced(words, sizes)

    def added(self, data: bytes | None, rows: Sequence[Row]) -> bytes:
        """A state with more rows. It reads the same in whatever order they come, but for rows of equal times."""
        data, rows, width = data or NEVER.to_bytes(8, "little", signed=True), sorted(rows, key=_time), self.layout.width
        if len(data) > 8 and _time(struct.unpack_from(f"<{FIRST}q", data, len(data) - 8 * width)) > _time(rows[0]):
            rows, data = sorted([*self._rows(data), *rows], key=_time), data[:8]
        before = len(data) // (8 * width)
        data += b"".join(struct.pack(f"<{width}q", *row) for row in rows)
        after = len(data) // (8 * width)
        return self._pruned(data) if after > KEPT and after.bit_length() > before.bit_length() else data

    def _rows(self, data: bytes) -> list[Row]:
        return list(struct.iter_unpack(f"<{self.layout.width}q", memoryview(data)[8:]))

    def _pruned(self, data: bytes) -> bytes:
        """A state without the rows that a newer one hides, from when most of them are known."""
        rows = self._rows(data)
        until = settled(rows, int.from_bytes(data[:8], "little", signed=True), 8 * KEPT)
        first = max((i for i, row in enumerate(rows) if row[EVENT] <= until and row[KNOWN] <= until), default=0)
        return until.to_bytes(8, "little", signed=True) + data[8 + 8 * self.layout.width * first :] if first else data

    def read(self, states: Sequence[bytes], which: Ints, at: Instants) -> tuple[Floats, Status]:
        """Values (n, columns) and status (n,) at each time; `which` (n,) is the place of its state, -1 for none. Raises LookupError
        for a time before a state can be read, and Damaged for what is no state."""
        values, width = np.full((len(at), self.layout.width), AFTER, dtype="<i8"), self.layout.width
        one = 8 * (1 + width)
        if all(len(data) == one for data in states):
            table = np.frombuffer(b"".join(states), dtype="<i8").reshape(-1, 1 + width)
            some = which >= 0
            values[some] = table[which[some], 1:]
            if (table[which[some], 0] > at[some]).any():
                raise LookupError
        else:
            if not all(map(self._fits, states)):
                raise not_a_state()
            for i, (place, time) in enumerate(zip(which.tolist(), at.tolist(), strict=True)):
                if place >= 0 and (row := self._newest(states[place], time)) is not None:
                    values[i] = row
        return self._valued(values, at)

    def each(self, states: Sequence[bytes | None], at: int) -> tuple[list[Sequence[Value]], list[int]]:
        """The same of a few states at one time, None for nothing: as a request reads them."""
        if len(states) == 1:
            row, found = self._alone(states[0], at)
            return [row], [found]
        if len(states) >= MANY and (plain := self._plain(states, at)) is not None:
            return plain, [PRESENT] * len(plain)
        heads, columns, size, nothing, chosen = self._one
        alone = [data if data is None or len(data) == size else self._several(data, at) for data in states]
        some = [data for data in alone if data is not None] if None in alone else alone
        joined, oldest = b"".join(some), self._oldest(at)  # type: ignore[arg-type]
        rows = list(columns(joined) if chosen is None else map(chosen, columns(joined)))
        total = sum(map(sum, rows))
        status, all_ = [PRESENT] * len(some), total == total  # NaN is not itself
        for i, (until, _, event, known) in enumerate(heads(joined)):
            if until > at:
                raise LookupError
            if event > at or known > at or event < oldest:
                rows[i], status[i] = nothing, EXPIRED if event <= at and known <= at else UNKNOWN
            elif not all_:
                rows[i] = tuple(None if value != value else value for value in rows[i])
                status[i] = NULL if rows[i] == nothing else PRESENT
        if some is alone:
            return rows, status
        each = iter(zip(rows, status, strict=True))
        whole = [(nothing, UNKNOWN) if data is None else next(each) for data in alone]
        return [row for row, _ in whole], [one for _, one in whole]

    def _plain(self, states: Sequence[bytes | None], at: int) -> list[Sequence[Value]] | None:
        """The values of states with one row each, all of them there and without a gap; None for others. They are looked at as one array."""
        _, columns, size, _, chosen = self._one
        if None in states or set(map(len, states)) != {size}:  # type: ignore[arg-type]
            return None
        joined = b"".join(states)  # type: ignore[arg-type]
        words = np.frombuffer(joined, dtype="<i8").reshape(len(states), -1)
        times = words[:, 1 + KNOWN], words[:, 1 + EVENT], words[:, 0]
        if max(one.max() for one in times) > at or times[1].min() < self._oldest(at):
            return None
        if np.isnan(words[:, 1 + FIRST :].view("<f8")).any():
            return None
        return list(columns(joined) if chosen is None else map(chosen, columns(joined)))

    def _oldest(self, at: int) -> int:
        """The time of an event from which on it counts."""
        return NEVER if self.ttl is None else at - self.ttl

    def _alone(self, data: bytes | None, at: int) -> tuple[Sequence[Value], int]:
        """The values and the status of one state."""
        _, _, size, nothing, chosen = self._one
        if data is not None and len(data) != size:
            data = self._several(data, at)
        if data is None:
            return nothing, UNKNOWN
        until, _, event, known, *row = self._words.unpack(data)
        if until > at:
            raise LookupError
        if event > at or known > at:
            return nothing, UNKNOWN
        if self.ttl is not None and event < at - self.ttl:
            return nothing, EXPIRED
        values: Sequence[Value] = row if chosen is None else chosen(row)
        if (total := sum(row)) != total:  # NaN is not itself
            values = tuple(None if value != value else value for value in values)
            return values, NULL if values == nothing else PRESENT
        return values, PRESENT

    @cached_property
    def _words(self) -> Struct:
        """A state with one row."""
        return Struct(f"<{1 + FIRST}q{len(self.layout.columns)}d")

    @cached_property
    def _one(self) -> tuple[Callable[..., Any], Callable[..., Any], int, tuple[None, ...], Callable[[Any], Any] | None]:
        """States with one row each: what gives their heads and their columns, the size of one, the features where there are none, and what
        takes them of the columns where they are others."""
        columns, places = len(self.layout.columns), [self.layout.places[f"x:{name}"] for name in self.view.columns]
        head = 1 + FIRST
        chosen: Callable[[Any], Any] | None = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        return (
            Struct(f"<{head}q{8 * columns}x").iter_unpack,
            Struct(f"<{8 * head}x{columns}d").iter_unpack,
            8 * (head + columns),
            (None,) * len(places),
            None if places == list(range(columns)) else chosen,
        )

    def _several(self, data: bytes, at: int) -> bytes | None:
        """A state with several rows, as if it had only the one that is read at a time; None for none."""
        if not self._fits(data):
            raise not_a_state()
        row = self._newest(data, at)
        return None if row is None else data[:8] + bytes(row)

    def _newest(self, data: bytes, at: int) -> memoryview | None:
        words, width = memoryview(data).cast("q"), self.layout.width
        if words[0] > at:
            raise LookupError
        for start in range(len(words) - width, 0, -width):
            if words[start + EVENT] <= at and words[start + KNOWN] <= at:
                return words[start : start + width]
        return None

    def _valued(self, rows: Ints, at: Instants) -> tuple[Floats, Status]:
        event, values = rows[:, EVENT], rows[:, FIRST:].view(np.float64)
        seen = (event <= at) & (rows[:, KNOWN] <= at)
        use: Bools = seen & (at - event <= self.ttl) if self.ttl is not None else seen
        values[~use] = np.nan
        places = [self.layout.places[f"x:{name}"] for name in self.view.columns]
        if places != list(range(values.shape[1])):
            values = values[:, places]
        null: Bools = np.logical_and.reduce(np.isnan(values), axis=1)
        return values, status_of(seen, use, null)

    def _fits(self, data: bytes) -> bool:
        """Whether bytes may be a state."""
        return len(data) % 8 == 0 and len(data) > 8 and (len(data) // 8 - 1) % self.layout.width == 0
