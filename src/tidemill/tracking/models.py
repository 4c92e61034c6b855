"""Logged models: what `log_model` of MLflow 3 makes, before and beside the registry."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Row
from tidemill.tracking.conditions import Sql, all_of, compare
from tidemill.tracking.experiments import below, number_of, one_of
from tidemill.tracking.filters import MODELS, Comparison, identify, parse
from tidemill.tracking.limits import LIST, PARAM_VALUE, check_key, experiment_numbers, page_size, short
from tidemill.tracking.metrics import rows_before, write_token
from tidemill.tracking.values import Metric, Pair, Value

STATUSES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
VERSIONS_TAG = "mlflow.modelVersions"
COLUMNS = "id, experiment, name, type, run, status, message, location, created_at, updated_at"
_ATTRIBUTES = {
    "name": "m.name",
    "model_id": "m.id",
    "model_type": "m.type",
    "status": "m.status",
    "source_run_id": "m.run",
    "status_message": "m.message",
    "experiment_id": "CAST(m.experiment AS TEXT)",
    "creation_timestamp": "m.created_at",
    "last_updated_timestamp": "m.updated_at",
}


class LoggedModelInfo(Value):
    """What a logged model is."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str | None = None
    source_run_id: str | None = None
    status_message: str | None = None
    tags: list[Pair] | None = None


class LoggedModelData(Value):
    """Its parameters and what was measured of it."""

    params: list[Pair] | None = None
    metrics: list[Metric] | None = None


class LoggedModel(Value):
    """A logged model, whole."""

    info: LoggedModelInfo
    data: LoggedModelData


