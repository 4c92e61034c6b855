"""What a replay found, as plain data: months, means, the gain with its interval, events, cost."""

from typing import Any

import numpy as np

from tidemill.core import Event, calibration_curve, cluster_bootstrap_mean, mean_of_monthly_auc_bootstrap, row_log_loss, show
from tidemill.evaluation import REPORTED, quality
from tidemill.ledger import Decision
from tidemill.loop.state import State
from tidemill.loop.world import World
from tidemill.monitoring import cohorts, months_of

EVENTS = set(Event) - {
    Event.WATCHED,
    Event.FEATURES_COMPARED,
    Event.GATES_UNDECIDED,
    Event.GATES_PASSED,
    Event.APPROVED,
    Event.ANSWERS_LOST,
}


def months(world: World, start: int, now: int) -> list[dict[str, Any]]:
    """Quality by month of the event, frozen against loop, over rows whose label is known at `now`, with the share that is resolved.

    The loop's is that of the champion of each row's time, so the two are equal until the first promotion: what a canary answered
    before it is the candidate's, which the canary itself compares.
    """
    rows = world.rows(start, now)
    rows = rows[~np.isnan(world.champion[rows])]
    names = np.array(months_of(world.days[rows]))
    found = []
    for month in np.unique(names).tolist():
        chosen = rows[names == month]
        known = chosen[world.known(chosen, now)]
        label = world.examples.label[known]
        both = {"frozen": quality(label, world.frozen[known]), "loop": quality(label, world.champion[known])}
        resolved = float((world.examples.resolved[chosen] <= now).mean())
        share = float(label.mean()) if len(label) else None
        found.append({"month": month, "rows": len(known), "requests": len(chosen), "resolved": resolved, "share_positive": share, **both})
    return found


def result(world: World, state: State, start: int, decisions: list[Decision]) -> dict[str, Any]:
    """The whole result of a replay."""
    table = months(world, start, state.now)
    rows = world.labelled(start, state.now)
    label, days = world.examples.label[rows], world.days[rows]
    frozen, loop = world.frozen[rows], world.champion[rows]
    return {
        "months": table,
        "mean": {who: {name: _mean([month[who][name] for month in table]) for name in REPORTED} for who in ("frozen", "loop")},
        "gain": _gain(label, frozen, loop, days),
        "events": events(decisions),
        "cost": {"trainings": state.trainings, "row_rounds": state.row_rounds, "predictions": len(world.rows(start, state.now))},
        "champion": state.champion.label,
        "daily": _daily(world, rows),
        "calibration": {who: _curve(label, p) for who, p in (("frozen", frozen), ("loop", loop))},
        "maturity": _maturity(world, start, state.now),
    }


def events(decisions: list[Decision]) -> list[dict[str, Any]]:
    """The decisions that people want to hear of."""
    return [{"at": show(d.at), "kind": d.kind, "subject": d.subject, "why": d.why} for d in decisions if d.kind in EVENTS]


def _mean(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _gain(label: Any, frozen: Any, loop: Any, days: Any) -> dict[str, Any]:
    """How much better the loop is than the frozen model: mean of months for AUC, mean of rows for log loss; 95 % intervals by days."""
    if not len(label):
        return {}
    months = np.array(months_of(days))
    auc = mean_of_monthly_auc_bootstrap(label, frozen, loop, days, months, 0.95, seed=0)
    loss = cluster_bootstrap_mean(row_log_loss(label, frozen) - row_log_loss(label, loop), days, 0.95, seed=0)
    return {
        "roc_auc": {"estimate": auc.estimate, "low": auc.low, "high": auc.high},
        "log_loss": {"estimate": loss.estimate, "low": loss.low, "high": loss.high},
    }


def _daily(world: World, rows: Any) -> list[dict[str, Any]]:
    """Mean log loss by day, for the plot."""
    days, codes = np.unique(world.days[rows], return_inverse=True)
    counts = np.bincount(codes)
    label = world.examples.label[rows]
    losses = [np.bincount(codes, weights=row_log_loss(label, p[rows])) / counts for p in (world.frozen, world.champion)]
    late = np.bincount(codes, weights=label) / counts
    return [
        {"day": int(d), "frozen": float(f), "loop": float(s), "share_positive": float(r)}
        for d, f, s, r in zip(days, *losses, late, strict=True)
    ]


def _curve(label: Any, p: Any) -> list[tuple[float, float, int]]:
    if not len(label):
        return []
    return [(float(a), float(b), int(n)) for a, b, n in zip(*calibration_curve(label, p, 20), strict=True)]


def _maturity(world: World, start: int, now: int) -> dict[str, int]:
    rows = world.rows(start, now)
    seen = cohorts(world.days[rows], world.examples.resolved[rows], now, world.maturity)
    return {"days": len(seen.days), "mature": int(seen.mature.sum())}
