"""Whether a value that a client sends fits its column. The engine would round, spell out or stretch it until it does, and the
answer would be another request's.
"""

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal, InvalidOperation
from math import isinf
from numbers import Integral, Real
from typing import Any

from tidemill.core import DataError

WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")


def check_values(types: Mapping[str, str], row: Mapping[str, Any]) -> None:
    """Raise DataError, with the column and the value, for the first of these columns whose value in a request cannot be meant."""
    for name, kind in types.items():
        value = row[name]
        problem = "" if value is None else _problem(kind, value)
        if problem:
            raise DataError(f"the request's {name} = {value!r} is not {kind}", hint=f"send {problem}")


def _problem(kind: str, value: Any) -> str:
    """What to send instead; empty for a value that fits, or that the engine judges: a text that is no number, a time of another form."""
    family = kind.partition("(")[0]
    if family in WHOLE:
        return "" if _is_number(value, whole=True) else "a whole number"
    if family in ("DOUBLE", "FLOAT", "DECIMAL"):
        return "" if _is_number(value, whole=False) else "a finite number, or null where there is none"
    if family == "VARCHAR":
        return "" if not isinstance(value, bool) and isinstance(value, (str, Integral)) else "a text"
    if family == "BOOLEAN":
        return "" if isinstance(value, bool) or str(value).lower() in ("true", "false") else "true or false"
    if family.startswith(("DATE", "TIME")):
        return "" if isinstance(value, (str, date, time)) else "a text that spells a time"
    return ""


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
