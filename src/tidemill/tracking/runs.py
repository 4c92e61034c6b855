"""Runs by their id: made, logged to, read, deleted and restored. A run is an execution of the ledger that belongs to an experiment."""

import secrets
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Row
from tidemill.tracking.experiments import below, number_of
from tidemill.tracking.limits import LIST, check_batch, check_dataset, check_metric, check_model_id, check_param, check_run_id, check_tag
from tidemill.tracking.metrics import put_metrics, remember
from tidemill.tracking.values import Dataset, DatasetInput, Inputs, Metric, ModelRef, Outputs, Pair, Run, RunData, RunInfo

STATUS = {"RUNNING": "running", "SCHEDULED": "scheduled", "FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
TOLD = {status: name for name, status in STATUS.items()}
NAME = "mlflow.runName"
QUALITIES = ("calm", "swift", "bold", "quiet", "bright", "merry", "keen", "gentle", "proud", "steady", "clever", "brave", "nimble", "sunny")
THINGS = (
    "heron",
    "otter",
    "maple",
    "brook",
    "harbor",
    "lantern",
    "meadow",
    "falcon",
    "ember",
    "willow",
    "badger",
    "comet",
    "cedar",
    "tide",
)
COLUMNS = (
    "r.execution, r.uid, r.name, r.experiment, r.who, e.status, r.started_at, r.location, r.stage, e.ended_at "
    "FROM run AS r JOIN execution AS e ON e.id = r.execution"
)
PUT_PARAM = "INSERT INTO param (run, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_TAG = "INSERT INTO tag (run, key, value) VALUES (?, ?, ?) ON CONFLICT (run, key) DO UPDATE SET value = excluded.value"


def some_name() -> str:
    """A name for a run that was given none."""
    return f"{secrets.choice(QUALITIES)}-{secrets.choice(THINGS)}-{secrets.randbelow(1000)}"


def create_run(
    ledger: Ledger, experiment_id: str, *, name: str = "", who: str = "", started_at: int | None = None, tags: Sequence[Pair] = ()
) -> Run:
    """A new run of an active experiment, with a name of its own where none is given. Raises DataError and UnknownName."""
    pairs = dict(check_tag(one) for one in tags)
    if name and pairs.get(NAME, name) != name:
        raise DataError(
            f"Both 'run_name' argument and '{NAME}' tag are specified, but with different values "
            f"(run_name='{name}', {NAME}='{pairs[NAME]}')."
        )
    pairs[NAME] = name = name or pairs.get(NAME) or some_name()
    uid, start = uuid.uuid4().hex, started_at if started_at is not None else ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        stage, root = sql.one("SELECT stage, location FROM experiment WHERE id = ?", (number,)) or ("", "")
        if stage != "active":
            raise DataError(f"The experiment {experiment_id} must be in the 'active' state. Current state is {stage}.")
        execution = ledger.begin_execution(sql, "run", name, started_at=start * 1000)
        location = below(root, uid, "artifacts")
        sql.run(
            "INSERT INTO run (execution, uid, experiment, name, who, stage, started_at, location) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
            (execution, uid, number, name, who, start, location),
        )
        sql.many(_PUT_TAG, [(execution, key, value) for key, value in pairs.items()])
    info = RunInfo(uid, uid, name, str(number), who, "RUNNING", start, location, "active")
    return Run(info, RunData(tags=[Pair(key, value) for key, value in sorted(pairs.items())]), Inputs())


def active(sql: Driver, run_id: str) -> tuple[int, int]:
    """The numbers of a run and its experiment; raises UnknownName, and DataError for a deleted one."""
    row = sql.one("SELECT execution, experiment, stage FROM run WHERE uid = ?", (check_run_id(run_id),))
    if row is None:
        raise UnknownName(f"Run with id={run_id} not found")
    if row[2] != "active":
        raise DataError(f"The run {run_id} must be in the 'active' state. Current state is {row[2]}.")
    return row[0], row[1]


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def get_run(ledger: Ledger, run_id: str) -> Run:
    """A run, active or deleted; raises UnknownName."""
    check_run_id(run_id)
    with ledger.records.snapshot() as sql:
        rows = sql.all(f"SELECT {COLUMNS} WHERE r.uid = ?", (run_id,))
        if not rows:
            raise UnknownName(f"Run with id={run_id} not found")
        return runs_of(sql, rows)[0]


def runs_of(sql: Driver, rows: Sequence[Row]) -> list[Run]:
    """Rows of COLUMNS as values, with all that the runs logged."""
    numbers = [row[0] for row in rows]
    metrics: dict[object, list[Metric]] = {number: [] for number in numbers}
    params: dict[object, list[Pair]] = {number: [] for number in numbers}
    tags: dict[object, list[Pair]] = {number: [] for number in numbers}
    for some in _slices(numbers):
        marks = ", ".join("?" * len(some))
        query = (
            "SELECT l.run, n.name, l.value, l.nan, l.timestamp, l.step FROM metric_latest AS l JOIN metric_name AS n ON n.id = l.name "
            f"WHERE l.run IN ({marks}) ORDER BY l.run, n.name"
        )
        for run, key, value, nan, timestamp, step in sql.all(query, some):
            metrics[run].append(Metric(key, float("nan") if nan else value, timestamp, step))
        for table, found in (("param", params), ("tag", tags)):
            for run, key, value in sql.all(f"SELECT run, key, value FROM {table} WHERE run IN ({marks}) ORDER BY run, key", some):
                found[run].append(Pair(key, value))
    inputs, outputs = _inputs(sql, numbers), _models(sql, numbers, "output")
    read = _models(sql, numbers, "input")
    found_runs = []
    for number, *row in rows:
        data = RunData(metrics[number] or None, params[number] or None, tags[number] or None)
        made = Outputs(outputs[number]) if number in outputs else None
        found_runs.append(Run(_info(row), data, Inputs(inputs.get(number), read.get(number)), made))
    return found_runs


def _info(row: Sequence[Any]) -> RunInfo:
    uid, name, experiment, who, status, start, location, stage, end = row
    ended = None if end is None else end // 1000
    return RunInfo(uid, uid, name, str(experiment), who, TOLD[status], start, location, stage, ended)


def _slices(numbers: Sequence[object], size: int = 500) -> Iterable[Sequence[object]]:
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


def rows_of(sql: Driver, numbers: Sequence[object]) -> list[Row]:
    """Rows of COLUMNS of these executions, in any order."""
    return [
        row for some in _slices(numbers) for row in sql.all(f"SELECT {COLUMNS} WHERE r.execution IN ({', '.join('?' * len(some))})", some)
    ]


def _inputs(sql: Driver, numbers: Sequence[object]) -> dict[object, list[DatasetInput]]:
    found: dict[object, list[DatasetInput]] = {}
    for some in _slices(numbers):
        query = (
            "SELECT i.run, i.tags, d.name, d.digest, d.source_type, d.source, d.schema, d.profile "
            f"FROM run_input AS i JOIN run_dataset AS d ON d.id = i.dataset WHERE i.run IN ({', '.join('?' * len(some))}) ORDER BY d.id"
        )
        for run, tags, *rest in sql.all(query, some):
            found.setdefault(run, []).append(DatasetInput(Dataset(*rest), msgspec.json.decode(tags, type=list[Pair])))
    return found


def _models(sql: Driver, numbers: Sequence[object], role: str) -> dict[object, list[ModelRef]]:
    found: dict[object, list[ModelRef]] = {}
    for some in _slices(numbers):
        query = f"SELECT run, model, step FROM run_model WHERE run IN ({', '.join('?' * len(some))}) AND role = ? ORDER BY step, model"
        for run, model, step in sql.all(query, [*some, role]):
            found.setdefault(run, []).append(ModelRef(model, step if role == "output" else None))
    return found


# ── logging ─────────────────────────────────────────────────────────────────────────────────────────────────────


def log_metric(ledger: Ledger, run_id: str, one: Metric) -> None:
    """Append one value; it is kept when this returns. The same point again changes nothing."""
    point = check_metric(one)
    with ledger.records.transaction() as sql:
        run, experiment = active(sql, run_id)
        names = put_metrics(sql, ledger.records, run, experiment, [point])
        if one.model_id:
            put_model_metrics(sql, run_id, [one])
    remember(ledger.records, names)


def log_param(ledger: Ledger, run_id: str, one: Pair) -> None:
    """Write a parameter once; the same value again is fine, another raises DataError."""
    pair = check_param(one)
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        _put_params(sql, run_id, run, [pair])


def _put_params(sql: Driver, run_id: str, run: int, pairs: Sequence[tuple[str, str]]) -> None:
    if not pairs:
        return
    marks = ", ".join("?" * len(pairs))
    rows = sql.all(f"SELECT key, value FROM param WHERE run = ? AND key IN ({marks})", [run, *(key for key, _ in pairs)])
    there: dict[str, str] = dict(rows)
    other = [(key, there[key], value) for key, value in pairs if there.get(key, value) != value]
    if other:
        key, old, new = other[0]
        raise DataError(
            f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' for run ID='{run_id}'. "
            f"Attempted logging new value '{new}'."
        )
    sql.many(PUT_PARAM, [(run, key, value) for key, value in pairs])


def set_tag(ledger: Ledger, run_id: str, one: Pair) -> None:
    """Set a tag; `mlflow.runName` is the run's name too."""
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        put_tags(sql, run, [check_tag(one)])


def append_to_tag(ledger: Ledger, run_id: str, key: str, item: Any) -> None:
    """Add an item to a tag that is a JSON list. Raises DataError for a tag that is none, and for a list that grows too long."""
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        row = sql.one("SELECT value FROM tag WHERE run = ? AND key = ?", (run, key))
        try:
            before = msgspec.json.decode(str(row[0]), type=list[Any]) if row else []
        except (msgspec.MsgspecError, RecursionError):
            raise DataError(f"the tag {key!r} of run {run_id} is no list", hint="delete the tag") from None
        value = msgspec.json.encode([*before, item]).decode()
        if len(value) > LIST:
            raise DataError(f"the tag {key!r} of run {run_id} would be longer than {LIST} characters", hint="log to another run")
        put_tags(sql, run, [(key, value)])


def put_tags(sql: Driver, run: int, pairs: Sequence[tuple[str, str]]) -> None:
    """Set tags that were checked; `mlflow.runName` is the run's name too."""
    sql.many(_PUT_TAG, [(run, key, value) for key, value in pairs])
    for key, value in pairs:
        if key == NAME:
            sql.run("UPDATE run SET name = ? WHERE execution = ?", (value, run))


def delete_tag(ledger: Ledger, run_id: str, key: str) -> None:
    """Take a tag away; raises UnknownName when there is none."""
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        if not sql.run("DELETE FROM tag WHERE run = ? AND key = ?", (run, key)):
            raise UnknownName(f"No tag with name: {key} in run with id {run_id}")


def log_batch(ledger: Ledger, run_id: str, metrics: Sequence[Metric], params: Sequence[Pair], tags: Sequence[Pair]) -> None:
    """Log all of these, or nothing when one of them is wrong."""
    check_batch(metrics, params, tags)
    points = [check_metric(one, f"metrics[{i}]") for i, one in enumerate(metrics)]
    own = [check_param(one, f"params[{i}]") for i, one in enumerate(params)]
    marks = [check_tag(one, f"tags[{i}]") for i, one in enumerate(tags)]
    with ledger.records.transaction() as sql:
        run, experiment = active(sql, run_id)
        _put_params(sql, run_id, run, own)
        put_tags(sql, run, marks)
        names = put_metrics(sql, ledger.records, run, experiment, points)
        put_model_metrics(sql, run_id, [one for one in metrics if one.model_id])
    remember(ledger.records, names)


def put_model_metrics(sql: Driver, run_id: str, metrics: Sequence[Metric]) -> None:
    """Keep the values that were measured of a logged model with that model too."""
    rows = []
    for one in metrics:
        key, value, nan, timestamp, step = check_metric(one)
        rows.append(
            (one.model_id, key, timestamp, step, one.run_id or run_id, value, nan, one.dataset_name or "", one.dataset_digest or "")
        )
    sql.many(
        "INSERT INTO logged_model_metric (model, name, timestamp, step, run, value, nan, dataset, digest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        rows,
    )


# ── what becomes of a run ───────────────────────────────────────────────────────────────────────────────────────


def update_run(ledger: Ledger, run_id: str, *, status: str = "", ended_at: int | None = None, name: str = "") -> RunInfo:
    """Tell a run's status, its end or its name; raises DataError for a status that is none."""
    if status and status not in STATUS:
        raise DataError(f"Invalid status {status!r}", available=list(STATUS))
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        if status or ended_at is not None:
            before = sql.one("SELECT status FROM execution WHERE id = ?", (run,))
            assert before is not None
            ledger.end_execution(sql, run, STATUS[status] if status else before[0], None if ended_at is None else ended_at * 1000)
        if name:
            put_tags(sql, run, [(NAME, name)])
        return _info(sql.all(f"SELECT {COLUMNS} WHERE r.execution = ?", (run,))[0][1:])


def delete_run(ledger: Ledger, run_id: str) -> None:
    """Mark a run as deleted."""
    _move(ledger, run_id, "deleted", ledger.wall())


def restore_run(ledger: Ledger, run_id: str) -> None:
    """Take a deleted run back."""
    _move(ledger, run_id, "active", None)


def _move(ledger: Ledger, run_id: str, stage: str, deleted_at: int | None) -> None:
    with ledger.records.transaction() as sql:
        if not sql.run("UPDATE run SET stage = ?, deleted_at = ? WHERE uid = ?", (stage, deleted_at, check_run_id(run_id))):
            raise UnknownName(f"Run with id={run_id} not found")


# ── what a run read and made ────────────────────────────────────────────────────────────────────────────────────


def log_inputs(ledger: Ledger, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[ModelRef] = ()) -> None:
    """Datasets and logged models that a run read."""
    with ledger.records.transaction() as sql:
        run, experiment = active(sql, run_id)
        for one in datasets:
            put_input(sql, run, experiment, one)
        put_model_refs(sql, run, "input", models)


def put_input(sql: Driver, run: int, experiment: int, one: DatasetInput) -> None:
    """Write down a dataset that a run read; raises DataError for one without a name, or with texts that are too long."""
    found, tags = check_dataset(one)
    columns = (experiment, found.name, found.digest, found.source_type, found.source, found.schema, found.profile)
    sql.run(
        "INSERT INTO run_dataset (experiment, name, digest, source_type, source, schema, profile) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        columns,
    )
    row = sql.one("SELECT id FROM run_dataset WHERE experiment = ? AND name = ? AND digest = ?", columns[:3])
    assert row is not None
    context = next((tag.value or "" for tag in tags if tag.key == "mlflow.data.context"), "")
    sql.run(
        "INSERT INTO run_input (run, dataset, tags, context) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (run, row[0], msgspec.json.encode(tags).decode(), context),
    )


def log_outputs(ledger: Ledger, run_id: str, models: Sequence[ModelRef]) -> None:
    """Logged models that a run made, each at a step."""
    with ledger.records.transaction() as sql:
        run, _ = active(sql, run_id)
        put_model_refs(sql, run, "output", models)


def put_model_refs(sql: Driver, run: int, role: str, models: Sequence[ModelRef]) -> None:
    """Write down which logged models a run read (`role` is input) or made (output)."""
    rows = [(run, check_model_id(one.model_id), role, one.step or 0) for one in models]
    sql.many("INSERT INTO run_model (run, model, role, step) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
