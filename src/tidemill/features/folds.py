"""What a feature makes of the events of a window. Pure: arrays in, arrays out.

A value depends on nothing but the events of its window: sums are exactly rounded, so neither their order nor what stands beside them
matters, and one row, a million, and tiles that were merged give the same bits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from tidemill.core import Bools, Floats, Ints, Ranges, Sums, digest_bytes, total
from tidemill.features.declarations import FeatureView
from tidemill.features.windows import Window

T = TypeVar("T", bound=Any)

FEW = 2_048  # numbers that are added one by one faster than by running sums
AT_ONCE = 16  # stretches that are looked through one by one faster
KEPT = 46  # bits that a bucket of quantiles leaves out: six of the mantissa stay, so a bucket is 1/64 of its value wide


@dataclass(frozen=True)
class Column:
    """The values (n,) of a feature's events that count, and `rank` (events + 1,): how many of them come before each event; none where
    all count."""

    values: Floats
    rank: Ints | None = None

    @classmethod
    def of(cls, values: Floats, chosen: Bools) -> "Column":
        """Some of a column's values."""
        if chosen.all():
            return cls(values)
        return cls(values[chosen], np.concatenate([[0], np.cumsum(chosen)]))

    @cached_property
    def sums(self) -> Sums:
        """For sums of any stretch."""
        return Sums.of(self.values)

    @cached_property
    def squares(self) -> Sums:
        """For sums of squares."""
        return Sums.of(*squares_of(self.values))

    @cached_property
    def before(self) -> tuple[Ints, Ranges]:
        """The number of each value, and for each event where the same value stood before (1 on; 0 for nowhere)."""
        _, number = np.unique(self.values, return_inverse=True)
        order = np.argsort(number, kind="stable")
        before = np.zeros(len(number), np.int64)
        same = number[order[1:]] == number[order[:-1]]
        before[order[1:][same]] = order[:-1][same] + 1
        return number, Ranges.of(before)

    @cached_property
    def buckets(self) -> tuple[Ints, Ranges]:
        """The buckets that there are, and for each event which one its value is in."""
        buckets, number = np.unique(bucket_of(self.values), return_inverse=True)
        return buckets, Ranges.of(number)


def square_of(value: float) -> tuple[float, float]:
    """The square of a number as its nearest number and the rest; (inf, 0.0) where that is beyond all numbers."""
    found = _product(value, value)
    return found if math.isfinite(found[1]) else (math.inf, 0.0)


def squares_of(values: Floats) -> tuple[Floats, Floats]:
    """The same of many."""
    with np.errstate(over="ignore", invalid="ignore"):
        square, rest = _product(values, values)
    some = np.isfinite(rest)
    return np.where(some, square, np.inf), np.where(some, rest, 0.0)


def number_of(word: str) -> float:
    """A number by which a text is told apart from others: 53 bits of its digest. Of a million texts two are one in 18,000 cases.

    >>> number_of("JFK") == number_of("LGA")
    False
    """
    return float(int(digest_bytes(word.encode())[:16], 16) >> 11)


def columns_of(view: FeatureView, kept: Mapping[str, Floats]) -> dict[str, Column]:
    """The values of each feature that count, from the columns that are kept of each event."""
    found, same = dict[str, Column](), dict[tuple[str, ...], Column]()
    for name, feature in view.columns.items():
        whole = feature.function in ("first", "last")
        key = (*view.kept[f"x:{name}"], feature.filter if whole else "", str(whole))
        if key not in same:
            values = kept[f"x:{name}"]
            all_ = kept[f"w:{name}"] == 1 if whole and feature.filter else np.ones(len(values), dtype=bool)
            same[key] = Column.of(values, all_ if whole else ~np.isnan(values))
        found[name] = same[key]
    return found


