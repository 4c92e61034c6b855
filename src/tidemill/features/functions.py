"""The functions that expressions may call: one table, by name and by the families of the arguments (`kinds.py`).

Each is what the engine computes, value for value: the table is tested against it, row by row (tests/features/test_expressions.py). A
null among the arguments gives null before a function is asked.
"""

import math
import operator
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

from tidemill.core import DAY, HOUR, MINUTE, SECOND, DataError
from tidemill.data import ask
from tidemill.features import calendar
from tidemill.features.casts import half_away
from tidemill.features.kinds import Shape, Unsure, keeping, nearest, towards_zero, within

LARGEST = 10_000_000  # characters that one function may make
Function = Callable[..., Any]
Maker = Callable[[Shape], Function | None]


def plain(function: Function) -> Maker:
    """One function for all types of a family."""
    return lambda shape: function


def held(function: Function) -> Maker:
    """Arithmetic on whole numbers and digits, refused where the type of the value does not hold it."""

    def make(shape: Shape) -> Function:
        kind = shape.gives
        return lambda *values: within(function(*values), kind)

    return make


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def quotient(x: int, y: int) -> int:
    """Whole division, towards zero."""
    if y == 0:
        raise DataError("division by zero", hint="write nullif(…, 0) around the divisor")
    return towards_zero(x, y)


def remainder(shape: Shape) -> Function:
    """What whole division leaves, with the sign of the dividend; refused where the division itself would be."""
    kind = shape.gives
    return lambda x, y: x - y * within(quotient(x, y), kind)


def ratio(x: float, y: float) -> float:
    """x / y by IEEE 754, zero included."""
    if y:
        return x / y
    return math.nan if x != x or x == 0 else math.copysign(math.inf, x) * math.copysign(1, y)


def nonzero(x: float, y: float) -> float:
    """x // y of floating numbers, which the engine divides without rounding."""
    if y == 0:
        raise DataError("division by zero", hint="write nullif(…, 0) around the divisor")
    return x / y


def guarded(function: Function) -> Function:
    """A function of the C library as that gives it: infinity and NaN where Python raises."""

    def run(x: float) -> float:
        try:
            return float(function(x))
        except OverflowError:
            return math.copysign(math.inf, x) if function == math.sinh else math.inf
        except ValueError:
            return math.nan

    return run


def logarithm(function: Function) -> Function:
    """A logarithm: of zero −infinity, of less NaN."""
    return lambda x: float(function(x)) if x > 0 else -math.inf if x == 0 else math.nan


def power(x: float, y: float) -> float:
    """x to the power of y, as the C library gives it."""
    try:
        return math.pow(x, y)
    except (OverflowError, ValueError):
        if x < 0 and not y.is_integer():
            return math.nan
        return -math.inf if math.copysign(1, x) < 0 and y % 2 == 1 else math.inf


def modulo(x: float, y: float) -> float:
    """What dividing leaves, with the sign of the dividend."""
    try:
        return math.fmod(x, y)
    except ValueError:
        return math.nan


def rounded(x: float) -> float:
    """The nearest whole number, of a half the one away from zero."""
    return x if not abs(x) < 2.0**52 else math.copysign(half_away(x), x)


def rounded_to(x: float, places: int) -> float:
    """x to a number of decimal places, as the engine scales it."""
    scale = power(10.0, abs(places))
    result = rounded(x * scale) / scale if places >= 0 else rounded(x / scale) * scale
    return result if math.isfinite(result) else 0.0 if places < 0 and math.isnan(result) and math.isfinite(x) else x


def whole_of(function: Function) -> Function:
    """floor, ceil or trunc of a floating number, which keeps its sign."""
    return lambda x: math.copysign(function(x), x) if abs(x) < 2.0**52 else x


def decimal_rounding(function: Callable[[int, int], int]) -> Maker:
    """Rounding of a DECIMAL to whole numbers; `function` of the digits and of what one is in them."""

    def make(shape: Shape) -> Function:
        one = 10 ** shape.takes[0].scale
        return lambda digits: function(digits, one)

    return make


