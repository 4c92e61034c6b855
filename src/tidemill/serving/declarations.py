"""Deployments, rollouts and fallbacks, as a project's files declare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.core import Declaration, DefinitionError, definition, duration
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

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = list(self.steps) == sorted(set(self.steps)) and all(0 < step <= 1 for step in self.steps)
        if not self.steps or not rising or self.steps[-1] != 1.0:
            raise DefinitionError(f"canary steps {list(self.steps)} must rise to 1.0", where=str(self.where))
        if not 0 < self.alpha < 1:
            raise DefinitionError(f"alpha={self.alpha} is not in (0, 1)", where=str(self.where), hint="for example 0.05")
        if self.min_labels < 0:
            raise DefinitionError(f"min_labels={self.min_labels} is below 0", where=str(self.where), hint="for example 500")
        if self.compare != "paired":
            raise DefinitionError(f"compare={self.compare!r} is not known", where=str(self.where), available=["paired"])


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.value <= 1:
            raise DefinitionError(f"the constant {self.value} is no probability", where=str(self.where), hint="write one in [0, 1]")

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if duration(self.timeout) <= 0:
            hint = 'give the champion time to answer, for example timeout="1s"'
            raise DefinitionError(f"timeout={self.timeout!r} leaves no time", where=str(self.where), hint=hint)

    def definition(self) -> dict[str, Any]:
        """Plain data; the model by name."""
        plain = {name: definition(getattr(self, name)) for name in ("name", "gates", "rollout", "fallback", "timeout")}
        return {"type": "Deployment", "model": self.model.name, **plain}