class OrderBy(Value):
    """One key of a sort of logged models."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


class DatasetFilter(Value):
    """A dataset on which a metric must have been measured."""

    dataset_name: str = ""
    dataset_digest: str | None = None


def create_model(
    ledger: Ledger,
    experiment_id: str,
    *,
    name: str,
    kind: str = "",
    run_id: str = "",
    params: Sequence[Pair] = (),
    tags: Sequence[Pair] = (),
) -> LoggedModel:
    """A new logged model, which waits for its files."""
    if name and not all(sign not in name for sign in "/:.%\"'"):
        raise DataError(f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and cannot contain: / : . % \" '")
    model_id, now = f"m-{uuid.uuid4().hex}", ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        experiment = one_of(sql, number)
        if experiment.lifecycle_stage != "active":
            raise DataError(f"The experiment {experiment_id} must be in the 'active' state. Current state is {experiment.lifecycle_stage}.")
        location = below(experiment.artifact_location, "models", model_id, "artifacts")
        given = name or f"model-{model_id[2:10]}"
        sql.run(
            f"INSERT INTO logged_model ({COLUMNS}, stage) VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?, 'active')",
            (model_id, number, given, kind, run_id, STATUSES[0], location, now, now),
        )
        _put_params(sql, model_id, params)
        _put_tags(sql, model_id, tags)
        return _one(sql, model_id)


def take_model(sql: Driver, model: LoggedModel, experiment: int, location: str) -> None:
    """Keep a logged model that was made elsewhere, as it is, in an open transaction. Its metrics are kept beside it."""
    info, data = model.info, model.data
    columns = (info.name, info.model_type or "", info.source_run_id or "", info.status, info.status_message or "", location)
    sql.run(
        f"INSERT INTO logged_model ({COLUMNS}, stage) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'active')",
        (info.model_id, experiment, *columns, info.creation_timestamp_ms, info.last_updated_timestamp_ms),
    )
    _put_params(sql, info.model_id, data.params or ())
    _put_tags(sql, info.model_id, info.tags or ())


def _put_params(sql: Driver, model_id: str, params: Sequence[Pair]) -> None:
    rows = [(model_id, check_key(one.key), (one.value or "")[:PARAM_VALUE]) for one in params]
    sql.many("INSERT INTO logged_model_param (model, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)


def _put_tags(sql: Driver, model_id: str, tags: Sequence[Pair]) -> None:
    rows = [(model_id, check_key(one.key), short(one.value or "", "value", LIST)) for one in tags]
    put = "INSERT INTO logged_model_tag (model, key, value) VALUES (?, ?, ?) ON CONFLICT (model, key) DO UPDATE SET value = excluded.value"
    sql.many(put, rows)


def get_model(ledger: Ledger, model_id: str) -> LoggedModel:
    """A logged model; raises UnknownName."""
    with ledger.records.snapshot() as sql:
        return _one(sql, model_id)


def _one(sql: Driver, model_id: str) -> LoggedModel:
    rows = sql.all(f"SELECT {COLUMNS} FROM logged_model WHERE id = ? AND stage = 'active'", (model_id,))
    if not rows:
        raise UnknownName(f"Logged model with ID '{model_id}' not found.")
    return _of(sql, rows)[0]


def _of(sql: Driver, rows: Sequence[Row]) -> list[LoggedModel]:
    return [
        LoggedModel(
            LoggedModelInfo(
                row[0], str(row[1]), row[2], row[8], row[9], row[7], row[5], row[3] or None, row[4] or None, row[6] or None,
                _pairs(sql, "tag", row[0]),
            ),
            LoggedModelData(_pairs(sql, "param", row[0]), _metrics(sql, row[0])),
        )
        for row in rows
    ]  # fmt: skip


def _pairs(sql: Driver, what: str, model: object) -> list[Pair] | None:
    rows = sql.all(f"SELECT key, value FROM logged_model_{what} WHERE model = ? ORDER BY key", (model,))
    return [Pair(key, value) for key, value in rows] or None


def _metrics(sql: Driver, model: object) -> list[Metric] | None:
    """The newest value of each metric on each dataset."""
    query = (  # those of the greatest step of each, among which the last is the newest
        "SELECT l.name, l.value, l.nan, l.timestamp, l.step, l.dataset, l.digest, l.run FROM logged_model_metric AS l JOIN "
        "(SELECT name, dataset, digest, max(step) AS step FROM logged_model_metric WHERE model = ? GROUP BY name, dataset, digest) AS g "
        "ON g.name = l.name AND g.dataset = l.dataset AND g.digest = l.digest AND g.step = l.step WHERE l.model = ? "
        "ORDER BY l.name, l.dataset, l.digest, l.timestamp, l.value"
    )
    newest: dict[tuple[str, str, str], Metric] = {}
    for name, value, nan, timestamp, step, dataset, digest, run in sql.all(query, (model, model)):
        number = float("nan") if nan else value
        newest[name, dataset, digest] = Metric(name, number, timestamp, step, dataset or None, digest or None, str(model), run)
    return list(newest.values()) or None


def finalize_model(ledger: Ledger, model_id: str, status: str) -> LoggedModel:
    """Say that a logged model is whole, or that its upload failed."""
    if status not in STATUSES:
        raise DataError(f"Invalid model status: {status}", available=list(STATUSES))
    with ledger.records.transaction() as sql:
        _change(ledger, sql, model_id, "status", status)
        return _one(sql, model_id)


def _change(ledger: Ledger, sql: Driver, model_id: str, column: str, value: str) -> None:
    query = f"UPDATE logged_model SET {column} = ?, updated_at = ? WHERE id = ? AND stage = 'active'"
    if not sql.run(query, (value, ledger.wall() // 1000, model_id)):
        raise UnknownName(f"Logged model with ID '{model_id}' not found.")


def delete_model(ledger: Ledger, model_id: str) -> None:
    """Mark a logged model as deleted."""
    with ledger.records.transaction() as sql:
        _change(ledger, sql, model_id, "stage", "deleted")


def set_model_tags(ledger: Ledger, model_id: str, tags: Sequence[Pair]) -> LoggedModel:
    """Set tags of a logged model."""
    with ledger.records.transaction() as sql:
        _one(sql, model_id)
        _put_tags(sql, model_id, tags)
        return _one(sql, model_id)


def note_version(sql: Driver, model_id: str, name: str, number: int) -> None:
    """Note with a logged model, in an open transaction, which version of a registered model was made of it. One that is not here, or with
    a note that is no list, is left alone."""
    if not model_id or not sql.one("SELECT 1 FROM logged_model WHERE id = ? AND stage = 'active'", (model_id,)):
        return
    row = sql.one("SELECT value FROM logged_model_tag WHERE model = ? AND key = ?", (model_id, VERSIONS_TAG))
    try:
        before = msgspec.json.decode(str(row[0]), type=list[Any]) if row else []
    except msgspec.MsgspecError:
        return
    _put_tags(sql, model_id, [Pair(VERSIONS_TAG, json.dumps([*before, {"name": name, "version": number}]))])


def delete_model_tag(ledger: Ledger, model_id: str, key: str) -> None:
    """Take a tag away; raises UnknownName when there is none."""
    with ledger.records.transaction() as sql:
        _one(sql, model_id)
        if not sql.run("DELETE FROM logged_model_tag WHERE model = ? AND key = ?", (model_id, key)):
            raise UnknownName(f"No tag with key {key!r} found for model with ID {model_id!r}.")


def log_model_params(ledger: Ledger, model_id: str, params: Sequence[Pair]) -> None:
    """Write parameters of a logged model."""
    with ledger.records.transaction() as sql:
        _one(sql, model_id)
        _put_params(sql, model_id, params)


def search_models(
    ledger: Ledger,
    experiment_ids: Sequence[str],
    text: str = "",
    *,
    datasets: Sequence[DatasetFilter] = (),
    order_by: Sequence[OrderBy] = (),
    max_results: int | None = None,
    page_token: str = "",
) -> tuple[list[LoggedModel], str | None]:
    """A page of logged models, the newest first where no order is given, and the token of the next. Raises DataError."""
    size, wanted = page_size(max_results, 50, 1_000), parse(text, MODELS)
    before = rows_before(page_token)
    numbers = experiment_numbers(experiment_ids)
    if not numbers:
        return [], None
    if any(not one.dataset_name for one in datasets):
        raise DataError("`dataset_name` in the `datasets` clause must be specified.")
    on = _on(datasets)
    with ledger.records.snapshot() as sql:
        where = [Sql(f"m.experiment IN ({', '.join('?' * len(numbers))})", tuple(numbers)), Sql("m.stage = 'active'")]
        where += [_condition(sql, one, on) for one in wanted]
        if datasets and not any(one.kind == "metric" for one in wanted):
            where.append(Sql("EXISTS (SELECT 1 FROM logged_model_metric AS l WHERE l.model = m.id") + on + Sql(")"))
        chosen = all_of(where)
        keys = [_key(one) for one in order_by]
        sort = "".join(f"CASE WHEN {key.text} IS NULL THEN 1 ELSE 0 END, {key.text} {to}, " for key, to in keys)
        values = [value for key, _ in keys for value in (*key.values, *key.values)]
        query = (
            f"SELECT {', '.join(f'm.{name}' for name in COLUMNS.split(', '))} FROM logged_model AS m WHERE {chosen.text} "
            f"ORDER BY {sort}m.created_at DESC, m.id LIMIT ? OFFSET ?"
        )
        rows = sql.all(query, (*chosen.values, *values, size + 1, before))
        return _of(sql, rows[:size]), write_token([before + size]) if len(rows) > size else None


def _on(datasets: Sequence[DatasetFilter]) -> Sql:
    """That a metric was measured on one of these datasets."""
    if not datasets:
        return Sql("")
    parts = [
        Sql("(l.dataset = ? AND l.digest = ?)", (one.dataset_name, one.dataset_digest))
        if one.dataset_digest
        else Sql("l.dataset = ?", (one.dataset_name,))
        for one in datasets
    ]
    values = tuple(value for part in parts for value in part.values)
    return Sql(f" AND ({' OR '.join(part.text for part in parts)})", values)


def _condition(sql: Driver, one: Comparison, on: Sql) -> Sql:
    if one.kind == "attribute":
        return compare(sql, _ATTRIBUTES[one.key], one)
    if one.kind == "metric":
        there = Sql("EXISTS (SELECT 1 FROM logged_model_metric AS l WHERE l.model = m.id AND l.nan = 0 AND l.name = ? AND ", (one.key,))
        return there + compare(sql, "l.value", one) + on + Sql(")")
    there = Sql(f"EXISTS (SELECT 1 FROM logged_model_{one.kind} AS p WHERE p.model = m.id AND p.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    return there + Sql(" AND ") + compare(sql, "p.value", one) + Sql(")")


def _key(order: OrderBy) -> tuple[Sql, str]:
    kind, key = identify(order.field_name, MODELS)
    to = "ASC" if order.ascending else "DESC"
    if kind == "attribute":
        return Sql(_ATTRIBUTES[key]), to
    if kind != "metric":
        raise DataError(f"Invalid order by field name: {order.field_name}. Only metrics are supported.")
    on = Sql("")
    if order.dataset_name:
        on = _on([DatasetFilter(order.dataset_name, order.dataset_digest)])
    inner = "(SELECT l.value FROM logged_model_metric AS l WHERE l.model = m.id AND l.nan = 0 AND l.name = ?"
    return Sql(inner, (key,)) + on + Sql(" ORDER BY l.step DESC, l.timestamp DESC LIMIT 1)"), to
