"""ONNX models that others made, for tests: built node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

COLUMNS, HIDDEN, WIDTH = 4, 24, 6
KINDS = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "int64": TensorProto.INT64, "string": TensorProto.STRING}


def info(name: str, shape: Sequence[Any], kind: str = "float") -> Any:
    return helper.make_tensor_value_info(name, KINDS[kind], list(shape))


def model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any] = ()) -> bytes:
    graph = helper.make_graph(list(nodes), "foreign", list(inputs), list(outputs), list(constants))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def embedder(kind: str = "float", *, rows: Any = None, seed: int = 0, width: int = WIDTH) -> bytes:
    """A network of two layers."""
    random, number = np.random.default_rng(seed), {"float": np.float32, "double": np.float64}[kind]
    shapes = {"w1": (COLUMNS, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, width), "b2": (width,)}
    constants = [numpy_helper.from_array(random.normal(0, 0.5, shape).astype(number), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["embedding"]),
    ]
    return model(nodes, [info("x", [rows, COLUMNS], kind)], [info("embedding", [rows, width], kind)], constants)


def mixing() -> bytes:
    """Each row less the mean of all rows that it is asked with."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])]
    return model(nodes, [info("x", [None, 2])], [info("y", [None, 2])], [numpy_helper.from_array(np.array([0]), "axes")])


def by_chance() -> bytes:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["y"])]
    return model(nodes, [info("x", [None, 2])], [info("y", [None, 2])])


def classifier() -> bytes:
    """A label and the probabilities of each class, as skl2onnx gives them without zipmap."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["x"], ["decision"]),
    ]
    outputs = [info("label", [None], "int64"), info("probabilities", [None, 3]), info("decision", [None, 3])]
    return model(nodes, [info("x", [None, 3])], outputs)


def zipmapped() -> bytes:
    """A classifier with a map for each row."""
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "p"],
            domain="ai.onnx.ml",
            coefficients=[1.0, 2.0],
            intercepts=[0.0, 0.0],
            classlabels_ints=[0, 1],
        ),
        helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    return model(nodes, [info("x", [None, 1])], [info("label", [None], "int64"), maps])


def with_weights_beside(onnx: bytes, file: str) -> tuple[bytes, bytes]:
    """A model whose weights lie in a file beside it, and that file, as `onnx.save(save_as_external_data=True)` writes them."""
    found, beside = ModelProto.FromString(onnx), b""
    for tensor in found.graph.initializer:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", len(beside)), ("length", len(tensor.raw_data))):
            tensor.external_data.add(key=key, value=str(value))
        beside += tensor.raw_data
        tensor.ClearField("raw_data")
    return found.SerializeToString(), beside
