"""The requests of a task: one row for each key of the request dataset, with its times, entity keys and request features.

A request by key is answered from here; one with its own columns by the same expressions (`own.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import Array, Coded, DataError, Floats, Instants, Ints, unpack
from tidemill.data import Columns, Dataset, instant_of, quote
from tidemill.features.arrays import READ, Function
from tidemill.features.declarations import FeatureView, RequestView
from tidemill.features.keys import key_sql
from tidemill.features.outputs import Output
from tidemill.ledger import Artifact, Ledger

LONGEST = 1_000  # bytes of a key that is asked for
Kinds = Mapping[str, tuple[str, str]]  # SQL and kind (number, instant or text) of what is computed, by name


@dataclass  # not frozen: made for each request, as a `Matrix` is
class Requests:
    """Columns of n requests, sorted by (prediction time, key). `at` is the prediction time, `event` the request's own."""

    coded: "Array | None"  # (n,) bytes, the keys; where they are `spelled` they are made when they are first needed
    at: Instants
    event: Instants
    known: Instants
    texts: dict[str, Coded]
    names: Sequence[str]
    values: Floats
    vocabularies: dict[str, tuple[str, ...]]
    order: Array | None = None  # of the keys, for look-up
    spelled: Sequence[str] = ()  # the keys as texts, where they came so

    @property
    def keys(self) -> "Array":
        """The keys (n,) as bytes."""
        if self.coded is None:
            self.coded = np.array([key.encode() for key in self.spelled], dtype=bytes)
        return self.coded

    @property
    def key_texts(self) -> Sequence[str]:
        """The keys."""
        return self.spelled or [key.decode() for key in self.keys.tolist()]

    @classmethod
    def bare(cls, keys: Sequence[str], at: Instants) -> "Requests":
        """Requests of which nothing is known but their keys and their times. Raises DataError for a key that is too long."""
        check_keys(keys)
        return cls(None, at, at, at, {}, (), np.empty((len(at), 0)), {}, spelled=keys)

    def __len__(self) -> int:
        return len(self.at)

    def find(self, key: str) -> int:
        """The row of a key, −1 when there is none."""
        text = key.encode()
        if self.order is None or not len(self) or key.endswith("\0"):  # numpy cuts zeros off the end of bytes
            return -1
        if len(text) > self.keys.dtype.itemsize:  # longer than every key that there is; compared, it would make all of them as long
            return -1
        wanted = np.array(text, dtype=self.keys.dtype)
        place = int(np.searchsorted(self.keys, wanted, sorter=self.order))
        if place == len(self.keys):
            return -1
        row = int(self.order[place])
        return row if self.keys[row] == wanted else -1

    def find_all(self, keys: Sequence[str]) -> Ints:
        """The row (n,) of each key, −1 where there is none."""
        texts = [key.encode() for key in keys]
        width, found = self.keys.dtype.itemsize, np.full(len(texts), -1, dtype=np.int64)
        fit = np.array([len(text) <= width and not text.endswith(b"\0") for text in texts], dtype=bool)
        if self.order is None or not len(self) or not fit.any():
            return found
        wanted = np.array(texts, dtype=self.keys.dtype)  # one that does not fit is cut, and not sought
        sought = np.argsort(wanted, kind="stable")  # neighbours are sought one after the other
        places = np.empty(len(texts), dtype=np.int64)
        places[sought] = np.searchsorted(self.keys, wanted[sought], sorter=self.order)
        rows = self.order[np.minimum(places, len(self) - 1)]
        there = fit & (places < len(self)) & (self.keys[rows] == wanted)
        found[there] = rows[there]
        return found

    def take(self, rows: Any) -> "Requests":
        """Some requests."""
        texts = {name: column.take(rows) for name, column in self.texts.items()}
        parts = (self.keys[rows], self.at[rows], self.event[rows], self.known[rows])
        return Requests(*parts, texts, self.names, self.values[rows], self.vocabularies)


