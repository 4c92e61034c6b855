"""The requests of a task: one row for each key of the request dataset, with its times, entity keys and request features.

A request by key is answered from here; a request with its own columns is evaluated by the same SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Array, Coded, DataError, DefinitionError, Floats, Instants, Ref, TidemillError, definition, pack, unpack
from tidemill.data import CODE as DATA_CODE
from tidemill.data import Dataset, engine, explained, fetch, instant_of, literal, plain_type, quote, scan
from tidemill.features.declarations import RequestView
from tidemill.features.values import check_values
from tidemill.ledger import Artifact, Ledger, Made, Once, own_code

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SEPARATOR = "\x1f"  # between the parts of a composite key
LONGEST = 1_000  # bytes of a key that is asked for
LOCAL = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE", "TIME")  # the engine would drop a zone


@dataclass(frozen=True)
class Requests:
    """Columns of n requests, sorted by (prediction time, key). `at` is the prediction time, `event` the request's own."""

    keys: "Array"  # (n,) bytes
    at: Instants
    event: Instants
    known: Instants
    texts: dict[str, Coded]
    names: Sequence[str]
    values: Floats
    vocabularies: dict[str, tuple[str, ...]]
    order: Array | None = None  # of the keys, for look-up

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

    def take(self, rows: Any) -> "Requests":
        """Some requests."""
        texts = {name: column.take(rows) for name, column in self.texts.items()}
        parts = (self.keys[rows], self.at[rows], self.event[rows], self.known[rows])
        return Requests(*parts, texts, self.names, self.values[rows], self.vocabularies)


def key_text(key: str | Sequence[str]) -> str:
    """A key, or the parts of a composite one, as one text."""
    return key if isinstance(key, str) else SEPARATOR.join(key)


def key_sql(dataset: Dataset) -> str:
    """SQL for the key of a row as `key_text` spells it."""
    return f" || {literal(SEPARATOR)} || ".join(f"CAST({quote(part)} AS VARCHAR)" for part in dataset.keys)


def _columns(
    dataset: Dataset, types: Mapping[str, str], views: Sequence[RequestView], predict_at: str, lookups: Sequence[str]
) -> dict[str, tuple[str, str]]:
    columns = {"__key": (key_sql(dataset), "text"), "__at": (instant_of(predict_at, dataset.timezone), "instant")}
    columns |= {"__event": ("__event", "instant"), "__known": ("__known", "instant")}
    alone = dataset.keys if len(dataset.keys) == 1 else ()  # it is kept as the key; parts of a composite one are columns like others
    texts = [name for name, kind in types.items() if name in lookups or (kind == "VARCHAR" and name not in alone)]
    columns |= {f"t:{name}": (quote(name), "text") for name in texts}
    for view in views:
        for name, feature in view.columns.items():
            columns[f"x:{view.name}__{name}"] = (feature.expression, "text" if feature.category else "number")
    return columns


def build_requests(
    ledger: Ledger,
    dataset: Dataset,
    version: Artifact,
    views: Sequence[RequestView],
    predict_at: str,
    *,
    lookups: Sequence[str] = (),
    branch: str = "",
    source: str = "",
) -> Once:
    """All requests of a dataset version. Views are looked up by its columns of text, and by `lookups`: keys and numbers.

    `source` is the file and line of `predict_at`, for errors.
    """
    if not dataset.keys:
        raise DefinitionError(f"the request dataset {dataset.name!r} has no key", where=str(dataset.where), hint='give it one: key="…"')
    inputs = {"dataset": version.ref, "views": [definition(view) for view in views], "predict_at": predict_at, "lookups": list(lookups)}
    code = own_code(*DATA_CODE, "features")

    def make() -> Made:
        return _make(ledger, dataset, version, views, predict_at, lookups, source or str(dataset.where))

    return ledger.once("requests", dataset.name, {**inputs, "timezone": dataset.timezone}, make, branch=branch, code=code)


def _make(
    ledger: Ledger,
    dataset: Dataset,
    version: Artifact,
    views: Sequence[RequestView],
    predict_at: str,
    lookups: Sequence[str],
    source: str,
) -> Made:
    columns = _columns(dataset, version.meta["types"], views, predict_at, lookups)
    sources = {f"x:{view.name}__{name}": str(view.where) for view in views for name in view.columns}
    raw = scan(ledger, dataset, version, columns, "TRUE", source=source, sources=sources)
    late = int(np.sum(raw["__known"] > raw["__at"]))  # type: ignore[operator]
    if late:
        hint = "predict later, or move the columns that come late to a dataset of their own"
        raise DataError(
            f"{late} requests of {dataset.name!r} are known only after their prediction time", where=str(dataset.where), hint=hint
        )
    keys = raw["__key"]
    assert isinstance(keys, Coded)
    order = np.lexsort((keys.codes, raw["__at"]))  # type: ignore[arg-type]
    encoded = np.array([text.encode() for text in keys.vocabulary] or [b""])[keys.codes[order]] if len(keys) else np.empty(0, "S1")
    arrays: dict[str, Array] = {name[2:]: raw[name][order] for name in ("__at", "__event", "__known")}  # type: ignore[index]
    arrays["keys"] = encoded.view(np.uint8).reshape(len(encoded), encoded.dtype.itemsize)
    arrays["order"] = np.argsort(encoded, kind="stable").astype(np.int32)
    vocabularies = {}
    for name in columns:
        column = raw[name]
        if name[:2] in ("t:", "x:"):
            if isinstance(column, Coded):
                vocabularies[name] = list(column.vocabulary)
                column = column.codes if name[0] == "t" else np.where(column.codes >= 0, column.codes, np.nan)
            arrays[name] = column[order]
    names = [name for name in columns if name.startswith("x:")]
    digest = ledger.blobs.put(pack(arrays, {"vocabularies": vocabularies, "names": names}))
    meta = {"blobs": {"requests": digest}, "rows": len(order)}
    return Made({"version": Artifact(Ref.of("requests", dataset.name, digest), meta)}, metrics={"rows": len(order)})


