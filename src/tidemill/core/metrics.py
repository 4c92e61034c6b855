"""Metrics of a binary classifier: observed classes `y` (n,) and predicted probabilities `p` (n,) in, one number out.

Deterministic to the bit, and the order of the rows does not matter: sums are exact counts or are rounded once (`math.fsum`).
A metric without a defined value (no rows, or one class for `roc_auc`) is nan, never a made-up number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tidemill.core.arrays import Bools, Floats, Ints
from tidemill.core.errors import DataError, DefinitionError

EPSILON = 1e-15  # probabilities are kept this far from 0 and 1 before a logarithm


def checked_pair(y: ArrayLike, p: ArrayLike, probabilities: bool = True) -> tuple[Bools, Floats]:
    """Return classes and scores as bool (n,) and float64 (n,).

    Raises `DataError` when the shapes differ or are not (n,), when a class is not 0 or 1, when a score is nan, and
    (with `probabilities`) when a score lies outside 0 to 1.

    >>> checked_pair([0, 1], [0.25, 1])
    (array([False,  True]), array([0.25, 1.  ]))
    """
    classes, scores = np.asarray(y), np.asarray(p, dtype=np.float64)
    if classes.ndim != 1 or classes.shape != scores.shape:
        raise DataError(f"y and p must both have shape (n,); they have {classes.shape} and {scores.shape}")
    truth = classes.astype(np.bool_)
    if classes.dtype != np.bool_ and not np.array_equal(classes, truth):
        raise DataError("y must hold only 0 and 1 (or False and True)")
    if np.isnan(scores).any():
        raise DataError(f"p holds {int(np.isnan(scores).sum())} nan among {len(scores)} rows")
    if probabilities and len(scores) and (scores.min() < 0 or scores.max() > 1):
        raise DataError(f"p must lie between 0 and 1; it spans {scores.min():g} to {scores.max():g}")
    return truth, scores


def exact_mean(values: Floats) -> float:
    """Return the mean of values (n,), rounded once, so that the order of the rows does not matter; nan when empty.

    >>> exact_mean(np.array([1e16, 1.0, -1e16]))
    0.3333333333333333
    """
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan


def roc_auc(y: ArrayLike, p: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive is scored above a negative, ties counting half.

    y: (n,) 0 or 1; p: (n,) any scores, not only probabilities (infinities are allowed). nan when a class is absent.
    Raises `DataError` on nan scores or unequal shapes. Hanley & McNeil (1982); computed as an exact count of pairs.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    truth, scores = checked_pair(y, p, probabilities=False)
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positives) or not len(negatives):
        return math.nan
    twice = np.searchsorted(negatives, positives, "left").sum() + np.searchsorted(negatives, positives, "right").sum()
    return int(twice) / (2 * len(positives) * len(negatives))


def row_log_loss(y: ArrayLike, p: ArrayLike) -> Floats:
    """Return each row's log loss (n,) in nats: -ln of the probability given to the class that came true.

    y: (n,) 0 or 1; p: (n,) probabilities, kept `EPSILON` away from 0 and 1. Raises `DataError` on nan or values outside 0 to 1.

    >>> row_log_loss([1, 0], [0.5, 0.0]).round(3) + 0.0
    array([0.693, 0.   ])
    """
    truth, scores = checked_pair(y, p)
    clipped = np.clip(scores, EPSILON, 1 - EPSILON)
    losses: Floats = -np.log(np.where(truth, clipped, 1 - clipped))
    return losses


def row_brier(y: ArrayLike, p: ArrayLike) -> Floats:
    """Return each row's squared error (n,), from 0 to 1. Raises `DataError` on nan or values outside 0 to 1.

    >>> row_brier([1, 0], [0.5, 0.0])
    array([0.25, 0.  ])
    """
    truth, scores = checked_pair(y, p)
    losses: Floats = (scores - truth) ** 2
    return losses


def log_loss(y: ArrayLike, p: ArrayLike) -> float:
    """Return the mean of `row_log_loss`, in nats per row; nan when there are no rows. Good (1952).

    >>> round(log_loss([1, 0], [0.8, 0.4]), 4)
    0.367
    """
    return exact_mean(row_log_loss(y, p))


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Return the mean squared error of the probabilities, from 0 to 1; nan when there are no rows. Brier (1950).

    >>> round(brier([1, 0], [0.8, 0.4]), 4)
    0.1
    """
    return exact_mean(row_brier(y, p))


