"""Whether a value that a client sends fits its column. The engine would round, spell out or stretch it until it does, and the
answer would be another request's.
"""

from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache, partial
from math import isinf
from numbers import Integral, Real
from typing import Any

from tidemill.core import DataError
from tidemill.features.kinds import LIMITS
from tidemill.features.mixed import GAPS

Rule = tuple[Callable[[Any], bool], str, frozenset[type]]  # whether a value fits, what to send instead, and of which types each does


def check_values(types: Mapping[str, str], row: Mapping[str, Any]) -> None:
    """Raise DataError, with the column and the value, for the first of these columns whose value in a request cannot be meant."""
    for name, kind in types.items():
        fits, instead, sure = rule_of(kind)
        value = row[name]
        if type(value) not in sure and value is not None and not fits(value) and not is_gap(value):
            raise DataError(f"the request's {name} = {value!r} is not {kind}", hint=f"send {instead}")


@lru_cache(1_000)
def rule_of(kind: str) -> Rule:
    """What fits a column of a type. What the engine judges does too: a text that is no number, a time of another form."""
    family = kind.partition("(")[0]
    if family in LIMITS:
        return partial(_is_number, whole=True), "a whole number", frozenset({int})
    if family in ("DOUBLE", "FLOAT", "DECIMAL"):
        return _is_finite, "a finite number, or null where there is none", frozenset({int})
    if family == "VARCHAR":
        return lambda value: not isinstance(value, bool) and isinstance(value, (str, Integral)), "a text", frozenset({str})
    if family == "BOOLEAN":
        return lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false"), "true or false", frozenset({bool})
    if family.startswith(("DATE", "TIME")):
        return lambda value: isinstance(value, (str, date, time)), "a text that spells a time", frozenset({str})
    return lambda value: True, "", frozenset()


def is_gap(value: Any) -> bool:
    """Whether numpy and pandas have nothing so."""
    return type(value).__name__ in GAPS or (isinstance(value, float) and value != value)


def _is_finite(value: Any) -> bool:
    return not isinf(value) if type(value) is float else _is_number(value, whole=False)


def _is_number(value: Any, *, whole: bool) -> bool:
    if type(value) is float:
        return value.is_integer() if whole else not isinf(value)
    if type(value) is int:
        return True
    if isinstance(value, str):
        try:
            number = Decimal(value)
        except InvalidOperation:
            return True  # the engine says what is wrong with it
        return number.is_finite() and not isinf(float(number)) and not (whole and number != number.to_integral_value())
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or (float(value).is_integer() if whole else not isinf(float(value)))
