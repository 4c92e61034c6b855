"""A dataset version: the rows of a dataset's query over its source files, as Parquet, ordered by knowledge time.

Its digest is that of the bytes. It carries its schema, row count, profile, and the digests of its sources. Two columns are
added: `__event` and `__known`, microseconds UTC.
"""

import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core import DataError, DefinitionError, Ref, definition, digest_bytes, duration, show, show_duration
from tidemill.data.declarations import Check, Dataset, Source
from tidemill.data.engine import Columns, engine, explained, fetch, literal, quote, table
from tidemill.ledger import Artifact, Ledger, Made, Once, own_code

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CODE = ("core", "data")


def source_ref(ledger: Ledger, source: Source) -> Ref:
    """Record the file of a source by its content."""
    path = source.file()
    digest = digest_bytes(path.read_bytes())
    return ledger.put_artifact(Artifact(Ref.of("source", source.path, digest), {"file": path.name, "bytes": path.stat().st_size}))


def ingest(ledger: Ledger, dataset: Dataset, *, branch: str = "") -> Once:
    """The version of a dataset that its files now give: read, checked, profiled and stored, or found in the cache.

    Raises MissingFile, DefinitionError (wrong SQL, with file and line) and DataError (wrong rows).
    """
    sources = {name: source_ref(ledger, source) for name, source in dataset.sources.items()}
    inputs = {"definition": definition(dataset), "sources": sources}
    return ledger.once("dataset", dataset.name, inputs, lambda: _make(ledger, dataset), branch=branch, code=own_code(*CODE))


def _make(ledger: Ledger, dataset: Dataset) -> Made:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        for name, source in dataset.sources.items():
            _open(connection, name, source, Path(scratch))
        types = _describe(connection, dataset)
        file = Path(scratch) / "rows.parquet"
        _write(connection, dataset, types, file)
        problems = violations(connection, dataset, table(file), types)
        if problems:
            raise DataError(
                f"dataset {dataset.name!r}: {problems[0]}", where=str(dataset.where), hint="correct the data, the query or the check"
            )
        meta: dict[str, Any] = {"types": types, **_profile(connection, table(file), types)}
        digest = ledger.blobs.put(file.read_bytes())
    meta |= {"blobs": {"rows": digest}, "key": list(dataset.keys)}
    return Made({"version": Artifact(Ref.of("dataset", dataset.name, digest), meta)}, metrics={"rows": meta["rows"]})


def _open(connection: "DuckDBPyConnection", name: str, source: Source, scratch: Path) -> None:
    path = source.file()
    if path.suffix == ".zip":
        path = _unzip(path, scratch / name)
    nulls = ", ".join(literal(value) for value in ("", *source.null_values))
    reader = {
        "csv": f"read_csv({literal(str(path))}, header = true, sample_size = -1, nullstr = [{nulls}])",
        "parquet": table(path),
        "json": f"read_json_auto({literal(str(path))})",
    }[source.format]
    with explained(f"source {source.path!r} cannot be read", str(path)):
        connection.execute(f"CREATE TABLE {quote(name)} AS SELECT * FROM {reader}")


