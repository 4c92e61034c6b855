"""Drift of features, from counts alone: histograms by day, and a test that holds its rate of false alarms.

A `Profile` of the reference (rows (n, f) and each row's day in) is all that is kept of it; a window is counted into the reference's
bins, and `DriftTest` says whether the window differs from the reference more than the reference's own blocks of days differ from each
other. Missing and infinite values are bins of their own, so a change in missingness is drift too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tidemill.core.arrays import Floats, Ints
from tidemill.core.errors import DataError, DefinitionError
from tidemill.core.statistics import t_cdf

Kind = Literal["numeric", "category"]

CATEGORIES = 100  # codes with a bin of their own; rarer ones share the bin of unseen ones
LEAST_SPREAD = 0.25  # of a log ratio: a feature whose blocks happen to be alike is not known to be calmer than that
MIN_BLOCKS = 10  # with 8 or 9 blocks and 30 features the rate of false alarms was 6 % instead of 5 %, with 5 blocks 11 %
FORMAT = 1


# --- bins and counts


def bin_edges(values: ArrayLike, bins: int = 10) -> Floats:
    """Return rising upper edges (at most 2 * bins - 2) of numeric bins, from quantiles of the finite values (n,).

    Bin i holds edge[i-1] < value <= edge[i]; above the last edge there is one more bin. Equal mass, so one outlier cannot squeeze all
    other values into one bin. A value that fills several quantiles (the 0 of most rows) gets a bin of its own, and so does every value
    where there are at most `bins` of them. No finite value gives no edges. Raises `DefinitionError` when bins < 2.

    >>> bin_edges([1, 2, 3, 4, 1e9, np.nan], bins=2)
    array([3.])
    >>> bin_edges([0, 0, 1], bins=10)
    array([0., 1.])
    """
    if bins < 2:
        raise DefinitionError(f"bins must be at least 2, not {bins}")
    given = np.asarray(values, dtype=np.float64)
    finite: Floats = np.sort(given[np.isfinite(given)])
    if not len(finite):
        return finite
    distinct: Floats = finite[np.concatenate([[True], finite[1:] != finite[:-1]])]
    if len(distinct) <= bins:
        return distinct
    cuts, repeats = np.unique(finite[-(-np.arange(1, bins) * len(finite) // bins) - 1], return_counts=True)
    edges: Floats = np.union1d(cuts, np.nextafter(cuts[repeats > 1], -np.inf))
    return edges[np.isfinite(edges)]


def known_codes(values: ArrayLike, limit: int = CATEGORIES) -> Floats:
    """Return the most frequent codes of a category (n,), rising, at most `limit`; nan (missing) and infinities are not codes.

    >>> known_codes([2, 2, 0, 0, 7, np.nan], limit=2)
    array([0., 2.])
    """
    given = np.asarray(values, dtype=np.float64)
    codes, rows = np.unique(given[np.isfinite(given)], return_counts=True)
    kept: Floats = codes[np.argsort(-rows, kind="stable")[:limit]]
    kept.sort()
    return kept


def _numeric_bins(values: Floats, edges: Floats) -> tuple[Ints, int]:
    """Return each value's bin and the number of bins: finite ones, then -inf, +inf, missing."""
    found = np.searchsorted(edges, values, side="left")
    odd = np.flatnonzero(~np.isfinite(values))
    strange = values[odd]
    found[odd] = len(edges) + np.where(np.isnan(strange), 3, np.where(strange > 0, 2, 1))
    return found.astype(np.int64, copy=False), len(edges) + 4


def _category_bins(values: Floats, codes: Floats) -> tuple[Ints, int]:
    """Return each value's bin and the number of bins: known codes, then other or unseen, missing."""
    if not len(codes):
        return np.isnan(values).astype(np.int64), 2
    found = np.minimum(np.searchsorted(codes, values), len(codes) - 1)
    found[codes[found] != values] = len(codes)
    found[np.isnan(values)] = len(codes) + 1
    return found.astype(np.int64, copy=False), len(codes) + 2


def _bins(values: Floats, kind: Kind, edges: Floats) -> tuple[Ints, int]:
    return _category_bins(values, edges) if kind == "category" else _numeric_bins(values, edges)


