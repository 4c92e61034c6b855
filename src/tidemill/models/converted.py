"""Fitted model → an ONNX file with the proof that it answers the same, for those who have no project.

Comes in: a model or pipeline of scikit-learn, LightGBM or XGBoost, and rows as it takes them. Goes out: a file that `tidemill serve` takes,
as any other server of ONNX does, its evidence in its metadata. What has no exact form here goes through skl2onnx, and the same proof.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.core import Array, DataError, Floats, MissingExtra, MissingFile, NoExactForm, store_error
from tidemill.models.compiled import adapter, package_of
from tidemill.models.graph import Graph
from tidemill.models.int8 import Int8, judged, quantised
from tidemill.models.network import Network, is_module
from tidemill.models.onnx import OnnxModel
from tidemill.models.parity import SINGLE, TOLERANCE, difference, extreme_rows, hostile_rows, same_labels
from tidemill.models.rows import Rows

REFUSALS = (ValueError, TypeError)  # what libraries raise of values that they do not take
LOOSEST = 1e-3  # a larger difference is another answer
OTHER = "use a model that has an exact form"
NUMBERS = (
    "rows with missing or infinite numbers get a number on one side only: let forward begin with torch.nan_to_num(features), and clamp "
    "what lies far from all that it has learnt"
)
BATCHES = (1, 7, 512)  # rows with which a network is asked: it may have been made for one number of them
OPSETS = {"": 21, "ai.onnx.ml": 3}


@dataclass(frozen=True)
class Converted:
    """The bytes of an ONNX file, who converted it ("tidemill", "torch" or "skl2onnx"), and the evidence that it answers as the model."""

    onnx: bytes = field(repr=False)
    converter: str
    parity: Mapping[str, Any]


def convert(
    model: Any,
    rows: Any,
    path: str | Path | None = None,
    *,
    within: float | None = None,
    quantise: Int8 | None = None,
    labels: Any = None,
) -> Converted:
    """The ONNX form of a fitted model, written to `path` if that is given.

    `rows` are some of those that it is asked with, as it takes them: a matrix, which becomes one input `features` (n, f), or a frame of
    pandas or polars, each column of which that the model uses becomes an input (n, 1), of doubles or texts; a missing text is the empty
    one. Outputs are `label` (n,), and `probability` (n, 1) of the second of two classes, or `probabilities` (n, k); of a regression
    `prediction` (n, 1).

    On these rows and on hostile ones the labels must be those of `predict`, and no score may differ by more than `within`, of scores beyond
    ±1 in proportion to them: by default 1e-9; 1e-6 for XGBoost and 1e-5 for networks, which compute in single precision. Raises
    NoExactForm where they do, and where there is no converter; DataError for rows that are neither, or not those of the model; MissingFile
    and StoreError where the file cannot be written.

    With `quantise` the smaller form is written, beside what it changes on these rows; where their `labels` are given, what it costs.
    """
    asked, model = Rows.of(rows), Network(model) if is_module(model) else model
    if not len(asked.values):
        raise DataError("there are no rows on which the conversion could be proven", hint="give some of the rows that it was trained on")
    if path is not None and not Path(path).parent.is_dir():
        raise MissingFile("there is no such folder", where=str(Path(path).parent), hint="make it first")
    made, graph = adapter(model), Graph()
    _check_asked(model, asked)
    try:
        answer = made.build(graph, model, asked.inputs(graph))
    except NoExactForm as error:
        bound = SINGLE if quantise else TOLERANCE  # only weights of single precision become smaller
        done = _public(model, asked, bound if within is None else within, error, double=quantise is None)
    else:
        if answer.place:
            graph.chosen(answer)
        onnx = graph.finished(answer, answer.wide)
        evidence = prove(model, asked, onnx, thresholds=graph.beside, within=answer.within if within is None else within)
        done = _told(model, onnx, "torch" if isinstance(model, Network) else "tidemill", evidence)
    if quantise is not None:
        done = _smaller(model, asked, done, quantise, labels)
    if path is not None:
        try:
            Path(path).write_bytes(done.onnx)
        except OSError as error:
            raise store_error(error, str(path), "the model") from error
    return done


def _check_asked(model: Any, rows: Rows) -> None:
    """Raise DataError where a model itself cannot be asked with such rows: it is not fitted, or was with other columns."""
    if package_of(model) != "torch":
        try:
            _answers(model, rows.given(rows.values[:1]))
        except REFUSALS as error:
            what = f"{_name(model)} itself does not take these rows: {' '.join(str(error).split())}"
            raise DataError(what, hint="give a fitted model, and rows with the columns that it was fitted with") from error


def _smaller(model: Any, rows: Rows, done: Converted, wish: Int8, labels: Any) -> Converted:
    """A conversion in eight bits, with what that changes; raises NoExactForm where it is too much, or nothing is gained."""
    small = quantised(done.onnx, _name(model))
    forms = OnnxModel(done.onnx), OnnxModel(small)
    before, after = (lambda values, form=form: _outputs(form, rows, values)[0] for form in forms)
    classifies = any(one.datatype in ("INT64", "BYTES") for one in forms[0].outputs.values())
    truth = None if labels is None else _truth(model, np.asarray(labels), len(rows.values), classifies=classifies)
    evidence = judged(wish, (done.onnx, small), (before, after), rows.values, truth, classifies=classifies)
    return _told(model, small, done.converter, {**done.parity, **evidence})


def _truth(model: Any, labels: Array, rows: int, *, classifies: bool) -> Array:
    """The place of the class of each row, or its number. Raises DataError for labels that are not those of the rows."""
    if len(labels) != rows:
        raise DataError(f"there are {len(labels)} labels for {rows} rows", hint="give one for each row")
    names = [str(one) for one in adapter(model).classes(model)]
    if not classifies:
        return np.asarray(labels, dtype=np.float64)
    if not names:
        return np.asarray(labels, dtype=np.int64)
    places = {name: place for place, name in enumerate(names)}
    unknown = sorted({str(one) for one in labels} - {*places})
    if unknown:
        raise DataError(f"the label {unknown[0]!r} is no class of the model", available=names)
    return np.array([places[str(one)] for one in labels], dtype=np.int64)


def prove(
    model: Any, rows: Rows, onnx: bytes, *, thresholds: Mapping[int, Sequence[Floats]] | None = None, within: float = TOLERANCE
) -> dict[str, Any]:
    """The evidence that an ONNX file answers as a model does, on rows and on hostile ones; raises NoExactForm where it does not."""
    form = OnnxModel(onnx)
    evidence: dict[str, Any] = {"tolerance": within, "labels_differ": 0}
    worst = 0.0
    for name, values, given in _asked(model, rows, thresholds or {}, evidence):
        try:
            expected = _answers(model, given)
        except REFUSALS as error:
            what = f"{_name(model)} itself fails on {name} rows: {str(error).splitlines()[0]}"
            raise NoExactForm(
                what, hint="give rows that it takes, and let its encoders ignore categories that they have not seen"
            ) from error
        try:
            found = _outputs(form, rows, values)
        except DataError as error:
            raise NoExactForm(f"the ONNX form of {_name(model)} fails on {name} rows: {error.what}", hint=OTHER) from error
        apart, labels = difference(*_alike(expected[0], found[0])), _labels_differ(expected[1], found[1])
        evidence |= {f"{name}_rows": len(values), f"{name}_difference": apart, "labels_differ": evidence["labels_differ"] + labels}
        worst = max(worst, apart)
    if worst > within or evidence["labels_differ"]:
        close = worst < LOOSEST and not evidence["labels_differ"]
        hint = f"state within={10.0 ** np.ceil(np.log10(worst)):.0e} if that is good enough" if close else OTHER
        if rows.blurred:
            hint = f"ONNX cannot tell empty texts from missing ones: make them one in {', '.join(rows.blurred)}, and fit again"
        if isinstance(model, Network) and np.isinf(worst):
            hint = NUMBERS
        raise NoExactForm(f"the ONNX form of {_name(model)} gives other answers: {evidence}", hint=hint)
    return evidence


def _asked(
    model: Any, rows: Rows, thresholds: Mapping[int, Sequence[Floats]], evidence: dict[str, Any]
) -> Iterator[tuple[str, Floats, Any]]:
    """Numbers and rows for each part of the proof; what the model itself refuses is left out, and noted."""
    yield "recorded", rows.values, rows.own
    hostile = rows.held(hostile_rows(rows.values, rows.categories, thresholds))
    if not _takes(model, rows.given(hostile)):
        refused = [i for i in range(hostile.shape[1]) if not _takes(model, rows.given(_holed(rows.values[:1], i)))]
        evidence["refuses_missing"] = [rows.columns[i].name if rows.columns else i for i in refused]
        whole = rows.held(hostile_rows(rows.values, rows.categories, thresholds, holes=False))
        hostile[:, refused] = whole[:, refused]
    yield "hostile", hostile, rows.given(hostile)
    for size in BATCHES if isinstance(model, Network) else ():
        values = np.resize(rows.values, (size, rows.values.shape[1]))
        values[1:2] = 0.0
        yield f"batch_of_{size}", values, rows.given(values)
    extreme = rows.held(extreme_rows(rows.values, rows.categories))
    if _takes(model, given := rows.given(extreme)):
        yield "extreme", extreme, given


def _holed(row: Floats, column: int) -> Floats:
    made = row.copy()
    made[:, column] = np.nan
    return made


def _takes(model: Any, given: Any) -> bool:
    try:
        _answers(model, given)
    except REFUSALS:
        return False
    return True


def _answers(model: Any, given: Any) -> tuple[Floats, Array | None]:
    """The library's scores (n, k), and the labels of a classifier."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        made = adapter(model)
        scores = made.score(model, given)
        if isinstance(model, Network):
            return scores, made.labels(model, scores)
        return scores, np.asarray(model.predict(given)) if hasattr(model, "classes_") else None


