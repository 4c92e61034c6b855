"""Blobs: bytes named by their digest, in a folder or in memory. What is read is what was written, or `Damaged`."""

import mmap
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Protocol

from tidemill.core import Damaged, MissingFile, StoreError, digest_bytes, store_error

DAMAGED = "restore it from a backup; without one, delete it and run again: what data and code of now give again is made"

_HOST = re.sub(r"[^\w.]", "_", socket.gethostname())
_DIGEST = re.compile("[0-9a-f]{8,64}")
PIECE = 2**22  # bytes of a file that are read at once
_ABANDONED = 86_400.0  # seconds after which nobody on another machine is still at it


class Part(Protocol):
    """A blob that comes in pieces."""

    def write(self, data: bytes | memoryview) -> None:
        """One more piece; raises StoreError when the disk refuses."""

    def keep(self, *, synced: bool = False) -> tuple[str, int]:
        """Store what was written; returns its digest and size, also when it is asked again. It survives the end of the process; a loss of
        power may take it, unless it is `synced`."""

    def discard(self) -> None:
        """Forget what was written. After `keep` this does nothing."""


class Blobs(Protocol):
    """A dozen bytes' worth of verbs; `tests/store/test_blobs.py` is the acceptance suite for every implementation."""

    def put(self, data: bytes) -> str:
        """Store bytes; returns their digest. Storing them again changes nothing."""

    def part(self) -> Part:
        """A new blob that comes in pieces, in constant memory where that can be."""

    def get(self, digest: str) -> memoryview:
        """The bytes of a digest, without copying where that can be; raises MissingFile and Damaged."""

    def path(self, digest: str) -> Path:
        """A file with the bytes of a digest, for engines that read files themselves; raises MissingFile and Damaged."""

    def has(self, digest: str) -> bool:
        """Whether the digest is stored."""

    def delete(self, digest: str) -> None:
        """Remove a blob if it is there."""

    def discard(self, digest: str, before: int) -> int | None:
        """Remove a blob that nobody has stored, or stored again, since `before` (microseconds UTC); returns its size, None where it stays.
        Who stores it at the same moment keeps it."""

    def digests(self) -> Iterator[str]:
        """All that is stored."""

    def verify(self, digest: str) -> None:
        """Read a blob whole and compare; raises MissingFile and Damaged."""

    def sweep(self) -> None:
        """Remove what killed writers left half written."""


def put_file(blobs: Blobs, file: Path) -> str:
    """Store a file as `put` does, in constant memory; returns its digest."""
    with file.open("rb") as opened:
        return put_pieces(blobs, iter(partial(opened.read, PIECE), b""))


def put_pieces(blobs: Blobs, pieces: Iterable[bytes | memoryview]) -> str:
    """Store what comes in pieces as `put` does; returns its digest."""
    part = blobs.part()
    try:
        for piece in pieces:
            part.write(piece)
        return part.keep(synced=True)[0]
    finally:
        part.discard()


def _missing(digest: str) -> MissingFile:
    hint = "`tidemill run` (or `replay`, where that serves) makes it again if data and code are still those; if not, restore a backup"
    return MissingFile(f"blob {digest[:12]} is not stored", hint=hint)


def _part_name() -> str:
    """How the name of a file begins that this process is writing."""
    return f".part-{os.getpid()}-{_HOST}-"