def load_requests(ledger: Ledger, version: Artifact) -> Requests:
    """Open the requests for reading."""
    arrays, meta = unpack(ledger.blobs.get(version.meta["blobs"]["requests"]))
    vocabularies = {name: tuple(words) for name, words in meta["vocabularies"].items()}
    texts = {name[2:]: Coded(codes, vocabularies[name]) for name, codes in arrays.items() if name.startswith("t:")}
    values = np.stack([arrays[name] for name in meta["names"]], axis=1) if meta["names"] else np.empty((len(arrays["at"]), 0))
    keys = np.ascontiguousarray(arrays["keys"]).view(f"S{arrays['keys'].shape[1]}").ravel() if arrays["keys"].size else np.empty(0, "S1")
    named = {name[2:]: words for name, words in vocabularies.items() if name.startswith("x:")}
    names = [name[2:] for name in meta["names"]]
    return Requests(keys, arrays["at"], arrays["event"], arrays["known"], texts, names, values, named, arrays["order"])


def evaluate(
    dataset: Dataset,
    types: Mapping[str, str],
    views: Sequence[RequestView],
    predict_at: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    lookups: Sequence[str] = (),
) -> Requests:
    """Requests that bring their own columns, by the same SQL. Raises DataError for a missing or mistyped column."""
    columns = _columns(dataset, types, views, predict_at, lookups)
    plain = {name: kind for name, kind in types.items() if not name.startswith("__")}
    values = [_values(plain, row, dataset.timezone) for row in rows]
    casts = ", ".join(f"CAST(? AS {kind}) AS {quote(name)}" for name, kind in plain.items())
    event, known = (instant_of(quote(name), dataset.timezone) for name in (dataset.event_time, dataset.known_at or dataset.event_time))
    verb = "CREATE TABLE requests AS"
    with engine() as connection, explained("the request cannot be evaluated"):
        for i, row in enumerate(values):
            row_sql = f"SELECT *, {event} AS __event, {known} AS __known, {i} AS __row FROM (SELECT {casts})"
            with explained("the request cannot be evaluated", cause=partial(_fault, connection, plain, row)):
                connection.execute(f"{verb} {row_sql}", row)
            verb = "INSERT INTO requests"
        if not rows:
            nothing = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in plain.items())
            connection.execute(f"{verb} SELECT *, 0::BIGINT AS __event, 0::BIGINT AS __known, 0 AS __row FROM (SELECT {nothing}) LIMIT 0")
        as_kind = {"number": "DOUBLE", "instant": "BIGINT", "text": "VARCHAR"}
        chosen = ", ".join(f"CAST({sql} AS {as_kind[kind]}) AS {quote(name)}" for name, (sql, kind) in columns.items())
        raw = fetch(connection, f"SELECT {chosen} FROM requests ORDER BY __row", {name: kind for name, (_, kind) in columns.items()})
    return _of_raw(raw)


def _values(types: Mapping[str, str], row: Mapping[str, Any], timezone: str) -> list[Any]:
    for name, kind in types.items():
        if name not in row:
            raise DataError(
                f"the request lacks {name!r}", available=sorted(row), hint=f"send a known key alone, or all of: {', '.join(types)}"
            )
        if kind == "TIMESTAMP WITH TIME ZONE" and row[name] is not None and not _zoned(row[name]):
            raise DataError(f"the request's {name} = {row[name]} is not a time with its zone", hint="write it like 2013-05-01T12:00:00Z")
        if kind in LOCAL and _zoned(row[name]) and not (timezone == "UTC" and str(row[name]).endswith(("Z", "+00:00"))):
            hint = "send the time of its place, without a zone, as the files spell it"
            raise DataError(f"the request's {name} = {row[name]} has a zone, which its column has not", hint=hint)
    check_values(types, row)
    return [row[name] for name in types]


def _fault(connection: "DuckDBPyConnection", types: Mapping[str, str], row: Sequence[Any], said: str) -> TidemillError | None:
    """The error of the first value that is not of its column's type, where that is what the engine complained of."""
    for (name, kind), value in zip(types.items(), row, strict=True):
        try:
            with explained(""):
                connection.execute(f"SELECT CAST(? AS {kind})", [value])
        except TidemillError:
            return DataError(f"the request's {name} = {value!r} is no {plain_type(kind)}", hint="send one, or null")
    return None


def _zoned(value: Any) -> bool:
    try:
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).tzinfo is not None
    except (ValueError, AttributeError):
        return False


def _of_raw(raw: Mapping[str, Any]) -> Requests:
    texts = {name[2:]: column for name, column in raw.items() if name.startswith("t:")}
    names = [name for name in raw if name.startswith("x:")]
    vocabularies = {name[2:]: raw[name].vocabulary for name in names if isinstance(raw[name], Coded)}
    numbers = [np.where(c.codes >= 0, c.codes, np.nan) if isinstance(c, Coded) else c for c in (raw[name] for name in names)]
    values = np.stack(numbers, axis=1) if numbers else np.empty((len(raw["__at"]), 0))
    own = [(text or "").encode() for text in raw["__key"].texts()]
    longest = max(map(len, own), default=0)
    if longest > LONGEST:  # an array of keys has the width of the longest
        raise DataError(f"a key of the request has {longest:,} bytes", hint=f"a key has at most {LONGEST:,}")
    keys = np.array(own, dtype=bytes)
    return Requests(keys, raw["__at"], raw["__event"], raw["__known"], texts, [name[2:] for name in names], values, vocabularies)
