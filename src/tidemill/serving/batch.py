"""Many rows answered as requests are, some at a time: by the same reader, expectations, hold-out, ladder and compiled models.

They are read by columns; the same row by itself gives the same answer to the bit. What only makes sense while somebody waits is left out:
no timeout, no circuit breaker, no last answer, no shadow, no log. Each row is a request of its own: where one of several cannot be answered
they are asked again by halves, so that no answer depends on its neighbours.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tidemill.core import Array, Bools, Coded, DataError, Floats, Instants, Ints, Unavailable, UnknownName, definition
from tidemill.features import PRESENT, Matrix, key_text
from tidemill.serving.asked import UNTIMED, Chunk
from tidemill.serving.columns import Columnar
from tidemill.serving.declarations import LastAnswer
from tidemill.serving.endpoint import Endpoint
from tidemill.serving.ladder import Alike, Ladder, Rung, Score, Scored
from tidemill.serving.rows import Part, check_known

FORMS = ("key", "columns", "features")  # by what a row asks
NEVER = np.iinfo(np.int64).max
FEW = 32  # rows that are read one by one


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


@dataclass(frozen=True)
class Scores:
    """Answers to rows by columns (n,), as they are written: texts are JSON where they hold several things; `numbers` are those of the rows
    among all. `upcoming`: it was asked as of now, since its own time is still to come. `inputs`: the features, by name, where wanted."""

    numbers: Ints
    key: Array
    at: Instants
    upcoming: Bools
    probability: Floats
    version: Coded
    rung: Coded
    unexpected: Coded
    missing: Coded
    inputs: dict[str, Array | Coded]

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def joined(cls, several: "Sequence[Scores]") -> "Scores":
        """All of them, in the order of their rows."""
        if len(several) == 1:
            return several[0]
        order = np.argsort(np.concatenate([one.numbers for one in several]))
        inputs = {name: _joined([one.inputs[name] for one in several], order) for name in several[0].inputs}
        columns: Any = {one.name: _joined([getattr(some, one.name) for some in several], order) for one in fields(cls)[:-1]}
        return cls(**columns, inputs=inputs)


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

    @property
    def inputs(self) -> dict[str, str]:
        """The columns of features, where they are wanted, with their types."""
        categories = self.endpoint.given.signature.categories
        return {name: "VARCHAR" if name in categories else "DOUBLE" for name in self.features} if self.explain else {}

    @cached_property
    def _columnar(self) -> Columnar:
        return Columnar(self.form, self.endpoint.rows, self.endpoint.given)

    def scored(self, chunk: Chunk) -> Iterator[Scores | Unscored]:
        """The answers to rows at their times, in their order."""
        try:
            yield self._at_once(chunk)
        except (DataError, UnknownName, Unavailable, Together) as error:
            if len(chunk) == 1:
                number, at = int(chunk.numbers[0]), int(chunk.at[0])
                yield Unscored(number, self._key(chunk.rows()[0]), None if at == UNTIMED else at, _why(error, number))
                return
            middle = len(chunk) // 2
            for part in (slice(middle), slice(middle, None)):
                yield from self.scored(chunk.part(part))

    def _at_once(self, chunk: Chunk) -> Scores:
        at = chunk.at
        if not self.own_time and (at == UNTIMED).any():
            raise DataError(f"rows[{int(np.argmax(at == UNTIMED))}] has no time", hint="drop such rows: nothing is known at no time")
        when, found = np.full(len(at), NEVER) if self.own_time else at, list[Scores]()
        for part in self._parts(chunk, when):
            own, upcoming = self._times(part, when[part.places])
            matrix = part.matrix or self.endpoint.reader.read(part.requests, own)
            scores, told = self.endpoint.score_part(part._replace(matrix=matrix), only=self.only)
            found.append(self._as_written(chunk.numbers[part.places], part, own, upcoming, matrix, scores, told))
        return Scores.joined(found)

    def _parts(self, chunk: Chunk, when: Instants) -> list[Part]:
        """By columns what is as most are, the others one by one."""
        rows, given = self.endpoint.rows, self.endpoint.given
        if len(chunk) <= FEW:
            return rows.parts(chunk.rows(), when, given)
        many, odd = self._columnar.part(chunk, when)
        if many is None or odd.any():
            which = np.flatnonzero(odd)
            apart = rows.parts(chunk.part(which).rows(), when[which], given)
            apart = [one._replace(places=which[one.places]) for one in apart]
            return apart if many is None else [many, *apart]
        return [many]

    def _times(self, part: Part, when: Instants) -> tuple[Instants, Bools]:
        """The times of requests, and which of them are only those of now."""
        nothing = np.zeros(len(when), dtype=bool)
        if self.form == "features":  # nothing is looked up: it says when it was asked
            return np.full(len(when), self.now) if self.own_time else when, nothing
        upcoming = part.requests.at > self.now if self.own_time else nothing
        own = np.minimum(part.requests.at, self.now) if self.own_time else when
        if (part.requests.known > own).any():
            check_known(part, dict(zip(part.places, own.tolist(), strict=True)))
        return own, upcoming

    def _as_written(
        self,
        numbers: Ints,
        part: Part,
        at: Instants,
        upcoming: Bools,
        matrix: Matrix,
        scores: Sequence[Score],
        told: Mapping[int, Mapping[str, str]],
    ) -> Scores:
        if isinstance(scores, Alike):
            same, values = np.zeros(len(scores), dtype=np.int32), scores.values
            version, rung = Coded(same, (scores.version,)), Coded(same, (scores.rung,))
        else:
            values = np.array([one.probability for one in scores], dtype=np.float64)
            version, rung = Coded.of(one.version for one in scores), Coded.of(one.rung for one in scores)
        unexpected = Coded.of(_json(told.get(row)) for row in range(len(numbers))) if told else _nothing(len(numbers))
        keys = np.array(part.requests.key_texts, dtype=object)
        inputs = _inputs(matrix, self.inputs)
        return Scores(numbers, keys, at, upcoming, values, version, rung, unexpected, _missing(matrix), inputs)

    def _key(self, row: Mapping[str, Any]) -> str:
        parts = [row.get(part) for part in self.keys]
        return "" if None in parts else key_text([str(part) for part in parts])


def _joined(columns: Sequence[Any], order: Ints) -> Any:
    """Columns one after the other, and then in an order."""
    if isinstance(columns[0], Coded):
        return Coded.of(text for column in columns for text in column.texts()).take(order)
    return np.concatenate(columns)[order]


def _nothing(rows: int) -> Coded:
    return Coded(np.full(rows, -1, dtype=np.int32), ())


def _missing(matrix: Matrix) -> Coded:
    """Views without a value, and why, as JSON; there are few that are different."""
    if not matrix.views or not (matrix.status != PRESENT).any():
        return _nothing(len(matrix.values))
    _, first, inverse = np.unique(matrix.status, axis=0, return_index=True, return_inverse=True)
    texts = Coded.of(_json(matrix.problems(row)) for row in first.tolist())
    return texts.take(inverse.ravel())


def _inputs(matrix: Matrix, types: Mapping[str, str]) -> dict[str, Array | Coded]:
    """Features by name: categories as texts."""
    found = dict[str, Array | Coded]()
    for name in types:
        column, words = matrix.values[:, matrix.names.index(name)], matrix.vocabularies.get(name)
        found[name] = column if words is None else Coded(np.where(np.isnan(column), -1, column).astype(np.int32), tuple(words))
    return found


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


def _json(told: Mapping[str, str] | None) -> str | None:
    return msgspec.json.encode(told).decode() if told else None


def _why(error: Exception, number: int) -> str:
    what = getattr(error, "what", str(error))
    named = what.replace("rows[0]", f"row {number}", 1)
    return named if named != what else f"row {number}: {what}"
