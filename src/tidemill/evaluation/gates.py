"""Gates: the checks that a model must pass. Each gives a result with its evidence; users write their own the same way.

A gate is a frozen declaration with `judge(evidence) -> GateResult`. One that reads rows to come may be asked at several looks; the
chance of a wrong yes is shared among them (`looks`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tidemill.core import (
    METRICS,
    Declaration,
    DefinitionError,
    GateResult,
    Interval,
    Ints,
    Problems,
    UnknownName,
    Verdict,
    bonferroni,
    calibration_error,
    odd_duration,
    odd_list,
    odd_number,
    paired_bootstrap,
    roc_auc,
    spend,
)
from tidemill.evaluation.evidence import Evidence


@dataclass(frozen=True)
class Gate(Declaration):
    """A check that a model version must pass."""

    kind: ClassVar[str] = "gate"
    part: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__).lower()

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        """The gate's answer; it may be asked `looks` times about growing evidence."""
        raise DefinitionError(f"gate {self.name} has no judge method", where=str(self.where))


def _odd_metric(metric: str) -> Problems:
    if metric not in METRICS:
        yield UnknownName(f"no metric is named {metric!r}", available=sorted(METRICS))


def _interval(metric: str, evidence: Evidence, rows: Any, doubt: float) -> Interval:
    """The interval of candidate − rival, with `doubt` beyond each bound; enough resamples that ten lie there."""
    pair = evidence.rival[rows], evidence.candidate[rows]
    resamples = max(1000, round(10 / doubt))
    return paired_bootstrap(metric, evidence.y[rows], *pair, evidence.days[rows], 1 - 2 * doubt, seed=0, resamples=resamples)


@dataclass(frozen=True)
class BetterThanChampion(Gate):
    """The candidate is better on recent labelled rows, surely: the one-sided bootstrap bound over whole days lies beyond zero.

    Without a champion it must beat the base rate. `holdout` is how much recent time the evidence spans.
    """

    metric: str
    holdout: str = "28d"
    confidence: float = 0.95

    def problems(self) -> Problems:
        yield from _odd_metric(self.metric)
        yield from odd_duration("holdout", self.holdout, 'holdout="28d"')
        yield from odd_number("confidence", self.confidence, "(0.5, 0.9999]", "confidence=0.95")

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        doubt = spend(1 - self.confidence, looks)
        interval = _interval(self.metric, evidence, slice(None), doubt)
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        gain, bound = sign * interval.estimate, sign * (interval.low if sign > 0 else interval.high)
        passed = bool(bound > 0)
        words = "surely better" if passed else "not surely better"
        least = f"at least {bound:+.4f} with {1 - doubt:.1%} confidence"
        if not np.isfinite(bound):
            least = f"how surely cannot be told (days with rows: {len(np.unique(evidence.days))})"
        reason = f"{words} than {evidence.rival_name}: {self.metric} gain {gain:+.4f}, {least}"
        return GateResult(self.name, passed, reason, {"metric": self.metric, "gain": gain, "bound": bound, "rows": len(evidence.y)})


@dataclass(frozen=True)
class NoWorseSlice(Gate):
    """No slice of at least `min_rows` rows is worse than the champion by more than `margin` and surely worse at all.

    Surely: the bootstrap interval over days lies below zero, at a confidence that is shared among the slices (Bonferroni).
    """

    metric: str
    by: Sequence[str]
    margin: float
    min_rows: int = 500
    confidence: float = 0.95

    def problems(self) -> Problems:
        yield from _odd_metric(self.metric)
        yield from odd_list("by", self.by, str, 'by=["origin"]', some=True)
        yield from odd_number("margin", self.margin, "[0, inf)", "margin=0.03")
        yield from odd_number("min_rows", self.min_rows, "[1, inf)", "min_rows=500", whole=True)
        yield from odd_number("confidence", self.confidence, "(0.5, 0.9999]", "confidence=0.95")

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        chosen = [(column, word, rows) for column in self.by for word, rows in self._slices(evidence, column)]
        if evidence.champion is None:
            return GateResult(self.name, True, "there is no champion to be worse than")
        doubt = bonferroni(1 - self.confidence, max(len(chosen), 1) * looks)
        worst, failed = {}, []
        for column, word, rows in chosen:
            interval = _interval(self.metric, evidence, rows, doubt)
            sign = 1 if METRICS[self.metric].higher_is_better else -1
            change = sign * interval.estimate
            worst[f"{column}={word}"] = change
            if change < -self.margin and (interval.high if sign > 0 else -interval.low) < 0:
                failed.append(f"{column}={word} {change:+.3f}")
        least = min(worst.items(), key=lambda item: item[1], default=("no slice", 0.0))
        reason = f"worse in {', '.join(failed)}" if failed else f"{len(worst)} slices, the least change {least[1]:+.3f} in {least[0]}"
        return GateResult(self.name, not failed, reason, {"metric": self.metric, "change": worst})

    def _slices(self, evidence: Evidence, column: str) -> list[tuple[str, Ints]]:
        if column not in evidence.slices:
            raise UnknownName(f"gate {self.name} cuts by {column!r}", where=str(self.where), available=sorted(evidence.slices))
        codes, words = evidence.slices[column].codes, evidence.slices[column].vocabulary
        found = [(word, np.flatnonzero(codes == code)) for code, word in enumerate(words)]
        return [(word, rows) for word, rows in found if len(rows) >= self.min_rows and len(set(evidence.y[rows].tolist())) == 2]


@dataclass(frozen=True)
class Calibration(Gate):
    """The calibration error over `bins` bins of equal mass is at most `max_ece`, or at least no larger than the rival's.

    When the share of true labels moves, every model is off: refusing a candidate for the weather would keep a champion (without
    one, the base rate) that is off by more.
    """

    max_ece: float
    bins: int = 20

    def problems(self) -> Problems:
        yield from odd_number("max_ece", self.max_ece, "(0, 1]", "max_ece=0.05")
        yield from odd_number("bins", self.bins, "[1, 10000]", "bins=20", whole=True)

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        mine = calibration_error(evidence.y, evidence.candidate, self.bins)
        rival = calibration_error(evidence.y, evidence.rival, self.bins)
        passed = mine <= self.max_ece or mine <= rival
        reason = f"calibration error {mine:.3f}, allowed {self.max_ece:g}, {evidence.rival_name} has {rival:.3f}"
        if self.max_ece < mine <= rival:
            reason = f"calibration error {mine:.3f}, above {self.max_ece:g} but no larger than {rival:.3f}, which {evidence.rival_name} has"
        return GateResult(
            self.name, bool(passed), reason, {"ece": mine, "rival": rival, "auc": float(roc_auc(evidence.y, evidence.candidate))}
        )


def better_than_champion(metric: str, *, holdout: str = "28d", confidence: float = 0.95) -> Gate:
    """See `BetterThanChampion`."""
    return BetterThanChampion(metric, holdout, confidence)


def no_worse_slice(metric: str, *, by: Sequence[str], margin: float, min_rows: int = 500) -> Gate:
    """See `NoWorseSlice`."""
    return NoWorseSlice(metric, tuple(by) if isinstance(by, list) else by, margin, min_rows)


def calibration(*, max_ece: float, bins: int = 20) -> Gate:
    """See `Calibration`."""
    return Calibration(max_ece, bins)


def judge(gates: Sequence[Gate], evidence: Evidence, subject: str, *, looks: int = 1) -> Verdict:
    """The verdict of all gates on one model version; every gate is asked, so that the record is whole."""
    return Verdict(subject, tuple(gate.judge(evidence, looks) for gate in gates), len(evidence.y))
