"""ONNX of others: how it is asked is found by asking it, a row is answered alike among any others, and what cannot be is refused."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from models import foreign
from tidemill.core import DataError
from tidemill.ledger import Ledger
from tidemill.models import Predictor, load_model, read_onnx, signature_of, store_onnx, whole_onnx


def alone(onnx: bytes, rows: Any, output: str) -> Any:
    """What onnxruntime says of each row with seven of zeros behind it."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    block = np.zeros((len(rows), 8, rows.shape[1]), dtype=np.float32)
    block[:, 0] = rows
    return np.array([session.run([output], {"x": one})[0][0] for one in block], dtype=np.float64)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_a_row_is_answered_alike_alone_and_among_any_others(ledger: Ledger, kind: str) -> None:
    onnx = foreign.embedder(kind)
    found = read_onnx(onnx)
    assert found.features == ("x_0", "x_1", "x_2", "x_3")
    assert (found.input, found.output, found.dtype, found.width) == ("x", "embedding", {"float": "float32"}.get(kind, "float64"), 6)
    artifact = store_onnx(ledger, "embedder", onnx, found)
    predictor = load_model(ledger, artifact)
    assert signature_of(artifact) == predictor.signature == found
    rows = np.random.default_rng(1).normal(0, 2, (101, 4))
    whole = predictor.outputs(rows)
    assert whole.shape == (101, 6)
    for order in (np.arange(101), np.arange(101)[::-1], np.array([7]), np.arange(3, 40)):
        assert predictor.outputs(rows[order]).tobytes() == whole[order].tobytes()
    if kind == "float":
        assert whole.tobytes() == alone(onnx, rows, "embedding").tobytes()
    assert predictor.outputs(rows[:0]).shape == (0, 6)
    odd = np.array([[np.nan, np.inf, -np.inf, 1e300], [0, 0, 0, 0]])
    assert np.isfinite(predictor.outputs(odd)[1]).all()


def test_a_model_that_mixes_rows_is_asked_for_one_at_a_time() -> None:
    found = read_onnx(foreign.mixing())
    assert (found.block, found.width) == (1, 2)
    assert Predictor(foreign.mixing(), found).outputs(np.array([[1.0, 2.0], [5.0, 6.0]])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_model_of_one_row_or_several_at_a_time_is_asked_so() -> None:
    rows = np.random.default_rng(1).normal(0, 2, (5, 4))
    expected = Predictor(foreign.embedder(), read_onnx(foreign.embedder())).outputs(rows)
    for fixed in (1, 3):
        onnx = foreign.embedder(rows=fixed)
        found = read_onnx(onnx)
        assert found.block == fixed
        np.testing.assert_allclose(Predictor(onnx, found).outputs(rows), expected, rtol=1e-5)


def test_of_several_outputs_one_is_named() -> None:
    with pytest.raises(DataError, match="2 outputs of the model are numbers, one is needed") as error:
        read_onnx(foreign.classifier())
    assert [text.partition(" ")[0] for text in error.value.available] == ["label", "probabilities", "decision"]
    found = read_onnx(foreign.classifier(), output="probabilities", names=("a", "b", "c"), categories={"b": ["u", "v"], "other": []})
    assert (found.features, found.width, found.categories) == (("a", "b", "c"), 3, {"b": ("u", "v")})
    labels = read_onnx(foreign.classifier(), output="label")
    assert Predictor(foreign.classifier(), labels).outputs(np.array([[0.0, 2.0, 1.0]])).tolist() == [[1.0]]


def two_inputs() -> bytes:
    node = helper.make_node("Add", ["x", "y"], ["z"])
    return foreign.model([node], [foreign.info("x", [None, 2]), foreign.info("y", [None, 2])], [foreign.info("z", [None, 2])])


def of_texts() -> bytes:
    node = helper.make_node("Identity", ["x"], ["z"])
    return foreign.model([node], [foreign.info("x", [None, 2], "string")], [foreign.info("z", [None, 2], "string")])


def of_lists() -> bytes:
    node, kind = helper.make_node("SequenceConstruct", ["x"], ["z"]), helper.make_tensor_type_proto(1, [None, 2])
    return foreign.model([node], [foreign.info("x", [None, 2])], [helper.make_value_info("z", helper.make_sequence_type_proto(kind))])


def test_the_maps_of_a_converter_are_a_column_for_each_class() -> None:
    found = read_onnx(foreign.zipmapped())
    assert (found.output, found.width, found.block) == ("probabilities", 2, 8)
    assert Predictor(foreign.zipmapped(), found).outputs(np.array([[3.0], [1.0]])).tolist() == [[3.0, 6.0], [1.0, 2.0]]


def total() -> bytes:
    node, axes = helper.make_node("ReduceSum", ["x", "axes"], ["z"], keepdims=0), numpy_helper.from_array(np.array([0]), "axes")
    return foreign.model([node], [foreign.info("x", [None, 2])], [foreign.info("z", [2])], [axes])


@pytest.mark.parametrize(
    ("onnx", "more", "what"),
    [
        (two_inputs(), {}, "takes 2 inputs: x, y"),
        (of_texts(), {}, r"the input 'x' of the model is BYTES \[any, 2\]"),
        (of_lists(), {}, "'z' of the model is seq.*, and not a tensor"),
        (foreign.classifier(), {"output": "nothing"}, "has no output 'nothing' of numbers"),
        (foreign.by_chance(), {}, "gives other numbers each time"),
        (foreign.embedder(), {"names": ["a", "b"]}, "takes 4 columns, and 2 are named"),
        (foreign.embedder(), {"names": ["a", "b", "b", "c"]}, "takes 4 columns, and 3 are named"),
        (total(), {}, r"has the shape \(2,\) for 8 rows"),
        (b"not a model", {}, "the model cannot be loaded"),
        (b"", {}, "the model cannot be loaded"),
    ],
)
def test_what_is_no_matrix_to_numbers_is_refused(onnx: bytes, more: Any, what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        read_onnx(onnx, **more)
    assert error.value.hint


def test_weights_that_lie_beside_it_are_put_into_it() -> None:
    rows, onnx = np.random.default_rng(1).normal(0, 2, (5, 4)), foreign.embedder()
    assert whole_onnx(onnx, lambda name: b"") == onnx
    cut, beside = foreign.with_weights_beside(onnx, "weights.bin")
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        return beside

    joined = whole_onnx(cut, read)
    assert asked == ["weights.bin"]
    assert Predictor(joined, read_onnx(joined)).outputs(rows).tobytes() == Predictor(onnx, read_onnx(onnx)).outputs(rows).tobytes()
    with pytest.raises(DataError, match="the model cannot be loaded"):
        read_onnx(whole_onnx(cut, lambda name: beside[:100]))
    with pytest.raises(DataError, match="the file is no ONNX model"):
        whole_onnx(b"\xff\xff", lambda name: b"")
