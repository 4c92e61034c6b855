"""The online store in LMDB, a folder: no server."""

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EACCES, EROFS
from mmap import ACCESS_READ, mmap
from pathlib import Path

from tidemill.core import Damaged, StoreError, digest_bytes
from tidemill.features.online import CHECKSUM, MARK, checksum
from tidemill.store import store_error

log = logging.getLogger(__name__)
DAMAGED = ("InvalidError", "CorruptedError", "PageNotFoundError", "PanicError", "VersionMismatchError", "BadTxnError", "BadValsizeError")
DELETE = "start `tidemill up`, which makes it anew, or delete the folder: it is a cache"
SUM = "data.sum"  # the digest of LMDB's file
LOCK_SIZE = 8192  # of LMDB's lock file, with its default of 126 readers


class LmdbOnline:
    """LMDB in a folder: one writer, any number of reading processes, no server. Behind each value lies its checksum: LMDB has none."""

    def __init__(self, folder: Path, *, gigabytes: float = 16) -> None:
        import lmdb

        self._error, self._folder = lmdb.Error, folder
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            _take_room(folder / "lock.mdb")
            self._db: lmdb.Environment = lmdb.open(str(folder), map_size=int(gigabytes * 2**30), max_dbs=1, sync=False, metasync=False)
            self._db.reader_check()  # frees the places of readers that were killed

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Damaged:
            raise
        except OSError as error:
            raise store_error(error, str(self._folder), "the online store") from error
        except self._error as error:
            if getattr(error, "code", 0) in (EACCES, EROFS):
                raise store_error(OSError(error.code, error.reason), str(self._folder), "the online store") from error
            kind = Damaged if type(error).__name__ in DAMAGED else StoreError
            hint = "free some space; if that is not it, delete the folder: it is a cache and is made anew"
            raise kind(f"the online store cannot be used: {error}", where=str(self._folder), hint=hint) from error

    @contextmanager
    def _summed(self) -> Iterator[None]:
        """The sum of the file, gone while it is written. Without one the next start begins anew: that is all that a full disk does here."""
        (self._folder / SUM).unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                (self._folder / SUM).write_bytes(_file_sum(self._folder / "data.mdb"))

    @staticmethod
    def _key(version: str, entity: str) -> bytes:
        text = entity.encode()
        return version[:16].encode() + b"/" + (text if len(text) < 400 else digest_bytes(text).encode())  # LMDB takes 511 bytes

    def get(self, version: str, entities: Sequence[str]) -> list[bytes | None]:
        with self._explained(), self._db.begin(buffers=False) as transaction:
            keys = [self._key(version, entity) for entity in entities]
            return [self._whole(key, transaction.get(key)) for key in keys]

    def watermark(self, version: str) -> int | None:
        with self._explained(), self._db.begin() as transaction:
            mark = MARK + version.encode()
            found = self._whole(mark, transaction.get(mark))
        return int.from_bytes(found, "little", signed=True) if found else None

    def write(self, version: str, rows: Iterable[tuple[str, bytes]], watermark: int) -> None:
        mark = MARK + version.encode()
        with self._explained(), self._summed(), self._db.begin(write=True) as transaction:
            found = self._whole(mark, transaction.get(mark))
            if found and int.from_bytes(found, "little", signed=True) > watermark:
                return
            for entity, data in rows:
                key = self._key(version, entity)
                transaction.put(key, data + checksum(key, data))
            data = watermark.to_bytes(8, "little", signed=True)
            transaction.put(mark, data + checksum(mark, data))

    def keep(self, versions: Collection[str]) -> None:
        kept = {version[:16].encode() for version in versions}
        with self._explained(), self._summed(), self._db.begin(write=True) as transaction:
            cursor = transaction.cursor()
            cursor.first()
            while key := cursor.key():  # empty behind the last
                if key.removeprefix(MARK)[:16] not in kept:
                    cursor.delete()  # and go on to the next
                elif key.startswith(MARK):
                    cursor.next()
                else:
                    cursor.set_range(key[:16] + b"0")  # behind all rows of a version that is kept: "0" follows "/"

    def _whole(self, key: bytes, stored: bytes | None) -> bytes | None:
        """A value as it was written; raises Damaged for another."""
        if stored is None:
            return None
        if stored[-CHECKSUM:] != checksum(key, stored[:-CHECKSUM]):
            raise Damaged("the online store is damaged: a value is not what was written", where=str(self._folder), hint=DELETE)
        return stored[:-CHECKSUM]

    def close(self) -> None:
        """Close the environment."""
        self._db.close()


def open_folder(folder: Path) -> LmdbOnline:
    """The store in a folder. One that is damaged, or whose last writer did not come to its end, is begun anew."""
    try:
        if not is_whole(folder):
            log.warning("online_store=%s begun_anew=true error=its last write was cut short", folder)
            _drop(folder)
        return LmdbOnline(folder)
    except Damaged as error:
        log.warning("online_store=%s begun_anew=true error=%s", folder, error.what)
        _drop(folder)
        return LmdbOnline(folder)


def _drop(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise store_error(error, str(folder), "the online store") from error


def is_whole(folder: Path) -> bool:
    """Whether the store was written to its end; without one, yes. Raises Damaged where its file is another than was written: LMDB is not
    asked, for it reads beyond the end of a damaged page, which can kill the process. Raises StoreError where it cannot be read."""
    file, known = folder / "data.mdb", folder / SUM
    try:
        if not file.exists():
            return True
        written = known.read_bytes() if known.exists() else b""
        same = not written or written == _file_sum(file)
    except OSError as error:
        hint = "give this user the right to read it, or delete the folder: it is a cache"
        raise StoreError(f"the online store cannot be read: {error.strerror or error}", where=str(folder), hint=hint) from error
    if not same:
        raise Damaged("the online store is damaged: its file is not what was written", where=str(folder), hint=DELETE)
    return bool(written)


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
