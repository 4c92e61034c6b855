"""What a feature read must give, as slow loops over rows that follow the words of the documentation and nothing else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidemill.core import DAY, HOUR, MINUTE

Value = float | None


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


FOLDS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
}


def folded(function: str, rows: list[Row]) -> Value:
    """One function over the rows of a window, nulls left out."""
    if function == "last":
        return rows[-1].number if rows else None
    values = [row.number for row in rows if row.number is not None]
    if function == "count":
        return float(len(values))
    return FOLDS[function](values) if values else None


def windowed(rows: Sequence[Row], entity: str | None, at: int, windows: Sequence[int], functions: Sequence[str]) -> tuple[list[Value], str]:
    """Functions over [floor(at − window, hop), at] of the visible rows, window by window, and the status of the view."""
    found = visible(rows, entity, at)
    if not found:
        return [None] * (len(windows) * len(functions)), "unknown"
    inside = [[row for row in found if row.event >= floor_to(at - window, hop_of(window))] for window in windows]
    values = [folded(function, chosen) for chosen in inside for function in functions]
    return values, "present" if any(inside) else "expired"