def decimal_places(shape: Shape) -> Function | None:
    """round(DECIMAL, places) for places that are a constant."""
    places = shape.constants[1]
    if not isinstance(places, int):
        return None
    fewer = shape.takes[0].scale - max(places, 0)
    unit = 10 ** (shape.takes[0].scale - places)
    if fewer <= 0:
        return lambda digits, _: digits
    return lambda digits, _: nearest(digits, unit) * 10 ** max(-places, 0)


def signum(x: Any) -> int:
    """−1, 0 or 1; 0 for NaN."""
    return int(x > 0) - int(x < 0)


# ── order: NaN is equal to itself, and above all numbers ────────────────────────────────────────────────────────────


def same(x: float, y: float) -> bool:
    return x == y or (x != x and y != y)


def less(x: float, y: float) -> bool:
    return x < y or (y != y and x == x)


def at_most(x: float, y: float) -> bool:
    return x <= y or y != y


def comparison(ordinary: Function, floating: Function) -> Maker:
    def make(shape: Shape) -> Function:
        if shape.takes[0].letter == "d":
            return floating
        if shape.takes[0].letter == "v":
            return lambda x, y: ordinary(calendar.length(x), calendar.length(y))
        return ordinary

    return make


COMPARISONS: dict[str, Maker] = {
    "COMPARE_EQUAL": comparison(operator.eq, same),
    "COMPARE_NOTEQUAL": comparison(operator.ne, lambda x, y: not same(x, y)),
    "COMPARE_LESSTHAN": comparison(operator.lt, less),
    "COMPARE_GREATERTHAN": comparison(operator.gt, lambda x, y: less(y, x)),
    "COMPARE_LESSTHANOREQUALTO": comparison(operator.le, at_most),
    "COMPARE_GREATERTHANOREQUALTO": comparison(operator.ge, lambda x, y: at_most(y, x)),
}


def extreme(shape: Shape, name: str) -> Function:
    """greatest or least of what is not null."""
    before = COMPARISONS[f"COMPARE_{name}THAN"](shape)
    assert before is not None

    def run(*values: Any) -> Any:
        best = None
        for value in values:
            if value is not None and (best is None or before(value, best)):
                best = value
        return best

    return run


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@keeping(10_000)
def _cased(text: str, function: str) -> str:
    """The engine's own upper or lower case of a text with other letters than a to z."""
    return str(ask(f"SELECT {function}(?)", text))


def upper(text: str) -> str:
    return text.upper() if text.isascii() else _cased(text, "upper")


def lower(text: str) -> str:
    return text.lower() if text.isascii() else _cased(text, "lower")


def spaces(text: str) -> str:
    """The spaces that trim takes away: the engine leaves tabs and line ends."""
    return " " if text.isascii() else "".join(sorted({letter for letter in text if unicodedata.category(letter) == "Zs"}))


def part(text: str, start: int, size: int = 2**32 - 1) -> str:
    """substr: from `start`, counted from 1, or backwards from the end; a negative size reaches to the left."""
    if not -(2**32) <= min(start, size) <= max(start, size) < 2**32:
        raise DataError(f"there is no substr from {start} with {size} letters")
    begin = start - 1 if start >= 0 else len(text) + start
    end = begin + size
    return text[max(min(begin, end), 0) : max(begin, end, 0)]


def first(text: str, count: int) -> str:
    """left: the first letters, or all but the last ones."""
    if count >= 2**32:
        raise DataError(f"there is no left of {count} letters")
    return text[:count] if count >= 0 else text[: max(len(text) + count, 0)]


def final(text: str, count: int) -> str:
    """right: the last letters, or all but the first ones."""
    return text[max(len(text) - count, 0) :] if count >= 0 else text[-count:]


def replaced(text: str, old: str, new: str) -> str:
    """replace, refused where two texts of a client would make one that fills the memory."""
    if not old:
        return text
    if len(new) > 1 and text.count(old) * len(new) > LARGEST:
        raise Unsure(f"a text would have more than {LARGEST:,} characters")
    return text.replace(old, new)


def joined(separator: str, *texts: str | None) -> str:
    return separator.join(text for text in texts if text is not None)


