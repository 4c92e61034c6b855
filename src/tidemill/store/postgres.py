"""PostgreSQL under the records: `postgresql://user@host/database?schema=name`, through psycopg 3. One schema is one ledger.

Writers of a schema take one advisory lock for their transaction, as SQLite's take the file: what a writer reads before it writes stays
true, names are given once, and numbers grow in the order of commits. Readers have a view of their own and wait for nobody.
"""

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar
from urllib.parse import unquote

from sqlalchemy import Column, Connection, Engine, create_engine, event, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler, PGTypeCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.pool import QueuePool

from tidemill.core import Busy, Damaged, DataError, DefinitionError, MissingExtra, MissingFile, StoreError, TidemillError
from tidemill.store.driver import Driver, Occupied, Row

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus, TransactionStatus
    from psycopg.types.numeric import Int8Dumper
except ImportError as missing:
    raise MissingExtra("records in PostgreSQL need psycopg", hint="pip install 'tidemill[postgres]'") from missing

T = TypeVar("T")
SCHEMA = "tidemill"
WAIT = 30  # seconds that a writer waits for another, as with SQLite
IDLE = 600  # seconds that a transaction may do nothing before the server ends it: a process that stands still must not stop all others
SESSION = f"""SET lock_timeout = '{WAIT}s'; SET idle_in_transaction_session_timeout = '{IDLE}s'; SET statement_timeout = 0; SET jit = off;
SET extra_float_digits = 1; SET standard_conforming_strings = on; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10;
SET tcp_keepalives_count = 3; SET search_path TO """
READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
WRITE = b"BEGIN ISOLATION LEVEL READ COMMITTED"  # once the lock is held nobody else commits, so each statement sees the same rows
KEPT = 5  # connections that lie idle, of the driver and of SQLAlchemy each
NOT_NOW = ("57P01", "57P02", "57P03")  # the server goes down or comes up


# ── SQLAlchemy ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Types(PGTypeCompiler):
    """Whole numbers have 64 bits, and texts are ordered by their bytes, as in SQLite."""

    def visit_INTEGER(self, type_: Any, **kw: Any) -> str:  # noqa: N802 – SQLAlchemy's name
        return "BIGINT"

    def visit_TEXT(self, type_: Any, **kw: Any) -> str:  # noqa: N802 – SQLAlchemy's name
        return 'TEXT COLLATE "C"' if isinstance(kw.get("type_expression"), Column) else "TEXT"


class _Definitions(PGDDLCompiler):
    def get_column_specification(self, column: Column[Any], **kw: Any) -> str:
        found = super().get_column_specification(column, **kw)  # type: ignore[no-untyped-call]
        return str(found).replace(" SERIAL", " BIGSERIAL")


class Dialect(PGDialect_psycopg):
    """SQLAlchemy's own, but for what columns are made of."""

    supports_statement_cache = True
    type_compiler_cls = _Types
    ddl_compiler = _Definitions


registry.register("postgresql.tidemill", __name__, "Dialect")


# ── the driver ──────────────────────────────────────────────────────────────────────────────────────────────────


ROWS = 8  # so many of a `many` go in one statement, where that can be
_PLAIN = re.compile(r"(INSERT INTO .*) VALUES \([?, ]+\)((?: ON CONFLICT(?: \([^)]*\))? DO NOTHING)?)", re.DOTALL)


@lru_cache(maxsize=4096)
def _marked(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=256)
def _whole(sql: str) -> tuple[str, str] | None:
    """An insertion as what stands before and after its rows; None for one that may change what is there, which it may do but once in a
    statement."""
    found = _PLAIN.fullmatch(sql.strip())
    return (_marked(found[1]), found[2]) if found else None


def _array(values: Sequence[Any]) -> tuple[str, str]:
    """A column of rows as the text of an array, and its type; an empty type for values of other kinds, or where all are NULL."""
    kinds = set(map(type, values))
    texts: Iterable[str] = map(repr, values)
    if kinds <= {str, NoneType}:
        texts = ("NULL" if value is None else '"{}"'.format(value.replace("\\", r"\\").replace('"', r"\"")) for value in values)
    elif NoneType in kinds:
        texts = ("NULL" if value is None else repr(value) for value in values)
    known = {frozenset({str}): "text", frozenset({int}): "bigint", frozenset({float}): "float8", frozenset({int, float}): "float8"}
    return f"{{{','.join(texts)}}}", known.get(frozenset(kinds - {NoneType}), "")


def _send(raw: "psycopg.Connection[Any]", command: bytes) -> Any:
    """What the server says to a few plain statements. A fifth of the work that it is with psycopg's cursors, which may wait for longer."""
    result = raw.pgconn.exec_(command)
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise error_from_result(result, raw.info.encoding)
    return result


