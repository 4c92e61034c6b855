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
from math import isinf
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tidemill.core import DataError, Floats, Instants, Ints, Ref, Refused, TidemillError, UnknownName, show
from tidemill.data import Dataset
from tidemill.features import (
    FeatureView,
    Feed,
    Function,
    Matrix,
    OnlineStore,
    Output,
    OwnColumns,
    Reader,
    Requests,
    RequestView,
    bound,
    check_values,
    from_definition,
    key_text,
    load,
    load_requests,
)
from tidemill.ledger import Ledger
from tidemill.models import Predictor, golden_differences, golden_of, load_model
from tidemill.serving.routing import Route, share, to_challenger

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


@dataclass(frozen=True)
class Basis:
    """What an answer rests on: `inputs`, the value of each feature; `versions`, the digest's start of each view and of the requests that it
    was read from; and for a request that brought its own columns, `sent`, those."""

    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    sent: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        found = {"inputs": self.inputs, "versions": self.versions}
        return found if self.sent is None else found | {"sent": self.sent}


@dataclass(frozen=True)
class Answer:
    """One prediction. `rung` is what gave it; `features` is the path they came by; `problems` are views without a value, and why; `basis`
    is there where it is kept."""

    key: str
    probability: float
    version: str
    rung: str
    at: int
    features: str
    problems: dict[str, str]
    inputs: dict[str, Any] | None = None
    store_damaged: bool = False
    basis: Basis | None = None

    def plain(self, views: int, *, stored: bool = True) -> dict[str, Any]:
        """For JSON, with a note where it rests on nothing that was looked up. `stored`: there is an online store."""
        found = {"key": self.key, "probability": self.probability, "version": self.version, "rung": self.rung, "at": show(self.at)}
        found |= {"features_from": self.features, "features_missing": self.problems}
        if views and len(self.problems) == views:
            found["note"] = "every looked-up feature is missing or expired at this time"
        if self.store_damaged:
            found["note_features"] = "the online store cannot be read: answered from the offline path"
        elif self.features == "offline" and stored:
            found["note_features"] = "older than the newest stored value, or newer rows are known: answered from the offline path"
        return found if self.inputs is None else found | {"inputs": self.inputs}


@dataclass
class Endpoint:
    """One deployment, ready. `fallback` are ("previous version", 0) or ("constant", value) in order; `timeout` in microseconds, for
    each started 100 rows of a request."""

    name: str
    standing: Standing
    reader: Reader
    requests: Requests
    dataset: Dataset
    types: Mapping[str, str]
    predict_at: str
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
        places, when = self._places(rows), np.array(at, dtype=np.int64)
        parts: list[tuple[Ints, Requests]] = []
        for chosen in (np.flatnonzero(places >= 0), np.flatnonzero(places < 0)):
            if len(chosen):
                parts.append((chosen, self._requests([rows[i] for i in chosen.tolist()], places[chosen])))
                _check_known(chosen, parts[-1][1], when)
        answers: dict[int, Answer] = {}
        for chosen, requests in parts:
            sent = [rows[i] for i in chosen.tolist()] if places[chosen[0]] < 0 else None
            each = yield from self._answer(requests, when[chosen], sent, explain=explain, keep=keep)
            answers |= zip(chosen.tolist(), each, strict=True)
        return [answers[i] for i in range(len(rows))]

    def _answer(
        self, requests: Requests, when: Instants, sent: Sequence[Mapping[str, Any]] | None, *, explain: bool, keep: float
    ) -> Climb[list[Answer]]:
        matrix = self._features(requests, when)
        scored = yield from self._score(requests, matrix)
        keys = [key.decode() for key in requests.keys.tolist()]
        answers = []
        for i, (probability, version, rung) in enumerate(scored):
            path = "none" if matrix is None else "online" if matrix.online[i] else "offline"
            problems = {} if matrix is None else matrix.problems(i)
            kept = matrix is not None and is_kept(keys[i], int(when[i]), keep)
            inputs = inputs_of(matrix, i) if matrix is not None and (explain or kept) else None
            basis = Basis(inputs, self.versions, sent[i] if sent else None) if kept and inputs is not None else None
            damaged = matrix is not None and matrix.damaged
            shown = inputs if explain else None
            answers.append(Answer(keys[i], probability, version, rung, int(when[i]), path, problems, shown, damaged, basis))
            self._count(rung, 1)
        return answers

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

    def _places(self, rows: Sequence[Mapping[str, Any]]) -> Ints:
        """The row of each request that is sent by its key alone; −1 for one that brings its own columns."""
        places = []
        for i, row in enumerate(rows):
            missing = [part for part in self.dataset.keys if row.get(part) is None]
            if missing:
                what = f"rows[{i}] has a null key {missing[0]!r}" if missing[0] in row else f"rows[{i}] lacks the key {missing[0]!r}"
                raise DataError(what, available=sorted(map(str, row)), hint=f"send {list(self.dataset.keys)}")
            odd = [name for name in row if name not in self.types]
            if odd:
                raise DataError(f"rows[{i}] has a field {odd[0]!r} that the request does not know", available=sorted(self.types))
            check_values({part: self.types[part] for part in self.dataset.keys}, row)
            key = key_text([str(row[part]) for part in self.dataset.keys])
            alone = len(row) == len(self.dataset.keys)
            if "\0" in key and not alone:
                raise DataError(f"rows[{i}] has a zero character in its key {key!r}", hint="a key is a text without one")
            places.append(self.requests.find(key) if alone else -1)
            if alone and places[-1] < 0:
                hint = "send the key of a known request, or the request with all its columns"
                raise UnknownName(f"no request has the key {dict(row)}", available=list(self.types), hint=hint)
        return np.array(places, dtype=np.int64)

    def _requests(self, rows: Sequence[Mapping[str, Any]], places: Ints) -> Requests:
        if places[0] >= 0:
            return self.requests.take(places)
        return self._own.requests(rows)

    @cached_property
    def _own(self) -> OwnColumns:
        """How requests that bring their own columns are computed: compiled for the first of them."""
        return own_columns(self.reader, self.dataset, self.types, self.predict_at)

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
        if np.isnan(found).any():
            raise DataError(f"{version[0]} gives {int(np.isnan(found).sum())} rows no probability")
        return [(probability, version[0], rung) for probability in found.tolist()]


