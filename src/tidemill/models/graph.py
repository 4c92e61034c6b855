"""An ONNX graph as it grows: columns in, operators in double precision, answers out.

Comes in: the columns that a fitted model takes, as tensors. Goes out: the bytes of an ONNX file, with what an adapter says of its answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import DataError, Floats, NoExactForm
from tidemill.models.parity import TOLERANCE

TYPES = {"FP64": 11, "FP32": 1, "INT64": 7, "BYTES": 8}  # ONNX's numbers of them
OUTPUTS = {"label", "probability", "probabilities", "prediction"}
DOUBLE, LONG = TYPES["FP64"], TYPES["INT64"]
ML = "ai.onnx.ml"


@dataclass(frozen=True)
class Origin:
    """The column of the model's input that a column comes from: its value there is `value * scale + shift`."""

    column: int
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Columns:
    """A tensor (n, width) of doubles, or of texts; `origins` where each column comes from, as far as it is a number of the input."""

    tensor: str
    origins: tuple[Origin | None, ...]
    text: bool = False
    whole: bool = False  # no text is missing: the empty one is a word

    @property
    def width(self) -> int:
        return len(self.origins)


@dataclass(frozen=True)
class Answer:
    """What a model gives: `output` says what its scores (n, k) are, and `place` appends the nodes that choose one of `classes`, as the
    library's `predict` does with ties."""

    output: str  # "probability" of the second of two classes, "probabilities" of each, or "prediction", a number
    scores: str
    classes: tuple[Any, ...] = ()
    place: Callable[[], str] | None = None  # gives the name of a tensor (n,) of int64
    within: float = TOLERANCE  # the bound of differences from the library
    first: Callable[[], str] | None = None  # of two classes, the scores (n, 1) of the first, where they are no difference to one
    raw: str = ""  # what two classes are decided by (n, 1), before it becomes a probability
    numbers: int = 1  # how many a prediction has

    @property
    def wide(self) -> int:
        """How many numbers a row gets."""
        return len(self.classes) if self.output == "probabilities" else self.numbers


def _key(category: Any, text: bool) -> Any:
    if not text:
        return float(category)
    if isinstance(category, str):
        return category.encode()
    if category is None or category != category:  # only NaN is not itself
        return b""
    raise NoExactForm(f"an encoder has learnt {category!r} in a column of texts", hint="make all of its categories texts, and fit again")


