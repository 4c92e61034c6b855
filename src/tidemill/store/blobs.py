"""Blobs: bytes named by their digest, in a folder or in memory. What is read is what was written, or `Damaged`."""

import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Protocol

from tidemill.core import Damaged, MissingFile, StoreError, digest_bytes


class Blobs(Protocol):
    """A dozen bytes' worth of verbs; `tests/store/test_blobs.py` is the acceptance suite for every implementation."""

    def put(self, data: bytes) -> str:
        """Store bytes; returns their digest. Storing them again changes nothing."""

    def get(self, digest: str) -> memoryview:
        """The bytes of a digest, without copying where that can be; raises MissingFile."""

    def path(self, digest: str) -> Path:
        """A file with the bytes of a digest, for engines that read files themselves; raises MissingFile."""

    def has(self, digest: str) -> bool:
        """Whether the digest is stored."""

    def delete(self, digest: str) -> None:
        """Remove a blob if it is there."""

    def digests(self) -> Iterator[str]:
        """All that is stored."""

    def verify(self, digest: str) -> None:
        """Read a blob whole and compare; raises Damaged."""


def _missing(digest: str) -> MissingFile:
    return MissingFile(f"blob {digest[:12]} is not stored", hint="run the command again: what can be computed again will be")


def store_error(error: OSError, where: str) -> StoreError:
    """What the disk refused, in words that help."""
    hints = {
        28: "free some space; nothing acknowledged was lost",
        30: "the disk is read-only: mount it for writing",
        13: "give this user the right to write",
    }
    return StoreError(f"cannot write: {error.strerror or error}", where=where, hint=hints.get(error.errno or 0, "look at the disk"))


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

    def digests(self) -> Iterator[str]:
        return iter(list(self._data))

    def verify(self, digest: str) -> None:
        if digest_bytes(self.get(digest)) != digest:
            raise Damaged(f"blob {digest[:12]} is not what was written", hint="delete it and run again: it is computed anew")


class FolderBlobs:
    """Blobs as files `ab/cdef…` below a folder. A file appears whole or not at all: written aside, synced, renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, digest: str) -> Path:
        if not re.fullmatch("[0-9a-f]{8,64}", digest):  # a digest may come from outside: it must not lead out of the folder
            raise _missing(digest)
        return self.folder / digest[:2] / digest[2:]

    def put(self, data: bytes) -> str:
        digest = digest_bytes(data)
        path = self._path(digest)
        try:
            if path.exists() and path.stat().st_size == len(data):
                return digest
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
        except OSError as error:
            raise store_error(error, str(path)) from error
        return digest

    def _write(self, path: Path, data: bytes) -> None:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o644)  # other users may read, if the folder lets them
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name survives the loss of power too
            finally:
                os.close(folder)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def get(self, digest: str) -> memoryview:
        try:
            with self._path(digest).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise StoreError(
                f"blob {digest[:12]} cannot be read: {error.strerror}", where=str(self.folder), hint="look at the disk"
            ) from error

    def path(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.exists():
            raise _missing(digest)
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

    def digests(self) -> Iterator[str]:
        for path in sorted(self.folder.glob("??/*")):
            if not path.name.startswith(".part-"):
                yield path.parent.name + path.name

    def verify(self, digest: str) -> None:
        if digest_bytes(self.get(digest)) != digest:
            raise Damaged(
                f"blob {digest[:12]} is not what was written",
                where=str(self._path(digest)),
                hint="delete the file and run again: it is computed anew",
            )
