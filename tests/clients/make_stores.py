"""Writes the stores that imports are tested on, with the real MLflow (not only its client), and what its client reads of each.

`python make_stores.py /tmp/there` in an environment with `mlflow` makes `stores/`: a SQLite file with its files and a folder `mlruns`,
packed, and a JSON for each. What lies here was made with MLflow 3.17.2.
"""

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_ALLOW_FILE_STORE": "true"}
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
from import_scenarios import STORES, read
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, Metric, Param


def make(uri: str, artifacts: str | None) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient()
    location = f"{artifacts}/first" if artifacts else None
    first = client.create_experiment("first", tags={"team": "parcels"}, artifact_location=location)
    gone = client.create_experiment("gone", artifact_location=f"{artifacts}/gone" if artifacts else None)
    run = client.create_run(first, start_time=1_700_000_000_000, tags={"mlflow.user": "ann", "kind": "a/b: c"}, run_name="whole")
    uid = run.info.run_id
    points = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(1_100)]
    points += [Metric("odd", value, 1_700_000_000_500, step) for step, value in enumerate([float("nan"), float("inf"), -1.5])]
    points += [Metric("deep/er", 2.0, 1_700_000_000_600, -3)]
    for at in range(0, len(points), 900):
        client.log_batch(uid, metrics=points[at : at + 900])
    client.log_batch(uid, params=[Param("depth", "3"), Param("text", "two\nlines: yes"), Param("a/b", "")])
    data = Dataset("rows", "abc123", "local", '{"uri": "/data/rows.csv"}', schema='{"columns": []}', profile='{"rows": 3}')
    client.log_inputs(uid, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "notes.txt").write_text("notes\n")
        Path(folder, "sub dir").mkdir()
        Path(folder, "sub dir", "späť.bin").write_bytes(bytes(range(256)) * 40)
        Path(folder, "empty").write_bytes(b"")
        client.log_artifacts(uid, folder)
        model = Path(folder, "model")
        model.mkdir()
        (model / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: none\n")
        (model / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/there/was-here'\ntR.")
        client.log_artifacts(uid, str(model), "model")
        logged = client.create_logged_model(first, "logged", source_run_id=uid, tags={"a": "1"}, params={"depth": "3"}, model_type="tree")
        client.log_metric(uid, "auc", 0.75, model_id=logged.model_id, timestamp=1_700_000_000_700)
        client.log_model_artifacts(logged.model_id, str(model))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(uid, [LoggedModelOutput(logged.model_id, 2)])
    client.set_terminated(uid, "FINISHED", end_time=1_700_000_100_000)
    failed = client.create_run(first, run_name="failed").info.run_id
    client.log_inputs(failed, models=[LoggedModelInput(logged.model_id)])
    client.set_terminated(failed, "FAILED")
    deleted = client.create_run(first, run_name="deleted").info.run_id
    client.delete_run(deleted)
    client.create_run("0", run_name="in default", start_time=1_700_000_000_000)
    client.create_run(gone, run_name="of what is gone")
    client.delete_experiment(gone)
    client.create_registered_model("parcels", tags={"stage": "new"}, description="late or not")
    for number in (1, 2, 3):
        source = f"{run.info.artifact_uri}/model" if number != 2 else f"models:/{logged.model_id}"
        client.create_model_version("parcels", source, uid, tags={"n": str(number)}, description=f"number {number}")
    client.delete_model_version("parcels", "1")
    client.set_registered_model_alias("parcels", "champion", "3")
    client.set_registered_model_alias("parcels", "old", "2")
    client.transition_model_version_stage("parcels", "2", "Archived")
    client.create_registered_model("empty")


def pack(home: Path) -> None:
    """Make both stores below a folder that is not there yet, and pack them with what the client reads."""
    home.mkdir(parents=True)
    STORES.mkdir(exist_ok=True)
    (home / "db").mkdir()
    for store, uri in (("sqlite", f"sqlite:///{home}/db/mlflow.db"), ("folder", f"{home}/mlruns")):
        make(uri, f"{home}/db/artifacts" if store == "sqlite" else None)
        (STORES / f"{store}.json").write_text(json.dumps(read(MlflowClient()), sort_keys=True) + "\n")
    with tarfile.open(STORES / "stores.tar.xz", "w:xz") as packed:
        for name in ("db", "mlruns"):
            packed.add(home / name, name)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
