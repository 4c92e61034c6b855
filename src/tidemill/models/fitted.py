"""What any fitted model tells of itself, in the process that trained it and in the one that answers for it."""

from typing import Any

import numpy as np

from tidemill.core import DataError, Floats


def score_of(model: Any, features: Floats) -> Floats:
    """The probabilities (n,) of the second class, of a matrix (n, f): the second column of `predict_proba`, or its only one; what
    `predict` gives where there is no `predict_proba` and no classes. Raises DataError for a model that has neither, and for another
    shape."""
    if hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(features), dtype=np.float64)
    elif hasattr(model, "predict") and not hasattr(model, "classes_"):  # the labels of a classifier are no probabilities
        found = np.asarray(model.predict(features), dtype=np.float64)
    else:
        hint = "for example CalibratedClassifierCV around it" if hasattr(model, "classes_") else "give it a method predict_proba(X)"
        raise DataError(f"{type(model).__name__} gives no probabilities", hint=hint)
    if found.ndim == 2 and found.shape[1] in (1, 2):
        found = found[:, -1]
    if found.shape != (len(features),):
        what = f"{type(model).__name__} gives numbers of shape {found.shape} for {len(features)} rows"
        raise DataError(what, hint="give one probability for each row, or those of two classes")
    return found


def rounds_of(model: Any) -> int:
    """Passes over the data or trees, as the model counts them; 1 of one that does not."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    for name in ("n_iter_", "n_estimators_", "n_estimators"):
        if getattr(last, name, None) is not None:
            return int(np.max(getattr(last, name)))
    return 1
