"""Fitted model → the form that serves: ONNX with proven parity. Reading it needs neither the training library nor a pickle.

A model that has no exact form is refused with the reason.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from itertools import accumulate, cycle, pairwise, takewhile
from types import ModuleType
from typing import Any

import numpy as np

from tidemill.core import Array, DataError, Floats, MissingExtra, NoExactForm
from tidemill.models.gathering import Gatherer
from tidemill.models.graph import Graph
from tidemill.models.int8 import Int8, judged, quantised
from tidemill.models.network import Network, is_module
from tidemill.models.onnx import OnnxModel, Spec, opened, runner
from tidemill.models.pace import Pace
from tidemill.models.parity import compared, extreme_rows, hostile_rows
from tidemill.models.signature import Signature

ADAPTERS = {name: f"tidemill.models._{name}" for name in ("lightgbm", "sklearn", "torch", "xgboost")}  # by the package of the model
BLOCK = 8  # rows are padded to whole blocks: vector units round the rows of a cut block otherwise
PIECES = (*[1] * 64, 2, 3, 5, BLOCK, 17, 33, 64, 256)  # rows that are asked together, to see whether an answer depends on how many


class Predictor:
    """ONNX bytes, ready to answer. One thread, and whole blocks, so that a row's answer does not depend on its neighbours; `outputs` asks
    those that others made too."""

    isolated = False

    def __init__(self, onnx: bytes | memoryview, signature: Signature) -> None:
        self.signature = signature
        self._run: Any = OnnxModel(bytes(onnx)).run if signature.block else runner(opened(bytes(onnx)))  # a model made here needs no checks

    @property
    def platform(self) -> str:
        """As the inference protocol names it."""
        return "onnx"

    @cached_property
    def pace(self) -> Pace:
        """How long it usually takes; who asks it notes that."""
        return Pace()

    def predict(self, features: Floats) -> Floats:
        """Probabilities or predictions (n,) of a matrix (n, f) in the signature's order. Raises DataError of a model that gives several."""
        if self.signature.width > 1:
            raise DataError(f"the model gives {self.signature.width} {self.signature.output} for a row", hint="ask for its outputs")
        return self.outputs(features)[:, 0]

    def predict_within(self, features: Floats, seconds: float) -> Floats:
        """As `predict`, for who does not wait longer than so many seconds; a session of onnxruntime does not stop before it is done."""
        return self.predict(features)

    def _scores(self, features: Floats) -> Floats:
        rows = len(features)
        if rows % BLOCK:
            given, features = features, np.zeros((rows + -rows % BLOCK, features.shape[1]))
            features[:rows] = given
        answer = self._run([self.signature.output], {"features": np.ascontiguousarray(features, dtype=np.float64)})[0]
        return np.asarray(answer[:rows], dtype=np.float64)

    def outputs(self, features: Floats) -> Floats:
        """All that it gives (n, width) of a matrix (n, f) in the signature's order."""
        asked = self.signature
        if not asked.block:
            return self._scores(features)
        rows, found = len(features), np.empty((len(features) + -len(features) % asked.block, asked.width))
        with np.errstate(over="ignore"):  # what a smaller type cannot hold is infinite
            matrix = np.zeros((len(found), features.shape[1]), dtype=asked.dtype)
            matrix[:rows] = features
        for start in range(0, len(found), asked.block):  # always as many: so no row depends on how many there are
            part = slice(start, start + asked.block)
            found[part] = self._run({asked.input: matrix[part]}, [asked.output])[asked.output].reshape(asked.block, asked.width)
        return found[:rows]


