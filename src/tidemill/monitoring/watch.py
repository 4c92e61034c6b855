"""What a monitor finds in one window, as values. Only `loop` acts on them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import METRICS, DefinitionError, DriftTest, Floats, Profile, paired_cluster_test, profile_like

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Alert:
    """Something that a person or a policy should know: its kind ("drift found", "quality drop", "stale data"), when, and the evidence."""

    kind: str
    at: int
    why: str
    metric: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


def drift_alert(reference: Profile, features: Floats, days: Ints, *, window: int, false_alarm_rate: float, at: int) -> Alert | None:
    """The alert of a window of feature rows (n, f) on `days` (n,), or None. `window` is its length in days."""
    if not len(days):
        return None
    result = DriftTest(reference, window, false_alarm_rate).run(profile_like(reference, features, days))
    if not result.drifted:
        return None
    top = [f"{one.name} (PSI {one.psi:.2f}, p = {one.p_value:.2g})" for one in result.features[:3] if one.p_value is not None]
    told = f"p = {result.p_value:.2g} over {len(result.features)} features"
    why = f"{', '.join(top)}; {told} against {result.reference_blocks} blocks of {window} days"
    evidence = {"p": result.p_value, "features": {f.name: {"psi": f.psi, "p": f.p_value} for f in result.features[:10]}}
    return Alert("drift found", at, why, evidence=evidence)


def quality_alert(
    metric: str, y: Floats, p: Floats, days: Ints, *, reference: float, by: float, at: int, doubt: float = 0.05
) -> Alert | None:
    """The alert that a metric is worse than its reference by more than `by`, surely: a one-sided test over whole days at level `doubt`.

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
    return Alert("quality drop", at, why, metric, {"now": now, "reference": reference, "p": test.p_greater})
