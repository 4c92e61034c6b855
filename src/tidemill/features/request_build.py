"""A version of the requests of a dataset: computed by the engine for all rows, and held against what is computed for a single one."""

from collections.abc import Sequence

import numpy as np

from tidemill.core import Array, Coded, DataError, DefinitionError, Ref, definition, pack
from tidemill.data import CODE as DATA_CODE
from tidemill.data import Columns, Dataset, kept_open, quote, scan
from tidemill.features.declarations import RequestView
from tidemill.features.keys import key_sql
from tidemill.features.outputs import bound, code_for, models_of
from tidemill.features.own import OwnColumns
from tidemill.features.requests import Kinds, named_functions, places_of, request_columns, with_functions
from tidemill.ledger import Artifact, Ledger, Made, Once

COMPARED = 200  # rows, about


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
    views = [bound(ledger, view) for view in views]
    inputs = {"dataset": version.ref, "views": [definition(view) for view in views], "predict_at": predict_at, "lookups": list(lookups)}
    inputs |= {"timezone": dataset.timezone, **models_of(views)}
    code = code_for(views, (*DATA_CODE, "features"))

    def make() -> Made:
        return _make(ledger, dataset, version, views, predict_at, lookups, source or str(dataset.where))

    return ledger.once("requests", dataset.name, inputs, make, branch=branch, code=code)


def _make(
    ledger: Ledger,
    dataset: Dataset,
    version: Artifact,
    views: Sequence[RequestView],
    predict_at: str,
    lookups: Sequence[str],
    source: str,
) -> Made:
    columns = request_columns(dataset, version.meta["types"], views, predict_at, lookups)
    raw = scan(ledger, dataset, version, columns, "TRUE", source=source, sources=places_of(views))
    own = OwnColumns.of(dataset, version.meta["types"], views, predict_at, lookups=lookups, source=source)
    _check_one(ledger, dataset, version, columns, own, source)
    raw = with_functions(views, raw)
    late = int(np.sum(raw["__known"] > raw["__at"]))  # type: ignore[operator]
    if late:
        hint = "predict later, or move the columns that come late to a dataset of their own"
        raise DataError(
            f"{late} requests of {dataset.name!r} are known only after their prediction time", where=str(dataset.where), hint=hint
        )
    digest, rows = ledger.blobs.put(_packed(raw)), len(raw["__key"])
    meta = {"blobs": {"requests": digest}, "rows": rows}
    return Made({"version": Artifact(Ref.of("requests", dataset.name, digest), meta)}, metrics={"rows": rows})


def _packed(raw: Columns) -> bytes:
    """Requests by (prediction time, key), as `load_requests` opens them."""
    keys = raw["__key"]
    assert isinstance(keys, Coded)
    order = np.lexsort((keys.codes, raw["__at"]))  # type: ignore[arg-type]
    encoded = np.array([text.encode() for text in keys.vocabulary] or [b""])[keys.codes[order]] if len(keys) else np.empty(0, "S1")
    arrays: dict[str, Array] = {name[2:]: raw[name][order] for name in ("__at", "__event", "__known")}  # type: ignore[index]
    arrays["keys"] = encoded.view(np.uint8).reshape(len(encoded), encoded.dtype.itemsize)
    arrays["order"] = np.argsort(encoded, kind="stable").astype(np.int32)
    vocabularies = {}
    for name, column in raw.items():
        if name[:2] in ("t:", "x:"):
            if isinstance(column, Coded):
                vocabularies[name] = list(column.vocabulary)
                column = column.codes if name[0] == "t" else column.numbers()
            arrays[name] = column[order]
    return pack(arrays, {"vocabularies": vocabularies, "names": [name for name in raw if name.startswith("x:")]})


def _check_one(ledger: Ledger, dataset: Dataset, version: Artifact, columns: Kinds, own: OwnColumns, source: str) -> None:
    """Raise DefinitionError for what is not the same for one request as for all rows, in a part of them."""
    some = f"hash({key_sql(dataset)}) % {version.meta['rows'] // COMPARED + 1} = 0"
    sent = {f"c:{name}": (quote(name), "text") for name in own.types}
    raw = scan(ledger, dataset, version, {**columns, **sent}, some)
    compare(own, raw, source)


def compare(own: OwnColumns, raw: Columns, source: str) -> None:
    """Raise DefinitionError for what these rows hold otherwise than each by itself gives. `raw` has the columns that are computed, and
    those that are sent as texts, `c:` before their names."""
    texts = [raw[f"c:{name}"] for name in own.types]
    rows = [dict(zip(own.types, row, strict=True)) for row in zip(*(column.texts() for column in texts), strict=True)]  # type: ignore[union-attr]
    hint = "leave it out, or compute it in the query of the dataset"
    with kept_open():
        for name, one, among in own.differences(rows, raw):
            what = f"{own.columns[name][0]!r} gives {one} for one request, and {among} among all rows"
            raise DefinitionError(what, where=places_of(own.views).get(name, source), hint=hint)
    for view, function, where in named_functions(own.views):
        odd = function.difference(raw, len(rows), view, where)
        if odd:
            raise DefinitionError(odd, where=where, hint="compute each row from itself alone, by functions that take numbers one by one")
