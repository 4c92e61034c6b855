"""The evidence that gates judge: scores of a candidate and of the champion on the same labelled rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidemill.core import METRICS, Coded, Floats, Ints, t_cdf

REPORTED = {"roc_auc": "roc_auc", "log_loss": "log_loss", "calibration_error": "ece"}  # reported name → metric


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


def daily_means(values: Floats, days: Ints) -> tuple[float, ...]:
    """The mean of each day, in the order of the days. A day with less than a quarter of the median day's rows is a cut edge: left out.

    >>> daily_means(np.array([1.0, 3.0, 5.0]), np.array([1, 1, 2]))
    (2.0, 5.0)
    """
    if not len(days):
        return ()
    _, codes, rows = np.unique(days, return_inverse=True, return_counts=True)
    whole = rows >= np.median(rows) / 4
    return tuple((np.bincount(codes, weights=values) / rows)[whole].tolist())


def p_above_zero(now: Sequence[float], usual: Sequence[float]) -> float | None:
    """One-sided p that the mean of the days `now` is above 0, with the spread between days taken from the days `usual`.

    A rollout's step may last a single day, whose rows are alike: only other days tell how much a day differs by chance. t with
    one degree of freedom fewer than there are usual days; of fewer than three, the spread is that of the days `now` themselves. None
    where neither has three days: nothing can be said yet.

    >>> round(p_above_zero([0.5], [0.1, -0.1, 0.1, -0.1, 0.0]), 4)
    0.0037
    """
    known = usual if len(usual) >= 3 else now
    if len(known) < 3 or not now:
        return None
    spread = float(np.std(known, ddof=1)) / len(now) ** 0.5
    mean = float(np.mean(now))
    return 1.0 if spread == 0 and mean <= 0 else t_cdf(-mean / spread if spread else -np.inf, len(known) - 1)


def quality(y: Floats, p: Floats) -> dict[str, float | None]:
    """ROC AUC, log loss and calibration error (20 bins of equal mass) of probabilities; None where one is not defined."""
    found: dict[str, float | None] = {}
    for name, metric in REPORTED.items():
        value = METRICS[metric].function(y, p) if len(y) else float("nan")
        found[name] = None if value != value else float(value)
    return found
