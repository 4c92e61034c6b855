"""Rows that bring the features themselves: no entity is looked up, and the answer is logged with what was sent."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np

from tidemill.core import DataError, Floats, Ints
from tidemill.features import Matrix
from tidemill.models import Signature

Row = Mapping[str, Any]
FEW = 10  # rows that are read one by one
NUMBERS, TEXTS = {float, int, NoneType}, {str, NoneType}
INFINITE = {"inf": np.inf, "-inf": -np.inf}  # JSON has none


@dataclass(frozen=True)
class Given:
    """How such rows are read for a model of this `signature`. A row may have the request's `keys` beside its features; `columns` are those
    of a request that is looked up."""

    signature: Signature
    keys: Sequence[str] = ()
    columns: Collection[str] = ()

    def matrix(self, rows: Sequence[Row], places: Sequence[int] | Ints) -> Matrix:
        """The features of rows, as if they had been looked up; `places` (n,) is where each stands in the request. Raises DataError for a
        row that lacks a feature, has another field, or a value that is none of its feature.

        >>> given = Given(Signature(("size", "kind"), {"kind": ("a", "b")}))
        >>> given.matrix([{"size": 2, "kind": "b"}, {"size": None, "kind": "new"}], [0, 1]).values
        array([[ 2.,  1.],
               [nan, nan]])
        """
        if len(rows) <= FEW:
            return self._matrix(np.array([self._values(i, row) for i, row in zip(places, rows, strict=True)], dtype=np.float64))
        for i, row in zip(places, rows, strict=True):
            if row.keys() != self.names:
                self._check_fields(i, row)
        columns = zip(*map(itemgetter(*self.names, *self.names), rows), strict=True)  # twice: of one name alone there would be no tuples
        return self.of_columns(dict(zip(self.names, columns, strict=False)), places)

    def of_columns(self, columns: Mapping[str, Sequence[Any] | Floats], places: Sequence[int] | Ints) -> Matrix:
        """The same of the values of each feature: any, or numbers (n,) with NaN for nothing. Raises DataError as `matrix` does."""
        values = np.empty((len(places), len(self.signature.features)))
        for i, name in enumerate(self.signature.features):
            values[:, i] = self._column(name, columns[name], places)
        return self._matrix(values)

    def _matrix(self, values: Floats) -> Matrix:
        nothing, offline = np.empty((len(values), 0), np.uint8), np.zeros(len(values), dtype=bool)
        return Matrix(self.signature.features, values, self.signature.categories, (), nothing, offline)

    def _column(self, name: str, values: Sequence[Any] | Floats, places: Sequence[int] | Ints) -> Any:
        codes = self._codes.get(name)
        if isinstance(values, np.ndarray) and codes is None:
            return values
        kinds = {*map(type, values)}
        if codes is None and kinds <= NUMBERS:
            with suppress(OverflowError):  # which value it is, is told one by one
                return np.array(values, dtype=np.float64)
        if codes is not None and kinds <= TEXTS:
            return [codes.get(value, np.nan) for value in values]
        return [self._value(f"rows[{i}].{name}", name, value) for i, value in zip(places, values, strict=True)]

    def _values(self, i: int, row: Row) -> list[float]:
        """In the order of the model: numbers, the codes of categories, NaN for nothing and for a category that it does not know."""
        self._check_fields(i, row)
        values = [row[name] for name in self.signature.features]
        if not self._codes and {*map(type, values)} == {float}:
            return values
        return [self._value(f"rows[{i}].{name}", name, value) for name, value in zip(self.signature.features, values, strict=True)]

    def _check_fields(self, i: int, row: Row) -> None:
        features = self.signature.features
        if not self._fields >= row.keys() >= self.names:
            odd, lacks = next((name for name in row if name not in self._fields), None), [name for name in features if name not in row]
            what = f"has a field {odd!r} that the model does not know" if odd is not None else f"lacks the feature {lacks[0]!r}"
            beside = f", and {', '.join(self.keys)} if its request has a key" if self.keys else ""
            raise DataError(f"rows[{i}] {what}", available=list(features), hint=f"send all features, null where there is nothing{beside}")

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
