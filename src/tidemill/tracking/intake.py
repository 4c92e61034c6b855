"""Segments into the ledger: each stretch once, in one transaction with the position behind it, so that a crash on either side of the wire
neither loses nor repeats anything."""

import msgspec

from tidemill.core import DataError, Refused, canonical
from tidemill.ledger import Ledger
from tidemill.store import Driver
from tidemill.tracking.artifacts import place_of
from tidemill.tracking.experiments import below, experiment_named
from tidemill.tracking.limits import KEY, TAG_VALUE, check_experiment_name, check_key, check_param, check_run_id, check_tag
from tidemill.tracking.metrics import put_points, remember
from tidemill.tracking.runs import NAME, STATUS, put_input, put_tags, some_name
from tidemill.tracking.segment import MAGIC, Batch, Captured, End, Event, File, Head, Input, Params, Tags, read_batch
from tidemill.tracking.values import Dataset, DatasetInput, Pair

ERROR = 2**16  # characters of what ended a run
LOST = "the process ended without closing the run"


class Shipment(msgspec.Struct):
    """A stretch of a segment: where it begins, and what must be known of what stands before it. `lost`: the process that wrote it is gone,
    and this is its end. `refused`: why the file that the stretch ends with, which went ahead of it, was not taken."""

    segment: str
    head: Head
    offset: int
    names: dict[int, str] = {}
    lost: bool = False
    refused: str = ""


class Receipt(msgspec.Struct):
    """How much of the segment is in the ledger, and where the run's files lie here; "" where the experiment keeps them elsewhere."""

    offset: int
    root: str


def ingest(ledger: Ledger, shipment: Shipment, data: bytes | memoryview) -> Receipt:
    """Take a stretch in, if it is the next one, and say where the next one begins. Raises Refused for a run that was deleted for good."""
    if not 0 < len(shipment.segment) <= KEY:
        raise DataError(f"the id of a segment has 1 to {KEY} characters, not {len(shipment.segment)}")
    batch = read_batch(data[len(MAGIC) :] if shipment.offset == 0 and data else data)
    with ledger.records.transaction() as sql:
        offset = _offset(sql, shipment.segment)
        if offset < 0:
            raise Refused(f"run {shipment.head.run} was deleted", where=shipment.segment, hint="move its segment away")
        run, experiment, root = _run_of(ledger, sql, shipment.head, new=offset == 0)
        names: dict[str, int] = {}
        if shipment.offset == offset and (data or shipment.lost):
            names = _put(ledger, sql, shipment, batch, (run, experiment))
            offset += len(data)
            if shipment.refused:
                row = sql.one("SELECT value FROM tag WHERE run = ? AND key = ?", (run, "tidemill.refused.file"))
                told = f"{row[0]}\n{shipment.refused}" if row and shipment.refused not in row[0] else shipment.refused
                put_tags(sql, run, [check_tag(Pair("tidemill.refused.file", told))])
            sql.run(
                "INSERT INTO segment (id, run, shipped) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET shipped = excluded.shipped",
                (shipment.segment, run, offset),
            )
            if shipment.lost and shipment.head.first:
                _lost(ledger, sql, run)
    remember(ledger.records, names)
    return Receipt(offset, _place(root))


def _place(location: str) -> str:
    try:
        return place_of(location)
    except DataError:
        return ""


def _offset(sql: Driver, segment: str) -> int:
    row = sql.one("SELECT shipped FROM segment WHERE id = ?", (segment,))
    return int(row[0]) if row else 0


