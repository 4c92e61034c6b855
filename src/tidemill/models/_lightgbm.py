"""LightGBM → ONNX, exactly: its trees node by node, and the function of its objective.

Missing-value routing and native categories are kept. Sources: LightGBM `Tree::NumericalDecision`, `CategoricalDecision` and
`ObjectiveFunction::ConvertOutput`.
"""

from typing import Any

import numpy as np

from tidemill.core import Floats, NoExactForm
from tidemill.models.ensemble import Ensemble, Leaf, Split
from tidemill.models.graph import DOUBLE, Answer, Columns, Graph

LARGEST = 1e300  # LightGBM writes infinity so
ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold
PLAIN = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg")
LOGARITHMIC = ("poisson", "gamma", "tweedie")


def _look(tree: dict[str, Any]) -> Leaf | Split[dict[str, Any]]:
    if "leaf_value" in tree:
        if tree.get("leaf_coeff"):
            raise NoExactForm("LightGBM's linear trees have no exact form here", hint="train without linear_tree")
        return Leaf(float(tree["leaf_value"]))
    feature, missing = int(tree["split_feature"]), tree["missing_type"]
    true, false = tree["left_child"], tree["right_child"]
    if tree["decision_type"] == "==":
        return Split(feature, 0.0, False, true, false, [float(code) for code in str(tree["threshold"]).split("||")])
    if missing == "Zero":
        raise NoExactForm("LightGBM's zero_as_missing has no counterpart in ONNX", hint="train without zero_as_missing")
    threshold = float(tree["threshold"])
    if threshold == -ZERO:  # LightGBM reads |x| <= 1e-35 as 0, so this very value goes right
        threshold = float(np.nextafter(threshold, -np.inf))
    if abs(threshold) >= LARGEST:  # a split of missing against all the rest: infinite in memory, cut when it is written
        threshold = float(np.copysign(np.inf, threshold))
    goes_left = bool(tree["default_left"]) if missing == "NaN" else threshold >= 0.0  # without NaN in training, NaN counts as 0
    return Split(feature, threshold, goes_left, true, false)


def build(graph: Graph, model: Any, given: list[Columns]) -> Answer:
    """Nodes of a fitted LGBMClassifier, LGBMRegressor, LGBMRanker or Booster over its features."""
    dump = _booster(model).dump_model()
    objective, *words = str(dump.get("objective", "none")).split()
    trees = Ensemble(int(dump["num_tree_per_iteration"]))
    for i, info in enumerate(dump["tree_info"]):
        trees.add(info["tree_structure"], _look, i % trees.targets)
    raw = trees.put(graph, _coded(graph, model, given), named="raw")
    if dump.get("average_output"):
        raw = graph.op("Div", raw, graph.constant([len(dump["tree_info"]) // trees.targets]))
    told = dict(word.split(":") for word in words if ":" in word)
    if objective in ("binary", "cross_entropy", "multiclassova"):
        return _sigmoid(graph, model, objective, raw, float(told.get("sigmoid", "1")))
    if objective == "multiclass":
        scores = graph.softmax(raw)
        return Answer("probabilities", scores, classes(model), lambda: graph.largest(scores))
    if objective in LOGARITHMIC:
        return Answer("prediction", graph.op("Exp", raw))
    if objective not in PLAIN:
        available = ["binary", "multiclass", "multiclassova", "cross_entropy", *PLAIN, *LOGARITHMIC]
        raise NoExactForm(f"LightGBM with objective {objective!r} has no exact form here", available=available, hint="use one of these")
    if "sqrt" in words:
        raw = graph.op("Mul", graph.op("Mul", graph.op("Sign", raw), raw), raw)
    return Answer("prediction", graph.op("Identity", raw))


def _coded(graph: Graph, model: Any, given: list[Columns]) -> Columns:
    """The columns with categories of pandas as their codes; one that was not learnt is missing."""
    learnt, texts = getattr(_booster(model), "pandas_categorical", None) or [], [part for part in given if part.text]
    if len(learnt) != len(texts):
        what = f"LightGBM has learnt {len(learnt)} columns of categories, and {len(texts)} of the rows hold texts"
        raise NoExactForm(what, hint="give the rows as it was trained with them; categories of pandas are to be texts")
    words = iter(learnt)
    return graph.joined([graph.coded(part, own := next(words), range(len(own)), np.nan) if part.text else part for part in given])


def _sigmoid(graph: Graph, model: Any, objective: str, raw: str, slope: float) -> Answer:
    from onnx import helper

    name = graph.free("slope")
    graph.constants.append(helper.make_tensor(name, DOUBLE, [1], [slope]))
    scores = graph.op("Sigmoid", graph.op("Mul", raw, name, named="scaled"))
    if objective == "cross_entropy":
        return Answer("prediction", scores)
    if objective == "multiclassova":
        return Answer("probabilities", scores, classes(model), lambda: graph.largest(scores))
    return Answer("probability", scores, classes(model), lambda: graph.above("Greater", scores, graph.rest(scores)), raw=raw)


def _booster(model: Any) -> Any:
    return model if type(model).__name__ == "Booster" else model.booster_


def classes(model: Any) -> tuple[Any, ...]:
    """The classes in the order of their scores."""
    booster = _booster(model)
    return tuple(getattr(model, "classes_", range(max(booster.num_model_per_iteration(), 2))))


def native(model: Any) -> bytes:
    """LightGBM's own text format; its text holds no time or path."""
    return str(_booster(model).model_to_string()).encode()


def score(model: Any, features: Any) -> Floats:
    """The library's own scores (n, k), the measure of parity."""
    found = np.asarray(_booster(model).predict(features), dtype=np.float64)
    return found.reshape(len(features), -1)


def rounds(model: Any) -> int:
    """How many trees were trained."""
    return int(_booster(model).num_trees())