@keeping(1_000)
def _pattern(pattern: str, escape: str) -> tuple[list[re.Pattern[str]], int]:
    """The pieces of a LIKE pattern between its %, and how many letters the last one stands for."""
    pieces: list[list[str]] = [[]]
    marks = iter(pattern)
    for mark in marks:
        if mark == escape:
            follows = next(marks, None)
            if follows is None:
                raise DataError("a LIKE pattern ends with its escape character")
            pieces[-1].append(re.escape(follows))
        elif mark == "%":
            pieces.append([])
        else:
            pieces[-1].append("." if mark == "_" else re.escape(mark))
    return [re.compile("".join(piece), re.DOTALL) for piece in pieces], len(pieces[-1])


def like(text: str, pattern: str, escape: str = "") -> bool:
    """LIKE: % stands for any text, _ for one letter. Each piece is looked for once, so no pattern takes long."""
    (first, *others), size = _pattern(pattern, escape)
    if not others:
        return first.fullmatch(text) is not None
    found, last = first.match(text), others.pop()
    for piece in others:
        found = found and piece.search(text, found.end())
    begin = len(text) - size
    return found is not None and found.end() <= begin and last.fullmatch(text, begin) is not None


def escaped(function: Function) -> Maker:
    """LIKE with ESCAPE, for one character that is a constant: for others the engine ends the whole query."""
    return lambda shape: function if isinstance(shape.constants[2], str) and len(shape.constants[2]) == 1 else None


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────

TABLE: dict[str, Maker] = {}


def _enter(names: str, families: str, maker: Maker) -> None:
    for name in names.split():
        TABLE.update({f"{name} {family}": maker for family in families.split()})


