"""Models of scikit-learn → ONNX in double precision: trees, forests, boosted trees, linear models, and models over these.

Each product is summed row by row, so a row's answer does not depend on the rows beside it; trees are added up in scikit-learn's order, so
that ties are ties here too. Sources: scikit-learn `_predictor.pyx`, `_tree.pyx`, `_gradient_boosting.pyx`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from tidemill.core import Floats, NoExactForm
from tidemill.models._sklearn_steps import UNKNOWN, Parts, numbers, picked, transformed
from tidemill.models.ensemble import Ensemble, Leaf, Split
from tidemill.models.graph import DOUBLE, LONG, TYPES, Answer, Columns, Graph


def answered(graph: Graph, model: Any, parts: Parts) -> Answer:
    """Append a fitted model; raises NoExactForm for one that has none."""
    from sklearn.utils.validation import check_is_fitted

    package, kind = type(model).__module__.split(".")[0], type(model).__name__
    if package in ("lightgbm", "xgboost"):
        made: Answer = import_module(f"tidemill.models._{package}").build(graph, model, parts)
        return made
    if kind not in MODELS:
        raise NoExactForm(f"{kind} has no exact form here", available=sorted(MODELS), hint="use one of these, or LightGBM")
    check_is_fitted(model)
    return MODELS[kind](graph, model, parts)


def _pipeline(graph: Graph, model: Any, parts: Parts) -> Answer:
    *steps, (_, final) = model.steps
    for _, step in steps:
        parts = transformed(graph, step, parts)
    return answered(graph, final, parts)


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
    return Answer("probability", scores, classes, lambda: graph.above(above, raw, graph.constant([0.0])), raw=raw)


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
    return Answer("probability", scores, classes, lambda: graph.above("Greater", scores, mean([0])), first=lambda: mean([0]))


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


# ── models over models ──────────────────────────────────────────────────────────────────────────────────────────────


def _mean(graph: Graph, model: Any, members: list[Answer], weights: list[float] | None = None) -> Answer:
    """The mean of what several models give, added up in their order."""
    kinds = {(one.output, len(one.classes)) for one in members}
    classes = tuple(getattr(model, "classes_", ()))
    if len(kinds) > 1 or any(len(one.classes) != len(classes) for one in members):
        raise NoExactForm(
            f"{type(model).__name__} whose members have learnt other classes has no exact form here", hint="fit it on more rows"
        )
    output, within = members[0].output, max(one.within for one in members)
    scores = _total(graph, [one.scores for one in members], weights)
    if output != "probability":
        return Answer(output, scores, classes, (lambda: graph.largest(scores)) if classes else None, within)

    def first() -> str:
        return _total(graph, [one.first() if one.first else graph.rest(one.scores) for one in members], weights)

    return Answer(output, scores, classes, lambda: graph.above("Greater", scores, first()), within, first)


def _total(graph: Graph, tensors: list[str], weights: list[float] | None) -> str:
    if weights is not None:
        tensors = [graph.op("Mul", name, graph.constant([weight])) for name, weight in zip(tensors, weights, strict=True)]
    total = tensors[0]
    for name in tensors[1:]:
        total = graph.op("Add", total, name)
    return graph.op("Div", total, graph.constant([float(len(tensors) if weights is None else sum(weights))]))


def _vote(graph: Graph, model: Any, parts: Parts) -> Answer:
    if getattr(model, "voting", "soft") != "soft":
        raise NoExactForm("VotingClassifier by hard votes has no exact form here", hint='give it voting="soft"')
    return _mean(graph, model, [answered(graph, one, parts) for one in model.estimators_], model._weights_not_none)


def _bags(graph: Graph, model: Any, parts: Parts) -> Answer:
    chosen = zip(model.estimators_, model.estimators_features_, strict=True)
    return _mean(graph, model, [answered(graph, one, picked(graph, parts, [int(i) for i in places])) for one, places in chosen])


def _calibrated(graph: Graph, model: Any, parts: Parts) -> Answer:
    members = []
    for member in model.calibrated_classifiers_:
        base = answered(graph, member.estimator, parts)
        if base.output != "probability" or member.method not in ("sigmoid", "isotonic"):
            what = f"CalibratedClassifierCV by {member.method} of {len(base.classes)} classes has no exact form here"
            raise NoExactForm(what, available=["sigmoid or isotonic, of two classes"], hint="calibrate two classes")
        given, (calibrator,) = base.raw if hasattr(member.estimator, "decision_function") else base.scores, member.calibrators
        made = _curved(graph, calibrator, given) if member.method == "isotonic" else _bent(graph, calibrator, given)
        members.append(replace(base, scores=made, first=None))
    return _mean(graph, model, members)


def _bent(graph: Graph, calibrator: Any, given: str) -> str:
    scaled = graph.op("Mul", graph.constant([calibrator.a_]), given)
    return graph.op("Sigmoid", graph.op("Neg", graph.op("Add", scaled, graph.constant([calibrator.b_]))))


def _curved(graph: Graph, calibrator: Any, given: str) -> str:
    """Linear interpolation between the thresholds of an isotonic regression."""
    x, y = (np.asarray(one, dtype=np.float64) for one in (calibrator.X_thresholds_, calibrator.y_thresholds_))
    if len(x) == 1:
        return graph.op("Add", graph.op("Mul", given, graph.constant([0.0])), graph.constant(y))
    clipped = graph.op("Clip", given, graph.constant(np.float64(calibrator.X_min_)), graph.constant(np.float64(calibrator.X_max_)))
    below = graph.op("Cast", graph.op("Less", graph.constant(x.reshape(1, -1)), clipped), to=LONG)
    count = graph.op("ReduceSum", below, graph.constant([1], np.int64), keepdims=1)
    inner = graph.op("Clip", count, graph.constant(np.int64(1), np.int64), graph.constant(np.int64(len(x) - 1), np.int64))
    low = graph.op("Sub", inner, graph.constant([1], np.int64))
    away = graph.op("Sub", clipped, graph.op("Gather", graph.constant(x), low))
    rise = graph.op("Mul", graph.op("Gather", graph.constant(np.diff(y) / np.diff(x)), low), away)
    return graph.op("Add", rise, graph.op("Gather", graph.constant(y), low))


MODELS: dict[str, Callable[[Graph, Any, Parts], Answer]] = {
    "LogisticRegression": _logistic,
    **dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet"), _least_squares),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram),
    **dict.fromkeys((f"{kind}{task}" for kind in ("DecisionTree", "ExtraTree") for task in ("Classifier", "Regressor")), _forest),
    **dict.fromkeys((f"{kind}{task}" for kind in ("RandomForest", "ExtraTrees") for task in ("Classifier", "Regressor")), _forest),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _boosted),
    "Pipeline": _pipeline,
    "FrozenEstimator": lambda graph, model, parts: answered(graph, model.estimator, parts),
    **dict.fromkeys(("GridSearchCV", "RandomizedSearchCV"), lambda graph, model, parts: answered(graph, model.best_estimator_, parts)),
    **dict.fromkeys(("VotingClassifier", "VotingRegressor"), _vote),
    **dict.fromkeys(("BaggingClassifier", "BaggingRegressor"), _bags),
    "CalibratedClassifierCV": _calibrated,
}
