"""Models of scikit-learn → ONNX in double precision: trees, forests, boosted trees, linear models.

Each product is summed row by row, so a row's answer does not depend on the rows beside it; trees are added up in scikit-learn's order, so
that ties are ties here too. Sources: scikit-learn `_predictor.pyx`, `_tree.pyx`, `_gradient_boosting.pyx`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tidemill.core import Floats, NoExactForm
from tidemill.models._sklearn_steps import UNKNOWN, Parts, numbers, picked
from tidemill.models.ensemble import Ensemble, Leaf, Split
from tidemill.models.graph import DOUBLE, TYPES, Answer, Columns, Graph


def answered(graph: Graph, model: Any, parts: Parts) -> Answer:
    """Append a fitted model; raises NoExactForm for one that has none."""
    kind = type(model).__name__
    if kind not in MODELS:
        raise NoExactForm(f"{kind} has no exact form here", available=sorted(MODELS), hint="use one of these, or LightGBM")
    return MODELS[kind](graph, model, parts)


# ── linear models ───────────────────────────────────────────────────────────────────────────────────────────────────


def _linear(graph: Graph, model: Any, parts: Parts) -> str:
    """Sums (n, k) of weighted columns."""
    given = numbers(graph, model, parts)
    short = -given.width % 8  # every row must start on the same alignment: the sum of a row is rounded in the order of its vector lanes
    padded = graph.op("Pad", given.tensor, graph.constant([0, 0, 0, short], np.int64)) if short else given.tensor
    coefficients, intercepts = np.atleast_2d(model.coef_), np.ravel(model.intercept_)
    if len(coefficients) == len(intercepts) == 1:
        return _weighted(graph, padded, coefficients, short, intercepts)
    sums = [_weighted(graph, padded, row[np.newaxis], short, intercepts[i : i + 1]) for i, row in enumerate(coefficients)]
    return graph.op("Concat", *sums, axis=1)


def _weighted(graph: Graph, padded: str, row: Floats, short: int, intercept: Floats) -> str:
    weighted = graph.op("Mul", padded, graph.constant(np.pad(row, ((0, 0), (0, short)))))
    total = graph.op("ReduceSum", weighted, graph.constant([1], np.int64), keepdims=1)
    return graph.op("Add", total, graph.constant(intercept))


def _logistic(graph: Graph, model: Any, parts: Parts) -> Answer:
    return _of_raw(graph, model, _linear(graph, model, parts), "Greater")


def _least_squares(graph: Graph, model: Any, parts: Parts) -> Answer:
    if np.ndim(model.coef_) > 1 and len(model.coef_) > 1:
        raise NoExactForm(f"{type(model).__name__} of several targets has no exact form here", hint="fit a model for each target")
    return Answer("prediction", _linear(graph, model, parts))


def _of_raw(graph: Graph, model: Any, raw: str, above: str, *, twice: bool = False) -> Answer:
    """Probabilities of raw scores (n, 1) or (n, k); of two classes the second is chosen where they are `above` zero."""
    classes = tuple(model.classes_)
    if len(classes) > 2:
        return Answer("probabilities", graph.softmax(raw), classes, lambda: graph.largest(raw))
    scores = graph.op("Sigmoid", graph.op("Mul", graph.constant([2.0]), raw) if twice else raw)
    return Answer("probability", scores, classes, lambda: graph.above(above, raw, graph.constant([0.0])))


# ── gradient boosting over histograms ───────────────────────────────────────────────────────────────────────────────


def _histogram(graph: Graph, model: Any, parts: Parts) -> Answer:
    given = _preprocessed(graph, model, parts)
    trees = Ensemble(int(model.n_trees_per_iteration_))
    base = np.ravel(model._baseline_prediction)
    for i, iteration in enumerate(model._predictors):
        for target, tree in enumerate(iteration):
            trees.add(0, partial(_histogram_node, tree, tree.nodes, float(base[target]) if i == 0 else 0.0), target)
    raw = trees.put(graph, given)
    if hasattr(model, "classes_"):
        return _of_raw(graph, model, raw, "Greater")
    return Answer("prediction", graph.op("Exp" if type(model._loss.link).__name__ == "LogLink" else "Identity", raw))


def _preprocessed(graph: Graph, model: Any, parts: Parts) -> Columns:
    """The columns as its trees take them: categories first, as codes, and a missing one as an unknown one."""
    if model._preprocessor is None:
        return numbers(graph, model, parts)
    (_, encoder, _), *_ = model._preprocessor.transformers_
    places = model._preprocessor._transformer_to_input_indices
    made = []
    for i, (place, categories) in enumerate(zip(places["encoder"], encoder.categories_, strict=True)):
        codes = [
            UNKNOWN if i in encoder._missing_indices and code == encoder._missing_indices[i] else code for code in range(len(categories))
        ]
        made.append(graph.coded(picked(graph, parts, [place])[0], categories, codes, UNKNOWN))
    if len(places["numerical"]):
        made += picked(graph, parts, list(places["numerical"]))
    return numbers(graph, model, made)


def _histogram_node(tree: Any, nodes: Any, base: float, number: int) -> Leaf | Split[int]:
    node = nodes[number]
    if node["is_leaf"]:
        return Leaf(base + float(node["value"]))
    feature, left = int(node["feature_idx"]), bool(node["missing_go_to_left"])
    true, false = int(node["left"]), int(node["right"])
    if not node["is_categorical"]:
        return Split(feature, float(node["num_threshold"]), left, true, false)
    bits = np.unpackbits(tree.raw_left_cat_bitsets[node["bitset_idx"]].view(np.uint8), bitorder="little")
    members = [*np.flatnonzero(bits).astype(np.float64), *([UNKNOWN] if left else [])]
    return Split(feature, 0.0, left, true, false, members or [UNKNOWN - 1])


# ── trees and forests ───────────────────────────────────────────────────────────────────────────────────────────────


def _rounded(graph: Graph, model: Any, parts: Parts) -> Columns:
    """The columns as single precision holds them, which is what scikit-learn's trees compare."""
    given = numbers(graph, model, parts)
    return Columns(graph.op("Cast", graph.op("Cast", given.tensor, to=TYPES["FP32"]), to=DOUBLE), given.origins)


