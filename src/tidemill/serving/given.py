"""Rows that bring the features themselves: no entity is looked up, and the answer is logged with what was sent."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tidemill.core import DataError
from tidemill.features import Matrix
from tidemill.models import Signature

Row = Mapping[str, Any]
INFINITE = {"inf": np.inf, "-inf": -np.inf}  # JSON has none


@dataclass(frozen=True)
class Given:
    """How such rows are read for a model of this `signature`. A row may have the request's `keys` beside its features; `columns` are those
    of a request that is looked up."""

    signature: Signature
    keys: Sequence[str] = ()
    columns: Collection[str] = ()

    def matrix(self, rows: Sequence[Row], places: Sequence[int]) -> Matrix:
        """The features of rows, as if they had been looked up; `places` (n,) is where each stands in the request. Raises DataError for a
        row that lacks a feature, has another field, or a value that is none of its feature.

        >>> given = Given(Signature(("size", "kind"), {"kind": ("a", "b")}))
        >>> given.matrix([{"size": 2, "kind": "b"}, {"size": None, "kind": "new"}], [0, 1]).values
        array([[ 2.,  1.],
               [nan, nan]])
        """
        values = np.array([self._values(i, row) for i, row in zip(places, rows, strict=True)], dtype=np.float64)
        nothing, offline = np.empty((len(rows), 0), np.uint8), np.zeros(len(rows), dtype=bool)
        return Matrix(self.signature.features, values, self.signature.categories, (), nothing, offline)

    def _values(self, i: int, row: Row) -> list[float]:
        """In the order of the model: numbers, the codes of categories, NaN for nothing and for a category that it does not know."""
        features = self.signature.features
        if not self._fields >= row.keys() >= self.names:
            odd, lacks = next((name for name in row if name not in self._fields), None), [name for name in features if name not in row]
            what = f"has a field {odd!r} that the model does not know" if odd is not None else f"lacks the feature {lacks[0]!r}"
            beside = f", and {', '.join(self.keys)} if its request has a key" if self.keys else ""
            raise DataError(f"rows[{i}] {what}", available=list(features), hint=f"send all features, null where there is nothing{beside}")
        values = [row[name] for name in features]
        if not self._codes and {*map(type, values)} == {float}:
            return values
        return [self._value(f"rows[{i}].{name}", name, value) for name, value in zip(features, values, strict=True)]

    def _value(self, where: str, name: str, value: Any) -> float:
        codes = self._codes.get(name)
        if value is None:
            return np.nan
        if codes is not None:
            if isinstance(value, str):
                return codes.get(value, np.nan)
        elif isinstance(value, str):
            if value in INFINITE:
                return INFINITE[value]
        elif not isinstance(value, bool) and isinstance(value, int | float):
            with suppress(OverflowError):  # JSON's whole numbers have no end
                return float(value)
        kind = 'a number, or "inf" or "-inf"' if codes is None else "a text"
        raise DataError(f"{where} is {value!r}, and not {kind}", hint=f"send {kind}, or null where there is nothing")

    @cached_property
    def marks(self) -> frozenset[str]:
        """By what such a row is told from the others."""
        return self.names.difference(self.columns)

    @cached_property
    def names(self) -> frozenset[str]:
        """The features."""
        return frozenset(self.signature.features)

    @cached_property
    def _fields(self) -> frozenset[str]:
        return self.names | {*self.keys}

    @cached_property
    def _codes(self) -> Mapping[str, Mapping[str, float]]:
        """The number of each word of a category."""
        return {name: {word: float(code) for code, word in enumerate(words)} for name, words in self.signature.categories.items()}
