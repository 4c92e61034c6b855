"""Point-in-time reading: which events a row may see, and what they fold to. Pure: arrays in, arrays out.

Every value depends on nothing but the events in its window, in their order, so one row and a million give the same bits.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tidemill.core import Bools, Floats, Instants, Ints

Status = np.ndarray[Any, np.dtype[np.uint8]]

PRESENT, NULL, UNKNOWN, EXPIRED = 0, 1, 2, 3
STATUS = ("present", "null", "unknown", "expired")
LEAST, MOST = np.int64(-(2**62)), np.int64(2**62)  # before and after all times
AT_ONCE = 2**15  # events that are copied together


@dataclass(frozen=True)
class Events:
    """Events sorted by (entity, event time, knowledge time, row).

    `place` (n,) is entity · (times + 1) + rank of the event time, ascending, so that one binary search finds an entity and a
    time; `times` are the distinct event times; `starts` (entities + 1,) where each entity begins.
    """

    event: Instants
    known: Instants
    times: Instants
    place: Ints
    starts: Ints
    late: bool = field(default=True)

    @classmethod
    def of(cls, entity: Ints, event: Instants, known: Instants, entities: int) -> "Events":
        """Index events that are sorted already."""
        times = np.unique(event)
        place = entity.astype(np.int64) * (len(times) + 1) + np.searchsorted(times, event)
        starts = np.searchsorted(entity, np.arange(entities + 1))
        return cls(event, known, times, place, starts, bool(np.any(known > event)))

    @cached_property
    def news(self) -> Instants:
        """All knowledge times, ascending."""
        return np.sort(self.known)

    def before(self, entity: Ints, at: Instants, *, inclusive: bool) -> Ints:
        """How many events, counted over all entities in order, precede (entity, at)."""
        rank = np.searchsorted(self.times, at, side="right" if inclusive else "left")
        return np.searchsorted(self.place, entity * (len(self.times) + 1) + rank)


def newest(events: Events, entity: Ints, at: Instants) -> Ints:
    """For each row the newest event at or before `at` that was known by then; −1 for none. `entity` −1 matches nothing."""
    row = events.before(np.maximum(entity, 0), at, inclusive=True) - 1
    start = events.starts[np.maximum(entity, 0)]
    found = np.where((entity >= 0) & (row >= start), row, -1)
    while events.late:
        early = np.flatnonzero((found >= 0) & (events.known[found] > at))
        if not len(early):
            break
        found[early] -= 1
        found[early[found[early] < start[early]]] = -1
    return found


@dataclass(frozen=True)
class Window:
    """Events [low, high) of each row; `hidden` marks the rows of which some event there was not known yet, and a later one was."""

    low: Ints
    high: Ints
    hidden: Bools
    at: Instants


def window(events: Events, entity: Ints, at: Instants, width: int, step: int) -> Window:
    """The events of [floor(at − width, step), at] of each row's entity."""
    begin = (at - width) // step * step
    some = np.maximum(entity, 0)
    low, high = events.before(some, begin, inclusive=False), events.before(some, at, inclusive=True)
    high = np.where(entity >= 0, high, low)
    until, hidden = high.copy(), np.zeros(len(at), dtype=bool)
    if events.late and len(at):
        some = np.flatnonzero(_fold(np.maximum, events.known, low, high, LEAST) > at)
        until[some] = _first_hidden(events.known, low[some], high[some], at[some])
        hidden[some] = _fold(np.minimum, events.known, until[some], high[some], MOST) <= at[some]
    return Window(low, np.where(hidden, high, until), hidden, at)  # what is hidden at the end is left out


def _first_hidden(known: Instants, low: Ints, high: Ints, at: Instants) -> Ints:
    """The first event of [low, high) that was not known at `at`, by bisection; `high` where all were."""
    low, high = low.copy(), high.copy()
    while True:
        rows = np.flatnonzero(low < high)
        if not len(rows):
            return low
        middle = (low[rows] + high[rows]) // 2
        some = _fold(np.maximum, known, low[rows], middle + 1, LEAST) > at[rows]
        low[rows], high[rows] = np.where(some, low[rows], middle + 1), np.where(some, middle, high[rows])


def _fold(ufunc: np.ufunc, values: Any, low: Ints, high: Ints, empty: Any) -> Any:
    """ufunc over values[low:high] of each row, `empty` where that is nothing. Each segment is folded by itself."""
    if not len(low):
        return np.empty(0, dtype=values.dtype)
    first = int(low.min())
    padded, low, high = np.append(values[first : int(high.max())], empty), low - first, high - first
    order = np.argsort(low, kind="stable")
    bounds = np.empty(2 * len(low), dtype=np.int64)
    bounds[::2], bounds[1::2] = low[order], high[order]
    result = np.empty(len(low), dtype=padded.dtype)
    result[order] = ufunc.reduceat(padded, bounds)[::2]
    result[low == high] = empty
    return result


def fold(events: Events, function: str, values: Floats, rows: Window) -> Floats:
    """One feature over each row's window. Of rows with hidden events, what was known is copied together and folded there."""
    if not len(rows.low):
        return np.empty(0)
    first, end = int(rows.low.min()), int(rows.high.max())
    result = _fold_known(function, values[first:end], rows.low - first, rows.high - first)
    hidden = np.flatnonzero(rows.hidden)
    size = np.cumsum(rows.high[hidden] - rows.low[hidden])
    for part in np.split(hidden, np.searchsorted(size, np.arange(AT_ONCE, size[-1], AT_ONCE))) if len(hidden) else []:
        result[part] = _fold_some(events, function, values, rows.low[part], rows.high[part], rows.at[part])
    return result


def _fold_some(events: Events, function: str, values: Floats, low: Ints, high: Ints, at: Instants) -> Floats:
    """One feature over those events of [low, high) of each row that were known at `at`."""
    size = high - low
    ends = np.cumsum(size)
    event = np.arange(ends[-1]) + np.repeat(high - ends, size)
    visible = events.known[event] <= np.repeat(at, size)
    until = np.append(0, np.cumsum(visible))
    return _fold_known(function, values[event[visible]], until[ends - size], until[ends])


def _fold_known(function: str, values: Floats, low: Ints, high: Ints) -> Floats:
    if function == "last":
        return np.where(high > low, np.append(values, np.nan)[high - 1], np.nan)
    missing = np.isnan(values)
    count = _fold(np.add, (~missing).astype(np.float64), low, high, 0.0)
    if function == "count":
        return np.asarray(count)
    if function in ("sum", "mean"):
        total = _fold(np.add, np.where(missing, 0.0, values), low, high, 0.0)
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / count if function == "mean" else total, np.nan)
    ufunc, empty = (np.minimum, np.inf) if function == "min" else (np.maximum, -np.inf)
    best = _fold(ufunc, np.where(missing, empty, values), low, high, empty)
    return np.where(count > 0, best, np.nan)
