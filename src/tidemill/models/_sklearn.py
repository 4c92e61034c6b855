"""scikit-learn → ONNX in double precision, for a logistic regression after column transformers, imputers, scalers and one-hot.

Written out here since the public converter has no one-hot over numbers with missing ones. Each product is summed row by row,
so a row's answer does not depend on the rows beside it.
"""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tidemill.core import Floats, MissingExtra, NoExactForm


class _Graph:
    """ONNX nodes and constants as they grow."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float64) -> str:
        """Append a constant; returns its name."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name


def _columns(graph: _Graph, entry: str, columns: list[int]) -> str:
    return graph.op("Gather", entry, graph.constant(columns, np.int64), axis=1)


def _one_hot(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    if step.drop is not None or step.min_frequency is not None or step.max_categories is not None:
        raise NoExactForm("OneHotEncoder with drop, min_frequency or max_categories has no exact form here", hint="leave them out")
    if step.handle_unknown == "error":
        raise NoExactForm("OneHotEncoder fails on a category that it has not seen", hint='give it handle_unknown="ignore"')
    parts = []
    for i, categories in enumerate(step.categories_):
        column, known = _columns(graph, entry, [i]), np.asarray(categories, dtype=np.float64)
        hit = graph.op("Equal", column, graph.constant(known[~np.isnan(known)].reshape(1, -1)))
        parts.append(graph.op("Cast", hit, to=11))
        if np.isnan(known).any():
            parts.append(graph.op("Cast", graph.op("IsNaN", column), to=11))
    return graph.op("Concat", *parts, axis=1), sum(len(categories) for categories in step.categories_)


def _impute(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    statistics = np.asarray(step.statistics_, dtype=np.float64)
    of_nan = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    if step.add_indicator or np.isnan(statistics).any() or not of_nan:
        raise NoExactForm("SimpleImputer: only NaN is imputed, without indicator, and no column may be empty", hint="drop empty columns")
    return graph.op("Where", graph.op("IsNaN", entry), graph.constant(statistics.reshape(1, -1)), entry), width


def _scale(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    if step.mean_ is not None and step.with_mean:
        entry = graph.op("Sub", entry, graph.constant(step.mean_.reshape(1, -1)))
    if step.scale_ is not None:
        entry = graph.op("Div", entry, graph.constant(step.scale_.reshape(1, -1)))
    return entry, width


def _chain(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    for _, part in step.steps:
        entry, width = _transform(graph, part, entry, width)
    return entry, width


def _by_columns(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    parts, total = [], 0
    for _, part, columns in step.transformers_:
        chosen = list(np.arange(width)[columns])
        if not chosen or (isinstance(part, str) and part == "drop"):
            continue
        name, size = _transform(graph, part, _columns(graph, entry, chosen), len(chosen))
        parts.append(name)
        total += size
    return graph.op("Concat", *parts, axis=1), total


_STEPS: dict[str, Callable[[_Graph, Any, str, int], tuple[str, int]]] = {
    "OneHotEncoder": _one_hot,
    "SimpleImputer": _impute,
    "StandardScaler": _scale,
    "Pipeline": _chain,
    "ColumnTransformer": _by_columns,
    "FunctionTransformer": lambda graph, step, entry, width: (entry, width),  # checked below: only the identity
}


def _transform(graph: _Graph, step: Any, entry: str, width: int) -> tuple[str, int]:
    if isinstance(step, str) and step == "passthrough":
        return entry, width
    kind = type(step).__name__
    if kind not in _STEPS or (kind == "FunctionTransformer" and step.func is not None):
        raise NoExactForm(f"{kind} has no exact form here", available=sorted(_STEPS), hint="use these steps, or LightGBM")
    return _STEPS[kind](graph, step, entry, width)


def compile_model(model: Any) -> bytes:
    """ONNX bytes of a fitted pipeline: input `features` (n, f) float64, output `probability` (n, 1) float64."""
    from onnx import TensorProto, helper

    steps = model.steps if hasattr(model, "steps") else [("model", model)]
    final = steps[-1][1]
    if type(final).__name__ != "LogisticRegression" or final.coef_.shape[0] != 1:
        raise NoExactForm(
            f"{type(final).__name__} has no exact form here", available=["LogisticRegression (binary)"], hint="use LightGBM for trees"
        )
    graph, entry, width = _Graph(), "features", int(model.n_features_in_)
    for _, step in steps[:-1]:
        entry, width = _transform(graph, step, entry, width)
    short = -width % 8  # every row must start on the same alignment: the sum of a row is rounded in the order of its vector lanes
    padded = graph.op("Pad", entry, graph.constant([0, 0, 0, short], np.int64)) if short else entry
    weighted = graph.op("Mul", padded, graph.constant(np.pad(final.coef_, ((0, 0), (0, short)))))
    total = graph.op("ReduceSum", weighted, graph.constant([1], np.int64), keepdims=1)
    raw = graph.op("Add", total, graph.constant(final.intercept_))
    graph.nodes.append(helper.make_node("Sigmoid", [raw], ["probability"]))
    features = helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, int(model.n_features_in_)])
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 1])
    made = helper.make_graph(graph.nodes, "tidemill", [features], [output], graph.constants)
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString(deterministic=True))


def native(model: Any) -> bytes:
    """The skops format: no pickle. Equal models give equal bytes."""
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops is not installed", hint="pip install 'tidemill[sklearn]'") from error
    return _without_addresses(skops.io.dumps(model))


def _without_addresses(archive: bytes) -> bytes:
    """A skops archive with objects numbered in their order (skops writes memory addresses) and files without times."""
    with zipfile.ZipFile(io.BytesIO(archive)) as before:
        files = {name: before.read(name) for name in before.namelist()}
    schema = json.loads(files.pop("schema.json"))
    names: dict[str, str] = {}
    _number(schema, {}, names)
    renamed = {names[name]: data for name, data in files.items()}
    after = io.BytesIO()
    with zipfile.ZipFile(after, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(renamed):
            made.writestr(zipfile.ZipInfo(name), renamed[name])
        made.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema, indent=2))
    return after.getvalue()


def _number(node: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            suffix = node["file"].rpartition(".")[2]
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1}.{suffix}")
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _number(part, numbers, names)


def score(model: Any, features: Floats) -> Floats:
    """The library's own probabilities of the positive class."""
    return np.asarray(model.predict_proba(features)[:, 1], dtype=np.float64)


def thresholds(model: Any) -> dict[int, Floats]:
    """A linear model has no thresholds."""
    return {}


def rounds(model: Any) -> int:
    """Passes over the data, as the solver counted them."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    return int(np.max(last.n_iter_))
