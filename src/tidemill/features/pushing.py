"""What was pushed to a dataset, into the spaces of the views over it: each row once, in the order in which it was written to the log."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np

from tidemill.core import DataError, DefinitionError, Ref, StoreError
from tidemill.data import Dataset, Push, append_push, check_pushable, failed_check, instant_of, pushed, pushed_by, pushes, quote
from tidemill.features.declarations import FeatureView, from_definition
from tidemill.features.folds import number_of
from tidemill.features.forms import Windowed, form_of
from tidemill.features.keys import joined_text
from tidemill.features.latest import Latest
from tidemill.features.online import Mark, OnlineStore, space_of
from tidemill.features.own import OwnColumns
from tidemill.features.state import Row
from tidemill.ledger import Artifact, Ledger

log = logging.getLogger(__name__)
PART = 1_000  # pushes that are added at once
Rows = dict[str, list[Row]]  # of states, by entity


@dataclass(frozen=True)
class Feed:
    """What was pushed to the dataset of a view, as rows of its states. `types` are those of the dataset's columns."""

    ledger: Ledger
    view: FeatureView
    dataset: Dataset
    types: Mapping[str, str]

    @classmethod
    def of(cls, ledger: Ledger, view: FeatureView, version: Artifact) -> "Feed":
        """Of a version of a view."""
        known = version.meta
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

    def between(self, after: int, upto: int) -> Iterator[Push]:
        """What came behind one row, up to another."""
        return pushes(self.ledger, self.dataset.name, after, upto)

    @cached_property
    def computable(self) -> bool:
        """Whether a row of this view can be computed by itself."""
        try:
            return bool(self.own.values)
        except DefinitionError as error:
            log.warning("view=%s pushed_rows=with the next version error=%s", self.view.name, error.what)
            return False

    @cached_property
    def own(self) -> OwnColumns:
        """What is computed of a row. Raises DefinitionError for an expression for which that cannot be, with its line."""
        view = self.view
        columns = {f"k:{i}": (quote(name), "text") for i, name in enumerate(view.entity.keys)}
        columns |= {"__event": (instant_of(quote(self.dataset.event_time), self.dataset.timezone), "instant")}
        columns |= {"__some": (f"CASE WHEN ({view.filter or 'TRUE'}) THEN 1 ELSE 0 END", "number")}
        stored = form_of(view).layout.columns
        columns |= {name: view.kept[name] for name in stored}
        return OwnColumns.over(self.dataset, self.types, [], columns, str(view.where))

    def rows(self, found: Iterable[Push], words: dict[str, list[str]]) -> Rows:
        """The rows by entity; new categories get the next numbers of `words`."""
        rows = Rows()
        for push in found:
            for number, row in enumerate(push.rows, push.first):
                taken = [self.own.taken(name, row.get(name)) for name in self.own.types]
                value = {name: call(taken) for name, call in self.own.values.items()}
                entity = joined_text([value[f"k:{i}"] for i in range(len(self.view.entity.keys))])
                if entity is not None and value["__some"]:
                    numbers = [self._number(name, value[name], words) for name in form_of(self.view).layout.columns]
                    bits = np.array(numbers).view(np.int64).tolist()
                    rows.setdefault(entity, []).append((number, value["__event"], push.known, *bits))
        return rows

    def _number(self, name: str, value: Any, words: dict[str, list[str]]) -> float:
        if value is None:
            return np.nan
        if self.view.kept[name][1] == "number":
            return float(value) + 0.0  # zero has one sign
        if not self.view.columns[name[2:]].category:
            return number_of(value)
        known = words.setdefault(name[2:], [])
        if value not in known:
            known.append(value)
        return float(known.index(value))


