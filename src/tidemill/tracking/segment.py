"""A segment: what one process logs to a run, as an append-only file that outlives the process and waits to be shipped.

Format 1, little-endian: the magic, then frames. A metric's frame has 32 bytes: kind, number of the name, instant (µs since 1970), step,
value. Every other frame is kind, length and CRC-32 of a JSON text: the head (what run, where it goes), the name behind a number,
and what else was logged. A frame that the end of the process cut short is not there; nothing after it is.
"""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Annotated, Any, Literal

import msgspec

from tidemill.core import Damaged, DataError, StoreError

MAGIC = b"TIDE\x01\x00\x00\x00"
METRIC, NAME, EVENT = 1, 2, 3
_METRIC, _TEXT = struct.Struct("<BxxxIqqd"), struct.Struct("<BxxxII")
_WINDOW = 4096  # metrics that are looked for at once
_ZEROS = 4096
_HINT = "what stands before it was read"
HELD = 64 << 20  # bytes that are kept in memory while the disk refuses

pack_metric = _METRIC.pack
Point = tuple[int, int, int, float]  # number of the name, µs, step, value


Instant = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]  # µs since 1970


class Head(msgspec.Struct, tag_field="log", tag="head"):
    """What a segment belongs to: the run, what it is called, and where it goes. Only the first segment of a run tells its end."""

    run: str
    to: str  # a project's folder, or a server's address
    at: Instant
    experiment: str = ""
    name: str = ""
    who: str = ""
    host: str = ""
    pid: int = 0
    first: bool = True


class Params(msgspec.Struct, tag_field="log", tag="params"):
    """Parameters, as text."""

    values: dict[str, str]


class Tags(msgspec.Struct, tag_field="log", tag="tags"):
    """Tags, in place of what was there."""

    values: dict[str, str]


class Input(msgspec.Struct, tag_field="log", tag="input"):
    """Data that the run reads; `ref` is that of a thing of the project."""

    name: str
    digest: str
    source: str
    type: str
    context: str
    ref: str = ""


class Captured(msgspec.Struct, tag_field="log", tag="captured"):
    """What was captured without a call."""

    tags: dict[str, str]
    environment: dict[str, Any]
    seeds: dict[str, str]
    diff: str


class File(msgspec.Struct, tag_field="log", tag="file"):
    """A file of the run's artifacts, whose content is kept beside the segment under the name `kept`."""

    path: str
    kept: str


class End(msgspec.Struct, tag_field="log", tag="end"):
    """What became of the run."""

    at: Instant
    status: Literal["FINISHED", "FAILED", "KILLED"]
    error: str


Event = Head | Params | Tags | Input | Captured | File | End
_event, _name = msgspec.json.Decoder(Event), msgspec.json.Decoder(tuple[int, str])


@dataclass
class Batch:
    """What stands in a stretch of a segment: points, names of numbers, and events, each in the order of logging."""

    points: list[Point] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def frame(kind: int, value: Any) -> bytes:
    """The frame of a value that is no metric."""
    text = msgspec.json.encode(value)
    return _TEXT.pack(kind, len(text), zlib.crc32(text)) + text