_enter("+", "ii nn", held(operator.add))
_enter("-", "ii nn", held(operator.sub))
_enter("*", "ii nn", held(operator.mul))
_enter("//", "ii", held(quotient))
_enter("%", "ii nn", remainder)
_enter("-", "i n", held(operator.neg))
_enter("+", "i n d", plain(lambda x: x))
_enter("abs", "i n", held(abs))
_enter("+", "dd", plain(operator.add))
_enter("-", "dd", plain(operator.sub))
_enter("*", "dd", plain(operator.mul))
_enter("/", "dd", plain(ratio))
_enter("//", "dd", plain(nonzero))
_enter("%", "dd", plain(modulo))
_enter("-", "d", plain(operator.neg))
_enter("abs", "d", plain(abs))
_enter("sign", "i n d", plain(signum))
_enter("pow power ** ^", "dd", plain(power))
_enter("round floor ceil ceiling trunc", "i", plain(lambda x: x))
_enter("round", "d", plain(rounded))
_enter("round", "di", plain(rounded_to))
_enter("round", "n", decimal_rounding(nearest))
_enter("round", "ni", decimal_places)
_enter("floor", "n", decimal_rounding(operator.floordiv))
_enter("ceil ceiling", "n", decimal_rounding(lambda digits, one: -(-digits // one)))
_enter("trunc", "n", decimal_rounding(quotient))
_enter("floor", "d", plain(whole_of(math.floor)))
_enter("ceil ceiling", "d", plain(whole_of(math.ceil)))
_enter("trunc", "d", plain(whole_of(math.trunc)))
_enter("sqrt", "d", plain(guarded(math.sqrt)))
_enter("exp", "d", plain(guarded(math.exp)))
_enter("ln", "d", plain(logarithm(math.log)))
_enter("log2", "d", plain(logarithm(math.log2)))
_enter("log log10", "d", plain(logarithm(math.log10)))
TABLE["pi"] = plain(lambda: math.pi)
_enter("radians", "d", plain(lambda x: x * (math.pi / 180)))
_enter("degrees", "d", plain(lambda x: x * (180 / math.pi)))
_enter("atan2", "dd", plain(math.atan2))
for _name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"):
    _enter(_name, "d", plain(guarded(getattr(math, _name))))
_enter("isnan", "d", plain(math.isnan))
_enter("isinf", "d", plain(math.isinf))
_enter("isfinite", "d", plain(math.isfinite))

_enter("lower lcase", "s", plain(lower))
_enter("upper ucase", "s", plain(upper))
_enter("length len", "s", plain(len))
_enter("trim", "s", plain(lambda text: text.strip(spaces(text))))
_enter("ltrim", "s", plain(lambda text: text.lstrip(spaces(text))))
_enter("rtrim", "s", plain(lambda text: text.rstrip(spaces(text))))
_enter("trim", "ss", plain(str.strip))
_enter("ltrim", "ss", plain(str.lstrip))
_enter("rtrim", "ss", plain(str.rstrip))
_enter("substr substring", "si sii", plain(part))
_enter("left", "si", plain(first))
_enter("right", "si", plain(final))
_enter("||", "ss", plain(operator.add))
_enter("contains", "ss", plain(operator.contains))
_enter("starts_with prefix ^@", "ss", plain(str.startswith))
_enter("ends_with suffix", "ss", plain(str.endswith))
_enter("strpos instr position", "ss", plain(lambda text, wanted: text.find(wanted) + 1))
_enter("replace", "sss", plain(replaced))
_enter("~~", "ss", plain(like))
_enter("!~~", "ss", plain(lambda text, pattern: not like(text, pattern)))
_enter("like_escape", "sss", escaped(like))
_enter("not_like_escape", "sss", escaped(lambda text, pattern, escape: not like(text, pattern, escape)))

for _name, _function in calendar.OF_DATE.items():
    _enter(_name, "a", plain(_function))
    _enter(_name, "t z", plain(lambda us, _of=_function: _of(us // DAY)))
for _name, _function in calendar.OF_TIME.items():
    _enter(_name, "a", plain(lambda days, _of=_function: _of(days * DAY)))
    _enter(_name, "t z", plain(_function))
_enter("year", "z", plain(lambda us: abs(calendar.era_year(us))))
_enter("epoch", "z", plain(lambda us: us // 1_000 / 1_000 + us % 1_000 / 1_000_000))
_enter("epoch", "v", plain(calendar.epoch_of))
_enter("normalized_interval", "v", plain(lambda interval: interval))
_enter("date_trunc datetrunc", "st sz sa", calendar.truncated)
_enter("date_diff datediff", "stt szz saa", calendar.borders)
_enter("date_sub datesub", "stt saa", calendar.wholes)  # of instants the engine looks at whole milliseconds
_enter("+", "tv", plain(calendar.plus))
_enter("+", "zv", plain(calendar.plus_zoned))
_enter("-", "tv", plain(calendar.minus))
_enter("-", "zv", plain(calendar.minus_zoned))
_enter("+", "vt", plain(lambda interval, us: calendar.plus(us, interval)))
_enter("+", "vz", plain(lambda interval, us: calendar.plus_zoned(us, interval)))
_enter("+", "av", plain(lambda days, interval: calendar.plus(days * DAY, interval)))
_enter("-", "av", plain(lambda days, interval: calendar.minus(days * DAY, interval)))
_enter("-", "tt", plain(calendar.between))
_enter("-", "zz", plain(calendar.between_instants))
_enter("-", "aa", plain(operator.sub))
_enter("+", "ai", plain(lambda days, more: calendar.date_in_range(days + more)))
_enter("-", "ai", plain(lambda days, less: calendar.date_in_range(days - less)))
_enter("timezone", "st sz", calendar.to_zone)
for _name, _size in (("weeks", 7), ("days", 1)):
    _enter(f"to_{_name}", "i", plain(lambda count, _size=_size: calendar.interval_of(days=count * _size)))
for _name, _size in (("hours", HOUR), ("minutes", MINUTE), ("microseconds", 1)):
    _enter(f"to_{_name}", "i", plain(lambda count, _size=_size: calendar.interval_of(us=count * _size)))
_enter("to_seconds", "d", plain(partial(calendar.parts, SECOND)))
_enter("to_milliseconds", "d", plain(partial(calendar.parts, 1_000)))
_enter("to_years", "i", plain(lambda count: calendar.interval_of(12 * count)))
_enter("to_months", "i", plain(calendar.interval_of))

NULLS: dict[str, Callable[[Shape], Function]] = {  # these see nulls themselves
    "greatest": partial(extreme, name="GREATER"),
    "least": partial(extreme, name="LESS"),
    "concat": lambda shape: partial(joined, ""),
    "concat_ws": lambda shape: lambda separator, *texts: None if separator is None else joined(separator, *texts),
}
NAMES = tuple(sorted({entry.split()[0] for entry in TABLE} | set(NULLS)))
