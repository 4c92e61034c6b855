"""The types of values in a row's expressions, and how Python holds them so that nothing is lost.

A whole number is an int, a DECIMAL its digits as an int, a DATE days and a TIMESTAMP microseconds since 1970, an INTERVAL (months, days,
microseconds); FLOAT and DOUBLE are floats, BOOLEAN a bool, VARCHAR a str; null is None.
"""

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from struct import pack, unpack
from typing import Any, NamedTuple, TypeVar

from tidemill.core import DataError

LIMITS = {
    f"{sign}{name}": limits
    for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64), ("HUGEINT", 128))
    for sign, limits in (("", (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)), ("U", (0, 2**bits - 1)))
}
LETTERS = dict.fromkeys(LIMITS, "i") | {"BOOLEAN": "f", "DOUBLE": "d", "FLOAT": "d", "DECIMAL": "n", "VARCHAR": "s", "DATE": "a",
                                         "TIMESTAMP": "t", "TIMESTAMP WITH TIME ZONE": "z", "INTERVAL": "v", "NULL": "0"}  # fmt: skip
KEPT = 100  # characters of a text whose answer is kept: a client may send many, and long ones
Answering = TypeVar("Answering", bound=Callable[..., Any])


class Unsure(DataError):
    """What the engine may give otherwise: no value, not even that of TRY, stands for it."""


class Kind(NamedTuple):
    """A type by its name; `width` and `scale` of a DECIMAL."""

    name: str
    width: int = 0
    scale: int = 0

    @property
    def letter(self) -> str:
        """The family by which functions are found: i whole number, d floating, n DECIMAL, f BOOLEAN, s text, a DATE, t and z times
        without and with zone, v INTERVAL, 0 null; empty for types that expressions do not know."""
        return LETTERS.get(self.name, "")

    def __str__(self) -> str:
        return f"DECIMAL({self.width},{self.scale})" if self.name == "DECIMAL" else self.name


def kind_of(text: str) -> Kind:
    """The type that a column of a dataset is recorded with."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", text)
    return Kind("DECIMAL", int(decimal[1]), int(decimal[2])) if decimal else Kind(text)


class Shape(NamedTuple):
    """What a function is called with: the types of its arguments and of its value, and the arguments that are constants."""

    takes: tuple[Kind, ...]
    gives: Kind
    constants: tuple[Any, ...] = ()


def within(number: int, kind: Kind) -> int:
    """A whole number, or the digits of a DECIMAL, if its type holds it. Raises DataError."""
    low, high = LIMITS.get(kind.name) or (1 - 10**kind.width, 10**kind.width - 1)
    if low <= number <= high:
        return number
    raise DataError(f"{number} is too large for {kind}")


def single(number: float) -> float:
    """The nearest number of 32 bits; infinity for one too large."""
    return float(unpack("f", pack("f", number))[0])


def towards_zero(x: int, y: int) -> int:
    """Whole division that leaves a remainder with the sign of x, as the engine divides."""
    return x // y if (x >= 0) == (y > 0) else -(-x // y)


def nearest(x: int, one: int) -> int:
    """How many times `one`, which is positive, a whole number is, to the nearest: of a half the one away from zero."""
    return (abs(x) * 2 + one) // (2 * one) * (1 if x >= 0 else -1)


def keeping(count: int) -> Callable[[Answering], Answering]:
    """Keep the newest answers of a function for short texts, its first argument."""

    def decorate(function: Answering) -> Answering:
        kept = lru_cache(count)(function)

        @wraps(kept)
        def answer(text: str, *more: Any) -> Any:
            return (kept if len(text) <= KEPT else function)(text, *more)

        return answer  # type: ignore[return-value]

    return decorate