def _outputs(form: OnnxModel, rows: Rows, values: Floats) -> tuple[Floats, Array | None]:
    """The scores (n, k) that an ONNX file gives, and its labels."""
    found = form.run(rows.tensors(values, form.inputs))
    scores = [one for name, one in found.items() if form.outputs[name].datatype in ("FP32", "FP64")]
    labels = [one for name, one in found.items() if form.outputs[name].datatype in ("INT64", "BYTES")]
    if len(scores) != 1:
        raise NoExactForm(f"the ONNX form gives {len(scores)} outputs of numbers", hint="one is needed")
    return np.asarray(scores[0], dtype=np.float64).reshape(len(values), -1), labels[0].ravel() if labels else None


def _alike(expected: Floats, given: Floats) -> tuple[Floats, Floats]:
    """Both with the probability of the second of two classes only."""
    if expected.shape[1] == 1 and given.shape[1] == 2:
        given = given[:, 1:]
    return expected, given


def _labels_differ(expected: Array | None, given: Array | None) -> int:
    if expected is None:
        return 0
    return len(expected) if given is None else same_labels(expected, given)


def _public(model: Any, rows: Rows, within: float, reason: NoExactForm, *, double: bool = True) -> Converted:
    """What skl2onnx makes of a model that has no exact form here, in double precision, where that is wished, or else in single; raises
    NoExactForm where it cannot either, or gives other answers."""
    if type(model).__module__.split(".")[0] != "sklearn":
        raise reason
    failed = reason
    for doubles in (True, False) if double else (False,):
        try:
            onnx = _by_skl2onnx(model, rows, double=doubles)
            return _told(model, onnx, "skl2onnx", prove(model, rows, onnx, within=within))
        except NoExactForm as error:
            failed = error
    stated = failed.hint if failed.hint.startswith("state") else reason.hint
    raise NoExactForm(f"{reason.what}; by skl2onnx: {failed.what}", available=reason.available, hint=stated) from failed


