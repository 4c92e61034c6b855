"""What a feature read must give, as slow loops over rows that follow the words of the documentation and nothing else."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tidemill.core import DAY, HOUR, MINUTE

Value = float | None
EXAMPLES = int(os.environ.get("TIDEMILL_EXAMPLES", "4"))  # a measure of how many are tried; `make torture` tries more


@dataclass(frozen=True)
class Row:
    """One event: its entity, when it happened, when it was known, and its two columns."""

    entity: str | None
    event: int
    known: int
    number: Value
    word: str | None


def floor_to(instant: int, step: int) -> int:
    return instant - instant % step


def hop_of(window: int) -> int:
    """5 minutes for windows up to 12 hours, an hour up to 12 days, a day above."""
    if window <= 12 * HOUR:
        return 5 * MINUTE
    return HOUR if window <= 12 * DAY else DAY


def visible(rows: Sequence[Row], entity: str | None, at: int) -> list[Row]:
    """The rows of an entity that had happened and were known by then, in order; a null key matches nothing."""
    found = [row for row in rows if entity is not None and row.entity == entity and row.event <= at and row.known <= at]
    return sorted(found, key=lambda row: (row.event, row.known))  # stable: what is equal stays in the order of the file


def newest(rows: Sequence[Row], entity: str | None, at: int, ttl: int | None) -> tuple[Row | None, str]:
    """The newest visible row and the status of the view."""
    found = visible(rows, entity, at)
    if not found:
        return None, "unknown"
    row = found[-1]
    if ttl is not None and at - row.event > ttl:
        return None, "expired"
    return row, "null" if row.number is None and row.word is None else "present"


def spread(values: list[float]) -> Value:
    """The standard deviation of a sample, by fractions: rounded but once, and in the root."""
    if len(values) < 2:
        return None
    exact = [Fraction(value) for value in values]
    middle = sum(exact) / len(exact)
    return math.sqrt(sum((value - middle) ** 2 for value in exact) / (len(exact) - 1))


FOLDS: dict[str, Callable[[list[float]], Value]] = {
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "std": spread,
}


def folded(function: str, rows: list[Row], n: int = 0) -> list[Value]:
    """One function over the rows of a window, nulls left out; of the newest `n` that many values."""
    if function == "last":
        newest_first = [row.number for row in reversed(rows)][: n or 1]
        return [*newest_first, *[None] * ((n or 1) - len(newest_first))]
    if function == "first":
        return [rows[0].number if rows else None]
    values = [row.number for row in rows if row.number is not None]
    if function == "count":
        return [float(len(values))]
    if function == "count_distinct":
        return [float(len(set(values)))]
    return [FOLDS[function](values) if values else None]


def quantile(rows: list[Row], q: float) -> Value:
    """The value of a rank, which an approximate quantile must come near."""
    values = sorted(row.number for row in rows if row.number is not None)
    return values[math.floor(q * (len(values) - 1))] if values else None


Asked = tuple[str, int, str | None]  # function, how many of the newest, and the word that counts, if not each


def windowed(
    rows: Sequence[Row], entity: str | None, at: int, windows: Sequence[int | None], asked: Sequence[Asked]
) -> tuple[list[Value], str]:
    """Functions over [floor(at − window, hop), at] of the visible rows, or over all of them, window by window, and the view's status."""
    found = visible(rows, entity, at)
    if not found:
        return [None for _ in windows for _, n, _ in asked for _ in range(n or 1)], "unknown"
    inside = [in_window(found, at, window) for window in windows]
    values = [
        value
        for chosen in inside
        for function, n, word in asked
        for value in folded(function, [row for row in chosen if word is None or row.word == word], n)
    ]
    return values, "present" if any(inside) else "expired"


def in_window(rows: Sequence[Row], at: int, window: int | None) -> list[Row]:
    return [row for row in rows if window is None or row.event >= floor_to(at - window, hop_of(window))]
