"""Monitors, as a project's files declare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import (
    DAY,
    METRICS,
    Declaration,
    DefinitionError,
    Problems,
    definition,
    duration,
    odd_duration,
    odd_list,
    odd_number,
    odd_type,
)
from tidemill.serving import Deployment


@dataclass(frozen=True)
class Drift(Declaration):
    """Compare each window of features with the champion's training set. `false_alarm_rate` is the chance of an alarm at one look
    when nothing but the usual change from day to day goes on."""

    kind: ClassVar[str] = "drift test"
    part: ClassVar[bool] = True
    false_alarm_rate: float = 0.05

    @property
    def name(self) -> str:
        return f"drift at {self.false_alarm_rate:g}"

    def problems(self) -> Problems:
        yield from odd_number("false_alarm_rate", self.false_alarm_rate, "(0, 1)", "false_alarm_rate=0.05")


@dataclass(frozen=True)
class Monitor(Declaration):
    """Look at a deployment once for each window of `every`, when the window is mature: the files reach to its last day, and on every day
    of it the labels of a share `maturity` of the requests are in, or resolved as none. `quality` names metrics that are written down for
    each window; one that a `QualityDrop` of the policy names is tested too."""

    kind: ClassVar[str] = "monitor"
    deployment: Deployment
    every: str = "7d"
    quality: Sequence[str] = ("log_loss",)
    drift: Drift | None = None
    maturity: float = 0.95

    @property
    def name(self) -> str:
        return self.deployment.name

    def problems(self) -> Problems:
        yield from odd_type("what is monitored", self.deployment, Deployment, "give the tm.Deployment itself")
        yield from odd_list("quality", self.quality, str, 'quality=["log_loss"]')
        unknown = [name for name in self.quality if name not in METRICS]
        if unknown:
            yield DefinitionError(f"no metric is named {unknown[0]!r}", available=sorted(METRICS))
        if self.drift is not None:
            yield from odd_type("drift", self.drift, Drift, "for example drift=tm.Drift(false_alarm_rate=0.05)")
        yield from odd_number("maturity", self.maturity, "(0, 1]", "maturity=0.95")
        yield from odd_duration("every", self.every, 'every="7d"', least=0)
        if duration(self.every) < DAY or duration(self.every) % DAY:
            yield DefinitionError(f"every={self.every!r}: windows are whole days", hint='for example every="7d"')

    def definition(self) -> dict[str, Any]:
        """Plain data; the deployment by name."""
        plain = {name: definition(getattr(self, name)) for name in ("every", "quality", "drift", "maturity")}
        return {"type": "Monitor", "deployment": self.deployment.name, **plain}