def _clock_of(folder: Path) -> float:
    """What time it is for the disk, in seconds: the only clock that machines which share it have in common."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=_part_name()) as file:
        return os.fstat(file.fileno()).st_mtime


def _alive(path: Path) -> bool:
    """Whether the process that writes a file `.part-PID-HOST-…` still runs; a server may take uploads while others write. Of processes on
    other machines only the age of what they wrote last is known."""
    try:
        _, pid, host, _ = path.name.split("-")
        if host != _HOST:
            return path.stat().st_mtime > _clock_of(path.parent) - _ABANDONED
        os.kill(int(pid), 0)
    except (ValueError, FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


class _MemoryPart:
    """Pieces in memory."""

    def __init__(self, blobs: "MemoryBlobs") -> None:
        self._blobs, self._data = blobs, bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data

    def keep(self, *, synced: bool = False) -> tuple[str, int]:
        return self._blobs.put(bytes(self._data)), len(self._data)

    def discard(self) -> None:
        self._data.clear()


def disk_is_full(where: str) -> bool:
    """Whether a user may write nothing more to the disk of a file or folder."""
    try:
        return os.statvfs(Path(where).parent).f_bavail == 0
    except OSError:  # it is not there
        return False


class MemoryBlobs:
    """Blobs that end with the process."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._writing = Lock()

    def put(self, data: bytes) -> str:
        digest = digest_bytes(data)
        self._data[digest] = data
        return digest

    def part(self) -> Part:
        return _MemoryPart(self)

    def get(self, digest: str) -> memoryview:
        if digest not in self._data:
            raise _missing(digest)
        return memoryview(self._data[digest])

    def path(self, digest: str) -> Path:
        data = self.get(digest)
        with self._writing:  # steps that run side by side ask for the same file
            self._files = self._files or tempfile.TemporaryDirectory(prefix="tidemill-blobs-")
            path = Path(self._files.name) / digest
            if not path.exists():
                path.write_bytes(data)
        return path

    def has(self, digest: str) -> bool:
        return digest in self._data

    def delete(self, digest: str) -> None:
        self._data.pop(digest, None)

    def discard(self, digest: str, before: int) -> int | None:
        """Memory knows no times: what is there goes."""
        found = self._data.pop(digest, None)
        return None if found is None else len(found)

    def digests(self) -> Iterator[str]:
        return iter(list(self._data))

    def verify(self, digest: str) -> None:
        if digest_bytes(self.get(digest)) != digest:
            raise Damaged(f"blob {digest[:12]} is not what was written", hint=DAMAGED)

    def sweep(self) -> None:
        """Here nothing is ever half written."""


def _touched(place: str) -> bool:
    """Whether a blob is there; if so, it counts as stored now, and no sweep takes it that began before."""
    try:
        os.utime(place)
    except FileNotFoundError:
        return False
    except OSError:  # a disk for reading only: nothing sweeps there
        return True
    return True


def _holds(place: str, data: bytes) -> bool:
    """Whether a small file holds these bytes: a loss of power may have left it short or empty, and then it is written again."""
    try:
        with open(place, "rb", buffering=0) as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False


