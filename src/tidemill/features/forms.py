"""How the states of a view are made, added to and read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tidemill.core import Array, Floats, Instants, Ints
from tidemill.features import merging, tiling
from tidemill.features.answers import answered, nothing
from tidemill.features.declarations import FeatureView
from tidemill.features.latest import Latest
from tidemill.features.state import Layout, Row, Value
from tidemill.features.tiles import Tiles
from tidemill.features.windows import Status


@dataclass(frozen=True)
class Windowed:
    """Of a view with windows."""

    view: FeatureView

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.view)

    @property
    def layout(self) -> Layout:
        return self.tiles.layout

    def states(self, entity: Ints, event: Instants, known: Instants, columns: dict[str, Array], entities: int, until: int) -> list[bytes]:
        """The state of each entity at a time, from its events known by then, sorted by (entity, event, known); of none b""."""
        return tiling.states(self.tiles, entity, event, known, columns, entities, until)

    def added(self, data: bytes | None, rows: Sequence[Row]) -> bytes:
        """A state with more rows. It reads the same in whatever order they come, but for rows of equal times."""
        return merging.added(self.tiles, data, rows)

    def read(self, states: Sequence[bytes], which: Ints, at: Instants) -> tuple[Floats, Status]:
        """Values (n, names) and status (n,) at each time; `which` (n,) is the place of its state, -1 for none. Raises LookupError for a
        time before a state can be read, and Damaged for what is no state."""
        pairs = zip(which.tolist(), at.tolist(), strict=True)
        found = [answered(self.tiles, states[place], time) if place >= 0 else nothing(self.tiles) for place, time in pairs]
        values = np.array([row for row, _ in found]).reshape(len(found), len(self.view.names))
        return values, np.array([status for _, status in found], dtype=np.uint8)

    def each(self, states: Sequence[bytes | None], at: int) -> tuple[list[Sequence[Value]], list[int]]:
        """The same of a few states at one time, None for nothing: as a request reads them."""
        found = [nothing(self.tiles) if data is None else answered(self.tiles, data, at) for data in states]
        values: list[Sequence[Value]] = [[None if value != value else value for value in row] for row, _ in found]  # NaN is not itself
        return values, [status for _, status in found]


def form_of(view: FeatureView) -> Latest | Windowed:
    """The form of a view's states."""
    return Windowed(view) if view.windows else Latest(view)
