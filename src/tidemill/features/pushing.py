"""What was pushed to a dataset, into the spaces of the views over it: each row once, in the order in which it was written to the log."""

import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from math import inf, isfinite, isinf, nan
from typing import Any

import msgspec
import numpy as np

from tidemill.core import Damaged, DataError, DefinitionError, MissingFile, Ref, StoreError
from tidemill.data import (
    Dataset,
    Push,
    append_push,
    check_pushable,
    instant_of,
    kept_open,
    pushed,
    pushed_by,
    pushed_times,
    pushes,
    quote,
    wrong_alone,
)
from tidemill.features.declarations import FeatureView, from_definition
from tidemill.features.folds import number_of
from tidemill.features.forms import Windowed, form_of
from tidemill.features.keys import SINGLE, joined_text, stands_for_several
from tidemill.features.latest import Latest
from tidemill.features.online import Mark, Name, OnlineStore, mark_of, space_of
from tidemill.features.outputs import Output, bound
from tidemill.features.own import WRONG, OwnColumns, column_of
from tidemill.features.state import Row
from tidemill.features.words import Numbering, SpaceWords, chunks_of, counts_of
from tidemill.ledger import Artifact, Ledger

log = logging.getLogger(__name__)
PART = 10_000  # rows that are added at once
FLOATS = float, np.floating
CODED = bytes, bytearray, memoryview, Enum
Rows = dict[str, list[Row]]  # of states, by entity
Computed = tuple[str, int, list[Any]]  # an entity, an event time and the values of columns
Counted = tuple[Push, list[Computed | None]]  # what was pushed, and what a view makes of each row of it


