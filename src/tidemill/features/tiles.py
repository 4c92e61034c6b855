"""Words of eight bytes for the state of an entity of a view with windows, by tiles.

A window begins at a multiple of its hop. So of each hop there is a *tail* for each tile with events: what all events since the start of
that tile fold to. A window is the first tail at or after its begin, with the rows that came later; and a tail is merged with those rows,
never read again from its events. Sums are numbers whose exact sum they have, so the same bits come out as from the events themselves.

Words: a head (the time since which it can be read; whether any event is folded; how many rows came later; how many words a sum and a sum
of squares have; the lengths of all lists), the tails of each hop (starts, then entries), the newest events, the different values with
the newest event of each, the buckets of each tile, and the rows that came later. `tiling.py` makes them of all events, `merging.py`
adds rows, `answers.py` reads.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from typing import Any, NamedTuple

from tidemill.core import partials
from tidemill.features.declarations import FeatureView, hop, width
from tidemill.features.folds import square_of
from tidemill.features.state import EVENT, FIRST, KNOWN, NEVER, Layout, Row
from tidemill.features.windows import AFTER

UNTIL, FOLDED, LATER, SUM, SQUARE, LENGTHS = 0, 1, 2, 3, 4, 5  # words of the head
Event = tuple[int, int, float]  # event time, knowledge time, value
NO_EVENT: Event = (AFTER, AFTER, nan)  # the first where there is none
NEEDS = {
    "count": ("count",),
    "sum": ("count", "sum"),
    "mean": ("count", "sum"),
    "std": ("count", "sum", "square"),
    "min": ("least",),
    "max": ("greatest",),
    "first": ("first",),
    "approx_quantile": ("count",),
}
EMPTY: dict[str, Any] = {"count": 0, "least": nan, "greatest": nan, "first": NO_EVENT, "sum": [], "square": []}


class Hop(NamedTuple):
    """A step by which windows move (microseconds; 0 of lifetimes, which do not), and the longest of them (None: a lifetime)."""

    step: int
    longest: int | None

    def begin(self, at: int) -> int:
        """The first time that a read at or after another may reach."""
        return NEVER if self.longest is None else (at - self.longest) // self.step * self.step

    def tile(self, event: Any) -> Any:
        """The start of the tile of an event, or of many."""
        return event // self.step * self.step if self.step else event * 0 + NEVER


class Part(NamedTuple):
    """What is folded: a column of the rows, and the column that tells which of them count: -1 for those with a value, -2 for all."""

    column: int
    chosen: int


class Slot(NamedTuple):
    """One value of a tail."""

    kind: str
    part: Part


class Asked(NamedTuple):
    """A feature as it is read: its function, its part, the places of its slots, of how many events, and which share of them."""

    function: str
    part: Part
    slots: list[int]
    n: int
    q: float


@dataclass(frozen=True)
class Tiles:
    """How such states are made, added to and read."""

    view: FeatureView

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.view)

    @cached_property
    def hops(self) -> list[Hop]:
        """The hops, the shortest first."""
        lengths = [width(window) for window in self.view.windows]
        steps = sorted({hop(length) for length in lengths if length is not None})
        found = [Hop(step, max(one for one in lengths if one is not None and hop(one) == step)) for step in steps]
        return [*found, *([Hop(0, None)] if None in lengths else [])]

    @cached_property
    def windows(self) -> list[tuple[Hop, int, int | None]]:
        """Of each window its hop, the number of that, and its length."""
        found = []
        for window in self.view.windows:
            length = width(window)
            number = [one.step for one in self.hops].index(0 if length is None else hop(length))
            found.append((self.hops[number], number, length))
        return found

    @cached_property
    def whole(self) -> Hop:
        """The hop that reaches back the farthest."""
        return max(self.hops, key=lambda one: float("inf") if one.longest is None else one.longest)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The part of each feature."""
        found = {}
        for name, feature in self.view.columns.items():
            chosen = -1
            if feature.function in ("first", "last"):
                chosen = self.layout.places[f"w:{name}"] if feature.filter else -2
            found[name] = Part(self.layout.places[f"x:{name}"], chosen)
        return found

    @cached_property
    def slots(self) -> list[Slot]:
        """What a tail has, those of a fixed size first."""
        found = {Slot(kind, self.parts[name]): None for name, f in self.view.columns.items() for kind in NEEDS.get(f.function, ())}
        return sorted(found, key=lambda slot: ("sum", "square").index(slot.kind) + 1 if slot.kind in ("sum", "square") else 0)

    def _listed(self, function: str) -> list[Part]:
        return list(dict.fromkeys(self.parts[name] for name, one in self.view.columns.items() if one.function == function))

    @cached_property
    def newest(self) -> dict[Part, int]:
        """Of which parts the newest events are kept, and how many."""
        found = dict.fromkeys(self._listed("last"), 1)
        for name, feature in self.view.columns.items():
            if feature.function == "last":
                found[self.parts[name]] = max(found[self.parts[name]], feature.n or 0)
        return found

    @cached_property
    def different(self) -> list[Part]:
        return self._listed("count_distinct")

    @cached_property
    def buckets(self) -> list[tuple[Hop, Part]]:
        return [(one, part) for one in self.hops for part in self._listed("approx_quantile")]

    @cached_property
    def lists(self) -> list[int]:
        """How many words an entry of each list has, in their order, behind the tails."""
        return [*(3 for _ in self.newest), *(2 for _ in self.different), *(3 for _ in self.buckets)]

    @cached_property
    def head(self) -> int:
        """How many words the head has."""
        return LENGTHS + len(self.hops) + len(self.lists)

    @cached_property
    def plan(self) -> list[Asked]:
        """How each feature is read."""
        found = []
        for name, feature in self.view.columns.items():
            part = self.parts[name]
            needs = [self.slots.index(Slot(kind, part)) for kind in NEEDS.get(feature.function, ())]
            found.append(Asked(feature.function, part, needs, feature.n or 0, feature.q))
        return found

    @cached_property
    def places(self) -> dict[tuple[str, Part, int], int]:
        """Which list is that of a part: of a function, and for buckets of a hop."""
        found = {("last", part, 0): i for i, part in enumerate(self.newest)}
        found |= {("count_distinct", part, 0): len(found) + i for i, part in enumerate(self.different)}
        return found | {("approx_quantile", part, one.step): len(found) + i for i, (one, part) in enumerate(self.buckets)}

    def sizes(self, sums: int, squares: int) -> list[int]:
        """How many words each slot has."""
        known = {"first": 3, "sum": sums, "square": squares}
        return [known.get(slot.kind, 1) for slot in self.slots]

    def entry(self, q: Any, d: Any, place: int, sizes: Sequence[int]) -> list[Any]:
        """The slots of an entry that begins at a word."""
        found: list[Any] = []
        for slot, size in zip(self.slots, sizes, strict=True):
            if slot.kind == "count":
                found.append(q[place])
            elif slot.kind == "first":
                found.append((q[place], q[place + 1], d[place + 2]))
            elif slot.kind in ("sum", "square"):
                found.append(d[place : place + size].tolist())
            else:
                found.append(d[place])
            place += size
        return found


