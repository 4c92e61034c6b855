"""The online store in LMDB, a folder: no server."""

import fcntl
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EACCES, EROFS
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from zlib import crc32

from tidemill.core import Damaged, StoreError, digest_bytes
from tidemill.features.online import CHECKSUM, MARK, WHOLE, Asked, Change, Stored, checksum, named
from tidemill.features.online import is_whole as is_value_whole
from tidemill.store import store_error

log = logging.getLogger(__name__)
DAMAGED = ("InvalidError", "CorruptedError", "PageNotFoundError", "PanicError", "VersionMismatchError", "BadTxnError", "BadValsizeError")
DELETE = "start `tidemill up`, which makes it anew, or delete the folder: it is a cache"
SUM = "data.sum"  # the digest of LMDB's file
OPEN = b"open "  # instead of it: and the name of the start of the machine since which it is written
Known = tuple[bytes, bytes, bytes | None, bytes | None]  # of a space: how its keys begin, the key of its mark, what lies there, the mark
LOCK_SIZE = 8192  # of LMDB's lock file, with its default of 126 readers


class LmdbOnline:
    """LMDB in a folder: one writer, any number of reading processes, no server. Behind each value lies its checksum: LMDB has none."""

    def __init__(self, folder: Path, *, gigabytes: float = 16) -> None:
        import lmdb

        self._error, self._folder, self._open, self._users = lmdb.Error, folder, False, _opened(folder)
        self._sharing = 1  # users of this object
        self._known: dict[str, Known] = {}
        fcntl.flock(self._users, fcntl.LOCK_SH)
        try:
            with self._explained():
                _take_room(folder / "lock.mdb")
                self._size = int(gigabytes * 2**30)
                self._db = self._environment()
                self._db.reader_check()  # frees the places of readers that were killed
        except BaseException:
            self._users.close()
            raise

    def _environment(self) -> Any:
        import lmdb

        return lmdb.open(str(self._folder), map_size=self._size, max_dbs=1, sync=False, metasync=False)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Damaged:
            raise
        except OSError as error:
            raise store_error(error, str(self._folder), "the online store") from error
        except self._error as error:
            raise self._said(error) from error

    def _said(self, error: Any) -> StoreError:
        """An error of LMDB, as ours."""
        if getattr(error, "code", 0) in (EACCES, EROFS):
            return store_error(OSError(error.code, error.reason), str(self._folder), "the online store")
        kind = Damaged if type(error).__name__ in DAMAGED else StoreError
        hint = "free some space; if that is not it, delete the folder: it is a cache and is made anew"
        return kind(f"the online store cannot be used: {error}", where=str(self._folder), hint=hint)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction that writes. While the store is written it has no sum, but the name of this start of the machine."""
        if not self._open:
            (self._folder / SUM).write_bytes(OPEN + _boot())
            self._open = True
        with self._db.begin(write=True) as transaction:
            yield transaction

    def settle(self) -> None:
        """Sum the file, where no other process has it open."""
        with suppress(OSError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = self._folder / SUM
            if not known.exists() or known.read_bytes().startswith(OPEN):
                known.write_bytes(_file_sum(self._folder / "data.mdb"))
            self._open = False
        fcntl.flock(self._users, fcntl.LOCK_SH)

    @staticmethod
    def _key(space: str, entity: str) -> bytes:
        return space[:16].encode() + b"/" + named(entity)

    def get(self, space: str, entities: Sequence[str]) -> list[bytes | None]:
        with self._explained(), self._db.begin(buffers=False) as transaction:
            keys = [self._key(space, entity) for entity in entities]
            return [self._whole(key, transaction.get(key)) for key in keys]

    def mark(self, space: str) -> bytes | None:
        key = MARK + space.encode()
        with self._explained(), self._db.begin() as transaction:
            return self._whole(key, transaction.get(key))

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        found, before, names = list[Stored](), None, list[bytes]()
        try:
            with self._db.begin() as transaction:
                get, whole, sum_ = transaction.get, WHOLE, crc32
                for space, entities in asked:
                    if entities is not before:
                        before, names = entities, [named(entity) for entity in entities]
                    start, mark, before_mark, whole_mark = self._known.get(space) or self._know(space)
                    states: list[bytes | None] = []
                    for name in names:
                        key = start + name
                        data = get(key)
                        if data is None:
                            states.append(None)
                        elif sum_(data, sum_(key)) == whole:
                            states.append(data[:-CHECKSUM])
                        else:
                            raise self._damaged()
                    data = get(mark)
                    found.append((whole_mark if data == before_mark else self._read_mark(space, data), states))
        except self._error as error:
            raise self._said(error) from error
        return found

    def _know(self, space: str) -> Known:
        return self._known.setdefault(space, (self._key(space, ""), MARK + space.encode(), None, None))

    def _read_mark(self, space: str, stored: bytes | None) -> bytes | None:
        """The mark of a space, which is not the last that was read."""
        start, key, *_ = self._know(space)
        self._known[space] = (start, key, stored, self._whole(key, stored))
        return self._known[space][3]

    def update(self, space: str, entities: Sequence[str], change: Change) -> None:
        with self._explained(), self._writing() as transaction:
            start = self._key(space, "")
            keys = [MARK + space.encode(), *(start + named(entity) for entity in entities)]
            mark, *stored = [self._whole(key, transaction.get(key)) for key in keys]
            found = change(mark, stored)
            if found is None:
                return
            for key, data in [(keys[0], found[0]), *((start + named(one), data) for one, data in found[1].items())]:
                if data is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, data + checksum(key, data))

    def spaces(self) -> dict[str, bytes]:
        with self._explained(), self._db.begin() as transaction:
            cursor, found = transaction.cursor(), dict[str, bytes]()
            there = cursor.set_range(MARK)
            while there and (key := bytes(cursor.key())).startswith(MARK):
                found[key[len(MARK) :].decode()] = self._whole(key, bytes(cursor.value())) or b""
                there = cursor.next()
            return found

    def keep(self, spaces: Collection[str]) -> None:
        kept = {space[:16].encode() for space in spaces}
        with self._explained(), self._writing() as transaction:
            cursor = transaction.cursor()
            cursor.first()
            while key := cursor.key():  # empty behind the last
                if key.removeprefix(MARK)[:16] not in kept:
                    cursor.delete()  # and go on to the next
                elif key.startswith(MARK):
                    cursor.next()
                else:
                    cursor.set_range(key[:16] + b"0")  # behind all rows of a space that is kept: "0" follows "/"

    def purge(self) -> bool:
        """Write the file anew without its free pages. False where somebody else has it open, who would go on with the old one."""
        if self._sharing > 1:
            return False
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._users, fcntl.LOCK_SH)
            return False
        try:
            with self._explained(), TemporaryDirectory(prefix=".purge-", dir=self._folder) as aside:
                self._db.copy(aside, compact=True)
                self._db.close()
                (self._folder / SUM).unlink(missing_ok=True)
                Path(aside, "data.mdb").replace(self._folder / "data.mdb")
                (self._folder / SUM).write_bytes(_file_sum(self._folder / "data.mdb"))
                self._open, self._known = False, {}
                self._db = self._environment()
        finally:
            fcntl.flock(self._users, fcntl.LOCK_SH)
        return True

    def _whole(self, key: bytes, stored: bytes | None) -> bytes | None:
        """A value as it was written; raises Damaged for another."""
        if stored is None:
            return None
        if not is_value_whole(key, stored):
            raise self._damaged()
        return stored[:-CHECKSUM]

    def _damaged(self) -> Damaged:
        return Damaged("the online store is damaged: a value is not what was written", where=str(self._folder), hint=DELETE)

    def share(self) -> bool:
        """Let one more user close it; not one that is closed."""
        self._sharing += not self._users.closed
        return not self._users.closed

    def close(self) -> None:
        """Close the environment with its last user; a second time changes nothing."""
        self._sharing -= 1
        if self._sharing < 1 and not self._users.closed:
            self._db.close()
            self.settle()
            self._users.close()


def open_folder(folder: Path) -> LmdbOnline:
    """The store in a folder. One that is damaged is begun anew, and one that was open when the machine went down, unless another process
    has it open, which saw to that."""
    with _opened(folder) as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        try:
            if alone and not is_whole(folder):
                _renew(folder, "the machine went down while it was written")
            fcntl.flock(users, fcntl.LOCK_SH)
            found = LmdbOnline(folder)
            found.spaces()  # of a file that others write to there is no sum
            return found
        except Damaged as error:
            _renew(folder, error.what)  # who has it open goes on with the old file
            fcntl.flock(users, fcntl.LOCK_SH)
            return LmdbOnline(folder)


def _opened(folder: Path) -> BinaryIO:
    """The file that every process locks while it has the store open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / "open.lock").open("ab")
    except OSError as error:
        raise store_error(error, str(folder), "the online store") from error


def _renew(folder: Path, why: str) -> None:
    """Begin a store anew that cannot be trusted."""
    log.warning("online_store=%s begun_anew=true error=%s", folder, why)
    for name in ("data.mdb", "lock.mdb", SUM):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, str(folder), "the online store") from error


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
            return written != OPEN and written == OPEN + _boot()
        same = written == _file_sum(file)
    except OSError as error:
        hint = "give this user the right to read it, or delete the folder: it is a cache"
        raise StoreError(f"the online store cannot be read: {error.strerror or error}", where=str(folder), hint=hint) from error
    if not same:
        raise Damaged("the online store is damaged: its file is not what was written", where=str(folder), hint=DELETE)
    return True


def _boot() -> bytes:
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