def bucket_of(values: Floats) -> Ints:
    """The bucket of each value, in their order: 64 between a number and its double, on either side of zero.

    >>> bucket_of(np.array([1.0, 1.01, 1.02, -1.0])).tolist()
    [65473, 65473, 65474, -65473]
    """
    bits = values.view(np.int64)
    size: Ints = (bits & np.int64(2**63 - 1)) >> KEPT
    return np.where(values == 0, 0, np.where(bits < 0, -size - 1, size + 1))


def middle_of(bucket: Ints) -> Floats:
    """The middle of a bucket, which is within 1/128 of all that is in it; of what is nearer to zero than 1e-300, within that."""
    size = np.abs(bucket) - 1
    value = ((size << KEPT) + (1 << (KEPT - 1))).view(np.float64)
    value = np.where(size >= 2047 << (52 - KEPT), np.inf, value)
    return np.where(bucket == 0, 0.0, np.where(bucket < 0, -value, value))


def fold(function: str, column: Column, rows: Window, *, n: int = 0, q: float = 0.0) -> Floats:
    """One feature over each row's window: (rows,), or (rows, n) for the newest n."""
    if not rows.rows:
        return np.empty((0, n) if n else 0)
    rank = column.rank
    rows = rows if rank is None else rows.once((id(column), "narrowed"), lambda: rows.narrowed(rank))
    if function == "last":
        found = _newest(column.values, rows, n or 1)
        return found if n else found[:, 0]
    if function == "first":
        low = rows.low[rows.starts]
        return np.where(rows.count > 0, np.append(column.values, np.nan)[low], np.nan)
    if function == "count":
        return rows.count.astype(np.float64)
    nothing = 0.0 if function == "count_distinct" else np.nan
    if not len(column.values):
        return np.full(rows.rows, nothing)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.where(rows.count > 0, _FOLDS[function](column, rows, q), nothing)


def _newest(values: Floats, rows: Window, n: int) -> Floats:
    """The newest n values of each row, newest first."""
    found = np.full((rows.rows, n), np.nan)
    stretch = np.append(rows.starts[1:], len(rows.low)) - 1
    place, padded = rows.high[stretch] - 1, np.append(values, np.nan)
    for i in range(n):
        while (over := (place < rows.low[stretch]) & (stretch > rows.starts)).any():
            stretch = stretch - over
            place = np.where(over, rows.high[stretch] - 1, place)
        some = place >= rows.low[stretch]
        if not some.any():
            break
        found[:, i] = np.where(some, padded[place], np.nan)
        place = place - some
    return found


def _sum(column: Column, rows: Window, q: float = 0.0) -> Floats:
    return rows.once((id(column), "sum"), lambda: _summed(column, rows))


def _summed(column: Column, rows: Window) -> Floats:
    if rows.count.sum() <= FEW:
        return np.array([total(column.values[part].tolist()) for part in rows.each()])
    return column.sums.between(rows.low, rows.high, rows.several)


def _mean(column: Column, rows: Window, q: float) -> Floats:
    return _sum(column, rows) / rows.count


def _std(column: Column, rows: Window, q: float) -> Floats:
    """The standard deviation of a sample, from the exact sums of the values and of their squares; null for fewer than two, and where those
    are beyond all numbers."""
    pairs = [sums.pair(rows.low, rows.high, rows.several) for sums in (column.sums, column.squares)]
    found = deviation(rows.count.astype(np.float64), *pairs[0], *pairs[1])
    for sums in (column.sums, column.squares):
        if sums.infinite is not None:
            found = np.where(np.isfinite(sums.between(rows.low, rows.high, rows.several)), found, np.nan)
    return found


def deviation(count: Floats, high: Floats, low: Floats, square: Floats, rest: Floats) -> Floats:
    """Standard deviations from counts, sums and sums of squares, of each its nearest number and the rest."""
    one, two = _times(square, rest, count), _squared(high, low)
    found = (one[0] - two[0]) + (one[1] - two[1])
    rounding, sure = found <= one[0] * 2.0**-98, (count > 1) & np.isfinite(found)
    return np.where(sure, np.sqrt(np.where(rounding, 0.0, found) / (count * (count - 1))), np.nan)