def views_of(data: bytes) -> tuple[Any, Any]:
    """The words of a state as whole numbers and as floating ones."""
    view = memoryview(data)
    return view.cast("q"), view.cast("d")


def reals(row: Row) -> list[float]:
    """The columns of a row as numbers."""
    return list(struct.unpack(f"<{len(row) - FIRST}d", struct.pack(f"<{len(row) - FIRST}q", *row[FIRST:])))


def events_of(part: Part, rows: Sequence[Any]) -> list[Event]:
    """The rows that count for a part, with its value."""
    column, chosen = FIRST + part.column, FIRST + part.chosen
    if part.chosen == -1:
        return [(row[EVENT], row[KNOWN], row[column]) for row in rows if not isnan(row[column])]
    return [(row[EVENT], row[KNOWN], row[column]) for row in rows if part.chosen == -2 or row[chosen] == 1]


def folded(kind: str, events: Sequence[Event]) -> Any:
    """What a slot is of some events alone."""
    if kind == "count":
        return len(events)
    if kind == "first":
        return min([NO_EVENT, *events], key=lambda event: event[:2])
    values = [event[2] for event in events]
    if kind == "sum":
        return values
    if kind == "square":
        return [part for value in values for part in square_of(value)]
    return (min if kind == "least" else max)(values, default=nan)


def joined(kind: str, own: Any, later: Any) -> Any:
    """A slot of some events and of later ones."""
    if kind in ("count", "sum", "square"):
        return own + later
    if kind == "first":
        return min(own, later, key=lambda event: event[:2])
    if isnan(own) or isnan(later):
        return later if isnan(own) else own
    return min(own, later) if kind == "least" else max(own, later)


def normal(kind: str, value: Any) -> Any:
    """A slot as it is kept: of sums few numbers."""
    return partials(value) if kind in ("sum", "square") else value
