"""A version that a client registered as ONNX is made a model of the ledger, whatever comes of the version; nothing else is."""

import json
from typing import Any

import numpy as np
import pytest

from models import foreign
from models.fitted import SIGNATURE, boosted, matrix
from tidemill import loop, registry, tracking
from tidemill.core import DataError, Ref, UnknownName
from tidemill.ledger import Artifact, Ledger, lineage
from tidemill.models import DATATYPES, OnnxModel, compile_model, load_model, signature_of, store_model
from tidemill.registry.mlflow_model import mlflow_model
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version, delete_version
from tidemill.tracking.runs import create_run, log_inputs, update_run
from tidemill.tracking.values import Dataset, DatasetInput

ONNX = {"onnx": {"onnx_version": "1.17.0", "data": "model.onnx", "providers": ["CPUExecutionProvider"]}}
NAMED = [{"type": "float", "name": name, "required": True} for name in "abcd"]
TENSOR = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]
ROWS = np.random.default_rng(4).normal(0, 1, (9, 4))


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    loop.prepare(ledger)
    create_model(ledger, "embedder")
    return ledger


def mlmodel(flavors: Any = ONNX, inputs: Any = TENSOR, **more: Any) -> bytes:
    """What MLflow writes, as YAML, which JSON is too."""
    told = {"flavors": {**flavors, "python_function": {"loader_module": "mlflow.onnx"}}, "run_id": "x", **more}
    return json.dumps(told | {"signature": {"inputs": json.dumps(inputs), "outputs": None}}).encode()


def registered(ledger: Ledger, files: dict[str, bytes], below: str = "") -> str:
    """A version with files, as a client leaves it."""
    info = create_run(ledger, "0").info
    for name, data in files.items():
        part = ledger.blobs.part()
        part.write(data)
        tracking.put_file(ledger, tracking.place_of(f"{info.artifact_uri}/model/{name}"), part)
    update_run(ledger, info.run_id, status="FINISHED", ended_at=1)
    version = create_version(ledger, "embedder", f"{info.artifact_uri}/model{below}").version
    return f"models:/embedder/{version}"


def test_a_version_is_adopted_with_where_it_comes_from(ready: Ledger) -> None:
    onnx = foreign.embedder()
    version = registered(ready, {"MLmodel": mlmodel(inputs=NAMED), "model.onnx": onnx})
    found = registry.adopt(ready, version)
    assert registry.adopt(ready, "embedder/1").ref == found.ref == ready.artifact(found.ref).ref
    assert (found.ref.kind, found.ref.name, signature_of(found).features) == ("model", "embedder", tuple("abcd"))
    assert [str(node.ref) for node in lineage(ready, found.ref).parents] == ["registered model:embedder@1"]
    assert bytes(ready.blobs.get(found.blob("onnx"))) == onnx
    answers = load_model(ready, found).outputs(ROWS)
    told = registry.named_version(ready, version)
    assert registry.model_ref(ready, told) == str(found.ref)
    with pytest.raises(UnknownName, match="was not trained here: nothing is known of its features"):
        registry.bound_to(ready, found.ref)
    delete_version(ready, "embedder", "1")
    assert found.blob("onnx") in ready.named_blobs()
    assert not set(registry.unspoken(ready)) & set(found.meta["blobs"].values()), "it is kept whatever comes of the version"
    assert load_model(ready, ready.artifact(found.ref)).outputs(ROWS).tobytes() == answers.tobytes()


def test_a_version_of_a_client_is_opened_by_its_tensors(ready: Ledger) -> None:
    onnx = foreign.embedder()
    version, model = registry.open_version(ready, registered(ready, {"MLmodel": mlmodel(inputs=NAMED), "model.onnx": onnx}))
    expected = OnnxModel(onnx)
    assert (version.name, version.version, model.inputs, model.outputs) == ("embedder", "1", expected.inputs, expected.outputs)
    (spec,) = expected.inputs.values()
    tensors = {spec.name: ROWS.astype(DATATYPES[spec.datatype])}
    assert {name: one.tobytes() for name, one in model.run(tensors).items()} == {
        name: one.tobytes() for name, one in expected.run(tensors).items()
    }
    with pytest.raises(DataError, match="it is no ONNX model"):
        registry.open_version(ready, registered(ready, {"model.pkl": b"no"}))


def test_weights_beside_it_come_with_it(ready: Ledger) -> None:
    cut, beside = foreign.with_weights_beside(foreign.embedder(), "0b6-data")
    found = registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": cut, "0b6-data": beside}))
    one = registry.adopt(ready, registered(ready, {"model.onnx": foreign.embedder()}, "/model.onnx"))
    assert signature_of(found).features == signature_of(one).features == ("x_0", "x_1", "x_2", "x_3")
    assert load_model(ready, found).outputs(ROWS).tobytes() == load_model(ready, one).outputs(ROWS).tobytes()
    with pytest.raises(DataError, match="embedder/3 cannot be adopted: its file '0b6-data' is not here"):
        registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": cut}))
    for file in ("../../secret", "/etc/passwd"):
        cut, _ = foreign.with_weights_beside(foreign.embedder(), file)
        with pytest.raises(DataError, match=r"Invalid path|is not here"):
            registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": cut}))