def deviation_of(count: float, high: float, low: float, square: float, rest: float) -> float:
    """The same of one row: `count` > 1."""
    one, two = _times(square, rest, count), _squared(high, low)
    found = (one[0] - two[0]) + (one[1] - two[1])
    if not math.isfinite(found):
        return math.nan
    return math.sqrt((0.0 if found <= one[0] * 2.0**-98 else found) / (count * (count - 1)))


def _product(one: T, two: T) -> tuple[T, T]:
    """A product as its nearest number and the rest (Dekker, A floating-point technique for extending the available precision, Numer.
    Math. 18, 1971); of numbers, or of many."""
    split = [value * 134_217_729.0 for value in (one, two)]
    (a, c), found = [whole - (whole - value) for whole, value in zip(split, (one, two), strict=True)], one * two
    b, d = one - a, two - c
    return found, ((a * c - found) + a * d + b * c) + b * d


def _times(high: T, low: T, factor: T) -> tuple[T, T]:
    found, rest = _product(high, factor)
    return found, rest + low * factor


def _squared(high: T, low: T) -> tuple[T, T]:
    found, rest = _product(high, high)
    return found, rest + 2 * high * low


def _extreme(ufunc: np.ufunc, column: Column, rows: Window) -> Floats:
    """The least or greatest of each row: of two overlapping stretches whose length is a power of two."""
    if len(rows.low) <= AT_ONCE:
        found = np.array(
            [ufunc.reduce(column.values[i:j], initial=np.nan) for i, j in zip(rows.low.tolist(), rows.high.tolist(), strict=True)]
        )
        return found if rows.several is None else np.asarray(ufunc.reduceat(found, rows.several))
    first, end = int(rows.low.min()), int(rows.high.max())
    table, low, size = column.values[first:end], rows.low - first, rows.high - rows.low
    found, level = np.full(len(low), np.nan), np.frexp(size.astype(np.float64))[1] - 1
    order = np.argsort(level, kind="stable")
    bounds = np.searchsorted(level[order], np.arange(int(level.max(initial=-1)) + 2))
    for k in range(len(bounds) - 1):
        these = order[bounds[k] : bounds[k + 1]]
        found[these] = ufunc(table[low[these]], table[low[these] + size[these] - (1 << k)])
        table = ufunc(table[: -(1 << k)], table[1 << k :])
    return found if rows.several is None else np.asarray(ufunc.reduceat(found, rows.several))


def _least(column: Column, rows: Window, q: float) -> Floats:
    return _extreme(np.fmin, column, rows)


def _greatest(column: Column, rows: Window, q: float) -> Floats:
    return _extreme(np.fmax, column, rows)


def _distinct(column: Column, rows: Window, q: float) -> Floats:
    """How many values are different: those that did not stand in the window before. Of several stretches one by one."""
    number, before = column.before
    low, high = rows.low[rows.starts], rows.high[rows.starts]
    found = before.below(low, high, low + 1).astype(np.float64)
    split = np.flatnonzero(np.diff(rows.starts, append=len(rows.low)) > 1)
    seen = np.zeros(int(number.max(initial=-1)) + 1, dtype=bool)  # far quicker than to sort each window's values
    for row, parts in zip(split, rows.some(split), strict=True):
        for part in parts:
            seen[number[part]] = True
        found[row] = np.count_nonzero(seen)
        for part in parts:
            seen[number[part]] = False
    return found


def _quantile(column: Column, rows: Window, q: float) -> Floats:
    buckets, ranges = column.buckets
    rank = np.floor(q * np.maximum(rows.count - 1, 0)).astype(np.int64)
    return middle_of(buckets[np.minimum(ranges.smallest(rows.low, rows.high, rows.starts, rank), len(buckets) - 1)])


_FOLDS = {
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "min": _least,
    "max": _greatest,
    "count_distinct": _distinct,
    "approx_quantile": _quantile,
}
