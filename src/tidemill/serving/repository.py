"""Bare models by name: loaded, unloaded, listed, and what they did so far."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill.core import Array, TidemillError, UnknownName
from tidemill.models import OnnxModel, Pace
from tidemill.serving import oip

SLOW = 1_000_000  # nanoseconds of a run from which on it leaves the event loop
Load = Callable[[], OnnxModel]


@dataclass
class Counts:
    """What a version answered: requests, rows, and nanoseconds; `last`, in microseconds UTC, when the newest was."""

    requests: int = 0
    failed: int = 0
    rows: int = 0
    run: int = 0
    whole: int = 0
    pace: Pace = field(default_factory=Pace)
    last: int = 0

    def plain(self) -> dict[str, Any]:
        """As Triton tells them."""
        parts = {"success": (self.requests, self.whole), "fail": (self.failed, 0), "compute_infer": (self.requests, self.run)}
        parts |= dict.fromkeys(("queue", "compute_input", "compute_output"), (0, 0))
        told = {name: {"count": count, "ns": ns} for name, (count, ns) in parts.items()}
        counts = {"inference_count": self.rows, "execution_count": self.requests}
        return {"last_inference": self.last // 1_000, **counts, "inference_stats": told}


@dataclass
class Served:
    """One version of a model; `clock` gives microseconds UTC. `model` is None while it is not loaded, and `why` says why not."""

    name: str
    version: str
    load: Load
    clock: Callable[[], int]
    model: OnnxModel | None = None
    why: str = ""
    counts: Counts = field(default_factory=Counts)

    @property
    def slow(self) -> bool:
        """Whether others would wait for a run."""
        return self.counts.pace.usual > SLOW

    def infer(self, body: bytes, head: int | None) -> tuple[bytes, int | None]:
        """Answer a request of the protocol. Raises DataError for a wrong one, UnknownName for a model that is not loaded."""
        started, counts, model = time.perf_counter_ns(), self.counts, self.ready()
        try:
            asked = oip.read(body, head)
            tensors = oip.fitted(asked, model.inputs, model.outputs)
            begun = time.perf_counter_ns()
            found = model.run(tensors, list(asked.wanted))
            run = time.perf_counter_ns() - begun
            answer = oip.write(self.name, self.version, asked, found)
        except TidemillError:
            counts.failed += 1
            raise
        counts.requests += 1
        counts.rows += _rows(tensors)
        counts.run += run
        counts.pace.note(run)
        counts.whole += time.perf_counter_ns() - started
        counts.last = self.clock()
        return answer

    def ready(self) -> OnnxModel:
        """The model; raises UnknownName where it is not loaded."""
        if self.model is None:
            raise UnknownName(f"the model {self.name!r} is not loaded: {self.why}", hint=f"POST /v2/repository/models/{self.name}/load")
        return self.model


def _rows(tensors: Mapping[str, Array]) -> int:
    first = next(iter(tensors.values()), None)
    return len(first) if first is not None and first.ndim else 1


class Repository:
    """Models by name, each with its versions."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models: dict[str, dict[str, Served]] = {}
        for one in models:
            self._models.setdefault(one.name, {})[one.version] = one

    def __iter__(self) -> Iterator[Served]:
        return (one for versions in self._models.values() for one in versions.values())

    def find(self, name: str, version: str = "") -> Served:
        """A version of a model, the last one where none is named. Raises UnknownName."""
        versions = self.versions(name)
        if version and version not in versions:
            raise UnknownName(f"the model {name!r} has no version {version!r}", available=[*versions])
        return versions[version or next(reversed(versions))]

    def versions(self, name: str) -> dict[str, Served]:
        """All versions of a model; raises UnknownName."""
        if name not in self._models:
            raise UnknownName(f"there is no model {name!r}", available=sorted(self._models))
        return self._models[name]

    def load(self, name: str) -> None:
        """Load a model from where it lies, anew if it is loaded. Raises UnknownName, and what loading raises: then the one before stays."""
        for one in self.versions(name).values():
            try:
                one.model, one.why = one.load(), ""
            except TidemillError as error:
                one.why = error.what
                raise

    def unload(self, name: str) -> None:
        """Give a model back; raises UnknownName."""
        for one in self.versions(name).values():
            one.model, one.why = None, "it was unloaded"

    @property
    def ready(self) -> bool:
        """Whether every model is loaded that was not unloaded by somebody."""
        return all(one.model for one in self)
