"""Monitors, as a project's files declare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import DAY, METRICS, Declaration, DefinitionError, definition, duration
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.false_alarm_rate < 1:
            raise DefinitionError(f"false_alarm_rate={self.false_alarm_rate} is not in (0, 1)", where=str(self.where))


@dataclass(frozen=True)
class Monitor(Declaration):
    """Look at a deployment once for each window of `every`, when the window is mature: on every day of it the labels of a share
    `maturity` of the requests are in, or resolved as none. `quality` names metrics that are written down for each window; one that a
    `QualityDrop` of the policy names is tested too."""

    kind: ClassVar[str] = "monitor"
    deployment: Deployment
    every: str = "7d"
    quality: Sequence[str] = ("log_loss",)
    drift: Drift | None = None
    maturity: float = 0.95

    @property
    def name(self) -> str:
        return self.deployment.name

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.quality if name not in METRICS]
        if unknown:
            raise DefinitionError(f"no metric is named {unknown[0]!r}", where=str(self.where), available=sorted(METRICS))
        if not 0 < self.maturity <= 1:
            raise DefinitionError(f"maturity={self.maturity} is no share in (0, 1]", where=str(self.where), hint="for example 0.95")
        if duration(self.every) < DAY or duration(self.every) % DAY:
            raise DefinitionError(f"every={self.every!r}: windows are whole days", where=str(self.where), hint='for example every="7d"')

    def definition(self) -> dict[str, Any]:
        """Plain data; the deployment by name."""
        plain = {name: definition(getattr(self, name)) for name in ("every", "quality", "drift", "maturity")}
        return {"type": "Monitor", "deployment": self.deployment.name, **plain}
