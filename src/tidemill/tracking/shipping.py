"""Segments on their way: from a spool to the project's ledger or to a server, each stretch exactly once."""

import http.client
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from tidemill.core import Damaged, DataError, Refused, StoreError, TidemillError, UnknownName
from tidemill.store import store_error
from tidemill.tracking.intake import Receipt, Shipment, ingest
from tidemill.tracking.limits import clean
from tidemill.tracking.segment import MAGIC, NAME, File, Head, is_written, read_head, scan
from tidemill.tracking.spool import discard, files_of, is_server

STRETCH = 2 << 20  # bytes that are shipped at once: 65,000 points, about a quarter of a second for others who write
SEGMENTS = "/api/2.0/tidemill/segments"
SEGMENTS_KIND = "application/x-tidemill-segment"
TIMEOUT = 30.0
_SIZE = struct.Struct("<I")


class Destination(Protocol):
    """Where segments go."""

    def ship(self, shipment: Shipment, data: bytes) -> Receipt:
        """Hand a stretch over; says where the next one begins. Raises StoreError while the destination is away, Refused for good."""

    def upload(self, path: str, file: Path) -> None:
        """Hand a file over, in place of what was there. Raises StoreError while the destination is away, Refused or DataError for good."""

    def has(self, path: str) -> bool:
        """Whether a file is there."""

    def close(self) -> None:
        """Let go."""


def pack(shipment: Shipment, data: bytes) -> bytes:
    """A stretch as one body: the length of what describes it, that, and the stretch.

    >>> from tidemill.tracking.segment import Head
    >>> sent = Shipment("a", Head("r", "here", 0), 0)
    >>> unpack(pack(sent, b"xyz"))[1]
    b'xyz'
    """
    text = msgspec.json.encode(shipment)
    return _SIZE.pack(len(text)) + text + data


def unpack(body: bytes) -> tuple[Shipment, bytes]:
    """What `pack` packed; raises msgspec.ValidationError or struct.error for anything else."""
    (size,) = _SIZE.unpack_from(body)
    return msgspec.json.decode(body[_SIZE.size : _SIZE.size + size], type=Shipment), body[_SIZE.size + size :]


class Embedded:
    """A project's ledger, in this process."""

    def __init__(self, folder: str) -> None:
        from tidemill import project
        from tidemill.tracking.step import prepare

        self.ledger = project.ensure(Path(folder)).ledger()
        prepare(self.ledger)

    def ship(self, shipment: Shipment, data: bytes) -> Receipt:
        return ingest(self.ledger, shipment, data)

    def upload(self, path: str, file: Path) -> None:
        from tidemill.tracking.artifacts import put_file

        part = self.ledger.blobs.part()
        try:
            with file.open("rb") as opened:
                while data := opened.read(1 << 20):
                    part.write(data)
            put_file(self.ledger, path, part)
        finally:
            part.discard()

    def has(self, path: str) -> bool:
        from tidemill.tracking.artifacts import find_file

        with suppress(UnknownName):
            return bool(find_file(self.ledger, path))
        return False

    def close(self) -> None:
        self.ledger.records.close()


class Server:
    """A tracking server."""

    def __init__(self, address: str) -> None:
        self.address, self._parts = address, urlsplit(address)

    def ship(self, shipment: Shipment, data: bytes) -> Receipt:
        return msgspec.json.decode(self._call("POST", SEGMENTS, pack(shipment, data), SEGMENTS_KIND), type=Receipt)

    def upload(self, path: str, file: Path) -> None:
        with file.open("rb") as opened:
            self._call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}", opened, "application/octet-stream")

    def has(self, path: str) -> bool:
        with suppress(Refused, StoreError):
            self._call("HEAD", f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}", None, "application/octet-stream")
            return True
        return False

    def close(self) -> None:
        pass

    def _call(self, method: str, path: str, body: Any, kind: str) -> bytes:
        make = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        try:
            with closing(make(self._parts.netloc, timeout=TIMEOUT)) as connection:
                connection.request(method, f"{self._parts.path}{path}", body, {"Content-Type": kind})
                answer = connection.getresponse()
                text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"the server is away: {error}", where=self.address, hint="`tidemill sync` sends what waits") from error
        if answer.status >= 400:
            what = f"{answer.status}: {text[:300].decode(errors='replace')}"
            if answer.status in (400, 403) and b'"error_code"' in text:
                raise Refused(f"the server refuses ({what})", where=self.address, hint="`tidemill sync --again` tries once more")
            raise StoreError(f"the server does not take it ({what})", where=self.address, hint="is this a server of Tidemill, and well?")
        return text


def open_destination(to: str) -> Destination:
    """The project or the server behind a destination."""
    return Server(to) if is_server(to) else Embedded(to)


@dataclass
class Progress:
    """How far a segment is shipped by this process."""

    path: Path
    head: Head
    names: dict[int, str]
    at: int = -1  # not asked yet
    root: str = ""