def _constant(value: float, rows: int) -> Scored:
    return [(value, "", "constant")] * rows


def _next(steps: Climb[list[Answer]], gave: Scored | None) -> tuple[Rung | None, list[Answer]]:
    """The next rung to try, or the answers."""
    try:
        return steps.send(gave), []
    except StopIteration as done:
        return None, done.value


def _check_known(rows: Ints, requests: Requests, when: Instants) -> None:
    """Raise DataError for the first of these rows that nobody knew at its prediction time."""
    for row, known in zip(rows.tolist(), requests.known.tolist(), strict=True):
        if known > when[row]:
            what = f"rows[{row}] was not known at {show(int(when[row]))}: it became known at {show(known)}"
            raise DataError(what, hint="ask about it later, or leave out `at`")


def is_kept(key: str, at: int, keep: float) -> bool:
    """Whether the answer to a key at a time belongs to a share of all: one that does belongs to every greater share too.

    >>> is_kept("N123", 7, 1.0), is_kept("N123", 7, 0.0)
    (True, False)
    """
    return keep >= 1 or (keep > 0 and share(f"{key}/{at}", "basis") < keep)


def inputs_of(matrix: Matrix, row: int) -> dict[str, Any]:
    """The features of one row for people: categories as text, missing as null; an infinite number as text, since JSON has none."""
    found: dict[str, Any] = {}
    for name, value in zip(matrix.names, matrix.values[row].tolist(), strict=True):
        words = matrix.vocabularies.get(name)
        if value != value:  # NaN is not itself
            found[name] = None
        else:
            found[name] = words[int(value)] if words else str(value) if isinf(value) else value
    return found


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
    reader, requests, dataset, types = open_recipe(ledger, recipe, online=online, functions=functions)
    predictors = {standing.champion[1]: _load(ledger, *standing.champion)}
    previous, challenger = (_load_or_leave(ledger, name, version, predictors) for version in (standing.previous, standing.challenger))
    standing = replace(standing, previous=previous, challenger=challenger)
    short = {"requests": recipe["requests"][:12]} | {f"view {view}": digest[:12] for view, digest in reader.versions.items()}
    return Endpoint(name, standing, reader, requests, dataset, types, recipe["predict_at"], predictors, fallback, timeout, short)


def open_recipe(
    ledger: Ledger, recipe: Mapping[str, Any], *, online: OnlineStore | None = None, functions: Sequence[Function] = ()
) -> tuple[Reader, Requests, Dataset, Mapping[str, str]]:
    """What a recipe reads features with: the reader of its views, its requests, and their dataset with the types of its columns."""
    views = [bound(ledger, from_definition(view["definition"], functions)) for view in recipe["views"]]
    logs, versions, feeds = {}, {}, {}
    for view, plain in zip(views, recipe["views"], strict=True):
        if isinstance(view, FeatureView):
            version = ledger.artifact(Ref("feature view", view.name, "", plain["digest"]))
            logs[view.name], versions[view.name] = load(ledger, view, version), plain["digest"]
            if "types" in version.meta:  # those of before 0.1 have none
                feeds[view.name] = Feed.of(ledger, view, version)
    request = recipe["request"]
    times = {"known_at": request["known_at"], "timezone": request["timezone"]}
    dataset = Dataset.recorded(request["name"], request["event_time"], key=tuple(request["key"]), **times)
    types = ledger.artifact(Ref("dataset", request["name"], "", recipe["dataset"])).meta["types"]
    requests = load_requests(ledger, ledger.artifact(Ref("requests", request["name"], "", recipe["requests"])))
    return Reader(views, logs, versions, online, feeds), requests, dataset, types


def own_columns(reader: Reader, dataset: Dataset, types: Mapping[str, str], predict_at: str) -> OwnColumns:
    """What makes requests of rows that bring their own columns, for the views of a reader."""
    views = [view for view in reader.views if isinstance(view, RequestView)]
    lookups = [column for view in reader.views if isinstance(view, FeatureView) for column in view.entity.keys]
    return OwnColumns.of(dataset, types, views, predict_at, lookups=lookups)


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
