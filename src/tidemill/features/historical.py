"""Features of any rows, each as known at its own time: one row out for each row in, in the order given.

Comes in: rows with a time and entity keys, and view logs. Goes out: the same rows with a column for each feature, and a report.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tidemill.core import Array, DataError, DefinitionError, Instants, Ref, UnknownName, definition, instant, show
from tidemill.data import engine, explained, quote
from tidemill.features.catalogue import View
from tidemill.features.declarations import FeatureView, RequestView
from tidemill.features.frames import Arrow, Given, beside, count_of, open_rows, types_of, writable, write_part, write_rows
from tidemill.features.lookup import look_up
from tidemill.features.matching import NOTHING, key_error, match_sql, no_time, time_sql
from tidemill.features.request_rows import Computed
from tidemill.features.views import ViewLog
from tidemill.features.windows import STATUS, Status
from tidemill.ledger import Artifact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CELLS = 2**23  # values that are held at once where a file is written
MEMORY = "1GB"  # of the engine, there
VECTOR = 2048  # rows that the engine takes at once: from parts of whole ones the file is the same, however many rows they have
Listen = Callable[[int, int], None]  # how many rows are done, of how many


def quiet(done: int, rows: int) -> None:
    """Who listens and says nothing."""


@dataclass(frozen=True)
class Chosen:
    """A view and those of its features that are asked for, by the names of their columns."""

    view: View
    names: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """A view's log, the types of its dataset's columns, and the version that the log is of, where it is one of the ledger."""

    log: ViewLog
    types: Mapping[str, str]
    version: Artifact | None = None


class Learned(NamedTuple):
    """Until when (microseconds UTC) a model has learned what became known, and how many rows are before it."""

    until: int
    rows: int


@dataclass
class Report:
    """What came of the rows: for each view how many have which status, and `leaks`: how many a row would have answered, or with
    `as_known=False` has answered, that was not known yet at their time. `learned`: for each view that is the output of a model, how many
    are before the time up to which that has learned. `until`: what became known later was not used; `notes`: what else there is to say."""

    rows: int
    as_known: bool
    until: int | None = None
    notes: tuple[str, ...] = ()
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    leaks: dict[str, int] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)

    def add(self, view: str, status: Status, leaks: int) -> None:
        """Count the rows of a view."""
        counts = np.bincount(status, minlength=len(STATUS)).tolist()
        found = self.statuses.setdefault(view, dict.fromkeys(STATUS, 0))
        self.statuses[view] = {name: found[name] + count for name, count in zip(STATUS, counts, strict=True)}
        self.leaks[view] = self.leaks.get(view, 0) + leaks

    def look(self, learned: Mapping[str, int], at: Instants) -> None:
        """Count the rows of times at which the model of a view could not be there yet."""
        for view, until in learned.items():
            before = self.learned[view].rows if view in self.learned else 0
            self.learned[view] = Learned(until, before + int((at < until).sum()))

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        views = {name: {**counts, "leaks": self.leaks[name]} for name, counts in self.statuses.items()}
        said: dict[str, Any] = {} if self.until is None else {"until": show(self.until)}
        learned = {name: {"until": show(one.until), "rows": one.rows} for name, one in self.learned.items()}
        said |= {"learned": learned} if learned else {}
        return {"rows": self.rows, "as_known": self.as_known, **said, "views": views} | ({"notes": list(self.notes)} if self.notes else {})

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Report":
        """From plain data."""
        views = {name: dict(counts) for name, counts in plain["views"].items()}
        leaks = {name: counts.pop("leaks") for name, counts in views.items()}
        until = instant(plain["until"]) if "until" in plain else None
        learned = {name: Learned(instant(one["until"]), one["rows"]) for name, one in plain.get("learned", {}).items()}
        return cls(plain["rows"], plain["as_known"], until, tuple(plain.get("notes", ())), views, leaks, learned)

    def __repr__(self) -> str:
        known = "as known at their time" if self.as_known else "whenever it became known"
        lines = [f"{self.rows:,} rows, {known}" + (f", and by {show(self.until)}" if self.until is not None else "")]
        for name, counts in self.statuses.items():
            shown = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count) or "nothing asked"
            leaks = self.leaks[name]
            verb = "would have been" if self.as_known else "are"
            told = f"; {leaks:,} {verb} answered by what was not known yet" if leaks else ""
            lines.append(f"{name}: {shown}{told}")
        for name, one in self.learned.items():
            if one.rows:
                told = f"{one.rows:,} rows are before {show(one.until)}, up to which the model has learned whose output it is"
                lines.append(f"{name}: {told}: it may know what came of them")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True, repr=False)
class Historical:
    """`frame`: the rows with their features, as the kind of frame that came in (for rows from a file an object that speaks Arrow; None
    where a file was written), `columns`: the features alone, as arrays by name (not where a file was written), and the `report`. Of rows
    that are saved, `frame` speaks Arrow, `file` is the Parquet file of the ledger, `ref` names them, and `why` says why they were made
    (empty where they were there)."""

    frame: Any
    columns: dict[str, Array]
    report: Report
    file: Path | None = None
    ref: Ref | None = None
    why: str = ""

    def __repr__(self) -> str:
        what = self.ref or self.file
        return f"Historical({f'{what}: ' if what else ''}{self.report})"


def choose(asked: Sequence[str | View], declared: Mapping[str, View]) -> list[Chosen]:
    """What is asked for: views, their names, or `view:feature`, in this order. Raises UnknownName and DefinitionError."""
    hint = 'for example views=["weather", "delays:mean"]'
    if isinstance(asked, str) or not asked:
        raise DefinitionError(f"views={asked!r} is no list of views", available=sorted(declared), hint=hint)
    found = [_chosen(one, declared) for one in asked]
    views: dict[str, View] = {}
    for one in found:
        if definition(views.setdefault(one.view.name, one.view)) != definition(one.view):
            where = f"{views[one.view.name].where} and {one.view.where}"
            raise DefinitionError(f"two views named {one.view.name!r} are asked for", where=where, hint="give one of them another name")
    names = [name for one in found for name in one.names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DefinitionError(f"{twice!r} is asked for twice", hint="name a view, or some of its features, once")
    return found


def _chosen(one: object, declared: Mapping[str, View]) -> Chosen:
    if isinstance(one, (FeatureView, RequestView)):
        return Chosen(one, tuple(one.names))
    if not isinstance(one, str):
        raise DefinitionError(f"{one!r} is no view", available=sorted(declared), hint="name views, or give them")
    name, colon, feature = one.partition(":")
    if name not in declared:
        raise UnknownName(f"no view {name!r} is declared", available=sorted(declared), hint="name one of these, or VIEW:FEATURE")
    view = declared[name]
    if not colon:
        return Chosen(view, tuple(view.names))
    names = [full for full in view.names if full == f"{name}__{feature}"]
    if isinstance(view, FeatureView) and feature in view.columns:
        names = view.names_of(feature)
    if not names:
        available = list(dict.fromkeys([*view.columns, *(full.removeprefix(f"{name}__") for full in view.names)]))
        raise UnknownName(f"view {name!r} has no feature {feature!r}", available=available, hint=f"for example {name}:{available[0]}")
    return Chosen(view, tuple(names))


@dataclass(frozen=True)
class Question:
    """What is asked of which views: those that are looked up are `opened`, those of the request itself `computed`. `at` is the column with
    the time of a row, `until` (microseconds UTC) a limit for all: nothing that became known later is used. `learned`: views that are the
    output of a model, and up to when that has learned, where rows are to be counted that are before it."""

    chosen: Sequence[Chosen]
    opened: Mapping[str, Opened]
    at: str
    computed: Mapping[str, Computed] = field(default_factory=dict)
    as_known: bool = True
    timezone: str = ""
    status: bool = False
    until: int | None = None
    learned: Mapping[str, int] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether the time of a row is read."""
        return bool(self.opened or self.learned)

    @property
    def names(self) -> list[str]:
        """The names of the columns that are given, in their order."""
        views = list(self.opened) if self.status else []
        return [*(name for one in self.chosen for name in one.names), *(f"{view}__status" for view in views)]

    @property
    def needed(self) -> list[str]:
        """The columns of the rows that are read."""
        keys = [column for one in self.opened.values() for column in one.log.view.entity.keys]
        read = [column for one in self.computed.values() for column in one.types]
        return list(dict.fromkeys([*([self.at] if self.timed else []), *keys, *read]))

    def cut(self) -> "Question":
        """The same over what was known by `until`."""
        if self.until is None:
            return self
        return replace(self, opened={name: replace(one, log=one.log.until(self.until)) for name, one in self.opened.items()})


