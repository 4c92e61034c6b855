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
class Skew(Declaration):
    """Compare features that were served with the same features computed offline, as known then: once in each window of the monitor, at
    most `rows` answers since the last time. Numbers whose relative error is at most `tolerance` count as equal. A feature of which
    surely more than `max_share` of the answers differ is an alert; where none is off that often, the chance of one at a look is at most
    `false_alarm_rate`. With `hold` nothing goes live, and no canary climbs, from such a look until one that finds nothing; an edit of
    yours is not held."""

    kind: ClassVar[str] = "skew test"
    part: ClassVar[bool] = True
    rows: int = 1000
    max_share: float = 0.001
    tolerance: float = 0.0
    false_alarm_rate: float = 0.05
    hold: bool = True

    @property
    def name(self) -> str:
        return f"skew above {self.max_share:g}"

    def problems(self) -> Problems:
        yield from odd_number("rows", self.rows, "[1, 1000000]", "rows=1000", whole=True)
        yield from odd_number("max_share", self.max_share, "[0, 1)", "max_share=0.001")
        yield from odd_number("tolerance", self.tolerance, "[0, 1)", "tolerance=1e-9")
        yield from odd_number("false_alarm_rate", self.false_alarm_rate, "(0, 1)", "false_alarm_rate=0.05")
        yield from odd_type("hold", self.hold, bool, "hold=True, or hold=False")


@dataclass(frozen=True)
class Monitor(Declaration):
    """Look at a deployment once for each window of `every`, when the window is mature: the files reach to its last day, and on every day
    of it the labels of a share `maturity` of the requests are in, or resolved as none. `quality` names metrics that are written down for
    each window; one that a `QualityDrop` of the policy names is tested too. `skew` needs no labels: it does not
    wait for a window to be mature."""

    kind: ClassVar[str] = "monitor"
    deployment: Deployment
    every: str = "7d"
    quality: Sequence[str] = ("log_loss",)
    drift: Drift | None = None
    maturity: float = 0.95
    skew: Skew | None = None

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
        if self.skew is not None:
            yield from odd_type("skew", self.skew, Skew, "for example skew=tm.Skew(rows=1000)")
        yield from odd_number("maturity", self.maturity, "(0, 1]", "maturity=0.95")
        yield from odd_duration("every", self.every, 'every="7d"', least=0)
        if duration(self.every) < DAY or duration(self.every) % DAY:
            yield DefinitionError(f"every={self.every!r}: windows are whole days", hint='for example every="7d"')

    def definition(self) -> dict[str, Any]:
        """Plain data; the deployment by name."""
        plain = {name: definition(getattr(self, name)) for name in ("every", "quality", "drift", "maturity", "skew")}
        return {"type": "Monitor", "deployment": self.deployment.name, **plain}
