"""How versions are asked: how long that takes is noted, and requests that come at the same time are asked together."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from tidemill.core import SECOND, DataError, Floats
from tidemill.models import Gatherer, Predictor
from tidemill.serving.cache import AnswerCache
from tidemill.serving.declarations import Batching
from tidemill.serving.ladder import Alike, Score, Scored

FEW = 10  # rows that are answered on an event loop


class Gatherers:
    """What asks each model of a deployment for several requests at once; `timeout` in microseconds."""

    def __init__(self, batching: Batching, timeout: int) -> None:
        self._batching, self._timeout = batching, timeout
        self._found = dict[Predictor, Gatherer]()

    def begin(
        self, predictor: Predictor, features: Floats, version: tuple[str, str], rung: str, cache: AnswerCache | None
    ) -> Future[Scored]:
        """A promise of what a version, by its label and digest, says to rows; it is asked about those that are not known."""
        label, digest = version
        if cache is None:
            return self._begin(predictor, features, partial(scored, label, rung))
        known = cache.partly(digest, features)
        was = [one is not None for one in known]
        whole = np.array(known, dtype=np.float64)
        new = np.flatnonzero(~np.array(was))

        def then(given: Floats) -> Scored:
            whole[new] = given
            cache.note(digest, features[new], given)
            return scored(label, rung, whole, was)

        return self._begin(predictor, features[new], then)

    def _begin(self, predictor: Predictor, features: Floats, then: Callable[[Floats], Scored]) -> Future[Scored]:
        found = self._found.get(predictor)
        if found is None:
            ask = partial(timed, predictor, ask=partial(predictor.predict_within, seconds=self._timeout / SECOND))
            found = Gatherer(ask, self._batching.rows, self._batching.microseconds / SECOND)
        return self._found.setdefault(predictor, found).begin(features, then)


def timed(predictor: Predictor, features: Floats, ask: Callable[[Floats], Floats]) -> Floats:
    """What a model says; of a few rows it is noted how long that took."""
    begun = time.perf_counter_ns()
    found = ask(features)
    if len(features) <= FEW:
        predictor.pace.note(time.perf_counter_ns() - begun)
    return found


def scored(label: str, rung: str, given: Floats, cached: Sequence[bool] = ()) -> Scored:
    """What a version says, and which of that it said before. Raises DataError where that is no number."""
    many = not cached and len(given) > FEW
    scores = [] if many else given.tolist()
    nothing = int(np.isnan(given).sum()) if many else sum(score != score for score in scores)  # NaN is not itself
    if nothing:
        raise DataError(f"{label} gives {nothing} rows no probability")
    if many:
        return Alike(given, label, rung)
    if not cached:
        return [Score(score, label, rung) for score in scores]
    return [Score(score, label, rung, cached=was) for score, was in zip(scores, cached, strict=True)]
