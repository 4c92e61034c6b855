"""The newest features of entities, by their keys: prepared once, and asked with each request.

The same values as `Reader` gives, from the same states, without arrays: a few rows cost about what reading the store costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, lru_cache
from itertools import chain
from math import inf, isfinite
from operator import itemgetter
from typing import Any

from tidemill.core import StoreError, instant, microseconds, show
from tidemill.features.given import Row, rows_of, with_gaps
from tidemill.features.historical import Chosen
from tidemill.features.keys import Keys
from tidemill.features.looked import Found, Looked
from tidemill.features.online import OnlineStore
from tidemill.features.outage import Outage
from tidemill.features.request_rows import Computed
from tidemill.features.requests import named_functions
from tidemill.features.state import Value
from tidemill.features.windows import STATUS

INFINITE = frozenset((inf, -inf))
_shown = lru_cache(256)(show)  # a mark is told with each answer, and seldom another
Time = int | str | date | datetime


@dataclass(frozen=True)
class OnlineFeatures:
    """`names` of features in the order asked, and `rows` of their values: a number, a text for a category, None for nothing. By view:
    `status` of each row (present, null, unknown or expired), `until`: up to which time the online store holds all that was known, and
    `offline`: why it did not answer, where it did not. `at` is when they were asked for (microseconds UTC, as `until`)."""

    names: tuple[str, ...]
    rows: Sequence[Sequence[Value]]
    status: Mapping[str, Sequence[str]]
    until: Mapping[str, int | None]
    offline: Mapping[str, str]
    at: int

    @property
    def columns(self) -> dict[str, list[Value]]:
        """The values by feature."""
        return {name: [row[i] for row in self.rows] for i, name in enumerate(self.names)}

    def dicts(self) -> list[dict[str, Value]]:
        """The values of each row by feature."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON: an infinite number as a text, since JSON has none."""
        views = {}
        for view, status in self.status.items():
            until, why = self.until[view], self.offline.get(view, "")
            said = {"from": "offline", "why": why} if why else {"from": "online"}
            views[view] = {"status": status, **said, "until": None if until is None else _shown(until)}
        return {"at": show(self.at), "features": self.names, "rows": _finite(self.rows), "views": views}

    def __repr__(self) -> str:
        lines = [f"{len(self.rows):,} rows, {len(self.names)} features, as known at {show(self.at)}"]
        for view, status in self.status.items():
            until = self.until[view]
            counts = ", ".join(f"{status.count(name):,} {name}" for name in STATUS if name in status)
            known = f"offline: {self.offline[view]}" if view in self.offline else f"online, up to {show(until or 0)}"
            lines.append(f"{view}: {counts or 'nothing asked'}; {known}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Getter:
    """The newest values of features, by entity keys; made by `Session.online`. `notes` are what there is to say of them.

    A row is a dict with the keys of the entities by the names of their columns (and, for a view of the request itself, the columns that
    it reads); several rows are a list of such, or columns: a dict of lists, or a frame. `at` asks for what was known at a time, by default
    now: microseconds UTC, or a time with its zone."""

    chosen: Sequence[Chosen]
    looked: Mapping[str, Looked]
    computed: Mapping[str, Computed]
    store: OnlineStore | None
    clock: Callable[[], int]
    timezone: str = "UTC"
    notes: tuple[str, ...] = ()
    _outage: Outage = field(default_factory=Outage)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in the order asked."""
        return tuple(name for one in self.chosen for name in one.names)

    def get(self, row: Row, *, at: Time | None = None) -> dict[str, Value]:
        """The values of one row: a number, a text for a category, None for nothing. Raises DataError for a row that lacks a key."""
        blocks = self._blocks(with_gaps([row]), self.clock() if at is None else self._time(at))
        return dict(zip(self.names, blocks[0].values[0] if self._plain else next(iter(self._rows(blocks))), strict=True))

    def get_many(self, rows: Any, *, at: Time | None = None) -> list[dict[str, Value]]:
        """The values of each row."""
        names, blocks = self.names, self._blocks(rows_of(rows, self.needed), self._time(at))
        return [dict(zip(names, row, strict=True)) for row in self._rows(blocks)]

    def read(self, rows: Any, *, at: Time | None = None) -> OnlineFeatures:
        """The values of each row with the status of each view, and where they came from."""
        when = self._time(at)
        blocks = self._blocks(rows_of(rows, self.needed), when)
        looked = dict(zip(self.looked, blocks, strict=False))
        status = {name: [STATUS[one] for one in block.status] for name, block in looked.items()}
        why = {name: block.why for name, block in looked.items() if block.why}
        until = {name: block.until for name, block in looked.items()}
        return OnlineFeatures(self.names, [[*row] for row in self._rows(blocks)], status, until, why, when)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The columns of a row that are read."""
        keys = [column for one in self.looked.values() for column in one.keys.columns]
        return tuple(dict.fromkeys([*keys, *(column for one in self.computed.values() for column in one.types)]))

    @cached_property
    def quick(self) -> bool:
        """Whether no code of the project and no model computes a feature."""
        return not named_functions([one.view for one in self.computed.values()])

    def _time(self, at: Time | None) -> int:
        return self.clock() if at is None else microseconds(at, self.clock()) if isinstance(at, int) else instant(at, self.timezone)

    def _rows(self, blocks: Sequence[Found]) -> Iterable[Iterable[Value]]:
        """The chosen values of each row, of all views."""
        parts = [blocks[i].values if take is None else list(map(take, blocks[i].values)) for i, take in self._parts]
        return parts[0] if len(parts) == 1 else map(chain.from_iterable, zip(*parts, strict=True))

    @cached_property
    def _plain(self) -> bool:
        """Whether one view is asked for, and all of it."""
        return self._parts == [(0, None)]

    @cached_property
    def _parts(self) -> Sequence[tuple[int, Callable[[Any], Sequence[Value]] | None]]:
        """For each that is chosen the place of its view, and what takes the values that are asked for; None for all of them."""
        views, found = [*self.looked, *self.computed], []
        for one in self.chosen:
            own, names = list(one.view.names), list(one.names)
            places = slice(own.index(names[0]), own.index(names[0]) + len(names))
            take = itemgetter(places) if own[places] == names else itemgetter(*map(own.index, names))
            found.append((views.index(one.view.name), None if own == names else take))
        return found

    def _blocks(self, rows: Sequence[Row], at: int) -> list[Found]:
        """What each view says: those that are looked up, then those of the request."""
        texts = [keys.texts(rows) for keys in self._keys]
        found = self._looked_up([(view, texts[i]) for view, i in self._views], at) if texts else []
        return [*found, *(Found(view.values(rows), (), None, "") for view in self.computed.values())] if self.computed else found

    @cached_property
    def _keys(self) -> list[Keys]:
        return list(dict.fromkeys(one.keys for one in self.looked.values()))

    @cached_property
    def _views(self) -> list[tuple[Looked, int]]:
        """The views that are looked up, and which keys they have."""
        return [(one, self._keys.index(one.keys)) for one in self.looked.values()]

    def _looked_up(self, asked: Sequence[tuple[Looked, Sequence[str | None]]], at: int) -> list[Found]:
        if self.store is None:
            return [view.offline(texts, at, "there is no online store") for view, texts in asked]
        try:
            stored = self.store.read([(view.space, texts) for view, texts in asked])
            found = [view.online(self.store, own, texts, at) for (view, texts), own in zip(asked, stored, strict=True)]
            self._outage.end()
            return found
        except StoreError as error:
            self._outage.begin(error, [view.made for view, _ in asked])
            why = f"the online store cannot be read: {error.what}"
            return [view.offline(texts, at, why) for view, texts in asked]


def _finite(rows: Sequence[Sequence[Value]]) -> Sequence[Sequence[Value]]:
    """Rows with infinite numbers as texts.

    >>> _finite([[1.0, -inf], ["x", None]])
    [[1.0, '-inf'], ['x', None]]
    """
    try:
        if isfinite(sum(map(sum, rows))):  # type: ignore[arg-type]
            return rows
    except TypeError:  # texts, or nothing
        pass
    return [row if INFINITE.isdisjoint(row) else [str(value) if value in INFINITE else value for value in row] for row in rows]
