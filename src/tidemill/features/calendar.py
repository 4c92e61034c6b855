"""Times as expressions compute with them: days and microseconds since 1970 in the Gregorian calendar, before 1582 too.

Arithmetic on whole numbers, so years before 1 and after 9999 need no rule of their own.
"""

import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from tidemill.core import DAY, HOUR, MINUTE, SECOND, DataError
from tidemill.features.kinds import Shape, Unsure, nearest, towards_zero

Interval = tuple[int, int, int]
LAST = 2**63 - 2  # the engine means infinity by the number above it
EARLIEST = -(2**63) // DAY * DAY + DAY  # its first whole day
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"microsecond": 1, "millisecond": 1_000, "second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY, "week": 7 * DAY}
MONTHS = {"month": 1, "quarter": 3, "year": 12}
NAMES = {"us": "microsecond", "ms": "millisecond", "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour",
         "hr": "hour", "d": "day", "dayofmonth": "day", "w": "week", "weekofyear": "week", "mon": "month", "y": "year",
         "yr": "year"}  # fmt: skip
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTH_NAMES = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days (Hinnant, chrono-compatible low-level date algorithms).

    >>> civil(0), civil(-1)
    ((1970, 1, 1), (1969, 12, 31))
    """
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    late = month >= 10
    return year + era * 400 + late, month - 9 if late else month + 3, day - (153 * month + 2) // 5 + 1


def days_of(year: int, month: int, day: int) -> int:
    """The number of days of a date; `civil` backwards."""
    year -= month <= 2
    era, year = divmod(year, 400)
    return era * 146_097 + 365 * year + year // 4 - year // 100 + (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1 - 719_468


def _first_of(months: int) -> int:
    """Days of the first day of a month, counted from year 0."""
    return days_of(months // 12, months % 12 + 1, 1)


def _months(days: int) -> int:
    year, month, _ = civil(days)
    return year * 12 + month - 1


def _week(days: int) -> int:
    thursday = days + 3 - (days + 3) % 7
    return (thursday - days_of(civil(thursday)[0], 1, 1)) // 7 + 1


OF_DATE: dict[str, Callable[[int], Any]] = {
    "year": lambda days: civil(days)[0],
    "month": lambda days: civil(days)[1],
    "day": lambda days: civil(days)[2],
    "quarter": lambda days: (civil(days)[1] + 2) // 3,
    "dayofweek": lambda days: (days + 4) % 7,
    "isodow": lambda days: (days + 3) % 7 + 1,
    "dayofyear": lambda days: days - days_of(civil(days)[0], 1, 1) + 1,
    "week": _week,
    "dayname": lambda days: DAYS[(days + 4) % 7],
    "monthname": lambda days: MONTH_NAMES[civil(days)[1] - 1],
}
OF_DATE |= {"dayofmonth": OF_DATE["day"], "weekday": OF_DATE["dayofweek"], "weekofyear": OF_DATE["week"]}
OF_TIME: dict[str, Callable[[int], Any]] = {
    "hour": lambda us: us % DAY // HOUR,
    "minute": lambda us: us % HOUR // MINUTE,
    "second": lambda us: us % MINUTE // SECOND,
    "millisecond": lambda us: us % MINUTE // 1_000,
    "microsecond": lambda us: us % MINUTE,
    "epoch": lambda us: float(us) / SECOND,
    "epoch_ms": lambda us: nearest(us, 1_000),
    "epoch_us": lambda us: us,
}


def in_range(us: int) -> int:
    """A time that the engine can hold. Raises DataError."""
    if EARLIEST <= us <= LAST:
        return us
    raise DataError("a time is out of range")


def date_in_range(days: int) -> int:
    """A date that the engine can hold. Raises DataError."""
    if abs(days) < 2**31 - 1:
        return days
    raise DataError("a date is out of range")


def era_year(us: int) -> int:
    """The year of a time, counted without a year 0: the one before year 1 is −1."""
    year = civil(us // DAY)[0]
    return year if year > 0 else year - 1


def unit(name: Any) -> str:
    """The plain name of a unit of time; empty for one that is not known, or no constant."""
    text = name.lower() if isinstance(name, str) else ""
    text = NAMES.get(text, text)
    plain = NAMES.get(text.removesuffix("s"), text.removesuffix("s"))
    return plain if plain in UNITS or plain in MONTHS else ""


def truncated(shape: Shape) -> Callable[[str, int], int] | None:
    """date_trunc: the beginning of the unit that a time, or a date, lies in."""
    name, scale = unit(shape.constants[0]), DAY if shape.takes[1].letter == "a" else 1
    if name in MONTHS:
        step = MONTHS[name]
        return lambda _, us: in_range(_first_of(_months(us * scale // DAY) // step * step) * DAY)
    if name == "week":
        return lambda _, us: in_range((us * scale + 3 * DAY) // (7 * DAY) * 7 * DAY - 3 * DAY)
    size = UNITS.get(name, 0)
    return (lambda _, us: in_range(us * scale // size * size)) if size else None


def borders(shape: Shape) -> Callable[[str, int, int], int] | None:
    """date_diff: how many beginnings of a unit lie between two times."""
    name, scale = unit(shape.constants[0]), DAY if shape.takes[1].letter == "a" else 1
    if name in MONTHS:
        step, zoned = MONTHS[name], shape.takes[1].letter == "z"
        count = operator.floordiv if zoned or step == 12 else towards_zero
        return lambda _, a, b: count(_months(b * scale // DAY), step) - count(_months(a * scale // DAY), step)
    if name == "week":  # seven days each, wherever they begin
        return lambda _, a, b: towards_zero(b * scale // DAY - a * scale // DAY, 7)
    size = UNITS.get(name, 0)
    return (lambda _, a, b: b * scale // size - a * scale // size) if size else None


def wholes(shape: Shape) -> Callable[[str, int, int], int] | None:
    """date_sub: how many whole units lie between two times."""
    size, scale = UNITS.get(unit(shape.constants[0]), 0), DAY if shape.takes[1].letter == "a" else 1
    return (lambda _, a, b: towards_zero((b - a) * scale, size)) if size else None


def plus(us: int, interval: Interval) -> int:
    """A time and an interval: the months first, in the last day of a shorter month, then the days, then the rest."""
    months, days, micros = interval
    if months:
        day, rest = divmod(us, DAY)
        year, month, of_month = civil(day)
        first = year * 12 + month - 1 + months
        us = min(_first_of(first) + of_month - 1, _first_of(first + 1) - 1) * DAY + rest
    return in_range(in_range(us + days * DAY) + micros)


def minus(us: int, interval: Interval) -> int:
    """A time less an interval."""
    return plus(us, (-interval[0], -interval[1], -interval[2]))


def plus_zoned(us: int, interval: Interval) -> int:
    """An instant and an interval: as `plus`, but where a part goes back in time, what is less than a day comes first."""
    return plus(us, interval) if min(interval) >= 0 else plus(plus(us, (0, 0, interval[2])), (interval[0], interval[1], 0))


def minus_zoned(us: int, interval: Interval) -> int:
    """An instant less an interval."""
    return plus_zoned(us, (-interval[0], -interval[1], -interval[2]))


def interval_of(months: int = 0, days: int = 0, us: int = 0) -> Interval:
    """An interval that the engine can hold. Raises DataError."""
    if all(-(2**31) <= part < 2**31 for part in (months, days)) and -(2**63) <= us < 2**63:
        return months, days, us
    raise DataError("an interval is out of range")


def between(later: int, earlier: int) -> Interval:
    """The interval between two times without a zone."""
    return _interval(later - earlier)


def between_instants(later: int, earlier: int) -> Interval:
    """The interval between two instants. Raises DataError for those where the engine errs by a millisecond."""
    if (later < 0 and later % 1_000) or (earlier < 0 and earlier % 1_000):
        raise Unsure("instants before 1970 are subtracted in whole milliseconds only", hint="cast both to TIMESTAMP")
    return _interval(later - earlier)


def _interval(us: int) -> Interval:
    days = towards_zero(us, DAY)
    return 0, days, us - days * DAY


def length(interval: Interval) -> int:
    """An interval in microseconds, a month as 30 days: by this intervals are compared."""
    return (interval[0] * 30 + interval[1]) * DAY + interval[2]


def parts(size: int, count: float) -> Interval:
    """An interval of so many times a size in microseconds, to the nearest of them. Raises DataError."""
    if not abs(count) < 2**63:
        raise DataError("an interval is out of range")
    return interval_of(us=round(count * size))


def epoch_of(interval: Interval) -> float:
    """An interval in seconds, a year as 365.25 days and a month as 30."""
    months, days, us = interval
    years = towards_zero(months, 12)
    whole = years * (1461 * DAY // 4) + (months - 12 * years) * 30 * DAY + days * DAY
    return whole / SECOND + float(us) / SECOND  # rounded twice, as the engine does


@cache
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None


def to_zone(shape: Shape) -> Callable[[str, int], int] | None:
    """timezone(zone, time): the local time of an instant, or the instant of a local time: of one that comes twice the second, of one
    that is left out the one by the clock before it was changed."""
    zone = _zone(shape.constants[0]) if isinstance(shape.constants[0], str) else None
    if zone is None:
        return None
    if shape.constants[0] == "UTC":
        return lambda _, us: us
    naive = shape.takes[1].letter == "t"

    def move(_: str, us: int) -> int:
        try:
            moment = EPOCH + timedelta(microseconds=us)
            moments = [moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1)] if naive else [moment.astimezone(zone)]
            offset = min(found for one in moments if (found := one.utcoffset()) is not None)
        except OverflowError:
            raise Unsure("a time is out of the range of time zones") from None
        shift = offset // timedelta(microseconds=1)
        return us - shift if naive else us + shift

    return move
