"""Policies over the same history: quality against cost, chosen on one stretch of time, and the regret of the choice on another.

Each policy is a replay on a branch of its own kind, which `up` does not serve.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidemill.core import DefinitionError, Event, Floats, Refused, cluster_bootstrap_mean, instant, row_log_loss, show
from tidemill.data import segments
from tidemill.evaluation import quality
from tidemill.ledger import Branch, Ledger
from tidemill.loop.build import Built
from tidemill.loop.declarations import PolicyComparison, RetrainPolicy
from tidemill.loop.replay import Progress, Replay, replay, with_model
from tidemill.monitoring import local_days

Listen = Callable[[str, str, Progress | None], None]  # policy, model, where its replay is (None: done)


@dataclass(frozen=True)
class Backtest:
    """One policy over one model, replayed: the quality of its champions on both stretches, what it cost, and their scores."""

    policy: str
    model: str
    choose: dict[str, float | None]
    report: dict[str, float | None]
    cost: dict[str, int]
    promotions: int
    scores: Floats

    def like(self, other: "Backtest") -> bool:
        """Whether the two did the very same: the same model at each moment, for the same trainings."""
        same = (self.model, self.cost, self.promotions) == (other.model, other.cost, other.promotions)
        return same and np.array_equal(self.scores, other.scores, equal_nan=True)

    def plain(self) -> dict[str, Any]:
        names = ("policy", "model", "choose", "report", "cost", "promotions")
        return {name: getattr(self, name) for name in names}


def jobs(built: Built, comparison: PolicyComparison, start: int, end: int, timezone: str) -> list[tuple[str, str, Replay]]:
    """(policy, model, replay) of a comparison."""
    models = list(comparison.models) or [comparison.policy.monitor.deployment.model]
    found = []
    for model in models:
        for triggers in comparison.triggers:
            policy: RetrainPolicy = replace(with_model(comparison.policy, model), on=triggers)
            found.append((policy.name, model.name, Replay(built, policy, start, end, timezone, "comparison")))
    return found


def compare(
    ledger: Ledger,
    built: Built,
    comparison: PolicyComparison,
    start: int,
    end: int,
    timezone: str,
    *,
    listen: Listen = lambda policy, model, progress: None,
) -> dict[str, Any]:
    """Replay every policy with every model, choose, and report the regret, as plain data. A model that its gates refuse at the start
    is told and left out; raises Refused when none is left, DefinitionError for days that the replay does not answer."""
    spans = [tuple(instant(day, timezone) for day in days) for days in (comparison.choose_on, comparison.report_on)]
    _check_spans(comparison, spans, start, end, timezone)
    found, refused = [], dict[str, Refused]()
    for policy, model, job in jobs(built, comparison, start, end, timezone):
        if model not in refused:  # the first model is the same under every policy
            try:
                branch, _ = replay(ledger, job, listen=lambda progress, p=policy, m=model: listen(p, m, progress))  # type: ignore[misc]
                found.append(_backtest(ledger, built, job, branch, policy, model, spans))
            except Refused as error:
                refused[model] = error
        listen(policy, model, None)
    if not found:
        raise next(iter(refused.values()))
    chosen = choose(built, found, spans[0], timezone)
    regret = _regret(built, found, chosen, spans[1], timezone)
    rows = [one.plain() | {"chosen": one is chosen, "same_as": _same_as(found, one)} for one in found]
    said = [{"model": model, "why": error.what} for model, error in refused.items()]
    choice = {"policy": chosen.policy, "model": chosen.model}
    return {"policies": rows, "refused": said, "chosen": choice, "regret": regret, "rule": RULE}


def _same_as(found: list[Backtest], one: Backtest) -> str:
    """The first policy before one that did the very same over the same model; empty where there is none."""
    first = next(other for other in found if other is one or one.like(other))
    return "" if first is one else first.policy


def _check_spans(comparison: PolicyComparison, spans: list[tuple[int, ...]], start: int, end: int, timezone: str) -> None:
    """Raise DefinitionError for a stretch that the replay does not answer: before it is trained, or after it ends."""
    for name, span in zip(("choose_on", "report_on"), spans, strict=True):
        if span[0] < start or span[1] > end:
            what = f"{name}={getattr(comparison, name)!r} is not within the replay"
            hint = f"choose days from {show(start, timezone)[:10]} to {show(end, timezone)[:10]}, or change the settings of the replay"
            raise DefinitionError(what, where=str(comparison.where), hint=hint)


RULE = (
    "the cheapest policy of the first stretch (rows × rounds, of any model alike) whose log loss there is not surely worse "
    "than the best (95 % interval over days)"
)


def _rows(built: Built, span: tuple[int, ...]) -> Any:
    """Labelled requests whose event lies in a span."""
    event = built.examples.requests.event
    return np.flatnonzero((event >= span[0]) & (event < span[1]) & ~np.isnan(built.examples.label))


def _backtest(ledger: Ledger, built: Built, job: Replay, branch: Branch, policy: str, model: str, spans: list[tuple[int, ...]]) -> Backtest:
    scores = np.full(len(built.examples.at), np.nan)
    first = int(np.searchsorted(built.examples.at, job.start))
    for _, segment in segments(ledger, branch.id, job.deployment.name):
        scores[first : first + len(segment.at)] = segment.shadows["champion"][1]
        first += len(segment.at)
    both = []
    for span in spans:
        rows = _rows(built, span)
        rows = rows[~np.isnan(scores[rows])]
        both.append(quality(built.examples.label[rows], scores[rows]))
    cost = {name: int(branch.result["cost"][name]) for name in ("trainings", "row_rounds")}
    later = [one.evidence["row_rounds"] for one in ledger.decisions(branch.id) if one.kind == Event.RETRAINED and one.at >= spans[0][1]]
    cost["row_rounds_to_choose"] = cost["row_rounds"] - sum(later)  # what comes after the choice cannot decide it
    promotions = sum(event["kind"] == Event.PROMOTED for event in branch.result["events"]) - 1
    return Backtest(policy, model, both[0], both[1], cost, promotions, scores)


def _worse(built: Built, one: Backtest, other: Backtest, span: tuple[int, ...], timezone: str) -> dict[str, float]:
    """By how much the log loss of one is above the other's, with its interval over days."""
    rows = _rows(built, span)
    rows = rows[~np.isnan(one.scores[rows]) & ~np.isnan(other.scores[rows])]
    label = built.examples.label[rows]
    difference = row_log_loss(label, one.scores[rows]) - row_log_loss(label, other.scores[rows])
    found = cluster_bootstrap_mean(difference, local_days(built.examples.requests.event[rows], timezone), 0.95, seed=0)
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def choose(built: Built, found: list[Backtest], span: tuple[int, ...], timezone: str) -> Backtest:
    """The choice by the rule."""
    best = min(found, key=lambda one: _loss(one.choose))
    fit = [one for one in found if one is best or _worse(built, one, best, span, timezone)["low"] <= 0]
    # all else equal, the two differ only in what came after: the one that then cost less gave nothing away
    return min(fit, key=lambda one: (one.cost["row_rounds_to_choose"], _loss(one.choose), one.cost["row_rounds"]))


def _loss(quality: dict[str, float | None]) -> float:
    loss = quality["log_loss"]
    return np.inf if loss is None else loss


def _regret(built: Built, found: list[Backtest], chosen: Backtest, span: tuple[int, ...], timezone: str) -> dict[str, Any]:
    """How much log loss the choice gave away on the later stretch, against the policy that was best there."""
    best = min(found, key=lambda one: _loss(one.report))
    return {"best": {"policy": best.policy, "model": best.model}, "log_loss": _worse(built, chosen, best, span, timezone)}
