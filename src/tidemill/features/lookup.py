"""Many rows at once from a view log, column by column: what `ViewLog.read` gives, with texts for categories, and what it kept back.

Rows are looked up in the order of the events, so that memory is read from front to back.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tidemill.core import Array, Coded, Instants, Ints
from tidemill.features.declarations import hop, width
from tidemill.features.views import AT_ONCE, ViewLog
from tidemill.features.windows import AFTER, Events, Status, begin, known_by, reached, status_of, visible

Answer = tuple[dict[str, Array], Status, int]


def look_up(log: ViewLog, names: Sequence[str], entity: Ints, at: Instants, *, as_known: bool) -> Answer:
    """The named columns, the status of each row, and the number of leaks: rows for which an event that was not known yet would have been
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
    early = log.young(plain, at) & (events.known[plain] > at) if events.late else np.zeros(len(at), dtype=bool)
    row = known_by(events, plain, entity, at) if as_known and events.late else plain
    use = log.young(row, at)
    none, place = order[~use], np.maximum(row, 0)
    columns = {}
    for name in names:
        column = log.columns[f"x:{name.removeprefix(f'{log.view.name}__')}"]
        columns[name] = np.empty(len(at))
        columns[name][order] = column[place] if len(column) else np.nan
        columns[name][none] = np.nan
    null = log.nothing[place] if len(events.event) else False
    status = np.empty(len(at), dtype=np.uint8)
    status[order] = status_of(row >= 0, use, null)
    return columns, status, int(early.sum())


def _in_order(entity: Ints, at: Instants, entities: int) -> Ints:
    """The order by entity and time."""
    first = int(at.min(initial=0))
    span = int(at.max(initial=0)) - first + 1
    if span * (entities + 1) < AFTER:
        return np.argsort((entity + 1) * span + (at - first))
    return np.lexsort((at, entity))


def _windows(log: ViewLog, names: Sequence[str], entity: Ints, at: Instants, as_known: bool) -> Answer:
    asked = {name: feature for name, feature in log.view.columns.items() if set(log.view.names_of(name)) & set(names)}
    log = replace(log, view=replace(log.view, features=asked))
    plain = replace(log, events=replace(log.events, late=False))
    block = (log if as_known else plain).read(Coded(entity.astype(np.int32), log.entities), at)
    places = {name: block.names.index(name) for name in names}
    leaks = _hidden(log, plain, entity, at) if log.events.late else 0
    return {name: np.ascontiguousarray(block.values[:, place]) for name, place in places.items()}, block.status, leaks


def _hidden(log: ViewLog, plain: ViewLog, entity: Ints, at: Instants) -> int:
    """How many rows have an event in their longest window that was not known yet."""
    lengths = [width(window) for window in log.view.windows]
    longest = None if None in lengths else max(length for length in lengths if length is not None)
    order, found = _in_order(entity, at, len(log.entities)), 0
    for rows in (order[i : i + AT_ONCE] for i in range(0, len(order), AT_ONCE)):
        known, all_ = (_count(events, entity[rows], at[rows], longest) for events in (log.events, plain.events))
        found += int((known != all_).sum())
    return found


def _count(events: Events, entity: Ints, at: Instants, length: int | None) -> Ints:
    rows = visible(events, entity, at)
    return (rows if length is None else rows.since(begin(events, entity, at, length, hop(length)))).count
