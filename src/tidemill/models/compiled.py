"""Fitted model → the form that serves: ONNX with proven parity. Reading it needs neither the training library nor a pickle.

A model that has no exact form is refused with the reason.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from tidemill.core import Floats, MissingExtra, NoExactForm
from tidemill.models.onnx import OnnxModel, opened
from tidemill.models.pace import Pace
from tidemill.models.signature import Signature

ADAPTERS = {"lightgbm": "tidemill.models._lightgbm", "sklearn": "tidemill.models._sklearn"}  # by the package of the model's class
TOLERANCE = 1e-9  # largest difference of a score that counts as the same
BLOCK = 8  # rows are padded to whole blocks: vector units round the rows of a cut block otherwise


class Predictor:
    """ONNX bytes, ready to answer. One thread, and whole blocks, so that a row's answer does not depend on its neighbours; `outputs` asks
    those that others made too."""

    def __init__(self, onnx: bytes | memoryview, signature: Signature) -> None:
        self.signature = signature
        self._run: Any = OnnxModel(bytes(onnx)).run if signature.block else opened(bytes(onnx)).run  # a model made here needs no checks

    @cached_property
    def pace(self) -> Pace:
        """How long it usually takes; who asks it notes that."""
        return Pace()

    def predict(self, features: Floats) -> Floats:
        """Probabilities (n,) of a matrix (n, f) in the signature's order."""
        rows = len(features)
        short = -rows % BLOCK
        if short:
            features = np.concatenate([features, np.zeros((short, features.shape[1]))])
        answer = self._run(["probability"], {"features": np.ascontiguousarray(features, dtype=np.float64)})[0]
        return np.asarray(answer[:rows, 0], dtype=np.float64)

    def outputs(self, features: Floats) -> Floats:
        """All that it gives (n, width) of a matrix (n, f) in the signature's order."""
        asked = self.signature
        if not asked.block:
            return self.predict(features)[:, np.newaxis]
        rows, found = len(features), np.empty((len(features) + -len(features) % asked.block, asked.width))
        with np.errstate(over="ignore"):  # what a smaller type cannot hold is infinite
            matrix = np.zeros((len(found), features.shape[1]), dtype=asked.dtype)
            matrix[:rows] = features
        for start in range(0, len(found), asked.block):  # always as many: so no row depends on how many there are
            part = slice(start, start + asked.block)
            found[part] = self._run({asked.input: matrix[part]}, [asked.output])[asked.output].reshape(asked.block, asked.width)
        return found[:rows]


@dataclass(frozen=True)
class Compiled:
    """The two forms of a model, how many rounds it was trained, and the evidence that they agree."""

    onnx: bytes
    native: bytes
    library: str
    rounds: int
    parity: dict[str, Any]


def adapter(model: Any) -> ModuleType:
    """The adapter for a fitted model; raises NoExactForm when its library has none."""
    package = type(model).__module__.split(".")[0]
    if package not in ADAPTERS:
        raise NoExactForm(f"{type(model).__module__}.{type(model).__name__} has no safe format here", available=sorted(ADAPTERS))
    try:
        return import_module(ADAPTERS[package])
    except ImportError as error:
        raise MissingExtra(str(error), hint=f"pip install 'tidemill[{package}]'") from error


def compile_model(model: Any, signature: Signature, recorded: Floats) -> Compiled:
    """The form that serves, with parity proven on `recorded` rows (n, f) and on hostile ones; raises NoExactForm."""
    made = adapter(model)
    onnx = made.compile_model(model)
    predictor = Predictor(onnx, signature)
    hostile = hostile_rows(recorded, signature, made.thresholds(model))
    evidence: dict[str, Any] = {"tolerance": TOLERANCE, "labels_differ": 0}
    for name, rows in (("recorded", recorded), ("hostile", hostile)):
        found = _compare(name, _score(made, model, rows), predictor.predict(rows))
        evidence |= found | {"labels_differ": evidence["labels_differ"] + found["labels_differ"]}
    one_by_one = np.concatenate([predictor.predict(recorded[i : i + 1]) for i in range(min(len(recorded), 100))] or [np.empty(0)])
    evidence["row_by_row_equal"] = bool(np.array_equal(one_by_one, predictor.predict(recorded)[: len(one_by_one)]))
    if max(evidence["recorded_difference"], evidence["hostile_difference"]) > TOLERANCE or evidence["labels_differ"]:
        raise NoExactForm(
            f"the compiled form of {type(model).__name__} gives other answers: {evidence}", hint="report this model's parameters"
        )
    return Compiled(onnx, made.native(model), type(model).__module__.split(".")[0], made.rounds(model), evidence)


def _score(made: ModuleType, model: Any, rows: Floats) -> Floats:
    try:
        return np.asarray(made.score(model, rows), dtype=np.float64)
    except ValueError as error:
        what = f"{type(model).__name__} fails on rows with missing values or unseen categories: {str(error).splitlines()[0]}"
        raise NoExactForm(what, hint="impute missing values, and ignore unknown categories") from error


def _compare(name: str, expected: Floats, given: Floats) -> dict[str, Any]:
    difference = np.abs(expected - given)
    near = np.abs(expected - 0.5) <= TOLERANCE
    labels = int(np.sum(((expected > 0.5) != (given > 0.5)) & ~near))
    worst = (
        float(difference.max()) if len(difference) and not np.isnan(difference).any() else (0.0 if not len(difference) else float("inf"))
    )
    return {f"{name}_rows": len(expected), f"{name}_difference": worst, "labels_differ": labels}


def hostile_rows(recorded: Floats, signature: Signature, thresholds: dict[int, Floats], *, rows: int = 512) -> Floats:
    """Rows that break careless converters: each value missing, categories never seen, numbers on and beside every threshold."""
    if not len(recorded):
        return recorded
    random = np.random.default_rng(0)
    made = np.ascontiguousarray(recorded[random.integers(0, len(recorded), rows)])
    for feature, values in thresholds.items():
        if feature not in signature.categorical:
            beside = np.concatenate([values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf), [0.0, -0.0, 1e200, -1e200]])
            made[: rows // 2, feature] = random.choice(beside, rows // 2)
    for feature in signature.categorical:
        size = len(signature.categories[signature.features[feature]])
        made[: rows // 2, feature] = random.integers(0, size + 3, rows // 2)
    holes = random.random(made.shape) < 0.15
    made[holes] = np.nan
    for feature in range(made.shape[1]):
        made[-1 - feature % rows, feature] = np.nan
    made[0, :] = np.nan
    return made
