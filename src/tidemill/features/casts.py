"""From one type to another, as the engine casts. Common spellings of a text are read here; any other is shown to the engine itself."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from math import isfinite, isinf, trunc
from typing import Any

import numpy as np

from tidemill.core import DAY, DataError, instant
from tidemill.data import ask, explained, kept_open
from tidemill.features.calendar import civil
from tidemill.features.kinds import Kind, Unsure, keeping, kind_of, nearest, single, within
from tidemill.features.mixed import GAPS

Cast = Callable[[Any], Any]
EPOCH = date(1970, 1, 1).toordinal()
HUGE = Kind("HUGEINT")
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d(:\d\d)?)?", re.ASCII)
HELD = {"DATE": "({} - DATE '1970-01-01')::BIGINT", "TIMESTAMP": "epoch_us({})", "TIMESTAMP WITH TIME ZONE": "epoch_us({})"}


@keeping(10_000)
@kept_open()
def by_engine(value: str, source: str, target: Kind) -> Any:
    """What the engine makes of a text of a type, where that is too seldom or too odd to do here: milliseconds. Raises DataError."""
    cast = f"CAST(CAST(? AS {source}) AS {target})"
    with explained(f"cast to {target}"):
        if target.letter in ("a", "t", "z") and ask(f"SELECT isinf({cast})", value):
            raise Unsure(f"{value!r} is no finite time")
        held = HELD.get(target.name, "CAST({} AS VARCHAR)" if target.letter in ("n", "") else "{}")
        found = ask(f"SELECT {held.format(cast)}", value)
    return int(found.replace(".", "")) if target.letter == "n" else found


def _text_to_whole(kind: Kind, text: str) -> Any:
    if len(text) < 19 and re.fullmatch(r"-?[0-9]+", text):
        return within(int(text), kind)
    return by_engine(text, "VARCHAR", kind)


def _text_to_number(kind: Kind, text: str) -> Any:
    if len(text) < 400 and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        number = float(text)
        if not isinf(number):
            return number
    return by_engine(text, "VARCHAR", kind)


def _text_to_decimal(kind: Kind, text: str) -> Any:
    found = re.fullmatch(r"(-?)([0-9]{1,30})(?:\.([0-9]{1,30}))?", text)
    places = len(found[3] or "") if found else 0
    if not found or places > kind.scale:
        return by_engine(text, "VARCHAR", kind)
    return within(int(found[1] + found[2] + (found[3] or "")) * 10 ** (kind.scale - places), kind)


def _text_to_flag(text: str) -> Any:
    return {"true": True, "false": False}[text] if text in ("true", "false") else by_engine(text, "VARCHAR", Kind("BOOLEAN"))


def _text_to_date(text: str) -> Any:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text).toordinal() - EPOCH
        except ValueError:
            pass
    return by_engine(text, "VARCHAR", Kind("DATE"))


def _text_to_time(kind: Kind, text: str) -> Any:
    found = TIME.fullmatch(text)
    if found and (found[2] in (None, "Z") or kind.letter == "z"):
        try:
            return instant(datetime.fromisoformat(text if found[2] else text + "Z"))
        except (ValueError, OverflowError):
            pass
    return by_engine(text, "VARCHAR", kind)


def _whole(kind: Kind, number: float) -> int:
    if not isfinite(number):
        raise DataError(f"{number} is no {kind}")
    return within(round(number), kind)


def _rescaled(digits: int, places: int) -> int:
    """Digits with `places` more, or fewer."""
    return digits * int(10**places) if places >= 0 else nearest(digits, int(10**-places))


def _decimal(kind: Kind, number: float) -> int:
    scaled = number * 10.0**kind.scale
    if not isfinite(scaled):
        raise DataError(f"{number} is no {kind}")
    return within(half_away(scaled), kind)


def half_away(number: float) -> int:
    """The nearest whole number, of a half the one away from zero."""
    whole = trunc(number)
    return whole if abs(number - whole) < 0.5 else whole + (1 if number > 0 else -1)


def fraction(scale: int, digits: int) -> float:
    """A DECIMAL as a floating number, as the engine computes it."""
    if abs(digits) <= 2**53 or not scale:
        return digits / 10.0**scale
    whole = abs(digits) // 10**scale
    value = float(whole) + float(abs(digits) - whole * 10**scale) / 10.0**scale
    return value if digits >= 0 else -value


def _single(number: float) -> float:
    nearest = single(number)
    if isinf(nearest) and not isinf(number):
        raise DataError(f"{number} is too large for FLOAT")
    return nearest


def _number_text(kind: str, number: float) -> Any:
    if number != number:
        raise Unsure("NaN has no text that is sure", hint="the engine writes nan or -nan, as it came about: leave it out by CASE")
    return repr(number) if kind == "DOUBLE" else by_engine(repr(number), kind, Kind("VARCHAR"))


def _decimal_text(scale: int, digits: int) -> str:
    text = str(abs(digits)).rjust(scale + 1, "0")
    return ("-" if digits < 0 else "") + (f"{text[:-scale]}.{text[-scale:]}" if scale else text)


def _date_text(days: int) -> str:
    year, month, day = civil(days)
    return f"{year:04}-{month:02}-{day:02}" if year > 0 else f"{1 - year:04}-{month:02}-{day:02} (BC)"


def _time_text(zone: str, us: int) -> str:
    days, rest = divmod(us, DAY)
    seconds, micros = divmod(rest, 1_000_000)
    text = f"{_date_text(days)} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{micros:06}".rstrip("0") if micros else "") + zone


def _same(value: Any) -> Any:
    return value


def cast(source: Kind, target: Kind) -> Cast | None:
    """The function that casts values of a type to another; None where expressions know none. It raises DataError for what does not fit."""
    if source == target:
        return _same
    ways = source.letter + target.letter
    if source.letter == "s":
        return _of_text(target)
    if target.letter == "s":
        return _to_text(source)
    if target.name == "FLOAT":
        wider = cast(source, Kind("DOUBLE"))
        return (lambda value: _single(wider(value))) if wider else None
    if ways in ("ff", "zt", "tz", "zz", "tt", "dd") or source.letter == "0":
        return _same
    if ways in ("if", "df", "nf", "fi", "id"):
        return {"f": bool, "i": int, "d": float}[target.letter]
    if ways == "fd":
        return float
    if ways in ("at", "az"):
        return lambda days: days * DAY
    if ways in ("ta", "za"):
        return lambda us: us // DAY
    return _numeric(source, target)


def received(text: str) -> Callable[[Any], Any]:
    """The function that takes a value as a client sends it for a column of a type. It raises DataError for one that is none."""
    kind = kind_of(text)
    if not kind.letter:
        return lambda value: None if value is None else _spelt(text, value)
    sources = {bool: "BOOLEAN", int: HUGE.name, float: "DOUBLE", str: "VARCHAR", date: "DATE"}
    ways = {python: cast(Kind(source), kind) for python, source in sources.items()}
    moments = {aware: cast(Kind(f"TIMESTAMP{' WITH TIME ZONE' * aware}"), kind) for aware in (False, True)}
    numbers = ways[float]
    if numbers is not None and kind.letter != "d":
        numbers = partial(_unless_nan, numbers)

    def take(value: Any) -> Any:
        if type(value) is float and numbers is not None:
            return numbers(value)
        if value is None:
            return None
        way = ways.get(type(value))
        if way is None and (type(value).__name__ in GAPS or (type(value) is float and value != value)):
            return None
        if way is None and isinstance(value, datetime):
            way, value = moments[value.tzinfo is not None], instant(value if value.tzinfo else value.replace(tzinfo=UTC))
        elif way is None and isinstance(value, np.generic):
            return take(value.item())
        elif type(value) is date:
            value = value.toordinal() - EPOCH
        if way is None:
            raise DataError(f"{value!r} is no {kind}")
        return way(within(value, HUGE) if type(value) is int else value)

    return take


def _unless_nan(way: Callable[[Any], Any], number: float) -> Any:
    """NaN is nothing, as numpy and pandas have gaps."""
    return None if number != number else way(number)


def _spelt(kind: str, value: Any) -> Any:
    """The text of a value of a type that expressions do not know."""
    with explained(f"cast to {kind}"):
        return ask(f"SELECT CAST(CAST(? AS {kind}) AS VARCHAR)", value)


def _numeric(source: Kind, target: Kind) -> Cast | None:
    match source.letter + target.letter:
        case "ii":
            return lambda number: within(number, target)
        case "di":
            return partial(_whole, target)
        case "in" | "nn" | "ni" | "fn":
            places = target.scale - source.scale
            return lambda digits: within(_rescaled(int(digits), places), target)
        case "dn":
            return partial(_decimal, target)
        case "nd":
            return partial(fraction, source.scale)
    return None


def _of_text(target: Kind) -> Cast | None:
    match target.letter:
        case "i":
            return partial(_text_to_whole, target)
        case "d" if target.name == "DOUBLE":
            return partial(_text_to_number, target)
        case "n":
            return partial(_text_to_decimal, target)
        case "f":
            return _text_to_flag
        case "a":
            return _text_to_date
        case "t" | "z":
            return partial(_text_to_time, target)
        case "v":
            return None
    return lambda value: by_engine(value, "VARCHAR", target)


def _to_text(source: Kind) -> Cast | None:
    match source.letter:
        case "i":
            return str
        case "f":
            return lambda flag: "true" if flag else "false"
        case "d":
            return partial(_number_text, source.name)
        case "n":
            return partial(_decimal_text, source.scale)
        case "a":
            return _date_text
        case "t" | "z":
            return partial(_time_text, "+00" if source.letter == "z" else "")
        case "0" | "":
            return _same  # of types that expressions do not know, rows hold what the engine writes
    return None
