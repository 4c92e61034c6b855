"""SQLite under the records: a file, or memory. Readers never wait for a writer (write-ahead log); a commit survives the loss of power."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool, StaticPool

from tidemill.core import Busy, Damaged, DataError, MissingFile, StoreError, TidemillError
from tidemill.store.blobs import disk_is_full
from tidemill.store.driver import Driver, Occupied, Row

_REFUSED = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL)  # by the disk
LOST = (
    "restore records.db from a backup. Without one, move it and the folder of blobs away and run again: what the loop made is made again, "
    "but tracked runs and registered models are in it alone; `sqlite3 records.db .recover` may save some"
)
WAIT = 30  # seconds that a writer waits for another


def _explain(said: str, where: str) -> TidemillError:
    if "malformed" in said or "not a database" in said or "corrupt" in said:
        return Damaged(f"the ledger file is damaged: {said}", where=where, hint=LOST)
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
        return sqlite3.connect(address, uri=True, timeout=WAIT, check_same_thread=False, factory=kind)

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
    for pragma in (f"busy_timeout={WAIT * 1000}", "foreign_keys=on"):
        connection.execute(f"pragma {pragma}")
    if not read_only:
        _log_ahead(connection)
        connection.execute("pragma synchronous=full")
    return connection


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. SQLite waits for nobody in that, though others may be at it in a file that is new to them all."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


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
        options = connection.get_execution_options()
        if options.get("waits", True):
            connection.exec_driver_sql("begin" if options.get("reading") else "begin immediate")
        else:
            _begin_at_once(connection.connection.driver_connection)

    return engine


def _begin_at_once(connection: Any) -> None:
    """Begin to write, or raise Occupied."""
    connection.execute("pragma busy_timeout=0")
    try:
        connection.execute("begin immediate")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        raise Occupied("another writer is at the records", hint="try again") from error
    finally:
        connection.execute(f"pragma busy_timeout={WAIT * 1000}")


class Sqlite:
    """The records in a file, or in memory. A writer has them for itself from its first statement on."""

    errors: tuple[type[BaseException], ...] = (sqlite3.Error, OverflowError, UnicodeEncodeError)

    def __init__(self, path: Path | None, read_only: bool) -> None:
        self.where, self.turns = str(path or "memory"), path is None  # in memory there is but one connection: readers take turns too
        if path is not None and read_only and not path.exists():
            raise MissingFile("this project has no ledger yet", where=self.where, hint="run `tidemill run` or `tidemill replay` first")
        if path is not None and not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._read_only = path, read_only
        self._local, self._opened = threading.local(), list[sqlite3.Connection]()  # connections of the driver, by thread and all
        self.engine = _engine(path, read_only)

    def explain(self, error: BaseException) -> TidemillError | None:
        """An error of SQLite in our words; None for one that is not of SQLite."""
        said = str(error)
        if isinstance(error, OverflowError) and "too large" in said:
            said = "a number of 2⁶³ or more"
        if isinstance(error, UnicodeEncodeError) or (isinstance(error, OverflowError) and "2⁶³" in said):
            return DataError(f"the records cannot hold this: {said}", hint="whole numbers below 2⁶³, and texts that are Unicode")
        return None if isinstance(error, OverflowError) else _explain(said, self.where)

    def connection(self, *, reading: bool, waits: bool) -> Connection:
        """A connection with an open transaction."""
        connection = self.engine.connect().execution_options(reading=reading, waits=waits)
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def drive(self, *, reading: bool, synced: bool, waits: bool) -> Iterator[Driver]:
        """A transaction on this thread's connection of the driver."""
        connection = self._own_connection("synced" if synced else "unsynced")
        if waits:
            connection.execute("begin" if reading else "begin immediate")
        else:
            _begin_at_once(connection)
        try:
            yield Driver(connection)
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def row(self, sql: str, values: Sequence[Any]) -> Row | None:
        """The first row of a query by itself."""
        return Driver(self._own_connection("synced")).one(sql, values)

    def _own_connection(self, kind: str) -> sqlite3.Connection:
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

    def format(self, connection: Connection) -> int:
        """The format of what is there; 0 where nothing is."""
        return int(connection.execute(text("pragma user_version")).scalar() or 0)

    def set_format(self, connection: Connection, number: int) -> None:
        """Note the format, in the transaction of what changed."""
        connection.exec_driver_sql(f"pragma user_version={number}")

    def check(self, connection: Connection) -> list[str]:
        """What SQLite's own integrity check finds wrong."""
        return [str(row) for row in connection.execute(text("pragma integrity_check")).scalars() if row != "ok"]

    def purge(self) -> bool:
        """Write the file anew, and empty the log of the writer into it."""
        if self._path is None:
            return True
        connection = self._own_connection("synced")
        try:
            connection.execute("vacuum")
            row = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return False
        return not row[0]

    @contextmanager
    def alone(self, command: str, wait: float, waiting: Callable[[str], None] | None) -> Iterator[None]:
        """The project's writer holds a lock beside the file already."""
        yield

    def close(self) -> None:
        """Close all connections."""
        while self._opened:
            self._opened.pop().close()
        self.engine.dispose()
