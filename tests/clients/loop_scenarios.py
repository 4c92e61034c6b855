"""What a user of MLflow's client sees of the models that the loop made, over the toy project of `toy.py`. See worker.py."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests import HTTPError
from scenarios import _refused


def versions_of_the_loop_are_those_of_a_registered_model() -> None:
    client = MlflowClient()
    (model,) = client.search_registered_models("name = 'trees'")
    assert model.aliases == {"champion": "4"}
    assert [one.name for one in client.search_registered_models()] == ["trees"]
    found = {one.version: one for one in client.search_model_versions("name = 'trees'")}
    assert sorted(found) == ["1", "2", "3", "4", "5"]
    champion = client.get_model_version_by_alias("trees", "champion")
    assert (champion.version, champion.aliases, champion.user_id) == ("4", ["champion"], "loop")
    assert (champion.tags["tidemill.verdict"], found["3"].tags["tidemill.verdict"]) == ("passed", "refused")
    assert champion.tags["tidemill.deployment"] == "late"
    run = client.get_run(champion.run_id)
    assert champion.source == f"{run.info.artifact_uri}/model"
    assert run.data.params["num_leaves"] == "7"
    assert [one.version for one in client.search_model_versions(f"run_id = '{champion.run_id}'")] == ["4"]


def a_version_of_the_loop_is_a_model_directory() -> None:
    client = MlflowClient()
    with TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts("models:/trees@champion", dst_path=folder))
        assert {one.name for one in path.iterdir()} >= {"MLmodel", "model.onnx", "input_example.json", "requirements.txt", "conda.yaml"}
        model = Model.load(path)
        assert sorted(model.flavors) == ["onnx", "python_function"]
        assert model.run_id == client.get_model_version_by_alias("trees", "champion").run_id
        example = json.loads((path / "input_example.json").read_text())
        assert example["columns"] == model.signature.inputs.input_names()
        assert model.load_input_example(str(path)).shape == (5, 8)
        assert model.metadata["tidemill"]["version"] == "trees/4"
        assert model.metadata["tidemill"]["categories"] == {"booking__grade": ["x", "y", "z"]}
        assert (path / "model.onnx").stat().st_size == model.model_size_bytes
    assert mlflow.models.get_model_info("models:/trees/2").signature is not None


def what_the_loop_made_is_not_changed_by_clients() -> None:
    client = MlflowClient()
    said = _refused("PERMISSION_DENIED", client.set_registered_model_alias, "trees", "champion", "1")
    assert "tidemill rollback late" in said
    _refused("PERMISSION_DENIED", client.delete_registered_model_alias, "trees", "champion")
    _refused("PERMISSION_DENIED", client.delete_model_version, "trees", "1")
    _refused("PERMISSION_DENIED", client.delete_registered_model, "trees")
    _refused("PERMISSION_DENIED", client.rename_registered_model, "trees", "mine")
    _refused("PERMISSION_DENIED", client.create_model_version, "trees", "s3://elsewhere/model")
    _refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, "trees")
    before = client.get_model_version("trees", "1")
    kept = mlflow.artifacts.load_text("models:/trees/1/MLmodel")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "MLmodel"
        file.write_text("changed")
        get_artifact_repository(before.source).log_artifact(str(file))
        said = ""
        try:
            get_artifact_repository(client.get_model_version_download_uri("trees", "1")).log_artifact(str(file))
        except (HTTPError, MlflowException) as error:
            said = str(error)
    assert "403" in said
    assert mlflow.artifacts.load_text("models:/trees/1/MLmodel") == kept, "what a client adds to the run is not the version's"
    assert client.get_model_version("trees", "1").source == before.source
    assert client.get_model_version_by_alias("trees", "champion").version == "4"


def what_clients_say_of_the_loops_versions_is_kept_beside_them() -> None:
    client = MlflowClient()
    client.update_registered_model("trees", "parcels that come late")
    client.update_model_version("trees", "2", "the one after the change")
    client.set_model_version_tag("trees", "2", "seen", "yes")
    client.set_registered_model_tag("trees", "team", "parcels")
    client.set_registered_model_alias("trees", "liked", "2")
    client.transition_model_version_stage("trees", "2", "Archived")
    model = client.get_registered_model("trees")
    assert (model.description, model.tags) == ("parcels that come late", {"team": "parcels"})
    assert model.aliases == {"champion": "4", "liked": "2"}
    version = client.get_model_version("trees", "2")
    assert (version.description, version.tags["seen"], version.current_stage) == ("the one after the change", "yes", "Archived")
    assert [one.version for one in client.search_model_versions("tags.seen = 'yes'")] == ["2"]
    assert {one.current_stage: one.version for one in client.get_latest_versions("trees")} == {"None": "5", "Archived": "2"}
    client.delete_model_version_tag("trees", "2", "seen")
    client.delete_registered_model_alias("trees", "liked")
    assert client.get_registered_model("trees").aliases == {"champion": "4"}
    assert "seen" not in client.get_model_version("trees", "2").tags
    copied = client.copy_model_version("models:/trees/2", "mine")
    assert (copied.name, copied.version) == ("mine", "1")
    with TemporaryDirectory() as folder:
        assert Path(mlflow.artifacts.download_artifacts("models:/mine/1", dst_path=folder), "MLmodel").exists()
