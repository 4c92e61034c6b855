"""Weights of matrix products as whole numbers of eight bits: a quarter of the bytes, other answers, and how far they are other.

Comes in: a compiled form of single precision. Goes out: a smaller one, and what it changes on recorded rows as plain numbers.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from tidemill.core import Array, Declaration, Floats, NoExactForm, Problems, odd_number
from tidemill.models.parity import difference, labels_differ

GAIN = 0.9  # of the bytes before: a form that is not smaller than that gains nothing
TIMED, TIMES = 50, 5  # rows, each asked alone
LEAST = 1e-15  # what a probability counts for at least
Ask = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Int8(Declaration):
    """Dynamic quantisation: the weights of matrix products become int8, what is multiplied with them is rounded at each run. Refused where
    a score of the recorded rows changes by more than `most_loss`, of one beyond ±1 in proportion to it."""

    kind: ClassVar[str] = "quantisation"
    part: ClassVar[bool] = True
    most_loss: float

    def problems(self) -> Problems:
        yield from odd_number("most_loss", self.most_loss, "(0, 1]", "tm.Int8(most_loss=0.01)")

    @property
    def name(self) -> str:
        return f"int8 within {self.most_loss:g}"


def quantised(onnx: bytes, name: str) -> bytes:
    """The smaller form of a model. Raises NoExactForm where nothing is gained."""
    from onnx import ModelProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        root = logging.getLogger()
        before = root.level
        root.setLevel(logging.ERROR)  # it asks for a step that these models do not need
        try:  # unsigned: signed weights saturate on processors without VNNI, and answers would depend on the machine
            quantize_dynamic(ModelProto.FromString(onnx), path, weight_type=QuantType.QUInt8)
        finally:
            root.setLevel(before)
        found = path.read_bytes()
    if len(found) > GAIN * len(onnx):
        what = f"int8 gains nothing for {name}: {len(onnx):,} bytes before, {len(found):,} after"
        raise NoExactForm(what, hint="leave it out: trees and lines have no products of matrices, and small networks little in them")
    return found


def judged(
    wish: Int8, onnx: tuple[bytes, bytes], ask: tuple[Ask, Ask], rows: Floats, truth: Array | None, *, classifies: bool
) -> dict[str, Any]:
    """What the smaller form changes on rows (n, f): both forms, and what gives their scores (n, k); `truth` is the place of the class of
    each row, or its number. Raises NoExactForm with that where it is too much."""
    before, after = ask
    was, now = before(rows), after(rows)
    alone = np.concatenate([after(rows[i : i + 1]) for i in range(min(len(rows), TIMED))])
    apart = max(difference(was, now), difference(was[: len(alone)], alone))
    found: dict[str, Any] = {"int8_most_loss": wish.most_loss, "int8_rows": len(rows), "int8_difference": apart}
    found["int8_labels_differ"] = labels_differ(was, now) if classifies else 0
    if truth is not None:
        loss, which = (_log_loss, "log_loss") if classifies else (_squared, "rmse")
        found |= {f"int8_{which}_before": loss(was, truth), f"int8_{which}_after": loss(now, truth)}
    found |= {"int8_bytes_before": len(onnx[0]), "int8_bytes_after": len(onnx[1])}
    found |= {"int8_row_us_before": _microseconds(before, rows), "int8_row_us_after": _microseconds(after, rows)}
    if not apart <= wish.most_loss:
        what = f"int8 changes a score by {apart:.3g}, and {wish.most_loss:g} may be lost: {found}"
        raise NoExactForm(what, hint="leave it out, or state a larger most_loss")
    return found


def in_words(told: Mapping[str, float]) -> str:
    """What `judged` found, for people; empty of a model that is not in eight bits.

    >>> told = {"int8_most_loss": 0.02, "int8_rows": 2000, "int8_difference": 0.0123, "int8_labels_differ": 3}
    >>> told |= {"int8_log_loss_before": 0.31, "int8_log_loss_after": 0.312, "int8_bytes_before": 1206000, "int8_bytes_after": 309000}
    >>> in_words(told | {"int8_row_us_before": 38.0, "int8_row_us_after": 24.0})  # doctest: +NORMALIZE_WHITESPACE
    'in eight bits: scores change by up to 0.0123 (0.02 may be lost) and 3 labels of 2,000 rows; log loss 0.312, before 0.31;
    309,000 bytes, before 1,206,000; 24 µs a row, before 38'
    """
    if "int8_difference" not in told:
        return ""
    found = {name.removeprefix("int8_"): value for name, value in told.items()}
    said = f"scores change by up to {found['difference']:.3g} ({found['most_loss']:g} may be lost)"
    parts = [f"in eight bits: {said} and {found['labels_differ']:g} labels of {found['rows']:,g} rows"]
    shown = {"log_loss": "log loss {:.4g}, before {:.4g}", "rmse": "rmse {:.4g}, before {:.4g}"}
    shown |= {"bytes": "{:,.0f} bytes, before {:,.0f}", "row_us": "{:g} µs a row, before {:g}"}
    parts += [text.format(found[f"{name}_after"], found[f"{name}_before"]) for name, text in shown.items() if f"{name}_after" in found]
    return "; ".join(parts)


def _log_loss(scores: Floats, truth: Array) -> float:
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    chosen = scores[np.arange(len(truth)), truth.astype(np.int64)]
    return float(-np.log(np.clip(chosen, LEAST, 1.0)).mean())


def _squared(scores: Floats, truth: Array) -> float:
    return float(np.sqrt(np.mean((scores - truth.reshape(len(truth), -1)) ** 2)))


def _microseconds(ask: Ask, rows: Floats) -> float:
    """Of one row, asked alone: the best of some passes."""
    each = [rows[i : i + 1] for i in range(min(len(rows), TIMED))]
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter_ns()
        for row in each:
            ask(row)
        took.append(time.perf_counter_ns() - begun)
    return round(min(took) / len(each) / 1_000, 1)