class _Driver(Driver):
    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        super().__init__(connection.cursor())

    def like(self, expression: str, pattern: str, *, any_case: bool, make: Callable[[str, tuple[Any, ...]], T]) -> T:
        return make(f"{expression} {'ILIKE' if any_case else 'LIKE'} ? ESCAPE ''", (pattern,))

    def unindexed(self, column: str) -> str:
        return column  # the planner knows, by its statistics

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return super().all(_marked(sql), values)

    def search(self, sql: str, values: Sequence[Any], *, as_written: bool) -> list[Row]:
        _send(self._connection.connection, b"SET LOCAL join_collapse_limit = %d" % (1 if as_written else 8))
        found: list[Row] = self._connection.execute(
            _marked(sql), values, prepare=False
        ).fetchall()  # prepared, it is planned for any values
        return found

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        return super().one(_marked(sql), values)

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return super().run(_marked(sql), values)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        found = list(rows)
        whole = _whole(sql) if len(found) >= ROWS else None
        columns = [_array(column) for column in zip(*found, strict=True)] if whole else []
        if whole and all(kind for _, kind in columns):
            arrays = ", ".join(f"%s::{kind}[]" for _, kind in columns)
            self._connection.execute(f"{whole[0]} SELECT * FROM unnest({arrays}){whole[1]}", [text for text, _ in columns])
        elif len(found) == 1:
            self.run(sql, found[0])
        elif found:
            self._connection.executemany(_marked(sql), found)


# ── the database ────────────────────────────────────────────────────────────────────────────────────────────────


