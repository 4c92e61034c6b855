"""What a monitor finds in one window, as values. Only `loop` acts on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import (
    METRICS,
    DefinitionError,
    DriftResult,
    DriftTest,
    Event,
    Floats,
    Ints,
    Profile,
    paired_cluster_test,
    profile_like,
    show,
)


@dataclass(frozen=True)
class Alert:
    """Something that a person or a policy should know: its kind (drift found, quality drop), when, and the evidence."""

    kind: Event
    at: int
    why: str
    metric: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Watched:
    """One window as it was watched: its bounds, rows with a label, its quality beside the `reference` from when the champion was
    judged, what the drift test said (nothing where none is declared), and the alerts."""

    start: int
    end: int
    rows: int
    quality: dict[str, float]
    reference: dict[str, float]
    drift: str = ""
    alerts: tuple[Alert, ...] = ()

    @property
    def why(self) -> str:
        """In one line."""
        then = {name: f" (judged {value:.3f})" for name, value in self.reference.items()}
        said = [f"{name} {value:.3f}{then.get(name, '')}" for name, value in self.quality.items()]
        told = [", ".join(said or ["no quality to count"]), *([f"drift {self.drift}"] if self.drift else [])]
        return f"{show(self.start)[:10]} to {show(self.end)[:10]}, {self.rows} rows: {'; '.join(told)}"


def quality_of(names: Sequence[str], y: Floats, p: Floats) -> dict[str, float]:
    """Metrics of labels (n,) and probabilities (n,), without those that have no value there."""
    found = {name: float(METRICS[name].function(y, p)) for name in names} if len(y) else {}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def drift_test(reference: Profile, features: Floats, days: Ints, *, window: int, false_alarm_rate: float) -> DriftResult | None:
    """The test of a window of feature rows (n, f) on `days` (n,), `window` days long; None where it has no rows."""
    return DriftTest(reference, window, false_alarm_rate).run(profile_like(reference, features, days)) if len(days) else None


def drift_said(result: DriftResult | None) -> str:
    """What a test says, in a few words: silence where nothing could be tested is not evidence of calm."""
    if result is None:
        return "not testable: no rows"
    return f"not testable: {result.reason}" if not result.testable else f"p = {result.p_value:.2g}"


def drift_alert(result: DriftResult | None, *, window: int, at: int) -> Alert | None:
    """The alert of a test of a window of `window` days, or None."""
    if result is None or not result.drifted:
        return None
    top = [f"{one.name} (PSI {one.psi:.2f}, p = {one.p_value:.2g})" for one in result.features[:3] if one.p_value is not None]
    told = f"p = {result.p_value:.2g} over {len(result.features)} features"
    why = f"{', '.join(top)}; {told} against {result.reference_blocks} blocks of {window} days"
    evidence = {"p": result.p_value, "features": {f.name: {"psi": f.psi, "p": f.p_value} for f in result.features[:10]}}
    return Alert(Event.DRIFT_FOUND, at, why, evidence=evidence)


def quality_alert(
    metric: str, y: Floats, p: Floats, days: Ints, *, reference: float, by: float, at: int, doubt: float = 0.05
) -> Alert | None:
    """The alert that a metric is worse than its reference by more than `by`, surely: a one-sided test over whole days at level `doubt`.

    The reference is taken as the number that it is, not as an estimate with an error of its own: choose `by` no smaller than that error.
    Raises DefinitionError for a metric that is not a mean over rows.
    """
    losses = METRICS[metric].row_losses
    if losses is None:
        fitting = [name for name, known in METRICS.items() if known.row_losses]
        raise DefinitionError(f"a drop of {metric!r} has no test here", available=fitting, hint="watch a metric that is a mean over rows")
    if not len(y):
        return None
    worse = losses(y, p) - reference
    test = paired_cluster_test(worse - by, days)
    if not test.p_greater < doubt:
        return None
    now = reference + float(np.mean(worse))
    why = f"{metric} {now:.3f} against {reference:.3f} when it was judged: worse by more than {by:g}, p = {test.p_greater:.2g}"
    return Alert(Event.QUALITY_DROP, at, why, metric, {"now": now, "reference": reference, "p": test.p_greater})