def check_keys(keys: Sequence[str]) -> None:
    """Raise DataError for a key that is too long: an array of keys has the width of the longest."""
    if max(map(len, keys), default=0) * 4 <= LONGEST:  # a character has at most four bytes
        return
    longest = max(len(key.encode()) for key in keys)
    if longest > LONGEST:
        raise DataError(f"a key of the request has {longest:,} bytes", hint=f"a key has at most {LONGEST:,}")


def request_columns(
    dataset: Dataset, types: Mapping[str, str], views: Sequence[RequestView], predict_at: str, lookups: Sequence[str] = ()
) -> dict[str, tuple[str, str]]:
    """What is computed of each row of a request dataset: SQL and kind by name."""
    at = quote(predict_at) if predict_at in types else predict_at
    columns = {"__key": (key_sql(dataset), "text"), "__at": (instant_of(at, dataset.timezone), "instant")}
    columns |= {"__event": ("__event", "instant"), "__known": ("__known", "instant")}
    alone = dataset.keys if len(dataset.keys) == 1 else ()  # it is kept as the key; parts of a composite one are columns like others
    texts = [name for name, kind in types.items() if name in lookups or (kind == "VARCHAR" and name not in alone)]
    columns |= {f"t:{name}": (quote(name), "text") for name in texts}
    return columns | {name: column for view in views for name, column in view_columns(view, types).items()}


def view_columns(view: RequestView, types: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What is computed of each row for a view: its features, or what its function or model reads."""
    if isinstance(view.features, Function):
        return view.features.kinds(types, str(view.where))
    if isinstance(view.features, Output):
        return view.features.inputs(view.name)
    kinds = {name: "text" if feature.category else "number" for name, feature in view.columns.items()}
    return {f"x:{view.name}__{name}": (feature.expression, kinds[name]) for name, feature in view.columns.items()}


def places_of(views: Sequence[RequestView]) -> dict[str, str]:
    """The file and line of each expression of request views."""
    found = {f"x:{view.name}__{name}": str(view.where) for view in views for name in view.columns}
    outputs = {view.name: (view.features, str(view.where)) for view in views if isinstance(view.features, Output)}
    return found | {f"m:{view}__{name}": where for view, (output, where) in outputs.items() for name in output.columns}


def named_functions(views: Sequence[RequestView | FeatureView]) -> list[tuple[str, Function | Output, str]]:
    """The views that are a function on arrays, or the output of a model: name, function and place."""
    return [(view.name, view.features, str(view.where)) for view in views if isinstance(view.features, Function | Output)]


def with_functions(views: Sequence[RequestView | FeatureView], raw: Columns) -> Columns:
    """The columns of rows with the features that functions and models compute from them. Raises DataError where one fails."""
    found = {name: column for name, column in raw.items() if not name.startswith(READ)}
    for name, function, where in named_functions(views):
        found |= {f"x:{name}__{feature}": values for feature, values in function.features(raw, name, where).items()}
    return found


def load_requests(ledger: Ledger, version: Artifact) -> Requests:
    """Open the requests for reading."""
    arrays, meta = unpack(ledger.blobs.get(version.blob("requests")))
    vocabularies = {name: tuple(words) for name, words in meta["vocabularies"].items()}
    texts = {name[2:]: Coded(codes, vocabularies[name]) for name, codes in arrays.items() if name.startswith("t:")}
    values = np.stack([arrays[name] for name in meta["names"]], axis=1) if meta["names"] else np.empty((len(arrays["at"]), 0))
    keys = np.ascontiguousarray(arrays["keys"]).view(f"S{arrays['keys'].shape[1]}").ravel() if arrays["keys"].size else np.empty(0, "S1")
    named = {name[2:]: words for name, words in vocabularies.items() if name.startswith("x:")}
    names = [name[2:] for name in meta["names"]]
    order = arrays["order"].astype(np.intp)  # of any other type numpy copies all of it at each look-up
    return Requests(keys, arrays["at"], arrays["event"], arrays["known"], texts, names, values, named, order)