class Shipper:
    """Ships segments again and again while they grow; knows where each one stands. `to` overrides where they want to go."""

    def __init__(
        self,
        to: str = "",
        *,
        told: Callable[[Path, int], None] = lambda path, shipped: None,
        opens: Callable[[str], Destination] = open_destination,
        stretch: int = STRETCH,
    ) -> None:
        self._to, self._told, self._opens, self._stretch = to, told, opens, stretch
        self.missing: list[str] = []  # files that neither the spool nor the destination has
        self.refused: list[str] = []  # files that the destination never takes, each with its reason
        self._known: dict[Path, Progress] = {}
        self._open: dict[str, Destination] = {}

    def ship(self, path: Path) -> bool:
        """Ship what a segment holds; True when it is done and gone. Raises StoreError while its destination is away; a segment that
        is damaged or refused for good is moved aside, and Damaged or Refused is raised."""
        try:
            if path not in self._known:
                self._known[path] = Progress(path, read_head(path), {})
            return self._ship(self._known[path])
        except FileNotFoundError:  # another one has shipped it
            self._known.pop(path, None)
            return True
        except (Damaged, Refused) as error:
            self._aside(path, "damaged" if isinstance(error, Damaged) else "refused")
            raise
        except (TidemillError, OSError) as error:
            one = self._known.pop(path, None)  # where it stands is asked again
            if one is not None:
                self._close(self._to or one.head.to)
            raise error if isinstance(error, TidemillError) else store_error(error, str(path)) from error

    def _ship(self, one: Progress) -> bool:
        written = is_written(one.path)  # before reading: what is written until then is read
        destination = self._destination(one.head)
        segment = one.path.stem
        if one.at < 0:
            receipt = destination.ship(Shipment(segment, one.head, 0), b"")
            one.at, one.root = 0, receipt.root
            self._skip(one, receipt.offset)
        try:
            shipped = self._ship_all(one, destination)
        except Damaged:
            if not written:  # what stands before the damage is all that there will be
                destination.ship(Shipment(segment, one.head, one.at, lost=True), b"")
            raise
        if not shipped:
            self._known.pop(one.path)  # another one ships it too: go on from where the two are
            return self.ship(one.path)
        if not written:
            destination.ship(Shipment(segment, one.head, one.at, lost=True), b"")
            discard(one.path)
            self._known.pop(one.path)
        return not written

    def _ship_all(self, one: Progress, destination: Destination) -> bool:
        """Ship all that is there now; False when the destination stands elsewhere than we knew."""
        for data, names, file in self._stretches(one):
            refused = ""
            if file and one.root:
                refused = self._hand_over(one, file, destination)
            elif file:
                self.missing.append(file.path)  # the experiment keeps its files where only its own clients can write
            receipt = destination.ship(Shipment(one.path.stem, one.head, one.at, dict(one.names), refused=refused), data)
            if receipt.offset != one.at + len(data):
                return False
            one.at = receipt.offset
            one.names.update(names)
            self.refused += [refused] if refused else []
            if file:
                (files_of(one.path) / file.kept).unlink(missing_ok=True)
            self._told(one.path, one.at)
        return True

    def _hand_over(self, one: Progress, file: File, destination: Destination) -> str:
        """Hand a file over; returns why the destination never takes it, which holds up nothing that comes behind it."""
        path = f"{one.root}/{file.path}"
        try:
            destination.upload(path, files_of(one.path) / file.kept)
        except (DataError, Refused) as error:
            return clean(f"{file.path}: {error.what}")
        except FileNotFoundError:  # it was handed over before a crash, or the segment came without its files
            if not destination.has(path):
                self.missing.append(file.path)
        return ""

    def _skip(self, one: Progress, offset: int) -> None:
        """Go on from where the destination stands, with the names that were given before."""
        for data, names, _ in self._stretches(one, until=offset):
            one.at += len(data)
            one.names.update(names)
        if one.at != offset:
            what = f"{offset} bytes of the segment are in the ledger, but it has {one.at}"
            raise Damaged(what, where=str(one.path), hint="it is not the file that was shipped")

    def _stretches(self, one: Progress, until: int | None = None) -> Iterator[tuple[bytes, dict[int, str], File | None]]:
        """What is new, in stretches of whole frames: (bytes, names in it, the file that its last event brings)."""
        size = self._stretch
        while until is None or one.at < until:
            with one.path.open("rb") as file:
                file.seek(one.at)
                data = file.read(size if until is None else min(size, until - one.at))
            skip = len(MAGIC) if one.at == 0 and data else 0
            start, end, names, damage = 0, 0, dict[int, str](), None
            try:
                for behind, kind, value in scan(memoryview(data)[skip:], str(one.path)):
                    end = behind + skip
                    if kind == NAME:
                        names[value[0]] = value[1]
                    elif isinstance(value, File):
                        yield data[start:end], names, value
                        start, names = end, {}
            except Damaged as error:
                damage = error
            if end > start:
                yield data[start:end], names, None
            if damage is not None:
                raise damage
            if not end and len(data) < size:
                return
            size = self._stretch if end else 2 * size  # a frame may be longer than a stretch

    def _destination(self, head: Head) -> Destination:
        to = self._to or head.to
        if to not in self._open:
            self._open[to] = self._opens(to)
        return self._open[to]

    def _close(self, to: str) -> None:
        found = self._open.pop(to, None)
        if found is not None:
            with suppress(TidemillError):
                found.close()

    def _aside(self, path: Path, why: str) -> None:
        self._known.pop(path, None)
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(f".{why}"))

    def close(self) -> None:
        """Let go of every destination."""
        for to in list(self._open):
            self._close(to)