def _by_skl2onnx(model: Any, rows: Rows, *, double: bool) -> bytes:
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    except ImportError as error:
        raise MissingExtra(str(error), hint="pip install 'tidemill[sklearn]'") from error
    number = DoubleTensorType if double else FloatTensorType
    types = [(column.name, (number if column.words is None else StringTensorType)([None, 1])) for column in rows.columns]
    final = model.steps[-1][1] if hasattr(model, "steps") else model
    options = {"zipmap": False} if hasattr(model, "predict_proba") else {"raw_scores": True} if hasattr(model, "classes_") else {}
    try:
        with warnings.catch_warnings(action="ignore"):
            made = convert_sklearn(
                model,
                initial_types=types or [("features", number([None, rows.values.shape[1]]))],
                target_opset=OPSETS,
                options={id(final): options} if options else None,
            )
        onnx = bytes(made.SerializeToString())
        OnnxModel(onnx)
    except Exception as error:  # it raises every kind
        raise NoExactForm(f"it fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", hint=OTHER) from error
    return onnx


def _name(model: Any) -> str:
    return type(model.module if isinstance(model, Network) else model).__name__


def _told(model: Any, onnx: bytes, converter: str, evidence: dict[str, Any]) -> Converted:
    """The file with what is known of it as metadata."""
    from onnx import ModelProto, helper

    library = package_of(model)
    about: dict[str, Any] = {"model": _name(model), library: str(sys.modules[library].__version__), "converter": converter}
    about |= {"classes": np.asarray(adapter(model).classes(model)).tolist(), "parity": evidence}
    told = ModelProto.FromString(onnx)
    helper.set_model_props(told, {"tidemill": json.dumps(about)})
    return Converted(bytes(told.SerializeToString(deterministic=True)), converter, evidence)
