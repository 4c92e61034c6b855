"""The online store: for each entity of a view version, the few events that a read at or after the watermark can need.

It is a cache: `materialise` rebuilds it from the view log, and `open_online` begins a damaged one anew. Reading builds a small view
log of the entities asked for and reads that, so both paths are one piece of code.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tidemill.core import Coded, Instants, pack, unpack
from tidemill.features.declarations import FeatureView, hop, width
from tidemill.features.views import Block, ViewLog, of_arrays

CHECKSUM = 4  # bytes
NEVER = -(2**62)  # before all times


class OnlineStore(Protocol):
    """Bytes by (view version, entity), and one watermark for each view version."""

    def get(self, version: str, entities: Sequence[str]) -> list[bytes | None]:
        """What is stored for each entity."""

    def watermark(self, version: str) -> int | None:
        """Up to which knowledge time the version is stored, if it is."""

    def write(self, version: str, rows: Iterable[tuple[str, bytes]], watermark: int) -> None:
        """Store rows and move the watermark forward, all or nothing; an older watermark changes nothing."""

    def keep(self, versions: Collection[str]) -> None:
        """Drop what is stored of all versions but these."""

    def close(self) -> None:
        """Nothing is read or written any more."""


class MemoryOnline:
    """An online store that ends with the process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], bytes] = {}
        self._marks: dict[str, int] = {}

    def get(self, version: str, entities: Sequence[str]) -> list[bytes | None]:
        return [self._rows.get((version, entity)) for entity in entities]

    def watermark(self, version: str) -> int | None:
        return self._marks.get(version)

    def write(self, version: str, rows: Iterable[tuple[str, bytes]], watermark: int) -> None:
        if self._marks.get(version, watermark) <= watermark:
            self._rows.update({(version, entity): data for entity, data in rows})
            self._marks[version] = watermark

    def keep(self, versions: Collection[str]) -> None:
        self._rows = {key: data for key, data in self._rows.items() if key[0] in versions}
        self._marks = {version: mark for version, mark in self._marks.items() if version in versions}

    def close(self) -> None:
        """Nothing is to be done."""


def checksum(key: bytes, data: bytes) -> bytes:
    """What stands behind a value: of it and its name."""
    return zlib.crc32(data, zlib.crc32(key)).to_bytes(CHECKSUM, "little")


def materialise(store: OnlineStore, version: str, log: ViewLog, until: int) -> int:
    """Store what was known by `until`; returns the number of entities written. Only entities with news are written."""
    since = store.watermark(version)
    if since is not None and since >= until:
        return 0
    known = log.events.known
    news = np.flatnonzero((known <= until) & (known > (since if since is not None else np.iinfo(np.int64).min)))
    entities = np.unique(_entity_of(log, news))
    store.write(version, _rows(log, entities.tolist(), until), until)
    return len(entities)


def _entity_of(log: ViewLog, rows: Instants) -> Instants:
    return np.searchsorted(log.events.starts, rows, side="right") - 1


def _rows(log: ViewLog, entities: Sequence[int], until: int) -> Iterator[tuple[str, bytes]]:
    widths = [width(window) for window in log.view.windows]
    cut = min([NEVER if w is None else (until - w) // hop(w) * hop(w) for w in widths], default=until)
    for entity in entities:
        rows = np.arange(log.events.starts[entity], log.events.starts[entity + 1])
        rows = rows[log.events.known[rows] <= until]
        first = int(np.searchsorted(log.events.event[rows], cut, side="right" if not log.view.windows else "left"))
        rows = rows[max(first - 1, 0) :]  # one more: it tells an entity that is known from one that is not
        columns = {name: column[rows] for name, column in log.columns.items()}
        yield log.entities[entity], pack({"event": log.events.event[rows], "known": log.events.known[rows], **columns})


def read_online(
    store: OnlineStore, version: str, view: FeatureView, vocabularies: dict[str, tuple[str, ...]], keys: Coded, at: Instants
) -> Block:
    """The values of a view from the online store. `at` must not be older than its watermark."""
    used = sorted({text for text in keys.texts() if text is not None})
    found = [(entity, unpack(data)[0]) for entity, data in zip(used, store.get(version, used), strict=True) if data is not None]
    names = ["event", "known", *view.kept]
    empty = {name: np.empty(0, np.int64 if name in ("event", "known") else np.float64) for name in names}
    arrays = {name: np.concatenate([arrays[name] for _, arrays in found] or [empty[name]]) for name in names}
    arrays["entity"] = np.repeat(np.arange(len(found), dtype=np.int32), [len(arrays["event"]) for _, arrays in found])
    short = {name: vocabularies[view.names_of(name)[0]] for name, feature in view.columns.items() if feature.category}
    return of_arrays(view, tuple(entity for entity, _ in found), arrays, short).read(keys, at)
