"""Deployments as the models of the inference protocol: checked, weighed, fallen back and logged as rows of features over `/predict` are."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from tidemill.core import ClientGone, DataError, Refused, TidemillError, UnknownName
from tidemill.features import Requests
from tidemill.models import Spec
from tidemill.serving.answers import Answer
from tidemill.serving.asking import FEW
from tidemill.serving.caller import LONGEST, caller
from tidemill.serving.counters import Counters
from tidemill.serving.endpoint import MAX_ROWS, Endpoint
from tidemill.serving.ids import whole_of
from tidemill.serving.log import AnswerLog
from tidemill.serving.oip import Asked, Found, check_outputs
from tidemill.serving.repository import Counts, made_up
from tidemill.serving.rows import Part
from tidemill.serving.tensors import MATRIX

OUTPUT = "probability"
OUTPUTS = {OUTPUT: Spec(OUTPUT, "FP64", (-1, 1))}


@dataclass(frozen=True)
class Deployments:
    """Those of a gateway: `endpoints` and `logs` by name change while it runs, and `clock` gives microseconds UTC."""

    endpoints: Mapping[str, Endpoint]
    logs: Mapping[str, AnswerLog]
    clock: Callable[[], int]
    counters: Counters = field(default_factory=Counters)
    counted: dict[tuple[str, str], Counts] = field(default_factory=dict)

    def __iter__(self) -> Iterator["Deployed"]:
        return (one for name in [*self.endpoints] for one in self.versions(name))

    def find(self, name: str, version: str = "") -> "Deployed":
        """A deployment as a whole, or a version that stands in it, by its label. Raises UnknownName."""
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise UnknownName(f"no deployment is named {name!r}", available=sorted(self.endpoints))
        if version and version not in (labels := endpoint.standing.labels):
            raise UnknownName(f"the version {version!r} does not serve in {name!r}", available=list(labels))
        return Deployed(self, endpoint, version)

    def versions(self, name: str) -> list["Deployed"]:
        """Those that serve, the champion first; raises UnknownName."""
        whole = self.find(name)
        return [Deployed(self, whole.endpoint, label) for label in whole.endpoint.standing.labels]

    def load(self, name: str) -> None:
        """Raises Refused: what a deployment serves is decided by its gates."""
        hint = "`tidemill run` promotes what passes its gates, `tidemill rollback` lets an earlier version serve"
        raise Refused(f"{self.find(name).name!r} is a deployment: its versions are not loaded or unloaded by hand", hint=hint)

    unload = load

    @property
    def ready(self) -> bool:
        """Whether there is one, and the logs take lines."""
        return bool(self.endpoints) and all(log.is_writable for log in [*self.logs.values()])


@dataclass(frozen=True)
class Deployed:
    """A deployment as a model, or with its label one version of it alone."""

    models: Deployments
    endpoint: Endpoint
    label: str = ""
    why = ""
    is_loaded = True

    @property
    def is_ready(self) -> bool:
        """Whether its log takes lines."""
        return self.models.logs[self.name].is_writable

    @property
    def name(self) -> str:
        """That of the deployment."""
        return self.endpoint.name

    @property
    def version(self) -> str:
        """Its label; of the whole the champion's."""
        return self.label or self.endpoint.standing.champion[0]

    @property
    def platform(self) -> str:
        """What runs the version: "onnx", or the library and the format of an isolated original."""
        _, digest = self.endpoint.standing.labels[self.version]
        return self.endpoint.predictors[digest].platform

    @property
    def counts(self) -> Counts:
        """What the version answered over the protocol since the start."""
        return self._counts(self.version)

    def _counts(self, version: str) -> Counts:
        of = self.name, version or self.version
        return self.models.counted.get(of) or self.models.counted.setdefault(of, Counts(self.models.counters, *of))

    def slow(self, rows: int) -> bool:
        """Whether others would wait for an answer to so many rows."""
        return rows > FEW or not self.endpoint.brisk

    def tensors(self) -> tuple[Mapping[str, Spec], Mapping[str, Spec]]:
        """The matrix, then each feature by its name; the probability."""
        specs = self.endpoint.tensors[self.version].specs
        return dict(sorted(specs.items(), key=lambda one: len(one[1].shape), reverse=True)), OUTPUTS

    def examples(self) -> Mapping[str, list[dict[str, Any]]]:
        """The features of the newest known request, in both forms."""
        known, tensors = self.endpoint.rows.known, self.endpoint.tensors[self.version]
        if not len(known):
            return {"a tensor for each feature": made_up(spec for name, spec in tensors.specs.items() if name != MATRIX)}
        newest = known.take([len(known) - 1])
        return tensors.examples(self.endpoint.reader.read(newest, newest.at))

    def infer(self, asked: Asked) -> Found:
        """Answer a request, and log it. Raises DataError for a wrong one, Unavailable where no version and no fallback answers."""
        started, now, log = time.perf_counter_ns(), self.models.clock(), self.models.logs[self.name]
        who = caller()
        who.deployment, who.version = self.name, self.version
        try:
            check_outputs(asked, OUTPUTS)
            part = self._part(asked, now)
            begun = time.perf_counter_ns()
            answers = self.endpoint.answer_part(part, keep=log.keep, only=self.label)
            ended = time.perf_counter_ns()
            who.check()  # what is in the log was told
            ids = log.append(answers, now, self.endpoint.standing.branch, begun=started, **self._route(asked))
        except TidemillError as error:
            self.counts.fail(not isinstance(error, ClientGone))
            raise
        who.version, who.rung, who.prediction = answers[0].version, answers[0].rung, ids[0]
        found = _found(answers, whole_of(ids[0]))
        self._counts(found.version).note(len(answers), ended - begun, time.perf_counter_ns() - started, now)
        return found

    def _route(self, asked: Asked) -> dict[str, str]:
        """How a request came, for the log."""
        route = {"route": f"infer {self.label}" if self.label else "infer"}
        name = asked.id or asked.request
        return route | ({"request": name[:LONGEST]} if name else {})

    def _part(self, asked: Asked, now: int) -> Part:
        matrix, beside = self.endpoint.tensors[self.version].matrix(asked)
        rows = len(matrix.values)
        if not 0 < rows <= MAX_ROWS:
            raise DataError(f"{rows} rows were sent; between 1 and {MAX_ROWS} are answered at once", where="inputs")
        keys = [self.endpoint.rows.beside(i, row) for i, row in enumerate(beside)]
        requests = Requests.bare(keys, np.array([now] * rows, dtype=np.int64))
        return Part(range(rows), requests, None, matrix, _sticky(asked, rows))