def _number(name: str) -> int:
    """The number of an advisory lock: 64 bits of the name's digest."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def parse_address(address: str) -> tuple[str, str]:
    """What libpq connects to, and the schema. Raises DefinitionError for an address that is none."""
    base, _, query = address.partition("?")
    parts = [part for part in query.split("&") if part]
    schema = next((unquote(part.removeprefix("schema=")) for part in parts if part.startswith("schema=")), SCHEMA)
    rest = "&".join(part for part in parts if not part.startswith("schema="))  # libpq's, as they were written
    plain = f"{base}?{rest}" if rest else base
    try:
        conninfo_to_dict(plain)
    except psycopg.Error as error:
        hint = "postgresql://user@host/database?schema=name"
        raise DefinitionError(f"store.records is no address of a database: {str(error).strip()}", hint=hint) from None
    if not schema or len(schema.encode()) > 63 or "\0" in schema or schema.startswith("pg_"):
        raise DefinitionError(f"{schema!r} cannot be the name of a schema", hint="1 to 63 letters and digits, without pg_ in front")
    return plain, schema


def _shown(plain: str, schema: str) -> str:
    """An address without its password."""
    found = {name: str(value) for name, value in conninfo_to_dict(plain).items()}
    user = f"{found['user']}@" if "user" in found else ""
    host = found.get("host", "")
    port = f":{found['port']}" if "port" in found else ""
    socket_of = f"host={host}&" if host.startswith("/") else ""
    return f"postgresql://{user}{'' if socket_of else host}{port}/{found.get('dbname', '')}?{socket_of}schema={schema}"


class Postgres:
    """The records in a schema of a database."""

    turns = False
    errors: tuple[type[BaseException], ...] = (psycopg.Error, UnicodeEncodeError)

    def __init__(self, address: str, read_only: bool) -> None:
        self._plain, self._schema = parse_address(address)
        self.where, self._read_only = _shown(self._plain, self._schema), read_only
        self._lock = _number(f"tidemill records {self._schema}")
        self._idle: list[psycopg.Connection[Any]] = []  # of the driver; SQLAlchemy has its own
        self.engine = self._engine()

    def _engine(self) -> Engine:
        engine = create_engine("postgresql+tidemill://", creator=self._connect, poolclass=QueuePool, pool_size=KEPT, max_overflow=-1)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            options = connection.get_execution_options()
            self._begin(_raw(connection), reading=options.get("reading", False), waits=options.get("waits", True))

        @event.listens_for(engine, "commit")
        def commit(connection: Connection) -> None:
            _refuse_broken(_raw(connection))

        return engine

    def _begin(self, raw: "psycopg.Connection[Any]", *, reading: bool, waits: bool) -> None:
        if reading:
            _send(raw, READ)
        elif _send(raw, b"%s; SELECT pg_try_advisory_xact_lock(%d)" % (WRITE, self._lock)).get_value(0, 0) != b"t":
            if not waits:
                raise Occupied("another writer is at the records", where=self.where, hint="try again")
            raw.execute(f"SELECT pg_advisory_xact_lock({self._lock})")  # so that it can be interrupted

    def _connect(self, name: str = "") -> "psycopg.Connection[Any]":
        given = conninfo_to_dict(self._plain)
        own: dict[str, Any] = {
            "connect_timeout": 10,
            "application_name": f"tidemill {self._schema}"[:63],
            "client_encoding": "utf8",
            "keepalives_idle": 30,  # a network that is gone is noticed within a minute or so
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        last = {"application_name": name} if name else {}
        connection = psycopg.connect(**{**own, **given, **last}, autocommit=True)  # transactions are begun by what is written above
        quoted = self._schema.replace('"', '""')
        extra = "; SET default_transaction_read_only = on" if self._read_only else ""
        connection.execute(f'{SESSION}"{quoted}"{extra}', prepare=False)
        connection.adapters.register_dumper(int, Int8Dumper)  # one type whatever the size, so that a statement is prepared once
        return connection

    def explain(self, error: BaseException) -> TidemillError | None:
        """An error of PostgreSQL in our words."""
        return explain(error, self.where)

    def _begun(self, open_: Callable[[], T], begin: Callable[[T], Any], dropped: Callable[[T], bool]) -> T:
        """What `open_` gives, in a transaction. A connection that died since it was last used, as when the server was started anew, is
        left for a new one: nothing has been done on it yet."""
        for again in (True, False):
            opened = open_()
            try:
                begin(opened)
                return opened
            except BaseException:
                if not dropped(opened) or not again:
                    raise
                self.close()  # those that lie idle are as old
        raise AssertionError

    def connection(self, *, reading: bool, waits: bool) -> Connection:
        """A connection with an open transaction."""

        def dropped(connection: Connection) -> bool:
            dead = bool(_raw(connection).closed)
            if dead:
                connection.invalidate()
            connection.close()
            return dead

        return self._begun(lambda: self.engine.connect().execution_options(reading=reading, waits=waits), Connection.begin, dropped)

    @contextmanager
    def drive(self, *, reading: bool, synced: bool, waits: bool) -> Iterator[Driver]:
        """A transaction on a connection of the driver."""
        raw = self._begun(self._take, lambda one: self._begin(one, reading=reading, waits=waits), self._give_back)
        try:
            if not synced:
                _send(raw, b"SET LOCAL synchronous_commit = off")
            yield _Driver(raw)
            _refuse_broken(raw)
            _send(raw, b"COMMIT")
        finally:
            self._give_back(raw)

    def row(self, sql: str, values: Sequence[Any]) -> Row | None:
        """The first row of a query by itself."""
        with self.drive(reading=True, synced=True, waits=True) as driver:
            return driver.one(sql, values)

    def _take(self) -> "psycopg.Connection[Any]":
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _give_back(self, raw: "psycopg.Connection[Any]") -> bool:
        """Keep a connection for the next transaction, this one being over; returns whether it is dead."""
        if raw.info.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                raw.rollback()
        if not raw.closed and len(self._idle) < KEPT:
            self._idle.append(raw)
            return False
        dead = bool(raw.closed)
        raw.close()
        return dead

    def format(self, connection: Connection) -> int:
        """The format of what is there; 0 where nothing is."""
        if connection.execute(text("SELECT to_regclass('tidemill_format')")).scalar() is None:
            if self._read_only:
                hint = "run `tidemill run`, `tidemill replay` or `tidemill server` first"
                raise MissingFile("this project has no ledger yet", where=self.where, hint=hint)
            return 0
        return int(connection.execute(text("SELECT format FROM tidemill_format")).scalar_one())

    def set_format(self, connection: Connection, number: int) -> None:
        """Note the format, in the transaction of what changed; the schema is made where it is not there yet."""
        there = text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
        if connection.execute(there, {"name": self._schema}).scalar() is None:
            connection.exec_driver_sql('CREATE SCHEMA "{}"'.format(self._schema.replace('"', '""')))
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS tidemill_format (format BIGINT NOT NULL)")
        connection.exec_driver_sql("DELETE FROM tidemill_format")
        connection.execute(text("INSERT INTO tidemill_format (format) VALUES (:number)"), {"number": number})

    def check(self, connection: Connection) -> list[str]:
        """Indexes that PostgreSQL itself does not trust; its pages it checks when it reads them."""
        query = (
            "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND NOT i.indisvalid"
        )
        return [f"the index {name} is not valid" for name in connection.execute(text(query), {"schema": self._schema}).scalars()]

    def purge(self) -> bool:
        """The server's own vacuum sees to it, and its log and backups are not ours."""
        return True

    @contextmanager
    def alone(self, command: str, wait: float, waiting: Callable[[str], None] | None) -> Iterator[None]:
        """Hold the lock of the project's writer, which ends with the connection, however that ends."""
        number = _number(f"tidemill writer {self._schema}")
        try:
            connection = self._connect(f"tidemill {command}, process {os.getpid()} on {socket.gethostname()}"[:63])
        except psycopg.Error as error:
            raise explain(error, self.where) or error from error
        with connection:
            if connection.info.server_version >= 140_000:
                connection.execute("SET idle_session_timeout = 0")
            deadline, told = time.monotonic() + wait, False
            while not _one(connection, "SELECT pg_try_advisory_lock(%s)", number):
                who = _one(connection, HOLDER, number & 0xFFFFFFFF, (number >> 32) & 0xFFFFFFFF) or "another process"
                if time.monotonic() >= deadline:
                    hint = "wait until it is done, or end it; reading always works"
                    raise Busy(f"{who} is writing to this project", where=self.where, hint=hint)
                if waiting and not told:
                    waiting(f"waiting for {who}")
                    told = True
                time.sleep(0.1)
            yield

    def close(self) -> None:
        """Close all connections that lie idle."""
        while self._idle:
            self._idle.pop().close()
        self.engine.dispose()


