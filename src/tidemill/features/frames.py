"""Rows that a user brings, whatever holds them, as a table of the engine; and the same rows given back with more columns.

A pandas or polars frame, a table of pyarrow and a dict of arrays come back as what they are. Of these libraries none is needed: what
speaks Arrow is read through its stream. A file, and what else speaks Arrow, comes back as something that speaks Arrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Array, DataError, MissingFile
from tidemill.data import TWINS, explained, literal, load_csv, named, quote, twins
from tidemill.features.mixed import unlike
from tidemill.store import store_error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Columns = Mapping[str, Array]
NUMPYS = np.number, np.bool
NUMBERS = int, float, np.number, np.bool, np.datetime64, np.timedelta64
HUGE = "HUGEINT", "UHUGEINT"
TAKEN = "a pandas or polars frame, a table of pyarrow, a dict of numpy arrays, a list of dicts, or the path of a .parquet or .csv file"


@dataclass(frozen=True)
class Arrow:
    """A query, of which `features` is a table, as an Arrow stream, as often as it is asked for: `polars.DataFrame(x)`,
    `pyarrow.table(x)` and pandas' `DataFrame.from_arrow(x)` take it."""

    connection: "DuckDBPyConnection"
    sql: str
    columns: Columns
    kept: object = None  # what must stay open

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an `ArrowArrayStream`."""
        cursor = self.connection.cursor()  # the engine reads the schema first, and then the rows by another stream
        cursor.execute("SET TimeZone = 'UTC'")
        if self.columns:
            cursor.register("features", _registrable(self.columns))
        return cursor.sql(self.sql).__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class _Stream:
    """A frame through its Arrow stream alone: the engine would ask pyarrow to read some kinds."""

    frame: Any

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class Stored:
    """Rows that a file holds, and `what` they are, for errors; `sql` gives them in their order."""

    what: str
    sql: str


@dataclass(frozen=True)
class Given:
    """`what` it is, for errors; all column `names`; the `table` (SQL) with those that were to be opened; `give(columns)`: the same rows
    with more columns behind their own."""

    what: str
    names: list[str]
    table: str
    give: Callable[[Columns], Any]


def open_rows(connection: "DuckDBPyConnection", rows: object, needed: Sequence[str], *, whole: bool = False) -> Given:
    """Make rows a table of the engine, in their order; of a frame only the columns that are needed, unless `whole`. Raises DataError for
    rows that lack one of them, or have two of one name, and MissingFile."""
    if isinstance(rows, Stored):
        with explained(f"{rows.what} cannot be read"):
            return _of_table(connection, rows.what, f"({rows.sql})", needed)
    if isinstance(rows, (str, Path)):
        return _of_file(connection, Path(rows), needed)
    library = type(rows).__module__.split(".")[0]
    with explained("the rows cannot be read"):
        if isinstance(rows, Mapping):
            return _of_dict(connection, rows, needed, whole)
        if isinstance(rows, Sequence):
            return _of_list(connection, rows, needed, whole)
        if library == "pandas" and hasattr(rows, "columns"):
            return _of_pandas(connection, rows, needed, whole)
        if not hasattr(rows, "__arrow_c_stream__") or type(rows).__name__ == "Series":
            hint = "call .collect() first" if hasattr(rows, "collect") else f"give {TAKEN}"
            raise DataError(f"rows is a {type(rows).__qualname__}, which holds no table", hint=hint)
        if library == "polars" or (library == "pyarrow" and hasattr(rows, "append_column")):
            return _of_known(connection, rows, needed, whole)
        connection.register("stream", _Stream(rows))
        connection.execute("CREATE TABLE given AS SELECT * FROM stream")  # it may give its rows only once
        return _of_table(connection, "the rows", "given", needed)


def _checked(what: str, names: Sequence[Any], needed: Sequence[str]) -> list[str]:
    """Names of which no two are one to the engine, those that are needed among them."""
    found = [str(name) for name in names]
    if both := twins(found):
        raise DataError(f"{what} has {both}", available=found, hint=TWINS)
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(f"{what} has no column {missing[0]!r}", available=found, hint="add it, or name the column that holds it")
    return found


def _of_dict(
    connection: "DuckDBPyConnection", rows: Mapping[str, Any], needed: Sequence[str], whole: bool, what: str = "the dict"
) -> Given:
    names = _checked(what, list(rows), needed)
    some = {name: _array(column) for name, column in rows.items() if whole or name in needed}
    odd = next((name for name, array in some.items() if array.ndim != 1), None)
    if odd is not None:
        raise DataError(f"the column {odd!r} of {what} has the shape {some[odd].shape}", hint="give each column one value for each row")
    sizes = {name: len(some[name] if name in some or not hasattr(column, "__len__") else column) for name, column in rows.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the columns of {what} have different lengths: {sizes}", hint="give each column one value for each row")
    _settle(connection, what, some, needed)
    _of_columns(connection, what, _registrable(some))
    return Given(what, names, "given", lambda columns: {**rows, **columns})


def _of_list(connection: "DuckDBPyConnection", rows: Sequence[Any], needed: Sequence[str], whole: bool) -> Given:
    """Rows as dicts; what one of them lacks is null, unless all do."""
    odd = next((number for number, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if odd is not None:
        raise DataError(f"row {odd} is {rows[odd]!r}, and no dict by column", hint=f"give {TAKEN}")
    names = list(dict.fromkeys(name for row in rows for name in row)) if rows else list(needed)
    found = _of_dict(connection, {name: [row.get(name) for row in rows] for name in names}, needed, whole, "the list")

    def give(columns: Columns) -> Any:
        values = zip(*([None if value != value else value for value in one.tolist()] for one in columns.values()), strict=True)
        return [{**row, **dict(zip(columns, some, strict=True))} for row, some in zip(rows, values, strict=True)]

    return replace(found, give=give)


def _array(column: Any) -> Array:
    """A column of a dict as an array: values of one kind; numbers and texts are not made one kind, and no whole number another one."""
    if isinstance(column, np.ma.MaskedArray):
        return column if column.dtype != object else np.fromiter(column.tolist(), dtype=object, count=len(column))
    if not isinstance(column, (list, tuple)):
        array, own = np.asarray(column), getattr(column, "dtype", getattr(column, "type", None))
        rounded = array.dtype.kind == "f" and not isinstance(own, np.dtype) and not str(own).lower().startswith(("float", "double"))
        how = next((how for how in ("to_pylist", "to_list") if hasattr(column, how)), None)
        if how is None or not (rounded or getattr(own, "time_zone", None)):
            return array
        column = getattr(column, how)()
    kinds = set(map(type, column))
    if len(kinds) == 1 and issubclass(kind := kinds.pop(), NUMBERS):
        array = np.array(column)
        if kind is not int or array.dtype.kind != "f":  # too large for int64 beside others
            return array
    return np.fromiter(column, dtype=object, count=len(column))


def _settle(connection: "DuckDBPyConnection", what: str, columns: Any, needed: Sequence[str]) -> None:
    """Make columns of objects such as the engine takes for what they are: it would take numpy's own values and some categories for others,
    and by some of the values the type of all, so that 1.5 behind many whole numbers were 2. Raises DataError for one whose values have no
    type that holds them all."""
    for name in columns:
        column = columns[name]
        words = getattr(column.dtype, "categories", None)  # of pandas
        if words is not None and not set(map(type, words.tolist())) <= {str}:
            columns[name] = column = column.astype(object)
        kinds = set(map(type, values := column.tolist())) if column.dtype == object else set()
        if not kinds <= {str, NoneType}:
            connection.execute(f"SET pandas_analyze_sample = {2**62}")
            if any(issubclass(kind, NUMPYS) for kind in kinds):
                values = [value.item() if isinstance(value, NUMPYS) else value for value in values]
                columns[name] = np.array(values, dtype=object)
            if held := unlike(values, with_texts=name in needed):
                raise DataError(f"the column {name!r} of {what} holds {held}", hint="convert it, so that all its values are of one kind")


def _of_columns(connection: "DuckDBPyConnection", what: str, columns: Any) -> None:
    """Make a table of columns. Raises DataError for one that is of no type that the engine knows."""
    import duckdb

    try:
        connection.register("given", columns)
    except duckdb.Error:
        for name in columns:
            with explained(f"the column {name!r} of {what} cannot be read"):
                connection.register("given", {name: columns[name]} if isinstance(columns, Mapping) else columns[[name]])
        raise


def _of_pandas(connection: "DuckDBPyConnection", rows: Any, needed: Sequence[str], whole: bool) -> Given:
    import duckdb
    import pandas as pd

    names = _checked("the frame", list(rows.columns), needed)
    plain = (rows.set_axis(names, axis=1) if whole else rows[list(needed)]).reset_index(drop=True)
    _settle(connection, "the frame", plain, needed)
    try:
        connection.register("given", plain)
    except duckdb.Error:  # a frame that was turned round is read from its end, which the engine cannot
        _of_columns(connection, "the frame", plain.copy())

    def give(columns: Columns) -> Any:
        return pd.concat([rows, pd.DataFrame(dict(columns), index=rows.index)], axis=1)

    return Given("the frame", names, "given", give)


def _of_known(connection: "DuckDBPyConnection", rows: Any, needed: Sequence[str], whole: bool) -> Given:
    """A frame of polars, or a table of pyarrow."""
    names = _checked("the frame", list(rows.columns if hasattr(rows, "hstack") else rows.column_names), needed)
    some = rows if whole else rows.select(list(needed))
    if hasattr(some, "hstack"):
        kinds = {name: str(kind) for name, kind in some.schema.items()}
        if odd := [name for name, kind in kinds.items() if kind == "Object"]:
            raise DataError(f"the column {odd[0]!r} of the frame holds Python's objects", hint="give it a type that polars knows")
        if empty := [name for name, kind in kinds.items() if kind == "Null"]:  # the engine reads no such stream back
            import polars as pl

            some = some.cast(dict.fromkeys(empty, pl.String))
    connection.register("given", _Stream(some))
    return Given("the frame", names, "given", lambda columns: _beside(rows, columns))


def _beside(rows: Any, columns: Columns) -> Any:
    """A frame of polars, or a table of pyarrow, with more columns."""
    from tidemill.data import engine

    with engine() as connection:
        stream = Arrow(connection, _typed(columns), columns)
        if type(rows).__module__.startswith("polars"):
            import polars as pl

            return rows.hstack(pl.DataFrame(stream))
        import pyarrow as pa

        more = pa.table(stream)
        for name in more.column_names:
            rows = rows.append_column(name, more[name].combine_chunks())
        return rows


def _of_file(connection: "DuckDBPyConnection", path: Path, needed: Sequence[str]) -> Given:
    endings = [ending.lower() for ending in path.suffixes]
    if not path.is_file():
        what = f"{path.resolve().name!r} is a folder" if path.is_dir() else f"there is no file {path.name!r}"
        raise MissingFile(what, where=str(path), hint=f"give {TAKEN}")
    if endings[-1:] == [".parquet"]:
        with explained(f"{path.name} cannot be read", str(path)):
            return _of_table(connection, path.name, f"read_parquet({named(path)})", needed)
    if ".csv" not in endings:
        raise DataError(f"{path.name} is neither Parquet nor CSV", where=str(path), hint=f"give {TAKEN}")
    load_csv(connection, "given", path, ())
    return _of_table(connection, path.name, "given", needed)


def _of_table(connection: "DuckDBPyConnection", what: str, name: str, needed: Sequence[str]) -> Given:
    names = [column[0] for column in connection.execute(f"SELECT * FROM {name} LIMIT 0").description]

    def give(columns: Columns) -> Arrow:
        return Arrow(connection, f"SELECT * FROM {name} POSITIONAL JOIN ({_typed(columns)})", columns)

    return Given(what, _checked(what, names, needed), name, give)


def _registrable(columns: Columns) -> dict[str, Array]:
    """Arrays as the engine takes them; NaN is null there. Days, hours and minutes become times, which are all that it knows."""
    coarse = {key: array for key, array in columns.items() if array.dtype.kind == "M" and np.datetime_data(array.dtype)[0] in "YMWDhm"}
    turned = {key: np.ascontiguousarray(array) for key, array in columns.items() if array.strides < (0,)}  # it is read from its end
    turned |= {key: array.astype(array.dtype.newbyteorder("=")) for key, array in columns.items() if not array.dtype.isnative}
    turned |= {key: array.astype(object) for key, array in columns.items() if array.dtype.kind == "S"}
    return {**columns, **turned, **{key: array.astype("datetime64[s]") for key, array in coarse.items()}}


def _typed(columns: Columns) -> str:
    """SQL for the table `features`: texts are that also where there are none among these rows."""
    shown = (f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" if one.dtype == object else quote(name) for name, one in columns.items())
    return f"SELECT {', '.join(shown)} FROM features"


def types_of(connection: "DuckDBPyConnection", given: Given) -> dict[str, str]:
    """The engine's types of the columns that were opened."""
    described = connection.execute(f"SELECT * FROM {given.table} LIMIT 0").description
    return {column[0]: str(column[1]) for column in described}


