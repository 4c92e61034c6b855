"""DuckDB in process: the one place that opens it. Errors come back with the file and line of the user's SQL."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core import Coded, DataError, DefinitionError, TidemillError
from tidemill.data.said import ours

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Column = np.ndarray[Any, np.dtype[Any]] | Coded
Columns = dict[str, Column]
UNDECLARED = "declare the file as a Source and name it by its key: what is not declared is neither tracked nor in the lineage"
ZONED_NS = "TIMESTAMPTZ_NS"  # a time with its zone in nanoseconds, as pyarrow writes pandas' times
_ZONE = r":\d\d(\.\d+)?\s*([+-]\d|[A-Za-z])"
TWINS = "rename or drop one: a column is found by its name"
NO_ZONE = "a time has no time zone: give its dataset one, or convert it in the query"


@contextmanager
def engine(file: str = ":memory:") -> Iterator["DuckDBPyConnection"]:
    """A fresh connection in memory, or in a new file, in UTC, without access to the network. It prints nothing."""
    import duckdb  # 175 ms to import: only where a query runs

    connection = duckdb.connect(file, config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    try:
        connection.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")  # a name means a table, no variable of ours
        connection.execute("SET enable_progress_bar = false")  # it comes after two seconds, in the midst of what a command prints
        yield connection
    finally:
        connection.close()


class _Asked(ExitStack):
    """What answers questions: an engine that the first of them opens."""

    @cached_property
    def connection(self) -> "DuckDBPyConnection":
        return self.enter_context(engine())


_asked: ContextVar[_Asked | None] = ContextVar("engine that is asked", default=None)


@contextmanager
def kept_open() -> Iterator[None]:
    """Within it one engine, opened by the first question, answers all that is asked; not for longer, since one that is open at a fork hangs
    the child at its end."""
    if _asked.get():
        yield
        return
    with _Asked() as asked:
        before = _asked.set(asked)
        try:
            yield
        finally:
            _asked.reset(before)


def ask(sql: str, value: object) -> Any:
    """The value of a question about one value (`?`): milliseconds, of which within `kept_open` only the first takes more than one."""
    asked = _asked.get()
    if asked is None:
        with kept_open():
            return ask(sql, value)
    row = asked.connection.execute(sql, [value]).fetchone()
    return row[0] if row else None


@contextmanager
def reading(file: Path, *, own: bool) -> Iterator["DuckDBPyConnection"]:
    """An engine to read a file with; where no SQL but our `own` is run, the one that is kept open, if one is."""
    asked = _asked.get()
    if own and asked:
        yield asked.connection
        return
    with engine() as connection:
        confine(connection, file=file)
        yield connection


def confine(connection: "DuckDBPyConnection", *, folder: Path | None = None, file: Path | None = None) -> None:
    """From now on a query reads the tables that are there, and files only of `folder`, or `file`. The engine never takes it back."""
    for setting, path in (("allowed_directories", f"{folder}/" if folder else ""), ("allowed_paths", str(file or ""))):
        paths = [literal(path), named(path)] if path else []  # it may be asked for in both ways
        connection.execute(f"SET {setting} = [{', '.join(paths)}]")
    connection.execute("SET enable_external_access = false")


@contextmanager
def explained(what: str, where: str = "", cause: Callable[[str], TidemillError | None] = lambda said: None) -> Iterator[None]:
    """Turn an error of the engine into ours. `where` is a file, to which the line that the engine names is added; `cause` may know
    of an error behind it."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        said = str(error).strip()
        line = re.search(r"LINE (\d+):", said)
        place = f"{where}:{line[1]}" if line and where.endswith((".sql", ".py")) else where
        wrong_sql = isinstance(error, (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException))
        kind = DefinitionError if wrong_sql else DataError
        if isinstance(error, duckdb.PermissionException):
            named = re.search(r'Cannot access file "([^"]*)"', said)
            file = named[1] if named else "a file"
            problem = f"{what}: it reads {file}, which is no declared source"
            raise DefinitionError(problem, where=place if line else _place_of(file, where), hint=UNDECLARED) from None
        first, hint = ours(said)
        gone = re.search(r"there is no column '([^']*)'", first)
        place = _place_of(gone[1], where) if gone and not line else place
        behind = cause(said)
        if behind and not behind.where:
            behind.what, behind.where = f"{what}: {behind.what}", place
        raise behind or kind(f"{what}: {first}", where=place, hint=_hint(said, hint)) from None


