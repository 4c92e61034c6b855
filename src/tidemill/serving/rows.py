"""The rows of a request, each in one of three forms: the key of a known request, a request with its own columns, or the features.

Comes in: rows as JSON has them. Goes out: parts of one form, whose features are to be looked up or are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tidemill.core import DataError, Instants, Ints, Ref, UnknownName, show
from tidemill.data import Dataset
from tidemill.features import (
    FeatureView,
    Feed,
    Function,
    Keys,
    Matrix,
    OnlineStore,
    OwnColumns,
    Reader,
    Requests,
    RequestView,
    bound,
    check_values,
    from_definition,
    load,
    load_requests,
)
from tidemill.ledger import Ledger
from tidemill.serving.given import FEW, Given, Row


class Part(NamedTuple):
    """Rows of one form: their places in the request, what they ask, the columns that they `sent`, and the features that they brought;
    `sticky` is by what each keeps its version, where the request said that."""

    places: Sequence[int] | Ints
    requests: Requests
    sent: Sequence[Row] | None = None
    matrix: Matrix | None = None
    sticky: Sequence[str] = ()


@dataclass(frozen=True)
class Rows:
    """How rows are read: the `known` requests, and their dataset with the types of its columns."""

    known: Requests
    dataset: Dataset
    types: Mapping[str, str]
    predict_at: str
    reader: Reader

    def parts(self, rows: Sequence[Row], when: Instants, given: Given) -> list[Part]:
        """The rows by their form. Raises DataError for a wrong one, and UnknownName for a key that nobody knows."""
        keys: list[str] = []
        alone: list[int] = []
        own: list[int] = []
        whole: list[int] = []
        for i, row in enumerate(rows):
            if not given.marks.isdisjoint(row):
                whole.append(i)
            elif self._alone(i, row):
                alone.append(i)
                keys.append(self._key(i, row))
            else:
                own.append(i)
        found = [Part(alone, self.known.take(self._places(rows, alone, keys)))] if alone else []
        if own:
            sent = [rows[i] for i in own]
            found.append(Part(own, self._sent(own, sent), sent))
        for part in found:
            check_known(part, when)
        if whole:
            sent = [rows[i] for i in whole]
            matrix, keys = given.matrix(sent, whole), [self.beside(i, row) for i, row in zip(whole, sent, strict=True)]
            found.append(Part(whole, Requests.bare(keys, when if len(whole) == len(when) else when[whole]), None, matrix))
        return found

    def _alone(self, i: int, row: Row) -> bool:
        """Whether a row is its key alone, and not one that brings its own columns. Raises DataError where it is neither."""
        self._check_key(i, row)
        if not row.keys() <= self.types.keys():
            odd = next(name for name in row if name not in self.types)
            raise DataError(f"rows[{i}] has a field {odd!r} that the request does not know", available=sorted(self.types))
        return len(row) == len(self._types)

    def _places(self, rows: Sequence[Row], which: Sequence[int], keys: Sequence[str]) -> Sequence[int] | Ints:
        """The known requests of rows that are their keys alone. Raises UnknownName."""
        places = [self.known.find(key) for key in keys] if len(keys) <= FEW else self.known.find_all(keys)
        if min(places) < 0:
            i = next(i for i, place in zip(which, places, strict=True) if place < 0)
            hint = "send the key of a known request, or the request with all its columns"
            raise UnknownName(f"rows[{i}]: no request has the key {dict(rows[i])}", available=list(self.types), hint=hint)
        return places

    def _sent(self, places: Sequence[int], sent: Sequence[Row]) -> Requests:
        """What rows with columns of their own ask. Raises DataError with the place of the first that is wrong."""
        try:
            found = self.own.requests(sent)
        except DataError:
            for i, row in zip(places, sent, strict=True):
                try:
                    self.own.requests([row])
                except DataError as error:
                    raise _placed(i, error) from None
            raise
        for i, key in zip(places, found.key_texts, strict=True):
            _check_zero(i, key)
        return found

    def beside(self, i: int, row: Row) -> str:
        """The key that stands beside features; none is none."""
        if self._types.keys().isdisjoint(row):
            return ""
        self._check_key(i, row)
        key = self._key(i, row)
        _check_zero(i, key)
        return key

    def _key(self, i: int, row: Row) -> str:
        """The text of the key of a row, which is there. Raises DataError where a part of it is of another type."""
        try:
            check_values(self._types, row)
        except DataError as error:
            raise _placed(i, error) from None
        return self._keys.texts([row])[0] or ""

    def _check_key(self, i: int, row: Row) -> None:
        parts = [row.get(part) for part in self._types]
        if None in parts:
            missing = self.dataset.keys[parts.index(None)]
            what = f"rows[{i}] has a null key {missing!r}" if missing in row else f"rows[{i}] lacks the key {missing!r}"
            raise DataError(what, available=sorted(map(str, row)), hint=f"send {list(self.dataset.keys)}, or all features of the model")

    @cached_property
    def _keys(self) -> Keys:
        return Keys(tuple(self._types), tuple(self._types.values()))

    @cached_property
    def _types(self) -> Mapping[str, str]:
        """The types of the parts of a key."""
        return {part: self.types[part] for part in self.dataset.keys}

    @cached_property
    def own(self) -> OwnColumns:
        """How requests that bring their own columns are computed: compiled for the first of them."""
        views = [view for view in self.reader.views if isinstance(view, RequestView)]
        lookups = [column for view in self.reader.views if isinstance(view, FeatureView) for column in view.entity.keys]
        return OwnColumns.of(self.dataset, self.types, views, self.predict_at, lookups=lookups)


def _placed(i: int, error: DataError) -> DataError:
    """The same error with the place of the row that it is about."""
    return DataError(f"rows[{i}]: {error.what}", where=error.where, available=error.available, hint=error.hint)


def _check_zero(i: int, key: str) -> None:
    if "\0" in key:
        raise DataError(f"rows[{i}] has a zero character in its key {key!r}", hint="a key is a text without one")


def check_known(part: Part, when: Instants | Mapping[int, int]) -> None:
    """Raise DataError for the first of these rows that nobody knew at its prediction time; `when` is that by its place."""
    for row, known in zip(part.places, part.requests.known.tolist(), strict=True):
        if known > when[row]:
            what = f"rows[{row}] was not known at {show(int(when[row]))}: it became known at {show(known)}"
            raise DataError(what, hint="ask about it later, or leave out `at`")


def open_rows(ledger: Ledger, recipe: Mapping[str, Any], *, online: OnlineStore | None = None, functions: Sequence[Function] = ()) -> Rows:
    """What a recipe reads rows with."""
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
    return Rows(requests, dataset, types, recipe["predict_at"], Reader(views, logs, versions, online, feeds))
