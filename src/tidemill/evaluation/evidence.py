"""The evidence that gates judge: scores of a candidate and of the champion on the same labelled rows."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import Coded, Floats
from tidemill.core.metrics import METRICS

Ints = np.ndarray[Any, np.dtype[np.int64]]
NAMES = {"roc_auc": "roc_auc", "log_loss": "log_loss", "calibration_error": "ece"}  # reported name → metric


@dataclass(frozen=True)
class Evidence:
    """`y` (n,) 0 or 1, `candidate` and `champion` (n,) probabilities (None where there is no champion), `base_rate` known before,
    `days` (n,) the day of each row (rows of a day depend on each other), `slices` columns of text to cut by."""

    y: Floats
    candidate: Floats
    champion: Floats | None
    base_rate: float
    days: Ints
    slices: dict[str, Coded] = field(default_factory=dict)

    @property
    def rival(self) -> Floats:
        """What the candidate must beat: the champion, or the base rate where there is none."""
        return self.champion if self.champion is not None else np.full(len(self.y), self.base_rate)

    @property
    def rival_name(self) -> str:
        return "the champion" if self.champion is not None else "the base rate"


def quality(y: Floats, p: Floats) -> dict[str, float | None]:
    """ROC AUC, log loss and calibration error (20 bins of equal mass) of probabilities; None where one is not defined."""
    found: dict[str, float | None] = {}
    for name, metric in NAMES.items():
        value = METRICS[metric].function(y, p) if len(y) else float("nan")
        found[name] = None if value != value else float(value)  # noqa: PLR0124 – NaN is not itself
    return found