def historical(
    rows: object,
    question: Question,
    to: str | Path | None = None,
    *,
    chunk: int = 0,
    compression: str = "snappy",
    listen: Listen = quiet,
) -> Historical:
    """Features of rows: each read at its own time. With `to` they are written to a Parquet file, `chunk` rows at a time (0: as many as fit
    well); the file is the same whatever that is. Raises DataError for rows that cannot be asked about: a missing column, a time that is
    null or has no zone, a name that is there already."""
    file, question = writable(to) if to else None, question.cut()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-"))) if file else None
        connection = stack.enter_context(engine(str(scratch / "rows.db") if scratch else ":memory:"))
        if scratch:
            connection.execute(f"SET memory_limit = '{MEMORY}'")
        given = open_rows(connection, rows, question.needed, whole=file is not None or not question.needed)
        if file:
            listen(0, count_of(connection, given))
        count = _ask(connection, given, question)
        report = Report(count, question.as_known, question.until)
        if file is None or scratch is None:
            columns = _read(connection, question, range(count), report)
            frame = given.give(columns)
            return Historical(replace(frame, kept=stack.pop_all()) if isinstance(frame, Arrow) else frame, columns, report)
        parts, done, rest = list[Path](), 0, dict[str, Array]()
        for part in _parts(count, chunk or max(2**16, CELLS // len(question.names))):
            read = _read(connection, question, part, report)
            read = {name: np.concatenate([rest[name], one]) for name, one in read.items()} if rest else read
            upto = part.stop if part.stop == count else part.stop - part.stop % VECTOR
            rest = {name: one[upto - done :] for name, one in read.items()}
            if upto > done or not count:
                parts.append(scratch / f"{done}.parquet")
                write_part(connection, {name: one[: upto - done] for name, one in read.items()}, parts[-1])
            done = upto
            listen(part.stop, count)
        write_rows(connection, beside(given, parts), file, compression)
        return Historical(None, {}, report, file)


def _parts(count: int, size: int) -> list[range]:
    """The rows, some at a time; no rows are one part."""
    return [range(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def _ask(connection: "DuckDBPyConnection", given: Given, question: Question) -> int:
    """Make the table `asked`: the time of each row, and its key for each view. Returns the number of rows."""
    _check_names(given, question)
    types = types_of(connection, given)
    if not connection.execute(f"SELECT 1 FROM {given.table} LIMIT 1").fetchone():
        types |= dict.fromkeys(question.needed, NOTHING)  # whatever holds no rows says of their types
    for name in [name for name in question.needed if types[name].startswith(("TIMESTAMP", "DATE"))]:  # as pandas has a column of gaps
        if connection.execute(f"SELECT count({quote(name)}) FROM {given.table}").fetchone() == (0,):
            types[name] = NOTHING
    columns = {"at": time_sql(given.what, question.at, types[question.at], question.timezone) if question.timed else "0::BIGINT"}
    for name, one in question.opened.items():
        columns[f"key {name}"] = match_sql(given.what, one.log.view.entity, types, one.types)
    shown = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
    with explained(f"{given.what} cannot be read", question.at, partial(key_error, given.what)):
        connection.execute(f"CREATE TABLE asked AS SELECT {shown} FROM {given.table}")
    [(count, row)] = connection.execute('SELECT count(*), min(rowid) FILTER ("at" IS NULL) FROM asked').fetchall()
    if row is not None:
        text = f"CAST({quote(question.at)} AS VARCHAR)"
        found = f"SELECT {text}, coalesce(isfinite(TRY_CAST({text} AS TIMESTAMP)), FALSE) FROM {given.table} LIMIT 1 OFFSET {row}"
        [(said, time)] = connection.execute(found).fetchall()
        raise no_time(given.what, question.at, row, said, naive=time and not question.timezone)
    for name, one in question.opened.items():
        words = {"text": np.array(one.log.entities, dtype=object), "code": np.arange(len(one.log.entities), dtype=np.int32)}
        connection.register("words", words)
        connection.execute(f"CREATE TABLE {quote(f'words {name}')} AS SELECT * FROM words")
        connection.unregister("words")
    for view in question.computed.values():
        view.ask(connection, given, types, question.timezone)
    return int(count)


def _check_names(given: Given, question: Question) -> None:
    there = {name.casefold() for name in given.names}
    clash = next((name for name in question.names if name.casefold() in there), None)
    if clash:
        raise DataError(f"{given.what} has a column {clash!r} already", hint="rename or drop it: the feature would have its name")
    names = [name.casefold() for name in question.names]
    twice = next((name for name in question.names if names.count(name.casefold()) > 1), None)
    if twice:
        hint = "ask for one of them alone; with status=True each view gives VIEW__status"
        raise DefinitionError(f"two columns would be named {twice!r}", hint=hint)


def _read(connection: "DuckDBPyConnection", question: Question, rows: range, report: Report) -> dict[str, Array]:
    """The columns of some of the rows."""
    some = f"rowid >= {rows.start} AND rowid < {rows.stop}"
    at = np.asarray(connection.execute(f'SELECT "at" FROM asked WHERE {some} ORDER BY rowid').fetchnumpy()["at"], dtype=np.int64)
    found: dict[str, Array] = {}
    report.look(question.learned, at)
    for name, one in question.opened.items():
        join = f"SELECT a.rowid AS r, w.code FROM (SELECT rowid, {quote(f'key {name}')} AS k FROM asked WHERE {some}) a"
        matched = connection.execute(f"{join} JOIN {quote(f'words {name}')} w ON a.k = w.text").fetchnumpy()
        entity = np.full(len(at), -1, dtype=np.int64)
        entity[np.asarray(matched["r"]) - rows.start] = matched["code"]
        wanted = [full for chosen in question.chosen if chosen.view.name == name for full in chosen.names]
        columns, status, leaks = look_up(one.log, wanted, entity, at, as_known=question.as_known)
        report.add(name, status, leaks)
        found |= columns
        if question.status:
            found[f"{name}__status"] = np.array(STATUS, dtype=object)[status]
    for view in question.computed.values():
        found |= view.read(connection, some)
    return {name: found[name] for name in question.names}
