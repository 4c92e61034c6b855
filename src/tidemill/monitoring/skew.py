"""Skew: features as they were served beside the same features computed offline, row by row. Pure.

Comes in: values that were served, and the same values as known then, from today's data and from those of then. Goes out: for each
feature how many differ and how, with an interval, and an alert where that is surely more than a limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tidemill.core import Array, Bools, Event, Floats, Interval, Ints, bonferroni, share_interval, show
from tidemill.monitoring.declarations import Skew
from tidemill.monitoring.watch import Alert

EQUAL, LATE, MISMATCH, MISSING, EXTRA = range(5)
KINDS = ("equal", "known later", "mismatch", "missing", "extra")
EXAMPLES = 3  # of a feature
CONFIDENCE = 0.95
Words = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Example:
    """An answer of which a value differs: what names it, how it differs, both values, None for null, and the status of the view, served and
    offline."""

    answer: dict[str, str]
    kind: str
    served: float | str | None
    offline: float | str | None
    status: tuple[str, str]


@dataclass(frozen=True)
class FeatureSkew:
    """One feature over the rows compared: values that are equal; `mismatch`, both there and different; `missing`, served null where there
    is one offline; `extra`, served where there is none; `known_later`, equal to what could be known when it was served, different from
    what has come since with an earlier knowledge time, which is no skew.

    `share` is that of the rows that differ, with its interval; `greatest` and `mean` are the relative error of those that have both values:
    the difference over the larger of the two. None for texts, and where there are none.
    """

    name: str
    rows: int
    equal: int
    known_later: int
    mismatch: int
    missing: int
    extra: int
    share: Interval
    greatest: float | None
    mean: float | None
    examples: tuple[Example, ...]

    @property
    def differing(self) -> int:
        return self.mismatch + self.missing + self.extra

    @property
    def said(self) -> str:
        """For people: how many differ, how sure that is, and how they differ."""
        kinds = zip(KINDS[MISMATCH:], (self.mismatch, self.missing, self.extra), strict=True)
        counts = [f"{count:,} {kind}" for kind, count in kinds if count]
        sure = f"{self.share.estimate:.2%}, {self.share.confidence:.0%}: {self.share.low:.2%} to {self.share.high:.2%}"
        return f"{self.name} differs in {self.differing:,} of {self.rows:,} answers ({sure}): {', '.join(counts)}"


@dataclass(frozen=True)
class Compared:
    """Values (n, f) of rows: as `served`; as known then by the data of `today`, and by those of `then`, which served. NaN is null, and a
    category a code of `words`. `asked` (n, f) tells which row's model has which feature. `answers` (n,) is what names each row, `status`
    (n,) the views without a value, and why, as served and offline."""

    names: tuple[str, ...]
    served: Floats
    today: Floats
    then: Floats
    asked: Bools
    words: Words
    answers: Sequence[dict[str, str]]
    status: Sequence[tuple[Mapping[str, str], Mapping[str, str]]]


def compare(rows: Compared, tolerance: float = 0.0) -> tuple[FeatureSkew, ...]:
    """Each feature, in order. Numbers are equal to the last bit, or where their relative error is at most `tolerance`; null is equal to
    null, and a text only to itself.

    >>> served, offline = np.array([[1.0], [2.0], [np.nan]]), np.array([[1.0], [2.5], [3.0]])
    >>> names, status = [{"key": key} for key in "abc"], [({}, {})] * 3
    >>> (found,) = compare(Compared(("speed",), served, offline, offline, np.ones((3, 1), dtype=bool), {}, names, status))
    >>> (found.rows, found.equal, found.mismatch, found.missing, found.greatest)
    (3, 1, 1, 1, 0.2)
    """
    return tuple(_feature(rows, place, tolerance) for place in range(len(rows.names)))


def _feature(rows: Compared, place: int, tolerance: float) -> FeatureSkew:
    name, chosen = rows.names[place], np.flatnonzero(rows.asked[:, place])
    served, today, then = (values[chosen, place] for values in (rows.served, rows.today, rows.then))
    numbers = name not in rows.words
    error, least = relative_error(served, today), tolerance if numbers else 0.0
    kinds = _kinds(served, today, _alike(served, today, least), _alike(served, then, least))
    equal, late, mismatch, missing, extra = np.bincount(kinds, minlength=len(KINDS)).tolist()
    both = error[~np.isnan(error) & (kinds != LATE)] if numbers else np.empty(0)
    greatest, mean = (float(both.max()), float(both.mean())) if len(both) else (None, None)
    share = share_interval(mismatch + missing + extra, len(chosen), CONFIDENCE)
    examples = tuple(_example(rows, chosen[i], place, KINDS[kinds[i]]) for i in _worst(kinds, error).tolist())
    return FeatureSkew(name, len(chosen), equal, late, mismatch, missing, extra, share, greatest, mean, examples)


def _example(rows: Compared, row: int, place: int, kind: str) -> Example:
    name = rows.names[place]
    served, offline = (_value(values[row, place], rows.words.get(name)) for values in (rows.served, rows.today))
    before, now = (_status(missing, name) for missing in rows.status[row])
    return Example(rows.answers[row], kind, served, offline, (before, now))


def _status(missing: Mapping[str, str], name: str) -> str:
    return next((why for view, why in missing.items() if name.startswith(f"{view}__")), "present")


def relative_error(one: Floats, other: Floats) -> Floats:
    """The difference of two values (n,) over the larger of them: 0 where they are equal, at most 2, 1 where one alone is infinite; NaN
    where either is missing.

    >>> relative_error(np.array([1.0, 0.0, -1.0, np.inf]), np.array([4.0, 0.0, 1.0, 3.0])).tolist()
    [0.75, 0.0, 2.0, 1.0]
    """
    odd = np.where(np.sign(one) == -np.sign(other), 2.0, 1.0)  # where the difference is too large for a number
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(one - other) / np.maximum(np.abs(one), np.abs(other))
    error = np.where(one == other, 0.0, np.where(np.isfinite(error), error, odd))
    return np.where(np.isnan(one) | np.isnan(other), np.nan, error)


def _alike(one: Floats, other: Floats, tolerance: float) -> Bools:
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)) | (relative_error(one, other) <= tolerance))


def _kinds(served: Floats, today: Floats, equal: Bools, as_then: Bools) -> Ints:
    gone, none = np.isnan(served), np.isnan(today)
    return np.select([equal, as_then, gone & ~none, none & ~gone], [EQUAL, LATE, MISSING, EXTRA], MISMATCH).astype(np.int64)


def _worst(kinds: Ints, error: Floats) -> Array:
    """The places of a few rows that differ: those furthest off, then those without one of the values."""
    differing = np.flatnonzero(kinds > LATE)
    order = np.lexsort((differing, kinds[differing], -np.nan_to_num(error[differing])))
    return differing[order][:EXAMPLES]


def _value(value: float, words: Sequence[str] | None) -> float | str | None:
    if np.isnan(value):
        return None
    return words[int(value)] if words is not None else str(value) if np.isinf(value) else float(value)


@dataclass(frozen=True)
class Skewed:
    """What a comparison of answers asked in [since, until) found: `rows` of them compared, of `kept` with their features, of `answers` in
    all; why others were `left_out`, with their number; each feature; and the names of those that surely differ too often."""

    since: int
    until: int
    answers: int
    kept: int
    rows: int
    left_out: dict[str, int]
    features: tuple[FeatureSkew, ...]
    over: tuple[str, ...]

    @property
    def known_later(self) -> int:
        """How many values had come later than they were said to be known."""
        return sum(feature.known_later for feature in self.features)

    @property
    def why(self) -> str:
        """In one line."""
        period = f"answers from {show(self.since)[:16]} to {show(self.until)[:16]}"
        if not self.rows:
            kept = f"none of {self.answers:,} has its features in the log" if self.answers and not self.kept else "nothing was compared"
            return "; ".join([f"{period}: {kept if self.answers else 'no answer'}", *self._left_out])
        off = [feature for feature in self.features if feature.differing]
        told = f"{len(off)} of {len(self.features)} features differ" if off else f"all {len(self.features)} features equal"
        later = [f"{self.known_later:,} values known later"] if self.known_later else []
        return "; ".join([f"{period}, {self.rows:,} of {self.answers:,} compared: {told}", *later, *self._left_out])

    @property
    def _left_out(self) -> list[str]:
        return [f"{count:,} left out: {why}" for why, count in self.left_out.items()]

    def plain(self) -> dict[str, Any]:
        """As one object."""
        return asdict(self) | {"since": show(self.since), "until": show(self.until), "why": self.why}


def too_many(features: Sequence[FeatureSkew], check: Skew) -> tuple[str, ...]:
    """The features of which surely more rows differ than the limit allows: the lower bound lies above it. Where none differs more often
    than that, the chance that any is named is at most `false_alarm_rate`."""
    if not features:
        return ()
    confidence = 1 - 2 * bonferroni(check.false_alarm_rate, len(features))
    off = [one for one in features if one.differing]
    return tuple(one.name for one in off if share_interval(one.differing, one.rows, confidence).low > check.max_share)


def skew_alert(found: Skewed, check: Skew, *, at: int) -> Alert | None:
    """The alert of a comparison, or None."""
    over = sorted((one for one in found.features if one.name in found.over), key=lambda one: -one.share.estimate)
    if not over:
        return None
    more = [f"and {len(over) - 3} more"] if len(over) > 3 else []
    why = "; ".join([*(one.said for one in over[:3]), *more, f"allowed is {check.max_share:.2%}"])
    evidence = {one.name: {"share": one.share.estimate, "low": one.share.low, "rows": one.rows} for one in over[:10]}
    return Alert(Event.SKEW_FOUND, at, why, evidence={"features": evidence})
