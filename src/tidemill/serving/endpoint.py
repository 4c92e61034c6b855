"""A deployment that answers: keys in, features looked up at the request's time, prediction out, and the ladder of fallbacks.

Built from the ledger alone: neither the user's files nor a training library is imported.
"""

import logging
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np

from tidemill.core import DataError, Floats, Instants, Ints, Refused, TidemillError, duration
from tidemill.features import Function, Matrix, OnlineStore, Output, Reader, Requests
from tidemill.ledger import Ledger
from tidemill.models import Predictor, golden_differences, golden_of, load_model
from tidemill.serving.answers import Answer, Basis, inputs_of, is_kept
from tidemill.serving.asking import FEW, Gatherers, scored, timed
from tidemill.serving.cache import AnswerCache
from tidemill.serving.caller import caller, exceeded
from tidemill.serving.declarations import (
    CHALLENGER,
    Batching,
    Constant,
    Expect,
    Holdout,
    LastAnswer,
    PreviousVersion,
    Shadow,
    SimplerModel,
    Step,
    ref_of,
)
from tidemill.serving.expectations import Expectations, Unexpected
from tidemill.serving.given import Given
from tidemill.serving.ladder import Alike, Ladder, Rung, Score, Scored, nobody
from tidemill.serving.last import LastAnswers
from tidemill.serving.routing import Route, share, shares, to_challenger, weighed
from tidemill.serving.rows import Part, Rows, open_rows
from tidemill.serving.shadow import Copied, Shadows
from tidemill.serving.spans import span
from tidemill.serving.tensors import Tensors

log = logging.getLogger(__name__)
MAX_ROWS = 10_000
PROMPT = 200_000  # nanoseconds of a model's run up to which handing it to another thread takes longer
WEIGHTED = "weighted"  # the rung of a version that answers the share that people gave it
Named = tuple[str, str]  # a version by its label and the digest of its model
NOTHING: Mapping[Any, Any] = {}
BATCHING = Batching()
T = TypeVar("T")
Climb = Generator[Rung, Scored | None, T]


@dataclass(frozen=True)
class Standing:
    """Which versions serve, by label and digest, and the weight of the challenger; `weighted` are versions that people gave a share of what
    the challenger leaves, the champion has the rest; `branch` is the history that they come from."""

    branch: str
    champion: Named
    previous: Named | None = None
    challenger: Named | None = None
    weight: float = 0.0
    sticky_by: str = ""
    weighted: Sequence[tuple[Named, float]] = ()

    @property
    def shares(self) -> dict[str, float]:
        """The share of the keys that each version answers, by its label."""
        weights = {version[0]: weight for version, weight in self.weighted}
        return shares(self.champion[0], self.challenger[0] if self.challenger else "", self.weight, weights)

    @cached_property
    def shared(self) -> bool:
        """Whether another version than the champion answers a share."""
        return bool(self.weighted) or (self.challenger is not None and self.weight > 0)

    @cached_property
    def labels(self) -> dict[str, Named]:
        """Of each version that stands here, by its label, the rung and the digest; the champion first."""
        weighted = [(WEIGHTED, version) for version, _ in self.weighted]
        roles = (("previous version", self.previous), *weighted, ("challenger", self.challenger), ("champion", self.champion))
        found = {one[0]: (role, one[1]) for role, one in roles if one}
        return dict(reversed(found.items()))


class _Seen(NamedTuple):
    """Of some rows their keys and times, their features as they are and as models may see them, and what was not as expected."""

    keys: Sequence[str]
    at: Sequence[int]
    matrix: Matrix | None
    shown: Matrix | None
    unexpected: Sequence[Unexpected]