def count_of(connection: "DuckDBPyConnection", given: Given) -> int:
    """How many rows there are; of a Parquet file its footer says so."""
    with explained(f"{given.what} cannot be read"):
        row = connection.execute(f"SELECT count(*) FROM {given.table}").fetchone()
    return int(row[0]) if row else 0


def writable(to: str | Path) -> Path:
    """The file to write, before anything is computed for it. Raises DataError for what is no Parquet file, StoreError where none can be."""
    file = Path(to)
    if file.suffix.lower() != ".parquet" or file.is_dir():
        what = "is a folder" if file.is_dir() else "is not the name of a Parquet file"
        raise DataError(f"{file.resolve().name} {what}", where=str(file), hint="name a file ….parquet")
    try:
        _part_of(file).touch()
        _part_of(file).unlink()
    except OSError as error:
        raise store_error(error, str(file), file.name) from error
    return file


def _part_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


def beside(given: Given, parts: Sequence[Path]) -> str:
    """SQL for the rows with the columns of these files behind their own."""
    return f"SELECT * FROM {given.table} POSITIONAL JOIN read_parquet([{', '.join(map(named, parts))}])"


def write_rows(connection: "DuckDBPyConnection", rows: str, file: Path, compression: str) -> None:
    """Write rows (SQL) as Parquet: whole or not at all, and equal rows as equal bytes."""
    part = _part_of(file)
    with explained(f"{file.name} cannot be written", str(file)):
        try:
            wide = [
                quote(name) for name, kind, *_ in connection.execute(f"SELECT * FROM ({rows}) LIMIT 0").description if str(kind) in HUGE
            ]
            if wide:  # Parquet has no such numbers, and the engine would write the nearest floats
                rows = f"SELECT * REPLACE ({', '.join(f'CAST({name} AS DECIMAL(38, 0)) AS {name}' for name in wide)}) FROM ({rows})"
            connection.execute("SET threads = 1")
            connection.execute(f"COPY ({rows}) TO {literal(str(part))} (FORMAT parquet, COMPRESSION {compression})")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def write_part(connection: "DuckDBPyConnection", columns: Columns, file: Path) -> None:
    """Write some columns as Parquet."""
    connection.register("features", _registrable(columns))
    options = "FORMAT parquet, COMPRESSION uncompressed, DICTIONARY_SIZE_LIMIT 1"  # it is read once
    connection.execute(f"COPY ({_typed(columns)}) TO {literal(str(file))} ({options})")
    connection.unregister("features")