def equal_mass_bins(p: ArrayLike, bins: int) -> Ints:
    """Return each row's bin (n,), 0 to bins-1, of about equal rows; equal scores always share a bin, so a bin can be empty.

    A run of equal scores goes to the bin of its middle row. Raises `DefinitionError` when bins < 1.

    >>> equal_mass_bins([0.1, 0.2, 0.2, 0.2, 0.9, 0.9], 3)
    array([0, 1, 1, 1, 2, 2])
    """
    if bins < 1:
        raise DefinitionError(f"bins must be at least 1, not {bins}")
    scores = np.asarray(p, dtype=np.float64)
    _, run, rows = np.unique(scores, return_inverse=True, return_counts=True)
    twice_middle = 2 * np.cumsum(rows) - rows - 1
    bin_of_run: Ints = twice_middle * bins // (2 * max(len(scores), 1))
    return bin_of_run[run]


def calibration_curve(y: ArrayLike, p: ArrayLike, bins: int = 20) -> tuple[Floats, Floats, Ints]:
    """Return, for each bin that has rows: the mean probability, the share of positives, and the number of rows.

    Bins have equal mass (see `equal_mass_bins`), in rising order of p. Raises `DataError` as `log_loss` does.

    >>> calibration_curve([0, 1, 1, 1], [0.25, 0.25, 0.5, 1.0], bins=2)
    (array([0.25, 0.75]), array([0.5, 1. ]), array([2, 2]))
    """
    truth, scores = checked_pair(y, p)
    order = np.argsort(scores, kind="stable")
    in_bin = equal_mass_bins(scores[order], bins)
    rows = np.bincount(in_bin, minlength=bins)
    sum_p = np.bincount(in_bin, weights=scores[order], minlength=bins)
    positives = np.bincount(in_bin, weights=truth[order], minlength=bins)
    some = rows > 0
    return sum_p[some] / rows[some], positives[some] / rows[some], rows[some].astype(np.int64)


def calibration_error(y: ArrayLike, p: ArrayLike, bins: int = 20) -> float:
    """Return the expected calibration error: the mean over rows of |mean probability - share of positives| of the row's bin.

    Bins have equal mass. Naeini, Cooper & Hauskrecht (2015); equal mass after Nguyen & O'Connor (2015). It is above 0 even for a
    perfect model (about sqrt(bins * share * (1 - share) * 2 / (pi * n))), so compare it between models on the same rows.
    nan when there are no rows. Raises `DataError` as `log_loss` does.

    >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.5, 1.0], bins=2)
    0.25
    """
    mean_p, share_true, rows = calibration_curve(y, p, bins)
    return math.fsum((np.abs(mean_p - share_true) * rows).tolist()) / int(rows.sum()) if len(rows) else math.nan


@dataclass(frozen=True)
class Metric:
    """A metric by name. `row_losses` is there when the metric is the mean of one loss for each row (a faster bootstrap)."""

    name: str
    function: Callable[[Any, Any], float]
    higher_is_better: bool
    row_losses: Callable[[Any, Any], Floats] | None = None


_ALL = (
    Metric("roc_auc", roc_auc, higher_is_better=True),
    Metric("log_loss", log_loss, higher_is_better=False, row_losses=row_log_loss),
    Metric("brier", brier, higher_is_better=False, row_losses=row_brier),
    Metric("ece", calibration_error, higher_is_better=False),
)
METRICS = MappingProxyType({metric.name: metric for metric in _ALL})
