"""The folder of an online store in LMDB: open but once in a process, however many use it, summed by who is alone with it, and begun anew
where it cannot be trusted."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EROFS
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any, BinaryIO
from weakref import finalize

from tidemill.core import Damaged, StoreError, TidemillError, digest_bytes
from tidemill.features.online import CHECKSUM, MARK
from tidemill.features.online import is_whole as is_value_whole
from tidemill.store import store_error

log = logging.getLogger(__name__)
DAMAGED = ("InvalidError", "CorruptedError", "PageNotFoundError", "PanicError", "VersionMismatchError", "BadTxnError", "BadValsizeError")
DELETE = "start `tidemill up`, which makes it anew, or delete the folder: it is a cache"
SPACE = "free some space; if that is not it, delete the folder: it is a cache and is made anew"
FULL = "raise store.online_gigabytes in tidemill.toml, and start again what has the store open"
SUM = "data.sum"  # the digest of LMDB's file
OPEN = b"open "  # instead of it: and the name of the start of the machine since which it is written
LOCK_SIZE = 8192  # of LMDB's lock file, with its default of 126 readers
GUARD = RLock()  # of whoever opens, writes, sums or closes in this process, and of whoever forks it


class Folder:
    """What a process has open of a store; `db` is LMDB's environment.

    `open.lock` is locked (shared) by every process for as long as it has the store open. To find out whether it is alone, a process tries
    to lock it for itself, and so lets its own lock go for a moment: only who holds `alone.lock` does that, or opens the store."""

    def __init__(self, path: Path, gigabytes: float) -> None:
        self.path, self.users = path, set[object]()
        self._size, self._written = int(gigabytes * 2**30), False
        self.db: Any = self._open()

    def _open(self) -> Any:
        """Open it. One that is damaged is begun anew, and one that was open when the machine went down, unless another process has it open,
        which saw to that."""
        self._here, self._turn = _opened(self.path / "open.lock"), _opened(self.path / "alone.lock")
        try:
            with explained(self.path), self._looking() as alone:
                why = _distrust(self.path) if alone else ""
                if not why:
                    try:
                        return self._environment()
                    except Damaged as error:
                        why = error.what
                _renew(self.path, why)  # who has it open goes on with the old file
                return self._environment()
        except BaseException:
            self._here.close()
            self._turn.close()
            raise

    def _environment(self) -> Any:
        """LMDB's, whose marks are whole. A reader that is kept for the next read would be one of two processes after a fork."""
        import lmdb

        _take_room(self.path / "lock.mdb")
        found = lmdb.open(str(self.path), map_size=self._size, max_dbs=1, sync=False, metasync=False, max_spare_txns=0)
        try:
            with explained(self.path):
                found.reader_check()  # frees the places of readers that were killed
                with found.begin() as transaction:
                    self.marks(transaction)  # of a file that others write to there is no sum
            return found
        except BaseException:
            found.close()
            raise

    @contextmanager
    def _looking(self) -> Iterator[bool]:
        """Whether no other process has it open; none opens it meanwhile."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            try:
                fcntl.flock(self._here, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            yield alone
        finally:
            fcntl.flock(self._here, fcntl.LOCK_SH)
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction that writes. While the store is written it has no sum, but the name of this start of the machine."""
        with GUARD, explained(self.path), self.db.begin(write=True) as transaction:
            if not self._written:
                (self.path / SUM).write_bytes(OPEN + boot())
                self._written = True
            yield transaction

    def settle(self) -> None:
        """Sum the file, where no other process has it open."""
        with GUARD, suppress(OSError):
            if not self._here.closed:
                with self._looking() as alone:
                    if alone:
                        self._sum()

    def _sum(self) -> None:
        known = self.path / SUM
        if not known.exists() or known.read_bytes().startswith(OPEN):
            known.write_bytes(_file_sum(self.path / "data.mdb"))
        self._written = False

    def purge(self) -> bool:
        """Write the file anew without its free pages. False where somebody else has it open, who would go on with the old one."""
        with GUARD, explained(self.path):
            copy = self.db.copy
            with self._looking() as alone:
                if not alone or len(self.users) > 1:
                    return False
                with TemporaryDirectory(prefix=".purge-", dir=self.path) as aside:
                    copy(aside, compact=True)
                    self.db.close()
                    try:
                        (self.path / SUM).unlink(missing_ok=True)
                        Path(aside, "data.mdb").replace(self.path / "data.mdb")
                        self._sum()
                    finally:
                        self.db = self._environment()
        return True

    def marks(self, transaction: Any) -> dict[str, bytes]:
        """The mark of each space."""
        cursor, found = transaction.cursor(), dict[str, bytes]()
        there = cursor.set_range(MARK)
        while there and (key := bytes(cursor.key())).startswith(MARK):
            found[key[len(MARK) :].decode()] = self.whole(key, bytes(cursor.value())) or b""
            there = cursor.next()
        return found

    def whole(self, key: bytes, stored: bytes | None) -> bytes | None:
        """A value as it was written; raises Damaged for another."""
        if stored is None:
            return None
        if not is_value_whole(key, stored):
            raise self.damaged()
        return stored[:-CHECKSUM]

    def damaged(self) -> Damaged:
        """The error for a value that is not what was written."""
        return Damaged("the online store is damaged: a value is not what was written", where=str(self.path), hint=DELETE)

    def close(self) -> None:
        """Close the environment, and sum the file."""
        with GUARD:
            if not self._here.closed:
                self.db.close()
                self.settle()
                self._let_go(self._closed)

    def forked(self) -> None:
        """In a child: let go of what is its parent's, and open it again when it is asked for."""
        if not self._here.closed:
            self.db.close()
            self._let_go(self._again)
        self._written = False

    def _let_go(self, instead: Callable[[], Any]) -> None:
        """Close the files; whoever asks for the environment is given what `instead` gives."""
        self.db = _Away(instead)
        self._here.close()
        self._turn.close()

    def _again(self) -> Any:
        with GUARD:
            if self._here.closed:
                self.db = self._open()
            return self.db

    def _closed(self) -> Any:
        raise StoreError("the online store is closed", where=str(self.path), hint="open it again")


