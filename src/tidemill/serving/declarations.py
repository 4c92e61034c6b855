"""Deployments, rollouts and fallbacks, as a project's files declare them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from tidemill.core import (
    Declaration,
    DefinitionError,
    Problems,
    Ref,
    definition,
    duration,
    odd_duration,
    odd_list,
    odd_name,
    odd_number,
    odd_size,
    odd_text,
    odd_type,
)
from tidemill.evaluation import Gate
from tidemill.training import Model

MODEL = re.compile(r"model:[\w.-]+@[0-9a-f]{12,64}")
PROBABILITY = "probability"
CHALLENGER = "challenger"
RESPONSES = ("count", "clip", "fall back", "reject")


def odd_model(what: str, model: object, example: str) -> Problems:
    """A ref of a registered model, with its digest."""
    if not MODEL.fullmatch(str(model)):
        hint = f'tm.{example}("model:linear@49061ef94337"); `tidemill models show` prints the ref of each version'
        yield DefinitionError(f"the {what} {model!r} is no ref of a model", hint=hint)


def ref_of(model: str) -> Ref:
    """By which the ledger finds a model.

    >>> ref_of("model:linear@49061ef94337")
    Ref(kind='model', name='linear', version='49061ef94337', digest='')
    """
    name, _, digest = model.removeprefix("model:").partition("@")
    return Ref("model", name, digest[:12], digest if len(digest) > 12 else "")


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
class SimplerModel(Declaration):
    """Fallback: another registered model over the same features, by its ref with the digest (`model:linear@49061ef94337`)."""

    kind: ClassVar[str] = "fallback"
    part: ClassVar[bool] = True
    model: str

    def problems(self) -> Problems:
        yield from odd_model("simpler model", self.model, "SimplerModel")

    @property
    def name(self) -> str:
        return "simpler model"


@dataclass(frozen=True)
class LastAnswer(Declaration):
    """Fallback: what a model last said to the same key, unless that is older than `within`. Kept in memory, of the newest `keys` keys."""

    kind: ClassVar[str] = "fallback"
    part: ClassVar[bool] = True
    within: str = "1h"
    keys: int = 100_000

    def problems(self) -> Problems:
        yield from odd_duration("within", self.within, 'tm.LastAnswer(within="1h")')
        yield from odd_number("keys", self.keys, "[1, inf)", "tm.LastAnswer(keys=100_000)", whole=True)

    @property
    def name(self) -> str:
        return f"last answer within {self.within}"


@dataclass(frozen=True)
class Holdout(Declaration):
    """The share of keys that no model answers but a constant, so that what the model is worth can be seen. A key stays in it; of rows
    with an equal column `sticky_by`, all do."""

    kind: ClassVar[str] = "hold-out"
    part: ClassVar[bool] = True
    share: float
    value: float
    sticky_by: str = ""

    def problems(self) -> Problems:
        example = "tm.Holdout(share=0.05, value=0.22)"
        yield from odd_number("share", self.share, "(0, 1)", example)
        yield from odd_number("value", self.value, "[0, 1]", example)
        yield from odd_type("sticky_by", self.sticky_by, str, 'name one column of the request, for example sticky_by="tailnum"')

    @property
    def name(self) -> str:
        return f"hold-out {self.share:g}"


@dataclass(frozen=True)
class Shadow(Declaration):
    """A version that gets a copy of a `share` of the requests, and answers nobody: the "challenger" of a rollout, or a registered model by
    its ref with the digest (`model:linear@49061ef94337`)."""

    kind: ClassVar[str] = "shadow"
    part: ClassVar[bool] = True
    model: str = CHALLENGER
    share: float = 1.0

    def problems(self) -> Problems:
        yield from odd_number("share", self.share, "(0, 1]", "tm.Shadow(share=0.1)")
        if self.model != CHALLENGER:
            yield from odd_model("shadow", self.model, "Shadow")

    @property
    def name(self) -> str:
        return f"shadow {self.model}"


@dataclass(frozen=True)
class Breaker(Declaration):
    """When a rung of the ladder is left out: after so many `failures` in a row, for a `pause`; then one request tries it again."""

    kind: ClassVar[str] = "breaker"
    part: ClassVar[bool] = True
    failures: int = 5
    pause: str = "10s"

    def problems(self) -> Problems:
        yield from odd_number("failures", self.failures, "[1, inf)", "tm.Breaker(failures=5)", whole=True)
        yield from odd_duration("pause", self.pause, 'tm.Breaker(pause="10s")', least=1)

    @property
    def name(self) -> str:
        return f"after {self.failures} failures for {self.pause}"

    @property
    def microseconds(self) -> int:
        """The pause."""
        return duration(self.pause)


@dataclass(frozen=True)
class Cache(Declaration):
    """What models said is kept in memory under the digest of the version and of the values that it was asked with, up to `most` bytes in
    each process, and said again to equal ones. Features are looked up as always. It pays for slow models."""

    kind: ClassVar[str] = "cache"
    part: ClassVar[bool] = True
    most: str = "64MB"

    def problems(self) -> Problems:
        yield from odd_size("most", self.most, 'tm.Cache(most="64MB")')

    @property
    def name(self) -> str:
        return f"cache of {self.most}"


@dataclass(frozen=True)
class Batching(Declaration):
    """Requests that come at the same time are asked of a model together, where it is slow or isolated: up to `rows` in one call, and none
    waits longer than `within` for others to come. `rows=1`: each alone."""

    kind: ClassVar[str] = "batching"
    part: ClassVar[bool] = True
    within: str = "5ms"
    rows: int = 64

    def problems(self) -> Problems:
        yield from odd_duration("within", self.within, 'tm.Batching(within="5ms")', least=0)
        yield from odd_number("rows", self.rows, "[1, 10000]", "tm.Batching(rows=64)", whole=True)

    @property
    def name(self) -> str:
        return f"{self.rows} rows within {self.within}"

    @property
    def microseconds(self) -> int:
        """How long a request waits for others."""
        return duration(self.within)


@dataclass(frozen=True)
class Expect(Declaration):
    """What values of a feature, or the model's "probability", are expected: from `low` to `high`, both included, and not null unless
    `null`. An infinite number lies in no range. `otherwise` says what happens to a row that is different: "count" it only, "clip" its
    value to the range, "fall back" to the rungs that ask no model, or "reject" the request (400)."""

    kind: ClassVar[str] = "expectation"
    part: ClassVar[bool] = True
    of: str
    low: float | None = None
    high: float | None = None
    null: bool = True
    otherwise: str = "count"

    def problems(self) -> Problems:
        example = 'tm.Expect("weather__wind", low=0, high=60, otherwise="clip")'
        yield from odd_text("the feature of an expectation", self.of, example)
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                yield from odd_number(name, getattr(self, name), "(-inf, inf)", example)
        if isinstance(self.low, int | float) and isinstance(self.high, int | float) and self.low > self.high:
            yield DefinitionError(f"low={self.low!r} is above high={self.high!r}", hint=f"for example {example}")
        yield from odd_type("null", self.null, bool, 'tm.Expect("weather__wind", null=False)')
        if self.otherwise not in RESPONSES:
            yield DefinitionError(f"otherwise={self.otherwise!r} is not known", available=list(RESPONSES))
        if self.otherwise == "clip" and not self.null:
            yield DefinitionError("nothing cannot be clipped", hint='say null=True, or otherwise="fall back"')
        if self.otherwise == "clip" and (self.low is None or self.high is None):
            yield DefinitionError("a value is clipped to a range, and this one is open", hint=f"for example {example}")
        if self.of == PROBABILITY and (self.otherwise == "reject" or not self.null):
            hint = 'say otherwise="fall back": a model that gives no number falls back by itself'
            yield DefinitionError("the request is not to blame for a probability", hint=hint)

    @property
    def name(self) -> str:
        return f"{self.of}: {self.otherwise}"


@dataclass(frozen=True)
class PredictionLog(Declaration):
    """What the log keeps of an answer. `features`: of which share of the answers what they rest on (default: `serve.log_features`).
    Columns of the request, and features, by name: those of `omit` are left out, those of `hash` replaced by a keyed digest."""

    kind: ClassVar[str] = "prediction log"
    part: ClassVar[bool] = True
    features: float | None = None
    omit: Sequence[str] = ()
    hash: Sequence[str] = ()

    def problems(self) -> Problems:
        example = 'tm.PredictionLog(features=0.1, omit=["passenger"], hash=["tailnum"])'
        if self.features is not None:
            yield from odd_number("features", self.features, "[0, 1]", example)
        for name in ("omit", "hash"):
            yield from odd_list(name, getattr(self, name), str, example)
        twice = [name for name in self.omit if name in self.hash]
        if twice:
            yield DefinitionError(f"{twice[0]!r} is to be left out and to be hashed", hint=f"say one of them, for example {example}")

    @property
    def name(self) -> str:
        return f"log without {', '.join([*self.omit, *self.hash]) or 'nothing'}"


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


Step = PreviousVersion | SimplerModel | LastAnswer | Constant


@dataclass(frozen=True)
class Deployment(Declaration):
    """A named endpoint: the model that it serves, the gates that its versions must pass, how they roll out, what is expected of features
    and answers, and what answers when the champion cannot within `timeout` (for each started 100 rows of a request)."""

    kind: ClassVar[str] = "deployment"
    name: str
    model: Model
    gates: Sequence[Gate] = ()
    rollout: Canary | None = None
    fallback: Sequence[Step] = ()
    timeout: str = "1s"
    breaker: Breaker = Breaker()
    expect: Sequence[Expect] = ()
    holdout: Holdout | None = None
    shadow: Shadow | None = None
    log: PredictionLog | None = None
    cache: Cache | None = None
    batching: Batching = Batching()

    def problems(self) -> Problems:
        yield from odd_name(self.kind, self.name)
        yield from odd_duration("timeout", self.timeout, 'timeout="1s"', least=1)
        hint = "decorate its function: @tm.model(task)"
        yield from odd_type(f"the model of deployment {self.name!r}", self.model, Model, hint)
        yield from odd_list("gates", self.gates, Gate, "gates=[tm.gates.calibration(max_ece=0.03)]")
        if self.rollout is not None:
            yield from odd_type(f"the rollout of deployment {self.name!r}", self.rollout, Canary, "for example rollout=tm.Canary()")
        yield from odd_list("fallback", self.fallback, get_args(Step), "fallback=[tm.PreviousVersion(), tm.Constant(0.22)]")
        yield from odd_type(f"the breaker of deployment {self.name!r}", self.breaker, Breaker, "for example breaker=tm.Breaker(failures=5)")
        yield from odd_type(f"the batching of deployment {self.name!r}", self.batching, Batching, "batching=tm.Batching(rows=32)")
        if self.batching.microseconds >= duration(self.timeout):
            what = f"a request would wait {self.batching.within} for others, and has {self.timeout} in all"
            yield DefinitionError(what, hint="let `within` be a small part of `timeout`")
        yield from odd_list("expect", self.expect, Expect, 'expect=[tm.Expect("weather__wind", low=0, high=60)]')
        if self.holdout is not None:
            yield from odd_type(f"the hold-out of deployment {self.name!r}", self.holdout, Holdout, "for example tm.Holdout(0.05, 0.22)")
        if self.shadow is not None:
            yield from odd_type(f"the shadow of deployment {self.name!r}", self.shadow, Shadow, "for example shadow=tm.Shadow()")
        if self.log is not None:
            yield from odd_type(
                f"the log of deployment {self.name!r}", self.log, PredictionLog, "for example tm.PredictionLog(features=0.1)"
            )
        if self.cache is not None:
            yield from odd_type(f"the cache of deployment {self.name!r}", self.cache, Cache, 'for example cache=tm.Cache("64MB")')
        named = [str(getattr(one, "of", one)) for one in self.expect]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            yield DefinitionError(f"deployment {self.name!r} expects something of {twice!r} twice", hint="say all of it in one tm.Expect")

    def definition(self) -> dict[str, Any]:
        """Plain data; the model by name."""
        plain = {name: definition(getattr(self, name)) for name in ("name", "gates", "rollout", "fallback", "timeout")}
        plain |= {"breaker": definition(self.breaker)} if self.breaker != Breaker() else {}
        plain |= {"batching": definition(self.batching)} if self.batching != Batching() else {}
        plain |= {name: definition(value) for name in ("expect", "holdout", "shadow", "log", "cache") if (value := getattr(self, name))}
        return {"type": "Deployment", "model": self.model.name, **plain}
