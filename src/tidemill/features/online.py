"""The online store: for each entity of a view version, the few events that a read at or after the watermark can need.

It is a cache: `materialise` rebuilds it from the view log, and `open_online` begins a damaged one anew. Reading builds a small view
log of the entities asked for and reads that, so both paths are one piece of code.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tidemill.core import Array, Bools, Coded, Damaged, Instants, Ints, duration
from tidemill.features.declarations import FeatureView, hop, width
from tidemill.features.views import Block, ViewLog, of_arrays
from tidemill.features.windows import EXPIRED, MOST, NULL, PRESENT, UNKNOWN

CHECKSUM = 4  # bytes
MARK = b"watermark 2/"  # before the name of a watermark: the number is that of the form of rows, so that those of another are made anew
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
    known, entity = log.events.known <= until, log.events.entity
    fresh = np.zeros(len(log.entities), dtype=bool)
    fresh[entity[known & (log.events.known > (NEVER if since is None else since))]] = True
    store.write(version, _rows(log, known & fresh[entity], until), until)
    return int(fresh.sum())


def _rows(log: ViewLog, some: Bools, until: int) -> Iterator[tuple[str, bytes]]:
    """What each entity needs of some of the events: those that a window reaches back to, or that are still to happen, and the one
    before, which tells an entity that is known from one that is not. Row after row: event time, knowledge time and the columns, eight
    bytes each."""
    rows = np.flatnonzero(some)
    event, entity = log.events.event[rows], log.events.entity[rows]
    widths = [width(window) for window in log.view.windows]
    begin = min([NEVER if w is None else (until - w) // hop(w) * hop(w) for w in widths], default=until + 1)
    before = np.append((event[1:] < begin) & (entity[1:] == entity[:-1]), False)  # and so is the next one
    rows = rows[~((event < begin) & before)]
    table = np.empty((len(rows), 2 + len(log.columns)), dtype="<i8")
    table[:, 0], table[:, 1] = log.events.event[rows], log.events.known[rows]
    for i, column in enumerate(log.columns.values()):
        table[:, 2 + i] = column[rows].view(np.int64)
    data, size = memoryview(table.tobytes()), table.shape[1] * 8
    there, starts = np.unique(log.events.entity[rows], return_index=True)
    edges = [*(starts * size).tolist(), len(data)]
    for one, start, end in zip(there.tolist(), edges, edges[1:], strict=False):
        yield log.entities[one], bytes(data[start:end])


def read_online(
    store: OnlineStore, version: str, view: FeatureView, vocabularies: dict[str, tuple[str, ...]], keys: Coded, at: Instants
) -> Block:
    """The values of a view from the online store. `at` must not be older than its watermark."""
    used = sorted({code for code in keys.codes.tolist() if code >= 0})
    found = [(code, data) for code, data in zip(used, store.get(version, [keys.vocabulary[code] for code in used]), strict=True) if data]
    size = 8 * (2 + len(view.kept))
    if any(len(data) % size for _, data in found):
        raise Damaged("the online store is damaged: a row is not what was written", hint="start `tidemill up`, which makes it anew")
    table = np.frombuffer(b"".join(data for _, data in found), dtype="<i8").reshape(-1, size // 8)
    short = {name: vocabularies[view.names_of(name)[0]] for name, feature in view.columns.items() if feature.category}
    if len(table) == len(found) and not view.windows:
        return _of_one_row(view, short, table, [code for code, _ in found], keys, at)
    arrays: dict[str, Array] = {"event": table[:, 0], "known": table[:, 1]}
    arrays |= {name: table[:, 2 + i].view(np.float64) for i, name in enumerate(view.kept)}
    arrays["entity"] = np.repeat(np.arange(len(found), dtype=np.int32), [len(data) // size for _, data in found])
    return of_arrays(view, tuple(keys.vocabulary[code] for code, _ in found), arrays, short).read(keys, at)


def _of_one_row(
    view: FeatureView, words: dict[str, tuple[str, ...]], table: Ints, codes: Sequence[int], keys: Coded, at: Instants
) -> Block:
    """What `ViewLog.read` gives where each entity has one row, which is nearly always so: without looking for the newest one."""
    places = {code: place for place, code in enumerate(codes)}
    place = np.array([places.get(code, -1) for code in keys.codes.tolist()])
    rows = np.append(table, np.full((1, table.shape[1]), MOST), axis=0)[place]  # what is not there happens after all times
    event, values = rows[:, 0], rows[:, 2:].view(np.float64)
    seen = (event <= at) & (rows[:, 1] <= at)
    use = seen & (at - event <= duration(view.ttl)) if view.ttl else seen
    values[~use] = np.nan
    null = np.isnan(values).all(axis=1)
    status = np.select([~seen, ~use, null], [UNKNOWN, EXPIRED, NULL], PRESENT).astype(np.uint8)
    return Block(view.names, values, status, {f"{view.name}__{name}": known for name, known in words.items()})
