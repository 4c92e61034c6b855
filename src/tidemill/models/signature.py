"""What a model takes and gives: feature names in order, vocabularies of its categories, and the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import Coded, DataError, Floats

ASKED = ("output", "input", "dtype", "width", "block")


@dataclass(frozen=True)
class Signature:
    """Features are one matrix (rows, features). A category is the code of its text in `categories`; unseen and missing are NaN.

    Models that were trained here take float64 and give one `probability`, that of the second class; of several `classes` the
    `probabilities`, in their order; or a `prediction`. Of those that others made: the names of `output` and `input`, the type of this,
    how many numbers (`width`) a row has, and `block`, the number of rows with which it is asked each time.
    """

    features: tuple[str, ...]
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    output: str = "probability"
    input: str = "features"
    dtype: str = "float64"
    width: int = 1
    block: int = 0
    classes: tuple[Any, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As plain data; of a model that was trained here its features and categories, and what it gives in place of a probability."""
        found = {"features": list(self.features), "categories": {name: list(words) for name, words in self.categories.items()}}
        asked = {name: getattr(self, name) for name in ASKED} if self.block else {}
        other = self.output != "probability" and not self.block
        gives = {"output": self.output, "width": self.width, "classes": list(self.classes)} if other else {}
        return found | ({"asked": asked} if asked else {}) | ({"gives": gives} if gives else {})

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Signature":
        """From plain data."""
        categories = {name: tuple(words) for name, words in plain["categories"].items()}
        gives = {**plain.get("asked", {}), **plain.get("gives", {})}
        return cls(tuple(plain["features"]), categories, **gives | {"classes": tuple(gives.get("classes", ()))})

    @property
    def categorical(self) -> list[int]:
        """Positions of the categories."""
        return [i for i, name in enumerate(self.features) if name in self.categories]

    def align(self, names: Sequence[str], values: Floats, vocabularies: Mapping[str, Sequence[str]]) -> Floats:
        """A matrix of other columns and codes as this model takes it. Raises DataError for a missing feature."""
        same = vocabularies == self.categories or {name: tuple(words) for name, words in vocabularies.items()} == self.categories
        if same and tuple(names) == self.features:
            return values
        missing = [name for name in self.features if name not in names]
        if missing:
            raise DataError(f"the model needs feature {missing[0]!r}", available=list(names), hint="train it again on today's definitions")
        other = [name for name in self.features if (name in vocabularies) != (name in self.categories)]
        if other:
            kinds = ("a category", "a number") if other[0] in vocabularies else ("a number", "a category")
            raise DataError(
                f"feature {other[0]!r} is {kinds[0]}, the model was trained on {kinds[1]}", hint="train it again on today's definitions"
            )
        aligned = np.ascontiguousarray(values[:, [list(names).index(name) for name in self.features]])
        for i in self.categorical:
            aligned[:, i] = self._recode(self.features[i], aligned[:, i], vocabularies)
        return aligned

    def _recode(self, name: str, codes: Floats, vocabularies: Mapping[str, Sequence[str]]) -> Floats:
        known = np.where(np.isnan(codes), -1, codes).astype(np.int32)
        found = Coded(known, tuple(vocabularies[name])).to(self.categories[name])
        return np.where(found >= 0, found, np.nan)
