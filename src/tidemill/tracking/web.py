"""The part of MLflow's REST protocol about experiments, runs, metrics, logged models and artifacts: requests, and what answers them.

Requests and answers are those of MLflow 3.17's protobuf messages, as JSON.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tidemill.core import Call, DataError, answer, page
from tidemill.ledger import Ledger
from tidemill.tracking import artifacts, experiments, metrics, models, runs, search, traces
from tidemill.tracking.limits import missing
from tidemill.tracking.models import DatasetFilter, LoggedModel, OrderBy
from tidemill.tracking.traces import Location, TraceInfo
from tidemill.tracking.values import DatasetInput, FileInfo, Metric, ModelRef, Pair, Run, RunInfo, Tagging

API = "/api/2.0/mlflow"
HUGE = 1.7976931348623157e308


class Nothing(msgspec.Struct):
    """A request without fields."""


Answer = dict[str, Any]


def told(found: list[Metric] | None) -> list[Metric]:
    """Metrics as JSON can say them: what is not a number is the text "NaN", and infinity the greatest number, as MLflow has it."""
    for one in found or ():
        if one.value is not None and not -HUGE <= one.value <= HUGE:
            one.value = "NaN" if one.value != one.value else HUGE if one.value > 0 else -HUGE  # type: ignore[assignment]
    return found or []


def _run(run: Run) -> Run:
    told(run.data.metrics)
    return run


def _model(model: LoggedModel) -> Answer:
    told(model.data.metrics)
    return {"model": model}


def _told(act: Callable[..., LoggedModel], *fields: str) -> Callable[[Any, Any], Answer]:
    """What answers with a logged model."""
    return lambda ledger, ask: _model(act(ledger, *(getattr(ask, field) for field in fields)))


# ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────


class CreateExperiment(msgspec.Struct):
    name: str = ""
    artifact_location: str = ""
    tags: list[Pair] = []


class ExperimentId(msgspec.Struct):
    experiment_id: str = ""


class ExperimentName(msgspec.Struct):
    experiment_name: str = ""


class UpdateExperiment(ExperimentId):
    new_name: str = ""


class ExperimentTag(Tagging, ExperimentId):
    """A tag of an experiment."""

    key: str = ""
    value: str = ""


class Search(msgspec.Struct):
    max_results: int | None = None
    page_token: str = ""
    filter: str = ""
    order_by: list[str] = []
    view_type: str = "ACTIVE_ONLY"


def _create_experiment(ledger: Ledger, ask: CreateExperiment) -> Answer:
    return {"experiment_id": experiments.create_experiment(ledger, ask.name, ask.artifact_location, ask.tags)}


def _search_experiments(ledger: Ledger, ask: Search) -> Answer:
    if ask.max_results is None:
        raise missing("max_results")
    found, token = search.search_experiments(
        ledger, ask.filter, view=ask.view_type, order_by=ask.order_by, max_results=ask.max_results, page_token=ask.page_token
    )
    return page("experiments", found, token)


def _experiment_by_name(ledger: Ledger, ask: ExperimentName) -> Answer:
    return {"experiment": experiments.get_experiment_by_name(ledger, ask.experiment_name)}


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


class CreateRun(msgspec.Struct):
    experiment_id: str = "0"
    user_id: str = ""
    run_name: str = ""
    start_time: int | None = None
    tags: list[Pair] = []


class RunId(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""

    @property
    def id(self) -> str:
        """By its new name, or by its old one."""
        return self.run_id or self.run_uuid


class UpdateRun(RunId):
    status: str = ""
    end_time: int | None = None
    run_name: str = ""


class LogMetric(RunId):
    key: str = ""
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None

    @property
    def metric(self) -> Metric:
        """The value without its run."""
        return Metric(self.key, self.value, self.timestamp, self.step, self.dataset_name, self.dataset_digest, self.model_id)


class KeyValue(Tagging, RunId):
    """A parameter or tag of a run."""

    key: str = ""
    value: str = ""


class LogBatch(RunId):
    metrics: list[Metric] = []
    params: list[Pair] = []
    tags: list[Pair] = []


class LogInputs(RunId):
    datasets: list[DatasetInput] = []
    models: list[ModelRef] = []


class LogOutputs(RunId):
    models: list[ModelRef] = []


class LogModel(RunId):
    model_json: str = ""


class SearchRuns(msgspec.Struct):
    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: str = "ACTIVE_ONLY"
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str = ""


def _create_run(ledger: Ledger, ask: CreateRun) -> Answer:
    made = runs.create_run(ledger, ask.experiment_id, name=ask.run_name, who=ask.user_id, started_at=ask.start_time, tags=ask.tags)
    return {"run": made}


def _update_run(ledger: Ledger, ask: UpdateRun) -> Answer:
    status = ask.status if ask.status in runs.STATUS else ""
    info: RunInfo = runs.update_run(ledger, ask.id, status=status, ended_at=ask.end_time, name=ask.run_name)
    return {"run_info": info}


def _search_runs(ledger: Ledger, ask: SearchRuns) -> Answer:
    found, token = search.search_runs(
        ledger,
        ask.experiment_ids,
        ask.filter,
        view=ask.run_view_type,
        order_by=ask.order_by,
        max_results=ask.max_results,
        page_token=ask.page_token,
    )
    return page("runs", [_run(run) for run in found], token)


def _log_model(ledger: Ledger, ask: LogModel) -> None:
    """What clients before MLflow 3 tell of a model: the tag `mlflow.log-model.history` is a list that grows."""
    try:
        model = msgspec.json.decode(ask.model_json, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise DataError(f"Malformed model info. \n {ask.model_json[:200]} \n is not valid JSON") from error
    missing_fields = [name for name in ("artifact_path", "flavors", "utc_time_created", "run_id") if name not in model]
    if missing_fields:
        raise DataError(f"Model json is missing mandatory fields: {missing_fields}")
    runs.append_to_tag(ledger, ask.id, "mlflow.log-model.history", model)


# ── histories ───────────────────────────────────────────────────────────────────────────────────────────────────


class History(RunId):
    metric_key: str = ""
    page_token: str = ""
    max_results: int | None = None


class BulkHistory(msgspec.Struct):
    run_id: list[str] = []
    metric_key: str = ""
    max_results: int = 25_000


class SampledHistory(msgspec.Struct):
    run_ids: list[str] = []
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


def _history(ledger: Ledger, ask: History) -> Answer:
    found, token = metrics.history(ledger, ask.id, ask.metric_key, page_token=ask.page_token, max_results=ask.max_results)
    return page("metrics", told(found), token)


def _bulk_history(ledger: Ledger, ask: BulkHistory) -> Answer:
    for needed, what in ((ask.run_id, "at least one run_id"), (ask.metric_key, "a metric_key")):
        if not needed:
            raise DataError(f"GetMetricHistoryBulk request must specify {what}.")
    if len(ask.run_id) > 100:
        raise DataError(f"GetMetricHistoryBulk request cannot specify more than 100 run_ids. Received {len(ask.run_id)} run_ids.")
    return {"metrics": told(metrics.bulk_history(ledger, ask.run_id, ask.metric_key, min(max(ask.max_results, 1), 25_000)))}


def _sampled_history(ledger: Ledger, ask: SampledHistory) -> Answer:
    if len(ask.run_ids) > 100:
        raise DataError(f"GetMetricHistoryBulkInterval request must specify at most 100 run_ids. Received {len(ask.run_ids)} run_ids.")
    points = 320 if ask.max_results is None else ask.max_results
    if not 0 < points <= 2_500:
        raise DataError("max_results must be between 1 and 2500.")
    start, end = ask.start_step, ask.end_step
    if start is not None and end is not None and start > end:
        raise DataError(f"end_step must be greater than start_step. Found start_step={start} and end_step={end}.")
    found = metrics.sampled_history(ledger, ask.run_ids, ask.metric_key, start_step=start, end_step=end, points=points)
    return {"metrics": told(found)}


class SearchDatasets(msgspec.Struct):
    experiment_ids: list[str] = []


def _search_datasets(ledger: Ledger, ask: SearchDatasets) -> Answer:
    if not ask.experiment_ids:
        raise DataError("SearchDatasets request must specify at least one experiment_id.")
    if len(ask.experiment_ids) > 20:
        raise DataError(f"SearchDatasets request cannot specify more than 20 experiment_ids. Received {len(ask.experiment_ids)}.")
    names = ("experiment_id", "name", "digest", "context")
    found = [
        {name: value for name, value in zip(names, row, strict=True) if value} for row in search.search_datasets(ledger, ask.experiment_ids)
    ]
    return {"dataset_summaries": found} if found else {}


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────────


class ListArtifacts(RunId):
    path: str = ""
    page_token: str = ""


class ListModelArtifacts(msgspec.Struct):
    model_id: str = ""
    artifact_directory_path: str = ""


def _list(ledger: Ledger, root: str, path: str) -> Answer:
    found: list[FileInfo] = artifacts.list_files(ledger, artifacts.place_of(root), path)
    return {"root_uri": root, "files": found} if found else {"root_uri": root}


def _list_artifacts(ledger: Ledger, ask: ListArtifacts) -> Answer:
    return _list(ledger, artifacts.files_of_run(ledger, ask.id), ask.path)


def _list_model_artifacts(ledger: Ledger, ask: ListModelArtifacts) -> Answer:
    return _list(ledger, artifacts.files_of_model(ledger, ask.model_id), ask.artifact_directory_path)


# ── logged models ───────────────────────────────────────────────────────────────────────────────────────────────


class CreateModel(ExperimentId):
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: list[Pair] = []
    tags: list[Pair] = []


class ModelId(msgspec.Struct):
    model_id: str = ""


class FinalizeModel(ModelId):
    status: str = ""


class ModelTags(ModelId):
    tags: list[Pair] = []


class ModelTagKey(ModelId):
    tag_key: str = ""


class ModelParams(ModelId):
    params: list[Pair] = []


class SearchModels(msgspec.Struct):
    experiment_ids: list[str] = []
    filter: str = ""
    datasets: list[DatasetFilter] = []
    max_results: int | None = None
    order_by: list[OrderBy] = []
    page_token: str = ""


def _create_model(ledger: Ledger, ask: CreateModel) -> Answer:
    given = {"name": ask.name, "kind": ask.model_type, "run_id": ask.source_run_id, "params": ask.params, "tags": ask.tags}
    return _model(models.create_model(ledger, ask.experiment_id, **given))  # type: ignore[arg-type]


def _search_models(ledger: Ledger, ask: SearchModels) -> Answer:
    found, token = models.search_models(
        ledger,
        ask.experiment_ids,
        ask.filter,
        datasets=ask.datasets,
        order_by=ask.order_by,
        max_results=ask.max_results,
        page_token=ask.page_token,
    )
    return page("models", [_model(model)["model"] for model in found], token)


# ── traces ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Trace(msgspec.Struct):
    trace_info: TraceInfo = msgspec.field(default_factory=TraceInfo)


class StartTrace(msgspec.Struct):
    trace: Trace = msgspec.field(default_factory=Trace)


class TraceId(msgspec.Struct):
    trace_id: str = ""


class TraceTag(TraceId):
    key: str = ""
    value: str = ""


class SearchTraces(msgspec.Struct):
    locations: list[Location] = []
    filter: str = ""
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str = ""


class DeleteTraces(ExperimentId):
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: list[str] = []
    trace_ids: list[str] = []


def _trace(found: TraceInfo) -> Answer:
    return {"trace": {"trace_info": found}}


def _search_traces(ledger: Ledger, ask: SearchTraces) -> Answer:
    ids = [one.mlflow_experiment.experiment_id for one in ask.locations if one.mlflow_experiment is not None]
    found = traces.search_traces(ledger, ids, ask.filter, order_by=ask.order_by, max_results=ask.max_results, token=ask.page_token)
    return page("traces", *found)


def _delete_traces(ledger: Ledger, ask: DeleteTraces) -> Answer:
    ids = [*ask.request_ids, *ask.trace_ids]
    given = {"until": ask.max_timestamp_millis, "most": ask.max_traces}
    return {"traces_deleted": traces.delete_traces(ledger, ask.experiment_id, **given, trace_ids=ids)}


LOGGED = f"{API}/logged-models"
TRACES = "/api/3.0/mlflow/traces"
BOTH = (TRACES, f"{API}/traces")  # clients use the older path for some calls
_ID, _RUN, _TAG = ("experiment_id",), ("run_id",), ("trace_id", "key")
CALLS = [
    Call("POST", f"{API}/experiments/create", CreateExperiment, _create_experiment, ("name",)),
    Call("POST", f"{API}/experiments/search", Search, _search_experiments, (), "read", slow=True),
    Call("GET", f"{API}/experiments/search", Search, _search_experiments, (), "read", slow=True),
    Call("GET", f"{API}/experiments/get", ExperimentId, answer(experiments.get_experiment, *_ID, tell="experiment"), _ID, "read"),
    Call("GET", f"{API}/experiments/get-by-name", ExperimentName, _experiment_by_name, ("experiment_name",), "read"),
    Call("POST", f"{API}/experiments/delete", ExperimentId, answer(experiments.delete_experiment, *_ID), _ID),
    Call("POST", f"{API}/experiments/restore", ExperimentId, answer(experiments.restore_experiment, *_ID), _ID),
    Call(
        "POST", f"{API}/experiments/update", UpdateExperiment, answer(experiments.rename_experiment, *_ID, "new_name"), (*_ID, "new_name")
    ),
    Call(
        "POST", f"{API}/experiments/set-experiment-tag", ExperimentTag, answer(experiments.set_experiment_tag, *_ID, "pair"), (*_ID, "key")
    ),
    Call(
        "POST",
        f"{API}/experiments/delete-experiment-tag",
        ExperimentTag,
        answer(experiments.delete_experiment_tag, *_ID, "key"),
        (*_ID, "key"),
    ),
    Call("POST", f"{API}/experiments/search-datasets", SearchDatasets, _search_datasets, (), "read", slow=True),
    Call("POST", f"{API}/runs/create", CreateRun, _create_run),
    Call("POST", f"{API}/runs/update", UpdateRun, _update_run, _RUN),
    Call("POST", f"{API}/runs/delete", RunId, answer(runs.delete_run, "id"), _RUN),
    Call("POST", f"{API}/runs/restore", RunId, answer(runs.restore_run, "id"), _RUN),
    Call("POST", f"{API}/runs/log-metric", LogMetric, answer(runs.log_metric, "id", "metric"), (*_RUN, "key", "value", "timestamp")),
    Call("POST", f"{API}/runs/log-parameter", KeyValue, answer(runs.log_param, "id", "pair"), (*_RUN, "key")),
    Call("POST", f"{API}/runs/set-tag", KeyValue, answer(runs.set_tag, "id", "pair"), (*_RUN, "key")),
    Call("POST", f"{API}/runs/delete-tag", KeyValue, answer(runs.delete_tag, "id", "key"), (*_RUN, "key")),
    Call("GET", f"{API}/runs/get", RunId, lambda ledger, ask: {"run": _run(runs.get_run(ledger, ask.id))}, _RUN, "read"),
    Call("POST", f"{API}/runs/search", SearchRuns, _search_runs, (), "read", slow=True),
    Call("POST", f"{API}/runs/log-batch", LogBatch, answer(runs.log_batch, "id", "metrics", "params", "tags"), _RUN),
    Call("POST", f"{API}/runs/log-inputs", LogInputs, answer(runs.log_inputs, "id", "datasets", "models"), _RUN),
    Call("POST", f"{API}/runs/outputs", LogOutputs, answer(runs.log_outputs, "id", "models"), (*_RUN, "models")),
    Call("POST", f"{API}/runs/log-model", LogModel, _log_model, (*_RUN, "model_json")),
    Call("GET", f"{API}/metrics/get-history", History, _history, (*_RUN, "metric_key"), "read", slow=True),
    Call("GET", f"{API}/metrics/get-history-bulk", BulkHistory, _bulk_history, (), "read", slow=True),
    Call("GET", f"{API}/metrics/get-history-bulk-interval", SampledHistory, _sampled_history, ("run_ids", "metric_key"), "read", slow=True),
    Call("GET", f"{API}/artifacts/list", ListArtifacts, _list_artifacts, _RUN, "read", slow=True),
    Call("POST", LOGGED, CreateModel, _create_model, _ID),
    Call("POST", f"{LOGGED}/search", SearchModels, _search_models, ("experiment_ids",), "read", slow=True),
    Call("GET", f"{LOGGED}/{{model_id}}", ModelId, _told(models.get_model, "model_id"), (), "read"),
    Call("PATCH", f"{LOGGED}/{{model_id}}", FinalizeModel, _told(models.finalize_model, "model_id", "status"), ("status",)),
    Call("DELETE", f"{LOGGED}/{{model_id}}", ModelId, answer(models.delete_model, "model_id")),
    Call("PATCH", f"{LOGGED}/{{model_id}}/tags", ModelTags, _told(models.set_model_tags, "model_id", "tags")),
    Call("DELETE", f"{LOGGED}/{{model_id}}/tags/{{tag_key}}", ModelTagKey, answer(models.delete_model_tag, "model_id", "tag_key")),
    Call("POST", f"{LOGGED}/{{model_id}}/params", ModelParams, answer(models.log_model_params, "model_id", "params")),
    Call("GET", f"{LOGGED}/{{model_id}}/artifacts/directories", ListModelArtifacts, _list_model_artifacts, (), "read", slow=True),
    Call("POST", TRACES, StartTrace, lambda ledger, ask: _trace(traces.start_trace(ledger, ask.trace.trace_info))),
    Call("POST", f"{TRACES}/search", SearchTraces, _search_traces, (), "read", slow=True),
    Call("GET", f"{TRACES}/{{trace_id}}", TraceId, lambda ledger, ask: _trace(traces.get_trace(ledger, ask.trace_id)), (), "read"),
    *(Call("PATCH", f"{root}/{{trace_id}}/tags", TraceTag, answer(traces.set_trace_tag, *_TAG, "value"), ("key",)) for root in BOTH),
    *(Call("DELETE", f"{root}/{{trace_id}}/tags", TraceTag, answer(traces.delete_trace_tag, *_TAG), ("key",)) for root in BOTH),
    *(Call("POST", f"{root}/delete-traces", DeleteTraces, _delete_traces, _ID) for root in BOTH),
]