def _shares(counts: ArrayLike) -> tuple[Floats, Floats]:
    rows = np.asarray(counts, dtype=np.float64)
    total = rows.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise DataError("a histogram without rows cannot be compared")
    return rows / total, total


def _psi(expected_counts: ArrayLike, actual_counts: ArrayLike) -> Floats:
    (expected, m), (actual, n) = _shares(expected_counts), _shares(actual_counts)
    half_a_row = 0.5 / np.minimum(m, n)
    p, q = expected + half_a_row, actual + half_a_row
    total = 1 + half_a_row * p.shape[-1]
    found: Floats = ((q - p) / total * np.log(q / p)).sum(axis=-1)
    return found


def psi(expected_counts: ArrayLike, actual_counts: ArrayLike) -> float:
    """Return the population stability index of two histograms (k,) over the same bins: sum of (q - p) * ln(q / p), in nats.

    Half a row of the smaller side is added to every bin of both (0.5 to each count when both have as many rows), so an empty bin is
    finite and one stray row weighs little. 0 when the shares are equal. Its size under no change is about (k - 1) * (1/m + 1/n) for m
    and n independent rows (Yurdakul 2018), so a fixed threshold such as 0.2 means nothing by itself. Raises `DataError` on no rows.

    >>> round(psi([50, 50], [75, 25]), 3)
    0.269
    """
    return float(_psi(expected_counts, actual_counts))


# --- profiles


