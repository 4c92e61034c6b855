"""Many rows answered as requests are, some at a time: by the same reader, expectations, hold-out, ladder and compiled models.

What only makes sense while somebody waits is left out: no timeout, no circuit breaker, no last answer, no shadow, no log. Each row is a
request of its own: where one of several cannot be answered they are asked again by halves, so that no answer depends on its neighbours.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tidemill.core import DataError, Instants, Unavailable, UnknownName, definition
from tidemill.features import Matrix, key_text
from tidemill.serving.answers import Answer, inputs_of
from tidemill.serving.declarations import LastAnswer
from tidemill.serving.endpoint import Endpoint
from tidemill.serving.ladder import Ladder, Rung, Scored
from tidemill.serving.rows import Part, check_known

FORMS = ("key", "columns", "features")  # by what a row asks
NEVER = np.iinfo(np.int64).max


class Together(Exception):
    """A rung cannot answer several rows at once."""


class Patient(Ladder):
    """A ladder that nobody waits at: a rung has all the time it needs, and is asked about each row of several where these fail."""

    def tried(self, rung: Rung) -> Scored | None:
        """What a rung gives; None where it fails for one row. Raises Together where it does for several."""
        try:
            return rung.give()
        except Exception as error:  # whatever a rung does, the next one answers; the count tells, and the answer names its rung
            if rung.rows > 1:
                raise Together from error
            self.count(f"{rung.name}: failed", 1)
            return None


class Scores(NamedTuple):
    """The answer to a row, as it is written: texts are JSON where they hold several things. `upcoming`: it was asked as of now, since its
    own time is still to come."""

    number: int
    key: str
    at: int
    upcoming: bool
    probability: float
    version: str
    rung: str
    unexpected: str | None
    missing: str | None
    inputs: Mapping[str, Any]


class Unscored(NamedTuple):
    """A row that cannot be answered, and why."""

    number: int
    key: str
    at: int | None
    error: str


@dataclass(frozen=True)
class Batch:
    """A deployment that answers many rows in one `form`. `own_time`: each at its prediction time, but not after `now`. `only` is the label
    of the version that answers alone; `explain` keeps the features."""

    endpoint: Endpoint
    form: str
    own_time: bool
    now: int
    only: str = ""
    explain: bool = False

    @classmethod
    def of(cls, endpoint: Endpoint, form: str, *, own_time: bool, now: int, only: str = "", explain: bool = False) -> "Batch":
        """Raises UnknownName for a version that does not stand in the deployment."""
        labels = endpoint.standing.labels
        if only and only not in labels:
            raise UnknownName(f"the version {only!r} does not serve in {endpoint.name!r}", available=list(labels))
        steps = [step for step in endpoint.fallback if not isinstance(step, LastAnswer)]
        alone = replace(endpoint, ladder=Patient(endpoint.name), fallback=steps, shadow=None, shadows=None, cache=None)
        return cls(alone, form, own_time, now, only, explain)

    @property
    def columns(self) -> list[str]:
        """The columns of rows that are read: with features the keys too, where they are there."""
        if self.form == "columns":
            return list(self.endpoint.rows.own.types)
        return self.keys if self.form == "key" else list(dict.fromkeys([*self.features, *self.keys]))

    @property
    def keys(self) -> list[str]:
        """The columns of the request's key."""
        return list(self.endpoint.rows.dataset.keys)

    @property
    def features(self) -> Sequence[str]:
        """Those of the champion, in its order."""
        return self.endpoint.given.signature.features

    @property
    def rests_on(self) -> dict[str, Any]:
        """All that decides an answer but the row and its time, as plain data."""
        standing, endpoint = self.endpoint.standing, self.endpoint
        found: dict[str, Any] = {"deployment": endpoint.name, "form": self.form, "only": self.only, "explain": self.explain}
        found |= {"champion": standing.champion, "previous": standing.previous, "challenger": standing.challenger}
        found |= {"weight": standing.weight, "sticky_by": standing.sticky_by, "others": dict(endpoint.others)}
        found |= {"weighted": list(standing.weighted)} if standing.weighted else {}
        found |= {"fallback": definition(list(endpoint.fallback)), "expect": definition(list(endpoint.expect))}
        return found | {"holdout": definition(endpoint.holdout), "own_time": self.own_time}

    def scored(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int | None], numbers: Sequence[int]) -> Iterator[Scores | Unscored]:
        """The answers to rows at their times (None: there is none), in their order; `numbers` are theirs among all."""
        try:
            yield from self._at_once(rows, at, numbers)
        except (DataError, UnknownName, Unavailable, Together) as error:
            if len(rows) == 1:
                yield Unscored(numbers[0], self._key(rows[0]), at[0], _why(error, numbers[0]))
                return
            middle = len(rows) // 2
            for part in (slice(middle), slice(middle, None)):
                yield from self.scored(rows[part], at[part], numbers[part])

    def _at_once(self, rows: Sequence[Mapping[str, Any]], at: Sequence[int | None], numbers: Sequence[int]) -> list[Scores]:
        if None in at and not self.own_time:
            raise DataError(f"rows[{at.index(None)}] has no time", hint="drop such rows: nothing is known at no time")
        when = np.array([NEVER] * len(at) if self.own_time else at, dtype=np.int64)
        found: dict[int, Scores] = {}
        for part in self.endpoint.rows.parts(rows, when, self.endpoint.given):
            own, upcoming = self._times(part, when[part.places])
            matrix = part.matrix or self.endpoint.reader.read(part.requests, own)
            answers = self.endpoint.answer_part(part._replace(matrix=matrix), only=self.only)
            for i, (place, answer) in enumerate(zip(part.places, answers, strict=True)):
                found[place] = self._as_written(numbers[place], answer, int(own[i]), bool(upcoming[i]), matrix, i)
        return [found[i] for i in range(len(rows))]

    def _times(self, part: Part, when: Instants) -> tuple[Instants, Any]:
        """The times of requests, and which of them are only those of now."""
        if not self.own_time:
            return when, np.zeros(len(when), dtype=bool)
        if self.form == "features":
            return np.full(len(when), self.now), np.zeros(len(when), dtype=bool)  # nothing is looked up: it says when it was asked
        upcoming = part.requests.at > self.now
        own = np.minimum(part.requests.at, self.now)
        check_known(part, {place: int(own[i]) for i, place in enumerate(part.places)})
        return own, upcoming

    def _as_written(self, number: int, answer: Answer, at: int, upcoming: bool, matrix: Matrix, row: int) -> Scores:
        inputs = inputs_of(matrix, row) if self.explain else {}
        told = _json(answer.unexpected), _json(answer.problems)
        return Scores(number, answer.key, at, upcoming, answer.probability, answer.version, answer.rung, *told, inputs)

    def _key(self, row: Mapping[str, Any]) -> str:
        parts = [row.get(part) for part in self.keys]
        return "" if None in parts else key_text([str(part) for part in parts])


