"""A segment: what one process logs to a run, as an append-only file that outlives the process and waits to be shipped.

Format 1, little-endian: the magic, then frames. A metric's frame has 32 bytes: kind, number of the name, instant (µs since 1970), step,
value. Every other frame is kind, length and CRC-32 of a JSON text: the head (what run, where it goes), the name behind a number,
and what else was logged. A frame that the end of the process cut short is not there; nothing after it is.
"""

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

from tidemill.core import Damaged

MAGIC = b"TIDE\x01\x00\x00\x00"
METRIC, NAME, EVENT = 1, 2, 3
_METRIC, _TEXT = struct.Struct("<BxxxIqqd"), struct.Struct("<BxxxII")
_WINDOW = 4096  # metrics that are looked for at once
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
    """All of a stretch that begins and ends with whole frames."""
    batch = Batch()
    for _, kind, value in scan(data):
        if kind == METRIC:
            batch.points += value
        elif kind == NAME:
            batch.names[value[0]] = value[1]
        else:
            batch.events.append(value)
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

    `append` returns once the kernel has the bytes, so that the end of the process loses nothing. A disk that refuses fails
    nobody: what it refused is held in memory, in order, and written with the next append that it takes.
    """

    def __init__(self, path: Path, head: Head) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.refused, self.dropped = path, "", 0
        new = path.with_suffix(".new")  # it is a segment once its head is there
        self._file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._lock, self._held = RLock(), bytearray()
        self.append(MAGIC + frame(EVENT, head))
        new.rename(path)

    def append(self, data: bytes) -> None:
        """Write one frame, whole or not yet."""
        with self._lock:
            if not self._held:
                written = self._write(data)
                if written < len(data):
                    self._held += data[written:]
            elif len(self._held) + len(data) <= HELD:
                self._held += data
                self._again()
            else:
                self.dropped += 1

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
            self.refused = ""

    def close(self) -> None:
        """Nothing more will come."""
        with self._lock, suppress(OSError):
            if self._held:
                self._again()
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