def _is_whole(place: str, digest: str) -> bool:
    """Whether a file is there, and has the bytes of a digest."""
    try:
        with open(place, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return digest_bytes(memoryview(view)) == digest
    except (OSError, ValueError):  # an empty file has no map
        return False


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _FilePart:
    """Pieces in a file of its own, which takes its place by its digest. What is small never gets one before.

    Plain strings and few system calls: a server takes thousands of small files.
    """

    SMALL = 1 << 16

    def __init__(self, folder: Path) -> None:
        self._folder, self._head, self._file, self._aside, self._size = str(folder), bytearray(), -1, "", 0
        self._kept = ""  # the digest, once it is

    def write(self, data: bytes | memoryview) -> None:
        data = memoryview(data).cast("B")
        self._size += len(data)
        if self._file < 0:
            self._head += data
            if len(self._head) <= self.SMALL:
                return
            data = bytes(self._head)
        try:
            self._put(data, self._folder)
        except OSError as error:
            self.discard()
            raise store_error(error, self._folder) from error

    def _put(self, data: bytes | memoryview, folder: str) -> None:
        if self._file < 0:
            self._aside = f"{folder}/{_part_name()}{os.urandom(8).hex()}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._file = os.open(self._aside, flags, 0o644)
            except FileNotFoundError:
                os.makedirs(folder, exist_ok=True)
                self._file = os.open(self._aside, flags, 0o644)
            os.fchmod(self._file, 0o644)  # whatever the mask says
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def keep(self, *, synced: bool = False) -> tuple[str, int]:
        if self._kept:
            return self._kept, self._size
        try:
            self._kept = self._stored(synced=synced)
        except OSError as error:
            raise store_error(error, self._folder) from error
        finally:
            self.discard()
        return self._kept, self._size

    def _stored(self, *, synced: bool) -> str:
        if self._file < 0:
            head = bytes(self._head)
            digest = digest_bytes(head)
            place = self._place(digest)
            if not synced and _touched(place) and _holds(place, head):
                return digest
            self._put(head, os.path.dirname(place))  # where it stays: ext4 crowds the new files of one folder
        else:
            with mmap.mmap(self._file, self._size, access=mmap.ACCESS_READ) as view:
                digest = digest_bytes(memoryview(view))
            place = self._place(digest)
            if synced and _is_whole(place, digest) and _touched(place):
                return digest
        if synced:
            os.fsync(self._file)
        self._move(place)
        if synced:
            _sync(os.path.dirname(place))  # the name survives too
        return digest

    def _place(self, digest: str) -> str:
        return f"{self._folder}/{digest[:2]}/{digest[2:]}"

    def _move(self, place: str) -> None:
        try:
            os.replace(self._aside, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.replace(self._aside, place)
        self._aside = ""

    def discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._aside:
                os.unlink(self._aside)


class FolderBlobs:
    """Blobs as files `ab/cdef…` below a folder. A file appears whole or not at all: written aside, synced, renamed.

    What is read is compared with its digest the first time (0.2 s for a GiB), what is small each time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: set[str] = set()

    def _path(self, digest: str) -> Path:
        return Path(self._place(digest))

    def _place(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):  # a digest may come from outside: it must not lead out of the folder
            raise _missing(digest)
        return f"{self.folder}/{digest[:2]}/{digest[2:]}"

    def put(self, data: bytes) -> str:
        digest = digest_bytes(data)
        path = self._path(digest)
        with suppress(MissingFile, StoreError):  # what is damaged is written again
            self.verify(digest)
            if _touched(str(path)):
                return digest
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
        except OSError as error:
            raise store_error(error, str(path)) from error
        return digest

    def part(self) -> Part:
        return _FilePart(self.folder)

    def _write(self, path: Path, data: bytes) -> None:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=_part_name())
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o644)  # other users may read, if the folder lets them
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(path)
            _sync(str(path.parent))  # the name survives the loss of power too
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def get(self, digest: str) -> memoryview:
        view = self._view(digest)
        if len(view) <= _FilePart.SMALL or digest not in self._sound:
            self._compare(digest, view)
        return view

    def _view(self, digest: str) -> memoryview:
        try:
            file = os.open(self._place(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                small = size <= _FilePart.SMALL
                return memoryview(os.read(file, size) if small else mmap.mmap(file, size, access=mmap.ACCESS_READ))
            finally:
                os.close(file)
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise StoreError(
                f"blob {digest[:12]} cannot be read: {error.strerror}", where=str(self.folder), hint="look at the disk"
            ) from error

    def _compare(self, digest: str, view: memoryview) -> None:
        if digest_bytes(view) != digest:
            self._sound.discard(digest)
            raise Damaged(
                f"blob {digest[:12]} is not what was written",
                where=str(self._path(digest)),
                hint=DAMAGED,
            )
        self._sound.add(digest)

    def path(self, digest: str) -> Path:
        path = self._path(digest)
        if digest not in self._sound or not path.exists():
            self.get(digest)
        return path

    def has(self, digest: str) -> bool:
        with suppress(MissingFile):
            return self._path(digest).exists()
        return False

    def delete(self, digest: str) -> None:
        try:
            self._path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, str(self._path(digest))) from error

    def discard(self, digest: str, before: int) -> int | None:
        path = self._path(digest)
        aside = path.with_name(f"{_part_name()}{os.urandom(8).hex()}")
        try:
            if path.stat().st_mtime_ns // 1000 >= before:
                return None
            path.rename(aside)  # from here on nobody can say that it is there, so its time is the last
            found = aside.stat()
            if found.st_mtime_ns // 1000 >= before:
                aside.rename(path)
                return None
            aside.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, str(path)) from error
        self._sound.discard(digest)
        return found.st_size

    def digests(self) -> Iterator[str]:
        for path in sorted(self.folder.glob("??/*")):
            if not path.name.startswith(".part-"):
                yield path.parent.name + path.name

    def verify(self, digest: str) -> None:
        self._compare(digest, self._view(digest))

    def sweep(self) -> None:
        try:
            for path in (*self.folder.glob(".part-*"), *self.folder.glob("??/.part-*")):
                if not _alive(path):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, str(self.folder)) from error
