"""A dataset version: the rows of a dataset's query over its source files, as Parquet, ordered by knowledge time.

Its digest is that of the bytes. It carries its schema, row count, profile, and the digests of its sources. Two columns are
added: `__event` and `__known`, microseconds UTC.
"""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.core import Damaged, DataError, DefinitionError, Ref, UnknownName, definition, digest_bytes, duration, show, show_duration
from tidemill.data.declarations import Check, Dataset, Source
from tidemill.data.delimited import CommaNumbers, OddValue, comma_numbers, line_of, load_csv, odd_values
from tidemill.data.delta import files_of
from tidemill.data.elsewhere import Theirs, their_version
from tidemill.data.engine import (
    TWINS,
    ZONED_NS,
    Columns,
    confine,
    engine,
    explained,
    fetch,
    literal,
    named,
    quote,
    reading,
    table,
    twins,
    zoned_sql,
)
from tidemill.data.erased import Key, count, erased_inputs, erased_keys, left_out, rows_in
from tidemill.data.profiles import profile
from tidemill.data.pushes import Push, push_tables, pushed, pushes
from tidemill.data.said import ours, with_article
from tidemill.data.volatile import refuse_volatile
from tidemill.ledger import Artifact, Ledger, Made, Once, own_code
from tidemill.store import put_file, store_error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CODE = ("core", "data")
NO_ROWS = "say them in a query: SELECT CAST(t AS TIMESTAMPTZ) AS t, … FROM s; or begin with an empty Parquet file, which has types"
OWN_ROW = "compute it in the query of the dataset; a tm.FeatureView with windows folds rows that are known"
WIDEST = "DECIMAL(38,0)"  # in place of whole numbers of 128 bits: Parquet has none, and the engine would make them floats


def source_ref(ledger: Ledger, source: Source) -> Ref:
    """Record the file of a source by its content."""
    content = _content(source)
    ref = Ref.of("source", source.path, digest_bytes(content))
    return ledger.put_artifact(Artifact(ref, {"file": source.file().name, "bytes": len(content)}))


def _content(source: Source) -> bytes:
    path = source.file()
    if source.format == "delta":  # no file of a table is ever written to again
        return "\n".join(str(one.relative_to(path)) for one in files_of(path, f"the table {source.path!r}")).encode()
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"the file {source.path!r} cannot be read: {error.strerror or error}"
        raise DataError(what, where=str(source.where), hint=f"give this user the right to read {path}") from error


def ingest(ledger: Ledger, dataset: Dataset, *, branch: str = "") -> Once:
    """The version of a dataset that its files now give: read, checked, profiled and stored, or found in the cache.

    Raises MissingFile, DefinitionError (wrong SQL, with file and line) and DataError (wrong rows); of another project's what
    `their_version` raises.
    """
    if dataset.elsewhere:
        return _ingest_theirs(ledger, dataset, branch)
    sources = {name: source_ref(ledger, source) for name, source in dataset.sources.items()}
    inputs = {"definition": definition(dataset), "sources": sources}
    ledger.records.ensure(push_tables)
    upto = pushed(ledger, dataset.name)
    inputs |= {"pushed": upto.digest} if upto.last else {}
    erased = erased_keys(ledger)
    gone = erased_inputs(erased, known_types(ledger, dataset.name)) if erased else ""
    inputs |= {"erased keys": gone} if gone else {}
    make = partial(_make, ledger, dataset, sources, upto.last, erased)
    return ledger.once("dataset", dataset.name, inputs, make, branch=branch, code=own_code(*CODE))


def _ingest_theirs(ledger: Ledger, dataset: Dataset, branch: str) -> Once:
    """The version that another project shares: its own bytes, or where rows of it are of keys that were erased here, those without them."""
    theirs = their_version(dataset)
    ledger.records.ensure(push_tables)
    erased = erased_keys(ledger)
    gone = erased_inputs(erased, theirs.types) if erased else ""
    inputs = {"definition": definition(dataset), "sources": {theirs.project: theirs.record(ledger)}}
    inputs |= {"erased keys": gone} if gone else {}
    make = partial(_take, ledger, dataset, theirs, left_out(erased, theirs.types))
    return ledger.once("dataset", dataset.name, inputs, make, branch=branch, code=own_code(*CODE))