class _Away:
    """In the place of an environment that is not open."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self._give = give

    def __getattr__(self, name: str) -> Any:
        return getattr(self._give(), name)


_OPEN = dict[str, Folder]()  # LMDB lets a process open a folder but once


def entered(user: object, path: Path, gigabytes: float) -> tuple[Folder, Callable[[], object]]:
    """The store in a folder for one more user, and what lets it go again; that happens too when the user is forgotten, and at the end of
    the process. The size is that of who opened it first. Raises StoreError."""
    key, one = os.path.realpath(path), object()
    with GUARD:
        folder = _OPEN.get(key)
        if folder is not None:
            folder.users.add(one)
        if folder is None or _OPEN.get(key) is not folder:  # its last user was forgotten just now
            folder = Folder(path, gigabytes)
            folder.users.add(one)
            _OPEN[key] = folder
    return folder, finalize(user, _leave, key, folder, one)


def _leave(key: str, folder: Folder, one: object) -> None:
    with GUARD:
        folder.users.discard(one)
        if not folder.users and _OPEN.get(key) is folder:
            del _OPEN[key]
            folder.close()


def _forked() -> None:
    """What a child may not use is its parent's."""
    for folder in _OPEN.values():
        folder.forked()
    GUARD.release()


os.register_at_fork(before=GUARD.acquire, after_in_parent=GUARD.release, after_in_child=_forked)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise errors of LMDB and of the disk as ours."""
    import lmdb

    try:
        yield
    except TidemillError:
        raise
    except OSError as error:
        raise store_error(error, str(path), "the online store") from error
    except lmdb.Error as error:
        raise said(error, path) from error


def said(error: Any, path: Path) -> StoreError:
    """An error of LMDB, as ours."""
    if getattr(error, "code", 0) in (EACCES, EROFS):
        return store_error(OSError(error.code, error.reason), str(path), "the online store")
    name = type(error).__name__
    hint = FULL if name == "MapFullError" else SPACE
    return (Damaged if name in DAMAGED else StoreError)(f"the online store cannot be used: {error}", where=str(path), hint=hint)


def _opened(file: Path) -> BinaryIO:
    """A file to lock."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("ab")
    except OSError as error:
        raise store_error(error, str(file.parent), "the online store") from error


def _distrust(path: Path) -> str:
    """Why a store that nobody has open cannot be trusted, if so."""
    try:
        return "" if is_whole(path) else "the machine went down while it was written"
    except Damaged as error:
        return error.what


def _renew(path: Path, why: str) -> None:
    """Begin a store anew that cannot be trusted."""
    log.warning("online_store=%s begun_anew=true error=%s", path, why)
    for name in ("data.mdb", "lock.mdb", SUM):
        (path / name).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Whether the store is what was written; without one, yes. A writer that was killed leaves whole transactions, but not a machine that
    went down. Raises Damaged where its file is another than was written: LMDB is not asked, for it reads beyond the end of a damaged
    page, which can kill the process. Raises StoreError where it cannot be read."""
    file, known = folder / "data.mdb", folder / SUM
    try:
        if not file.exists():
            return True
        written = known.read_bytes() if known.exists() else OPEN
        if written.startswith(OPEN):
            return written != OPEN and written == OPEN + boot()
        same = written == _file_sum(file)
    except OSError as error:
        hint = "give this user the right to read it, or delete the folder: it is a cache"
        raise StoreError(f"the online store cannot be read: {error.strerror or error}", where=str(folder), hint=hint) from error
    if not same:
        raise Damaged("the online store is damaged: its file is not what was written", where=str(folder), hint=DELETE)
    return True


def boot() -> bytes:
    """The name of this start of the machine, where it has one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def _file_sum(file: Path) -> bytes:
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:  # nothing cannot be mapped
            return digest_bytes(b"").encode()
        with mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
            return digest_bytes(memoryview(data)).encode()


def _take_room(lock: Path) -> None:
    """Let a full disk refuse LMDB's lock file here: LMDB writes it through a map, and a process that finds no room for that is killed."""
    taken = lock.exists() and lock.stat().st_blocks * 512 >= LOCK_SIZE  # of an open store the file must not be closed a second time
    if not taken and hasattr(os, "posix_fallocate"):  # a Mac has not
        with lock.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, LOCK_SIZE)
