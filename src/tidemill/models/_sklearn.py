"""scikit-learn → ONNX in double precision: pipelines of the steps and models that have an exact form, and their safe format.

Written out here since the public converter is single precision, and in several cases silently wrong.
"""

from typing import Any

import numpy as np

from tidemill.core import Floats
from tidemill.models._sklearn_models import answered
from tidemill.models._skops import dumped
from tidemill.models.fitted import rounds_of
from tidemill.models.graph import Answer, Columns, Graph


def build(graph: Graph, model: Any, given: list[Columns]) -> Answer:
    """Nodes of a fitted model, or of a pipeline of steps that ends in one."""
    return answered(graph, model, given)


def classes(model: Any) -> tuple[Any, ...]:
    """The classes in the order of their scores; none of a regression."""
    return tuple(getattr(model, "classes_", ()))


def score(model: Any, features: Any) -> Floats:
    """The library's own scores (n, k): the probability of the second of two classes, or of each of several, or what a classifier without
    probabilities decides by; the prediction of a regression."""
    if not hasattr(model, "predict_proba"):
        ask = model.decision_function if hasattr(model, "classes_") else model.predict
        return np.asarray(ask(features), dtype=np.float64).reshape(len(features), -1)
    found = np.asarray(model.predict_proba(features), dtype=np.float64)
    return found[:, 1:] if found.shape[1] == 2 else found


native, rounds = dumped, rounds_of
