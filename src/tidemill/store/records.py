"""Records: rows in SQL through SQLAlchemy Core. SQLite in a file or in memory; each stage brings its own tables.

`begin()` is one transaction that others see whole or not at all; `read()` never waits for a writer (write-ahead log).
A commit survives the end of the process, and with `synchronous=FULL`, which is set, the loss of power.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from tidemill.core import Busy, Damaged, MissingFile, StoreError
from tidemill.store.blobs import disk_is_full
from tidemill.store.driver import Driver

FORMAT = 1
_REFUSED = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL)  # by the disk


def _explain(error: BaseException, where: str) -> StoreError:
    said = str(getattr(error, "orig", error))
    if "malformed" in said or "not a database" in said or "corrupt" in said:
        hint = "restore records.db from a backup, or move it away and run again: what can be computed again will be"
        return Damaged(f"the ledger file is damaged: {said}", where=where, hint=hint)
    if "locked" in said:
        hint = "wait until it is done; `tidemill doctor` names the writer"
        return Busy(f"another process is writing to the records: {said}", where=where, hint=hint)
    if "disk I/O error" in said and disk_is_full(where):
        said = "the disk is full"
    hints = {"full": "free some space; nothing acknowledged was lost", "readonly": "give this user the right to write there"}
    hints |= {"unable to open": "the folder must be there, and this user may need the right to write there"}
    hint = next((hint for word, hint in hints.items() if word in said), "run `tidemill doctor`")
    return StoreError(f"the records cannot be used: {said}", where=where, hint=hint)


class _Alone(sqlite3.Connection):
    """A reader that shares nothing with a writer. It is used once: a writer may come."""


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    """A connection. SQLite's readers share a file beside the database; where they cannot make it (a full or read-only disk, a
    folder of others) and no log of a writer has rows that the database lacks, the file is read as it is."""

    def connect(mode: str, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=30, check_same_thread=False, factory=kind)

    connection = connect("ro" if read_only else "rwc")
    if read_only:
        try:
            connection.execute("pragma schema_version").close()
        except sqlite3.OperationalError as error:
            connection.close()
            log = path.with_name(f"{path.name}-wal")
            if error.sqlite_errorcode & 0xFF not in _REFUSED or (log.exists() and log.stat().st_size):
                raise
            return connect("ro&immutable=1", _Alone)
    return connection


def _set(connection: sqlite3.Connection, read_only: bool) -> sqlite3.Connection:
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "foreign_keys=on", *([] if read_only else ["journal_mode=wal", "synchronous=full"])):
        connection.execute(f"pragma {pragma}")
    return connection


def _engine(path: Path | None, read_only: bool) -> Engine:
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine("sqlite://", creator=lambda: _open(path, read_only), poolclass=QueuePool)

    @event.listens_for(engine, "checkin")
    def used(connection, record) -> None:  # type: ignore[no-untyped-def]
        if isinstance(connection, _Alone):
            record.invalidate()

    @event.listens_for(engine, "connect")
    def connected(connection, _record) -> None:  # type: ignore[no-untyped-def]
        _set(connection, read_only)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("begin" if connection.get_execution_options().get("reading") else "begin immediate")

    return engine


class Records:
    """The rows of one project. `Records(None)` keeps them in memory, with the same code path.

    >>> records = Records(None)
    >>> with records.begin() as connection:
    ...     connection.exec_driver_sql("create table t (x)").close()
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        self.where = str(path or "memory")
        if path is not None and read_only and not path.exists():
            raise MissingFile("this project has no ledger yet", where=self.where, hint="run `tidemill run` or `tidemill replay` first")
        try:
            if path is not None and not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.engine = _engine(path, read_only)
            self._path, self._read_only = path, read_only
            self._local, self._opened = threading.local(), list[sqlite3.Connection]()  # connections of the driver, by thread and all
            self._lock = threading.RLock()  # one writer; in memory there is but one connection, so readers take turns too
            self._reading: AbstractContextManager[object] = self._lock if path is None else nullcontext()
            self._check_format(read_only)
        except (DatabaseError, OSError) as error:
            raise error if isinstance(error, StoreError) else _explain(error, self.where) from error

    def _check_format(self, read_only: bool) -> None:
        with self.engine.connect().execution_options(reading=True) as connection:
            found = connection.execute(text("pragma user_version")).scalar() or 0
        if found > FORMAT:
            raise StoreError(
                f"the ledger has format {found}; this Tidemill knows {FORMAT}", where=self.where, hint="install the newer Tidemill"
            )
        if not read_only and found < FORMAT:
            with self.engine.begin() as connection:
                connection.exec_driver_sql(f"pragma user_version={FORMAT}")

    def ensure(self, tables: MetaData) -> None:
        """Create the tables that are not there yet."""
        with self.begin() as connection:
            tables.create_all(connection)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One writing transaction; rolled back when the block raises."""
        try:
            with self._lock, self.engine.begin() as connection:
                yield connection
        except DatabaseError as error:
            raise _explain(error, self.where) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the rows, which never waits for a writer. Not for use inside this thread's own `begin`."""
        try:
            with self._reading, self.engine.connect().execution_options(reading=True) as connection:
                yield connection
        except DatabaseError as error:
            raise _explain(error, self.where) from error

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[Driver]:
        """As `begin`, on the driver itself. Not `synced`, it survives the end of the process but perhaps not the loss of power."""
        with self._lock, self._driver("begin immediate", "synced" if synced else "unsynced") as driver:
            yield driver

    @contextmanager
    def snapshot(self) -> Iterator[Driver]:
        """As `read`, on the driver itself."""
        with self._reading, self._driver("begin", "synced") as driver:
            yield driver

    @contextmanager
    def _driver(self, begin: str, kind: str) -> Iterator[Driver]:
        try:
            connection = self._own_connection(kind)
            connection.execute(begin)
            try:
                yield Driver(connection)
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise _explain(error, self.where) from error

    def _own_connection(self, kind: str) -> sqlite3.Connection:
        """This thread's connection of the driver; in memory there is but one."""
        found = getattr(self._local, kind, None)
        if found is None:
            found = self._memory() if self._path is None else _set(_open(self._path, self._read_only), self._read_only)
            if kind == "unsynced":
                found.execute("pragma synchronous=normal")
            if not isinstance(found, _Alone):  # that one is looked at anew each time
                setattr(self._local, kind, found)
            self._opened.append(found)
        assert isinstance(found, sqlite3.Connection)
        return found

    def _memory(self) -> Any:
        return self.engine.raw_connection().driver_connection

    def check(self) -> list[str]:
        """What SQLite's own integrity check finds wrong; empty when the file is sound."""
        try:
            with self.read() as connection:
                rows = connection.execute(text("pragma integrity_check")).scalars().all()
        except Damaged as error:
            return [error.what]
        return [str(row) for row in rows if row != "ok"]

    def close(self) -> None:
        """Close all connections."""
        while self._opened:
            self._opened.pop().close()
        self.engine.dispose()
