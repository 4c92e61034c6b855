"""The Open Inference Protocol over bare models: every datatype both ways, what is refused and with which words."""

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

import tidemill as tm
from tidemill import __version__
from tidemill.core import Array, DataError, TidemillError
from tidemill.models import DATATYPES, OnnxModel
from tidemill.serving import Inference, Repository, Served, oip, respond

ONNX = {"BOOL": "BOOL", "BYTES": "STRING", "FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"}


Tensors = dict[str, tuple[str, list[Any]]]


def onnx_of(nodes: list[Any], inputs: Tensors, outputs: Tensors, constants: Sequence[Any] = ()) -> bytes:
    """A model of nodes; tensors by name, datatype and shape."""
    values = [
        [helper.make_tensor_value_info(name, getattr(TensorProto, ONNX.get(kind, kind)), shape) for name, (kind, shape) in some.items()]
        for some in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *values, initializer=constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()  # type: ignore[no-any-return]


def echo(datatype: str, shape: list[Any] | None = None) -> bytes:
    """What comes in goes out."""
    tensor = (datatype, ["n", "m"] if shape is None else shape)
    return onnx_of([helper.make_node("Identity", ["x"], ["y"])], {"x": tensor}, {"y": tensor})


def sums() -> bytes:
    """The sum of two, and the difference."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    tensor = ("FP32", ["n", 2])
    return onnx_of(nodes, {"a": tensor, "b": tensor}, {"sum": tensor, "difference": tensor})


class Asked:
    """Bare models asked as HTTP asks them, without sockets."""

    def __init__(self, **models: bytes) -> None:
        made = [Served(name, "1", lambda data=data: OnnxModel(data), lambda: 7_000) for name, data in models.items()]  # type: ignore[misc]
        for one in made:
            one.model = one.load()
        self.inference = Inference(Repository(made), __version__)

    def __call__(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, Any, bytes]:
        """Status, JSON, and the bytes behind it."""
        named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            found = respond(self.inference.call(method, path), named, sent)
        except TidemillError as error:
            return 404, {"error": str(error)}, b""
        head = len(found.body) if found.head is None else found.head
        return found.status, json.loads(found.body[:head]), found.body[head:]


def tensor(name: str, datatype: str, shape: list[int], data: Any = None, **parameters: Any) -> dict[str, Any]:
    plain = {"name": name, "datatype": datatype, "shape": shape}
    return plain | ({"data": data} if data is not None else {}) | ({"parameters": parameters} if parameters else {})


SOME: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True, False, False],
    "BYTES": ["", "a", "né", "\0", "日本", "x" * 300],
    **{name: [0, 1, 2, 3, 100, 127] for name in DATATYPES if "INT" in name},
    **{name: [0.0, -0.0, 1.5, -2.25, 1000.0, 0.5] for name in DATATYPES if name.startswith("FP")},
}


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_every_datatype_comes_and_goes(datatype: str, nested: bool, raw: bool) -> None:
    asked = Asked(echo=echo(datatype))
    data = SOME[datatype]
    sent = [data[:3], data[3:]] if nested else data
    body = {"id": "7", "inputs": [tensor("x", datatype, [2, 3], sent)], "outputs": [{"name": "y", "parameters": {"binary_data": raw}}]}
    status, found, more = asked("POST", "/v2/models/echo/infer", body)
    assert (status, found["id"], found["model_name"], found["model_version"]) == (200, "7", "echo", "1")
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype, [2, 3])
    if raw:
        assert output["parameters"] == {"binary_data_size": len(more)}
        assert more == packed(datatype, data)
    else:
        assert output["data"] == data


def packed(datatype: str, data: list[Any]) -> bytes:
    """Values as the binary tensor extension has them."""
    if datatype == "BYTES":
        return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in data)
    return np.array(data, dtype=DATATYPES[datatype]).tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_tensors_come_behind_the_json(datatype: str) -> None:
    asked, raw = Asked(echo=echo(datatype)), packed(datatype, SOME[datatype])
    head = json.dumps({"inputs": [tensor("x", datatype, [2, 3], binary_data_size=len(raw))], "parameters": {"binary_data_output": True}})
    body = head.encode() + raw
    status, found, more = asked("POST", "/v2/models/echo/infer", body, inference_header_content_length=str(len(head)))
    assert (status, more) == (200, raw), found


@given(data=arrays.arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4))))
@settings(max_examples=50, deadline=None)
def test_any_numbers_keep_their_bits(data: Array) -> None:
    head = json.dumps(
        {"inputs": [tensor("x", "FP64", list(data.shape), binary_data_size=data.nbytes)], "parameters": {"binary_data_output": True}}
    )
    status, _, more = ECHO("POST", "/v2/models/echo/infer", head.encode() + data.tobytes(), inference_header_content_length=str(len(head)))
    assert (status, more) == (200, data.tobytes())
    plain = [None if value != value else str(value) if np.isinf(value) else value for value in data.ravel().tolist()]
    status, found, _ = ECHO("POST", "/v2/models/echo/infer", {"inputs": [tensor("x", "FP64", list(data.shape), plain)]})
    assert (status, found["outputs"][0]["data"]) == (200, plain)


ECHO = Asked(echo=echo("FP64"))


some_rows = st.integers(1, 5).flatmap(
    lambda rows: st.lists(
        st.sampled_from(["<i8", "<f4", "<f8", "<u1", "?", "O"]).flatmap(
            lambda kind: arrays.arrays(
                np.dtype(kind),
                st.sampled_from([(rows,), (rows, 1), (rows, 3), (rows, 2, 2)]),
                elements=st.just("a") if kind == "O" else None,
            )
        ),
        min_size=1,
        max_size=3,
    )
)


@given(made=some_rows)
@settings(deadline=None)
def test_outputs_of_many_rows_are_shown_as_those_of_each_alone(made: list[Array]) -> None:
    outputs = {f'a "{i}", é %d': one for i, one in enumerate(made)}
    asked = oip.Asked({}, {}, raw=False, id="")
    alone = [oip.show(asked, {name: one[i : i + 1] for name, one in outputs.items()}) for i in range(len(made[0]))]
    for i, text in enumerate(alone):
        for (name, one), found in zip(outputs.items(), json.loads(text), strict=True):
            data = [str(value) if value in (np.inf, -np.inf) else value for value in one[i : i + 1].ravel().tolist()]
            told = {"name": name, "datatype": oip.datatype_of(one), "shape": [1, *one.shape[1:]], "data": data}
            assert repr(found | {"data": [np.nan if value is None else value for value in found["data"]]}) == repr(told)
    assert oip.show_each(outputs) in (None, alone)
    plain = all(one.ndim < 3 and one.dtype.kind in "iuf" and np.isfinite(one).all() and np.abs(one).max() < 1e9 for one in made)
    assert not plain or oip.show_each(outputs) == alone
    assert oip.show_each({**outputs, "more": np.zeros(len(made[0]) + 1)}) is None


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("wanted", [None, [{"name": "y"}], [{"name": "y", "parameters": {"binary_data": True}}]])
def test_infinite_numbers_are_texts_in_json(datatype: str, wanted: Any) -> None:
    asked, data = Asked(echo=echo(datatype)), ["inf", None, "-inf", 1.5]
    for sent in (data, [data[:2], data[2:]]):
        body = {"inputs": [tensor("x", datatype, [2, 2], sent)], **({"outputs": wanted} if wanted else {})}
        status, found, raw = asked("POST", "/v2/models/echo/infer", body)
        assert status == 200, found
        if raw:
            assert np.array_equal(np.frombuffer(raw, DATATYPES[datatype]), [np.inf, np.nan, -np.inf, 1.5], equal_nan=True)
        else:
            assert found["outputs"][0]["data"] == data


def test_brain_floats_come_raw() -> None:
    values = np.array([1.5, -2.0], dtype=np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    head = json.dumps({"inputs": [tensor("x", "BF16", [1, 2], binary_data_size=4)]})
    asked = Asked(echo=echo("FP32"))
    status, found, _ = asked("POST", "/v2/models/echo/infer", head.encode() + raw, inference_header_content_length=str(len(head)))
    assert (status, found["outputs"][0]["data"]) == (200, [1.5, -2.0])
    status, found, _ = asked("POST", "/v2/models/echo/infer", {"inputs": [tensor("x", "BF16", [1, 2], [1.5, 2])]})
    assert (status, "raw" in found["error"]) == (400, True)


def test_several_inputs_and_the_outputs_that_are_wanted() -> None:
    asked = Asked(sums=sums())
    inputs = [tensor("b", "FP32", [1, 2], [[1, 2]]), tensor("A", "FP64", [1, 2], [10, 20])]
    status, found, _ = asked("POST", "/v2/models/sums/infer", {"inputs": inputs, "outputs": [{"name": "difference"}]})
    assert (status, found["outputs"]) == (200, [{"name": "difference", "datatype": "FP32", "shape": [1, 2], "data": [9.0, 18.0]}])
    found = asked("POST", "/v2/models/sums/infer", {"inputs": inputs})[1]
    assert [(one["name"], one["data"]) for one in found["outputs"]] == [("sum", [11.0, 22.0]), ("difference", [9.0, 18.0])]


GOOD = tensor("x", "FP64", [1, 2], [1, 2])


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ([], "the input 'x' is missing"),
        ([GOOD, GOOD], "comes twice"),
        ([GOOD, {**GOOD, "name": "z"}], "the model has no input 'z'"),
        ([{**GOOD, "shape": [1, 3]}], "the data have the shape [2] and not [1, 3]"),
        ([{**GOOD, "data": [[1], [2]]}], "the data have the shape [2, 1] and not [1, 2]"),
        ([{**GOOD, "data": [[1, 2], [3]]}], "are not FP64"),
        ([{**GOOD, "data": [1, "2"]}], "data[1]"),
        ([{**GOOD, "data": [1, True]}], "data[1]"),
        ([{**GOOD, "shape": [2]}], "has the shape [2]"),
        ([{**GOOD, "shape": [-1, 2]}], "[-1, 2] is no shape"),
        ([{**GOOD, "shape": [0] * 40}], "is no shape"),
        ([{**GOOD, "shape": [2**62, 2**62]}], "and not [4611686018427387904, 4611686018427387904]"),
        ([{**GOOD, "shape": [0, 2**62, 2**62], "data": []}], "is no shape"),
        ([{**GOOD, "shape": [0, 2**80], "data": []}], "is no shape"),
        ([tensor("x", "BYTES", [0, 2**62, 2**62], binary_data_size=0)], "is no shape"),
        ([tensor("x", "FP64", [0, 2**62, 2**62], binary_data_size=0)], "is no shape"),
        ([tensor("x", "BYTES", [2**50], binary_data_size=0)], "are more than its 0 bytes"),
        ([{**GOOD, "datatype": "FP65"}], "the datatype 'FP65' is not known"),
        ([{**GOOD, "datatype": "BYTES", "data": ["a", "b"]}], "the input 'x' is BYTES"),
        (
            [{**GOOD, "datatype": "UINT8", "data": [1, 300]}],
            "300 is no UINT8\n  where: inputs[0].data[1]\n  next: send whole numbers from 0 to 255",
        ),
        ([{**GOOD, "datatype": "INT64", "data": [[1, 2**70]]}], f"{2**70} is no INT64\n  where: inputs[0].data[0][1]"),
        ([{**GOOD, "datatype": "UINT64", "data": [-1, 2]}], "-1 is no UINT64\n  where: inputs[0].data[0]"),
        ([{**GOOD, "data": 1.5}], 'send a list, also of one value: {"name"'),
        ([{**GOOD, "shape": [], "data": [1]}], "where −1 is any size: for example [1, 1]"),
        ([{**GOOD, "data": [1, "infinity"]}], "data[1]"),
        ([{**GOOD, "datatype": "INT64", "data": [1, "inf"]}], "data[1]"),
        ([{**GOOD, "datatype": "INT64", "data": [1, 1.5]}], "data[1]"),
        ([{"name": "x", "datatype": "FP64", "shape": [1, 2]}], "it has no data"),
        ([tensor("x", "FP64", [1, 2], binary_data_size=16)], "binary_data_size is 16, and 0 bytes are there"),
        ([tensor("x", "FP64", [1, 2], binary_data_size="16")], "binary_data_size is '16'"),
        ("x", "Expected `array`, got `str` - at `$.inputs`"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(inputs: Any, what: str) -> None:
    status, found, _ = ECHO("POST", "/v2/models/echo/infer", {"inputs": inputs})
    assert status == 400
    assert what in found["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"inputs": [{"name": "x"}]}', b"null"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    status, found, _ = ECHO("POST", "/v2/models/echo/infer", body)
    assert (status, "error" in found) == (400, True)
    assert ("it is empty" in found["error"]) == (body == b"")


@pytest.mark.parametrize(
    ("datatype", "raw", "size", "what"),
    [
        ("FP64", b"\0" * 15, 15, "2 values of FP64 are 16 bytes, not 15"),
        ("FP64", b"\0" * 24, 16, "8 bytes follow the last tensor"),
        ("BYTES", b"\1\0\0\0a\xff\xff\xff\xff", 9, "element 1 of 2 ends behind its 9 bytes"),
        ("BYTES", b"\1\0\0\0\xff\0\0\0\0", 9, "element 0 is no UTF-8"),
        ("BYTES", b"\0" * 12, 12, "4 bytes follow its 2 elements"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype: str, raw: bytes, size: int, what: str) -> None:
    head = json.dumps({"inputs": [tensor("x", datatype, [1, 2], binary_data_size=size)]})
    asked = Asked(echo=echo(datatype))
    status, found, _ = asked("POST", "/v2/models/echo/infer", head.encode() + raw, inference_header_content_length=str(len(head)))
    assert (status, what in found["error"]) == (400, True), found
    for length in ("x", "-1", "9" * 30, "100000"):
        assert asked("POST", "/v2/models/echo/infer", head.encode(), inference_header_content_length=length)[0] == 400


@pytest.mark.parametrize("shape", [[-1, -2], [-2, -1], [2, -1], [1, 3], [1], [2**62, 2**62], [10**30, 1]])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_floats_of_a_wrong_shape_are_refused(datatype: str, shape: list[int]) -> None:
    size = 2 * DATATYPES[datatype].itemsize
    for raw, sent in ((b"\0" * size, tensor("x", datatype, shape, binary_data_size=size)), (b"", tensor("x", datatype, shape, [0, None]))):
        head = json.dumps({"inputs": [sent]}).encode()
        status, found, _ = Asked(echo=echo(datatype))(
            "POST", "/v2/models/echo/infer", head + raw, inference_header_content_length=str(len(head))
        )
        assert status == 400, found


def test_packed_bodies_are_unpacked_and_bombs_are_not() -> None:
    body = msgspec.json.encode({"inputs": [GOOD]})
    for name, sent in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert ECHO("POST", "/v2/models/echo/infer", sent, content_encoding=name)[0] == 200
    bomb = gzip.compress(b"0" * (65 << 20))
    for name, sent in (("gzip", bomb), ("gzip", body), ("gzip", gzip.compress(body)[:-9]), ("br", body)):
        assert ECHO("POST", "/v2/models/echo/infer", sent, content_encoding=name)[0] == 400


def test_the_server_and_its_models_describe_themselves() -> None:
    asked = Asked(sums=sums())
    assert asked("GET", "/v2")[1] == {
        "name": "tidemill",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
    }
    assert asked("GET", "/v2/health/live")[1] == {"live": True}
    assert asked("GET", "/v2/health/ready")[1] == {"ready": True}
    whole = asked("GET", "/v2/models/sums")[1]
    assert whole == {
        "name": "sums",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 2]} for name in "ab"],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, 2]} for name in ("sum", "difference")],
    }
    assert asked("GET", "/v2/models/sums/versions/1")[1] == whole
    assert asked("GET", "/v2/models/sums/versions/1/ready")[:2] == (200, {"name": "sums", "ready": True})
    for path in ("/v2/models/none", "/v2/models/sums/versions/2", "/v2/models/sums/x", "/x", "/"):
        assert asked("GET", path)[0] == 404
    assert asked("GET", "/v2/models/sums/infer")[0] == 405


def test_models_are_listed_unloaded_and_loaded() -> None:
    asked = Asked(one=echo("FP64"), two=echo("INT8"))
    assert asked("POST", "/v2/repository/index")[1] == [
        {"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("one", "two")
    ]
    assert asked("POST", "/v2/repository/models/one/unload")[0] == 200
    assert asked("POST", "/v2/repository/index", {"ready": True})[1] == [{"name": "two", "version": "1", "state": "READY", "reason": ""}]
    assert asked("POST", "/v2/repository/index", {})[1][0]["state"] == "UNAVAILABLE"
    assert asked("GET", "/v2/models/one/ready")[0] == 503
    assert asked("GET", "/v2/health/ready")[0] == 503
    status, found, _ = asked("POST", "/v2/models/one/infer", {"inputs": [GOOD]})
    assert (status, "unloaded" in found["error"]) == (404, True)
    assert asked("POST", "/v2/repository/models/one/load")[0] == 200
    assert asked("POST", "/v2/models/one/infer", {"inputs": [GOOD]})[0] == 200
    assert asked("POST", "/v2/repository/models/none/load")[0] == 404
    assert asked("POST", "/v2/repository/index", b"[")[0] == 400


def test_what_was_answered_is_counted() -> None:
    asked = Asked(one=echo("FP64"))
    body = {"inputs": [tensor("x", "FP64", [3, 1], [1, 2, 3])]}
    for _ in range(4):
        asked("POST", "/v2/models/one/infer", body)
    asked("POST", "/v2/models/one/infer", {"inputs": []})
    for path in ("/v2/models/one/stats", "/v2/models/one/versions/1/stats", "/v2/models/stats"):
        (found,) = asked("GET", path)[1]["model_stats"]
        assert (found["name"], found["version"], found["inference_count"], found["execution_count"]) == ("one", "1", 12, 4)
        assert found["last_inference"] == 7
        stats = found["inference_stats"]
        assert (stats["success"]["count"], stats["fail"]["count"]) == (4, 1)
        assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0


def test_a_model_that_is_none_says_why() -> None:
    for data in (b"", b"no model", echo("FP64")[:-20]):
        with pytest.raises(DataError, match="the model cannot be loaded"):
            OnnxModel(data, "m.onnx")


def test_probabilities_as_dicts_are_a_matrix() -> None:
    """What skl2onnx gives unless it is told otherwise."""
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0]], dtype=np.float32)
    fitted = LogisticRegression().fit(rows, ["b", "a", "c", "b"])
    asked = Asked(lr=to_onnx(fitted, rows[:1]).SerializeToString())
    status, found, _ = asked("POST", "/v2/models/lr/infer", {"inputs": [tensor("X", "FP32", [4, 2], rows.tolist())]})
    label, probability = found["outputs"]
    assert (status, label["datatype"], label["data"]) == (200, "BYTES", fitted.predict(rows).tolist())
    assert probability["shape"] == [4, 3]
    np.testing.assert_allclose(np.reshape(probability["data"], (4, 3)), fitted.predict_proba(rows), atol=1e-6)


def test_a_converted_pipeline_takes_texts_and_missing_numbers() -> None:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    random = np.random.default_rng(0)
    rows = pd.DataFrame({"origin": random.choice(["JFK", "ünï"], 200), "delay": random.normal(0, 9, 200)})
    rows.loc[::7, "delay"] = np.nan
    late = np.where((rows.delay > 3) | (rows.origin == "JFK"), "late", "on time")
    hot = make_column_transformer((OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["origin"]), remainder="passthrough")
    model = make_pipeline(hot, HistGradientBoostingClassifier(max_iter=10)).fit(rows, late)
    sent = [tensor("origin", "BYTES", [3, 1], ["ünï", "JFK", "LGA"]), tensor("delay", "FP64", [3, 1], [4.5, None, -2])]
    status, answer, _ = Asked(late=tm.convert(model, rows).onnx)("POST", "/v2/models/late/infer", {"inputs": sent})
    assert status == 200
    label, probability = answer["outputs"]
    asked = pd.DataFrame({"origin": ["ünï", "JFK", "LGA"], "delay": [4.5, np.nan, -2.0]})
    assert label["data"] == model.predict(asked).tolist()
    assert probability["data"] == pytest.approx(model.predict_proba(asked)[:, 1], abs=1e-9)
