"""Records: rows in SQL through SQLAlchemy Core. SQLite in a file or in memory, or PostgreSQL; each stage brings its own tables.

`begin()` is one transaction that others see whole or not at all; writers come one after the other, so what one reads before it writes
stays true until it is done. `read()` is one consistent view and never waits for a writer. A commit survives the end of the process
and the loss of power.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, Protocol

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import DBAPIError

from tidemill.core import Damaged, StoreError, TidemillError, store_error
from tidemill.store import formats
from tidemill.store.driver import Driver, Occupied, Row
from tidemill.store.sqlite import Sqlite


class _Database(Protocol):
    """What is SQLite's or PostgreSQL's own. `turns`: readers and the writer share one connection. A writing transaction that does not
    wait raises Occupied where another writer is at it."""

    where: str
    turns: bool
    errors: tuple[type[BaseException], ...]
    engine: Engine

    def explain(self, error: BaseException) -> TidemillError | None: ...
    def connection(self, *, reading: bool, waits: bool) -> Connection: ...
    def drive(self, *, reading: bool, synced: bool, waits: bool) -> AbstractContextManager[Driver]: ...
    def row(self, sql: str, values: Sequence[Any]) -> Row | None: ...
    def format(self, connection: Connection) -> int: ...
    def set_format(self, connection: Connection, number: int) -> None: ...
    def check(self, connection: Connection) -> list[str]: ...
    def purge(self) -> bool: ...
    def alone(self, command: str, wait: float, waiting: Callable[[str], None] | None) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


def is_address(place: Path | str | None) -> bool:
    """Whether records lie in a PostgreSQL database and not in a file."""
    return isinstance(place, str) and place.startswith(("postgresql:", "postgres:"))


def _database(place: Path | str | None, read_only: bool) -> _Database:
    if is_address(place):
        from tidemill.store.postgres import Postgres

        return Postgres(str(place), read_only)
    return Sqlite(None if place is None else Path(place), read_only)


class Records:
    """The rows of one project, at a path or a `postgresql://` address. `Records(None)` keeps them in memory, with the same code path.

    >>> records = Records(None)
    >>> with records.begin() as connection:
    ...     connection.exec_driver_sql("create table t (x)").close()
    """

    def __init__(self, place: Path | str | None, *, read_only: bool = False, steps: Sequence[formats.Step] = formats.STEPS) -> None:
        try:
            self._database = _database(place, read_only)
        except OSError as error:
            raise error if isinstance(error, TidemillError) else store_error(error, str(place)) from error
        self.where, self.engine = self._database.where, self._database.engine
        self._errors: tuple[type[BaseException], ...] = (DBAPIError, *self._database.errors)
        self._lock = threading.RLock()  # one writer
        self._thread = threading.local()
        self._reading: AbstractContextManager[object] = self._lock if self._database.turns else nullcontext()
        self.format = formats.newest(steps)
        self.found = self._move_forward(read_only, steps)  # the format that was there; 0: nothing

    def _move_forward(self, read_only: bool, steps: Sequence[formats.Step]) -> int:
        """Bring the records to the newest format; several processes may start at once."""
        newest = self.format
        with self.read() as connection:
            found = self._known(connection)
        if read_only and 0 < found < newest:
            hint = "`tidemill migrate` moves it forward with its data in place; so does any command that writes"
            raise StoreError(f"the ledger has format {found}; this Tidemill reads {newest}", where=self.where, hint=hint)
        if not read_only and found < newest:
            with self.begin() as connection:
                found = self._known(connection)  # again: only now nobody else can be at it
                if found:
                    formats.move_forward(connection, found, steps)
                self._database.set_format(connection, newest)
        return found

    def _known(self, connection: Connection) -> int:
        found = self._database.format(connection)
        if found > self.format:
            what = f"the ledger has format {found}; this Tidemill knows {self.format}"
            raise StoreError(what, where=self.where, hint="install the newer Tidemill")
        return found

    def ensure(self, tables: MetaData) -> None:
        """Create the tables that are not there yet."""
        with self.begin() as connection:
            tables.create_all(connection)

    def _raise(self, error: BaseException) -> NoReturn:
        """An error of the database in our words; another as it is."""
        told = self._database.explain(getattr(error, "orig", None) or error)
        if told is None:
            raise error
        raise told from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block, the thread's first writing transaction does not wait for another writer, of this process or another: it raises
        and nothing has been done. Those after it wait."""
        self._thread.hasty = True
        try:
            yield
        finally:
            self._thread.hasty = False

    def _take_turn(self) -> bool:
        """Take this thread's turn to write, which ends with the lock's release; returns whether it waits for other processes too."""
        waits, self._thread.hasty = not getattr(self._thread, "hasty", False), False
        if not self._lock.acquire(blocking=waits):
            raise Occupied("another writer is at the records", where=self.where, hint="try again")
        return waits

    @contextmanager
    def _connection(self, *, reading: bool, waits: bool = True) -> Iterator[Connection]:
        try:
            connection = self._database.connection(reading=reading, waits=waits)
            try:
                yield connection
                connection.commit()
            finally:
                connection.close()
        except self._errors as error:
            self._raise(error)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One writing transaction; rolled back when the block raises."""
        waits = self._take_turn()
        try:
            with self._connection(reading=False, waits=waits) as connection:
                yield connection
        finally:
            self._lock.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the rows, which never waits for a writer. Not for use inside this thread's own `begin`."""
        with self._reading, self._connection(reading=True) as connection:
            yield connection

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[Driver]:
        """As `begin`, on the driver itself. Not `synced`, it survives the end of the process but perhaps not the loss of power."""
        waits = self._take_turn()
        try:
            with self._database.drive(reading=False, synced=synced, waits=waits) as driver:
                yield driver
        except self._errors as error:
            self._raise(error)
        finally:
            self._lock.release()

    @contextmanager
    def snapshot(self) -> Iterator[Driver]:
        """As `read`, on the driver itself."""
        try:
            with self._reading, self._database.drive(reading=True, synced=True, waits=True) as driver:
                yield driver
        except self._errors as error:
            self._raise(error)

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query by itself, or None: a snapshot that costs no transaction."""
        try:
            with self._reading:
                return self._database.row(sql, values)
        except self._errors as error:
            self._raise(error)

    def alone(self, command: str, *, wait: float = 0.0, waiting: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        """Be the project's one long writer, where the records are another machine's too; raises Busy, which names who is."""
        return self._database.alone(command, wait, waiting)

    def check(self) -> list[str]:
        """What the database's own check of its integrity finds wrong; empty when all is sound."""
        try:
            with self.read() as connection:
                return self._database.check(connection)
        except Damaged as error:
            return [error.what]

    def purge(self) -> bool:
        """Leave no byte of deleted and overwritten rows in the file; False where somebody else reads them. A server sees to that at its own
        times. Not for use inside a transaction."""
        return self._database.purge()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def upsert(connection: Connection, table: Any) -> Any:
    """An insertion into a table that may say `on_conflict_do_nothing` or `on_conflict_do_update`, which SQLAlchemy has for each
    database by itself."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert(table)