def _run_of(ledger: Ledger, sql: Driver, head: Head, *, new: bool) -> tuple[int, int, str]:
    """The numbers of the run and its experiment, and the location of its files; made where it is not there yet."""
    row = sql.one("SELECT execution, experiment, location FROM run WHERE uid = ?", (check_run_id(head.run),))
    if row is not None:
        return (row[0], _correct(ledger, sql, row[0], row[1], head), row[2]) if new and head.first else (row[0], row[1], row[2])
    if not new:
        raise Refused(f"run {head.run} was deleted", hint="move its segment away")
    number = experiment_named(ledger, sql, check_experiment_name(head.experiment or "Default"))
    found = sql.one("SELECT location FROM experiment WHERE id = ?", (number,))
    assert found is not None
    name, location = head.name[:TAG_VALUE] or some_name(), below(found[0], head.run, "artifacts")
    execution = ledger.begin_execution(sql, "run", name, started_at=head.at)
    sql.run(
        "INSERT INTO run (execution, uid, experiment, name, who, stage, started_at, location) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
        (execution, head.run, number, name, head.who[:KEY], head.at // 1000, location),
    )
    put_tags(sql, execution, [(NAME, name)])
    return execution, number, location


def _correct(ledger: Ledger, sql: Driver, run: int, experiment: int, head: Head) -> int:
    """The first segment of a run came after a later one, which did not know all of it: its experiment, name and start are right. Returns
    the number of the experiment."""
    number = experiment_named(ledger, sql, check_experiment_name(head.experiment or "Default"))
    sql.run("UPDATE execution SET started_at = ? WHERE id = ?", (head.at, run))
    sql.run("UPDATE run SET experiment = ?, started_at = ?, who = ? WHERE execution = ?", (number, head.at // 1000, head.who[:KEY], run))
    if number != experiment:
        sql.run("UPDATE metric_latest SET experiment = ? WHERE run = ?", (number, run))
    if head.name:
        put_tags(sql, run, [check_tag(Pair(NAME, head.name))])
    return number


def _put(ledger: Ledger, sql: Driver, shipment: Shipment, batch: Batch, run: tuple[int, int]) -> dict[str, int]:
    """Write what a stretch holds; returns the numbers of metric names in the ledger."""
    called = {**shipment.names, **batch.names}
    unknown = {point[0] for point in batch.points} - called.keys()
    if unknown:
        raise DataError(f"the metrics {sorted(unknown)[:5]} of the segment have no names", where=shipment.segment)
    names = put_points(sql, ledger.records, *run, {number: check_key(name) for number, name in called.items()}, batch.points)
    for event in batch.events:
        try:
            _act(ledger, sql, run, event)
        except DataError as error:  # one that cannot be held does not hold up the rest
            kind = type(event).__name__.lower()
            put_tags(sql, run[0], [check_tag(Pair(f"tidemill.refused.{kind}", error.what))])
    return names


def _act(ledger: Ledger, sql: Driver, run: tuple[int, int], event: Event) -> None:
    match event:
        case Params():
            _put_params(sql, run[0], event.values)
        case Tags():
            put_tags(sql, run[0], [check_tag(Pair(key, value)) for key, value in event.values.items()])
        case Input():
            _put_input(sql, run, event)
        case Captured():
            _put_captured(ledger, sql, run[0], event)
        case End():
            ledger.end_execution(sql, run[0], STATUS[event.status], event.at)
            sql.run("UPDATE execution SET error = ? WHERE id = ?", (event.error[:ERROR], run[0]))
        case Head() | File():
            pass  # the head was read before; files have gone their own way


def _put_params(sql: Driver, run: int, values: dict[str, str]) -> None:
    """The first value stays; another one, of a run that was taken up again, is told in a tag."""
    for key, value in values.items():
        key, value = check_param(Pair(key, value))
        found = sql.one("SELECT value FROM param WHERE run = ? AND key = ?", (run, key))
        if found is None:
            sql.run("INSERT INTO param (run, key, value) VALUES (?, ?, ?)", (run, key, value))
        elif found[0] != value:
            put_tags(sql, run, [check_tag(Pair(f"tidemill.refused.{key}"[:KEY], value))])


def _put_input(sql: Driver, run: tuple[int, int], event: Input) -> None:
    """What a run reads stands among its datasets, and a thing of the project among the inputs of its execution too."""
    found = Dataset(event.name, event.digest, event.type, event.source)
    put_input(sql, *run, DatasetInput(found, [Pair("mlflow.data.context", event.context)]))
    if event.ref:
        row = sql.one("SELECT inputs FROM execution WHERE id = ?", (run[0],))
        inputs = {**msgspec.json.decode(row[0] if row else "{}"), event.name: event.ref}
        sql.run("UPDATE execution SET inputs = ? WHERE id = ?", (canonical(inputs).decode(), run[0]))


def _put_captured(ledger: Ledger, sql: Driver, run: int, event: Captured) -> None:
    """Environment and code of the execution, as those of a pipeline's step: digests of blobs that can be compared."""
    tags = {**event.tags, **{f"tidemill.seed.{key}": value for key, value in event.seeds.items()}}
    put_tags(sql, run, [check_tag(Pair(key, value)) for key, value in tags.items()])
    environment = ledger.blobs.put(canonical(event.environment))
    code = ledger.blobs.put(canonical({"commit": event.tags.get("mlflow.source.git.commit", ""), "diff": event.diff}))
    sql.run("UPDATE execution SET environment = ?, code = ? WHERE id = ?", (environment, code, run))


def _lost(ledger: Ledger, sql: Driver, run: int) -> None:
    """The process is gone: a run that it did not close has failed, at the time of its last value."""
    query = (
        "SELECT e.status, e.started_at, max(l.timestamp) FROM execution AS e LEFT JOIN metric_latest AS l ON l.run = e.id "
        "WHERE e.id = ? GROUP BY e.status, e.started_at"
    )
    row = sql.one(query, (run,))
    if row is not None and row[0] == "running":
        ledger.end_execution(sql, run, STATUS["FAILED"], max(row[1], (row[2] or 0) * 1000))
        sql.run("UPDATE execution SET error = ? WHERE id = ?", (LOST, run))
