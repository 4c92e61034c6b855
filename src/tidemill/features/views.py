"""A feature view version: the view's events in one blob of arrays, sorted for point-in-time reading.

`read(keys, at)` is the one way that features are read, for a training set, a replayed year or a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tidemill.core import (
    Array,
    Bools,
    Coded,
    DataError,
    DefinitionError,
    Floats,
    Instants,
    Ints,
    Ref,
    definition,
    digest_value,
    duration,
    packed,
    unpack,
)
from tidemill.data import CODE as DATA_CODE
from tidemill.data import Columns, quote, scan
from tidemill.features.declarations import FeatureView, hop, width
from tidemill.features.folds import Column, columns_of, fold, number_of
from tidemill.features.keys import SINGLE, key_column, several_sql, stands_for_several
from tidemill.features.outputs import Output, bound, code_for, models_of
from tidemill.features.requests import with_functions
from tidemill.features.sharing import share
from tidemill.features.windows import Events, Status, begin, newest, status_of, visible
from tidemill.ledger import Artifact, Ledger, Made, Once
from tidemill.store import put_pieces

MANY = 4_096  # rows from which on it pays to sort them
AT_ONCE = 2**16  # rows whose late events are looked at together
COMPARED = 200  # rows of a model's outputs, each held against itself alone
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
    pushed: int = 0  # the number of the last row of its dataset that was pushed and is in it
    known_too: Sequence[int] | None = None  # when rows that were pushed became known, and others too; None where nobody looked

    def read(self, keys: Coded, at: Instants) -> Block:
        """Values as known at each row's own time. `keys` and `at` (n,)."""
        entity = keys.to(self.entities).astype(np.int64)
        if self.view.windows and len(at) > MANY:  # what lies together in the events is asked for together
            order = np.lexsort((at, entity))
            values, status = np.empty((len(at), len(self.view.names))), np.empty(len(at), np.uint8)
            size = AT_ONCE if self.events.late else len(at)
            for part in (order[i : i + size] for i in range(0, len(at), size)):
                values[part], status[part] = self._windows(entity[part], at[part])
        else:
            values, status = self._windows(entity, at) if self.view.windows else self._newest(entity, at)
        return Block(self.view.names, values, status, self.vocabularies)

    def knows(self, keys: Coded, at: Instants) -> Bools:
        """Whether an event of each row's entity had happened and was known at its time. `keys` and `at` (n,)."""
        return newest(self.events, keys.to(self.entities).astype(np.int64), at) >= 0

    def until(self, cut: int) -> "ViewLog":
        """The same without what became known later than `cut`."""
        keep = self.events.known <= cut
        if keep.all():
            return self
        entity, event, known = (column[keep] for column in (self.events.entity, self.events.event, self.events.known))
        columns = {name: column[keep] for name, column in self.columns.items()}
        return replace(self, events=Events.of(entity, event, known, len(self.entities)), columns=columns)

    @cached_property
    def folds(self) -> dict[str, Column]:
        """The values of each feature that count."""
        return columns_of(self.view, self.columns)

    @cached_property
    def nothing(self) -> Bools:
        """Events all of whose values are null."""
        found: Bools = np.logical_and.reduce([np.isnan(column) for column in self.columns.values()])
        return found

    def young(self, row: Ints, at: Instants) -> Bools:
        """Which rows have an event, -1 for none, that is within the TTL at their time."""
        found = row >= 0
        if not self.view.ttl or not len(self.events.event):
            return found
        return found & (at - self.events.event[row] <= duration(self.view.ttl))

    def _newest(self, entity: Instants, at: Instants) -> tuple[Floats, Status]:
        row = newest(self.events, entity, at)
        use = self.young(row, at)
        values = np.full((len(at), len(self.columns)), np.nan)
        for i, column in enumerate(self.columns.values()):
            values[use, i] = column[row[use]]
        return values, status_of(row >= 0, use, np.isnan(values).all(axis=1))

    def _windows(self, entity: Instants, at: Instants) -> tuple[Floats, Status]:
        all_ = visible(self.events, entity, at)
        seen = all_.count > 0
        values, filled, k = np.empty((len(self.view.names), len(at))), np.zeros(len(at), dtype=bool), 0
        for text in self.view.windows:
            length = width(text)
            rows = all_ if length is None else all_.since(begin(self.events, entity, at, length, hop(length)))
            filled |= rows.count > 0
            for name, feature in self.view.columns.items():
                many = feature.n or 1
                values[k : k + many] = fold(feature.function, self.folds[name], rows, n=feature.n or 0, q=feature.q).T
                k += many
        values[:, ~seen] = np.nan
        return np.ascontiguousarray(values.T), status_of(seen, filled)


def build(ledger: Ledger, view: FeatureView, dataset: Artifact, *, branch: str = "") -> Once:
    """The version of a view over a dataset version; of a shared one it is recorded that it is. Raises DefinitionError for an unknown column
    or wrong SQL, with its line, and UnknownName for a model that is not in this ledger."""
    view = bound(ledger, view)
    inputs = {"definition": definition(view), "dataset": dataset.ref, **models_of([view])}
    once = ledger.once("feature view", view.name, inputs, lambda: _make(ledger, view, dataset), branch=branch, code=code_for([view], CODE))
    if view.shared:
        share(ledger, view, once.output, dataset)
    return once


