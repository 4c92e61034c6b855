"""XGBoost → ONNX: its trees node by node, in single precision as XGBoost computes them, and the function of its objective.

The sums of leaves are equal to the bit; the last function is computed in double precision here and in single there, so scores agree to
about 1e-7. Sources: XGBoost's JSON schema of a model, `RegTree::GetNextNode`, `common::Decision`.
"""

import json
from functools import partial
from typing import Any

import numpy as np

from tidemill.core import Floats, NoExactForm
from tidemill.models.ensemble import Ensemble, Leaf, Split
from tidemill.models.graph import DOUBLE, TYPES, Answer, Columns, Graph

Singles = np.ndarray[Any, np.dtype[np.float32]]
WITHIN = 1e-6  # single precision has seven digits
PLAIN = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "reg:quantileerror")
RANKING = ("rank:ndcg", "rank:map", "rank:pairwise")
LOGARITHMIC = ("count:poisson", "reg:gamma", "reg:tweedie")
SIGMOID = ("binary:logistic", "reg:logistic")
SOFTMAX = ("multi:softprob", "multi:softmax")


def build(graph: Graph, model: Any, given: list[Columns]) -> Answer:
    """Nodes of a fitted XGBClassifier, XGBRegressor, XGBRanker or Booster over its features."""
    if not np.isnan(getattr(model, "missing", np.nan)):
        raise NoExactForm(f"XGBoost that reads {model.missing} as missing has no exact form here", hint="leave `missing` out")
    learner = json.loads(bytes(_booster(model).save_raw("json")))["learner"]
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        raise NoExactForm(f"XGBoost's {booster['name']} has no exact form here", available=["gbtree", "dart"], hint="use trees")
    if objective not in (*PLAIN, *RANKING, *LOGARITHMIC, *SIGMOID, *SOFTMAX):
        available = [*SIGMOID, *SOFTMAX, *PLAIN, *LOGARITHMIC, *RANKING]
        raise NoExactForm(f"XGBoost with objective {objective!r} has no exact form here", available=available, hint="use one of these")
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise NoExactForm("XGBoost of several targets has no exact form here", hint="fit a model for each target")
    if any(part.text for part in given):
        raise NoExactForm("XGBoost over texts has no exact form here", hint="encode them in a pipeline, with OrdinalEncoder say")
    raw = _margins(graph, learner, graph.joined(given))
    if objective in SOFTMAX:
        scores = graph.softmax(raw)
        return Answer("probabilities", scores, classes(model), lambda: graph.largest(_single(graph, scores)), WITHIN)
    if objective == "binary:logistic":
        scores = graph.op("Sigmoid", raw)
        above = partial(_above_half, graph, scores)
        return Answer("probability", scores, classes(model), above, WITHIN)
    kind = "Exp" if objective in LOGARITHMIC else "Sigmoid" if objective in SIGMOID else "Identity"
    return Answer("prediction", graph.op(kind, raw), within=WITHIN)


def _above_half(graph: Graph, scores: str) -> str:
    return graph.above("Greater", _single(graph, scores), graph.constant([0.5]))


def _single(graph: Graph, scores: str) -> str:
    """Scores as XGBoost holds them."""
    return graph.op("Cast", graph.op("Cast", scores, to=TYPES["FP32"]), to=DOUBLE)


def _margins(graph: Graph, learner: dict[str, Any], given: Columns) -> str:
    """Sums (n, k) of leaves, in doubles."""
    booster = learner["gradient_booster"]
    model = booster.get("gbtree", booster)["model"]
    drops = booster.get("weight_drop") or model.get("weight_drop")  # XGBoost 3.4 moved it
    trees = Ensemble(max(int(learner["learner_model_param"]["num_class"]), 1))
    base, begun = _base(learner, trees.targets), set[int]()
    for i, (tree, target) in enumerate(zip(model["trees"], model["tree_info"], strict=True)):
        if int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise NoExactForm("XGBoost with a vector in each leaf has no exact form here", hint='use multi_strategy="one_output_per_tree"')
        values = np.array(tree["split_conditions"], dtype=np.float32)
        leaves = values * np.float32(drops[i] if drops else 1.0) + (0 if target in begun else base[target])
        trees.add(0, partial(_look, tree, values, leaves.astype(np.float32), _members(tree)), target)
        begun.add(target)
    single = Columns(graph.op("Cast", given.tensor, to=TYPES["FP32"]), given.origins)
    return graph.op("Cast", trees.put(graph, single, single=True), to=DOUBLE)


def _base(learner: dict[str, Any], targets: int) -> Singles:
    """What the sums begin with (k,), in single precision."""
    told = np.ravel(json.loads(learner["learner_model_param"]["base_score"])).astype(np.float32)
    base = np.broadcast_to(told, targets) if len(told) == 1 else told
    with np.errstate(divide="ignore"):
        if learner["objective"]["name"] in SIGMOID:
            return np.asarray(-np.log(np.float32(1) / base - np.float32(1)))
        return np.asarray(np.log(base) if learner["objective"]["name"] in LOGARITHMIC else base)


def _members(tree: dict[str, Any]) -> dict[int, list[float]]:
    """The categories that go right, by node."""
    ends = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    return {node: [float(one) for one in tree["categories"][start : start + size]] for node, start, size in ends}


def _look(tree: dict[str, Any], values: Singles, leaves: Singles, members: dict[int, list[float]], number: int) -> Leaf | Split[int]:
    left, right = tree["left_children"][number], tree["right_children"][number]
    if left < 0:
        return Leaf(float(leaves[number]))
    feature, goes_left = tree["split_indices"][number], bool(tree["default_left"][number])
    if number in members:
        return Split(feature, 0.0, not goes_left, right, left, members[number])
    below = np.nextafter(values[number], np.float32(-np.inf))  # it asks for less, and there is nothing between
    return Split(feature, float(below), goes_left, left, right)


def _booster(model: Any) -> Any:
    """The rounds that answer: those until the best one, where training stopped early."""
    if not hasattr(model, "get_booster"):
        return model
    booster = model.get_booster()
    best = booster.attr("best_iteration") if model.early_stopping_rounds is not None else None
    return booster if best is None else booster[: int(best) + 1]


def classes(model: Any) -> tuple[Any, ...]:
    """The classes in the order of their scores."""
    if hasattr(model, "classes_"):
        return tuple(model.classes_)
    told = json.loads(_booster(model).save_config())["learner"]["learner_model_param"]
    return tuple(range(max(int(told["num_class"]), 2)))


def native(model: Any) -> bytes:
    """XGBoost's own binary format."""
    return bytes(_booster(model).save_raw("ubj"))


def score(model: Any, features: Any) -> Floats:
    """The library's own scores (n, k), the measure of parity."""
    if not hasattr(model, "get_booster"):
        from xgboost import DMatrix

        found = np.asarray(model.predict(DMatrix(features)), dtype=np.float64)
    elif hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(features), dtype=np.float64)
        found = found[:, 1:] if found.shape[1] == 2 else found
    else:
        found = np.asarray(model.predict(features), dtype=np.float64)
    return found.reshape(len(features), -1)


def rounds(model: Any) -> int:
    """How many rounds answer."""
    return int(_booster(model).num_boosted_rounds())