def _tree_node(tree: Any, known: Floats, missing: Any, number: int) -> Leaf | Split[int]:
    left, right = int(tree.children_left[number]), int(tree.children_right[number])
    if left < 0 or not np.isnan(known[number]):
        return Leaf(float(known[number]))
    return Split(int(tree.feature[number]), float(tree.threshold[number]), bool(missing[number]), left, right)


def _merged(tree: Any, values: Floats) -> Floats:
    """The value of each node (nodes,) below which all leaves have one value; NaN of the others."""
    left, right, found = tree.children_left, tree.children_right, np.array(values)
    for number in np.flatnonzero(left >= 0)[::-1]:  # children come after their parent
        one, other = found[left[number]], found[right[number]]
        found[number] = one if one == other else np.nan
    return found


def _grown(trees: Ensemble, tree: Any, values: Floats, target: int, *, missing: bool = True) -> None:
    routes = tree.missing_go_to_left if missing else np.zeros(tree.node_count, dtype=bool)
    trees.add(0, partial(_tree_node, tree, _merged(tree, values), routes), target)


def _forest(graph: Graph, model: Any, parts: Parts) -> Answer:
    """The mean of trees, or one of them; a tree has a copy for each class, which splits only where its share differs."""
    members = [one.tree_ for one in getattr(model, "estimators_", [model])]
    if model.n_outputs_ > 1:
        raise NoExactForm(f"{type(model).__name__} of several targets has no exact form here", hint="fit a model for each target")
    given, classes = _rounded(graph, model, parts), tuple(getattr(model, "classes_", ()))
    divisor = graph.constant([float(len(members))])

    def mean(places: list[int]) -> str:
        trees = Ensemble(len(places))
        for tree in members:
            for target, place in enumerate(places):
                _grown(trees, tree, tree.value[:, 0, place], target)
        return graph.op("Div", trees.put(graph, given), divisor)

    if not classes:
        return Answer("prediction", mean([0]))
    if len(classes) != 2:
        scores = mean(list(range(len(classes))))
        return Answer("probabilities", scores, classes, lambda: graph.largest(scores))
    scores = mean([1])
    return Answer("probability", scores, classes, lambda: graph.above("Greater", scores, mean([0])))


def _boosted(graph: Graph, model: Any, parts: Parts) -> Answer:
    from sklearn.ensemble._gb import _init_raw_predictions

    given, classifies = _rounded(graph, model, parts), hasattr(model, "classes_")
    trees = Ensemble(model.estimators_.shape[1])
    base = np.zeros(trees.targets)
    if not isinstance(model.init_, str):
        if not type(model.init_).__name__.startswith("Dummy"):
            what = f"{type(model).__name__} that begins with {type(model.init_).__name__} has no exact form here"
            raise NoExactForm(what, hint='leave init out, or take init="zero"')
        base = np.ravel(_init_raw_predictions(np.zeros((1, model.n_features_in_)), model.init_, model._loss, classifies))
    for i, stage in enumerate(model.estimators_):
        for target, member in enumerate(stage):
            values = model.learning_rate * member.tree_.value[:, 0, 0] + (base[target] if i == 0 else 0.0)
            _grown(trees, member.tree_, values, target, missing=False)
    raw = trees.put(graph, given)
    if not classifies:
        return Answer("prediction", graph.op("Identity", raw))
    return _of_raw(graph, model, raw, "GreaterOrEqual", twice=type(model._loss).__name__ == "ExponentialLoss")


MODELS: dict[str, Callable[[Graph, Any, Parts], Answer]] = {
    "LogisticRegression": _logistic,
    **dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet"), _least_squares),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram),
    **dict.fromkeys((f"{kind}{task}" for kind in ("DecisionTree", "ExtraTree") for task in ("Classifier", "Regressor")), _forest),
    **dict.fromkeys((f"{kind}{task}" for kind in ("RandomForest", "ExtraTrees") for task in ("Classifier", "Regressor")), _forest),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _boosted),
}