def _place_of(text: str, where: str) -> str:
    """`where`, with the line that holds a text if it is a file of SQL."""
    lines = Path(where).read_text(encoding="utf-8").splitlines() if where.endswith(".sql") else []
    return next((f"{where}:{number}" for number, line in enumerate(lines, 1) if text in line), where)


def _hint(said: str, hint: str) -> str:
    near = re.search(r"(?:Did you mean|Candidate bindings:) ?(.*)", said)
    names = [one.strip(" ?") for one in near[1].split(",")] if near and "Table with name" not in said else []
    theirs = [name for name in names if not name.startswith('"__')]  # columns with two underscores are Tidemill's own
    return (hint or "correct the query, or the data") + (f"; near is {', '.join(theirs)}" if theirs else "")


def twins(names: Sequence[str]) -> str:
    """Two columns that are one to the engine, in words; empty where there are none.

    >>> twins(["shop", "Shop"]), twins(["shop", "shop"])
    ("the columns 'shop' and 'Shop', which differ by case alone", "two columns 'shop'")
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if names.count(name) > 1:
            return f"two columns {name!r}"
        if other != name:
            return f"the columns {other!r} and {name!r}, which differ by case alone"
    return ""


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def named(path: Path | str) -> str:
    """A file's path as an SQL literal. The engine takes *, ? and [ for patterns, and would read what else fits."""
    return literal(re.sub(r"[*?[]", r"[\g<0>]", str(path)))


def table(path: Path) -> str:
    """A Parquet file as an SQL table."""
    return f"read_parquet({named(path)})"


def instant_of(expression: str, timezone: str) -> str:
    """SQL for the instant of a time: as it says itself, or read in `timezone`; without either, the query fails."""
    naive = (
        f"timezone({literal(timezone)}, CAST(({expression}) AS TIMESTAMP))"
        if timezone
        else f"CAST(error({literal(NO_ZONE)}) AS TIMESTAMPTZ)"
    )
    zoned = f"typeof({expression}) = 'TIMESTAMP WITH TIME ZONE'"
    return f"epoch_us(CASE WHEN {zoned} THEN CAST(({expression}) AS TIMESTAMPTZ) ELSE {naive} END)"


def zoned_sql(name: str) -> str:
    """SQL for a time of `ZONED_NS` in microseconds, which all functions take; what is finer is cut off."""
    return f"timezone('UTC', CAST(timezone('UTC', {name}) AS TIMESTAMP))"


def has_zone(text: str) -> str:
    """SQL for whether a text that tells a time ends with an offset, or the name of a zone."""
    return f"regexp_matches({text}, {literal(_ZONE)})"


def fetch(connection: "DuckDBPyConnection", sql: str, kinds: Mapping[str, str]) -> Columns:
    """The rows of a query by column: kind "number" as float64 (null: NaN), "instant" as int64, "text" as Coded, "whole" (numbers of 64
    bits) as Coded texts."""
    raw = connection.execute(sql).fetchnumpy()
    return {name: as_column(raw[name], kind) for name, kind in kinds.items()}


def as_column(values: Any, kind: str) -> Column:
    """A column that the engine gave, as `fetch` gives it."""
    if kind == "text":
        return Coded.of(values.tolist())  # null is None there
    null = getattr(values, "mask", None)  # where there are nulls, the array is one with a mask
    null = null if null is not None and null.any() else None
    if kind == "whole":
        return Coded.of_whole(np.asarray(values), null)
    if kind == "instant":
        if null is not None:
            raise DataError("a time is null", hint="leave such rows out in the query")
        return np.asarray(values, dtype=np.int64)
    numbers = np.asarray(values, dtype=np.float64)
    return numbers if null is None else np.where(null, np.nan, numbers)
