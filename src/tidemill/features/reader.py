"""One reader for a set of views: requests in, a matrix of feature values out, offline or online, by the same code."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tidemill.core import Bools, Coded, Damaged, DefinitionError, Floats, Instants, StoreError
from tidemill.features.declarations import FeatureView, RequestView
from tidemill.features.keys import joined
from tidemill.features.materialising import Told, materialise, quiet
from tidemill.features.online import OnlineStore
from tidemill.features.pushing import Feed, catch_up
from tidemill.features.requests import Requests
from tidemill.features.space import Space
from tidemill.features.views import Block, ViewLog
from tidemill.features.windows import PRESENT, STATUS, UNKNOWN, Status

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matrix:
    """Values (n, features); categories as codes of `vocabularies`; `status` (n, views) for the looked-up `views`;
    `online` (n,) tells which rows the online store answered; `damaged` that it could not, for it cannot be read."""

    names: tuple[str, ...]
    values: Floats
    vocabularies: dict[str, tuple[str, ...]]
    views: tuple[str, ...]
    status: Status
    online: Bools
    damaged: bool = False

    def problems(self, row: int) -> dict[str, str]:
        """Views without a value for a row, and why: null, unknown or expired."""
        return {view: STATUS[code] for view, code in zip(self.views, self.status[row].tolist(), strict=True) if code != PRESENT}


@dataclass(frozen=True)
class Reader:
    """Views in the order of the model's features, each looked-up one with its log; `versions` are their digests."""

    views: Sequence[FeatureView | RequestView]
    logs: dict[str, ViewLog]
    versions: dict[str, str]
    online: OnlineStore | None = None
    feeds: Mapping[str, Feed] = field(default_factory=dict)  # what is pushed, by view
    _damage: list[str] = field(default_factory=list)

    def read(self, requests: Requests, at: Instants) -> Matrix:
        """Features of each request as known at `at` (n,). Rows at or after the watermark come from the online store, if there is one,
        unless more is known by then than is stored, or it cannot be read: both paths give the same."""
        try:
            return self._read_fresh(requests, at)
        except StoreError as error:
            if self.online is None:
                raise
            if not self._damage:  # said once, not with every request
                log.warning("online_store=damaged answered_from=offline error=%s", error.what)
                self._damage.append(error.what)
            return replace(self._read(requests, at, online=False), damaged=True)

    def _read_fresh(self, requests: Requests, at: Instants) -> Matrix:
        fresh = self._fresh(at)
        try:
            if fresh.all() or not fresh.any():
                return self._read(requests, at, online=bool(fresh.any()))
            return _merge(fresh, *(self._read(requests.take(rows), at[rows], online=o) for rows, o in ((fresh, True), (~fresh, False))))
        except LookupError:  # something came in that is newer than these times
            return self._read(requests, at, online=False)

    def _fresh(self, at: Instants) -> Bools:
        """Which times the online store holds all that was known at."""
        fresh = np.full(len(at), self.online is not None)
        for name, space in self.spaces.items():
            mark = space.mark()
            if mark is None or mark.until is None:
                return np.zeros(len(at), dtype=bool)
            known = self.logs[name].events.news
            after = np.searchsorted(known, mark.until, side="right")
            fresh &= (at >= mark.until) & (np.searchsorted(known, at, side="right") == after)
        return fresh

    @cached_property
    def spaces(self) -> dict[str, Space]:
        """The space of each looked-up view in the online store, if there is one."""
        return {name: Space(self.online, log.view) for name, log in self.logs.items()} if self.online is not None else {}

    def _read(self, requests: Requests, at: Instants, *, online: bool) -> Matrix:
        blocks = [self._block(view, requests, at, online=online) for view in self.views]
        names = tuple(name for block in blocks for name in block.names)
        looked = [(view.name, block) for view, block in zip(self.views, blocks, strict=True) if isinstance(view, FeatureView)]
        status = np.stack([block.status for _, block in looked], axis=1) if looked else np.empty((len(at), 0), np.uint8)
        values = np.concatenate([block.values for block in blocks], axis=1)
        vocabularies = {name: words for block in blocks for name, words in block.vocabularies.items()}
        return Matrix(names, values, vocabularies, tuple(name for name, _ in looked), status, np.full(len(at), online))

    def _block(self, view: FeatureView | RequestView, requests: Requests, at: Instants, *, online: bool) -> Block:
        if isinstance(view, RequestView):
            chosen = [requests.names.index(name) for name in view.names]
            words = {name: requests.vocabularies[name] for name in view.names if name in requests.vocabularies}
            return Block(view.names, requests.values[:, chosen], np.zeros(len(at), np.uint8), words)
        keys = self._keys(view, requests)
        history = self.logs[view.name]
        if online and self.online is not None:
            block = self.spaces[view.name].read(keys, at, history.vocabularies)
            lost = np.flatnonzero((block.status == UNKNOWN) & (keys.codes >= 0))
            if len(lost) and history.knows(keys.take(lost), at[lost]).any():
                raise Damaged(f"the online store has lost an entity of {view.name}")
            return block
        return history.read(keys, at)

    def _keys(self, view: FeatureView, requests: Requests) -> Coded:
        missing = next((column for column in view.entity.keys if column not in requests.texts), None)
        if missing is not None:
            what = f"view {view.name!r} is looked up by {missing!r}, which the request dataset lacks"
            raise DefinitionError(what, where=str(view.where), available=sorted(requests.texts))
        return joined([requests.texts[column] for column in view.entity.keys])

    @property
    def newest(self) -> int:
        """When the newest value of any view became known (microseconds UTC); 0 where there is none."""
        return max((int(log.events.news[-1]) for log in self.logs.values() if len(log.events.news)), default=0)

    def materialise(self, until: int, *, tell: Told = quiet) -> dict[str, int]:
        """Bring the online store up to what was known at `until`; entities written by view."""
        if self.online is None:
            return {}
        return {
            name: materialise(self.online, log, until, version=self.versions.get(name, ""), feed=self.feeds.get(name), tell=tell)
            for name, log in self.logs.items()
        }

    def catch_up(self) -> None:
        """Add to the online store what was pushed since, where who pushed it could not. Raises StoreError."""
        for feed in self.feeds.values():
            if self.online is not None:
                catch_up(self.online, feed)


def _merge(fresh: Bools, one: Matrix, two: Matrix) -> Matrix:
    values, status = np.empty((len(fresh), one.values.shape[1])), np.empty((len(fresh), one.status.shape[1]), np.uint8)
    values[fresh], values[~fresh] = one.values, two.values
    status[fresh], status[~fresh] = one.status, two.status
    return Matrix(one.names, values, one.vocabularies, one.views, status, fresh)
