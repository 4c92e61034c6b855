"""Models in eight bits: smaller, and what they change is measured and bounded. Plain onnxruntime and scikit-learn are the oracles."""

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor

import tidemill as tm
from models.fitted import SIGNATURE, boosted, labels, matrix
from tidemill import training
from tidemill.core import DataError, DefinitionError, NoExactForm, definition
from tidemill.models import Converted, compile_model
from toy import Toy
from toy import parcels as parcels
from toy import ready as ready
from toy import toy as toy

X, Y = load_digits(return_X_y=True)
WISH = tm.Int8(most_loss=0.1)


@cache
def network() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return MLPClassifier((128, 128), max_iter=8, random_state=0).fit(X[:1200], Y[:1200])


@cache
def both() -> tuple[Converted, Converted]:
    """In single precision, and in eight bits."""
    plain = tm.convert(network(), X[1200:], within=1e-5)
    return plain, tm.convert(network(), X[1200:], quantise=WISH, labels=Y[1200:])


def run(onnx: bytes, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(onnx)
    kind = np.float32 if "float" in session.get_inputs()[0].type else np.float64
    return session.run(None, {"features": rows.astype(kind)})[1]


def test_what_it_changes_is_what_is_told() -> None:
    _, small = both()
    told, rows = small.parity, X[1200:]
    expected, found = network().predict_proba(rows), run(small.onnx, rows)
    assert 0 < told["int8_difference"] <= told["int8_most_loss"] == 0.1
    alone = np.concatenate([run(small.onnx, rows[i : i + 1]) for i in range(50)])
    apart = max(np.abs(found - expected).max(), np.abs(alone - expected[:50]).max())
    assert told["int8_difference"] == pytest.approx(apart, abs=1e-5)
    assert told["int8_labels_differ"] == np.sum(found.argmax(1) != expected.argmax(1))
    assert told["int8_log_loss_before"] == pytest.approx(log_loss(Y[1200:], expected), abs=1e-5)
    assert told["int8_log_loss_after"] == pytest.approx(log_loss(Y[1200:], found / found.sum(1, keepdims=True)), abs=1e-4)
    assert told["int8_rows"] == len(rows)
    assert told["int8_row_us_before"] > 0 < told["int8_row_us_after"]
    assert told["recorded_difference"] < 1e-5, "the form of single precision is proven first"


def test_it_is_a_quarter_and_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    import onnx

    _, small = both()
    assert small.parity["int8_bytes_after"] == pytest.approx(len(small.onnx), abs=3000)  # the file has the evidence too
    assert small.parity["int8_bytes_after"] < 0.35 * small.parity["int8_bytes_before"]
    (told,) = [json.loads(one.value) for one in onnx.load_from_string(small.onnx).metadata_props if one.key == "tidemill"]
    assert told["parity"] == dict(small.parity)
    tm.convert(network(), X[1200:1300], tmp_path / "m.onnx", quantise=WISH)
    assert (tmp_path / "m.onnx").stat().st_size < 0.4 * small.parity["int8_bytes_before"]


def test_without_labels_no_loss_is_told() -> None:
    told = tm.convert(network(), X[1200:1300], quantise=WISH).parity
    assert "int8_difference" in told
    assert not [name for name in told if "log_loss" in name or "rmse" in name]


def test_a_prediction_has_an_error() -> None:
    with warnings.catch_warnings(action="ignore"):
        model = MLPRegressor(hidden_layer_sizes=(128, 128), max_iter=20, random_state=0).fit(X[:1200], Y[:1200])
    told = tm.convert(model, X[1200:], quantise=tm.Int8(most_loss=1.0), labels=Y[1200:], within=1e-4).parity
    assert told["int8_rmse_before"] == pytest.approx(np.sqrt(np.mean((model.predict(X[1200:]) - Y[1200:]) ** 2)), rel=1e-4)
    assert told["int8_rmse_after"] == pytest.approx(told["int8_rmse_before"], rel=0.1)
    assert told["int8_labels_differ"] == 0


def test_more_than_may_be_lost_is_refused_with_what_was_measured() -> None:
    with pytest.raises(NoExactForm, match=r"int8 changes a score by 0\.\d+, and 1e-07 may be lost: .*'int8_bytes_after'") as caught:
        tm.convert(network(), X[1200:], quantise=tm.Int8(most_loss=1e-7))
    assert "larger most_loss" in caught.value.hint


@pytest.mark.parametrize("kind", ["trees", "lines"])
def test_what_has_no_products_of_matrices_gains_nothing(kind: str) -> None:
    if kind == "trees":
        model, rows = boosted(), matrix(200)
    else:
        model, rows = LogisticRegression(max_iter=500).fit(X, Y == 3), X
    with pytest.raises(NoExactForm, match=r"int8 gains nothing for \w+: [\d,]+ bytes before, [\d,]+ after") as caught:
        tm.convert(model, rows[:200], quantise=WISH)
    assert "leave it out" in caught.value.hint


def test_labels_that_are_not_those_of_the_rows_are_refused() -> None:
    with pytest.raises(DataError, match="3 labels for 597 rows"):
        tm.convert(network(), X[1200:], quantise=WISH, labels=Y[:3])
    with pytest.raises(DataError, match="'10' is no class"):
        tm.convert(network(), X[1200:], quantise=WISH, labels=Y[1200:] + 2)


@pytest.mark.parametrize("most", [0, -1, 2, "1%", None, float("nan")])
def test_a_loss_that_is_none_is_refused(most: Any) -> None:
    with pytest.raises(DefinitionError, match="most_loss"):
        tm.Int8(most_loss=most)


def test_a_model_of_the_loop_declares_it_and_trees_are_refused_with_their_line(toy: Toy) -> None:
    declared = toy.policy.monitor.deployment.model
    assert "quantise" not in definition(declared)
    small = replace(declared, quantise=WISH)
    assert definition(small)["quantise"] == {"type": "Int8", "most_loss": 0.1}
    chosen = training.training_set(toy.ledger, toy.built.examples, toy.at("2024-02-01"))
    with pytest.raises(NoExactForm, match="int8 gains nothing") as caught:
        training.train(toy.ledger, small, chosen)
    assert "parcels.py" in str(caught.value.where)
    with pytest.raises(DefinitionError, match="quantise of model"):
        replace(declared, quantise="int8")  # type: ignore[arg-type]


def test_compiled_trees_gain_nothing_either() -> None:
    rows = matrix(200)
    with pytest.raises(NoExactForm, match="int8 gains nothing for LGBMClassifier"):
        compile_model(boosted(), SIGNATURE, rows, WISH, labels(rows))
