"""Trees of any library → one ONNX node, exactly: `TreeEnsemble` of ai.onnx.ml 5, in double precision, or single where a library has it.

Comes in: roots, and a function that looks at a node of the library's own. Goes out: the sums (n, targets) of the leaves, added up in
the order in which the trees were given, as the libraries do. Source: ONNX operator TreeEnsemble-5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from tidemill.core import Floats
from tidemill.models.graph import ML, Columns, Graph

LEQ, MEMBER = 0, 6  # ONNX's codes of the two kinds of node
Node = TypeVar("Node")


@dataclass(frozen=True)
class Leaf:
    """What a tree adds to its target."""

    value: float


@dataclass(frozen=True)
class Split(Generic[Node]):
    """A value of at most `threshold`, or one of `members` where there are any, goes to `true`; a missing one as `missing_true` says."""

    feature: int
    threshold: float
    missing_true: bool
    true: Node
    false: Node
    members: Sequence[float] = ()


@dataclass
class Ensemble:
    """The attributes of a TreeEnsemble, as they grow."""

    targets: int = 1
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
    target: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)

    def add(self, root: Node, look: Callable[[Node], Leaf | Split[Node]], target: int = 0) -> None:
        """Append a tree that adds to a target."""
        first = look(root)
        if isinstance(first, Leaf):  # a tree that is one leaf: both ways lead there
            self.constant(first.value, target)
            return
        self.roots.append(len(self.feature))
        waiting: list[tuple[Leaf | Split[Node], int, str]] = [(first, -1, "")]  # not by recursion: trees may be deep
        while waiting:
            found, above, side = waiting.pop()
            leaf = isinstance(found, Leaf)
            number = self._leaf(found.value, target) if isinstance(found, Leaf) else self._node(found)
            if above >= 0:
                getattr(self, side)[above], getattr(self, f"{side}_leaf")[above] = number, int(leaf)
            if isinstance(found, Split):
                waiting += [(look(found.false), number, "false"), (look(found.true), number, "true")]

    def constant(self, value: float, target: int = 0) -> None:
        """Append what is added to a target for every row."""
        self.roots.append(self._node(Split(0, 0.0, True, None, None)))
        self.true[-1], self.true_leaf[-1] = self._leaf(value, target), 1
        self.false[-1], self.false_leaf[-1] = self._leaf(value, target), 1

    def _leaf(self, value: float, target: int) -> int:
        self.weights.append(value)
        self.target.append(target)
        return len(self.weights) - 1

    def _node(self, split: Split[Any]) -> int:
        self.feature.append(split.feature)
        self.mode.append(MEMBER if len(split.members) else LEQ)
        self.split.append(0.0 if len(split.members) else split.threshold)
        self.missing_true.append(int(split.missing_true))
        if len(split.members):
            self.members += [float("nan")] * bool(self.members) + [float(one) for one in split.members]
        for column in (self.true, self.true_leaf, self.false, self.false_leaf):
            column.append(0)
        return len(self.feature) - 1

    def thresholds(self) -> dict[int, Floats]:
        """Every numeric threshold by feature."""
        found: dict[int, set[float]] = {}
        for feature, mode, split in zip(self.feature, self.mode, self.split, strict=True):
            if mode == LEQ:
                found.setdefault(feature, set()).add(split)
        return {feature: np.array(sorted(values)) for feature, values in found.items()}

    def put(self, graph: Graph, given: Columns, *, named: str = "", single: bool = False) -> str:
        """Append the node to a graph; returns the name of its sums (n, targets)."""
        from onnx import TensorProto, helper

        kind = TensorProto.FLOAT if single else TensorProto.DOUBLE

        def numbers(name: str, values: list[float]) -> Any:
            return helper.make_tensor(name, kind, [len(values)], values)

        graph.note(given, self.thresholds())
        more = {"membership_values": numbers("members", self.members)} if self.members else {}
        return graph.op(
            "TreeEnsemble",
            given.tensor,
            named=named,
            domain=ML,
            n_targets=self.targets,
            aggregate_function=1,
            post_transform=0,
            tree_roots=self.roots,
            nodes_featureids=self.feature,
            nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [len(self.mode)], self.mode),
            nodes_splits=numbers("splits", self.split),
            nodes_missing_value_tracks_true=self.missing_true,
            nodes_truenodeids=self.true,
            nodes_trueleafs=self.true_leaf,
            nodes_falsenodeids=self.false,
            nodes_falseleafs=self.false_leaf,
            leaf_targetids=self.target,
            leaf_weights=numbers("weights", self.weights),
            **more,
        )
