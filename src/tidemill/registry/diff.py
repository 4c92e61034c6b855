"""What differs between two versions, as plain data: parameters, metrics, data, features, code, environment, signature, predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import DataError, Floats
from tidemill.models import Golden, Predictor
from tidemill.tracking import changes

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What is known of a version, by name. `features` are definitions; `predictor` and `golden` are there where the model is ours."""

    label: str
    params: Values = field(default_factory=dict)
    metrics: Values = field(default_factory=dict)
    data: Values = field(default_factory=dict)
    features: Values = field(default_factory=dict)
    code: Values = field(default_factory=dict)
    environment: Values = field(default_factory=dict)
    signature: Values = field(default_factory=dict)
    predictor: Predictor | None = None
    golden: Golden | None = None


def diff(one: Facts, two: Facts) -> dict[str, Any]:
    """What differs from `one` to `two`. A list that is empty says that nothing does, or that nothing is known of either: `unknown` names
    the sections of which that holds."""
    names = ("params", "metrics", "data", "code", "environment", "signature")
    found: dict[str, Any] = {"one": one.label, "two": two.label}
    for name in names:
        found[name] = changes(getattr(one, name), getattr(two, name))
    found["unknown"] = [name for name in (*names, "features") if not getattr(one, name) and not getattr(two, name)]
    return found | {"features": _features(one.features, two.features), "predictions": predictions(one, two)}


def _features(one: Values, two: Values) -> dict[str, Any]:
    added, removed = sorted(set(two) - set(one)), sorted(set(one) - set(two))
    changed = [change for change in changes(one, two) if change["name"] in one and change["name"] in two]
    return {"added": added, "removed": removed, "changed": changed}


def predictions(one: Facts, two: Facts) -> list[dict[str, Any]]:
    """Both versions on the golden cases of each, where both can read them: the greatest and the mean absolute difference of their scores,
    and the share of cases that lie on another side of 0.5. Empty where a model is not ours: it is never loaded here."""
    found = []
    for owner in (one, two) if one.predictor and two.predictor else ():
        try:
            scores = [_scores(asked, owner) for asked in (one, two)]
        except DataError as error:
            found.append({"cases": owner.label, "why": error.what})
        else:
            found.append({"cases": owner.label, **difference(*scores)})
    return found


def _scores(asked: Facts, owner: Facts) -> Floats:
    assert asked.predictor is not None
    assert owner.predictor is not None
    assert owner.golden is not None
    written = owner.predictor.signature
    rows = asked.predictor.signature.align(written.features, owner.golden.features, written.categories)
    return asked.predictor.predict(rows)


def difference(one: Floats, two: Floats) -> dict[str, Any]:
    """How far two sets of scores (n,) of the same cases are apart.

    >>> difference(np.array([0.2, 0.4]), np.array([0.2, 0.6]))["crossed"]
    0.5
    """
    if not len(one):
        return {"rows": 0, "max": 0.0, "mean": 0.0, "crossed": 0.0}
    apart = np.abs(one - two)
    return {
        "rows": len(one),
        "max": float(apart.max()),
        "mean": float(apart.mean()),
        "crossed": float(((one > 0.5) != (two > 0.5)).mean()),
    }