def _take(ledger: Ledger, dataset: Dataset, theirs: Theirs, without: str) -> Made:
    meta = {name: value for name, value in theirs.version.meta.items() if name not in ("pushed", "known_too")}  # that log is not here
    rows = file = theirs.file()
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        confine(connection, folder=Path(scratch), file=rows)
        with explained(f"the rows of {theirs.ref} cannot be read", str(rows)):
            some = count(connection, table(rows), without)
        if some:
            file = Path(scratch) / "rows.parquet"
            _copy(connection, f"SELECT * FROM {table(rows)} WHERE NOT {without}", dataset, file)
            meta |= profile(connection, table(file), theirs.types)
        digest = put_file(ledger.blobs, file)
    if not some and digest != theirs.version.ref.digest:
        hint = f"`tidemill doctor` in project {theirs.project} says what to do"
        raise Damaged(f"{theirs.ref} is not what was written there", where=str(rows), hint=hint)
    artifact = Artifact(Ref.of("dataset", dataset.name, digest), meta | {"blobs": {"rows": digest}})
    return Made({"version": artifact}, metrics={"rows": meta["rows"]})


def known_types(ledger: Ledger, dataset: str) -> dict[str, str] | None:
    """The columns of the newest version of a dataset; None where there is none."""
    try:
        return dict(ledger.artifact(Ref("dataset", dataset)).meta["types"])
    except UnknownName:
        return None


def _make(ledger: Ledger, dataset: Dataset, sources: Mapping[str, Ref], upto: int, erased: Mapping[tuple[str, ...], Sequence[str]]) -> Made:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        for name, source in dataset.sources.items():
            _open(connection, name, source, Path(scratch))
            _check_same(source, sources[name])
        confine(connection, folder=Path(scratch))
        columns = [column for name in dataset.sources for column in connection.table(quote(name)).columns]
        refuse_volatile(connection, dataset.sql(), columns, f"the query of dataset {dataset.name!r}", _place(dataset))
        types = _describe(connection, dataset)
        file = Path(scratch) / "rows.parquet"
        if upto:
            _open_pushed(connection, types, pushes(ledger, dataset.name, 0, upto), Path(scratch) / "pushed.json")
        _write(connection, dataset, types, file, pushed=upto > 0, without=left_out(erased, types))
        problems = violations(connection, dataset, table(file))
        if problems:
            raise DataError(
                f"dataset {dataset.name!r}: {problems[0]}", where=str(dataset.where), hint="correct the data, the query or the check"
            )
        meta: dict[str, Any] = {"types": types, **profile(connection, table(file), types)}
        if upto:
            meta |= {"pushed": upto, "known_too": _known_too(connection, table(file))}
        digest = put_file(ledger.blobs, file)
    meta |= {"blobs": {"rows": digest}, "key": list(dataset.keys)}
    return Made({"version": Artifact(Ref.of("dataset", dataset.name, digest), meta)}, metrics={"rows": meta["rows"]})


def rows_in_files(dataset: Dataset, key: Key) -> tuple[int, Mapping[str, str]]:
    """How many rows of a dataset's query over its files, or of another project's dataset, are of a key; and the types of its columns.
    Raises as `ingest`."""
    if dataset.elsewhere:
        theirs = their_version(dataset)
        return rows_in(theirs.file(), key), theirs.types
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        for name, source in dataset.sources.items():
            _open(connection, name, source, Path(scratch))
        confine(connection, folder=Path(scratch))
        types = _describe(connection, dataset)
        if not key.among(types):
            return 0, types
        with explained(f"the rows of dataset {dataset.name!r} cannot be computed", _place(dataset), partial(_cause, dataset)):
            return count(connection, f"({_as_held(dataset, types)})", key.condition(types)), types


def pushed_rows(ledger: Ledger, dataset: str, types: Mapping[str, str], key: Key) -> list[int]:
    """The numbers of the pushed rows of a dataset that are of a key."""
    upto = pushed(ledger, dataset).last
    if not upto or not key.among(types):
        return []
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
        _open_pushed(connection, types, pushes(ledger, dataset, 0, upto), Path(scratch) / "pushed.json")
        query = f"SELECT __number FROM __pushed WHERE {key.condition(types)} ORDER BY __number"
        return [int(row[0]) for row in connection.execute(query).fetchall()]


def _check_same(source: Source, ref: Ref) -> None:
    """Raise DataError for a file that was written to since it was recorded: its rows would be told to come from another content."""
    if digest_bytes(_content(source)) != ref.digest:
        what = f"the file {source.path!r} changed while it was read"
        raise DataError(what, where=str(source.where), hint="run again when it is written; move a new file into place whole")