@dataclass(frozen=True)
class Feed:
    """What was pushed to the dataset of a view, as rows of its states. `types` are those of the dataset's columns."""

    ledger: Ledger
    view: FeatureView
    dataset: Dataset
    types: Mapping[str, str]

    @classmethod
    def of(cls, ledger: Ledger, view: FeatureView, version: Artifact) -> "Feed":
        """Of a version of a view. Raises UnknownName, and DefinitionError where the model whose output it is does not fit."""
        known, view = version.meta, bound(ledger, view)
        dataset = Dataset.recorded(view.dataset.name, known["event_time"], timezone=known["timezone"])
        return cls(ledger, view, dataset, {name: kind for name, kind in known["types"].items() if not name.startswith("__")})

    @property
    def last(self) -> int:
        """The number of the last row; 0 where rows of this view cannot be computed one by one: its versions alone have them then."""
        last = pushed(self.ledger, self.dataset.name).last
        return last if last and self.computable else 0

    def known_by(self, until: int) -> int:
        """The number of the last row that was known by a time."""
        return pushed_by(self.ledger, self.dataset.name, until)

    def times(self, since: int, upto: int) -> set[int]:
        """The times later than `since` at which rows became known, up to one; none at which later rows did too."""
        return pushed_times(self.ledger, self.dataset.name, since, upto)

    def between(self, after: int, upto: int) -> Iterator[Push]:
        """What came behind one row, up to another."""
        return pushes(self.ledger, self.dataset.name, after, upto)

    @cached_property
    def computable(self) -> bool:
        """Whether a row of this view can be computed by itself."""
        try:
            if isinstance(self.view.features, Output):
                self.view.features.loaded(self.view.name, str(self.view.where))
            return bool(self.own.values)
        except (DefinitionError, MissingFile, Damaged) as error:
            log.warning("view=%s pushed_rows=with the next version error=%s", self.view.name, error.what)
            return False

    @cached_property
    def own(self) -> OwnColumns:
        """What is computed of a row. Raises DefinitionError for an expression for which that cannot be, with its line."""
        view = self.view
        columns = {f"k:{i}": (quote(name), "text") for i, name in enumerate(view.entity.keys)}
        columns |= {"__event": (instant_of(quote(self.dataset.event_time), self.dataset.timezone), "instant")}
        columns |= {"__some": (f"CASE WHEN ({view.filter or 'TRUE'}) THEN 1 ELSE 0 END", "number")}
        if isinstance(view.features, Output):
            columns |= view.features.inputs(view.name)
        else:
            columns |= {name: view.kept[name] for name in self.form.layout.columns}
        return OwnColumns.over(self.dataset, self.types, [], columns, str(view.where))

    @cached_property
    def space(self) -> str:
        """The name of the view's space."""
        return space_of(self.view)

    @cached_property
    def form(self) -> Latest | Windowed:
        """The form of its states."""
        return form_of(self.view)

    @cached_property
    def words(self) -> SpaceWords:
        """The words of the view's space."""
        return SpaceWords(self.space)

    def rows(self, found: Iterable[Push], words: Mapping[str, Numbering]) -> Rows:
        """The rows by entity; categories have the numbers of `words`."""
        return self.numbered([(push, self.counted(push)) for push in found], words)

    def counted(self, push: Push) -> list[Computed | None]:
        """What the view makes of each row; None for one that was erased, or does not count."""
        there = [i for i, row in enumerate(push.rows) if row]
        taken = [[self.own.taken(name, push.rows[i].get(name)) for name in self.own.types] for i in there]
        found = dict(zip(there, self.computed(taken), strict=True))
        return [found.get(i) for i in range(len(push.rows))]

    def computed(self, taken: Sequence[Sequence[Any]]) -> list[Computed | None]:
        """What the view makes of rows, whose values are taken: entity, event time and columns; None for one that does not count."""
        found = [{name: call(row) for name, call in self.own.values.items()} for row in taken]
        columns, keys = self.form.layout.columns, [f"k:{i}" for i in range(len(self.view.entity.keys))]
        if isinstance(self.view.features, Output) and found:
            raw = {name: column_of([row[name] for row in found], self.own.columns[name][1]) for name in self.own.columns if name[0] == "m"}
            outputs = self.view.features.features(raw, self.view.name, str(self.view.where))
            each = zip(*(outputs[name[2:]].tolist() for name in columns), strict=True)
            found = [row | dict(zip(columns, values, strict=True)) for row, values in zip(found, each, strict=True)]
        entities = [joined_text([row[key] for key in keys]) for row in found]
        return [
            (entity, row["__event"], [row[name] for name in columns]) if entity is not None and row["__some"] else None
            for entity, row in zip(entities, found, strict=True)
        ]

    def numbered(self, found: Iterable[Counted], words: Mapping[str, Numbering]) -> Rows:
        """The rows as the states have them, by entity; categories have the numbers of `words`."""
        rows, ways = Rows(), self._ways(words)
        for push, several in found:
            for seq, one in enumerate(several, push.first):
                if one is not None:
                    entity, event, values = one
                    numbers = [nan if value is None else way(value) for way, value in zip(ways, values, strict=True)]
                    bits = struct.unpack(f"<{len(numbers)}q", struct.pack(f"<{len(numbers)}d", *numbers))
                    rows.setdefault(entity, []).append((seq, event, push.known, *bits))
        return rows

    def _ways(self, words: Mapping[str, Numbering]) -> list[Callable[[Any], float]]:
        """For each column how its value becomes a number."""
        return [words[way] if isinstance(way, str) else way for way in self._own_ways]

    @cached_property
    def _own_ways(self) -> list[Callable[[Any], float] | str]:
        """The same, with the name of the feature whose words are to be taken."""
        ways: list[Callable[[Any], float] | str] = []
        for name in self.form.layout.columns:
            text, category = self.view.kept[name][1] == "text", self.view.columns[name[2:]].category
            ways.append(name[2:] if category else number_of if text else _number)
        return ways


def _number(value: Any) -> float:
    return float(value) + 0.0  # zero has one sign


def catch_up(store: OnlineStore, feed: Feed, fresh: Counted | None = None) -> None:
    """Add to a view's space what was pushed since; `fresh` is what was just written to the log. A space that is not there, or is being
    written, is left: who writes it adds it. Raises StoreError."""
    if fresh and _add(store, feed, [fresh]):
        return
    last = feed.last
    while last:
        mark = Mark.of(mark_of(store, feed.space))
        if mark is None or mark.until is None or mark.making or mark.pushed >= last:
            return
        _add(store, feed, [(push, feed.counted(push)) for push in feed.between(mark.pushed, min(last, mark.pushed + PART))])


