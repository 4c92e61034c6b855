"""Many rows at once from a view log, column by column: what `ViewLog.read` gives, with texts for categories, and what it kept back.

Rows are looked up in the order of the events, so that memory is read from front to back.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tidemill.core import Array, Bools, Coded, Floats, Instants, Ints, duration
from tidemill.features.views import ViewLog
from tidemill.features.windows import EXPIRED, NULL, PRESENT, UNKNOWN, Status, known_by, reached

Answer = tuple[dict[str, Array], Status, int]


def look_up(log: ViewLog, names: Sequence[str], entity: Ints, at: Instants, *, as_known: bool) -> Answer:
    """The named columns, the status of each row, and the number of leaks: rows for which something that was not known yet would have been
    used. `entity` (n,) are places in the log's entities, −1 for none; without `as_known` what was not known yet is used."""
    columns, status, leaks = (_windows if log.view.windows else _newest)(log, names, entity, at, as_known)
    for name in names:
        if name in log.vocabularies:
            words = np.array([*log.vocabularies[name], None], dtype=object)
            columns[name] = words[np.where(np.isnan(columns[name]), -1, columns[name]).astype(np.int64)]
    return columns, status, leaks


def _newest(log: ViewLog, names: Sequence[str], entity: Ints, at: Instants, as_known: bool) -> Answer:
    order = _in_order(entity, at, len(log.entities))
    entity, at, events = entity[order], at[order], log.events
    plain = reached(events, entity, at)
    early = _young(log, plain, at)[0] & (events.known[plain] > at) if events.late else np.zeros(len(at), dtype=bool)
    row = known_by(events, plain, entity, at) if as_known and events.late else plain
    use, expired = _young(log, row, at)
    none, place = order[~use], np.maximum(row, 0)
    columns = {}
    for name in names:
        column = log.columns[f"x:{name.removeprefix(f'{log.view.name}__')}"]
        columns[name] = np.empty(len(at))
        columns[name][order] = column[place] if len(column) else np.nan
        columns[name][none] = np.nan
    null = use & _nothing(log)[place] if len(events.event) else use
    status = np.empty(len(at), dtype=np.uint8)
    status[order] = np.select([expired, row < 0, null], [EXPIRED, UNKNOWN, NULL], PRESENT)
    return columns, status, int(early.sum())


def _in_order(entity: Ints, at: Instants, entities: int) -> Ints:
    """The order by entity and time."""
    first = int(at.min(initial=0))
    span = int(at.max(initial=0)) - first + 1
    if span * (entities + 1) < 2**62:
        return np.argsort((entity + 1) * span + (at - first))
    return np.lexsort((at, entity))


def _young(log: ViewLog, row: Ints, at: Instants) -> tuple[Bools, Bools]:
    """Rows with an event within the TTL, and rows with one that is too old."""
    found = row >= 0
    if not log.view.ttl or not len(log.events.event):
        return found, np.zeros(len(row), dtype=bool)
    old = found & (at - log.events.event[row] > duration(log.view.ttl))
    return found & ~old, old


def _nothing(log: ViewLog) -> Bools:
    """Events all of whose values are null."""
    nothing = np.ones(len(log.events.event), dtype=bool)
    for column in log.columns.values():
        nothing &= np.isnan(column)
    return nothing


def _windows(log: ViewLog, names: Sequence[str], entity: Ints, at: Instants, as_known: bool) -> Answer:
    keys = Coded(entity.astype(np.int32), log.entities)
    known = log.read(keys, at)
    plain = replace(log, events=replace(log.events, late=False)).read(keys, at) if log.events.late else known
    differ = (known.status != plain.status) | ~_same(known.values, plain.values).all(axis=1)
    block = known if as_known else plain
    places = {name: block.names.index(name) for name in names}
    return {name: np.ascontiguousarray(block.values[:, place]) for name, place in places.items()}, block.status, int(differ.sum())


def _same(one: Floats, two: Floats) -> Bools:
    same: Bools = (one == two) | (np.isnan(one) & np.isnan(two))
    return same
