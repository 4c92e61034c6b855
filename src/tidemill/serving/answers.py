"""What a deployment answers, and what an answer rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import isinf
from typing import Any

from tidemill.core import show
from tidemill.features import Matrix
from tidemill.serving.routing import share


@dataclass(frozen=True)
class Basis:
    """What an answer rests on: `inputs`, the value of each feature; `versions`, the digest's start of each view and of the requests that it
    was read from; and for a request that brought its own columns, `sent`, those."""

    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    sent: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        found = {"inputs": self.inputs, "versions": self.versions}
        return found if self.sent is None else found | {"sent": self.sent}


@dataclass(frozen=True)
class Answer:
    """One prediction. `rung` is what gave it; `features` is the path they came by ("request": it brought them); `problems` are views
    without a value, and why; `basis` is there where it is kept; `given` is when it was first given, if it is given again; `unexpected`
    are features, and "probability", that were not as expected, and what was done; `cached`: it was known what the version says."""

    key: str
    probability: float
    version: str
    rung: str
    at: int
    features: str
    problems: dict[str, str]
    inputs: dict[str, Any] | None = None
    store_damaged: bool = False
    basis: Basis | None = None
    given: int | None = None
    unexpected: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False

    def plain(self, views: int, *, stored: bool = True) -> dict[str, Any]:
        """For JSON, with a note where it rests on nothing that was looked up. `stored`: there is an online store."""
        found = self._told(views, stored=stored)
        return found if self.inputs is None else found | {"inputs": self.inputs}

    def line(self) -> dict[str, Any]:
        """For the log."""
        return {"at_us": self.at, **self._told(0, stored=True), **(self.basis.plain() if self.basis else {})}

    def _told(self, views: int, *, stored: bool) -> dict[str, Any]:
        found = {**self._said}
        if views and len(self.problems) == views:
            found["note"] = "every looked-up feature is missing or expired at this time"
        if self.store_damaged:
            found["note_features"] = "the online store cannot be read: answered from the offline path"
        elif self.features == "offline" and stored:
            found["note_features"] = "older than the newest stored value, or newer rows are known: answered from the offline path"
        return found

    @cached_property
    def _said(self) -> dict[str, Any]:
        """What is told to whoever asked, and to the log."""
        found = {"key": self.key, "probability": self.probability, "version": self.version, "rung": self.rung, "at": _shown(self.at)}
        found |= {"features_from": self.features, "features_missing": self.problems}
        found |= {} if self.given is None else {"given_at": show(self.given)}
        found |= {"cached": True} if self.cached else {}
        return found | {"unexpected": self.unexpected} if self.unexpected else found


_shown = lru_cache(64)(show)  # many rows have one time


def is_kept(key: str, at: int, keep: float) -> bool:
    """Whether the answer to a key at a time belongs to a share of all: one that does belongs to every greater share too.

    >>> is_kept("N123", 7, 1.0), is_kept("N123", 7, 0.0)
    (True, False)
    """
    return keep >= 1 or (keep > 0 and share(f"{key}/{at}", "basis") < keep)


def inputs_of(matrix: Matrix, row: int) -> dict[str, Any]:
    """The features of one row for people: categories as text, missing as null; an infinite number as text, since JSON has none."""
    found: dict[str, Any] = {}
    for name, value in zip(matrix.names, matrix.values[row].tolist(), strict=True):
        words = matrix.vocabularies.get(name)
        if value != value:  # NaN is not itself
            found[name] = None
        else:
            found[name] = words[int(value)] if words else str(value) if isinf(value) else value
    return found