def test_a_model_that_another_ledger_wrote_brings_its_categories(ready: Ledger) -> None:
    made = store_model(ready, "trees", compile_model(boosted(n_estimators=4), SIGNATURE, matrix(40)), SIGNATURE, matrix(20), {})
    found = registry.adopt(ready, registered(ready, mlflow_model(ready, made, label="trees/1", run_id="", at=0, tags={})))
    assert (signature_of(found).features, signature_of(found).categories) == (SIGNATURE.features, SIGNATURE.categories)
    assert (signature_of(found).output, signature_of(found).block, found.ref == made.ref) == ("probability", 8, False)
    assert load_model(ready, found).outputs(matrix(99)).tobytes() == load_model(ready, made).outputs(matrix(99)).tobytes()


def test_what_its_run_read_of_this_project_is_what_it_learned_from(ready: Ledger) -> None:
    rows = Artifact(Ref.of("training rows", "orders", "ab" * 20), {"blobs": {}})
    ready.put_artifact(rows)
    info = create_run(ready, "0").info
    read = [Dataset("orders", rows.ref.digest, "tidemill", str(rows.ref)), Dataset("gone", "cd" * 20, "tidemill", "training set:late@cdcd")]
    log_inputs(ready, info.run_id, [DatasetInput(one) for one in [*read, Dataset("file", "1", "local", "/data")]])
    part = ready.blobs.part()
    part.write(foreign.embedder())
    tracking.put_file(ready, tracking.place_of(f"{info.artifact_uri}/model.onnx"), part)
    create_version(ready, "embedder", f"{info.artifact_uri}/model.onnx", run_id=info.run_id)
    found = registry.adopt(ready, "embedder/1")
    assert {(edge.role, edge.parent) for edge in ready.parents(found.ref)} == {
        ("adopted", "registered model:embedder@1"),
        ("learned from orders", str(rows.ref)),
    }


def test_what_is_said_of_it_names_it(ready: Ledger) -> None:
    version = registered(ready, {"MLmodel": mlmodel(), "model.onnx": foreign.classifier()})
    with pytest.raises(DataError, match="embedder/1 cannot be adopted: 2 outputs of the model are numbers") as error:
        registry.adopt(ready, version)
    assert error.value.available[1].startswith("probabilities (FP32 [any, 3])")
    found = registry.adopt(ready, version, output="probabilities", features=["u", "v", "w"])
    other = registry.adopt(ready, version, output="decision")
    assert (signature_of(found).features, signature_of(found).width, found.ref == other.ref) == (("u", "v", "w"), 3, False)
    assert set(registry.adopted(ready, registry.named_version(ready, version))) == {found.ref, other.ref}


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"MLmodel": mlmodel({"sklearn": {"pickled_model": "model.pkl"}}), "model.pkl": b"x"}, "its flavors are python_function, sklearn"),
        ({"MLmodel": b"- a list"}, "is no mapping"),
        ({"MLmodel": b"{}"}, "it has no MLmodel that names one"),
        ({"weights.bin": b"x"}, "it has no MLmodel that names one"),
        ({"MLmodel": mlmodel()}, "its file 'model.onnx' is not here"),
        ({"MLmodel": mlmodel({"onnx": {"data": "../../x/model.onnx"}})}, "Invalid path"),
        ({"MLmodel": mlmodel(), "model.onnx": b"\xff\xff"}, "the file is no ONNX model"),
    ],
)
def test_what_is_no_onnx_is_refused(ready: Ledger, files: dict[str, bytes], what: str) -> None:
    with pytest.raises(DataError, match=f"embedder/1 cannot be adopted: .*{what}"):
        registry.adopt(ready, registered(ready, files))


def test_a_version_that_is_not_there_or_not_here(ready: Ledger) -> None:
    with pytest.raises(UnknownName):
        registry.adopt(ready, "models:/embedder/7")
    create_version(ready, "embedder", "s3://bucket/model")
    with pytest.raises(DataError, match="does not lie on this server"):
        registry.adopt(ready, "embedder/1")


def test_an_adopted_model_has_its_digest_from_what_it_is(ready: Ledger) -> None:
    one = registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": foreign.embedder()}))
    same = registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": foreign.embedder()}))
    other = registry.adopt(ready, registered(ready, {"MLmodel": mlmodel(), "model.onnx": foreign.embedder(seed=1)}))
    assert (one.ref == same.ref, one.ref == other.ref) == (True, False)
    assert ready.artifact(Ref.parse(str(other.ref))).ref == other.ref
    assert len(ready.parents(one.ref)) == 2
