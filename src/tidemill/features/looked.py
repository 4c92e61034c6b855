"""A view that is looked up: its space in the online store beside its log, which answers where the store cannot.

What was stored for some entities comes in, read in one go with the mark of the space; values and statuses go out: of many rows as
arrays, or of a few as a request reads them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tidemill.core import Bools, Coded, Damaged, Instants, Ints, place_of
from tidemill.features.behind import Behind
from tidemill.features.forms import form_of
from tidemill.features.historical import Opened
from tidemill.features.keys import Keys
from tidemill.features.online import Mark, OnlineStore, Stored, gone_as, space_of
from tidemill.features.pushing import Feed
from tidemill.features.state import NEVER, Among, Value, Words, in_numbers, not_a_state, numbers_of
from tidemill.features.views import Block, ViewLog
from tidemill.features.windows import AFTER, UNKNOWN
from tidemill.features.words import SpaceWords
from tidemill.ledger import Ledger

ABSENT = "nothing of it is in the online store: `tidemill features materialise {}` puts it there"
OLDER = "it is asked for as known before what the online store holds"
NEWER = "more is known by then than the online store holds: `tidemill features materialise {}` brings it up to date"
CHANGED = "the online store holds what became known later"


class Found(NamedTuple):
    """The values of a view for each row, and their status; `until`: up to which knowledge time the online store holds all (microseconds
    UTC; None where nothing); `why` the store did not answer, or nothing where it did."""

    values: Sequence[Sequence[Value]]
    status: Sequence[int]
    until: int | None
    why: str


@dataclass(frozen=True)
class Seen:
    """A mark, as it stands to the log: of which version the space is, until when all is there (None: nothing is), the first time at which
    the log knows more, the words of categories and their numbers among those of the log, and which entities were erased since."""

    version: str
    until: int | None
    limit: int
    words: Words
    among: Mapping[str, Among]
    gone: Collection[str] = ()


OTHER = Seen("", None, 0, {}, {})  # of a mark whose words are others by now


class Looked:
    """One view. `version` is the digest of that of which the log is; `types` are those of its dataset's columns; `feed` is what is pushed
    to that."""

    def __init__(self, log: ViewLog, version: str = "", types: Mapping[str, str] | None = None, feed: Feed | None = None) -> None:
        self.log, self.view, self.version, self._types = log, log.view, version, types or {}
        self.feed, self._behind = feed, Behind(log, feed) if feed else None
        self.space, self.form = space_of(self.view), form_of(self.view)
        self._full = {name: self.view.names_of(name) for name, feature in self.view.columns.items() if feature.category}
        self._coded = [(self.view.names.index(full), name) for name, names in self._full.items() for full in names]
        self._words = SpaceWords(self.space)
        self._limit = (NEVER, 0), AFTER  # up to what the store holds all, and what lacks it
        self._last: tuple[bytes | None, Seen] = (None, self._beside(None, {}))

    @classmethod
    def of(cls, opened: Opened, ledger: Ledger) -> "Looked":
        """Of a view that was opened, with what is pushed to its dataset."""
        version = opened.version
        feed = Feed.of(ledger, opened.log.view, version) if version else None
        return cls(opened.log, version.ref.digest if version else "", opened.types, feed)

    @cached_property
    def keys(self) -> Keys:
        """The columns by which it is looked up."""
        return Keys.of(self.view.entity, self._types)

    @property
    def made(self) -> tuple[str, int | None]:
        """Of which version the space was when it was last read, and until when all was there."""
        return self._last[1].version, self._last[1].until

    def seen(self, store: OnlineStore, data: bytes | None) -> Seen:
        """What a mark says. Raises Damaged where words of categories are not what was written, StoreError."""
        before, seen = self._last
        if data is not before and data != before:
            mark = Mark.of(data)
            counts = mark.words if mark and mark.until is not None else {}
            try:
                words = {name: one.words for name, one in self._words.read(store, data, counts).items()}
            except LookupError:
                return OTHER
            _, seen = self._last = data, self._beside(mark, words)
        return seen

    def _beside(self, mark: Mark | None, words: Words) -> Seen:
        if mark is None or mark.until is None:
            return Seen(mark.version if mark else "", None, 0, {}, {})
        among = {name: Among(own, self.log.vocabularies[self._full[name][0]]) for name, own in words.items()}
        there = mark.until, min(mark.pushed, self.log.pushed)
        if self._limit[0] != there:
            self._limit = there, self._lacking(*there)
        return Seen(mark.version, mark.until, self._limit[1], words, among, mark.gone)

    def _lacking(self, until: int, pushed: int) -> int:
        """The first time at which the log has more than was known by a time, and was pushed up to a row. Raises StoreError."""
        news = np.unique(self.log.events.news[np.searchsorted(self.log.events.news, until, side="right") :]).tolist()
        there = set[int]()
        if news and pushed and self.feed and self.log.known_too is not None:
            there = self.feed.times(until, pushed).difference(self.log.known_too)
        return next((time for time in news if time not in there), AFTER)

    def _check_lost(self, seen: Seen, keys: Coded, at: Instants) -> None:
        """Raise Damaged where the space holds nothing of an entity that the log knows and nobody erased. One of another version may lack
        it."""
        if seen.version != self.version or not (keys.codes >= 0).any():
            return
        known = keys.take(self.log.knows(keys, at)).texts()
        if any(gone_as(text) not in seen.gone for text in known if text is not None):
            raise Damaged(f"the online store has lost an entity of {self.view.name}")

    # ── many rows ───────────────────────────────────────────────────────────────────────────────────────────────────

    def fresh(self, seen: Seen, states: Sequence[bytes | None], which: Ints, at: Instants) -> Bools:
        """Which rows (n,) the store answers: it holds all that was known at their times, and their states can be read then. `which` (n,) is
        the place of a row's state, -1 for none."""
        if seen.until is None:
            return np.zeros(len(at), dtype=bool)
        since = [NEVER if data is None else int.from_bytes(data[:8], "little", signed=True) for data in states]
        return (seen.until <= at) & (at < seen.limit) & (np.array([*since, NEVER])[which] <= at)

    def block(self, seen: Seen, states: Sequence[bytes | None], which: Ints, keys: Coded, at: Instants, fresh: Bools) -> Block:
        """Values and statuses of rows: from the store those that are `fresh` (n,), from the log the others. Categories have the numbers of
        the log's words; what it lacks follows. Raises Damaged where the store is not what was written."""
        if fresh.all():
            return self._stored(seen, states, which, keys, at)
        if not fresh.any():
            return self.read(keys, at)
        there = self._stored(seen, states, which[fresh], keys.take(fresh), at[fresh])
        return _placed(~fresh, self.read(keys.take(~fresh), at[~fresh]), fresh, there)

    def read(self, keys: Coded, at: Instants) -> Block:
        """What the log says, with what was pushed behind it."""
        more = self._behind.log(keys.texts()) if self._behind else None
        if more is None:
            return self.log.read(keys, at)
        rows = keys.to(more.entities) >= 0
        return _placed(rows, more.read(keys.take(rows), at[rows]), ~rows, self.log.read(keys.take(~rows), at[~rows]))

    def _stored(self, seen: Seen, states: Sequence[bytes | None], which: Ints, keys: Coded, at: Instants) -> Block:
        values, status = self.form.read(*_there(states, which), at)
        lost = np.flatnonzero((status == UNKNOWN) & (which >= 0))
        if len(lost):
            self._check_lost(seen, Coded(keys.take(lost).to(self.log.entities), self.log.entities), at[lost])
        words = dict[str, tuple[str, ...]]()
        for place, name in self._coded:
            full = self.view.names[place]
            values[:, place], words[full] = seen.among[name](values[:, place].tolist())
        return Block(self.view.names, values, status, words)

    # ── a few rows ──────────────────────────────────────────────────────────────────────────────────────────────────

    def online(self, store: OnlineStore, stored: Stored, texts: Sequence[str | None], at: int) -> Found:
        """What the store says at one time, or where it cannot the log. Raises Damaged where the store is not what was written."""
        seen = self.seen(store, stored[0])
        found = self._few(seen, stored[1], texts, at)
        if found.why:
            return self.offline(texts, at, found.why)
        return found._replace(values=[self._spelled(row, seen.words) for row in found.values]) if self._coded else found

    def few(self, store: OnlineStore, stored: Stored, texts: Sequence[str | None], at: int) -> tuple[Found, dict[str, tuple[str, ...]]]:
        """What the store says at one time, or why it cannot, and the words of categories: those of the log, and behind them what it lacks.
        Raises Damaged as `online` does."""
        seen = self.seen(store, stored[0])
        found = self._few(seen, stored[1], texts, at)
        if found.why or not self._coded:
            return found, {}
        rows, words = [[*row] for row in found.values], dict[str, tuple[str, ...]]()
        for place, name in self._coded:
            full = self.view.names[place]
            column, words[full] = seen.among[name]([row[place] for row in rows])
            for row, number in zip(rows, column, strict=True):
                row[place] = number
        return found._replace(values=rows), words

    def _few(self, seen: Seen, states: Sequence[bytes | None], texts: Sequence[str | None], at: int) -> Found:
        """What the store says, categories by the numbers of its words; or why it cannot."""
        until = seen.until
        if until is None or not until <= at < seen.limit:
            why = CHANGED if seen is OTHER else ABSENT if until is None else OLDER if at < until else NEWER
            return Found((), (), until, why.format(self.view.name))
        try:
            values, status = self.form.each(states, at)
        except LookupError:
            return Found((), (), until, CHANGED)
        if UNKNOWN in status:
            lost = self._keys([text for text, one in zip(texts, status, strict=True) if one == UNKNOWN])
            self._check_lost(seen, lost, np.full(len(lost), at))
        return Found(values, status, until, "")

    def offline(self, texts: Sequence[str | None], at: int, why: str) -> Found:
        """What the log says at one time, with what was pushed behind it."""
        seen, keys = self._last[1], Coded.of(texts)
        block = self.read(keys, np.full(len(keys), at))
        words = {name: block.vocabularies[names[0]] for name, names in self._full.items()}
        values: list[Sequence[Value]] = [[None if value != value else value for value in row] for row in block.values.tolist()]
        return Found([self._spelled(row, words) for row in values] if self._coded else values, block.status.tolist(), seen.until, why)

    def _keys(self, texts: Sequence[str | None]) -> Coded:
        """Keys in the numbers of the log."""
        entities = self.log.entities
        return Coded(np.array([place_of(entities, text) for text in texts], dtype=np.int32), entities)

    def _spelled(self, row: Sequence[Value], words: Words) -> Sequence[Value]:
        """A row with the words of its categories."""
        found = list(row)
        for place, name in self._coded:
            code = found[place]
            if code is not None:
                try:
                    found[place] = words[name][int(code)]
                except IndexError as error:
                    raise not_a_state() from error
        return found


