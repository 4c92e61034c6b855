"""Retraining policies, their triggers, and comparisons of policies, as a project's files declare them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tidemill.core import (
    DAY,
    METRICS,
    Declaration,
    DefinitionError,
    Event,
    Problems,
    definition,
    duration,
    instant,
    odd_duration,
    odd_list,
    odd_number,
    odd_type,
)
from tidemill.monitoring import Alert, Monitor
from tidemill.training import Model

JUDGES = ("holdout", "ahead")


@dataclass(frozen=True)
class Seen:
    """What a trigger may look at: the time, the champion's cut-off, when a candidate was last trained, and the alerts of this tick."""

    now: int
    trained_until: int
    last_attempt: int
    alerts: Sequence[Alert]


@dataclass(frozen=True)
class Trigger(Declaration):
    """A reason to retrain: `due(seen)` gives a sentence, or nothing."""

    kind: ClassVar[str] = "trigger"
    part: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return type(self).__name__

    def due(self, seen: Seen) -> str:
        """Why to retrain now; empty when there is no reason."""
        raise DefinitionError(f"trigger {self.name} has no due method", where=str(self.where))


@dataclass(frozen=True)
class Never(Trigger):
    """No retraining."""

    @property
    def name(self) -> str:
        return "never"

    def due(self, seen: Seen) -> str:
        return ""


@dataclass(frozen=True)
class Every(Trigger):
    """By the calendar: this long after the last candidate was trained."""

    period: str

    def problems(self) -> Problems:
        yield from odd_duration("Every", self.period, 'tm.Every("30d")')

    @property
    def name(self) -> str:
        return f"every {self.period}"

    def due(self, seen: Seen) -> str:
        # an hour of slack: a day on which clocks go forward has 23
        return f"every {self.period}" if seen.now - seen.last_attempt >= duration(self.period) - DAY // 24 else ""


@dataclass(frozen=True)
class Age(Trigger):
    """When the champion's training data end longer ago than this."""

    limit: str

    def problems(self) -> Problems:
        yield from odd_duration("Age", self.limit, 'tm.Age("60d")')

    @property
    def name(self) -> str:
        return f"age {self.limit}"

    def due(self, seen: Seen) -> str:
        age = seen.now - seen.trained_until
        return f"the champion knows nothing of the last {age // DAY} days" if age >= duration(self.limit) - DAY // 24 else ""


@dataclass(frozen=True)
class DriftFound(Trigger):
    """When the monitor finds drift."""

    @property
    def name(self) -> str:
        return "on drift"

    def due(self, seen: Seen) -> str:
        return next((f"drift: {alert.why}" for alert in seen.alerts if alert.kind == Event.DRIFT_FOUND), "")


@dataclass(frozen=True)
class SkewFound(Trigger):
    """When the monitor finds that features are not served as they are learnt."""

    @property
    def name(self) -> str:
        return "on skew"

    def due(self, seen: Seen) -> str:
        return next((f"skew: {alert.why}" for alert in seen.alerts if alert.kind == Event.SKEW_FOUND), "")


@dataclass(frozen=True)
class QualityDrop(Trigger):
    """When a metric is surely worse, by more than `by`, than when the champion was judged."""

    metric: str
    by: float

    @property
    def name(self) -> str:
        return f"on drop of {self.metric}"

    def problems(self) -> Problems:
        fitting = [name for name, metric in METRICS.items() if metric.row_losses]
        if self.metric not in fitting:
            yield DefinitionError(f"a drop of {self.metric!r} has no test", available=fitting)
        yield from odd_number("by", self.by, "[0, inf)", 'tm.QualityDrop("log_loss", by=0.02)')

    def due(self, seen: Seen) -> str:
        return next((alert.why for alert in seen.alerts if alert.kind == Event.QUALITY_DROP and alert.metric == self.metric), "")