@dataclass
class Endpoint:
    """One deployment, ready. `ladder` tries the champion, and then the steps of `fallback` in their order; `others` are the registered
    models that a declaration names, by its text; `versions` are those of what features are read from, for the log. What `shadow` is
    copied is asked by `shadows`, where those are. What `cache` knows no model is asked."""

    name: str
    standing: Standing
    rows: Rows
    predictors: dict[str, Predictor]
    ladder: Ladder
    fallback: Sequence[Step] = ()
    expect: Sequence[Expect] = ()
    others: Mapping[str, Named] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    holdout: Holdout | None = None
    shadow: Shadow | None = None
    shadows: Shadows | None = None
    cache: AnswerCache | None = None
    batching: Batching = BATCHING

    def __post_init__(self) -> None:
        champion = self.predictors[self.standing.champion[1]].signature
        self._expectations = Expectations(self.expect, champion) if self.expect else None
        keys = max((step.keys for step in self.fallback if isinstance(step, LastAnswer)), default=0)
        self._last = LastAnswers(keys) if keys else None
        self._gatherers = Gatherers(self.batching, self.ladder.timeout)

    def answer(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool = False, keep: float = 0.0) -> list[Answer]:
        """Answer requests at their prediction times (microseconds UTC), each by its key or by its own columns. `keep` is the share of
        answers with their basis, chosen by key and time. Raises DataError and UnknownName for a wrong request."""
        return self._climbed(self._steps(rows, at, explain=explain, keep=keep))

    def answer_part(self, part: Part, *, keep: float = 0.0, only: str = "") -> list[Answer]:
        """Answer rows that brought their features, at the times of their requests; `only` is the label of the version that answers alone,
        without weights and fallback. Raises DataError for what is to be rejected, Unavailable where nothing can answer."""
        return self._climbed(self._answer(*self._seen(part, part.requests.at), explain=False, keep=keep, only=only))

    def score_part(self, part: Part, *, only: str = "") -> tuple[Sequence[Score], Mapping[int, Mapping[str, str]]]:
        """The same of many rows without what an answer tells beside: what the ladder says to each, and by row what was not as expected."""
        return self._climbed(self._scored(part, self._seen(part, part.requests.at)[1], only))

    def _climbed(self, steps: Climb[T]) -> T:
        rung, found = _next(steps, None)
        while rung:
            rung, found = _next(steps, self.ladder.tried(rung))
        return found

    async def answered(
        self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool = False, keep: float = 0.0
    ) -> list[Answer]:
        """The same on an event loop, which goes on while a model computes. Features are read on it: for a few rows, where `quick`."""
        steps = self._steps(rows, at, explain=explain, keep=keep)
        rung, answers = _next(steps, None)
        while rung:
            rung, answers = _next(steps, await self.ladder.awaited(rung))
        return answers

    @cached_property
    def quick(self) -> bool:
        """Whether no code of the project and no other model computes a feature."""
        return not any(isinstance(view.features, Function | Output) for view in self.reader.views)

    @property
    def prompt(self) -> bool:
        """Whether a few rows are answered before others could be kept waiting."""
        return self.quick and self.brisk

    @property
    def brisk(self) -> bool:
        """Whether no model that answers takes long for a few rows: nobody waits for a shadow."""
        return not [digest for digest in self._answering if not self.predictors[digest].pace.within(PROMPT)]

    @cached_property
    def _answering(self) -> Collection[str]:
        simpler = [self.others[step.model] for step in self.fallback if isinstance(step, SimplerModel) and step.model in self.others]
        return {digest for _, digest in (*self.standing.labels.values(), *simpler)}

    def _steps(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, explain: bool, keep: float) -> Climb[list[Answer]]:
        """Asks for one rung after the other, and is told what each gave."""
        if not rows or len(rows) > MAX_ROWS:
            raise DataError(f"{len(rows)} rows were sent; between 1 and {MAX_ROWS} are answered at once")
        when = np.array(at, dtype=np.int64)
        answers: dict[int, Answer] = {}
        found = self.rows.parts(rows, when, self.given)
        if len(found) == 1:
            return (yield from self._answer(*self._seen(found[0], when), explain=explain, keep=keep))
        parts = [self._seen(part, when[part.places]) for part in found]
        for part, seen in parts:  # when nothing more can be wrong with the request
            each = yield from self._answer(part, seen, explain=explain, keep=keep)
            answers |= zip(part.places, each, strict=True)
        return [answers[i] for i in range(len(rows))]

    def _seen(self, part: Part, when: Instants) -> tuple[Part, _Seen]:
        """What rows ask, with their features. Raises DataError for one that is to be rejected."""
        matrix = self._features(part.requests, when) if part.matrix is None else part.matrix
        shown, unexpected = (matrix, []) if self._expectations is None or matrix is None else self._expectations.held(matrix, part.places)
        return part, _Seen(part.requests.key_texts, when.tolist(), matrix, shown, unexpected)

    def _answer(self, part: Part, seen: _Seen, *, explain: bool, keep: float, only: str = "") -> Climb[list[Answer]]:
        keys, times, matrix, shown, _ = seen
        scores, told = yield from self._scored(part, seen, only)
        counts: dict[str, int] = {}
        answers, versions = [], self.versions if part.matrix is None else {}
        for i, score in enumerate(scores):
            kept = matrix is not None and is_kept(keys[i], times[i], keep)
            inputs = inputs_of(matrix, i) if matrix is not None and (explain or kept) else None
            basis = Basis(inputs, versions, part.sent[i] if part.sent else None) if kept and inputs is not None else None
            path = "none" if matrix is None else "request" if part.matrix else "online" if matrix.online[i] else "offline"
            problems, damaged = ({}, False) if matrix is None else (matrix.problems(i), matrix.damaged)
            more = (inputs if explain else None, damaged, basis, score.given, told.get(i, NOTHING), score.cached)
            answers.append(Answer(keys[i], score.probability, score.version, score.rung, times[i], path, problems, *more))
            counts[score.rung] = counts.get(score.rung, 0) + 1
        for name, rows in counts.items():
            self.ladder.count(name, rows)
        if self.shadows is not None and shown is not None:
            self._copy(shown, answers)
        return answers

    def _scored(self, part: Part, seen: _Seen, only: str) -> Climb[tuple[Sequence[Score], Mapping[int, Mapping[str, str]]]]:
        """What the ladder says to each row, and by row what was not as expected; counted."""
        unfit = {one.row for one in seen.unexpected if one.otherwise == "fall back"} if seen.unexpected else ()
        scores, odd = yield from self._score(part, seen.keys, seen.at, seen.shown, unfit, only)
        return scores, self._told([*seen.unexpected, *odd]) if seen.unexpected or odd else NOTHING

    def _copy(self, matrix: Matrix, answers: Sequence[Answer]) -> None:
        """Have the shadow asked about its share of the rows."""
        shadow, version = self.shadow, self._shadow
        if shadow is None or version is None or self.shadows is None:
            return
        rows = [i for i, one in enumerate(answers) if shadow.share >= 1 or share(f"{one.key}/{one.at}", "shadow") < shadow.share]
        if rows:
            self.shadows.copy(partial(self._copied, version, matrix, [(row, answers[row]) for row in rows]), len(rows))

    @property
    def _shadow(self) -> Named | None:
        if self.shadow is None:
            return None
        return self.standing.challenger if self.shadow.model == CHALLENGER else self.others.get(self.shadow.model)

    def _copied(self, version: Named, matrix: Matrix, answers: Sequence[tuple[int, Answer]]) -> list[Copied]:
        scores = self._predict(version, "shadow", matrix.values[[row for row, _ in answers]], matrix)
        return [
            Copied(self.standing.branch, one.key, one.at, version[0], score.probability, one.version, one.probability, one.rung)
            for score, (_, one) in zip(scores, answers, strict=True)
            if score is not None
        ]

    def _told(self, unexpected: Sequence[Unexpected]) -> dict[int, dict[str, str]]:
        """What was not as expected, by row; counted."""
        found = dict[int, dict[str, str]]()
        for one in unexpected:
            found.setdefault(one.row, {})[one.of] = one.what
            self.ladder.count(f"unexpected {one.of}: {one.otherwise}", 1)
        return found

    @cached_property
    def given(self) -> Given:
        """How rows are read that bring their features: those of the champion."""
        return Given(self.predictors[self.standing.champion[1]].signature, self.rows.dataset.keys, self.rows.types)

    @cached_property
    def tensors(self) -> Mapping[str, Tensors]:
        """How they are read for each version, by its label."""
        labels, keys = self.standing.labels, self.rows.dataset.keys
        return {label: Tensors(self.predictors[digest].signature, keys) for label, (_, digest) in labels.items()}

    @property
    def reader(self) -> Reader:
        """What looks features up."""
        return self.rows.reader

    def follow(self, before: "Endpoint") -> None:
        """Go on with what one counted and remembers that answered until now."""
        self.ladder.count_in(before.ladder.counters)
        if self._last and before._last:
            before._last.most, self._last = self._last.most, before._last
        if self.cache and before.cache:
            before.cache.most, self.cache = self.cache.most, before.cache

    def _features(self, requests: Requests, at: Instants) -> Matrix | None:
        try:
            with span("features", rows=len(at), views=len(self.reader.views)):
                return self.reader.read(requests, at)
        except (TidemillError, OSError):
            if not any(isinstance(step, Constant | LastAnswer) for step in self.fallback):
                raise
            return None  # a dead store: the ladder goes on where no features are needed

    def _score(
        self, part: Part, keys: Sequence[str], at: Sequence[int], matrix: Matrix | None, unfit: Collection[int], only: str
    ) -> Climb[tuple[Sequence[Score], list[Unexpected]]]:
        """What the first rung says that can answer each row: of those that are `unfit`, the first that asks no model. And which
        probabilities were not as expected."""
        found = self._held_out(part, keys, matrix, only)
        told, untouched = list[Unexpected](), not unfit and (self.holdout is None or bool(only))
        if None not in found:
            return [score for score in found if score is not None], told
        for rung in self._rungs(keys, at, matrix, unfit, only):
            given = self.ladder.tried(rung) if rung.at_once else (yield rung)  # others are not kept waiting either way
            if given is not None and matrix is not None and rung.name == "champion" and not only and self.standing.shared:
                given = yield from self._with_others(given, part, matrix)
            if untouched and given is not None and self._may_be_told(given):
                if not only:
                    self._remember(keys, at, given)
                return given, told
            untouched = untouched and not given
            for i, score in enumerate(given or ()):
                if found[i] is None and score is not None:
                    found[i] = score if rung.sure else None if i in unfit else self._judged(i, score, told)
            if None not in found:
                break
        scores = [score for score in found if score is not None]
        if len(scores) < len(found):
            if caller().short:
                raise exceeded()
            raise nobody(self.name, only)
        if not only:
            self._remember(keys, at, scores)
        return scores, told

    def _held_out(self, part: Part, keys: Sequence[str], matrix: Matrix | None, only: str) -> list[Score | None]:
        """The answers of those that no model is to answer."""
        held = self.holdout
        if held is None or only:
            return [None] * len(keys)
        salt, own = f"{self.name}/hold-out", _sticky(part, keys, matrix, held.sticky_by)
        return [Score(held.value, "", "hold-out") if share(key, salt) < held.share else None for key in own]

    def _may_be_told(self, given: Scored) -> TypeGuard[Sequence[Score]]:
        """Whether there are scores of all rows, and all are as expected."""
        if type(given) is not Alike and None in given:
            return False
        values = given.values if isinstance(given, Alike) else [score.probability for score in given if score]
        return self._expectations is None or self._expectations.expected(values)

    def _judged(self, row: int, score: Score, told: list[Unexpected]) -> Score | None:
        """A model's score as it may be told; None where the next rung is to answer."""
        if self._expectations is None:
            return score
        value, unexpected = self._expectations.probability(row, score.probability)
        if unexpected is None:
            return score
        told.append(unexpected)
        return None if unexpected.otherwise == "fall back" else score._replace(probability=value)

    def _remember(self, keys: Sequence[str], at: Sequence[int], scores: Sequence[Score]) -> None:
        if self._last is not None:
            for key, time, score in zip(keys, at, scores, strict=True):
                if key and score.version and score.given is None:
                    self._last.keep(key, time, score)

    def _rungs(self, keys: Sequence[str], at: Sequence[int], matrix: Matrix | None, unfit: Collection[int], only: str) -> Iterator[Rung]:
        rows, asks = len(keys), matrix is not None and len(unfit) < len(keys)
        if only:
            role, digest = self.standing.labels[only]
            if matrix is not None and asks:
                yield self._rung(role, (only, digest), matrix.values, matrix)
            return
        if matrix is not None and asks:
            yield self._rung("champion", self.standing.champion, matrix.values, matrix)
        for step in self.fallback:
            match step:
                case PreviousVersion() if self.standing.previous and matrix is not None and asks:
                    yield self._rung(step.name, self.standing.previous, matrix.values, matrix)
                case SimplerModel() if step.model in self.others and matrix is not None and asks:
                    yield self._rung(step.name, self.others[step.model], matrix.values, matrix)
                case LastAnswer():
                    yield Rung("last answer", rows, partial(self._again, keys, at, duration(step.within)), at_once=True, sure=True)
                case Constant():
                    yield Rung("constant", rows, partial(_constant, step.value, rows), at_once=True, sure=True)

    def _again(self, keys: Sequence[str], at: Sequence[int], within: int) -> Scored:
        assert self._last is not None
        return [self._last.find(key, time, within) for key, time in zip(keys, at, strict=True)]

    def _rung(self, name: str, version: Named, values: Floats, matrix: Matrix) -> Rung:
        """One model, asked by itself where that is quick or much, else together with other requests; an isolated one always so."""
        own = f"{name} {version[0]}" if name == WEIGHTED else name  # of several, one may fail
        if self.cache is not None and (known := self._known(self.cache, version, name, values, matrix)):
            return Rung(own, len(values), lambda: known, spared=True)
        predictor, few = self.predictors[version[1]], len(values) <= FEW
        at_once, asks = few and predictor.pace.within(PROMPT), (version, name, values, matrix)
        begin = partial(self._begun, *asks) if predictor.isolated or (few and not at_once) else None
        return Rung(own, len(values), partial(self._predict, *asks), at_once, version=version[0], begin=begin)

    def _begun(self, version: Named, rung: str, values: Floats, matrix: Matrix) -> Future[Scored]:
        """A promise of what `_predict` gives."""
        predictor = self.predictors[version[1]]
        asked = predictor.signature.align(matrix.names, values, matrix.vocabularies)
        return self._gatherers.begin(predictor, asked, version, rung, self.cache)

    def _with_others(self, answers: Scored, part: Part, matrix: Matrix) -> Climb[Scored]:
        """The champion's answers, with those of the challenger and of weighted versions for their shares; where one cannot, the champion's
        stay."""
        keys, given = _sticky(part, part.requests.key_texts, matrix, self.standing.sticky_by), [*answers]
        for name, version, rows in self._led(keys):
            others = (yield self._rung(name, version, matrix.values[rows], matrix)) if len(rows) else None
            for row, other in zip(rows.tolist(), others or [], strict=False):
                given[row] = other
        return given

    def _led(self, keys: Sequence[str]) -> Iterator[tuple[str, Named, Ints]]:
        """Which rows another version than the champion answers, by its rung; the challenger comes first."""
        standing, left = self.standing, np.ones(len(keys), dtype=bool)
        if challenger := standing.challenger:
            route = Route(standing.champion[0], challenger[0], standing.weight, f"{self.name}/{challenger[0]}")
            chosen = to_challenger(route, keys)
            left = ~chosen
            yield "challenger", challenger, np.flatnonzero(chosen)
        if standing.weighted:
            weights = {version[0]: weight for version, weight in standing.weighted}
            weights["champion"] = 1.0 - sum(weights.values())  # by its role: a new champion has the keys of the one before
            found = np.array(weighed(weights, f"{self.name}/weights", keys))
            for version, _ in standing.weighted:
                yield WEIGHTED, version, np.flatnonzero(left & (found == version[0]))

    def _known(self, cache: AnswerCache, version: Named, rung: str, values: Floats, matrix: Matrix) -> Scored:
        """What a version said to such rows before; nothing where it is to be asked about one of them."""
        try:
            asked = self.predictors[version[1]].signature.align(matrix.names, values, matrix.vocabularies)
        except DataError:  # a fault of the rung, which is counted when it is tried
            return []
        return [Score(score, version[0], rung, cached=True) for score in cache.known(version[1], asked) or ()]

    def _predict(self, version: Named, rung: str, values: Floats, matrix: Matrix) -> Scored:
        """What a version says to feature rows, whose columns are those of a matrix. Raises DataError where that is no number."""
        predictor = self.predictors[version[1]]
        asked = predictor.signature.align(matrix.names, values, matrix.vocabularies)
        if self.cache is None:
            return scored(version[0], rung, timed(predictor, asked, predictor.predict))
        return scored(version[0], rung, *self.cache.scores(version[1], asked, partial(timed, predictor, ask=predictor.predict)))