def form_of(names: Collection[str], endpoint: Endpoint, by: str = "") -> str:
    """By what rows with these columns ask: their features, their own columns, or their key. Raises DataError where they lack some, or could
    be meant otherwise."""
    rows, given = endpoint.rows, endpoint.given
    keys, features = rows.dataset.keys, given.signature.features
    if by not in ("", *FORMS):
        raise DataError(f"by={by!r} is nothing that a row asks by", available=list(FORMS))
    if by == "features" or (not by and not given.marks.isdisjoint(names)):
        _check(names, features, "the feature", "send all features, or `by` to ask by the key or the request's columns")
        return "features"
    if by == "key":
        _check(names, keys, "the key", "add it")
        return "key"
    own = rows.own.types
    some = [name for name in own if name in names and name not in keys]
    if by == "columns" or some:
        hint = f'add it, or ask by the key alone ({", ".join(keys)}): by="key", --by key'
        _check(names, list(own), "the request's column", hint)
        return "columns"
    hint = f"a row asks by its key ({', '.join(keys)}), by all columns of the request, or by all features"
    _check(names, keys, "the key", hint)
    return "key"


def _check(names: Collection[str], needed: Sequence[str], what: str, hint: str) -> None:
    lacks = next((name for name in needed if name not in names), None)
    if lacks is not None:
        raise DataError(f"the rows lack {what} {lacks!r}", available=sorted(names), hint=hint)


def _json(told: Mapping[str, str]) -> str | None:
    return msgspec.json.encode(told).decode() if told else None


def _why(error: Exception, number: int) -> str:
    what = getattr(error, "what", str(error))
    named = what.replace("rows[0]", f"row {number}", 1)
    return named if named != what else f"row {number}: {what}"