@dataclass(frozen=True, eq=False)
class Profile:
    """Histograms of f features by day: f names, kinds, edges (or codes) and counts (b, k_f), and `blocks`, the b day ordinals, rising."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    edges: tuple[Floats, ...]
    blocks: Ints
    counts: tuple[Ints, ...]

    @property
    def rows(self) -> Ints:
        """Rows of each day, (b,)."""
        return self.counts[0].sum(axis=1) if self.counts else np.zeros(len(self.blocks), dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings for JSON; `from_dict` reads them back exactly."""
        return {
            "format": FORMAT,
            "names": list(self.names),
            "kinds": list(self.kinds),
            "edges": [edges.tolist() for edges in self.edges],
            "blocks": self.blocks.tolist(),
            "counts": [table.tolist() for table in self.counts],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Return the profile that `to_dict` wrote. Raises `DataError` on another format."""
        if data.get("format") != FORMAT:
            raise DataError(f"a profile of format {data.get('format')!r} cannot be read; this version reads {FORMAT}")
        edges = tuple(np.array(each, dtype=np.float64) for each in data["edges"])
        blocks = np.array(data["blocks"], dtype=np.int64)
        widths = [len(each) + (2 if kind == "category" else 4) for each, kind in zip(edges, data["kinds"], strict=True)]
        shaped = zip(data["counts"], widths, strict=True)
        counts = tuple(np.array(table, dtype=np.int64).reshape(len(blocks), width) for table, width in shaped)
        return cls(tuple(data["names"]), tuple(data["kinds"]), edges, blocks, counts)


def build_profile(X: ArrayLike, names: Sequence[str], categorical: ArrayLike, days: ArrayLike, bins: int = 10) -> Profile:
    """Return the profile of rows X (n, f), with bins from these rows: the reference.

    categorical: (f,) True where a column holds integer codes; nan is missing in either kind. days: (n,) day ordinals, in the time zone
    in which the project counts its days. Raises `DataError` on shapes that do not fit and `DefinitionError` when bins < 2.

    >>> profile = build_profile([[1.0], [2.0], [np.nan]], ["age"], [False], days=[7, 7, 8])
    >>> profile.blocks, profile.counts[0].tolist()
    (array([7, 8]), [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    """
    table = np.asarray(X, dtype=np.float64)
    mask = np.asarray(categorical, dtype=np.bool_)
    if not len(names) or table.ndim != 2 or not table.shape[1] == len(names) == len(mask):
        raise DataError(f"{len(names)} names and {len(mask)} kinds do not fit rows of shape {table.shape}")
    kinds: tuple[Kind, ...] = tuple("category" if is_category else "numeric" for is_category in mask)
    columns = zip(table.T, kinds, strict=True)
    edges = tuple(known_codes(column) if kind == "category" else bin_edges(column, bins) for column, kind in columns)
    empty = Profile(tuple(names), kinds, edges, np.zeros(0, dtype=np.int64), ())
    return profile_like(empty, table, days)


def profile_like(reference: Profile, X: ArrayLike, days: ArrayLike) -> Profile:
    """Return the profile of rows X (n, f) counted into the bins of `reference`: a window.

    Raises `DataError` on shapes that do not fit.

    >>> reference = build_profile([[1.0], [2.0]], ["age"], [False], days=[7, 8])
    >>> profile_like(reference, [[np.inf]], [9]).counts[0].tolist()
    [[0, 0, 0, 0, 1, 0]]
    """
    table, ordinals = np.asarray(X, dtype=np.float64), np.asarray(days, dtype=np.int64)
    if table.ndim != 2 or table.shape != (len(ordinals), len(reference.names)):
        raise DataError(f"rows of shape {table.shape} do not fit {len(ordinals)} days and {len(reference.names)} features")
    blocks, day = np.unique(ordinals, return_inverse=True)
    counts = []
    for column, kind, edges in zip(table.T, reference.kinds, reference.edges, strict=True):
        found, width = _bins(np.ascontiguousarray(column), kind, edges)
        counts.append(np.bincount(day * width + found, minlength=len(blocks) * width).reshape(len(blocks), width).astype(np.int64))
    return replace(reference, blocks=blocks, counts=tuple(counts))


def _check_same_bins(a: Profile, b: Profile) -> None:
    if a.names != b.names or a.kinds != b.kinds:
        differing = sorted(set(zip(a.names, a.kinds, strict=True)) ^ set(zip(b.names, b.kinds, strict=True)))
        raise DataError(f"these profiles are of different features: {differing or 'another order'}")
    for name, of_a, of_b in zip(a.names, a.edges, b.edges, strict=True):
        if not np.array_equal(of_a, of_b):
            raise DataError(f"feature {name!r} has other bins in these two profiles", hint="count rows with `profile_like(reference, …)`")


# --- the test


@dataclass(frozen=True)
class FeatureDrift:
    """One feature of a window: its PSI, and how unusual that is for it by itself (None where no test was possible)."""

    name: str
    psi: float
    p_value: float | None


@dataclass(frozen=True)
class DriftResult:
    """What a drift test says of one window. `features` come in the order of their p-values; `p_value` is None where there is none to give.

    `testable` is False, with the `reason`, where the reference is too short or the window too empty: silence is then not evidence.
    """

    drifted: bool
    testable: bool
    reason: str
    p_value: float | None
    alpha: float
    reference_blocks: int
    features: tuple[FeatureDrift, ...]


@dataclass(frozen=True)
class _Contrast:
    """PSI of some windows (w, f), and the PSI that sampling alone would give, had all windows at most the typical number of rows."""

    psi: Floats
    noise: Floats

    def at_most_as_precise_as(self, typical: Floats) -> _Contrast:
        blur = np.maximum(typical - self.noise, 0)
        return _Contrast(self.psi + blur, self.noise + blur)

    def log_ratios(self, dispersion: Floats) -> Floats:
        """Logarithm of PSI over (dispersion + noise), (w, f)."""
        return np.log(np.maximum(self.psi / (dispersion + self.noise), 0.1))


@dataclass(frozen=True)
class DriftTest:
    """A test of windows of `days` consecutive days against a reference, with false alarms at a rate of about alpha at most.

    How: the reference is cut into disjoint blocks of `days` days, ending at its last day. Each block is compared, feature by feature,
    with the reference less that block and its neighbours (Burman, Chow & Nolan 1994); the window with the whole reference. A feature's
    ratio is its PSI over noise + dispersion: noise is the PSI that sampling gives, (bins - 1) * (1/m + 1/n); dispersion is the median of
    the other blocks' excess over their noise, so it is how much days differ by themselves. A window with more rows than the blocks is
    taken at the blocks' precision.

    p-value of a feature: that of a prediction from the logarithms of its blocks' ratios, where t = (log ratio - mean) /
    (sd * sqrt(1 + 1/B)) has B - 1 degrees of freedom; so a feature that is calm from week to week alarms at a small change and one
    that always varies does not hide it. The window's p-value is the smallest times the number of features (Bonferroni). Fewer than
    `MIN_BLOCKS` blocks say `testable=False` and why. Not ranks: among disjoint blocks they need 19 blocks to reach 0.05; among
    overlapping ones they alarmed in 6 to 11 %, and 29 % where neighbouring days are nearly alike. Not one statistic for all features:
    the most unruly feature then sets how much all may change.

    Measured: false alarms at alpha = 0.05 in 1000 simulations each (standard error 0.7 %) of 90 reference days with 300 rows and a window
    of 7, 10 features whose daily means vary with sd 0.1 of the feature's own: 2.8 % with independent days, 4.5, 6.1, 4.1 and 5.7 % with
    a correlation of successive days of 0.5, 0.8, 0.9 and 0.95; 1.8 % where days do not differ; 1.2 % with sd 0.5; 4.5 and 3.7 % with 1
    and 30 features; 3.5 and 3.6 % with 70 and 180 reference days. Power: a mean that moved by 0.3 sd is found in 69 %, by 0.5 sd in 97 %.

    Not promised: a rate where the reference itself drifts (0.95 above is the edge of that), or over several looks: a test run daily
    needs an alpha shared among its looks (`statistics.spend`). The window must not overlap the reference.

    Raises `DefinitionError` unless days >= 1 and 0 < alpha < 1.

    >>> rng = np.random.default_rng(0)
    >>> days = np.repeat(np.arange(90), 50)
    >>> reference = build_profile(rng.normal(size=(4500, 2)), ["delay", "distance"], [False, False], days)
    >>> shifted = profile_like(reference, rng.normal(size=(350, 2)) + [0, 1], np.repeat(np.arange(90, 97), 50))
    >>> result = DriftTest(reference, days=7).run(shifted)
    >>> result.drifted, result.features[0].name, result.reference_blocks
    (True, 'distance', 12)
    """

    reference: Profile
    days: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not (self.days >= 1 and 0 < self.alpha < 1):
            raise DefinitionError(f"a drift test needs days >= 1 and 0 < alpha < 1, not days={self.days}, alpha={self.alpha}")

    def run(self, window: Profile) -> DriftResult:
        """Test one window, counted into the reference's bins by `profile_like`.

        Raises `DataError` when the bins differ, the window spans more than `days` days, or either side has no rows.
        """
        _check_same_bins(self.reference, window)
        if not (self.reference.rows.sum() and window.rows.sum()):
            raise DataError("a drift test needs rows in the reference and in the window")
        if np.ptp(window.blocks) >= self.days:
            raise DataError(f"the window spans {np.ptp(window.blocks) + 1} days; this test is of windows of {self.days}")
        before, now = ([table.sum(axis=0, keepdims=True) for table in profile.counts] for profile in (self.reference, window))
        contrast = _contrast(before, now).at_most_as_precise_as(self._typical_noise)
        logs = contrast.log_ratios(self._dispersion)[0]
        chances, reason = self._p_values(logs), self._why_not(len(window.blocks))
        p_value = None if chances is None else min(1.0, float(chances.min()) * len(chances))
        return DriftResult(
            drifted=not reason and p_value is not None and p_value <= self.alpha,
            testable=not reason,
            reason=reason,
            p_value=p_value,
            alpha=self.alpha,
            reference_blocks=len(self._block_days),
            features=_ranked(self.reference.names, before, now, logs, chances),
        )

    @cached_property
    def _blocks(self) -> list[tuple[int, slice]]:
        """The blocks' places on the calendar (0 is the last) and their rows in the counts; those with few days are left out."""
        days = self.reference.blocks
        place = (days[-1] - days) // self.days if len(days) else days
        whole = (days[-1] - days[0] + 1) // self.days if len(days) else 0
        found = [(int(at), slice(*np.searchsorted(-place, [-at, -at + 1]))) for at in np.unique(place) if at < whole]
        fewest = np.median([rows.stop - rows.start for _, rows in found]) / 2 if found else 0
        return [(at, rows) for at, rows in found if rows.stop - rows.start >= fewest]

    @cached_property
    def _block_days(self) -> list[int]:
        return [rows.stop - rows.start for _, rows in self._blocks]

    @cached_property
    def _block_contrast(self) -> _Contrast | None:
        """Each block against the reference less the block and its neighbours on the calendar; None with too few blocks."""
        if len(self._blocks) < MIN_BLOCKS:
            return None
        place = np.array([at for at, _ in self._blocks])
        near = (np.abs(place[:, None] - place) <= 1).astype(np.int64)
        blocks = [np.stack([table[rows].sum(axis=0) for _, rows in self._blocks]) for table in self.reference.counts]
        return _contrast([table.sum(axis=0) - near @ table for table in blocks], blocks)

    @cached_property
    def _typical_noise(self) -> Floats:
        contrast = self._block_contrast
        return np.zeros(len(self.reference.names)) if contrast is None else np.median(contrast.noise, axis=0)

    @cached_property
    def _excess(self) -> Floats:
        """How far each block's PSI is above what sampling gives, (blocks, f)."""
        contrast = self._block_contrast
        return np.zeros((0, len(self.reference.names))) if contrast is None else contrast.psi - contrast.noise

    @cached_property
    def _dispersion(self) -> Floats:
        return np.maximum(np.median(self._excess, axis=0), 0) if len(self._excess) else np.zeros(self._excess.shape[1])

    @cached_property
    def _block_logs(self) -> Floats:
        """Each block's log ratios (blocks, f), with the dispersion of the other blocks, as a new window has it."""
        contrast, excess = self._block_contrast, self._excess
        if contrast is None:
            return np.zeros((0, len(self.reference.names)))
        others = np.stack([np.median(np.delete(excess, at, axis=0), axis=0) for at in range(len(excess))])
        blurred = contrast.at_most_as_precise_as(self._typical_noise)
        return np.stack([blurred.log_ratios(np.maximum(other, 0))[at] for at, other in enumerate(others)])

    def _p_values(self, logs: Floats) -> Floats | None:
        """Each feature's p-value (f,): how rarely a new block's log ratio is as large."""
        blocks = self._block_logs
        if not len(blocks):
            return None
        spread = np.maximum(blocks.std(axis=0, ddof=1), LEAST_SPREAD) * math.sqrt(1 + 1 / len(blocks))
        t = (logs - blocks.mean(axis=0)) / spread
        return np.array([t_cdf(-float(one), len(blocks) - 1) for one in t])

    def _why_not(self, window_days: int) -> str:
        held = len(self._block_days)
        if held < MIN_BLOCKS:
            return f"the reference holds {held} blocks of {self.days} days; {MIN_BLOCKS} are needed ({MIN_BLOCKS * self.days} days)"
        if window_days < min(self._block_days):
            return f"the window holds {window_days} days with rows; every block of the reference holds at least {min(self._block_days)}"
        return ""


def _contrast(rest: list[Ints], windows: list[Ints]) -> _Contrast:
    """Compare windows with the rest of the reference: for each feature (w, k) counts of both."""
    found = list(_feature_contrasts(rest, windows))
    return _Contrast(np.stack([each[0] for each in found], axis=1), np.stack([each[1] for each in found], axis=1))


def _feature_contrasts(rest: list[Ints], windows: list[Ints]) -> Iterator[tuple[Floats, Floats]]:
    for expected, actual in zip(rest, windows, strict=True):
        used = np.maximum(((expected + actual) > 0).sum(axis=1) - 1, 1)
        yield _psi(expected, actual), used * (1 / expected.sum(axis=1) + 1 / actual.sum(axis=1))


def _ranked(names: tuple[str, ...], before: list[Ints], now: list[Ints], logs: Floats, chances: Floats | None) -> tuple[FeatureDrift, ...]:
    order = np.argsort(-logs if chances is None else chances, kind="stable")
    raw = [psi(expected[0], actual[0]) for expected, actual in zip(before, now, strict=True)]
    p = [None] * len(names) if chances is None else chances.tolist()
    return tuple(FeatureDrift(names[at], raw[at], p[at]) for at in order)