def _add(store: OnlineStore, feed: Feed, found: Sequence[Counted]) -> bool:
    """Add what was pushed, if all before it is there; returns whether nothing is left to do."""
    there, lacking, words = False, True, dict[str, Numbering]()

    def change(data: bytes | None, states: list[bytes | None]) -> tuple[bytes, dict[Name, bytes | None]] | None:
        nonlocal there, lacking, words
        mark, there, lacking, words = Mark.of(data), False, False, {}
        if mark is None or mark.until is None or mark.making or mark.pushed >= found[-1][0].last:
            there = True
            return None
        if mark.pushed != found[0][0].first - 1:
            return None
        known = feed.words.at(mark.words)
        if known is None:
            lacking = True
            return None
        words = {feature: Numbering(one) for feature, one in known.items()}
        rows, there = feed.numbered(found, words), True
        after = msgspec.structs.replace(mark, words=counts_of(words), pushed=found[-1][0].last)
        added = {entity: feed.form.added(state, rows[entity]) for entity, state in zip(entities, states, strict=True)}
        return after.bytes(), chunks_of(words) | added

    entities = list({row[0]: None for _, rows in found for row in rows if row is not None})
    while lacking:
        store.update(feed.space, entities, change)
        if lacking:
            with suppress(LookupError):  # it was made anew meanwhile
                feed.words.catch_up(store)
    feed.words.keep(words)
    return there


