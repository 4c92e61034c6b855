"""Proof that two forms of a model answer alike: on rows of the user's, and on rows that break careless converters.

Comes in: recorded rows, and the thresholds of trees by column. Goes out: hostile rows, and the evidence of a comparison as plain numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.core import Array, Floats

TOLERANCE = 1e-9  # largest difference of a score that counts as the same: of one beyond ±1 in proportion to it
SINGLE = 1e-5  # of single precision: sums of some thousand terms, 2^-24 each, in another order
ROWS = 512
ODD = (0.0, -0.0, 1e-36, -1e-36, 1e-45, 1e30, -1e30)
MOST = 3e38  # what single precision holds
EXTREME = (np.inf, -np.inf, 1e200, -1e200, 1e39, -1e39)  # the last two are infinite in single precision
CODES = (-1.0, 255.0, 256.0, 65_535.0, 2.0**31 - 1, 1e10)


def hostile_rows(
    recorded: Floats, categories: Mapping[int, int], thresholds: Mapping[int, Sequence[Floats]], *, holes: bool = True
) -> Floats:
    """Rows (n, f) of recorded ones (m, f) with each value missing, categories never seen (`categories`: how many there are, by column),
    numbers on and beside every threshold, in double and in single precision, numbers never seen where there is none, and values that
    never stood side by side. Without `holes` nothing is missing that is there in its row."""
    if not len(recorded):
        return recorded
    random = np.random.default_rng(0)
    made = np.ascontiguousarray(recorded[random.integers(0, len(recorded), ROWS)])
    mixed = np.column_stack([random.choice(column, ROWS) for column in recorded.T])
    for column, values in thresholds.items():
        if column not in categories:
            made[: ROWS // 2, column] = random.choice(beside(np.concatenate(values)), ROWS // 2)
    for column in set(range(made.shape[1])) - {*categories, *thresholds}:
        known = recorded[np.isfinite(recorded[:, column]), column]
        if len(known):
            made[: ROWS // 4, column] = random.choice(known.max() + np.array([0.0, 1.0, 2.0]), ROWS // 4)
    for column, size in categories.items():
        made[: ROWS // 2, column] = random.integers(0, size + 3, ROWS // 2)
    every = np.concatenate([made, mixed])
    if not holes:
        return every
    every[:ROWS][random.random(made.shape) < 0.15] = np.nan
    for column in range(made.shape[1]):
        every[ROWS - 1 - column % ROWS, column] = np.nan
    every[0, :] = np.nan
    return every


def beside(values: Floats) -> Floats:
    """Values, those next to them, in single precision too, and odd ones."""
    values = values[np.abs(values) <= MOST]
    single = values.astype(np.float32)
    found = [np.nextafter(one, end) for one in (values, single) for end in (one.dtype.type(np.inf), one.dtype.type(-np.inf))]
    return np.concatenate([values, single, *found, ODD])


def extreme_rows(recorded: Floats, categories: Mapping[int, int]) -> Floats:
    """Rows (n, f) with infinite and huge numbers and codes; many models refuse them."""
    if not len(recorded):
        return recorded
    random = np.random.default_rng(1)
    made = np.ascontiguousarray(recorded[random.integers(0, len(recorded), ROWS)])
    for column in range(made.shape[1]):
        chosen = random.random(ROWS) < 0.3
        made[chosen, column] = random.choice(CODES if column in categories else EXTREME, int(chosen.sum()))
    return made


def difference(expected: Floats, given: Floats) -> float:
    """The largest difference of two arrays of scores; infinite where one has an answer and the other has none."""
    if expected.shape != given.shape:
        return float("inf")
    same = (expected == given) | (np.isnan(expected) & np.isnan(given))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(expected - given) / np.maximum(1.0, np.abs(expected)))
    worst = float(apart.max(initial=0.0))
    return float("inf") if np.isnan(worst) else worst


def labels_differ(expected: Floats, given: Floats) -> int:
    """In how many rows another class has the largest score (n, k), or the only one (n, 1) lies on the other side of a half; rows whose
    best two are as good as equal do not count."""
    if expected.shape != given.shape:
        return len(expected)
    if expected.shape[1] == 1:
        expected, given = (np.hstack([1 - one, one]) for one in (expected, given))
    best = np.sort(expected, axis=1)
    near = best[:, -1] - best[:, -2] <= 2 * TOLERANCE
    return int(np.sum((expected.argmax(axis=1) != given.argmax(axis=1)) & ~near))


def compared(name: str, expected: Floats, given: Floats, *, classifies: bool) -> dict[str, Any]:
    """The evidence of a comparison of scores (n, k)."""
    labels = labels_differ(expected, given) if classifies else 0
    return {f"{name}_rows": len(expected), f"{name}_difference": difference(expected, given), "labels_differ": labels}


def same_labels(expected: Array, given: Array) -> int:
    """In how many rows two arrays of labels (n,) differ."""
    if expected.dtype.kind in "biuf" and given.dtype.kind in "biuf":
        return int(np.sum(expected != given))
    return int(np.sum(expected.astype(str) != given.astype(str)))