HOLDER = (
    "SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted "
    "AND l.objid = %s AND l.classid = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _one(connection: "psycopg.Connection[Any]", sql: str, *values: Any) -> Any:
    row = connection.execute(sql, values).fetchone()
    return row[0] if row else None


def _raw(connection: Connection) -> "psycopg.Connection[Any]":
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


def _refuse_broken(connection: "psycopg.Connection[Any]") -> None:
    """A transaction in which a statement failed cannot be kept, and PostgreSQL would not say so at its end."""
    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise StoreError("a statement failed in this transaction, so none of it is kept", hint="this is a bug of Tidemill: report it")


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────

_RIGHTS = (
    "grant it CREATE on the database, or give it a schema of its own; to read a schema of others, USAGE of it and SELECT on its tables"
)
_KNOWN: dict[str, tuple[type[TidemillError], str, str]] = {
    "28P01": (StoreError, "the database refuses the password", "give it in PGPASSWORD or ~/.pgpass; tidemill.toml is no place for it"),
    "28000": (StoreError, "the database refuses this user", "correct the user in store.records, or its line in pg_hba.conf"),
    "3D000": (StoreError, "there is no such database", "make it, for example with `createdb`, or correct store.records"),
    "53300": (StoreError, "the database has no connection left", "raise its max_connections, or end what holds them"),
    "53100": (StoreError, "the disk of the database is full", "free some space; nothing acknowledged was lost"),
    "42501": (StoreError, "this user may not do that", _RIGHTS),
    "25006": (StoreError, "the records are open for reading only", "write with a command that writes, to a server that is no standby"),
    "25P03": (StoreError, f"nothing was done for {IDLE} s in a transaction, so the server ended it", "run the command again"),
    "55P03": (Busy, f"another process has been writing for {WAIT} s", "wait until it is done; `tidemill doctor` names the writer"),
    "40P01": (Busy, "another process wrote the same rows", "run the command again"),
    "40001": (Busy, "another process wrote the same rows", "run the command again"),
}
_SAID = (("password", "28P01"), ("no pg_hba.conf", "28000"), ("role", "28000"), ("too many c", "53300"), ("does not exist", "3D000"))
_AWAY = "start the server, or correct store.records; nothing acknowledged was lost"


def explain(error: BaseException, where: str) -> TidemillError | None:
    """An error of psycopg in our words."""
    said = " ".join(str(error).split())
    state = getattr(error, "sqlstate", None) or ""
    if state == "22003" or "out of range" in said:
        said = "a number of 2⁶³ or more"
    if isinstance(error, UnicodeEncodeError) or state.startswith("22") or (not state and isinstance(error, psycopg.DataError)):
        return DataError(f"the records cannot hold this: {said}", hint="whole numbers below 2⁶³, and texts of Unicode without NUL")
    if not isinstance(error, psycopg.Error):
        return None
    if state.startswith("XX00"):
        return Damaged(f"the database is damaged: {said}", where=where, hint="restore it from a backup")
    if not state and not isinstance(error, psycopg.ProgrammingError):  # no connection, or not any more: the words say why
        state = next((state for words, state in _SAID if words in said), "")
        if not state:
            return StoreError(f"the database does not answer: {said}", where=where, hint=_AWAY)
    if state.startswith("08") or state in NOT_NOW:
        return StoreError(f"the database went away: {said}", where=where, hint=_AWAY)
    kind, what, hint = _KNOWN.get(state, (StoreError, "the records cannot be used", "run `tidemill doctor`"))
    return kind(f"{what}: {said}", where=where, hint=hint)
