"""Sums of any stretch of a column, each exactly rounded: equal whatever the order of adding, and whatever stands before the stretch.

A number is cut into whole digits of a fixed place, whose running sums are exact in 64 bits; a stretch is the difference of two of them,
and is rounded once, by "rounding to odd" (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, IEEE Trans. Comp. 57, 2008).
`math.fsum` gives the same bits.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tidemill.core.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Sums:
    """Running sums of a column (n,): `digits` from the highest place on, each (n + 1,), of `width` bits; the first stands for
    2**(`top` - `width`). `infinite`: how many are +inf and -inf by then, where any is."""

    digits: tuple[Ints, ...]
    top: int
    width: int
    infinite: tuple[Ints, Ints] | None = None

    @classmethod
    def of(cls, *columns: Floats) -> "Sums":
        """Of the sum of columns as long as each other, without NaN.

        >>> Sums.of(np.array([1e100, 1.0, -1e100, 0.1])).between(np.array([0, 1]), np.array([3, 4])).tolist()
        [1.0, -1e+100]
        """
        infinite = np.isinf(columns[0])
        rest = [np.where(np.isinf(column), 0.0, column) for column in columns]
        most = max((float(np.abs(column).max(initial=0.0)) for column in rest), default=0.0)
        top, width = math.frexp(most)[1], 60 - (len(columns) * len(columns[0])).bit_length()
        width, digits, place = min(width, 52), list[Ints](), top
        while any(column.any() for column in rest):
            place -= width
            whole = [np.trunc(np.ldexp(column, -place)) for column in rest]
            rest = [column - np.ldexp(part, place) for column, part in zip(rest, whole, strict=True)]
            digits.append(_running(np.sum([part.astype(np.int64) for part in whole], axis=0)))
        signs = (_running(columns[0] == np.inf), _running(columns[0] == -np.inf)) if infinite.any() else None
        return cls(tuple(digits), top, width, signs)

    def between(self, low: Ints, high: Ints, starts: Ints | None = None) -> Floats:
        """The sum of [low, high), (m,), to the nearest number; with `starts`, of all stretches from each start to the next: (rows,)."""
        found = _rounded(self._digits(low, high, starts), self.top, self.width, len(low if starts is None else starts))
        if self.infinite is not None:
            up, down = (_of_rows(counts[high] - counts[low], starts) > 0 for counts in self.infinite)
            found = np.where(up | down, np.where(up & down, np.nan, np.where(up, np.inf, -np.inf)), found)
        return found

    def pair(self, low: Ints, high: Ints, starts: Ints | None = None) -> tuple[Floats, Floats]:
        """The same as two numbers: the nearest one, and the nearest one to what is left. Of finite numbers."""
        digits, rows = self._digits(low, high, starts), len(low if starts is None else starts)
        near = _rounded(digits, self.top, self.width, rows)
        return near, _rounded(self._without(digits, near), self.top, self.width, rows)

    def exact(self, low: Ints, high: Ints) -> Floats:
        """The same as numbers whose sum it is without rounding, the greatest first: (m, k). Of finite numbers; raises OverflowError where
        one is beyond all numbers.

        >>> Sums.of(np.array([1e100, 1.0])).exact(np.array([0]), np.array([2])).tolist()
        [[1e+100, 1.0]]
        """
        left, found = self._digits(low, high, None), list[Floats]()
        while (near := _rounded(left, self.top, self.width, len(low))).any():
            if np.isinf(near).any():
                raise OverflowError
            found.append(near)
            left = self._without(left, near)
        return np.stack(found, axis=1) if found else np.empty((len(low), 0))

    def _without(self, digits: list[Ints], number: Floats) -> list[Ints]:
        """Sums of digits less a number."""
        left, place = list[Ints](), self.top
        for digit in digits:
            place -= self.width
            whole = np.trunc(np.ldexp(number, -place))
            number = number - np.ldexp(whole, place)
            left.append(digit - whole.astype(np.int64))
        return left

    def _digits(self, low: Ints, high: Ints, starts: Ints | None) -> list[Ints]:
        return [_of_rows(digit[high] - digit[low], starts) for digit in self.digits]


def total(values: Iterable[float]) -> float:
    """The sum of numbers, exactly rounded: inf where it is beyond all numbers, NaN of inf and -inf.

    >>> total([1e308, 1e308]), total([1e308, 1e308, -1e308]), total([0.1] * 10)
    (inf, 1e+308, 1.0)
    """
    values = list(values)
    try:
        return math.fsum(values)
    except OverflowError:  # of the whole, or on the way to it
        infinite = [value for value in values if math.isinf(value)]
        return total(infinite) if infinite else _nearest(sum(map(Fraction, values)))
    except ValueError:
        return math.nan


def partials(values: Iterable[float]) -> list[float]:
    """Few numbers whose exact sum is that of many, the greatest first; of infinite ones those. Where it is beyond all numbers: all.

    >>> partials([0.1] * 3)
    [0.30000000000000004, -2.7755575615628914e-17]
    """
    values, found = list(values), list[float]()
    if any(map(math.isinf, values)):
        return sorted({value for value in values if math.isinf(value)})
    try:
        while near := math.fsum([*values, *(-one for one in found)]):
            found.append(near)
    except OverflowError:
        left = sum(map(Fraction, values))
        if math.isinf(_nearest(left)):
            return values
        found = []
        while near := _nearest(left):
            found.append(near)
            left -= Fraction(near)
    return found


def _nearest(value: Fraction | int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _of_rows(values: Ints, starts: Ints | None) -> Ints:
    return values if starts is None else np.add.reduceat(values, starts)


def _running(values: Ints | Bools) -> Ints:
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _carried(digits: list[Ints], width: int) -> list[Ints]:
    """The same number with every digit from 0 to 2**width - 1 but the first, which is new and may be below zero."""
    found, carry = list[Ints](), np.zeros_like(digits[0])
    for digit in reversed(digits):
        whole = digit + carry
        carry = whole >> width
        found.append(whole - (carry << width))
    return [carry, *reversed(found)]


def _rounded(digits: list[Ints], top: int, width: int, rows: int) -> Floats:
    """The nearest number to sums of digits."""
    if not digits:
        return np.zeros(rows)
    negative = _carried(digits, width)[0] < 0
    parts = _carried([np.where(negative, -digit, digit) for digit in digits], width)
    zero = np.zeros(rows)
    found, below, lowest = zero, zero, zero  # `below`: all from two places down, rounded to odd; `lowest`: one place down
    with np.errstate(over="ignore", invalid="ignore"):  # of sums beyond all numbers
        numbers = [np.ldexp(part.astype(np.float64), top - i * width) for i, part in enumerate(parts)]
        for number in reversed(numbers):
            high = number + lowest
            low = lowest - (high - number)
            found = np.where(np.isinf(number), number, np.where(number != 0, high + _odd(low, below), found))
            below, lowest = _odd(lowest, below), number
    return np.where(negative, -found, found)


def _odd(one: Floats, two: Floats) -> Floats:
    """one + two rounded to odd: where it is not exact, to the neighbour whose last bit is set."""
    total = one + two
    back = total - one
    error = (one - (total - back)) + (two - back)
    bits = total.view(np.int64)
    even = (np.abs(error) > 0) & (bits & 1 == 0)
    step: Ints = np.where((error > 0) == (total > 0), 1, -1) * even
    return (bits + step).view(np.float64)
