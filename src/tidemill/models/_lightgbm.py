"""LightGBM → ONNX, exactly: a double-precision `TreeEnsemble` (ai.onnx.ml 5) and the sigmoid, node by node.

Missing-value routing and native categories are kept. Sources: LightGBM `Tree::NumericalDecision` and `CategoricalDecision`;
ONNX operator TreeEnsemble-5.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import Floats, NoExactForm

LEQ, MEMBER = 0, 6  # ONNX's codes of the two kinds of node
LARGEST = 1e300  # LightGBM writes infinity so
ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold


@dataclass
class _Trees:
    """The attributes of a TreeEnsemble, as they grow."""

    roots: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    mode: list[int] = field(default_factory=list)
    split: list[float] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    true_leaf: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    false_leaf: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    members: list[float] = field(default_factory=list)

    def node(self, feature: int, mode: int, split: float, missing_true: bool) -> int:
        """Append a node without children; returns its number."""
        self.feature.append(feature)
        self.mode.append(mode)
        self.split.append(split)
        self.missing_true.append(int(missing_true))
        for column in (self.true, self.true_leaf, self.false, self.false_leaf):
            column.append(0)
        return len(self.feature) - 1

    def child(self, node: int, side: str, child: dict[str, Any]) -> None:
        """Append a subtree below a node."""
        is_leaf = "leaf_value" in child
        if is_leaf:
            self.weights.append(float(child["leaf_value"]))
        number = len(self.weights) - 1 if is_leaf else self.grow(child)
        getattr(self, side)[node], getattr(self, f"{side}_leaf")[node] = number, int(is_leaf)

    def grow(self, tree: dict[str, Any]) -> int:
        """Append a tree; returns the number of its root."""
        if "leaf_value" in tree:  # a tree that is one leaf: both ways lead there
            node = self.node(0, LEQ, 0.0, True)
            self.child(node, "true", tree)
            self.child(node, "false", tree)
            return node
        node = self._split(tree)
        self.child(node, "true", tree["left_child"])
        self.child(node, "false", tree["right_child"])
        return node

    def _split(self, tree: dict[str, Any]) -> int:
        feature, missing = int(tree["split_feature"]), tree["missing_type"]
        if tree["decision_type"] == "==":
            members = [float(code) for code in str(tree["threshold"]).split("||")]
            if self.members:
                self.members.append(float("nan"))
            self.members += members
            return self.node(feature, MEMBER, 0.0, False)
        if missing == "Zero":
            raise NoExactForm("LightGBM's zero_as_missing has no counterpart in ONNX", hint="train without zero_as_missing")
        threshold = float(tree["threshold"])
        if threshold == -ZERO:  # LightGBM reads |x| <= 1e-35 as 0, so this very value goes right
            threshold = float(np.nextafter(threshold, -np.inf))
        if abs(threshold) >= LARGEST:  # a split of missing against all the rest: infinite in memory, cut when it is written
            threshold = float(np.copysign(np.inf, threshold))
        goes_left = bool(tree["default_left"]) if missing == "NaN" else threshold >= 0.0  # without NaN in training, NaN counts as 0
        return self.node(feature, LEQ, threshold, goes_left)


def compile_model(model: Any) -> bytes:
    """ONNX bytes of a fitted binary LGBMClassifier: input `features` (n, f) float64, output `probability` (n, 1) float64."""
    from onnx import TensorProto, helper

    booster = model.booster_
    dump = booster.dump_model()
    objective = str(dump["objective"]).split()
    if objective[0] != "binary" or dump.get("average_output"):
        raise NoExactForm(
            f"LightGBM with objective {dump['objective']!r} is not supported here", hint="use a binary LGBMClassifier with gbdt or goss"
        )
    slope = float(next((word.split(":")[1] for word in objective if word.startswith("sigmoid:")), "1"))
    trees = _Trees()
    trees.roots = [trees.grow(info["tree_structure"]) for info in dump["tree_info"]]
    nodes = [
        _tree_node(trees),
        helper.make_node("Mul", ["raw", "slope"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["probability"]),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, booster.num_feature()])
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 1])
    constants = [helper.make_tensor("slope", TensorProto.DOUBLE, [1], [slope])]
    graph = helper.make_graph(nodes, "tidemill", [features], [output], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(deterministic=True))


def _tree_node(trees: _Trees) -> Any:
    from onnx import TensorProto, helper

    def doubles(name: str, values: list[float]) -> Any:
        return helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], values)

    more = {"membership_values": doubles("members", trees.members)} if trees.members else {}
    return helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=trees.roots,
        nodes_featureids=trees.feature,
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [len(trees.mode)], trees.mode),
        nodes_splits=doubles("splits", trees.split),
        nodes_missing_value_tracks_true=trees.missing_true,
        nodes_truenodeids=trees.true,
        nodes_trueleafs=trees.true_leaf,
        nodes_falsenodeids=trees.false,
        nodes_falseleafs=trees.false_leaf,
        leaf_targetids=[0] * len(trees.weights),
        leaf_weights=doubles("weights", trees.weights),
        **more,
    )


def native(model: Any) -> bytes:
    """LightGBM's own text format; its text holds no time or path."""
    return str(model.booster_.model_to_string()).encode()


def score(model: Any, features: Floats) -> Floats:
    """The library's own probabilities, the measure of parity."""
    return np.asarray(model.booster_.predict(features), dtype=np.float64)


def thresholds(model: Any) -> dict[int, Floats]:
    """Every numeric threshold by feature: hostile rows lie on both sides of them."""
    found: dict[int, set[float]] = {}
    trees = _Trees()
    for info in model.booster_.dump_model()["tree_info"]:
        trees.grow(info["tree_structure"])
    for feature, mode, split in zip(trees.feature, trees.mode, trees.split, strict=True):
        if mode == LEQ:
            found.setdefault(feature, set()).add(split)
    return {feature: np.array(sorted(values)) for feature, values in found.items()}


def rounds(model: Any) -> int:
    """How many trees were trained."""
    return int(model.booster_.num_trees())
