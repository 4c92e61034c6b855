"""The key of a row as one text: a single key as SQL spells it, the parts of a composite one escaped, with a separator between.

So `("1", "11")` is not `("11", "1")`, whatever characters the parts hold, and a null in any part is a null key, which matches nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from math import inf
from typing import Any
from uuid import UUID

import numpy as np

from tidemill.core import Coded, DataError
from tidemill.data import Dataset, literal, quote, with_article
from tidemill.features.casts import cast, received
from tidemill.features.declarations import Entity
from tidemill.features.kinds import LIMITS, Kind, kind_of

SEPARATOR, ESCAPE = "\x1f", "\x1e"
SINGLE = {"FLOAT": 2**24, "DOUBLE": 2**53}  # from which on not every whole number is one
_ESCAPED = ((ESCAPE, f"{ESCAPE}0"), (SEPARATOR, f"{ESCAPE}1"))


def key_sql(of: Entity | Dataset) -> str:
    """SQL for the key of a row; null where any part of it is."""
    return joined_sql([f"CAST({quote(column)} AS VARCHAR)" for column in of.keys])


def key_column(of: Entity | Dataset, types: Mapping[str, str]) -> tuple[str, str]:
    """The same as a column to be fetched: a whole number is written out once for each key, not for each row."""
    low, high = LIMITS.get(types.get(of.keys[0], ""), (0, inf)) if len(of.keys) == 1 else (0, inf)
    fits = low >= -(2**63) and high < 2**63
    return (quote(of.keys[0]), "whole") if fits else (key_sql(of), "text")


def several_sql(name: str, kind: str) -> str:
    """The condition that a key, a float of this type, stands for several whole numbers."""
    return f"isfinite({name}) AND abs({name}) >= {SINGLE[kind]}"


def stands_for_several(what: str, kind: str) -> str:
    """What is said of such."""
    return f"{what} is {kind}, in which several whole numbers are one from {SINGLE[kind]} on"


def joined_sql(parts: Sequence[str]) -> str:
    """SQL for the text of a key from SQL for the texts of its parts."""
    if len(parts) == 1:
        return parts[0]
    return f" || {literal(SEPARATOR)} || ".join(_escaped_sql(part) for part in parts)


def _escaped_sql(sql: str) -> str:
    for odd, instead in _ESCAPED:
        sql = f"replace({sql}, {literal(odd)}, {literal(instead)})"
    return sql


def joined(parts: Sequence[Coded]) -> Coded:
    """The text of each key from its parts as columns, as `joined_sql` spells it."""
    if len(parts) == 1:
        return parts[0]
    codes = np.stack([part.codes for part in parts], axis=1)
    some, inverse = np.unique(codes, axis=0, return_inverse=True)
    rows = some.tolist()
    words = [{code: _escaped(part.vocabulary[code]) for code in {*part.codes.tolist()} if code >= 0} for part in parts]
    texts = (None if min(row) < 0 else SEPARATOR.join(column[code] for column, code in zip(words, row, strict=True)) for row in rows)
    return Coded.of(texts).take(inverse.ravel())


def joined_text(parts: Sequence[str | None]) -> str | None:
    """The text of one key from its parts; None where one is null.

    >>> joined_text(["1", None]), joined_text(["ü"])
    (None, 'ü')
    """
    known = [part for part in parts if part is not None]
    return key_text(known) if len(known) == len(parts) else None


def key_text(key: str | Sequence[str]) -> str:
    """A key, or the parts of a composite one, as one text."""
    if isinstance(key, str):
        return key
    return key[0] if len(key) == 1 else SEPARATOR.join(map(_escaped, key))


def parts_of(key: str, parts: int) -> list[str]:
    """So many parts of a key from its text.

    >>> parts_of(key_text(["a\\x1f", "\\x1e1"]), 2), parts_of("a\\x1f", 1)
    (['a\\x1f', '\\x1e1'], ['a\\x1f'])
    """
    return [key] if parts == 1 else [_plain(part) for part in key.split(SEPARATOR)]


def _escaped(part: str) -> str:
    for odd, instead in _ESCAPED:
        part = part.replace(odd, instead)
    return part


def _plain(part: str) -> str:
    for odd, instead in reversed(_ESCAPED):
        part = part.replace(instead, odd)
    return part


@dataclass(frozen=True)
class Keys:
    """The columns of an entity's key with their types in the view's dataset."""

    columns: tuple[str, ...]
    types: tuple[str, ...]

    @classmethod
    def of(cls, entity: Entity, types: Mapping[str, str]) -> "Keys":
        """Those of an entity, by the types of a dataset's columns."""
        return cls(tuple(entity.keys), tuple(types[column] for column in entity.keys))

    def texts(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """The text of each row's key, as `joined_sql` spells it; None where a part is null. Numbers of another type are equal where their
        values are. Raises DataError for a row without a part, and for one that cannot be meant.

        >>> Keys(("shop",), ("BIGINT",)).texts([{"shop": 7}, {"shop": 7.0}, {"shop": "7"}, {"shop": None}])
        ['7', '7', '7', None]
        """
        try:
            if len(self.columns) == 1:
                column, kind = self.columns[0], self.types[0]
                return [value if type(value := row[column]) is str else _text(column, kind, value) for row in rows]
            parts = [one.texts(rows) for one in self._parts]
        except TypeError:
            given: Sequence[Any] = rows
            odd = next((i for i, row in enumerate(given) if not isinstance(row, Mapping)), None)
            if odd is None:
                raise
            raise DataError(f"row {odd} is {rows[odd]!r}", hint=f"a row is a dict with {', '.join(self.columns)}") from None
        except KeyError as error:
            number, row = next((i, row) for i, row in enumerate(rows) if error.args[0] not in row)
            hint = f"send {', '.join(self.columns)}"
            raise DataError(f"row {number} lacks the key {error.args[0]!r}", available=sorted(map(str, row)), hint=hint) from error
        return [joined_text(row) for row in zip(*parts, strict=True)]

    @cached_property
    def _parts(self) -> "list[Keys]":
        return [Keys((column,), (kind,)) for column, kind in zip(self.columns, self.types, strict=True)]


def _text(column: str, kind: str, value: Any) -> str | None:
    """A part of a key that is no text, spelled as SQL spells it in the type of its column."""
    if isinstance(value, np.generic):
        value = _of_numpy(column, kind, value)
    if value is None or (not hasattr(value, "__len__") and (value != value) is not False):  # NaN is not itself, and pandas' NA is nothing
        return None
    whole = kind in LIMITS or kind.endswith(",0)")  # a DECIMAL without decimal places
    if isinstance(value, bool):
        if kind in ("BOOLEAN", "VARCHAR"):
            return str(value).lower()
    elif isinstance(value, int) and (whole or kind == "VARCHAR"):
        return str(value)
    elif isinstance(value, float) and whole:
        if SINGLE["DOUBLE"] <= abs(value) < inf:
            raise _several(column, value, kind)
        return str(int(value)) if value.is_integer() else None
    elif isinstance(value, int | float) and kind.startswith(("DOUBLE", "FLOAT", "DECIMAL")):
        with suppress(DataError):  # beyond the type
            held = received(kind)(value)
            text = str(cast(kind_of(kind), Kind("VARCHAR"))(held))  # type: ignore[misc]  # of numbers there is one
            return text if float(text) == value or (kind == "FLOAT" and held == value) else None
    elif isinstance(value, str) or (isinstance(value, UUID) and kind in ("UUID", "VARCHAR")):
        return str(value)
    elif isinstance(value, datetime) and kind == "DATE" and value.tzinfo is None:
        return value.date().isoformat() if value.time() == time() else None
    elif isinstance(value, datetime) and kind == ("TIMESTAMP WITH TIME ZONE" if value.tzinfo else "TIMESTAMP"):
        return str(cast(kind_of(kind), Kind("VARCHAR"))(received(kind)(value)))  # type: ignore[misc]  # of times there is one
    elif isinstance(value, date) and not isinstance(value, datetime) and kind in ("DATE", "VARCHAR"):
        return value.isoformat()
    elif isinstance(value, Decimal) and value.is_finite() and (whole or kind.startswith("DECIMAL")):
        scale = 0 if kind in LIMITS else kind_of(kind).scale
        return f"{value:.{scale}f}" if 10**scale % value.as_integer_ratio()[1] == 0 else None
    raise _odd(column, value, kind)


def _of_numpy(column: str, kind: str, value: np.generic) -> Any:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    if isinstance(value, np.float32) and SINGLE["FLOAT"] <= abs(value) < inf:
        raise _several(column, float(value), kind)
    if isinstance(value, np.longdouble):
        raise _odd(column, value, kind)
    return value.item() if value.dtype.kind in "biuf" else str(value)


def _odd(column: str, value: Any, kind: str) -> DataError:
    what = f"the key {column!r} is {value!r}, and its column is {with_article(kind)}"
    return DataError(what, hint="send it as the text that its files have")


def _several(column: str, value: float, kind: str) -> DataError:
    what = f"the key {column!r} is {value}, a float that stands for several whole numbers, and its column is {with_article(kind)}"
    return DataError(what, hint="send it without a fraction, or as the text that its files have")