def entities_of(keys: Coded) -> tuple[list[str], Ints]:
    """The different keys, and the place among them of each row's; -1 for none.

    >>> entities_of(Coded.of(["b", None, "a", "b"]))
    (['a', 'b'], array([ 1, -1,  0,  1]))
    """
    codes = keys.codes.tolist()
    places = {code: place for place, code in enumerate(sorted({*codes} - {-1}))}
    return [keys.vocabulary[code] for code in places], np.array([places.get(code, -1) for code in codes], dtype=np.int64)


def _there(states: Sequence[bytes | None], which: Ints) -> tuple[list[bytes], Ints]:
    """The states that are there, and the place of each row's among them; -1 for none."""
    some = [data for data in states if data is not None]
    places = np.cumsum([data is not None for data in states], dtype=np.int64) - 1
    places[[i for i, data in enumerate(states) if data is None]] = -1
    return some, np.append(places, -1)[which]


def _placed(rows: Bools, one: Block, others: Bools, other: Block) -> Block:
    """Two blocks as one: each has its rows. Categories have the numbers of the first one's words; what it lacks follows. Mostly one's words
    begin with all of the other's, and the numbers are the same."""
    values, status = np.empty((len(rows), len(one.names))), np.empty(len(rows), np.uint8)
    values[rows], status[rows], values[others], status[others] = one.values, one.status, other.values, other.status
    vocabularies = dict(one.vocabularies)
    for name, words in other.vocabularies.items():
        known = vocabularies[name]
        if words[: len(known)] == known[: len(words)]:
            vocabularies[name] = max(known, words, key=len)
        else:
            there = set(known)
            vocabularies[name] = (*known, *(word for word in words if word not in there))
            column = one.names.index(name)
            values[others, column] = in_numbers(values[others, column], numbers_of(words, vocabularies[name]))
    return Block(one.names, values, status, vocabularies)
