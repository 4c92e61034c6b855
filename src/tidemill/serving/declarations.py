"""Deployments, rollouts and fallbacks, as a project's files declare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import Declaration, DefinitionError, Problems, definition, odd_duration, odd_list, odd_name, odd_number, odd_type
from tidemill.evaluation import Gate
from tidemill.training import Model


@dataclass(frozen=True)
class Canary(Declaration):
    """Weights that a new version climbs. At each step both versions score every row and are compared in pairs (`compare="paired"`:
    the answer does not change the label); with `min_labels` labels a step ends. The chance of rolling back a version that is no
    worse is `alpha` over all steps. `sticky_by` keeps one key on one version."""

    kind: ClassVar[str] = "rollout"
    part: ClassVar[bool] = True
    steps: Sequence[float] = (0.05, 0.25, 1.0)
    min_labels: int = 500
    alpha: float = 0.05
    sticky_by: str = ""
    compare: str = "paired"

    @property
    def name(self) -> str:
        return f"canary {'/'.join(f'{step:g}' for step in self.steps)}"

    def problems(self) -> Problems:
        example = "steps=[0.05, 0.25, 1.0]"
        yield from odd_list("steps", self.steps, object, example)
        for step in self.steps:
            yield from odd_number("step", step, "(0, 1]", example)
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 1.0:
            yield DefinitionError(f"canary steps {list(self.steps)} must rise to 1.0", hint=f"for example {example}")
        yield from odd_number("min_labels", self.min_labels, "[0, inf)", "min_labels=500", whole=True)
        yield from odd_number("alpha", self.alpha, "(0, 1)", "alpha=0.05")
        yield from odd_type("sticky_by", self.sticky_by, str, 'name one column of the request, for example sticky_by="tailnum"')
        if self.compare != "paired":
            yield DefinitionError(f"compare={self.compare!r} is not known", available=["paired"])


@dataclass(frozen=True)
class PreviousVersion(Declaration):
    """Fallback: the version that was champion before."""

    kind: ClassVar[str] = "fallback"
    part: ClassVar[bool] = True
    name: str = "previous version"


@dataclass(frozen=True)
class Constant(Declaration):
    """Fallback: one probability for everybody."""

    kind: ClassVar[str] = "fallback"
    part: ClassVar[bool] = True
    value: float = 0.5

    def problems(self) -> Problems:
        for error in odd_number("the constant", self.value, "[0, 1]", "tm.Constant(0.22)"):
            yield DefinitionError(f"the constant {self.value!r} is no probability", hint=error.hint)

    @property
    def name(self) -> str:
        return f"constant {self.value:g}"


@dataclass(frozen=True)
class Deployment(Declaration):
    """A named endpoint: the model that it serves, the gates that its versions must pass, how they roll out, and what answers when
    the champion cannot within `timeout` (for each started 100 rows of a request)."""

    kind: ClassVar[str] = "deployment"
    name: str
    model: Model
    gates: Sequence[Gate] = ()
    rollout: Canary | None = None
    fallback: Sequence[PreviousVersion | Constant] = ()
    timeout: str = "1s"

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_duration("timeout", self.timeout, 'timeout="1s"', least=1)
        hint = "decorate its function: @tm.model(task)"
        yield from odd_type(f"the model of deployment {self.name!r}", self.model, Model, hint)
        yield from odd_list("gates", self.gates, Gate, "gates=[tm.gates.calibration(max_ece=0.03)]")
        if self.rollout is not None:
            yield from odd_type(f"the rollout of deployment {self.name!r}", self.rollout, Canary, "for example rollout=tm.Canary()")
        yield from odd_list("fallback", self.fallback, (PreviousVersion, Constant), "fallback=[tm.PreviousVersion(), tm.Constant(0.22)]")

    def definition(self) -> dict[str, Any]:
        """Plain data; the model by name."""
        plain = {name: definition(getattr(self, name)) for name in ("name", "gates", "rollout", "fallback", "timeout")}
        return {"type": "Deployment", "model": self.model.name, **plain}