def _open(connection: "DuckDBPyConnection", name: str, source: Source, scratch: Path) -> Path:
    """Make a table of a source; returns the file that was read, unpacked."""
    file = source.file()
    path = _unzip(file, scratch / name) if file.suffix == ".zip" else file
    if source.format == "csv":
        load_csv(connection, name, path, source.null_values, file)
    elif source.format == "delta":
        files = ", ".join(map(named, files_of(path, f"the table {source.path!r}")))
        with explained(f"source {source.path!r} cannot be read", str(path)):
            rows = f"read_parquet([{files}], union_by_name = true, hive_partitioning = true)"
            connection.execute(f"CREATE TABLE {quote(name)} AS {_in_microseconds(connection, rows)}")
    else:
        if not path.stat().st_size:
            raise DataError(f"{file.name} is empty", where=str(file), hint="write it again")
        reader = table(path) if source.format == "parquet" else f"read_json_auto({named(path)})"
        with explained(f"source {source.path!r} cannot be read", str(path)):
            connection.execute(f"CREATE TABLE {quote(name)} AS {_in_microseconds(connection, reader)}")
        if source.format == "json" and connection.table(quote(name)).columns == ["json"]:
            hint = 'write a list of objects, or one on each line: {"id": 1, "at": "2013-05-01T12:00:00Z"}'
            raise DataError(f"{file.name} holds no objects with named fields", where=str(file), hint=hint)
    return path


def _in_microseconds(connection: "DuckDBPyConnection", rows: str) -> str:
    """SQL for the rows of files, with times as all functions take them, and as Python has them."""
    shape = {quote(column[0]): str(column[1]) for column in connection.execute(f"SELECT * FROM {rows} LIMIT 0").description}
    fine = {name: zoned_sql(name) for name, kind in shape.items() if kind == ZONED_NS}
    fine |= {name: f"CAST({name} AS TIMESTAMP)" for name, kind in shape.items() if kind == "TIMESTAMP_NS"}
    instead = f" REPLACE ({', '.join(f'{sql} AS {name}' for name, sql in fine.items())})" if fine else ""
    return f"SELECT *{instead} FROM {rows}"


