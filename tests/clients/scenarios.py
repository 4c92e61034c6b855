"""What a user of MLflow's client does, each with what must be true then. Runs in the client's environment; see worker.py."""

import json
import math
import os
import re
import tempfile
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelStatus, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException


def run(name: str, uri: str, module: ModuleType) -> None:
    """Run one scenario of a module against a server."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(_new("scenario"))
    getattr(module, name)()
    while mlflow.active_run():
        mlflow.end_run()


def _new(name: str) -> str:
    return f"{name} {uuid.uuid4().hex[:8]}"


def _client() -> MlflowClient:
    return MlflowClient()


def _run() -> tuple[MlflowClient, str]:
    client = _client()
    experiment = client.create_experiment(_new("of a run"))
    return client, client.create_run(experiment).info.run_id


def _refused(code: str, act: Any, *args: Any, **named: Any) -> str:
    error: Exception | None = None
    try:
        act(*args, **named)
    except MlflowException as found:
        error = found
    assert error is not None, f"{act} was not refused"
    assert error.error_code == code, f"{error.error_code}: {error}"
    return str(error)


# ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────


def experiments_are_made_found_renamed_deleted_and_restored() -> None:
    client, name = _client(), _new("experiment")
    number = client.create_experiment(name, tags={"a": "1", "b": "2"})
    found = client.get_experiment(number)
    assert (found.name, found.lifecycle_stage, found.tags) == (name, "active", {"a": "1", "b": "2"})
    assert re.fullmatch(rf"(mlflow-artifacts:|tidemill:///.*)/{number}", found.artifact_location)
    assert found.creation_time > 0
    assert client.get_experiment_by_name(name).experiment_id == number
    assert client.get_experiment_by_name("never") is None
    assert "already exists" in _refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, name)
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "123456789")
    client.rename_experiment(number, f"{name} 2")
    client.set_experiment_tag(number, "a", "3")
    client.delete_experiment_tag(number, "b")
    assert client.get_experiment(number).tags == {"a": "3"}
    client.delete_experiment(number)
    assert client.get_experiment(number).lifecycle_stage == "deleted"
    assert f"{name} 2" not in {one.name for one in client.search_experiments()}
    assert f"{name} 2" in {one.name for one in client.search_experiments(view_type=ViewType.DELETED_ONLY)}
    _refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, f"{name} 2")
    client.restore_experiment(number)
    assert client.get_experiment(number).lifecycle_stage == "active"
    assert client.get_experiment("0").name == "Default"


def experiments_are_searched_by_pages() -> None:
    client, mark = _client(), uuid.uuid4().hex
    for i in range(5):
        client.create_experiment(f"{mark} {i}", tags={"mark": mark, "even": str(i % 2 == 0)})
    found = client.search_experiments(filter_string=f"tags.mark = '{mark}'", order_by=["name ASC"], max_results=2)
    names = [one.name for one in found]
    while found.token:
        found = client.search_experiments(
            filter_string=f"tags.mark = '{mark}'", order_by=["name ASC"], max_results=2, page_token=found.token
        )
        names += [one.name for one in found]
    assert names == [f"{mark} {i}" for i in range(5)]
    assert len(client.search_experiments(filter_string=f"name LIKE '{mark}%' AND tags.even = 'True'")) == 3


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def a_run_with_everything() -> None:
    with mlflow.start_run(run_name="whole", description="what it is", tags={"team": "a"}, log_system_metrics=False) as active:
        mlflow.log_param("depth", 3)
        mlflow.log_params({"rate": 0.1, "name": "x", "empty": ""})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.log_metrics({"acc": 0.9, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}, step=3)
        mlflow.set_tag("state", "warm")
        mlflow.set_tags({"a": 1, "b": True})
    found = mlflow.get_run(active.info.run_id)
    assert (found.info.status, found.info.run_name, found.info.lifecycle_stage) == ("FINISHED", "whole", "active")
    assert found.info.end_time >= found.info.start_time > 0
    assert found.data.params == {"depth": "3", "rate": "0.1", "name": "x", "empty": ""}
    assert found.data.metrics["loss"] == 0.25
    assert math.isnan(found.data.metrics["nan"])
    assert (found.data.metrics["inf"], found.data.metrics["-inf"]) == (1.7976931348623157e308, -1.7976931348623157e308)
    assert found.data.tags["mlflow.note.content"] == "what it is"
    assert {"team": "a", "state": "warm", "a": "1", "b": "True"}.items() <= found.data.tags.items()
    assert found.data.tags["mlflow.user"]


def a_run_that_fails_says_so() -> None:
    try:
        with mlflow.start_run() as active:
            raise ValueError("no")
    except ValueError:
        pass
    assert mlflow.get_run(active.info.run_id).info.status == "FAILED"


def runs_nest_and_go_on() -> None:
    with mlflow.start_run(run_name="parent") as parent, mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("m", 1)
    assert mlflow.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert mlflow.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    with mlflow.start_run(run_id=parent.info.run_id):
        mlflow.log_param("later", 1)
        assert _client().get_run(parent.info.run_id).info.status == "RUNNING"
    assert mlflow.get_run(parent.info.run_id).data.params == {"later": "1"}
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert list(found["run_id"]) == [child.info.run_id]


def a_run_made_by_hand_has_defaults() -> None:
    client, run_id = _run()
    found = client.get_run(run_id)
    assert found.info.user_id == "unknown"
    assert found.info.run_name
    assert found.data.tags["mlflow.runName"] == found.info.run_name
    assert re.fullmatch(rf"(mlflow-artifacts:|tidemill:///.*)/{found.info.experiment_id}/{run_id}/artifacts", found.info.artifact_uri)
    given = client.create_run(found.info.experiment_id, start_time=456, run_name="mine", tags={"mlflow.user": "ann"})
    assert (given.info.start_time, given.info.run_name) == (456, "mine")
    client.update_run(run_id, status="KILLED", name="other")
    assert client.get_run(run_id).info.status == "KILLED"
    assert client.get_run(run_id).data.tags["mlflow.runName"] == "other"
    client.set_terminated(run_id, "FINISHED", end_time=789)
    assert client.get_run(run_id).info.end_time == 789
    client.set_tag(run_id, "mlflow.runName", "third")
    assert client.get_run(run_id).info.run_name == "third"


def runs_are_deleted_and_restored() -> None:
    client, run_id = _run()
    experiment = client.get_run(run_id).info.experiment_id
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    _refused("INVALID_PARAMETER_VALUE", client.log_metric, run_id, "m", 1)
    client.restore_run(run_id)
    client.log_metric(run_id, "m", 1)
    client.delete_experiment(experiment)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    client.restore_experiment(experiment)
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "0" * 32)


def params_are_written_once() -> None:
    client, run_id = _run()
    client.log_param(run_id, "p", "1")
    client.log_param(run_id, "p", "1")
    said = _refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "p", "2")
    assert "Changing param values is not allowed" in said
    client.log_batch(run_id, params=[Param("p", "1"), Param("q", "2")])
    _refused("INVALID_PARAMETER_VALUE", client.log_batch, run_id, [Metric("m", 1, 1, 1)], [Param("q", "3"), Param("new", "x")])
    found = client.get_run(run_id).data
    assert (found.params, found.metrics) == ({"p": "1", "q": "2"}, {}), "nothing of a refused batch is kept"


def tags_are_overwritten_and_deleted() -> None:
    client, run_id = _run()
    client.set_tag(run_id, "t", "1")
    client.set_tag(run_id, "t", "2")
    assert client.get_run(run_id).data.tags["t"] == "2"
    client.delete_tag(run_id, "t")
    assert "t" not in client.get_run(run_id).data.tags
    assert "No tag with name" in _refused("RESOURCE_DOES_NOT_EXIST", client.delete_tag, run_id, "t")
    client.set_tag(run_id, "long", "x" * 10_000)
    assert len(client.get_run(run_id).data.tags["long"]) <= 8_000


def batches_are_kept_whole_or_refused_whole() -> None:
    client, run_id = _run()
    metrics = [Metric(f"m{i % 10}", i * 0.5, 1_000 + i, i) for i in range(800)]
    client.log_batch(run_id, metrics, [Param(f"p{i}", str(i)) for i in range(100)], [RunTag(f"t{i}", str(i)) for i in range(100)])
    found = client.get_run(run_id).data
    assert (len(found.metrics), len(found.params)) == (10, 100)
    assert found.metrics["m9"] == 799 * 0.5
    assert len(client.get_metric_history(run_id, "m0")) == 80
    duplicate = [Param("d", "1"), Param("d", "2")]
    assert "Duplicate parameter keys" in _refused("INVALID_PARAMETER_VALUE", client.log_batch, run_id, params=duplicate)
    store = client._tracking_client.store
    many = [Metric("m", i, i, i) for i in range(1001)]
    assert "at most 1000" in _refused("INVALID_PARAMETER_VALUE", store.log_batch, run_id, many, [], [])
    for key in ("", "a//b", "../x", "/x", "a\nb", "k" * 251):
        _refused("INVALID_PARAMETER_VALUE", store.log_batch, run_id, [Metric(key, 1, 1, 1)], [], [])


def a_history_has_every_value() -> None:
    client, run_id = _run()
    values = [(5, 0.1), (-3, 0.2), (2, math.nan), (2, 0.3)]
    for step, value in values:
        client.log_metric(run_id, "m", value, timestamp=1_000 + step, step=step)
    client.log_metric(run_id, "m", 0.1, timestamp=1_005, step=5)
    found = client.get_metric_history(run_id, "m")
    assert [(one.step, one.timestamp) for one in found] == [(-3, 997), (2, 1002), (2, 1002), (5, 1005)], "an equal point is one point"
    assert client.get_metric_history(run_id, "never") == []
    assert client.get_run(run_id).data.metrics == {"m": 0.1}, "the greatest step is the newest"
    pages, token = [], None
    while True:
        page = client._tracking_client.store.get_metric_history(run_id, "m", max_results=3, page_token=token)
        pages.append(len(page))
        token = page.token
        if not token:
            break
    assert pages == [3, 1]


def metrics_may_be_logged_in_the_background() -> None:
    with mlflow.start_run() as active:
        waiting = [mlflow.log_metric("m", i, step=i, synchronous=False) for i in range(50)]
        for one in waiting:
            one.wait()
    assert len(_client().get_metric_history(active.info.run_id, "m")) == 50


def runs_are_searched_and_paged() -> None:
    client = _client()
    experiment = client.create_experiment(_new("search"))
    for i in range(12):
        run_id = client.create_run(experiment, run_name=f"r{i}", start_time=i).info.run_id
        client.log_batch(run_id, [Metric("m", i % 4, 1, 1)], [Param("p", "ab"[i % 2])], [RunTag("t", str(i))])
    found, token, names = [], None, []
    while True:
        page = client.search_runs([experiment], "params.p = 'a'", order_by=["metrics.m DESC"], max_results=2, page_token=token)
        found.append(len(page))
        names += [one.info.run_name for one in page]
        token = page.token
        if not token:
            break
    assert names == ["r10", "r6", "r2", "r8", "r4", "r0"]
    assert [one.info.run_name for one in client.search_runs([experiment], "metrics.m = 3 AND tags.t != '3'")] == ["r11", "r7"]
    assert len(client.search_runs([experiment], "attributes.run_name LIKE 'r1%'")) == 3
    ids = [one.info.run_id for one in client.search_runs([experiment])][:2]
    assert len(client.search_runs([experiment], f"attributes.run_id IN ('{ids[0]}', '{ids[1]}')")) == 2
    frame = mlflow.search_runs([experiment], filter_string="metrics.m > 2", order_by=["start_time ASC"])
    assert list(frame["metrics.m"]) == [3, 3, 3]
    assert set(frame["params.p"]) == {"b"}
    for wrong in ("metrics.m > 'x'", "foo = 'x'", "metrics.m > 1 OR metrics.m < 0"):
        _refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment], wrong)
    assert client.search_runs([]) == []


def datasets_are_logged_and_searched() -> None:
    data = mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2], "y": [0, 1]}), source="data.csv", name="mine", targets="y")
    with mlflow.start_run() as active:
        mlflow.log_input(data, context="training")
    (one,) = mlflow.get_run(active.info.run_id).inputs.dataset_inputs
    assert (one.dataset.name, one.dataset.digest) == ("mine", data.digest)
    assert {tag.key: tag.value for tag in one.tags}["mlflow.data.context"] == "training"
    assert json.loads(one.dataset.schema)
    text = f"datasets.name = 'mine' AND datasets.context = 'training' AND dataset.digest = '{data.digest}'"
    assert len(mlflow.search_runs(filter_string=text)) == 1
    assert len(mlflow.search_runs(filter_string="datasets.name = 'other'")) == 0
    client, run_id = _run()
    client.log_inputs(run_id, [DatasetInput(Dataset("d", "1", "code", "s"), [InputTag("k", "v")])])
    client.log_inputs(run_id, [DatasetInput(Dataset("d", "1", "code", "s"), [InputTag("k", "v")])])
    assert len(client.get_run(run_id).inputs.dataset_inputs) == 1


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────────


def artifacts_go_up_and_down() -> None:
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as active:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "in" / "a b ü.txt").write_text("hello")
        (Path(folder) / "empty").write_bytes(b"")
        mlflow.log_artifact(str(Path(folder) / "empty"))
        mlflow.log_artifacts(folder, "all")
        mlflow.log_text("text", "notes/n.txt")
        mlflow.log_dict({"a": [1]}, "d.json")
        mlflow.log_table({"x": [1, 2]}, "t.json")
    run_id, client = active.info.run_id, _client()
    listed = {one.path: (one.is_dir, one.file_size) for one in client.list_artifacts(run_id)}
    assert {name: listed[name] for name in ("all", "empty", "notes")} == {"all": (True, None), "empty": (False, 0), "notes": (True, None)}
    assert set(listed) == {"all", "d.json", "empty", "notes", "t.json"}
    assert [one.path for one in client.list_artifacts(run_id, "all/in")] == ["all/in/a b ü.txt"]
    assert client.list_artifacts(run_id, "never") == []
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/n.txt") == "text"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/d.json") == {"a": [1]}
    assert list(mlflow.load_table("t.json", run_ids=[run_id])["x"]) == [1, 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="all", dst_path=folder))
        assert (path / "in" / "a b ü.txt").read_text() == "hello"
        assert (path / "empty").read_bytes() == b""
        whole = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=".", dst_path=Path(folder) / "whole"))
        assert (whole / "notes" / "n.txt").read_text() == "text"
    assert {one.path for one in mlflow.artifacts.list_artifacts(run_id=run_id)} >= {"all", "d.json"}


def artifacts_are_overwritten_and_large_ones_go_through() -> None:
    client, run_id = _run()
    for text in ("one", "two"):
        client.log_text(run_id, text, "f.txt")
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/f.txt") == "two"
    data = bytes(range(256)) * 40_000
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "big.bin").write_bytes(data)
        client.log_artifact(run_id, str(Path(folder) / "big.bin"))
        path = client.download_artifacts(run_id, "big.bin", folder)
        assert Path(path).read_bytes() == data


def large_files_go_up_in_parts() -> None:
    """As with a store that takes parts: the client asks where to put each, puts them side by side, and completes the file."""
    parts: list[str] = []
    put, settings = requests.put, {"ENABLE_PROXY_MULTIPART_UPLOAD": "true", "MULTIPART_UPLOAD_CHUNK_SIZE": str(6 << 20)}
    settings["MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = "1000000"
    with tempfile.TemporaryDirectory() as folder:
        file, down = Path(folder) / "large file.bin", f"{folder}/down"
        file.write_bytes(bytes(range(256)) * 81_927)
        os.environ |= {f"MLFLOW_{name}": value for name, value in settings.items()}
        requests.put = lambda url, **named: (parts.append(url), put(url, **named))[1]
        try:
            with mlflow.start_run() as run:
                mlflow.log_artifact(str(file), "deep/er")
        finally:
            requests.put = put
            for name in settings:
                del os.environ[f"MLFLOW_{name}"]
        assert len(parts) == 4
        found = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="deep/er/large file.bin", dst_path=down)
        assert Path(found).read_bytes() == file.read_bytes()


def images_and_figures_are_logged() -> None:
    import numpy as np

    with mlflow.start_run() as active:
        mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), "i.png")
    assert [one.path for one in _client().list_artifacts(active.info.run_id)] == ["i.png"]


# ── logged models ───────────────────────────────────────────────────────────────────────────────────────────────


def a_scikit_learn_model_is_logged_registered_and_loaded() -> None:
    from sklearn.linear_model import LogisticRegression

    frame, name = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]}), _new("clf").replace(" ", "-")
    model = LogisticRegression().fit(frame, [0, 0, 1, 1])
    with mlflow.start_run() as active:
        info = mlflow.sklearn.log_model(model, name="model", input_example=frame, registered_model_name=name)
        mlflow.log_metric("late", 0.5, model_id=info.model_id)
    assert int(info.registered_model_version) == 1
    version = _client().get_model_version(name, "1")
    assert (version.run_id, version.source) == (active.info.run_id, info.model_uri)
    expected = list(model.predict(frame))
    for uri in (info.model_uri, f"models:/{name}/1", f"models:/{name}/latest", f"runs:/{active.info.run_id}/model"):
        assert list(mlflow.pyfunc.load_model(uri).predict(frame)) == expected, uri
    _client().set_registered_model_alias(name, "prod", 1)
    loaded = mlflow.pyfunc.load_model(f"models:/{name}@prod")
    assert loaded.metadata.signature is not None
    assert list(mlflow.sklearn.load_model(f"models:/{name}@prod").predict(frame)) == expected
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.status == LoggedModelStatus.READY
    assert logged.source_run_id == active.info.run_id
    assert {one.key: one.value for one in logged.metrics} == {"late": 0.5}
    assert [one.model_id for one in _client().get_run(active.info.run_id).outputs.model_outputs] == [info.model_id]


def autologging_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    frame = pd.DataFrame({"a": [float(i % 7) for i in range(40)], "b": [float(i % 3) for i in range(40)]})
    labels = [i % 2 for i in range(40)]
    mlflow.sklearn.autolog(max_tuning_runs=3)
    try:
        with mlflow.start_run() as active:
            LogisticRegression(max_iter=50).fit(frame, labels)
        with mlflow.start_run() as search:
            GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(frame, labels)
    finally:
        mlflow.sklearn.autolog(disable=True)
    found = mlflow.get_run(active.info.run_id)
    assert "training_accuracy_score" in found.data.metrics
    assert found.data.params["max_iter"] == "50"
    assert len(found.outputs.model_outputs) == 1
    assert {one.dataset.name for one in found.inputs.dataset_inputs} == {"dataset"}
    children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{search.info.run_id}'")
    assert len(children) == 2


def autologging_of_lightgbm_and_xgboost() -> None:
    """Both log their parameters, a curve for each metric and round, and the model in its native format, which loads again."""
    import lightgbm
    import numpy as np
    import xgboost

    rng = np.random.default_rng(1)
    X, client = rng.normal(size=(200, 3)), _client()
    y = (X[:, 0] > 0).astype(int)
    mlflow.lightgbm.autolog()
    data = lightgbm.Dataset(X, y)
    with mlflow.start_run() as run:
        settings = {"objective": "binary", "verbosity": -1, "num_leaves": 4}
        booster = lightgbm.train(settings, data, 5, valid_sets=[data], valid_names=["train"])
    found = client.get_run(run.info.run_id)
    assert found.data.params["num_leaves"] == "4"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train-binary_logloss")] == [0, 1, 2, 3, 4]
    again = mlflow.lightgbm.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(again.predict(X), booster.predict(X))
    mlflow.lightgbm.autolog(disable=True)
    mlflow.xgboost.autolog()
    matrix = xgboost.DMatrix(X, y)
    with mlflow.start_run() as run:
        trees = xgboost.train({"objective": "binary:logistic", "max_depth": 2}, matrix, 5, evals=[(matrix, "train")], verbose_eval=False)
    assert client.get_run(run.info.run_id).data.params["max_depth"] == "2"
    assert len(client.get_metric_history(run.info.run_id, "train-logloss")) == 5
    again = mlflow.xgboost.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(again.predict(matrix), trees.predict(matrix))
    mlflow.xgboost.autolog(disable=True)


def logged_models_are_made_tagged_searched_and_deleted() -> None:
    client = _client()
    experiment = client.create_experiment(_new("models"))
    run_id = client.create_run(experiment).info.run_id
    made = []
    for i in range(3):
        one = mlflow.initialize_logged_model(
            name=f"m{i}", source_run_id=run_id, params={"p": str(i)}, tags={"t": "x"}, model_type="agent", experiment_id=experiment
        )
        client.log_metric(run_id, "score", i / 10, model_id=one.model_id, dataset_name="d", dataset_digest="1", step=i)
        made.append(client.finalize_logged_model(one.model_id, "READY").model_id)
    found = client.search_logged_models(
        [experiment], filter_string="params.p != '0'", order_by=[{"field_name": "metrics.score", "ascending": False}]
    )
    assert [one.name for one in found] == ["m2", "m1"]
    assert [
        one.name
        for one in client.search_logged_models(
            [experiment], filter_string="metrics.score < 0.15", datasets=[{"dataset_name": "d"}], order_by=[{"field_name": "name"}]
        )
    ] == ["m0", "m1"]
    assert client.search_logged_models([experiment], filter_string="metrics.score < 0.15", datasets=[{"dataset_name": "other"}]) == []
    client.set_logged_model_tags(made[0], {"t": "y", "u": "z"})
    client.delete_logged_model_tag(made[0], "u")
    tags = client.get_logged_model(made[0]).tags
    assert (tags["t"], "u" in tags) == ("y", False)
    page = client.search_logged_models([experiment], max_results=2)
    rest = client.search_logged_models([experiment], max_results=2, page_token=page.token)
    assert len({one.model_id for one in [*page, *rest]}) == 3
    client.delete_logged_model(made[0])
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_logged_model, made[0])
    assert len(client.search_logged_models([experiment])) == 2


# ── registry ────────────────────────────────────────────────────────────────────────────────────────────────────


def registered_models_have_versions_aliases_and_tags() -> None:
    client, run_id = _run()
    name = _new("model").replace(" ", "-")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    made = client.create_registered_model(name, tags={"a": "1"}, description="what it is")
    assert (made.name, made.tags, made.description) == (name, {"a": "1"}, "what it is")
    assert "already exists" in _refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "never")
    first = client.create_model_version(name, source, run_id, tags={"t": "1"}, description="first")
    second = client.create_model_version(name, source, run_id)
    assert [(one.version, one.status, one.current_stage) for one in (first, second)] == [("1", "READY", "None"), ("2", "READY", "None")]
    assert client.get_model_version(name, "1").tags == {"t": "1"}
    assert client.get_model_version_download_uri(name, "1") == source
    client.set_registered_model_alias(name, "best", "1")
    client.set_registered_model_alias(name, "best", "2")
    client.set_registered_model_alias(name, "safe", "1")
    assert client.get_registered_model(name).aliases == {"best": "2", "safe": "1"}
    assert client.get_model_version_by_alias(name, "best").version == "2"
    assert client.get_model_version(name, "2").aliases == ["best"]
    client.delete_registered_model_alias(name, "best")
    assert "alias best not found" in _refused("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, name, "best")
    for alias in ("latest", "v1", "a b", ""):
        _refused("INVALID_PARAMETER_VALUE", client.set_registered_model_alias, name, alias, "1")
    client.set_model_version_tag(name, "1", "t", "2")
    client.delete_model_version_tag(name, "1", "t")
    assert client.get_model_version(name, "1").tags == {}
    client.set_registered_model_tag(name, "b", "2")
    client.delete_registered_model_tag(name, "a")
    client.update_registered_model(name, "another")
    client.update_model_version(name, "1", "other")
    found = client.get_registered_model(name)
    assert (found.tags, found.description) == ({"b": "2"}, "another")
    assert client.get_model_version(name, "1").description == "other"
    client.delete_model_version(name, "1")
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "1")
    assert client.get_registered_model(name).aliases == {}
    assert client.create_model_version(name, source, run_id).version == "3", "a number is never given twice"
    client.rename_registered_model(name, f"{name}-2")
    assert client.get_model_version(f"{name}-2", "3").version == "3"
    client.delete_registered_model(f"{name}-2")
    _refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, f"{name}-2")


def the_files_of_a_version_do_not_change() -> None:
    client, run_id = _run()
    name = _new("kept").replace(" ", "-")
    client.create_registered_model(name)
    client.log_text(run_id, "as it was", "one.onnx")
    client.log_text(run_id, "beside it", "one.onnx.txt")
    client.create_model_version(name, f"runs:/{run_id}/one.onnx", run_id)
    early = client.create_model_version(name, f"runs:/{run_id}/model", run_id)
    client.log_text(run_id, "as it was", "model/deep/weights")
    assert Path(mlflow.artifacts.download_artifacts(f"models:/{name}/2"), "deep", "weights").read_text() == "as it was"
    client.set_terminated(run_id)
    client.set_registered_model_alias(name, "best", early.version)
    client.copy_model_version(f"models:/{name}/1", f"{name}-copied")
    for path in ("one.onnx", "model/deep/weights"):
        client.log_text(run_id, "changed", path)
    for one in (name, f"{name}-copied"):
        uri = client.get_model_version_download_uri(one, "1")  # of `models:/` the client downloads folders only
        assert Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)).read_text() == "as it was"
    found = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@best"))
    assert (found / "deep" / "weights").read_text() == "as it was"


def stages_still_work() -> None:
    client, run_id = _run()
    name = _new("staged").replace(" ", "-")
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, f"{client.get_run(run_id).info.artifact_uri}/model", run_id)
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "production", archive_existing_versions=True)
    assert [client.get_model_version(name, str(i)).current_stage for i in (1, 2, 3)] == ["Archived", "Production", "None"]
    assert {one.current_stage: one.version for one in client.get_latest_versions(name)} == {"Archived": "1", "Production": "2", "None": "3"}
    assert [one.version for one in client.get_latest_versions(name, ["Production"])] == ["2"]
    _refused("INVALID_PARAMETER_VALUE", client.transition_model_version_stage, name, "1", "Somewhere")


def models_and_versions_are_searched() -> None:
    client, run_id = _run()
    mark = uuid.uuid4().hex[:10]
    for i in range(4):
        client.create_registered_model(f"{mark}-{i}", tags={"even": str(i % 2 == 0)})
        client.create_model_version(f"{mark}-{i}", f"{client.get_run(run_id).info.artifact_uri}/model", run_id, tags={"n": str(i)})
    names = [one.name for one in client.search_registered_models(f"name LIKE '{mark}%'", order_by=["name DESC"])]
    assert names == [f"{mark}-{i}" for i in (3, 2, 1, 0)]
    assert [one.name for one in client.search_registered_models(f"name ILIKE '{mark.upper()}%' AND tags.even = 'True'")] == [
        f"{mark}-0",
        f"{mark}-2",
    ]
    page = client.search_registered_models(f"name LIKE '{mark}%'", max_results=3)
    assert len(page) == 3
    assert [one.name for one in client.search_registered_models(f"name LIKE '{mark}%'", max_results=3, page_token=page.token)] == [
        f"{mark}-3"
    ]
    assert len(client.search_model_versions(f"run_id = '{run_id}'")) == 4
    assert [one.name for one in client.search_model_versions(f"name = '{mark}-1' AND tags.n = '1'")] == [f"{mark}-1"]
    assert [one.name for one in client.search_model_versions(f"run_id = '{run_id}'", order_by=["name DESC"], max_results=1)] == [
        f"{mark}-3"
    ]
    _refused("INVALID_PARAMETER_VALUE", client.search_registered_models, "size > 3")


def sources_that_lead_elsewhere_are_refused() -> None:
    client, run_id = _run()
    name = _new("sourced").replace(" ", "-")
    client.create_registered_model(name)
    for source in ("/etc/passwd", "file:///etc", "mlflow-artifacts:/1/../../x", "relative/path"):
        _refused("INVALID_PARAMETER_VALUE", client._get_registry_client().store.create_model_version, name, source, run_id)
    _refused("INVALID_PARAMETER_VALUE", client.create_registered_model, "a/b")


def prompts_are_kept_apart_from_models() -> None:
    name = _new("prompt").replace(" ", "_")
    mlflow.genai.register_prompt(name, "Hello {{name}}", commit_message="first")
    mlflow.genai.register_prompt(name, "Hi {{name}}")
    assert mlflow.genai.load_prompt(name, version=1).template == "Hello {{name}}"
    assert mlflow.genai.load_prompt(f"prompts:/{name}/2").template == "Hi {{name}}"
    mlflow.genai.set_prompt_alias(name, "best", 1)
    assert mlflow.genai.load_prompt(f"prompts:/{name}@best").version == 1
    assert name not in {one.name for one in _client().search_registered_models()}
    assert name in {one.name for one in mlflow.genai.search_prompts()}


def traces_are_logged_read_searched_and_deleted() -> None:
    @mlflow.trace(name="double", attributes={"kind": "test"})
    def double(x: int) -> int:
        with mlflow.start_span("inner") as span:
            span.set_inputs({"x": x})
        return 2 * x

    experiment = mlflow.set_experiment(_new("traced")).experiment_id
    assert [double(i) for i in range(3)] == [0, 2, 4]
    mlflow.flush_trace_async_logging()
    found = mlflow.search_traces(locations=[experiment], return_type="list")
    assert len(found) == 3
    newest = mlflow.get_trace(found[0].info.trace_id)
    assert [span.name for span in newest.data.spans] == ["double", "inner"]
    assert newest.info.state == "OK"
    answers = [json.loads(mlflow.get_trace(one.info.trace_id).data.response) for one in found]
    assert sorted(answers) == [0, 2, 4], "within one millisecond their order is by their ids"
    assert newest.info.execution_duration is not None
    mlflow.set_trace_tag(newest.info.trace_id, "reviewed", "yes")
    by_tag = mlflow.search_traces(locations=[experiment], filter_string="tags.reviewed = 'yes'", return_type="list")
    assert [one.info.trace_id for one in by_tag] == [newest.info.trace_id]
    text = "trace.name = 'double' AND trace.status = 'OK'"
    by_name = mlflow.search_traces(locations=[experiment], filter_string=text, max_results=2, return_type="list")
    assert len(by_name) == 2
    mlflow.delete_trace_tag(newest.info.trace_id, "reviewed")
    assert mlflow.search_traces(locations=[experiment], filter_string="tags.reviewed = 'yes'", return_type="list") == []
    assert _client().delete_traces(experiment, trace_ids=[newest.info.trace_id]) == 1
    assert len(mlflow.search_traces(locations=[experiment], return_type="list")) == 2


def what_is_wrong_gets_its_code() -> None:

    uri = mlflow.get_tracking_uri()
    post = lambda path, body: requests.post(f"{uri}/api/2.0/mlflow/{path}", json=body, timeout=10)  # noqa: E731
    answer = post("experiments/create", {"name": 123})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "Invalid value 123 for parameter 'name' supplied" in answer.json()["message"]
    assert "Missing value for required parameter 'name'" in post("experiments/create", {}).json()["message"]
    assert "Missing value for required parameter 'run_id'" in post("runs/log-metric", {"run_id": None, "key": "a"}).json()["message"]
    said = post("runs/log-metric", {"run_id": "x", "key": "a", "value": 1, "timestamp": "foo"}).json()["message"]
    assert "Invalid value \"foo\" for parameter 'timestamp' supplied" in said
    form = requests.post(f"{uri}/api/2.0/mlflow/experiments/create", data={"name": "x"}, timeout=10)
    assert form.status_code == 400
    assert requests.get(f"{uri}/api/2.0/mlflow/nothing", timeout=10).status_code == 404
    for path in ("../x", "%2e%2e/x", "a/../../x", "/etc/passwd"):
        assert requests.get(f"{uri}/get-artifact", params={"run_id": "x", "path": path}, timeout=10).status_code in (400, 404)
    assert requests.get(f"{uri}/health", timeout=10).text == "OK"
    assert isinstance(_answer_of(RestException), type)


def _answer_of(kind: type) -> type:
    return kind
