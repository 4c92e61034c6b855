"""What is expected of features and of probabilities, held against what there is. Arrays in and out; nothing is asked or written."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tidemill.core import DataError, DefinitionError, Floats, Ints
from tidemill.features import Matrix
from tidemill.models import Signature
from tidemill.serving.asking import FEW
from tidemill.serving.declarations import PROBABILITY, Expect

SAID = {"count": "counted", "clip": "clipped", "fall back": "fell back"}


class Unexpected(NamedTuple):
    """A value of a row that is not as expected: what is told of it, and what happens."""

    row: int
    of: str
    what: str
    otherwise: str


class Expectations:
    """What a deployment expects of the features of a model."""

    def __init__(self, expect: Sequence[Expect], signature: Signature) -> None:
        """Raises DefinitionError for a feature that the model does not have, and for a range of a category."""
        self._names, self._of = signature.features, {one.of: one for one in expect}
        for one in expect:
            if one.of not in (*self._names, PROBABILITY):
                what = f"something is expected of {one.of!r}, which is no feature of the model"
                raise DefinitionError(what, available=[*self._names, PROBABILITY])
            if one.of in signature.categories and not (one.low is None and one.high is None):
                raise DefinitionError(f"{one.of!r} is a category, and has no range", hint=f"tm.Expect({one.of!r}, null=False)")

    @cached_property
    def _bounds(self) -> tuple[Floats, Floats, Floats]:
        """Of each feature the least and the greatest number that is expected, and whether null is not (as 1)."""
        low, high, there = np.full(len(self._names), -np.inf), np.full(len(self._names), np.inf), np.zeros(len(self._names))
        largest = np.finfo(np.float64).max
        for place, name in enumerate(self._names):
            one = self._of.get(name)
            if one:
                low[place] = -largest if one.low is None else one.low
                high[place] = largest if one.high is None else one.high
                there[place] = not one.null
        return low, high, there

    def held(self, matrix: Matrix, places: Sequence[int] | Ints) -> tuple[Matrix, list[Unexpected]]:
        """A matrix of features as the model may see it, and what was not as expected. Raises DataError where that is to be rejected, with
        the place of the row in the request."""
        if matrix.names != self._names:  # another model's: the ladder says so
            return matrix, []
        if len(matrix.values) <= FEW and self._all_held(matrix.values):
            return matrix, []
        low, high, there = self._bounds
        values = matrix.values
        odd = (values < low) | (values > high) | (np.isnan(values) & (there > 0))
        if not odd.any():
            return matrix, []
        found, clipped = list[Unexpected](), values
        for row, place in zip(*(some.tolist() for some in np.nonzero(odd)), strict=True):
            one, value = self._of[self._names[place]], float(values[row, place])
            what = _what(one, value)
            if one.otherwise == "reject":
                raise DataError(f"rows[{places[row]}]: {one.of} is {what}", hint=f"{_range(one)} is expected")
            if one.otherwise == "clip":
                clipped = clipped.copy() if clipped is values else clipped
                clipped[row, place] = min(max(value, low[place]), high[place])
            found.append(Unexpected(row, one.of, f"{what}: {SAID[one.otherwise]}", one.otherwise))
        return replace(matrix, values=clipped), found

    def _all_held(self, values: Floats) -> bool:
        """The same of a few rows, one by one: arrays cost more than that."""
        for row in values.tolist():
            for value, (low, high, there) in zip(row, self._each, strict=True):
                if not low <= value <= high and (there or value == value):  # NaN is not itself
                    return False
        return True

    @cached_property
    def _each(self) -> list[tuple[float, float, float]]:
        """The bounds of each feature."""
        return [*zip(*(bounds.tolist() for bounds in self._bounds), strict=True)]

    def expected(self, probabilities: Floats | list[float]) -> bool:
        """Whether all of them may be told as they are."""
        if PROBABILITY not in self._of:
            return True
        low, high = self._range
        if isinstance(probabilities, list):
            return low <= min(probabilities) and max(probabilities) <= high
        return bool(((probabilities >= low) & (probabilities <= high)).all())

    @cached_property
    def _range(self) -> tuple[float, float]:
        """Of probabilities."""
        one = self._of.get(PROBABILITY)
        return (0.0, 1.0) if one is None else (one.low or 0.0, 1.0 if one.high is None else one.high)

    def probability(self, row: int, value: float) -> tuple[float, Unexpected | None]:
        """A probability as it may be told, and what was not as expected."""
        one, (low, high) = self._of.get(PROBABILITY), self._range
        if one is None or low <= value <= high:
            return value, None
        told = Unexpected(row, PROBABILITY, f"{_what(one, value)}: {SAID[one.otherwise]}", one.otherwise)
        return min(max(value, low), high) if one.otherwise == "clip" else value, told


def _what(one: Expect, value: float) -> str:
    if value != value:  # NaN is not itself
        return "null"
    return f"{value:g}, below {one.low:g}" if one.low is not None and value < one.low else f"{value:g}, not {_range(one)}"


def _range(one: Expect) -> str:
    """What is expected, for people.

    >>> _range(Expect("wind", low=0)), _range(Expect("wind", high=60, null=False))
    ('0 or more, or null', '60 or less')
    """
    parts = {(True, True): "a finite number", (False, True): f"{one.low} or more", (True, False): f"{one.high} or less"}
    return parts.get((one.low is None, one.high is None), f"{one.low} to {one.high}") + (", or null" if one.null else "")