def _check_keys(ledger: Ledger, view: FeatureView, dataset: Artifact) -> None:
    """Raise DataError for keys that are floats of which one stands for several whole numbers: they would be one entity."""
    for column in view.entity.keys:
        kind, name = dataset.meta["types"].get(column, ""), quote(column)
        if kind in SINGLE and len(scan(ledger, view.dataset, dataset, {"key": (name, "number")}, several_sql(name, kind))["key"]):
            hint = "give it without a fraction, or as texts; what was pushed `tidemill features erase` takes out"
            raise DataError(
                stands_for_several(f"the key {column!r} of dataset {view.dataset.name!r}", kind), where=str(view.where), hint=hint
            )


def _make(ledger: Ledger, view: FeatureView, dataset: Artifact) -> Made:
    _check_keys(ledger, view, dataset)
    some = " AND ".join([*(f"{quote(column)} IS NOT NULL" for column in view.entity.keys), *([f"({view.filter})"] if view.filter else [])])
    needed = {
        "__entity": key_column(view.entity, dataset.meta["types"]),
        "__event": ("__event", "instant"),
        "__known": ("__known", "instant"),
    }
    kept = view.features.inputs(view.name) if isinstance(view.features, Output) else view.kept
    raw = scan(ledger, view.dataset, dataset, {**needed, **kept}, some, source=str(view.where))
    raw = _outputs(view, raw) if isinstance(view.features, Output) else raw
    entity, event, known = raw["__entity"], raw["__event"], raw["__known"]
    assert isinstance(entity, Coded)
    assert isinstance(event, np.ndarray)
    assert isinstance(known, np.ndarray)
    order = _by_entity(entity, event)
    arrays: dict[str, Array] = {"entity": entity.codes, "event": event, "known": known}
    vocabularies = {}
    for name in view.kept:
        column = raw[name]
        if isinstance(column, Coded):
            numbers = np.arange(len(column.vocabulary) + 1, dtype=np.float64)
            if view.columns[name[2:]].category:
                vocabularies[name[2:]] = list(column.vocabulary)
            else:
                numbers[:-1] = [number_of(word) for word in column.vocabulary]
            numbers[-1] = np.nan
            column = numbers[column.codes]
        arrays[name] = np.add(column, 0.0, out=column)  # zero has one sign
    blob = put_pieces(ledger.blobs, packed(arrays, {"entities": list(entity.vocabulary), "vocabularies": vocabularies}, order))
    digest = digest_value([definition(view), blob])  # the same events read through another window are another version
    meta = {"blobs": {"events": blob}, "rows": len(order), "entities": len(entity.vocabulary), "features": view.names}
    meta |= {name: dataset.meta[name] for name in ("pushed", "known_too") if name in dataset.meta}
    meta |= {"types": dataset.meta["types"], "event_time": view.dataset.event_time, "timezone": view.dataset.timezone}
    return Made({"version": Artifact(Ref.of("feature view", view.name, digest), meta)}, metrics={"rows": len(order)})


def _by_entity(entity: Coded, event: Instants) -> Ints:
    """The order of rows by (entity, event time). It is stable: rows come by knowledge time, so that of one event time those known last stay
    last. Sixteen bits at a time are sorted without comparing."""
    order = np.arange(len(event)) if (event[1:] >= event[:-1]).all() else np.argsort(event, kind="stable")
    for shift in range(0, len(entity.vocabulary).bit_length(), 16):
        order = order[np.argsort((entity.codes[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def _outputs(view: FeatureView, raw: Columns) -> Columns:
    """The rows with what a model gives for each, where it gives the same for a row by itself."""
    assert isinstance(view.features, Output)
    found, where, rows = with_functions([view], raw), str(view.where), len(raw["__event"])
    few = {name: column.take(np.arange(min(rows, COMPARED))) for name, column in raw.items()}
    odd = view.features.difference(few, min(rows, COMPARED), view.name, where)
    if odd:
        raise DefinitionError(odd, where=where, hint="a row's output may not depend on other rows")
    return {name.replace(f"x:{view.name}__", "x:"): column for name, column in found.items()}


def load(ledger: Ledger, view: FeatureView, version: Artifact) -> ViewLog:
    """Open a view version for reading; its arrays stay in the blob's memory map."""
    arrays, meta = unpack(ledger.blobs.get(version.blob("events")))
    found = of_arrays(view, tuple(meta["entities"]), arrays, {k: tuple(v) for k, v in meta["vocabularies"].items()})
    return replace(found, pushed=version.meta.get("pushed", 0), known_too=version.meta.get("known_too"))


def of_arrays(view: FeatureView, entities: tuple[str, ...], arrays: dict[str, Array], vocabularies: dict[str, tuple[str, ...]]) -> ViewLog:
    """A view log over arrays that are sorted by (entity, event, known)."""
    events = Events.of(arrays["entity"], arrays["event"], arrays["known"], len(entities))
    columns = {name: arrays[name] for name in view.kept}
    named = {full: words for name, words in vocabularies.items() for full in view.names_of(name)}
    return ViewLog(view, entities, events, columns, named)
