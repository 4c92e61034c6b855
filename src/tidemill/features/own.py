"""Requests that bring their own columns: the expressions of the whole dataset, compiled for a row (`expressions.py`).

`build_requests` compares both on a part of the rows, so what is compiled never differs from the engine unseen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Array, Coded, DataError
from tidemill.data import Column, Columns, Dataset, as_column, explained, instant_of, plain_type, quote
from tidemill.features.casts import received
from tidemill.features.declarations import RequestView
from tidemill.features.expressions import Expression, Row, Value, as_the_engine, compiled
from tidemill.features.requests import Kinds, Requests, check_keys, named_functions, places_of, request_columns, with_functions
from tidemill.features.values import check_values, is_gap

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOCAL = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE", "TIME")  # the engine would drop a zone
WRONG = "the request cannot be evaluated"
TYPES = {"number": "DOUBLE", "instant": "BIGINT", "text": "VARCHAR"}


@dataclass(frozen=True)
class OwnColumns:
    """What makes requests of rows that are sent: a taker for each column, and what is computed of them by name."""

    types: Mapping[str, str]
    timezone: str
    takers: Mapping[str, Callable[[Any], Any]]
    values: Mapping[str, Value]
    columns: Kinds
    views: Sequence[RequestView]

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        types: Mapping[str, str],
        views: Sequence[RequestView],
        predict_at: str,
        *,
        lookups: Sequence[str] = (),
        source: str = "",
    ) -> "OwnColumns":
        """Compile what requests are; `source` is the place of `predict_at`. Raises DefinitionError, with the file and line of its view, for
        what cannot be computed for one request."""
        plain = {name: kind for name, kind in types.items() if not name.startswith("__")}
        known = {"__event": dataset.event_time, "__known": dataset.known_at or dataset.event_time}
        columns = request_columns(dataset, types, views, predict_at, lookups)
        columns |= {name: (instant_of(quote(time), dataset.timezone), "instant") for name, time in known.items()}
        return cls.over(dataset, plain, views, columns, source)

    @classmethod
    def over(
        cls, dataset: Dataset, types: Mapping[str, str], views: Sequence[RequestView], columns: Kinds, source: str = ""
    ) -> "OwnColumns":
        """Compile some of it."""
        places = places_of(views)
        expressions = {name: Expression(sql, TYPES[kind], places.get(name, source)) for name, (sql, kind) in columns.items()}
        takers = {name: received(kind) for name, kind in types.items()}
        return cls(types, dataset.timezone, takers, compiled(types, expressions), columns, views)

    def requests(self, rows: Sequence[Mapping[str, Any]]) -> Requests:
        """The requests that rows ask. Raises DataError for a missing or mistyped column, and for a value that cannot be computed."""
        found = self.features(rows)
        return _requests(found, [text or "" for text in found["__key"].texts()])  # type: ignore[union-attr]

    def features(self, rows: Sequence[Mapping[str, Any]]) -> Columns:
        """Each column of what rows ask, with the features that functions compute. Raises DataError as `requests` does."""
        found = self.computed([self.taken_row(row) for row in rows])
        return with_functions(self.views, found) if self._calls else found

    @cached_property
    def as_the_engine(self) -> bool:
        """Whether the engine computes the same for many rows at once."""
        return as_the_engine(self.types, [Expression(sql, TYPES[kind]) for sql, kind in self.columns.values()])

    def by_engine(self, connection: "DuckDBPyConnection", rows: str) -> Requests:
        """The requests of many rows: SQL for rows with these columns, each in its type. Raises DataError for what cannot be computed."""
        shown = ", ".join(f"CAST(({sql}\n) AS {TYPES[kind]}) AS {quote(name)}" for name, (sql, kind) in self.columns.items())
        with explained(WRONG):
            raw = connection.execute(f"SELECT {shown} FROM ({rows})").fetchnumpy()
        keys = [text or "" for text in raw["__key"].tolist()]  # mostly all are different: they need no vocabulary
        found = {name: as_column(raw[name], kind) for name, (_, kind) in self.columns.items() if name != "__key"}
        return _requests(with_functions(self.views, found) if self._calls else found, keys)

    @cached_property
    def _calls(self) -> bool:
        """Whether functions or models compute features."""
        return bool(named_functions(self.views))

    def computed(self, rows: Sequence[Row]) -> Columns:
        """Each column of the requests, as the engine would give it for all rows."""
        values: list[list[Any]] = []
        name = ""
        try:
            for name, value, _ in self._plan:  # noqa: B007 – the last tells where it failed
                values.append([value(row) for row in rows])
        except DataError as error:
            what = f"{WRONG}: {name.partition(':')[2] or name.strip('_')}: {error.what}"
            raise DataError(what, hint=error.hint or "send other values, or have the expression take them") from None
        found = [column_of(own, kind) for (_, _, kind), own in zip(self._plan, values, strict=True)]
        return {name: found[place] for name, place in self._places}

    @cached_property
    def _plan(self) -> list[tuple[str, Value, str]]:
        """What is computed: by its first name, how, and of which kind it is. What has several names is computed once."""
        first = {self.columns[name]: name for name in reversed([*self.values])}
        return [(name, value, self.columns[name][1]) for name, value in self.values.items() if first[self.columns[name]] == name]

    @cached_property
    def _places(self) -> list[tuple[str, int]]:
        """All names, and which of what is computed each is."""
        computed = [self.columns[name] for name, _, _ in self._plan]
        return [(name, computed.index(self.columns[name])) for name in self.values]

    def differences(self, rows: Sequence[Mapping[str, Any]], columns: Columns) -> Iterator[tuple[str, str, str]]:
        """What is another value for one row than in the columns of all, to the last bit: its name and both values."""
        for place, row in enumerate(rows):
            try:
                found = self.computed([[self.taken(name, row[name]) for name in self.types]])
            except DataError:  # such a request is refused, not answered otherwise
                continue
            for name, column in found.items():
                one, among = _shown(column, 0), _shown(columns[name], place)
                if one != among:
                    yield name, one, among

    def taken_row(self, row: Mapping[str, Any]) -> Row:
        """The values of a row that was sent, in the order of the columns. Raises DataError for one that lacks or does not fit."""
        if not self.types.keys() <= row.keys():
            lacks = next(name for name in self.types if name not in row)
            hint = f"send a known key alone, or all of: {', '.join(self.types)}"
            raise DataError(f"the request lacks {lacks!r}", available=sorted(row), hint=hint)
        for name, kind in self._times:
            if row[name] is not None and not is_gap(row[name]):
                _check_zone(name, kind, row[name], self.timezone)
        check_values(self.types, row)
        try:
            return [take(row[name]) for name, take in self.takers.items()]
        except DataError:
            return [self.taken(name, row[name]) for name in self.types]  # which says what is wrong

    @cached_property
    def _times(self) -> list[tuple[str, str]]:
        """The columns of times, with their types."""
        return [(name, kind) for name, kind in self.types.items() if kind.startswith(("TIME", "DATE"))]

    def taken(self, name: str, value: Any) -> Any:
        """A value of a column as expressions take it."""
        try:
            return self.takers[name](value)
        except DataError:
            what = f"{WRONG}: the request's {name} = {value!r} is no {plain_type(self.types[name])}"
            raise DataError(what, hint="send one, or null") from None


def _check_zone(name: str, kind: str, value: Any, timezone: str) -> None:
    zoned = _zoned(value)
    if kind == "TIMESTAMP WITH TIME ZONE" and not zoned:
        raise DataError(f"the request's {name} = {value} is not a time with its zone", hint="write it like 2013-05-01T12:00:00Z")
    if kind in LOCAL and zoned and not (timezone == "UTC" and str(value).endswith(("Z", "+00:00"))):
        hint = "send the time of its place, without a zone, as the files spell it"
        raise DataError(f"the request's {name} = {value} has a zone, which its column has not", hint=hint)


def _zoned(value: Any) -> bool:
    try:
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).tzinfo is not None
    except (ValueError, AttributeError):
        return False


def _shown(column: Column, row: int) -> str:
    return repr(column.take([row]).texts()[0] if isinstance(column, Coded) else column[row].item())


def column_of(values: list[Any], kind: str) -> Column:
    """A column of values that were computed one by one, as the engine would give it."""
    if kind == "text":
        return Coded.of(values)
    if kind == "instant":
        if None in values:
            raise DataError("a time is null", hint="send it")
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.float64)  # null as NaN


def _requests(raw: Mapping[str, Any], keys: Sequence[str]) -> Requests:
    texts: dict[str, Coded] = {}
    vocabularies: dict[str, tuple[str, ...]] = {}
    names: list[str] = []
    numbers: list[Array] = []
    for full, column in raw.items():
        kind, name = full[:2], full[2:]
        if kind == "t:":
            texts[name] = column
        elif kind == "x:":
            names.append(name)
            if isinstance(column, Coded):
                vocabularies[name], column = column.vocabulary, column.numbers()
            numbers.append(column)
    values = np.stack(numbers, axis=1) if numbers else np.empty((len(raw["__at"]), 0))
    check_keys(keys)
    return Requests(None, raw["__at"], raw["__event"], raw["__known"], texts, names, values, vocabularies, spelled=keys)
