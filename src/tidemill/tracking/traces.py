"""Traces: what a call of a program did, span by span. What a trace is stands in the records; its spans are a file beside it, which the
client writes and reads through the artifact proxy."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Row
from tidemill.tracking.conditions import Sql, all_of, compare
from tidemill.tracking.experiments import below, number_of, one_of
from tidemill.tracking.filters import TRACES, Comparison, Order, parse, parse_order
from tidemill.tracking.limits import KEY, LIST, TAG_VALUE, experiment_numbers, page_size, short
from tidemill.tracking.metrics import rows_before, write_token
from tidemill.tracking.values import Value

LOCATION, NAME, RUN = "mlflow.artifactLocation", "mlflow.traceName", "mlflow.sourceRun"
_COLUMNS = "t.id, t.experiment, t.client_id, t.requested_at, t.took, t.state, t.request, t.response, t.assessments"
_OF_TAG = "(SELECT x.value FROM trace_tag AS x WHERE x.trace = t.id AND x.key = '" + NAME + "')"
_OF_RUN = "(SELECT x.value FROM trace_metadata AS x WHERE x.trace = t.id AND x.key = '" + RUN + "')"
_ATTRIBUTES = {"name": _OF_TAG, "status": "t.state", "trace_id": "t.id", "run_id": _OF_RUN, "client_request_id": "t.client_id"}
_ATTRIBUTES |= {"timestamp": "t.requested_at", "execution_time": "t.took"}
MOST = 100  # traces that one call deletes where it does not say how many
MOST_IDS = 10_000  # that it may name
PREVIEW = 10_000  # characters that are kept of a request and of its response; the whole stands in the spans


class MlflowExperiment(Value):
    """Where a trace belongs."""

    experiment_id: str = ""


class Location(Value):
    """Where a trace belongs."""

    type: str = ""
    mlflow_experiment: MlflowExperiment | None = None


class TraceInfo(Value):
    """What a trace is; `request_time` is RFC 3339, `execution_duration` seconds as in `0.25s`."""

    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: Location | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str | None = None
    execution_duration: str | None = None
    state: str | None = None
    trace_metadata: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    assessments: list[dict[str, Any]] | None = None


def start_trace(ledger: Ledger, info: TraceInfo) -> TraceInfo:
    """Keep what a trace is, and say where its spans go. The same trace again takes the place of the first."""
    if not info.trace_id or info.trace_location is None or info.trace_location.mlflow_experiment is None:
        raise DataError("a trace needs its trace_id and the experiment that it belongs to")
    at, took = _milliseconds(info.request_time), _duration(info.execution_duration)
    names = {name: short(getattr(info, name) or "", name, KEY) for name in ("trace_id", "client_request_id", "state")}
    tags, metadata = _pairs(info.tags), _pairs(info.trace_metadata)
    texts = ((info.request_preview or "")[:PREVIEW], (info.response_preview or "")[:PREVIEW], _assessed(info))
    with ledger.records.transaction() as sql:
        number = number_of(sql, info.trace_location.mlflow_experiment.experiment_id)
        root = one_of(sql, number).artifact_location
        sql.run("DELETE FROM trace WHERE id = ?", (info.trace_id,))
        sql.run(
            "INSERT INTO trace (id, experiment, client_id, requested_at, took, state, request, response, assessments) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (info.trace_id, number, names["client_request_id"], at, took, names["state"] or "STATE_UNSPECIFIED", *texts),
        )
        tags[LOCATION] = below(root, "traces", info.trace_id, "artifacts")
        for table, pairs in (("trace_tag", tags), ("trace_metadata", metadata)):
            sql.many(_put(table), [(info.trace_id, key, value) for key, value in pairs.items()])
        return _one(sql, info.trace_id)


def _assessed(info: TraceInfo) -> str:
    return short(msgspec.json.encode(info.assessments or []).decode(), "assessments", LIST)


def _pairs(found: dict[str, str] | None) -> dict[str, str]:
    """Tags; a value that is too long is cut, as of a run."""
    return {short(key, "key", KEY): value[:TAG_VALUE] for key, value in (found or {}).items()}


def _put(table: str) -> str:
    return f"INSERT INTO {table} (trace, key, value) VALUES (?, ?, ?) ON CONFLICT (trace, key) DO UPDATE SET value = excluded.value"


def _milliseconds(text: str | None) -> int:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise DataError(f"Invalid value {text!r} for parameter 'request_time' supplied: a time such as 2026-01-31T12:00:00Z") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def _duration(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(float(text.removesuffix("s")) * 1000)
    except (ValueError, OverflowError):
        raise DataError(f"Invalid value {text!r} for parameter 'execution_duration' supplied: seconds such as 0.25s") from None


def get_trace(ledger: Ledger, trace_id: str) -> TraceInfo:
    """What a trace is; raises UnknownName."""
    with ledger.records.snapshot() as sql:
        return _one(sql, trace_id)


def _one(sql: Driver, trace_id: str) -> TraceInfo:
    rows = sql.all(f"SELECT {_COLUMNS} FROM trace AS t WHERE t.id = ?", (trace_id,))
    if not rows:
        raise UnknownName(f"Trace with ID '{trace_id}' not found.")
    return _of(sql, rows[0])


def _of(sql: Driver, row: Row) -> TraceInfo:
    trace_id, experiment, client, at, took, state, request, response, assessments = row
    pairs: dict[str, dict[str, str]] = {
        table: dict(sql.all(f"SELECT key, value FROM {table} WHERE trace = ? ORDER BY key", (trace_id,)))
        for table in ("trace_tag", "trace_metadata")
    }
    moment = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    seconds = None if took is None else f"{took / 1000:.3f}s"
    location = Location("MLFLOW_EXPERIMENT", MlflowExperiment(str(experiment)))
    found = msgspec.json.decode(assessments)
    texts = (trace_id, client or None, location, request or None, response or None, moment, seconds, state)
    return TraceInfo(*texts, pairs["trace_metadata"], pairs["trace_tag"], found or None)


def search_traces(
    ledger: Ledger,
    experiment_ids: Sequence[str],
    text: str = "",
    *,
    order_by: Sequence[str] = (),
    max_results: int | None = None,
    token: str = "",
) -> tuple[list[TraceInfo], str | None]:
    """A page of traces, the newest first where no order is given, and the token of the next. Raises DataError."""
    size, wanted, orders = page_size(max_results, 100, 500), parse(text, TRACES), parse_order(order_by, TRACES)
    before = rows_before(token)
    numbers = experiment_numbers(experiment_ids)
    if not numbers:
        return [], None
    with ledger.records.snapshot() as sql:
        where = [Sql(f"t.experiment IN ({', '.join('?' * len(numbers))})", tuple(numbers)), *(_condition(sql, one) for one in wanted)]
        chosen = all_of(where)
        query = f"SELECT {_COLUMNS} FROM trace AS t WHERE {chosen.text} ORDER BY {_sort(orders)}t.requested_at DESC, t.id LIMIT ? OFFSET ?"
        rows = sql.all(query, (*chosen.values, size + 1, before))
        return [_of(sql, row) for row in rows[:size]], write_token([before + size]) if len(rows) > size else None


def _sort(orders: Sequence[Order]) -> str:
    if any(one.kind != "attribute" for one in orders):
        raise DataError("traces are ordered by their attributes only", available=sorted(_ATTRIBUTES))
    return "".join(f"{_ATTRIBUTES[one.key]} {'DESC NULLS LAST' if one.descending else 'ASC NULLS FIRST'}, " for one in orders)


def _condition(sql: Driver, one: Comparison) -> Sql:
    if one.kind == "attribute":
        return compare(sql, _ATTRIBUTES[one.key], one)
    there = Sql(f"EXISTS (SELECT 1 FROM trace_{one.kind} AS x WHERE x.trace = t.id AND x.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    return there + Sql(" AND ") + compare(sql, "x.value", one) + Sql(")")


def set_trace_tag(ledger: Ledger, trace_id: str, key: str, value: str) -> None:
    """Set a tag of a trace."""
    with ledger.records.transaction() as sql:
        _one(sql, trace_id)
        sql.many(_put("trace_tag"), [(trace_id, *pair) for pair in _pairs({key: value}).items()])


def delete_trace_tag(ledger: Ledger, trace_id: str, key: str) -> None:
    """Take a tag of a trace away; raises UnknownName when there is none."""
    with ledger.records.transaction() as sql:
        if not sql.run("DELETE FROM trace_tag WHERE trace = ? AND key = ?", (trace_id, key)):
            raise UnknownName(f"No trace tag with key '{key}' for trace with ID '{trace_id}'")


def delete_traces(
    ledger: Ledger, experiment_id: str, *, until: int | None = None, most: int | None = None, trace_ids: Sequence[str] = ()
) -> int:
    """Delete traces by id, or the oldest up to a time (milliseconds); returns how many."""
    if len(trace_ids) > MOST_IDS or (most is not None and most < 1):
        raise DataError(f"One call deletes at least one trace, and at most {MOST_IDS} by their ids. Got {len(trace_ids) or most}")
    if bool(trace_ids) == (until is not None):
        raise DataError("Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.")
    with ledger.records.transaction() as sql:
        number = number_of(sql, experiment_id)
        if trace_ids:
            marks = ", ".join("?" * len(trace_ids))
            rows = sql.all(f"SELECT id FROM trace WHERE experiment = ? AND id IN ({marks})", (number, *trace_ids))
        else:
            query = "SELECT id FROM trace WHERE experiment = ? AND requested_at <= ? ORDER BY requested_at LIMIT ?"
            rows = sql.all(query, (number, until, MOST if most is None else most))
        for table, column in (("trace", "id"), ("trace_tag", "trace"), ("trace_metadata", "trace")):
            sql.many(f"DELETE FROM {table} WHERE {column} = ?", rows)
        return len(rows)
