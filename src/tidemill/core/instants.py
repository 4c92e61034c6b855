"""Instants and durations. An instant is an int64 of microseconds since 1970-01-01 UTC; a duration is microseconds too.

Whole numbers because a window's edge must fall on the same side offline and online.
"""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from zoneinfo import ZoneInfo

from tidemill.core.errors import DefinitionError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"us": 1, "ms": 1_000, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}


@cache
def duration(text: str) -> int:
    """Microseconds of "50ms", "90s", "15min", "1h", "28d" or "2w".

    >>> duration("1h") // SECOND
    3600
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h|d|w)", text.strip())
    if not match:
        raise DefinitionError(f"{text!r} is not a duration", hint='write a number and a unit, for example "1h", "28d" or "50ms"')
    return round(Fraction(match[1]) * _UNITS[match[2]])


def show_duration(us: int) -> str:
    """The shortest exact spelling of a duration.

    >>> show_duration(duration("24h")), show_duration(duration("90min"))
    ('1d', '90min')
    """
    for unit in ("d", "h", "min", "s", "ms"):
        if us and us % _UNITS[unit] == 0:
            return f"{us // _UNITS[unit]}{unit}"
    return f"{us}us"


def instant(moment: datetime | date | str, timezone: str = "UTC") -> int:
    """Microseconds since 1970 UTC of a date (its midnight in `timezone`), an aware datetime or an ISO 8601 text of either.

    A time of day without an offset is refused: nothing says which moment it means. Raises DefinitionError.

    >>> instant("1970-01-01T01:00:00+01:00"), instant("1970-01-02") == DAY
    (0, True)
    """
    given = moment
    if isinstance(moment, str):
        moment = _of_text(moment)
    if not isinstance(moment, date):
        raise DefinitionError(
            f"{_said(given)} is not a time", hint="give a date, a datetime with its zone, or a text of either in ISO 8601"
        )
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=ZoneInfo(timezone))
    if moment.utcoffset() is None:
        zone = f"ZoneInfo({timezone!r})" if timezone != "UTC" else "UTC"
        hint = (
            f'write its offset, for example "{moment.isoformat()}Z" for UTC; give a datetime its zone with .replace(tzinfo={zone}); '
            f"a date alone means its midnight in {timezone}"
        )
        raise DefinitionError(f"{_said(given)} has no time zone", hint=hint)
    delta = moment - EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def microseconds(at: int, now: int) -> int:
    """A whole number that is a time in microseconds since 1970. Raises DefinitionError for one that is a time about now in another unit.

    >>> microseconds(1_800_000_000_000_000, now=1_700_000_000_000_000)
    1800000000000000
    """
    units = {"seconds": 1 / SECOND, "milliseconds": 1 / 1_000, "nanoseconds": 1_000}
    unit = next((unit for unit, many in units.items() if now / 2 < at / many < now * 2), "")
    if unit:
        raise DefinitionError(
            f"{at} is a time in {unit}", hint="give microseconds since 1970 UTC, a datetime with its zone, or a text of one"
        )
    return at


def _of_text(text: str) -> datetime | date:
    for read in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            return read(text)
    raise DefinitionError(f"{text!r} is not a time", hint="write ISO 8601, for example 2013-05-01T12:00:00Z, or a date")


def _said(given: object) -> str:
    return repr(given) if isinstance(given, str) else f"{type(given).__name__} {given}"


def moment(us: int, timezone: str = "UTC") -> datetime:
    """The aware datetime of an instant."""
    found = EPOCH + timedelta(microseconds=us)
    return found if timezone == "UTC" else found.astimezone(ZoneInfo(timezone))


def show(us: int, timezone: str = "UTC") -> str:
    """An instant for people and JSON: ISO 8601 with its offset, seconds shown.

    >>> show(0)
    '1970-01-01T00:00:00Z'
    """
    text = moment(us, timezone).isoformat()
    return text.replace("+00:00", "Z")


def midnights(start: int, end: int, timezone: str = "UTC") -> list[int]:
    """Each local midnight in (start, end), then `end`: the ends of the days between, 23 or 25 hours apart when clocks change."""
    first = moment(start, timezone).date().toordinal()
    ends = []
    for ordinal in range(first + 1, first + 2 + (end - start) // DAY + 1):
        at = instant(date.fromordinal(ordinal), timezone)
        if start < at < end:
            ends.append(at)
    return [*ends, end] if end > start else []
