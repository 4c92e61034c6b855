"""What MLflow's client reads of a store, as plain data; and that it reads the same of what was imported from it. See worker.py."""

import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

STORES = Path(__file__).with_name("stores")


def read(client: MlflowClient) -> dict[str, Any]:
    """All that can be imported, by name or id, without what must differ: where files lie."""
    experiments = client.search_experiments(view_type=ViewType.ALL)
    ids = {one.experiment_id: one.name for one in experiments}
    names = {"first", "gone", "Default"}
    runs = [run for run in client.search_runs(list(ids), run_view_type=ViewType.ALL) if ids[run.info.experiment_id] in names]
    models = [one for name in ids for one in client.search_logged_models([name])]
    return {
        "experiments": {one.name: [one.lifecycle_stage, one.tags] for one in experiments if one.name in names},
        "runs": {run.info.run_id: _run(client, client.get_run(run.info.run_id), ids) for run in runs},
        "logged models": {one.model_id: _logged(client, one) for one in models},
        "registered": {one.name: _registered(client, one) for one in client.search_registered_models()},
    }


def _run(client: MlflowClient, run: Run, ids: dict[str, str]) -> dict[str, Any]:
    info, data = run.info, run.data
    told = [ids[info.experiment_id], info.run_name, info.user_id, info.status, info.start_time, info.end_time, info.lifecycle_stage]
    inputs = [
        [one.dataset.name, one.dataset.digest, one.dataset.source_type, one.dataset.source, one.dataset.schema, one.dataset.profile]
        + [[tag.key, tag.value] for tag in one.tags]
        for one in run.inputs.dataset_inputs
    ]
    models = [[one.model_id for one in run.inputs.model_inputs], [[one.model_id, one.step] for one in run.outputs.model_outputs]]
    histories = {key: sorted(_point(one) for one in client.get_metric_history(info.run_id, key)) for key in data.metrics}
    files = {} if info.lifecycle_stage == "deleted" else _files(f"runs:/{info.run_id}")
    found = {"info": told, "params": data.params, "tags": data.tags, "inputs": inputs, "models": models, "files": files}
    return found | {"metrics": {key: _number(value) for key, value in data.metrics.items()}, "histories": histories}


def _point(one: Any) -> list[Any]:
    return [one.timestamp, one.step, _number(one.value)]


def _number(value: float) -> str:
    """A number as text: stores that cannot keep infinity keep the greatest number."""
    return "nan" if math.isnan(value) else repr(math.copysign(math.inf, value)) if abs(value) > 1e308 else repr(value)


def _files(uri: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        except Exception as error:  # noqa: BLE001 – stores say in many ways that there is none
            return {"none": type(error).__name__} if "No such" not in str(error) else {}
        found = [one for one in sorted(path.rglob("*")) if one.is_file() and one.name != "registered_model_meta"]
        return {one.relative_to(path).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest() for one in found}


def _logged(client: MlflowClient, one: Any) -> dict[str, Any]:
    metrics = sorted([[m.key, m.value, m.timestamp, m.step] for m in one.metrics or []])
    told = [one.name, one.model_type, str(one.status), one.source_run_id, one.creation_timestamp]
    return {"info": told, "params": one.params, "tags": one.tags, "metrics": metrics, "files": _files(f"models:/{one.model_id}")}


def _registered(client: MlflowClient, model: Any) -> dict[str, Any]:
    versions = {}
    for one in client.search_model_versions(f"name = '{model.name}'"):
        told = [one.description or "", one.current_stage, one.run_id, one.status, one.creation_timestamp, one.tags]
        versions[str(one.version)] = {"info": told, "files": _files(f"models:/{model.name}/{one.version}")}
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return {"info": [model.description or "", model.creation_timestamp, model.tags], "aliases": aliases, "versions": versions}


def _same(store: str) -> None:
    found = json.loads(json.dumps(read(MlflowClient())))
    expected = json.loads((STORES / f"{store}.json").read_text())
    for part, values in expected.items():
        for key, value in values.items():
            assert found[part].get(key) == value, f"{part} {key}: {found[part].get(key)} is not {value}"
        assert set(found[part]) == set(values), f"{part}: {set(found[part]) ^ set(values)}"


def the_folder_reads_as_before() -> None:
    _same("folder")


def the_sqlite_file_reads_as_before() -> None:
    _same("sqlite")