def _unzip(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [item for item in archive.namelist() if not item.endswith("/") and not item.startswith("__MACOSX/")]
            if len(names) != 1:
                raise DataError(f"{path.name} holds {len(names)} files, one is needed", where=str(path), available=names)
            return Path(archive.extract(names[0], folder))
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(f"{path.name} cannot be unpacked: {error}", where=str(path), hint="fetch it again, without a password") from error
    except OSError as error:
        raise store_error(error, str(folder), f"{path.name}, unpacked") from error


def _place(dataset: Dataset) -> str:
    file = dataset.query_file()
    return str(file) if file else str(dataset.where)


def _cause(dataset: Dataset, said: str) -> DataError | None:
    """What in a dataset's CSV files made the engine say so: an odd value of a column that it names, or no rows to tell types by."""
    if "not found" in said or "Parser Error" in said:  # types are not to blame
        return None
    for name, source in dataset.sources.items():
        if source.format == "csv":
            with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch, engine() as connection:
                path = _open(connection, name, source, Path(scratch))
                blamed: list[OddValue | CommaNumbers] = [*odd_values(connection, name), *comma_numbers(connection, name, path)]
                column = re.search(r"when casting from source column (.*)", said)
                value = re.search(r"Could not convert string '(.*)' to|field format: \"(.*)\", expected", said)
                odd = next((one for one in blamed if re.search(rf"\b{re.escape(one.column)}\b", said)), None)
                if value and not column:  # it was changed on the way: by the value
                    odd = odd or next(
                        (one for one in blamed if isinstance(one, OddValue) and value[value.lastindex or 1] in one.values), None
                    )
                if odd:
                    return odd.error(path, source.file())
                line = line_of(path, column[1].strip(), value[value.lastindex or 1]) if column and value else 0
                if line:
                    what, hint = ours(said)
                    return DataError(f"{what} (line {line} of {source.file().name})", hint=hint)
                if connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchone() == (0,):
                    what = f"{path.name} has column names and no rows, which would tell their types"
                    return DataError(what, where=str(source.file()), hint=NO_ROWS)
    return None


def _describe(connection: "DuckDBPyConnection", dataset: Dataset) -> dict[str, str]:
    try:
        with explained(f"the query of dataset {dataset.name!r} is wrong", _place(dataset), partial(_cause, dataset)):
            # not DESCRIBE: it spells `"Name" AS name` as the source does, while the rows are written as the query says
            shape = connection.execute(f"SELECT * FROM ({dataset.sql()}\n) LIMIT 0").description
    except DefinitionError as error:
        if 'near ")"' in error.what and dataset.sql().count("(") == dataset.sql().count(")"):  # the one in which the query stands
            error.what = error.what.split(" at or near")[0] + ": it ends too early"
        if "syntax error" not in error.what:
            error.available = [f"{s.path}: {', '.join(connection.table(quote(name)).columns)}" for name, s in dataset.sources.items()]
        raise
    if both := twins([row[0] for row in connection.execute(f"DESCRIBE {dataset.sql()}").fetchall()]):
        raise DefinitionError(f"the query of dataset {dataset.name!r} gives {both}", where=_place(dataset), hint=TWINS)
    types = {column[0]: WIDEST if str(column[1]) in ("HUGEINT", "UHUGEINT") else str(column[1]) for column in shape}
    own = [name for name in types if name.startswith("__")]
    if own:
        what = f"dataset {dataset.name!r} has a column {own[0]!r}: names that begin with __ are Tidemill's own"
        raise DefinitionError(
            what, where=_place(dataset), hint=f"name it otherwise in the query: {quote(own[0])} AS {own[0].strip('_') or 'x'}"
        )
    needed = [dataset.event_time, *([dataset.known_at] if dataset.known_at else []), *dataset.keys]
    for column in [*needed, *(check.column for check in dataset.checks if check.column)]:
        if column not in types:
            raise DefinitionError(f"dataset {dataset.name!r} has no column {column!r}", where=_place(dataset), available=list(types))
    return types


def _as_held(dataset: Dataset, types: Mapping[str, str]) -> str:
    """The query, its columns in the types in which versions hold them."""
    whole = [quote(name) for name, kind in types.items() if kind == WIDEST]
    instead = f" REPLACE ({', '.join(f'CAST({name} AS {WIDEST}) AS {name}' for name in whole)})" if whole else ""
    return f"SELECT *{instead} FROM ({dataset.sql()}\n)"


def _instant_sql(dataset: Dataset, column: str, types: Mapping[str, str]) -> str:
    kind, name = types[column], quote(column)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_us({name})"
    if kind in ("TIMESTAMP", "DATE", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_MS"):
        if not dataset.timezone:
            hint = f'say what they are, for example Dataset(…, timezone="UTC"), or convert {column!r} in the query'
            raise DataError(f"times of {column!r} in dataset {dataset.name!r} have no time zone", where=str(dataset.where), hint=hint)
        return f"epoch_us(timezone({literal(dataset.timezone)}, CAST({name} AS TIMESTAMP)))"
    plain = DataError(
        f"column {column!r} of dataset {dataset.name!r} is {with_article(kind)}, not a time",
        where=_place(dataset),
        hint="convert it in the query",
    )
    raise _cause(dataset, column) or plain


def _open_pushed(connection: "DuckDBPyConnection", types: Mapping[str, str], found: Iterable[Push], file: Path) -> None:
    """Make a table of what was pushed: the columns, when each row was known, and its number."""
    with file.open("wb") as out:
        for push in found:
            for number, row in enumerate(push.rows, push.first):
                if row:
                    out.write(msgspec.json.encode({**row, "__known": push.known, "__number": number}) + b"\n")
    kinds = {**types, "__known": "BIGINT", "__number": "BIGINT"}
    plain = ", ".join(f"{literal(name)}: 'JSON'" for name in kinds)
    values = ", ".join(f"{_as_pushed(quote(name), kind)} AS {quote(name)}" for name, kind in kinds.items())
    with explained("what was pushed cannot be read"):
        reader = f"read_json({literal(str(file))}, format = 'newline_delimited', columns = {{{plain}}})"
        connection.execute(f"CREATE TABLE __pushed AS SELECT {values} FROM {reader}")


def _known_too(connection: "DuckDBPyConnection", rows: str) -> list[int]:
    """The times at which rows of files became known, and pushed ones too: nobody else is told the one from the other."""
    counts = [f"(SELECT __known, count(*) AS n FROM {some} GROUP BY __known)" for some in (rows, "__pushed")]
    found = connection.execute(f"SELECT __known FROM {counts[0]} a JOIN {counts[1]} b USING (__known) WHERE a.n <> b.n ORDER BY __known")
    return [known for (known,) in found.fetchall()]


def _as_pushed(column: str, kind: str) -> str:
    """SQL for a value as `push` takes it: a text as a text, a whole number by its digits, another number as DOUBLE."""
    text = f"({column} ->> '$')"
    float_ = f"json_type({column}) = 'DOUBLE' AND NOT regexp_full_match({text}, '-?[0-9]+')"
    return f"CASE WHEN {float_} THEN CAST(CAST({text} AS DOUBLE) AS {kind}) ELSE CAST({text} AS {kind}) END"


def _write(connection: "DuckDBPyConnection", dataset: Dataset, types: Mapping[str, str], file: Path, *, pushed: bool, without: str) -> None:
    event = _instant_sql(dataset, dataset.event_time, types)
    known = _instant_sql(dataset, dataset.known_at or dataset.event_time, types)
    columns = ", ".join(quote(name) for name in types)
    rows = f"SELECT *, {event} AS __event, {known} AS __known FROM ({_as_held(dataset, types)}) WHERE NOT {without}"
    order = f"ORDER BY __known, __event, {columns}"
    if pushed:  # rows of equal times stand in the order in which they came, behind those of files
        more = f"SELECT {columns}, {event} AS __event, __known, __number FROM __pushed"
        rows = f"SELECT *, 0 AS __number FROM ({rows}) UNION ALL BY NAME {more}"
        rows, order = f"SELECT * EXCLUDE (__number) FROM ({rows}) ORDER BY __known, __event, __number, {columns}", ""
    with explained(f"the rows of dataset {dataset.name!r} cannot be computed", _place(dataset), partial(_cause, dataset)):
        _copy(connection, f"SELECT * FROM ({rows}) {order}", dataset, file)


def _copy(connection: "DuckDBPyConnection", rows: str, dataset: Dataset, file: Path) -> None:
    connection.execute("SET threads = 1")  # the same rows must give the same bytes
    key = literal(", ".join(dataset.keys))  # rows with another key are another version: they are found and joined by it
    options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{tidemill_key: {key}}}"
    connection.execute(f"COPY ({rows}) TO {literal(str(file))} ({options})")
    connection.execute("RESET threads")


def violations(connection: "DuckDBPyConnection", dataset: Dataset, rows: str) -> list[str]:
    """What is wrong with the rows, in sentences: times and keys first, then the declared checks."""
    found = [_violation(connection, dataset, rows, "NULL time", "__event IS NULL OR __known IS NULL", [dataset.event_time])]
    if dataset.keys:
        key = ", ".join(quote(k) for k in dataset.keys)
        nulls = " OR ".join(f"{quote(k)} IS NULL" for k in dataset.keys)
        found.append(_violation(connection, dataset, rows, "NULL key", nulls, dataset.keys))
        found.append(_violation(connection, dataset, rows, f"unique key ({', '.join(dataset.keys)})", _twice(key, rows), dataset.keys))
    for check in dataset.checks:
        wrong = _wrong(check, rows)
        if wrong:
            found.append(_violation(connection, dataset, rows, check.name, wrong, [*dataset.keys, check.column]))
    return [problem for problem in found if problem]


def _twice(columns: str, rows: str) -> str:
    return f"({columns}) IN (SELECT ({columns}) FROM {rows} GROUP BY {columns} HAVING count(*) > 1)"


def _wrong(check: Check, rows: str) -> str:
    return _twice(quote(check.column), rows) if check.kind_of == "unique" else wrong_alone(check)


def wrong_alone(check: Check) -> str:
    """SQL for whether a row by itself fails a check; empty for one that is not about single rows."""
    column, sides = quote(check.column), [("<", check.low), (">", check.high)]
    limits = [f"{column} {beyond} {limit}" for beyond, limit in sides if limit is not None and isfinite(limit)]
    return {"in_range": " OR ".join(limits), "not_null": f"{column} IS NULL"}.get(check.kind_of, "")


def _violation(connection: "DuckDBPyConnection", dataset: Dataset, rows: str, name: str, condition: str, shown: Sequence[str]) -> str:
    columns = ", ".join(quote(column) for column in shown)
    with explained(f"check {name} of dataset {dataset.name!r} cannot run", str(dataset.where)):
        count = connection.execute(f"SELECT count(*) FROM {rows} WHERE {condition}").fetchone()
        if not count or not count[0]:
            return ""
        example = connection.execute(f"SELECT {columns} FROM {rows} WHERE {condition} LIMIT 1").fetchone() or ()
    values = ", ".join(f"{column}={value}" for column, value in zip(shown, example, strict=True))
    return f"{name} fails for {count[0]} rows, for example {values}"


def stale(dataset: Dataset, version: Artifact, now: int) -> list[str]:
    """Freshness checks that do not hold at `now`, in sentences."""
    newest = version.meta.get("last_known")
    late = [c for c in dataset.checks if c.kind_of == "fresh" and (newest is None or now - int(newest) > duration(c.within))]
    since = "nothing" if newest is None else show(int(newest))
    return [
        f"dataset {dataset.name!r} is older than {show_duration(duration(check.within))}: its newest row became known at {since}"
        for check in late
    ]


def scan(
    ledger: Ledger,
    dataset: Dataset,
    version: Artifact,
    columns: Mapping[str, tuple[str, str]],
    where: str,
    *,
    source: str = "",
    sources: Mapping[str, str] | None = None,
) -> Columns:
    """Columns of a dataset version, in its order: name → (SQL expression, kind), kinds as in `fetch`.

    `where` is a condition ("TRUE" for all rows); `source` is the file and line to name in errors, `sources` those of single columns.
    """
    casts = {"number": "CAST(({}) AS DOUBLE)", "instant": "CAST(({}) AS BIGINT)", "text": "CAST(({}) AS VARCHAR)"}
    casts["whole"] = casts["instant"]
    chosen = {name: casts[kind].format(sql) for name, (sql, kind) in columns.items()}
    called = {name: f"{_called(name, sql)} over dataset {dataset.name!r}" for name, (sql, _) in columns.items()}
    places = {name: (sources or {}).get(name, source) for name in columns}
    types, path = version.meta["types"], ledger.blobs.path(version.blob("rows"))

    def rows(connection: "DuckDBPyConnection", names: Iterable[str]) -> Columns:
        shown = ", ".join(f"{chosen[name]} AS {quote(name)}" for name in names)
        return fetch(connection, f"SELECT {shown} FROM {table(path)} WHERE {where}", {name: columns[name][1] for name in names})

    def cause(said: str) -> DataError | None:
        for name in columns:  # each alone says which one it is
            with explained(f"{called[name]} is wrong", places[name], partial(_cause, dataset)):
                rows(connection, [name])
        return _cause(dataset, said)

    # The name of a column means the column, is a word that the engine refuses (`order`), or reads nothing (`null`): nobody needs to look.
    plain = {"__event", "__known", *filter(str.isidentifier, types), *map(quote, types)}
    written = [name for name, (sql, _) in columns.items() if sql not in plain]
    conditional = where not in {"TRUE", *(f"{name} IS NOT NULL" for name in plain)}
    with reading(path, own=not written and not conditional) as connection:
        for name in written:
            _check_expression(connection, dataset, table(path), types, chosen[name], called[name], places[name])
        if conditional:
            _check_expression(connection, dataset, table(path), types, where, f"a condition over dataset {dataset.name!r}", source)
        with explained(f"an expression over dataset {dataset.name!r} is wrong", source, cause):
            return rows(connection, columns)


def _called(name: str, sql: str) -> str:
    text = " ".join(sql.split())
    if name.startswith("__"):  # SQL of Tidemill's own around what was written
        return "an expression"
    return f"the expression {text if len(text) <= 80 else f'{text[:79]}…'!r}"


def _check_expression(
    connection: "DuckDBPyConnection", dataset: Dataset, rows: str, types: Mapping[str, str], sql: str, what: str, source: str
) -> None:
    """Bind an expression by itself: beside others it could use their names, and the error would not say which one is wrong."""
    refuse_volatile(connection, f"SELECT {sql}", types, what, source)
    try:
        with explained(f"{what} is wrong", source, partial(_cause, dataset)):
            connection.execute(f"DESCRIBE SELECT {sql} FROM {rows}")
    except DefinitionError as error:
        if "in GROUP BY" in error.what:  # it has an aggregate beside a column
            raise DefinitionError(f"{what} may only use its own row: it holds an aggregate", where=error.where, hint=OWN_ROW) from None
        error.available = error.available or list(types)
        raise
    with explained(f"{what} may only use its own row", source, lambda said: DefinitionError(ours(said)[0], hint=OWN_ROW)):
        # A window function or an aggregate would look at rows that are not known yet; SQL allows neither in WHERE.
        connection.execute(f"DESCRIBE SELECT 1 AS one FROM {rows} WHERE ({sql}) IS NULL")