def _sticky(part: Part, keys: Sequence[str], matrix: Matrix | None, column: str) -> list[str]:
    """By what rows stay where they are: what the request says, a column of it, the key, or where there is none the features."""
    texts = part.requests.texts.get(column)
    chosen = part.sticky or (texts.texts() if texts is not None else keys)

    def otherwise(i: int) -> str:
        row = np.empty(0) if matrix is None else matrix.values[i]
        return np.where(np.isnan(row), np.nan, row).tobytes().hex()  # a file may hold NaN in other bytes than a request's null becomes

    return [text or key or otherwise(i) for i, (text, key) in enumerate(zip(chosen, keys, strict=True))]


def _constant(value: float, rows: int) -> Scored:
    return [Score(value, "", "constant")] * rows


def _next(steps: Climb[T], gave: Scored | None) -> tuple[Rung | None, T]:
    """The next rung to try, or what came of it."""
    try:
        return steps.send(gave), None  # type: ignore[return-value]  # nothing yet
    except StopIteration as done:
        return None, done.value


def open_endpoint(
    ledger: Ledger,
    name: str,
    recipe: Mapping[str, Any],
    standing: Standing,
    *,
    fallback: Sequence[Step] = (),
    expect: Sequence[Expect] = (),
    ladder: Ladder | None = None,
    holdout: Holdout | None = None,
    shadow: Shadow | None = None,
    cache: AnswerCache | None = None,
    batching: Batching = BATCHING,
    online: OnlineStore | None = None,
    functions: Sequence[Function] = (),
) -> Endpoint:
    """An endpoint from the recipe of a branch; `functions` are those that are here, for the views that are one. Golden cases are run
    first: raises Refused when the champion answers otherwise. Another version that does, or whose bytes are lost, is
    left out: the champion answers in its place."""
    rows = open_rows(ledger, recipe, online=online, functions=functions)
    predictors = {standing.champion[1]: _load(ledger, *standing.champion)}
    previous, challenger = (_load_or_leave(ledger, name, version, predictors) for version in (standing.previous, standing.challenger))
    weighted = [one for one in standing.weighted if _load_or_leave(ledger, name, one[0], predictors)]
    standing = replace(standing, previous=previous, challenger=challenger, weighted=weighted)
    short = {"requests": recipe["requests"][:12]} | {f"view {view}": digest[:12] for view, digest in rows.reader.versions.items()}
    named = [step.model for step in fallback if isinstance(step, SimplerModel)]
    named += [shadow.model] if shadow and shadow.model != CHALLENGER else []
    found = {model: _registered(ledger, name, model, predictors) for model in named}
    others = {model: version for model, version in found.items() if version}
    more: dict[str, Any] = {"holdout": holdout, "shadow": shadow, "cache": cache, "batching": batching}
    return Endpoint(name, standing, rows, predictors, ladder or Ladder(name), fallback, expect, others, short, **more)


def _registered(ledger: Ledger, name: str, model: str, predictors: dict[str, Predictor]) -> Named | None:
    """A registered model, among the predictors; None where it cannot serve. Raises UnknownName where the ledger has none such."""
    ref = ledger.artifact(ref_of(model)).ref
    return _load_or_leave(ledger, name, (f"{ref.name}@{ref.digest[:12]}", ref.digest), predictors)


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
    golden = golden_of(ledger, artifact)
    wrong = golden_differences(predictor, golden)
    if wrong:
        hint = "the runtime or the machine differs from the one it was made on: train it again here"
        raise Refused(f"{label} answers {wrong} of its golden cases otherwise than when it was made", where=str(artifact.ref), hint=hint)
    for i in range(min(FEW, len(golden.features))):  # a version that only stands behind the champion may never be asked
        timed(predictor, golden.features[i : i + 1], predictor.predict)
    return predictor