def _unzip(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [item for item in archive.namelist() if not item.endswith("/") and not item.startswith("__MACOSX/")]
            if len(names) != 1:
                raise DataError(f"{path.name} holds {len(names)} files, one is needed", where=str(path), available=names)
            return Path(archive.extract(names[0], folder))
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(f"{path.name} cannot be unpacked: {error}", where=str(path), hint="fetch it again, without a password") from error


def _place(dataset: Dataset) -> str:
    file = dataset.query_file()
    return str(file) if file else str(dataset.where)


def _describe(connection: "DuckDBPyConnection", dataset: Dataset) -> dict[str, str]:
    with explained(f"the query of dataset {dataset.name!r} is wrong", _place(dataset)):
        # not DESCRIBE: it spells `"Name" AS name` as the source does, while the rows are written as the query says
        shape = connection.execute(f"SELECT * FROM ({dataset.sql()}\n) LIMIT 0").description
    types = {column[0]: str(column[1]) for column in shape}
    needed = [dataset.event_time, *([dataset.known_at] if dataset.known_at else []), *dataset.keys]
    for column in [*needed, *(check.column for check in dataset.checks if check.column)]:
        if column not in types:
            raise DefinitionError(f"dataset {dataset.name!r} has no column {column!r}", where=_place(dataset), available=list(types))
    return types


def _instant_sql(dataset: Dataset, column: str, types: Mapping[str, str]) -> str:
    kind, name = types[column], quote(column)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_us({name})"
    if kind in ("TIMESTAMP", "DATE", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_MS"):
        if not dataset.timezone:
            hint = f'say what they are, for example Dataset(…, timezone="UTC"), or convert {column!r} in the query'
            raise DataError(f"times of {column!r} in dataset {dataset.name!r} have no time zone", where=str(dataset.where), hint=hint)
        return f"epoch_us(timezone({literal(dataset.timezone)}, CAST({name} AS TIMESTAMP)))"
    raise DataError(
        f"column {column!r} of dataset {dataset.name!r} is {kind}, not a time", where=_place(dataset), hint="convert it in the query"
    )


def _write(connection: "DuckDBPyConnection", dataset: Dataset, types: Mapping[str, str], file: Path) -> None:
    event = _instant_sql(dataset, dataset.event_time, types)
    known = _instant_sql(dataset, dataset.known_at or dataset.event_time, types)
    columns = ", ".join(quote(name) for name in types)
    rows = f"SELECT *, {event} AS __event, {known} AS __known FROM ({dataset.sql()}\n)"
    order = f"ORDER BY __known, __event, {columns}"
    with explained(f"the rows of dataset {dataset.name!r} cannot be computed", _place(dataset)):
        connection.execute("SET threads = 1")  # the same rows must give the same bytes
        key = literal(", ".join(dataset.keys))  # rows with another key are another version: they are found and joined by it
        options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{tidemill_key: {key}}}"
        connection.execute(f"COPY (SELECT * FROM ({rows}) {order}) TO {literal(str(file))} ({options})")
        connection.execute("RESET threads")


def violations(connection: "DuckDBPyConnection", dataset: Dataset, rows: str, types: Mapping[str, str]) -> list[str]:
    """What is wrong with the rows, in sentences: times and keys first, then the declared checks."""
    found = [_violation(connection, dataset, rows, "NULL time", "__event IS NULL OR __known IS NULL", [dataset.event_time])]
    if dataset.keys:
        key = ", ".join(quote(k) for k in dataset.keys)
        nulls = " OR ".join(f"{quote(k)} IS NULL" for k in dataset.keys)
        found.append(_violation(connection, dataset, rows, "NULL key", nulls, dataset.keys))
        found.append(_violation(connection, dataset, rows, f"unique key ({', '.join(dataset.keys)})", _twice(key, rows), dataset.keys))
    for check in dataset.checks:
        wrong = _wrong(check, rows, types)
        if wrong:
            found.append(_violation(connection, dataset, rows, check.name, wrong, [*dataset.keys, check.column]))
    return [problem for problem in found if problem]


def _twice(columns: str, rows: str) -> str:
    return f"({columns}) IN (SELECT ({columns}) FROM {rows} GROUP BY {columns} HAVING count(*) > 1)"


def _wrong(check: Check, rows: str, types: Mapping[str, str]) -> str:
    column = quote(check.column)
    sides = [("<", check.low), (">", check.high)]
    limits = [f"{column} {beyond} {limit}" for beyond, limit in sides if limit is not None and isfinite(limit)]
    return {
        "in_range": " OR ".join(limits),
        "not_null": f"{column} IS NULL",
        "unique": _twice(column, rows),
        "fresh": "",
    }[check.kind_of]


def _violation(connection: "DuckDBPyConnection", dataset: Dataset, rows: str, name: str, condition: str, shown: Sequence[str]) -> str:
    columns = ", ".join(quote(column) for column in shown)
    with explained(f"check {name} of dataset {dataset.name!r} cannot run", str(dataset.where)):
        count = connection.execute(f"SELECT count(*) FROM {rows} WHERE {condition}").fetchone()
        if not count or not count[0]:
            return ""
        example = connection.execute(f"SELECT {columns} FROM {rows} WHERE {condition} LIMIT 1").fetchone() or ()
    values = ", ".join(f"{column}={value}" for column, value in zip(shown, example, strict=True))
    return f"{name} fails for {count[0]} rows, for example {values}"


def _profile(connection: "DuckDBPyConnection", rows: str, types: Mapping[str, str]) -> dict[str, Any]:
    head = connection.execute(f"SELECT count(*), min(__event), max(__event), max(__known) FROM {rows}").fetchone() or (0, None, None, None)
    shown = {}
    for name, kind in types.items():
        column = quote(name)
        number = kind in ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "SMALLINT", "HUGEINT", "BOOLEAN") or kind.startswith("DECIMAL")
        numbers = f", min({column})::DOUBLE, max({column})::DOUBLE, avg({column}::DOUBLE)" if number else ""
        row = connection.execute(f"SELECT count(*) - count({column}), count(DISTINCT {column}){numbers} FROM {rows}").fetchone() or ()
        shown[name] = dict(zip(("nulls", "distinct", "min", "max", "mean"), row, strict=False))
    return {"rows": head[0], "first_event": head[1], "last_event": head[2], "last_known": head[3], "profile": shown}


def stale(dataset: Dataset, version: Artifact, now: int) -> list[str]:
    """Freshness checks that do not hold at `now`, in sentences."""
    newest = version.meta.get("last_known")
    late = [c for c in dataset.checks if c.kind_of == "fresh" and (newest is None or now - int(newest) > duration(c.within))]
    since = "nothing" if newest is None else show(int(newest))
    return [
        f"dataset {dataset.name!r} is older than {show_duration(duration(check.within))}: its newest row became known at {since}"
        for check in late
    ]


def scan(ledger: Ledger, version: Artifact, columns: Mapping[str, tuple[str, str]], where: str, *, source: str = "") -> Columns:
    """Columns of a dataset version, in its order: name → (SQL expression, kind), kinds as in `fetch`.

    `where` is a condition ("TRUE" for all rows); `source` is the file and line to name in errors.
    """
    casts = {"number": "CAST(({}) AS DOUBLE)", "instant": "CAST(({}) AS BIGINT)", "text": "CAST(({}) AS VARCHAR)"}
    chosen = ", ".join(f"{casts[kind].format(sql)} AS {quote(name)}" for name, (sql, kind) in columns.items())
    path = ledger.blobs.path(version.meta["blobs"]["rows"])
    with engine() as connection:
        with explained(f"an expression over dataset {version.ref.name!r} is wrong", source):
            sql = f"SELECT {chosen} FROM {table(path)} WHERE {where}"
            found = fetch(connection, sql, {name: kind for name, (_, kind) in columns.items()})
        with explained(f"an expression over dataset {version.ref.name!r} may only use its own row", source):
            # A window function or an aggregate would look at rows that are not known yet; SQL allows neither in WHERE.
            connection.execute(
                f"DESCRIBE SELECT 1 AS one FROM {table(path)} WHERE {' OR '.join(f'({sql}) IS NULL' for sql, _ in columns.values())}"
            )
    return found
