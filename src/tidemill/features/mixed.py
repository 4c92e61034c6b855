"""Values of one column that no type holds together: of some the engine would make others than they are, without a word."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

import numpy as np

GAPS = "NAType", "NaTType"  # of pandas
KNOWN = str, int, float, Decimal, date, UUID  # what stands beside each other; of others a column holds nothing else
ALIKE = {bytes: str, tuple: list, np.ndarray: list}
LARGEST = 10**38
Placed = tuple[int, Any]  # a row and its value


def unlike(values: Sequence[Any], *, with_texts: bool) -> str:
    """Which two values do not go together, with their rows, since one would not be itself in a column that holds the other too: a flag and
    a number, a float and a whole number that no float is, a time with its zone and one without, a list or the like and what is none;
    `with_texts`: also a text and what is another text than it is a value. Or which whole number is too large for any column. Empty where
    all go together.

    >>> unlike([1, 2.5, None], with_texts=True), unlike([2**53 + 1, 2.5], with_texts=True), unlike([7.0, "7"], with_texts=True)
    ('', '9007199254740993 in row 0 and 2.5 in row 1', "7.0 in row 0 and '7' in row 1")
    """
    first = {kind: found for kind in set(map(type, values)) if (found := _first(values, kind))}

    def of(*some: type) -> list[Placed]:
        return [found for kind, found in first.items() if issubclass(kind, some)]

    texts, flags, floats, numbers = of(str), of(bool), of(float), of(float, Decimal)
    wholes = [one for one in of(int) if one not in flags]
    kinds = {ALIKE.get(kind, kind): found for kind, found in first.items()}
    odd = [found for kind, found in kinds.items() if not issubclass(kind, KNOWN)]
    for some, others in ((texts if with_texts else [], [*flags, *numbers]), (flags, [*wholes, *numbers]), (odd, [*kinds.values()])):
        for one in some:
            if beside := next((other for other in others if other is not one), None):
                return _said(one, beside)
    if floats and (lost := next(((i, value) for i, value in enumerate(values) if _is_lost(value)), None)):
        return _said(lost, floats[0])
    if wholes and (large := next(((i, value) for i, value in enumerate(values) if isinstance(value, int) and abs(value) >= LARGEST), None)):
        return f"{large[1]} in row {large[0]}, which is too large"
    zones = {bool(getattr(value, "tzinfo", None)): (i, value) for i, value in enumerate(values) if _is_time(value)} if of(date) else {}
    return _said(*zones.values()) if len(zones) == 2 else ""


def _first(values: Sequence[Any], kind: type) -> Placed | None:
    """The first value of a kind; none of nothing and NaN."""
    if kind is NoneType or kind.__name__ in GAPS:
        return None
    gaps = issubclass(kind, float)
    return next(((i, value) for i, value in enumerate(values) if type(value) is kind and not (gaps and value != value)), None)


def _is_lost(value: Any) -> bool:
    """Whether a whole number is not what a float makes of it."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or (isinstance(value, Decimal) and not _is_whole(value)):
        return False
    try:
        return float(value) != value
    except OverflowError:
        return True


def _is_whole(value: Decimal) -> bool:
    return value.is_finite() and value.as_integer_ratio()[1] == 1


def _is_time(value: Any) -> bool:
    return isinstance(value, date) and type(value).__name__ not in GAPS


def _said(*pair: Placed) -> str:
    return " and ".join(f"{value!r} in row {row}" for row, value in sorted(pair, key=lambda one: one[0]))