@dataclass
class Graph:
    """ONNX nodes and constants as they grow; `beside` are the thresholds of trees by column of the input."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    beside: dict[int, list[Floats]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def op(self, kind: str, *inputs: str, named: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        from onnx import helper

        name = self.free(named or f"v{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def free(self, name: str) -> str:
        """A name that nothing has yet."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def constant(self, values: Any, dtype: Any = np.float64) -> str:
        """Append a constant; returns its name."""
        from onnx import numpy_helper

        name = self.free(f"c{len(self.constants)}")
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name

    def texts(self, values: Sequence[str]) -> str:
        """Append a constant (1, texts); returns its name."""
        from onnx import helper

        name = self.free(f"c{len(self.constants)}")
        encoded: Any = [one.encode() for one in values]
        self.constants.append(helper.make_tensor(name, TYPES["BYTES"], [1, len(values)], encoded))
        return name

    def matrix(self, name: str, width: int) -> Columns:
        """An input (n, width) of doubles."""
        from onnx import helper

        self.taken.add(name)
        self.inputs.append(helper.make_tensor_value_info(name, DOUBLE, [None, width]))
        return Columns(name, tuple(Origin(i) for i in range(width)))

    def column(self, name: str, *, text: bool, whole: bool = False) -> Columns:
        """One more input (n, 1), of doubles or texts; `whole` where the empty text is a word."""
        from onnx import helper

        if name in OUTPUTS:
            raise DataError(f"column {name!r} is named as an output is", available=sorted(OUTPUTS), hint="leave it out, or rename it")
        self.taken.add(name)
        origin = Origin(len(self.inputs))
        self.inputs.append(helper.make_tensor_value_info(name, TYPES["BYTES"] if text else DOUBLE, [None, 1]))
        return Columns(name, (origin,), text, whole)

    def picked(self, given: Columns, places: Sequence[int]) -> Columns:
        """Some columns of a tensor."""
        chosen = self.op("Gather", given.tensor, self.constant(places, np.int64), axis=1)
        return Columns(chosen, tuple(given.origins[i] for i in places), given.text)

    def joined(self, parts: Sequence[Columns]) -> Columns:
        """Columns side by side."""
        if len(parts) == 1:
            return parts[0]
        name = self.op("Concat", *(part.tensor for part in parts), axis=1)
        return Columns(name, tuple(origin for part in parts for origin in part.origins), parts[0].text)

    def coded(self, column: Columns, categories: Sequence[Any], values: Sequence[float], otherwise: float) -> Columns:
        """A number for each category of a column (n, 1), and one for all else; a missing text is the empty one."""
        from onnx import helper

        keys = [_key(one, column.text) for one in categories]
        if len(set(keys)) < len(keys):
            raise NoExactForm("an encoder has learnt two kinds of missing texts, None, NaN or empty", hint="use one of them, and fit again")
        kind = TYPES["BYTES"] if column.text else DOUBLE
        name = self.op(
            "LabelEncoder",
            column.tensor,
            domain=ML,
            keys_tensor=helper.make_tensor("keys", kind, [len(keys)], keys),
            values_tensor=helper.make_tensor("values", DOUBLE, [len(keys)], list(values)),
            default_tensor=helper.make_tensor("otherwise", DOUBLE, [1], [otherwise]),
        )
        return Columns(name, (None,))

    def note(self, given: Columns, thresholds: dict[int, Floats]) -> None:
        """Remember on which values of the input the thresholds of trees over some columns lie."""
        for feature, values in thresholds.items():
            if origin := given.origins[feature]:
                self.beside.setdefault(origin.column, []).append(values * origin.scale + origin.shift)

    def largest(self, scores: str) -> str:
        """The place (n,) of the first of the largest scores (n, k)."""
        return self.op("ArgMax", scores, axis=1, keepdims=0)

    def above(self, kind: str, one: str, other: str) -> str:
        """1 (n,) where a comparison of two tensors (n, 1) holds, else 0."""
        held = self.op("Cast", self.op(kind, one, other), to=LONG)
        return self.op("Reshape", held, self.constant([-1], np.int64))

    def rest(self, scores: str) -> str:
        """The difference to one."""
        return self.op("Sub", self.constant([1.0]), scores)

    def softmax(self, raw: str) -> str:
        """Probabilities (n, k) of raw scores."""
        return self.op("Softmax", raw, axis=1)

    def chosen(self, answer: Answer) -> None:
        """Append the class that is chosen, as the output `label` (n,)."""
        from onnx import helper

        assert answer.place
        texts = any(isinstance(one, str) for one in answer.classes)
        kind = TYPES["BYTES" if texts else "INT64"]
        names: Any = [str(one).encode() if texts else int(one) for one in answer.classes]
        words = self.free("classes")
        self.constants.append(helper.make_tensor(words, kind, [len(names)], names))
        self.op("Gather", words, answer.place(), named="label")
        self.outputs.append(helper.make_tensor_value_info("label", kind, [None]))

    def finished(self, answer: Answer, width: int) -> bytes:
        """The bytes of the file; its scores (n, width) are named as what they are."""
        from onnx import helper

        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = answer.output if name == answer.scores else name
        scores = helper.make_tensor_value_info(answer.output, DOUBLE, [None, width])
        used = {name for node in self.nodes for name in node.input}
        inputs = [one for one in self.inputs if one.name in used]  # a column that the model leaves out need not be sent
        made = helper.make_graph(self.nodes, "tidemill", inputs, [*self.outputs, scores], self.constants)
        domains = [helper.make_opsetid("", 21)] + [helper.make_opsetid(ML, 5)] * any(node.domain == ML for node in self.nodes)
        model = helper.make_model(made, opset_imports=domains, ir_version=10)
        return bytes(model.SerializeToString(deterministic=True))