def _sticky(asked: Asked, rows: int) -> Sequence[str]:
    """By what each row keeps its version while weights move: the parameter `sticky_key`, one text or one for each row, or the id of the
    request; empty where neither came."""
    key: Any = asked.parameters.get("sticky_key", asked.id) if asked.parameters else asked.id
    if isinstance(key, str):
        return [key] * rows if key else ()
    if isinstance(key, list) and len(key) == rows and all(isinstance(one, str) for one in key):
        return key
    raise DataError(f"sticky_key is {key!r:.100}", where="parameters.sticky_key", hint=f"send a text, or a list of {rows}")


def _found(answers: Sequence[Answer], prediction: str) -> Found:
    """The probabilities, with the version and the rung of all rows, or of each where they differ; and the id of the prediction."""
    probabilities = np.array([[answer.probability] for answer in answers], dtype=np.float64)
    by = [*dict.fromkeys((answer.version, answer.rung) for answer in answers)]
    if len(by) > 1:
        by += [(",".join(answer.version for answer in answers), ",".join(answer.rung for answer in answers))]
    version, rung = by[-1]
    told = {"rung": rung, "version": version, "prediction_id": prediction}
    cached = [str(answer.cached).lower() for answer in answers]
    told |= {"cached": cached[0] if len({*cached}) == 1 else ",".join(cached)} if "true" in cached else {}
    if any(answer.unexpected for answer in answers):
        each = [dict(answer.unexpected) for answer in answers]
        told["unexpected"] = msgspec.json.encode(each[0] if len(each) == 1 else each).decode()
    return Found(version if len(by) == 1 else "", {OUTPUT: probabilities}, told)