class MatrixModel:
    """A predictor that is asked by tensors, as any ONNX file is: the matrix of its features in, all that it gives out."""

    rowwise = True

    def __init__(self, predictor: Predictor) -> None:
        asked = predictor.signature
        self.isolated, self.platform = predictor.isolated, predictor.platform if predictor.isolated else OnnxModel.platform
        self._outputs = Gatherer(predictor.outputs).ask if predictor.isolated else predictor.outputs
        self.inputs = {asked.input: Spec(asked.input, "FP64", (-1, len(asked.features)))}
        self.outputs = {asked.output: Spec(asked.output, "FP64", (-1, asked.width))}
        self._input, self._output = asked.input, asked.output

    def run(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """Its output."""
        return {self._output: self._outputs(tensors[self._input])}


@dataclass(frozen=True)
class Compiled:
    """The two forms of a model, how many rounds it was trained, the evidence that they agree, and its signature with what it gives."""

    onnx: bytes = field(repr=False)
    native: bytes = field(repr=False)
    library: str
    rounds: int
    parity: dict[str, Any]
    signature: Signature

    @property
    def predictor(self) -> Predictor:
        """What answers."""
        return Predictor(self.onnx, self.signature)


def package_of(model: Any) -> str:
    """The library that a fitted model is of."""
    return "torch" if isinstance(model, Network) else type(model).__module__.split(".")[0]


def adapter(model: Any) -> ModuleType:
    """The adapter for a fitted model; raises NoExactForm when its library has none."""
    package = package_of(model)
    if package not in ADAPTERS:
        raise NoExactForm(
            f"{type(model).__module__}.{type(model).__name__} has no safe format here",
            available=sorted(ADAPTERS),
            hint="use a model of these",
        )
    try:
        return import_module(ADAPTERS[package])
    except ImportError as error:
        raise MissingExtra(str(error), hint=f"pip install 'tidemill[{package}]'") from error


def compile_model(model: Any, signature: Signature, recorded: Floats, quantise: Int8 | None = None, truth: Array | None = None) -> Compiled:
    """The form that serves, with parity proven on `recorded` rows (n, f) and on hostile ones; where that is wished, the smaller one, with
    what it changes on the recorded rows, whose labels are `truth`. Raises NoExactForm."""
    model = Network(model) if is_module(model) else model
    made, graph = adapter(model), Graph()
    answer = made.build(graph, model, [graph.matrix("features", len(signature.features))])
    several = answer.output == "probabilities"
    signature = replace(
        signature,
        output=answer.output,
        width=answer.wide,
        classes=tuple(getattr(one, "item", lambda one=one: one)() for one in answer.classes) if several else (),
    )
    onnx = graph.finished(answer, signature.width)
    predictor = Predictor(onnx, signature)
    if block := block_of(lambda rows, size: _in_blocks(predictor, onnx, size).outputs(rows), recorded):
        predictor = _in_blocks(predictor, onnx, block)
    evidence = _proven(partial(made.score, model), predictor, recorded, graph.beside, answer.within, type(model).__name__)
    if quantise is not None:
        small = quantised(onnx, type(model).__name__)
        smaller = _in_blocks(predictor, small, 1)  # what is multiplied is rounded by the range of all rows that are asked together
        ask, classifies = (predictor.outputs, smaller.outputs), answer.output != "prediction"
        evidence |= judged(quantise, (onnx, small), ask, recorded, truth, classifies=classifies)
        onnx, predictor = small, smaller
    return Compiled(onnx, made.native(model), package_of(model), made.rounds(model), evidence, predictor.signature)


def _in_blocks(predictor: Predictor, onnx: bytes, block: int) -> Predictor:
    return Predictor(onnx, replace(predictor.signature, block=block)) if block else predictor


def block_of(ask: Callable[[Floats, int], Floats], rows: Floats) -> int:
    """With how many rows a model is asked each time: any number (0) where each of these is answered to the bit as it is alone, whoever is
    asked with it; always BLOCK where that holds then; else one. `ask` answers rows, so many at a time."""
    rows = np.resize(rows, (max(len(rows), 2 * sum(PIECES)), rows.shape[1]))  # a few rows show nothing
    cuts = [0, *takewhile(lambda cut: cut < len(rows), accumulate(cycle(PIECES))), len(rows)]
    for block in (0, BLOCK):
        parts = [ask(rows[start:end], block) for start, end in pairwise(cuts)]
        if np.array_equal(np.concatenate(parts), ask(rows, block), equal_nan=True):
            return block
    return 1


def _proven(
    score: Callable[[Floats], Floats],
    predictor: Predictor,
    recorded: Floats,
    thresholds: dict[int, list[Floats]],
    tolerance: float,
    named: str,
) -> dict[str, Any]:
    """The evidence that a predictor answers as the library does; raises NoExactForm where it does not."""
    signature = predictor.signature
    categories = {i: len(signature.categories[signature.features[i]]) for i in signature.categorical}
    evidence: dict[str, Any] = {"tolerance": tolerance, "labels_differ": 0}
    rows = {"recorded": recorded, "hostile": hostile_rows(recorded, categories, thresholds), "extreme": extreme_rows(recorded, categories)}
    for name, asked in rows.items():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                expected = score(asked)
        except ValueError as error:
            if name == "extreme":  # what the model refuses has no answer that could differ
                continue
            what = f"{named} fails on rows with missing values or unseen categories: {str(error).splitlines()[0]}"
            raise NoExactForm(what, hint="impute missing values, and ignore unknown categories") from error
        found = compared(name, expected, predictor.outputs(asked), classifies=signature.output != "prediction")
        evidence |= found | {"labels_differ": evidence["labels_differ"] + found["labels_differ"]}
    if max(evidence.get(f"{name}_difference", 0.0) for name in rows) > tolerance or evidence["labels_differ"]:
        raise NoExactForm(f"the compiled form of {named} gives other answers: {evidence}", hint="report this model's parameters")
    return evidence
