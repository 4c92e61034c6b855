"""One reader for a set of views: requests in, a matrix of feature values out, offline or online, by the same code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import numpy as np

from tidemill.core import Bools, Coded, DefinitionError, Floats, Instants, StoreError
from tidemill.features.declarations import FeatureView, RequestView
from tidemill.features.keys import joined, joined_text
from tidemill.features.looked import Looked, entities_of
from tidemill.features.materialising import Told, materialise, quiet
from tidemill.features.online import OnlineStore
from tidemill.features.outage import Outage
from tidemill.features.pushing import Feed, catch_up
from tidemill.features.requests import Requests
from tidemill.features.state import Value
from tidemill.features.views import Block, ViewLog
from tidemill.features.windows import PRESENT, STATUS, Status

FEW = 20  # rows
ONLINE = np.ones(FEW, dtype=bool)  # of which rows the store answered
ONLINE.flags.writeable = False
Keys = Mapping[tuple[str, ...], Coded]  # of requests, by their columns


@dataclass
class Matrix:
    """Values (n, features); categories as codes of `vocabularies`; `status` (n, views) for the looked-up `views`;
    `online` (n,) tells which rows the online store answered; `damaged` that it could not, for it cannot be read. Not frozen, as what is
    made for each request is made in half the time."""

    names: tuple[str, ...]
    values: Floats
    vocabularies: dict[str, tuple[str, ...]]
    views: tuple[str, ...]
    status: Status
    online: Bools
    damaged: bool = False

    def problems(self, row: int) -> dict[str, str]:
        """Views without a value for a row, and why: null, unknown or expired. Of many rows those share it of which the same is told."""
        if len(self.values) > FEW:
            return self._problems[row]
        return {view: STATUS[code] for view, code in zip(self.views, self.status[row].tolist(), strict=True) if code != PRESENT}

    @cached_property
    def _problems(self) -> list[dict[str, str]]:
        found = dict[tuple[int, ...], dict[str, str]]()
        rows = [tuple(row) for row in self.status.tolist()]
        for row in dict.fromkeys(rows):
            found[row] = {view: STATUS[code] for view, code in zip(self.views, row, strict=True) if code != PRESENT}
        return [found[row] for row in rows]


@dataclass(frozen=True)
class Reader:
    """Views in the order of the model's features, each looked-up one with its log; `versions` are their digests."""

    views: Sequence[FeatureView | RequestView]
    logs: dict[str, ViewLog]
    versions: dict[str, str]
    online: OnlineStore | None = None
    feeds: Mapping[str, Feed] = field(default_factory=dict)  # what is pushed, by view
    _outage: Outage = field(default_factory=Outage)

    def read(self, requests: Requests, at: Instants) -> Matrix:
        """Features of each request as known at `at` (n,). Rows at or after the watermark come from the online store, if there is one,
        unless more is known by then than is stored, or it cannot be read: both paths give the same."""
        self._check_columns(requests)
        if self.online is None:
            return self._offline(requests, self._keys(requests), at)
        try:
            few = len(at) == 1 or (0 < len(at) <= FEW and bool((at == at[0]).all()))
            matrix = self._few(self.online, requests, at) if few else None
            matrix = matrix or self._matrix(requests, *self._stored(self.online, self._keys(requests), at))
            self._outage.end()
            return matrix
        except StoreError as error:
            self._outage.begin(error, [one.made for one in self.looked.values()])
            return replace(self._offline(requests, self._keys(requests), at), damaged=True)

    @cached_property
    def looked(self) -> dict[str, Looked]:
        """The views that are looked up, each beside its space in the online store."""
        return {name: Looked(log, self.versions.get(name, ""), feed=self.feeds.get(name)) for name, log in self.logs.items()}

    def _offline(self, requests: Requests, keys: Keys, at: Instants) -> Matrix:
        blocks = {name: one.read(keys[one.view.entity.keys], at) for name, one in self.looked.items()}
        return self._matrix(requests, blocks, np.zeros(len(at), dtype=bool))

    def _stored(self, store: OnlineStore, keys: Keys, at: Instants) -> tuple[dict[str, Block], Bools]:
        """The views that are looked up, and which rows the store answered: those that it holds of all of them. It is read but once, so that
        what it gives is of one moment."""
        places, views, fresh = {columns: entities_of(one) for columns, one in keys.items()}, [*self.looked.values()], np.full(len(at), True)
        own = [places[one.view.entity.keys] for one in views]
        stored = store.read([(one.space, texts) for one, (texts, _) in zip(views, own, strict=True)])
        told = [(one, one.seen(store, mark), states, which) for one, (_, which), (mark, states) in zip(views, own, stored, strict=True)]
        for one, seen, states, which in told:
            fresh &= one.fresh(seen, states, which, at)
        found = {one.view.name: one.block(seen, states, which, keys[one.view.entity.keys], at, fresh) for one, seen, states, which in told}
        return found, fresh

    def _few(self, store: OnlineStore, requests: Requests, at: Instants) -> Matrix | None:
        """The same of a few rows at one time, one by one: arrays cost more than that. None where the store cannot answer all of them."""
        texts, time = self._texts(requests), int(at[0])
        asked = [(space, texts[columns]) for space, columns in self._spaces]
        stored, place = store.read(asked), 0
        words: dict[str, tuple[str, ...]] = {}  # not `dict[…]()`, which takes a microsecond
        values: list[list[Value]] = [[] for _ in range(len(at))]
        status: list[list[int]] = [[] for _ in values]
        for view, one in self._each:
            if one is None:
                block = _asked(view, requests)  # type: ignore[arg-type]  # it is no other
                more, own_words = block.values.tolist(), block.vocabularies
            else:
                found, own_words = one.few(store, stored[place], asked[place][1], time)
                if found.why:
                    return None
                more, place = found.values, place + 1
                for codes, code in zip(status, found.status, strict=True):
                    codes.append(code)
            for row, part in zip(values, more, strict=True):
                row += part
            if own_words:
                words.update(own_words)
        names, views = self._names
        return Matrix(names, np.array(values, dtype=np.float64), words, views, np.array(status, dtype=np.uint8), ONLINE[: len(at)])

    @cached_property
    def _each(self) -> Sequence[tuple[FeatureView | RequestView, Looked | None]]:
        """All views, with what looks them up."""
        return [(view, self.looked.get(view.name)) for view in self.views]

    @cached_property
    def _spaces(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """Of each view that is looked up its space, and the columns by which it is."""
        return [(one.space, one.view.entity.keys) for _, one in self._each if one]

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The features of all views, and the views that are looked up."""
        return tuple(name for view in self.views for name in view.names), tuple(view.name for view, one in self._each if one)

    def _matrix(self, requests: Requests, looked: Mapping[str, Block], online: Bools) -> Matrix:
        blocks = [looked[view.name] if isinstance(view, FeatureView) else _asked(view, requests) for view in self.views]
        names = tuple(name for block in blocks for name in block.names)
        order = [view.name for view in self.views if isinstance(view, FeatureView)]
        status = np.stack([looked[name].status for name in order], axis=1) if order else np.empty((len(online), 0), np.uint8)
        values = np.concatenate([block.values for block in blocks], axis=1)
        vocabularies = {name: words for block in blocks for name, words in block.vocabularies.items()}
        return Matrix(names, values, vocabularies, tuple(order), status, online)

    def _keys(self, requests: Requests) -> Keys:
        """The keys of the requests, by their columns."""
        return {columns: joined([requests.texts[column] for column in columns]) for columns in self._columns}

    def _texts(self, requests: Requests) -> dict[tuple[str, ...], list[str | None]]:
        """The same as texts."""
        found: dict[tuple[str, ...], list[str | None]] = {}
        for columns in self._columns:
            parts = [requests.texts[column].texts() for column in columns]
            found[columns] = parts[0] if len(parts) == 1 else [joined_text(row) for row in zip(*parts, strict=True)]
        return found

    def _check_columns(self, requests: Requests) -> None:
        """Raise DefinitionError for a column that they lack, by which a view is looked up."""
        if requests.texts.keys() >= self._needed:
            return
        for columns, view in self._columns.items():
            missing = [column for column in columns if column not in requests.texts]
            if missing:
                what = f"view {view.name!r} is looked up by {missing[0]!r}, which the request dataset lacks"
                raise DefinitionError(what, where=str(view.where), available=sorted(requests.texts))

    @cached_property
    def _needed(self) -> frozenset[str]:
        """The columns of requests by which views are looked up."""
        return frozenset(chain.from_iterable(self._columns))

    @cached_property
    def _columns(self) -> Mapping[tuple[str, ...], FeatureView]:
        """The columns by which views are looked up, each with the first of them."""
        return {view.entity.keys: view for view in reversed(self.views) if isinstance(view, FeatureView)}

    @property
    def newest(self) -> int:
        """When the newest value of any view became known (microseconds UTC); 0 where there is none."""
        return max((int(log.events.news[-1]) for log in self.logs.values() if len(log.events.news)), default=0)

    def materialise(self, until: int, *, tell: Told = quiet) -> dict[str, int]:
        """Bring the online store up to what was known at `until`; entities written by view."""
        if self.online is None:
            return {}
        written = {
            name: materialise(self.online, log, until, version=self.versions.get(name, ""), feed=self.feeds.get(name), tell=tell)
            for name, log in self.logs.items()
        }
        if any(written.values()):
            self.online.settle()
        return written

    def catch_up(self) -> None:
        """Add to the online store what was pushed since, where who pushed it could not. Raises StoreError."""
        for feed in self.feeds.values():
            if self.online is not None:
                catch_up(self.online, feed)


def _asked(view: RequestView, requests: Requests) -> Block:
    """The features of the requests themselves."""
    chosen = [requests.names.index(name) for name in view.names]
    words = {name: requests.vocabularies[name] for name in view.names if name in requests.vocabularies}
    return Block(view.names, requests.values[:, chosen], np.zeros(len(requests), np.uint8), words)
