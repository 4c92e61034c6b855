"""Records: rows in SQL through SQLAlchemy Core. SQLite in a file or in memory; each stage brings its own tables.

`begin()` is one transaction that others see whole or not at all; `read()` never waits for a writer (write-ahead log).
A commit survives the end of the process, and with `synchronous=FULL`, which is set, the loss of power.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from tidemill.core import Busy, Damaged, MissingFile, StoreError

FORMAT = 1
metadata = MetaData()


def _explain(error: BaseException, where: str) -> StoreError:
    said = str(getattr(error, "orig", error))
    if "malformed" in said or "not a database" in said or "corrupt" in said:
        hint = "restore records.db from a backup, or move it away and run again: what can be computed again will be"
        return Damaged(f"the ledger file is damaged: {said}", where=where, hint=hint)
    if "locked" in said:
        hint = "wait until it is done; `tidemill status` names the writer"
        return Busy(f"another process is writing to the records: {said}", where=where, hint=hint)
    hints = {"full": "free some space; nothing acknowledged was lost", "readonly": "give this user the right to write there"}
    hints |= {"unable to open": "the folder must be there, and this user may need the right to write there"}
    hint = next((hint for word, hint in hints.items() if word in said), "run `tidemill doctor`")
    return StoreError(f"the records cannot be used: {said}", where=where, hint=hint)


def _may_write(path: Path) -> bool:
    return os.access(path.parent, os.W_OK)


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    """A connection. SQLite readers share a file beside the database; where they cannot make it and no writer is open, there is
    nothing to share."""
    mode = "mode=ro" if read_only else "mode=rwc"
    if read_only and not _may_write(path) and not path.with_name(f"{path.name}-wal").exists():
        mode += "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=30, check_same_thread=False)


def _engine(path: Path | None, read_only: bool) -> Engine:
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        pool = QueuePool if _may_write(path) or not read_only else NullPool  # a writer may come: look anew each time
        engine = create_engine("sqlite://", creator=lambda: _open(path, read_only), poolclass=pool)

    @event.listens_for(engine, "connect")
    def settings(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        for pragma in ("busy_timeout=30000", "foreign_keys=on", *([] if read_only else ["journal_mode=wal", "synchronous=full"])):
            connection.execute(f"pragma {pragma}")

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
        self.engine.dispose()