def catch_up(store: OnlineStore, feed: Feed, fresh: Push | None = None) -> int:
    """Add to a view's space what was pushed since; `fresh` is what was just written to the log. Returns how many rows the log is further
    now. A space that is not there, or is being written, is left: who writes it adds them."""
    if not (feed.computable if fresh else feed.last):
        return 0
    space, added = space_of(feed.view), 0
    while True:
        data = store.mark(space)
        mark = Mark.of(data)
        if mark is None or mark.until is None or mark.making:
            return added
        follows = fresh is not None and fresh.first == mark.pushed + 1
        found = [fresh] if follows and fresh else list(feed.between(mark.pushed, min(feed.last, mark.pushed + PART)))
        if not found:
            return added
        words = {name: list(own) for name, own in mark.words.items()}
        rows = feed.rows(found, words)
        after = msgspec.structs.replace(mark, words=words, pushed=found[-1].last).bytes()
        store.update(space, list(rows), partial(_added, form_of(feed.view), data, after, rows))
        if store.mark(space) == after:
            added += found[-1].last - mark.pushed


def _added(
    form: Latest | Windowed, before: bytes | None, after: bytes, rows: Rows, mark: bytes | None, states: Sequence[bytes | None]
) -> tuple[bytes, dict[str, bytes]] | None:
    """The change that adds rows to states, if nobody was first."""
    if mark != before:
        return None
    return after, {entity: form.added(state, more) for (entity, more), state in zip(rows.items(), states, strict=True)}


class Pusher:
    """Writes rows to the log of one dataset, and to the online store."""

    def __init__(self, ledger: Ledger, dataset: Dataset, types: Mapping[str, str], store: OnlineStore) -> None:
        """Raises DataError for a dataset whose rows cannot be pushed."""
        check_pushable(dataset)
        self._ledger, self._dataset, self._store, self._feeds = ledger, dataset, store, dict[str, Feed | None]()
        self._types = {name: kind for name, kind in types.items() if not name.startswith("__")}
        event = {"__event": (instant_of(quote(dataset.event_time), dataset.timezone), "instant")}
        self._own = OwnColumns.over(dataset, self._types, [], event, str(dataset.where))

    def push(self, rows: Sequence[Mapping[str, Any]], now: int, *, source: str = "", offsets: Sequence[int] = ()) -> Push | None:
        """Write rows, known since `now` (microseconds UTC); None where the source gave all of them before. Raises DataError for a row that
        does not fit, and then nothing is written, and StoreError. Where only the online store fails, they are written, and it gets them
        with the next."""
        for number, row in enumerate(rows):
            try:
                self._check(row)
            except DataError as error:
                raise DataError(f"row {number}: {error.what}", where=f"dataset {self._dataset.name}", hint=error.hint) from None
        away = self._look()
        draft = Push(1, now, msgspec.json.decode(msgspec.json.encode(rows)))
        for feed in self._feeds.values():  # what cannot be computed is refused before it is written
            if feed and feed.computable:
                feed.rows([draft], {})
        push = append_push(self._ledger, self._dataset.name, rows, now, source=source, offsets=offsets)
        try:
            for feed in self._feeds.values():
                if feed and not away:
                    catch_up(self._store, feed, push)
        except StoreError as error:
            away = error.what
        if away:
            log.warning("pushed=%s online_store=away error=%s", self._dataset.name, away)
        return push

    def _look(self) -> str:
        """Take the feeds of all spaces of views over the dataset; returns why the store does not tell them, if so."""
        try:
            spaces = self._store.spaces()
        except StoreError as error:
            return error.what
        self._feeds = {space: self._feeds.get(space) or self._feed(Mark.of(data)) for space, data in spaces.items()}
        return ""

    def _check(self, row: Mapping[str, Any]) -> None:
        if not isinstance(row, Mapping):
            raise DataError(f"{row!r} is no row", hint=f"send a dict with {', '.join(self._types)}")
        odd = next((name for name in row if name not in self._types), None)
        if odd is not None:
            raise DataError(f"there is no column {odd!r}", hint=f"the dataset has: {', '.join(self._types)}")
        taken = dict(zip(self._types, self._own.taken_row(row), strict=True))
        self._own.computed([list(taken.values())])
        failed = failed_check(self._dataset, taken)
        if failed:
            raise DataError(failed, hint="correct the row, or the check of the dataset")

    def _feed(self, mark: Mark | None) -> Feed | None:
        if mark is None or not mark.version or mark.view["dataset"] != self._dataset.name:
            return None
        view = from_definition(mark.view)
        assert isinstance(view, FeatureView)
        return Feed.of(self._ledger, view, self._ledger.artifact(Ref("feature view", view.name, "", mark.version)))