@dataclass(frozen=True)
class RetrainPolicy(Declaration):
    """When to retrain what a monitor watches, and how a candidate is judged.

    `on`: any of these triggers. Not sooner than `cooldown` after the last candidate, nor with fewer than `min_new_labels` labels
    that the champion has not seen. `judge="holdout"`: a twin is judged on the newest rows and, if it passes, the candidate is fitted
    on all of them; its own check is the rollout. `judge="ahead"`: the candidate learns from all rows at once and is judged on rows to
    come, which both versions score. On the year of flights the first gave the larger gain (`docs/replay.md`), so it is the default.
    `approvals`: how many people must agree before it goes live.
    """

    kind: ClassVar[str] = "policy"
    part: ClassVar[bool] = True
    monitor: Monitor
    on: Sequence[Trigger]
    cooldown: str = "7d"
    min_new_labels: int = 1
    approvals: int = 0
    judge: str = "holdout"

    @property
    def name(self) -> str:
        return " or ".join(trigger.name for trigger in self.on)

    def problems(self) -> Problems:
        yield from odd_type("what a policy keeps good", self.monitor, Monitor, "give the tm.Monitor itself")
        yield from odd_list("on", self.on, Trigger, 'on=[tm.Age("60d")], or on=[tm.Never()]', some=True)
        yield from odd_duration("cooldown", self.cooldown, 'cooldown="7d"', least=0)
        yield from odd_number("min_new_labels", self.min_new_labels, "[0, inf)", "min_new_labels=500", whole=True)
        yield from odd_number("approvals", self.approvals, "[0, inf)", "approvals=1", whole=True)
        if self.judge not in JUDGES:
            yield DefinitionError(f"judge={self.judge!r} is not known", available=list(JUDGES))

    def definition(self) -> dict[str, Any]:
        """Plain data; the monitor by its definition."""
        plain = {name: definition(getattr(self, name)) for name in ("on", "cooldown", "min_new_labels", "approvals", "judge")}
        return {"type": "RetrainPolicy", "monitor": self.monitor.definition(), **plain}


@dataclass(frozen=True)
class PolicyComparison(Declaration):
    """Replay the same history under a policy, under each of its triggers alone, and under those of `against`; with each model.

    The choice is made on `choose_on` and its regret is reported on `report_on` (dates, start included, end not).
    """

    kind: ClassVar[str] = "comparison"
    policy: RetrainPolicy
    against: Sequence[Trigger] = ()
    models: Sequence[Model] = ()
    choose_on: tuple[str, str] = field(kw_only=True)
    report_on: tuple[str, str] = field(kw_only=True)

    def problems(self) -> Problems:
        yield from odd_type("the policy of a comparison", self.policy, RetrainPolicy, "give the tm.RetrainPolicy itself")
        yield from odd_list("against", self.against, Trigger, 'against=[tm.Never(), tm.Every("30d")]')
        yield from odd_list("models", self.models, Model, "models=[boosted, linear]")
        for name, days in (("choose_on", self.choose_on), ("report_on", self.report_on)):
            try:
                start, end = map(instant, days)
            except (AttributeError, TypeError, ValueError):
                hint = f'write {name}=("2013-04-01", "2013-08-01")'
                yield DefinitionError(f"{name}={days!r} is not a pair of dates", hint=hint)
                return
            if start >= end:
                hint = "the first date is included, the second is not"
                yield DefinitionError(f"{name}={days!r} holds no day", hint=hint)
        if instant(self.choose_on[1]) > instant(self.report_on[0]):
            what = f"report_on={self.report_on!r} begins before choose_on={self.choose_on!r} has ended"
            hint = "a choice is reported on days that come after those it was made on"
            yield DefinitionError(what, hint=hint)

    @property
    def name(self) -> str:
        return self.policy.monitor.name

    @property
    def triggers(self) -> list[tuple[Trigger, ...]]:
        """The policies to compare, each as its triggers."""
        alone = [(trigger,) for trigger in self.policy.on] if len(self.policy.on) > 1 else []
        return [tuple(self.policy.on), *alone, *((trigger,) for trigger in self.against)]
