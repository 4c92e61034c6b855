"""What a deployment answers, and what an answer rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, isinf
from typing import Any

from tidemill.core import SECOND, show
from tidemill.features import Matrix
from tidemill.serving.routing import share

NOTHING_KNOWN = "every looked-up feature is missing or expired at this time"


@dataclass  # not frozen: made for each answer, as a `Matrix` is
class Basis:
    """What an answer rests on: `inputs`, the value of each feature; `versions`, the digest's start of each view and of the requests that it
    was read from; and for a request that brought its own columns, `sent`, those."""

    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    sent: Mapping[str, Any] | None = None


@dataclass  # nor is this
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
        return self.told(stored=stored) | self.beside(views)

    def line(self) -> dict[str, Any]:
        """For the log."""
        return self.told() | self.kept()

    def told(self, *, stored: bool = True) -> dict[str, Any]:
        """What whoever asked is told, and the log too."""
        found = {
            "key": self.key,
            "probability": self.probability,
            "version": self.version,
            "rung": self.rung,
            "at": _shown(self.at),
            "features_from": self.features,
            "features_missing": self.problems,
        }
        if self.given is not None:
            found["given_at"] = show(self.given)
        if self.cached:
            found["cached"] = True
        if self.unexpected:
            found["unexpected"] = self.unexpected
        if self.store_damaged:
            found["note_features"] = "the online store cannot be read: answered from the offline path"
        elif self.features == "offline" and stored:
            found["note_features"] = "older than the newest stored value, or newer rows are known: answered from the offline path"
        return found

    def beside(self, views: int) -> dict[str, Any]:
        """What whoever asked is told, and not the log."""
        found: dict[str, Any] = {"note": NOTHING_KNOWN} if views and len(self.problems) == views else {}
        return found if self.inputs is None else found | {"inputs": self.inputs}

    def kept(self) -> dict[str, Any]:
        """What the log keeps, and nobody is told."""
        if self.basis is None:
            return {"at_us": self.at}
        found = {"at_us": self.at, "inputs": self.basis.inputs, "versions": self.basis.versions}
        if self.basis.sent is not None:
            found["sent"] = self.basis.sent
        return found


def _shown(at: int) -> str:
    """`show`, of which mostly all but the microseconds is known.

    >>> _shown(1_500_000), _shown(1_000_000), _shown(1_000_001)
    ('1970-01-01T00:00:01.500000Z', '1970-01-01T00:00:01Z', '1970-01-01T00:00:01.000001Z')
    """
    second, rest = divmod(at, SECOND)
    return f"{_shown_second(second)[:-1]}.{rest:06d}Z" if rest else _shown_second(second)


@lru_cache(64)
def _shown_second(second: int) -> str:
    return show(second * SECOND)


def is_kept(key: str, at: int, keep: float) -> bool:
    """Whether the answer to a key at a time belongs to a share of all: one that does belongs to every greater share too.

    >>> is_kept("N123", 7, 1.0), is_kept("N123", 7, 0.0)
    (True, False)
    """
    return keep >= 1 or (keep > 0 and share(f"{key}/{at}", "basis") < keep)


def inputs_of(matrix: Matrix, row: int) -> dict[str, Any]:
    """The features of one row for people: categories as text, missing as null; an infinite number as text, since JSON has none."""
    values = matrix.values[row].tolist()
    if not matrix.vocabularies and isfinite(sum(values)):  # each is a number
        return dict(zip(matrix.names, values, strict=True))
    found: dict[str, Any] = {}
    for name, value in zip(matrix.names, values, strict=True):
        words = matrix.vocabularies.get(name)
        if value != value:  # NaN is not itself
            found[name] = None
        else:
            found[name] = words[int(value)] if words else str(value) if isinf(value) else value
    return found