def scan(data: bytes | memoryview, where: str = "") -> Iterator[tuple[int, int, Any]]:
    """(position behind it, kind, what) of every whole frame, metrics that follow each other as one list. Raises Damaged where a frame is
    none; what is cut short at the end is left out."""
    view, at = memoryview(data), 0
    while at < len(view):
        kind = view[at]
        if kind == METRIC:
            kinds = bytes(view[at : at + _WINDOW * _METRIC.size : _METRIC.size])
            count = min(len(kinds) - len(kinds.lstrip(b"\x01")), (len(view) - at) // _METRIC.size)
            if not count:
                return
            points = [found[1:] for found in _METRIC.iter_unpack(view[at : at + count * _METRIC.size])]
            at += count * _METRIC.size
            yield at, METRIC, points
            continue
        if not kind and not any(view[at : at + _ZEROS]):
            return  # room that a loss of power left empty
        found = _text(view, at, where)
        if found is None:
            return
        at, value = found
        yield at, kind, value


def _text(view: memoryview, at: int, where: str) -> tuple[int, Any] | None:
    if len(view) - at < _TEXT.size:
        return None
    kind, size, check = _TEXT.unpack_from(view, at)
    end = at + _TEXT.size + size
    if kind not in (NAME, EVENT):
        raise Damaged(f"byte {at} begins no frame", where=where, hint=_HINT)
    if end > len(view):
        return None
    text = view[at + _TEXT.size : end]
    if zlib.crc32(text) != check:
        raise Damaged(f"the frame at byte {at} is not what was written", where=where, hint=_HINT)
    try:
        return end, (_name if kind == NAME else _event).decode(text)
    except msgspec.DecodeError as error:
        raise Damaged(f"the frame at byte {at} says what no segment says: {error}", where=where, hint=_HINT) from error


def read_batch(data: bytes | memoryview) -> Batch:
    """All of a stretch that begins and ends with whole frames; raises DataError for one that is cut short, Damaged for what is none."""
    batch, end = Batch(), 0
    for behind, kind, value in scan(data):
        end = behind
        if kind == METRIC:
            batch.points += value
        elif kind == NAME:
            batch.names[value[0]] = value[1]
        else:
            batch.events.append(value)
    if end != len(data):
        raise DataError(f"the stretch ends within a frame, at byte {end} of {len(data)}", hint="send it again, whole")
    return batch


def read_head(path: Path) -> Head:
    """What a segment belongs to; raises Damaged for a file that is none."""
    with path.open("rb") as file:
        data = file.read(1 << 16)
    if data.startswith(MAGIC):
        _, _, value = next(scan(data[len(MAGIC) :], str(path)), (0, 0, None))
        if isinstance(value, Head):
            return value
    raise Damaged("this is no segment of a run", where=str(path), hint="move it away")


class Segment:
    """A segment that this process appends to; its lock tells others that it is being written.

    `append` returns once the kernel has the bytes, so that the end of the process loses nothing. A disk that refuses later fails
    nobody: what it refused is held in memory, in order, and written with the next append that it takes; `dropped` counts the calls
    that were lost all the same. Raises StoreError when it cannot be begun.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path, self.refused, self.dropped = path, "", 0
        self._lock, self._held, self._calls = RLock(), bytearray(), 0  # bytes that the disk refused, and of how many calls
        new = path.with_suffix(".new")  # it is a segment once its head is there
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            begin = MAGIC + frame(EVENT, head)
            if os.write(self._file, begin) < len(begin):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            new.rename(path)
        except OSError as error:
            hint = "free some space, or name another folder by TIDEMILL_SPOOL: a disk of this machine, with locks"
            raise StoreError(f"a run cannot be begun: {error.strerror or error}", where=str(path.parent), hint=hint) from error

    def append(self, data: bytes) -> bool:
        """Write one call's frames, whole or not yet; False when they are lost. Raises DataError after the end."""
        with self._lock:
            if self._file < 0:
                raise DataError("the run has ended", where=str(self.path), hint="take it up again by `tidemill.run(id=…)`")
            if self._held:
                self._again()
            if not self._held:
                written = self._write(data)
                if written == len(data):
                    return True
                data = data[written:]
            elif len(self._held) + len(data) > HELD:
                self.dropped += 1
                return False
            self._held += data
            self._calls += 1
            return True

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._file, data)
        except OSError as error:
            self.refused = error.strerror or str(error)
            return 0

    def _again(self) -> None:
        """Write what is held."""
        del self._held[: self._write(self._held)]
        if not self._held:
            self.refused, self._calls = "", 0

    def close(self) -> None:
        """Nothing more will come; what the disk refuses to the last is lost, and counted."""
        with self._lock, suppress(OSError):
            if self._file < 0:
                return
            if self._held:
                self._again()
                self.dropped += self._calls
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked process may still hold the file open
            self.abandon()

    def abandon(self) -> None:
        """In a forked process: let go of a segment that is another's."""
        with suppress(OSError):
            os.close(self._file)
        self._file = -1


def is_written(path: Path) -> bool:
    """Whether a process of this machine still has the segment open."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
