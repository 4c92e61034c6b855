"""Models by name as the inference protocol knows them, whatever carries it; bare models, which are loaded and unloaded."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from threading import Lock
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np

from tidemill.core import Array, ClientGone, TidemillError, UnknownName
from tidemill.models import Pace, Spec
from tidemill.serving import oip
from tidemill.serving.cache import AnswerCache, digest_of, size_of
from tidemill.serving.caller import caller
from tidemill.serving.counters import Counters
from tidemill.serving.inference_log import InferenceLog
from tidemill.serving.oip import Asked, Found

_COUNTED = ("requests", "failed", "rows", "run", "whole", "last", "runs")
SLOW = 1_000_000  # nanoseconds of a run from which on it leaves the event loop


class Tensors(Protocol):
    """What answers tensors with tensors, as an ONNX file does; `isolated`: from a process of its own; `rowwise`: the answer to a row is
    the same to the bit whichever rows are asked with it."""

    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    isolated: bool
    rowwise: bool
    platform: str

    def run(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs, all or those that are wanted. Raises DataError for tensors that it cannot take."""
        ...


class CachedModel:
    """A model that is asked by tensors, and what it said to equal ones. One that is loaded anew begins with nothing."""

    def __init__(self, model: Tensors, most: int) -> None:
        self.inputs, self.outputs, self.cache, self._model = model.inputs, model.outputs, AnswerCache(most), model
        self.isolated, self.rowwise, self.platform = model.isolated, model.rowwise, model.platform

    def run(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs, all or those that are wanted. Raises DataError for tensors that it cannot take."""
        return self.answer(tensors, wanted)[0]

    def answer(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> tuple[dict[str, Array], bool]:
        """The same, and whether it was known."""
        key = digest_of(tensors, wanted)
        with self.cache.turn(key):
            found = self.cache.find(key)
            if found is not None:
                return found, True
            outputs = self._model.run(tensors, wanted)
            self.cache.keep(key, outputs, sum(map(size_of, outputs.values())))
            return outputs, False


Load = Callable[[], Tensors]
# What a model gave; as JSON where that is known, and then arrays only where they are wanted.
Outcome = tuple[Mapping[str, Array], bytes]


class Counts:
    """What a version answered: requests, rows, runs of the model, and nanoseconds; `last`, in microseconds UTC, when the newest was. Many
    threads count, and what is read is of all processes."""

    def __init__(self, counters: Counters | None = None, *name: str) -> None:
        """Under a name, in the counters of a server, or alone."""
        self._counters, self._name, self._lock = counters or Counters(), ("models", *name), Lock()
        self._own = self._counters.row(*self._name, width=len(_COUNTED))

    def note(self, rows: int, run: int, whole: int, at: int, requests: int = 1, runs: int = 1) -> None:
        """Requests were answered."""
        own = self._own
        with self._lock:
            own[0] += requests
            own[2] += rows
            own[3] += run
            own[4] += whole
            own[5] = at
            own[6] += runs

    def fail(self, requests: int = 1) -> None:
        """Requests were wrong, or the model failed."""
        with self._lock:
            self._own[1] += requests

    def read(self) -> dict[str, int]:
        """All of them at one moment."""
        found = zip(_COUNTED, zip(*self._counters.rows(*self._name), strict=True), strict=True)
        return {name: int(max(values) if name == "last" else sum(values)) for name, values in found}

    def plain(self) -> dict[str, Any]:
        """As Triton tells them."""
        found = self.read()
        done = found["requests"]
        parts = {"success": (done, found["whole"]), "fail": (found["failed"], 0), "compute_infer": (done, found["run"])}
        parts |= dict.fromkeys(("queue", "compute_input", "compute_output"), (0, 0))
        told = {name: {"count": count, "ns": ns} for name, (count, ns) in parts.items()}
        counts = {"inference_count": found["rows"], "execution_count": found["runs"]}
        return {"last_inference": found["last"] // 1_000, **counts, "inference_stats": told}


class Model(Protocol):
    """One version of a model, or a deployment as a whole. `why` says why it is not loaded; one that is ready is loaded, and what it
    answers can be logged."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def why(self) -> str: ...
    @property
    def is_loaded(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...

    def slow(self, rows: int) -> bool:
        """Whether others would wait for an answer to so many rows."""
        ...

    def tensors(self) -> tuple[Mapping[str, Spec], Mapping[str, Spec]]:
        """What it takes, and what it gives. Raises UnknownName where it is not there."""
        ...

    def infer(self, asked: Asked) -> Found:
        """Answer a request. Raises DataError for a wrong one, UnknownName for a model that is not there."""
        ...

    def examples(self) -> Mapping[str, list[dict[str, Any]]]:
        """Inputs that it answers, as JSON has them, by what they show."""
        ...


class Models(Protocol):
    """Models by name, each with its versions. Errors: UnknownName for what is not there, Refused for what may not be done."""

    def __iter__(self) -> Iterator[Model]:
        """Every version of every model."""
        ...

    def find(self, name: str, version: str = "") -> Model:
        """A version of a model; where none is named, what answers then."""
        ...

    def versions(self, name: str) -> Sequence[Model]:
        """All versions of a model."""
        ...

    def load(self, name: str) -> None:
        """Load a model, anew if it is loaded."""
        ...

    def unload(self, name: str) -> None:
        """Give a model back."""
        ...

    @property
    def ready(self) -> bool:
        """Whether all can answer."""
        ...


@dataclass
class Served:
    """A bare model; `clock` gives microseconds UTC. `model` is None while it is not loaded; what is answered goes into its `log`, where it
    has one."""

    name: str
    version: str
    load: Load
    clock: Callable[[], int]
    model: Tensors | None = None
    why: str = ""
    counts: Counts = field(default_factory=Counts)
    pace: Pace = field(default_factory=Pace)
    log: InferenceLog | None = None
    shared: ClassVar[bool] = False  # whether others may load or unload it

    @property
    def is_loaded(self) -> bool:
        """Whether it is there to be asked."""
        self.catch_up()
        return self.model is not None

    @property
    def is_ready(self) -> bool:
        """Whether it is loaded, and its log takes lines."""
        return self.is_loaded and (self.log is None or self.log.is_writable)

    def catch_up(self) -> None:
        """Find what was done to it elsewhere."""

    def load_anew(self) -> None:
        """Load it from where it lies; raises what that raises, and then the one before stays."""
        try:
            self.model, self.why = self.load(), ""
        except TidemillError as error:
            self.why = error.what
            raise

    def unload(self) -> None:
        """Give it back."""
        self.model, self.why = None, "it was unloaded"

    def slow(self, rows: int) -> bool:
        """Whether a run usually takes long, or may."""
        return self.pace.usual > SLOW or (self.model is not None and self.model.isolated)

    @property
    def platform(self) -> str:
        """What runs it, as the inference protocol names it."""
        return self.model.platform if self.model else "onnxruntime_onnx"

    def infer(self, asked: Asked) -> Found:
        """Answer a request, and log it. Raises DataError for a wrong one, UnknownName for a model that is not loaded, StoreError where the
        log cannot be written."""
        started, now, model = time.perf_counter_ns(), self.clock(), self._loaded()
        try:
            tensors, wanted, cached = oip.fitted(asked, model.inputs, model.outputs), [*asked.wanted], False
            begun = time.perf_counter_ns()
            if isinstance(model, CachedModel):
                outputs, cached = model.answer(tensors, wanted)
            else:
                outputs = model.run(tensors, wanted)
            ended = time.perf_counter_ns()
            caller().check()  # what is in the log was told
            found, line = self._found(asked, outputs, b"", now, started, cached=cached)
            if self.log is not None:
                self.log.write([line])
        except TidemillError as error:
            self.counts.fail(not isinstance(error, ClientGone))
            raise
        if not cached:
            self.pace.note(ended - begun)
        self.counts.note(asked.rows, ended - begun, ended - started, now, runs=not cached)
        return found

    def begin(self, asked: Asked) -> "Begun | None":
        """A request that is finished together with others, None where nothing is gained by that; raises as `infer`."""
        started, model = time.perf_counter_ns(), self._loaded()
        if isinstance(model, CachedModel):
            return None
        if self.log is None and not model.rowwise:
            return None
        try:
            return Begun(self, model, asked, oip.fitted(asked, model.inputs, model.outputs), asked.rows, started)
        except TidemillError:
            self.counts.fail()
            raise

    def finish(self, some: "Sequence[Begun]") -> "list[Found | TidemillError]":
        """Answer requests for the same outputs of the same model, and log them with one write."""
        begun, now = time.perf_counter_ns(), self.clock()
        found: list[Found | TidemillError] = []
        lines: list[bytes] = []
        answers, runs = _run(some)
        ended = time.perf_counter_ns()
        right: list[Begun] = []
        for one, given in zip(some, answers, strict=True):
            if isinstance(given, TidemillError):
                found.append(given)
                continue
            told, line = self._found(one.asked, *given, now, one.started)
            found.append(told)
            lines.append(line)
            right.append(one)
        try:
            if self.log is not None:
                self.log.write(lines)
        except TidemillError as error:
            found, right = [one if isinstance(one, TidemillError) else error for one in found], []
        self.counts.fail(len(some) - len(right))
        self.pace.note((ended - begun) // len(some))
        rows, whole = sum([one.rows for one in right]), len(right) * ended - sum([one.started for one in right])
        self.counts.note(rows, ended - begun, whole, now, len(right), runs)
        return found

    def _found(
        self, asked: Asked, outputs: Mapping[str, Array], shown: bytes, now: int, started: int, *, cached: bool = False
    ) -> tuple[Found, bytes]:
        """What a model said, `shown` as JSON where it was before, and the line of the log that says so, where there is one."""
        told, line = {"cached": "true"} if cached else {}, b""
        if self.log is not None:
            shown = shown or oip.show(asked, outputs)
            told["prediction_id"], line = self.log.line(self.version, asked, shown, now, started, cached=cached)
        return Found(self.version, outputs, told, shown), line

    def tensors(self) -> tuple[Mapping[str, Spec], Mapping[str, Spec]]:
        """What it takes, and what it gives. Raises UnknownName where it is not loaded."""
        model = self._loaded()
        return model.inputs, model.outputs

    def examples(self) -> Mapping[str, list[dict[str, Any]]]:
        """Two rows of ones; nothing while it is not loaded."""
        return {"two rows of ones": made_up(self.model.inputs.values())} if self.is_loaded and self.model else {}

    def _loaded(self) -> Tensors:
        if self.shared:
            self.catch_up()
        model = self.model
        if model is None:
            raise UnknownName(f"the model {self.name!r} is not loaded: {self.why}", hint=f"POST /v2/repository/models/{self.name}/load")
        return model


class Begun(msgspec.Struct, eq=False):
    """A request to a bare model that was found right: its tensors as the model takes them, how many rows the first of them has, and when it
    came, by `time.perf_counter_ns`."""

    by: Served
    model: Tensors
    asked: Asked
    tensors: Mapping[str, Array]
    rows: int
    started: int

    def is_like(self, other: "Begun") -> bool:
        """Whether it asks the same model for the same outputs."""
        own, others = self.asked.wanted, other.asked.wanted
        return self.model is other.model and self.by is other.by and (own is others or [*own] == [*others])

    @property
    def can_share(self) -> bool:
        """Whether one run may answer it and others: it has rows, as many in each tensor."""
        return self.rows > 0 and (len(self.tensors) == 1 or {*map(len, self.tensors.values())} == {self.rows})


def _run(some: Sequence[Begun]) -> tuple[list[Outcome | TidemillError], int]:
    """What a model gives to each, in one run where a row's answer does not depend on the others; how many runs that were."""
    model, wanted = some[0].model, [*some[0].asked.wanted]
    if model.rowwise and len(some) > 1 and all(one.can_share for one in some):
        try:
            outputs = model.run({name: np.concatenate([one.tensors[name] for one in some]) for name in model.inputs}, wanted)
        except TidemillError:
            pass  # each by itself says which one is wrong
        else:
            rows = [one.rows for one in some]
            shown = oip.show_each(outputs) if max(rows) == 1 else None
            if shown is None:
                shown = [b""] * len(some)
            parts = zip(some, accumulate(rows), rows, shown, strict=True)
            return [
                ({}, text) if text and one.asked.in_json else ({name: all_[end - many : end] for name, all_ in outputs.items()}, text)
                for one, end, many, text in parts
            ], 1
    return [_run_alone(model, one.tensors, wanted) for one in some], len(some)


def _run_alone(model: Tensors, tensors: Mapping[str, Array], wanted: Sequence[str]) -> Outcome | TidemillError:
    try:
        return model.run(tensors, wanted), b""
    except TidemillError as error:
        return error


def made_up(specs: Iterable[Spec]) -> list[dict[str, Any]]:
    """Tensors that fit: two rows of ones, texts `a`."""
    found = []
    for spec in specs:
        shape = [size if size >= 0 else 1 if place else 2 for place, size in enumerate(spec.shape)]
        value: Any = {"BYTES": "a", "BOOL": True}.get(spec.datatype, 1)
        found.append({"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [value] * prod(shape)})
    return found


class Repository:
    """Bare models."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models: dict[str, dict[str, Served]] = {}
        for one in models:
            self._models.setdefault(one.name, {})[one.version] = one
        self._last = {name: next(reversed(versions.values())) for name, versions in self._models.items()}

    def __iter__(self) -> Iterator[Served]:
        return (one for versions in self._models.values() for one in versions.values())

    def find(self, name: str, version: str = "") -> Served:
        """A version of a model, the last one where none is named. Raises UnknownName."""
        if not version and name in self._last:
            return self._last[name]
        versions = self._versions(name)
        if version not in versions:
            raise UnknownName(f"the model {name!r} has no version {version!r}", available=[*versions])
        return versions[version]

    def versions(self, name: str) -> list[Served]:
        """All versions of a model; raises UnknownName."""
        return [*self._versions(name).values()]

    def _versions(self, name: str) -> dict[str, Served]:
        if name not in self._models:
            raise UnknownName(f"there is no model {name!r}", available=sorted(self._models))
        return self._models[name]

    def load(self, name: str) -> None:
        """Load a model from where it lies, anew if it is loaded. Raises UnknownName, and what loading raises: then the one before stays."""
        for one in self._versions(name).values():
            one.load_anew()

    def unload(self, name: str) -> None:
        """Give a model back; raises UnknownName."""
        for one in self._versions(name).values():
            one.unload()

    @property
    def ready(self) -> bool:
        """Whether every model is loaded, and the logs take lines."""
        return all(one.is_ready for one in self)
