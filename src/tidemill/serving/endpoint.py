"""A deployment that answers: keys in, features looked up at the request's time, prediction out, and the ladder of fallbacks.

Built from the ledger alone: neither the user's files nor a training library is imported.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tidemill.core import DataError, Floats, Instants, Refused, TidemillError
from tidemill.features import (
    Function,
    Matrix,
    OnlineStore,
    Output,
    Reader,
    Requests,
)
from tidemill.ledger import Ledger
from tidemill.models import Predictor, golden_differences, golden_of, load_model
from tidemill.serving.answers import Answer, Basis, inputs_of, is_kept
from tidemill.serving.given import Given
from tidemill.serving.routing import Route, to_challenger
from tidemill.serving.rows import Part, Rows, open_rows

log = logging.getLogger(__name__)
MAX_ROWS = 10_000
TIMED_ROWS = 100  # a timeout is for this many rows
FEW = 10  # rows that are answered on an event loop
PROMPT = 200_000  # nanoseconds of a model's run up to which handing it to another thread takes longer
Named = tuple[str, str]  # a version by its label and the digest of its model
Scored = list[tuple[float, str, str]]  # of each row its probability, the version that gave it, and the rung
T = TypeVar("T")


class Rung(NamedTuple):
    """A step of the ladder: its name, for how many rows, what gives their answers, and whether it is done before somebody else could be
    asked to do it."""

    name: str
    rows: int
    give: Callable[[], Scored]
    at_once: bool = False


Climb = Generator[Rung, Scored | None, T]


@dataclass(frozen=True)
class Standing:
    """Which versions serve, by label and digest, and the weight of the challenger; `branch` is the history that they come from."""

    branch: str
    champion: Named
    previous: Named | None = None
    challenger: Named | None = None
    weight: float = 0.0
    sticky_by: str = ""


@dataclass
class Endpoint:
    """One deployment, ready. `fallback` are ("previous version", 0) or ("constant", value) in order; `timeout` in microseconds, for
    each started 100 rows of a request."""

    name: str
    standing: Standing
    rows: Rows
    predictors: dict[str, Predictor]
    fallback: Sequence[tuple[str, float]] = ()
    timeout: int = 1_000_000
    versions: Mapping[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _pools: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def answer(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool = False, keep: float = 0.0) -> list[Answer]:
        """Answer requests at their prediction times (microseconds UTC), each by its key or by its own columns. `keep` is the share of
        answers with their basis, chosen by key and time. Raises DataError and UnknownName for a wrong request."""
        steps = self._steps(rows, at, explain=explain, keep=keep)
        rung, answers = _next(steps, None)
        while rung:
            rung, answers = _next(steps, self._try(rung))
        return answers

    async def answered(
        self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool = False, keep: float = 0.0
    ) -> list[Answer]:
        """The same on an event loop, which goes on while a model computes. Features are read on it: for a few rows, where `quick`."""
        steps = self._steps(rows, at, explain=explain, keep=keep)
        rung, answers = _next(steps, None)
        while rung:
            rung, answers = _next(steps, await self._tried(rung))
        return answers

    @cached_property
    def quick(self) -> bool:
        """Whether no code of the project and no other model computes a feature."""
        return not any(isinstance(view.features, Function | Output) for view in self.reader.views)

    @property
    def prompt(self) -> bool:
        """Whether a few rows are answered before others could be kept waiting."""
        return self.quick and all(one.pace.within(PROMPT) for one in self.predictors.values())

    def _steps(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool, keep: float) -> Climb[list[Answer]]:
        """Asks for one rung after the other, and is told what each gave."""
        if not rows or len(rows) > MAX_ROWS:
            raise DataError(f"{len(rows)} rows were sent; between 1 and {MAX_ROWS} are answered at once")
        when = np.array(at, dtype=np.int64)
        answers: dict[int, Answer] = {}
        for part in self.rows.parts(rows, when, self._given):
            each = yield from self._answer(part, when[part.places], explain=explain, keep=keep)
            answers |= zip(part.places, each, strict=True)
        return [answers[i] for i in range(len(rows))]

    def _answer(self, part: Part, when: Instants, *, explain: bool, keep: float) -> Climb[list[Answer]]:
        matrix = self._features(part.requests, when) if part.matrix is None else part.matrix
        scored = yield from self._score(part.requests, matrix)
        answers, versions = [], self.versions if part.matrix is None else {}
        keys, times = [key.decode() for key in part.requests.keys.tolist()], when.tolist()
        for i, (probability, version, rung) in enumerate(scored):
            kept = matrix is not None and is_kept(keys[i], times[i], keep)
            inputs = inputs_of(matrix, i) if matrix is not None and (explain or kept) else None
            basis = Basis(inputs, versions, part.sent[i] if part.sent else None) if kept and inputs is not None else None
            path = "none" if matrix is None else "request" if part.matrix else "online" if matrix.online[i] else "offline"
            problems, damaged = ({}, False) if matrix is None else (matrix.problems(i), matrix.damaged)
            shown = inputs if explain else None
            answers.append(Answer(keys[i], probability, version, rung, times[i], path, problems, shown, damaged, basis))
            self._count(rung, 1)
        return answers

    @cached_property
    def _given(self) -> Given:
        """How rows are read that bring their features: those of the champion."""
        return Given(self.predictors[self.standing.champion[1]].signature, self.rows.dataset.keys, self.rows.types)

    @property
    def reader(self) -> Reader:
        """What looks features up."""
        return self.rows.reader

    def _count(self, what: str, rows: int) -> None:
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + rows

    def _try(self, rung: Rung) -> Scored | None:
        """What a rung gives within the timeout; None where it fails or is too late."""
        found = None
        with self._noted(rung):
            if rung.at_once:
                return rung.give()
            future = self._begun(rung)
            try:
                found = future.result(self._seconds(rung))
            finally:
                future.cancel()
        return found

    async def _tried(self, rung: Rung) -> Scored | None:
        """The same on an event loop."""
        found = None
        with self._noted(rung):
            if rung.at_once:
                return rung.give()
            found = await asyncio.wait_for(asyncio.wrap_future(self._begun(rung)), self._seconds(rung))
        return found  # noqa: RET504 – None where that failed

    def _begun(self, rung: Rung) -> Future[Scored]:
        """Each rung has threads of its own: one that hangs does not take the next one's."""
        pool = self._pools.get(rung.name)
        if pool is None:
            with self._lock:
                pool = self._pools.setdefault(rung.name, ThreadPoolExecutor(2))
        return pool.submit(rung.give)

    def _seconds(self, rung: Rung) -> float:
        return self.timeout / 1e6 * -(-rung.rows // TIMED_ROWS)

    def _features(self, requests: Requests, at: Instants) -> Matrix | None:
        try:
            return self.reader.read(requests, at)
        except (TidemillError, OSError):
            if not any(kind == "constant" for kind, _ in self.fallback):
                raise
            return None  # a dead store: the ladder goes on at its constant

    def _score(self, requests: Requests, matrix: Matrix | None) -> Climb[Scored]:
        for rung in self._ladder(requests, matrix):
            answers = yield rung
            if answers is not None and matrix is not None and rung.name == "champion":
                return (yield from self._with_challenger(answers, requests, matrix))
            if answers is not None:
                return answers
        raise Refused(f"no rung of deployment {self.name!r} could answer", hint="declare a Constant fallback, and look at the server's log")

    @contextmanager
    def _noted(self, rung: Rung) -> Iterator[None]:
        """Count a rung that fails or is too late."""
        try:
            yield
        except Late:
            self._count(f"{rung.name}: too late", rung.rows)
        except Exception as error:  # noqa: BLE001 – whatever a rung does, the next one answers; the count, the log and the rung tell
            self._count(f"{rung.name}: failed", rung.rows)
            log.warning("deployment=%s rung=%s rows=%d error=%r", self.name, rung.name, rung.rows, error)

    def _ladder(self, requests: Requests, matrix: Matrix | None) -> list[Rung]:
        found, rows = list[Rung](), len(requests)
        if matrix is not None:
            found.append(self._rung("champion", self.standing.champion, matrix.values, matrix))
        for kind, value in self.fallback:
            previous = self.standing.previous
            if kind == "previous version" and previous and matrix is not None:
                found.append(self._rung(kind, previous, matrix.values, matrix))
            if kind == "constant":
                found.append(Rung(kind, rows, partial(_constant, value, rows), at_once=True))
        return found

    def _rung(self, name: str, version: Named, values: Floats, matrix: Matrix) -> Rung:
        at_once = len(values) <= FEW and self.predictors[version[1]].pace.within(PROMPT)
        return Rung(name, len(values), partial(self._predict, version, name, values, matrix), at_once)

    def _with_challenger(self, answers: Scored, requests: Requests, matrix: Matrix) -> Climb[Scored]:
        """The champion's answers, with those of the challenger for its share; where it cannot, the champion's stay."""
        champion, challenger = self.standing.champion, self.standing.challenger
        if challenger is None or self.standing.weight <= 0:
            return answers
        route = Route(champion[0], challenger[0], self.standing.weight, f"{self.name}/{challenger[0]}")
        own = [key.decode() for key in requests.keys.tolist()]
        texts = requests.texts.get(self.standing.sticky_by)
        keys = own if texts is None else [text or key for text, key in zip(texts.texts(), own, strict=True)]
        rows = np.flatnonzero(to_challenger(route, keys))
        others = (yield self._rung("challenger", challenger, matrix.values[rows], matrix)) if len(rows) else None
        for row, other in zip(rows.tolist(), others or [], strict=False):
            answers[row] = other
        return answers

    def _predict(self, version: Named, rung: str, values: Floats, matrix: Matrix) -> Scored:
        """What a version says to feature rows, whose columns are those of a matrix. Raises DataError where that is no number."""
        predictor = self.predictors[version[1]]
        asked = predictor.signature.align(matrix.names, values, matrix.vocabularies)
        begun = time.perf_counter_ns()
        found = predictor.predict(asked)
        if len(values) <= FEW:
            predictor.pace.note(time.perf_counter_ns() - begun)
        scores = found.tolist()
        nothing = sum(score != score for score in scores)  # NaN is not itself
        if nothing:
            raise DataError(f"{version[0]} gives {nothing} rows no probability")
        return [(score, version[0], rung) for score in scores]


def _constant(value: float, rows: int) -> Scored:
    return [(value, "", "constant")] * rows


def _next(steps: Climb[list[Answer]], gave: Scored | None) -> tuple[Rung | None, list[Answer]]:
    """The next rung to try, or the answers."""
    try:
        return steps.send(gave), []
    except StopIteration as done:
        return None, done.value


def open_endpoint(
    ledger: Ledger,
    name: str,
    recipe: Mapping[str, Any],
    standing: Standing,
    *,
    fallback: Sequence[tuple[str, float]] = (),
    timeout: int = 1_000_000,
    online: OnlineStore | None = None,
    functions: Sequence[Function] = (),
) -> Endpoint:
    """An endpoint from the recipe of a branch; `functions` are those that are here, for the views that are one. Golden cases are run
    first: raises Refused when the champion answers otherwise. A previous version or a challenger that does, or whose bytes are lost, is
    left out: the champion answers in its place."""
    rows = open_rows(ledger, recipe, online=online, functions=functions)
    predictors = {standing.champion[1]: _load(ledger, *standing.champion)}
    previous, challenger = (_load_or_leave(ledger, name, version, predictors) for version in (standing.previous, standing.challenger))
    standing = replace(standing, previous=previous, challenger=challenger)
    short = {"requests": recipe["requests"][:12]} | {f"view {view}": digest[:12] for view, digest in rows.reader.versions.items()}
    return Endpoint(name, standing, rows, predictors, fallback, timeout, short)


def _load_or_leave(ledger: Ledger, name: str, version: Named | None, predictors: dict[str, Predictor]) -> Named | None:
    """A version that stands beside the champion, among the predictors; None where there is none, or it cannot serve."""
    try:
        predictors |= {version[1]: _load(ledger, *version)} if version else {}
    except TidemillError as error:
        log.warning("deployment=%s version=%s left_out=true error=%s", name, version and version[0], error.what)
        return None
    return version


def _load(ledger: Ledger, label: str, digest: str) -> Predictor:
    artifact = ledger.artifact_of("model", digest)
    predictor = load_model(ledger, artifact)
    wrong = golden_differences(predictor, golden_of(ledger, artifact))
    if wrong:
        hint = "the runtime or the machine differs from the one it was made on: train it again here"
        raise Refused(f"{label} answers {wrong} of its golden cases otherwise than when it was made", where=str(artifact.ref), hint=hint)
    return predictor
