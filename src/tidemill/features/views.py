"""A feature view version: the view's events in one blob of arrays, sorted for point-in-time reading.

`read(keys, at)` is the one way that features are read, for a training set, a replayed year or a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.core import Array, Coded, Floats, Instants, Ref, definition, digest_value, duration, pack, unpack
from tidemill.data import CODE as DATA_CODE
from tidemill.data import quote, scan
from tidemill.features.declarations import FeatureView, hop
from tidemill.features.keys import entity_sql
from tidemill.features.windows import EXPIRED, NULL, PRESENT, UNKNOWN, Events, Status, fold, newest, window
from tidemill.ledger import Artifact, Ledger, Made, Once, own_code

CODE = (*DATA_CODE, "features")


@dataclass(frozen=True)
class Block:
    """Feature values (n, features) float64, NaN for null; categories as codes of `vocabularies`; `status` (n,) of the view."""

    names: Sequence[str]
    values: Floats
    status: Status
    vocabularies: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class ViewLog:
    """The events of a view by entity, and how they are read."""

    view: FeatureView
    entities: tuple[str, ...]
    events: Events
    columns: dict[str, Floats]
    vocabularies: dict[str, tuple[str, ...]]

    def read(self, keys: Coded, at: Instants) -> Block:
        """Values as known at each row's own time. `keys` and `at` (n,)."""
        entity = keys.to(self.entities).astype(np.int64)
        values, status = self._windows(entity, at) if self.view.windows else self._newest(entity, at)
        return Block(self.view.names, values, status, self.vocabularies)

    def _newest(self, entity: Instants, at: Instants) -> tuple[Floats, Status]:
        row = newest(self.events, entity, at)
        expired = np.zeros(len(at), dtype=bool)
        if self.view.ttl and len(self.events.event):
            expired = (row >= 0) & (at - self.events.event[row] > duration(self.view.ttl))
        use = (row >= 0) & ~expired
        values = np.full((len(at), len(self.columns)), np.nan)
        for i, column in enumerate(self.columns.values()):
            values[use, i] = column[row[use]]
        null = use & np.all(np.isnan(values), axis=1)
        return values, np.select([expired, row < 0, null], [EXPIRED, UNKNOWN, NULL], PRESENT).astype(np.uint8)

    def _windows(self, entity: Instants, at: Instants) -> tuple[Floats, Status]:
        seen = newest(self.events, entity, at) >= 0
        parts, filled = [], np.zeros(len(at), dtype=bool)
        for text in self.view.windows:
            rows = window(self.events, entity, at, duration(text), hop(duration(text)))
            some = rows.high > rows.low
            if rows.hidden.any():  # what is not known yet does not fill a window
                some = fold(self.events, "count", np.zeros(len(self.events.event)), rows) > 0
            filled |= some
            for name, feature in self.view.columns.items():
                value = fold(self.events, feature.function, self.columns[name], rows)
                parts.append(np.where(seen, value, np.nan))
        status = np.select([~seen, ~filled], [UNKNOWN, EXPIRED], PRESENT).astype(np.uint8)
        return np.stack(parts, axis=1), status


def build(ledger: Ledger, view: FeatureView, dataset: Artifact, *, branch: str = "") -> Once:
    """The version of a view over a dataset version. Raises DefinitionError for an unknown column or wrong SQL, with its line."""
    inputs = {"definition": definition(view), "dataset": dataset.ref}
    return ledger.once("feature view", view.name, inputs, lambda: _make(ledger, view, dataset), branch=branch, code=own_code(*CODE))


def _make(ledger: Ledger, view: FeatureView, dataset: Artifact) -> Made:
    kinds = {name: "text" if f.category else "number" for name, f in view.columns.items()}
    columns = {name: (feature.expression, kinds[name]) for name, feature in view.columns.items()}
    some = " AND ".join(f"{quote(column)} IS NOT NULL" for column in view.entity.keys)
    needed = {"__entity": (entity_sql(view.entity), "text"), "__event": ("__event", "instant"), "__known": ("__known", "instant")}
    raw = scan(ledger, view.dataset, dataset, {**needed, **columns}, some, source=str(view.where))
    entity, event, known = raw["__entity"], raw["__event"], raw["__known"]
    assert isinstance(entity, Coded)
    assert isinstance(event, np.ndarray)
    assert isinstance(known, np.ndarray)
    order = np.lexsort((np.arange(len(entity)), known, event, entity.codes))
    arrays: dict[str, Array] = {"entity": entity.codes[order], "event": event[order], "known": known[order]}
    vocabularies = {}
    for name in columns:
        column = raw[name]
        if isinstance(column, Coded):
            vocabularies[name] = list(column.vocabulary)
            column = np.where(column.codes >= 0, column.codes, np.nan)
        arrays[f"x:{name}"] = column[order]
    blob = ledger.blobs.put(pack(arrays, {"entities": list(entity.vocabulary), "vocabularies": vocabularies}))
    digest = digest_value([definition(view), blob])  # the same events read through another window are another version
    meta = {"blobs": {"events": blob}, "rows": len(order), "entities": len(entity.vocabulary), "features": view.names}
    return Made({"version": Artifact(Ref.of("feature view", view.name, digest), meta)}, metrics={"rows": len(order)})


def load(ledger: Ledger, view: FeatureView, version: Artifact) -> ViewLog:
    """Open a view version for reading; its arrays stay in the blob's memory map."""
    arrays, meta = unpack(ledger.blobs.get(version.meta["blobs"]["events"]))
    return of_arrays(view, tuple(meta["entities"]), arrays, {k: tuple(v) for k, v in meta["vocabularies"].items()})


def of_arrays(view: FeatureView, entities: tuple[str, ...], arrays: dict[str, Array], vocabularies: dict[str, tuple[str, ...]]) -> ViewLog:
    """A view log over arrays that are sorted by (entity, event, known)."""
    events = Events.of(arrays["entity"], arrays["event"], arrays["known"], len(entities))
    columns = {name: arrays[f"x:{name}"] for name in view.columns}
    named = {f"{view.name}__{name}": vocabulary for name, vocabulary in vocabularies.items()}
    return ViewLog(view, entities, events, columns, named)
