"""What was pushed behind the version of a view that is open: with it the log says what the online store would."""

import logging
from collections.abc import Iterable
from threading import Lock

import numpy as np

from tidemill.core import Array, Ints, StoreError, place_of
from tidemill.data import Pushed, pushed
from tidemill.features.pushing import Feed, Rows
from tidemill.features.state import EVENT, FIRST, KNOWN, SEQ
from tidemill.features.views import ViewLog, of_arrays
from tidemill.features.words import Numbering, Vocabulary, counted

log = logging.getLogger(__name__)


class Behind:
    """The rows by entity, read from the log of pushes as they come."""

    def __init__(self, version: ViewLog, feed: Feed) -> None:
        self._log, self._feed, self._lock, self._away = version, feed, Lock(), ""
        self._begin()

    def _begin(self) -> None:
        self._end, self._rows = Pushed(self._log.pushed, ""), Rows()
        coded = [name for name, feature in self._log.view.columns.items() if feature.category]
        words = {name: self._log.vocabularies[self._log.view.names_of(name)[0]] for name in coded}
        self._words = {name: Numbering(Vocabulary(counted(own), [*own])) for name, own in words.items()}

    def log(self, texts: Iterable[str | None]) -> ViewLog | None:
        """All events of those of some entities of which something was pushed; None where nothing was. Categories have the numbers of the
        version's words; what it lacks follows."""
        with self._lock:
            try:
                self._catch_up()
                self._away = ""
            except StoreError as error:  # answers go on with what is known
                if error.what != self._away:
                    log.warning("view=%s pushed_rows=unread error=%s", self._log.view.name, error.what)
                self._away = error.what
            some = sorted(text for text in set(texts) if text is not None and text in self._rows)
            return self._joined(some) if some else None

    def _catch_up(self) -> None:
        feed, dataset = self._feed, self._feed.dataset.name
        end = pushed(feed.ledger, dataset)
        if end == self._end or end.last <= self._log.pushed or not feed.computable:
            return
        if self._end.digest and pushed(feed.ledger, dataset, self._end.last) != self._end:  # rows were erased since
            self._begin()
        for entity, rows in feed.rows(feed.between(self._end.last, end.last), self._words).items():
            self._rows.setdefault(entity, []).extend(rows)
        self._end = end

    def _joined(self, entities: list[str]) -> ViewLog:
        """The events of the version and those behind it, in the order of versions: by event time, knowledge time, and place in the log."""
        own, parts = self._log, [self._parts(entity) for entity in entities]
        arrays: dict[str, Array] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        arrays["entity"] = np.repeat(np.arange(len(entities), dtype=np.int32), [len(part["event"]) for part in parts])
        return of_arrays(own.view, tuple(entities), arrays, {name: own.words for name, own in self._words.items()})

    def _parts(self, entity: str) -> dict[str, Array]:
        version, place = self._log, place_of(self._log.entities, entity)
        own = slice(*version.events.starts[place : place + 2].tolist()) if place >= 0 else slice(0)
        rows: Ints = np.array(self._rows[entity], dtype=np.int64)
        event = np.concatenate([version.events.event[own], rows[:, EVENT]])
        known = np.concatenate([version.events.known[own], rows[:, KNOWN]])
        order = np.lexsort((np.concatenate([np.zeros(len(event) - len(rows), dtype=np.int64), rows[:, SEQ]]), known, event))
        columns = {
            name: np.concatenate([version.columns[name][own], np.ascontiguousarray(rows[:, FIRST + i]).view(np.float64)])[order]
            for name, i in self._feed.form.layout.places.items()
        }
        return {"event": event[order], "known": known[order], **columns}