class Pusher:
    """Writes rows to the log of one dataset, and to the online store."""

    def __init__(self, ledger: Ledger, dataset: Dataset, types: Mapping[str, str], store: OnlineStore) -> None:
        """Raises DataError for a dataset whose rows cannot be pushed."""
        check_pushable(dataset)
        self._ledger, self._dataset, self._store, self._feeds = ledger, dataset, store, dict[str, Feed | None]()
        plain = {name: kind for name, kind in types.items() if not name.startswith("__")}
        columns = {"__event": (instant_of(quote(dataset.event_time), dataset.timezone), "instant")}
        self._checks = {f"c:{check.name}": check for check in dataset.checks if wrong_alone(check)}
        columns |= {name: (f"CASE WHEN {wrong_alone(check)} THEN 1 ELSE 0 END", "number") for name, check in self._checks.items()}
        self._own = OwnColumns.over(dataset, plain, [], columns, str(dataset.where))

    @property
    def columns(self) -> Sequence[str]:
        """The columns of a row."""
        return list(self._own.types)

    @kept_open()
    def push(self, rows: Sequence[Mapping[str, Any]], now: int, *, source: str = "", offsets: Sequence[int] = ()) -> Push | None:
        """Write rows, known since `now` (microseconds UTC); None where the source gave all of them before. Raises DataError for a row that
        does not fit, and then nothing is written, and StoreError. Where only the online store fails, they are written, and it gets them
        with the next."""
        plain = _plain(rows)
        for number, row in enumerate(rows):
            _check_said(number, row, self._dataset.name)
        taken = [self._taken(number, row) for number, row in enumerate(plain)]
        away = self._look()
        feeds = [feed for feed in self._feeds.values() if feed and feed.computable]
        for column in {column for feed in feeds for column in feed.view.entity.keys}:
            self._check_key(column, taken)
        same = list(self._own.types.items())  # of a version over an earlier query the columns are others
        counted = [  # what cannot be computed is refused before it is written
            feed.computed(taken) if list(feed.own.types.items()) == same else feed.counted(Push(1, now, plain)) for feed in feeds
        ]
        push = append_push(self._ledger, self._dataset.name, plain, now, source=source, offsets=offsets)
        try:
            for feed, several in zip(feeds, counted, strict=True):
                if push and not away:
                    catch_up(self._store, feed, (push, several[len(several) - len(push.rows) :]))
        except StoreError as error:
            away = error.what
        if away:
            log.warning("pushed=%s online_store=away error=%s", self._dataset.name, away)
        return push

    def _check_key(self, column: str, taken: Sequence[Sequence[Any]]) -> None:
        """Raise DataError for a key that is a float which stands for several whole numbers."""
        kind, place = self._own.types[column], self.columns.index(column)
        for number, row in enumerate(taken) if kind in SINGLE else ():
            if row[place] is not None and SINGLE[kind] <= abs(row[place]) < inf:
                what = stands_for_several(f"row {number}: the key {column!r} = {row[place]}", kind)
                raise DataError(
                    what, where=f"dataset {self._dataset.name}", hint="give the dataset such keys as whole numbers, or as texts"
                )

    def _taken(self, number: int, row: Any) -> Sequence[Any]:
        """The values of a row. Raises DataError for one that does not fit."""
        try:
            if not isinstance(row, Mapping):
                raise DataError(f"{row!r} is no row", hint=f"send a dict with {', '.join(self._own.types)}")
            types = self._own.types
            if odd := row.keys() - types.keys():
                raise DataError(f"there is no column {min(odd)!r}", hint=f"the dataset has: {', '.join(types)}")
            if missing := [name for name in types if name not in row]:
                raise DataError(f"it lacks {missing[0]!r}", hint=f"send all of {', '.join(types)}: null where there is nothing")
            taken = self._own.taken_row(row)
            if self._own.values["__event"](taken) is None:
                raise DataError(f"{self._dataset.event_time} is null", hint="send when it happened")
            for name, check in self._checks.items():
                if self._own.values[name](taken):
                    what = f"{check.name} fails: {check.column} = {row[check.column]!r}"
                    raise DataError(what, hint="correct the row, or the check of the dataset")
        except DataError as error:
            what = error.what.removeprefix(f"{WRONG}: ").replace("the request's ", "")
            raise DataError(f"row {number}: {what}", where=f"dataset {self._dataset.name}", hint=error.hint) from None
        return taken

    def _look(self) -> str:
        """Take the feeds of all spaces of views over the dataset; returns why the store does not tell them, if so."""
        try:
            spaces = self._store.spaces()
        except StoreError as error:
            return error.what
        known = self._feeds
        self._feeds = {space: known.get(space) or self._feed(Mark.of(data)) for space, data in spaces.items()}
        return ""

    def _feed(self, mark: Mark | None) -> Feed | None:
        if mark is None or not mark.version:
            return None
        plain = mark.view
        if plain["dataset"] != self._dataset.name:
            return None
        view = from_definition(plain)
        assert isinstance(view, FeatureView)
        return Feed.of(self._ledger, view, self._ledger.artifact(Ref("feature view", view.name, "", mark.version)))


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Rows as they come back from the log."""
    try:
        found: list[Any] = msgspec.json.decode(msgspec.json.encode(rows, enc_hook=_scalar))
        return found
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise DataError(f"the rows cannot be written: {error}", hint="send numbers, texts, times, true, false or null") from None


def _check_said(number: int, row: Any, dataset: str) -> None:
    """Raise DataError for what would be something else as JSON: an infinite number, bytes, a member of an Enum."""
    for name, value in row.items() if isinstance(row, Mapping) else ():
        if type(value) is float and isfinite(value):  # most are
            continue
        if isinstance(value, CODED) and not isinstance(value, str | int):
            said = f"row {number}: {name} = {value!r:.100} is a {type(value).__name__}"
            raise DataError(said, where=f"dataset {dataset}", hint="send a number, a text, a time, true, false or null")
        if isinstance(value, FLOATS) and isinf(value):
            hint = "send a finite number, or null where there is none"
            raise DataError(f"row {number}: {name} = {value} is not finite", where=f"dataset {dataset}", hint=hint)


def _scalar(value: Any) -> Any:
    """What is no plain data as such: numpy's own, and a time or a gap as pandas has them."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return value.astype(f"{value.dtype.kind}8[us]").item()
    if isinstance(value, np.generic) and not isinstance(value, (np.longdouble, np.complexfloating)):
        return value.item()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime):
        return datetime.isoformat(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
