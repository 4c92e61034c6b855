"""Networks of PyTorch become ONNX that answers as PyTorch does, or are refused with a reason. PyTorch itself is the oracle.

`scripts/with-torch -m pytest -m torture tests/models/test_torch.py`
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tidemill as tm
from models.fitted import SIGNATURE, labels, matrix
from tidemill import training
from tidemill.core import DefinitionError, NoExactForm
from tidemill.models import OnnxModel, Predictor, Signature, compile_model, load_model
from toy import Toy
from toy import parcels as parcels
from toy import ready as ready
from toy import toy as toy

torch: Any = pytest.importorskip("torch", reason="PyTorch is not here: scripts/with-torch")
pytestmark = pytest.mark.torture
F = 6
X = np.random.default_rng(0).normal(size=(600, F)).astype(np.float32)


class Plain(torch.nn.Module):  # type: ignore[misc]
    """Layers with what behaves otherwise in training; missing numbers are zeros."""

    def __init__(self, out: int = 1, wide: int = 16) -> None:
        super().__init__()
        layers = torch.nn.Linear(F, wide), torch.nn.BatchNorm1d(wide), torch.nn.ReLU(), torch.nn.Dropout(0.4), torch.nn.Linear(wide, out)
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, features: Any) -> Any:
        return self.layers(torch.nan_to_num(features).clamp(-100, 100))


class Missing(torch.nn.Module):  # type: ignore[misc]
    """One that gives no number where one is missing; one number for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(F, 1)

    def forward(self, features: Any) -> Any:
        return self.one(features)[:, 0]


class Words(torch.nn.Module):  # type: ignore[misc]
    """Codes of a category in the first column, attention over the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention = torch.nn.Embedding(8, 5), torch.nn.TransformerEncoderLayer(5, 1, 8, batch_first=True)
        self.out = torch.nn.Linear(10, 3)

    def forward(self, features: Any) -> Any:
        features = torch.nan_to_num(features, posinf=7, neginf=0)
        word = self.words(features[:, 0].clamp(0, 7).long())
        return self.out(self.attention(torch.stack([word, features[:, 1:].clamp(-9, 9)], 1)).flatten(1))


class Branch(torch.nn.Module):  # type: ignore[misc]
    """Another way for other values."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(F, 1)

    def forward(self, features: Any) -> Any:
        return self.one(features) if features.sum() > 0 else -self.one(features)


class Neighbours(torch.nn.Module):  # type: ignore[misc]
    """A row's answer depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(F, 1)

    def forward(self, features: Any) -> Any:
        features = torch.nan_to_num(features, posinf=9, neginf=-9)
        return self.one(features - features.mean(0))


class Recurrent(torch.nn.Module):  # type: ignore[misc]
    """The runtime's layer gives a number where PyTorch's gives none."""

    def __init__(self, *, filled: bool) -> None:
        super().__init__()
        self.filled, self.layer, self.out = filled, torch.nn.LSTM(2, 4, batch_first=True), torch.nn.Linear(4, 1)

    def forward(self, features: Any) -> Any:
        features = torch.nan_to_num(features, posinf=9, neginf=-9) if self.filled else features
        return self.out(self.layer(features.reshape(features.shape[0], 3, 2))[0][:, -1])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


def asked(module: Any, rows: Any, gives: str) -> Any:
    """What PyTorch says, in its own words."""
    with torch.no_grad():
        given = module(torch.from_numpy(np.asarray(rows, dtype=np.float32)))
    if gives == "logits":
        given = torch.sigmoid(given) if given.shape[1] == 1 else torch.softmax(given, 1)
    return given.numpy()


def hostile() -> Any:
    rows = X[:512].copy()
    rows[3], rows[7, 2], rows[11, 1], rows[12, 0], rows[13, 3] = 0, np.nan, np.inf, -np.inf, 1e30
    rows[20] = np.nan
    return rows


@pytest.mark.parametrize("size", [1, 7, 512])
@pytest.mark.parametrize("made", ["plain", "missing", "words", "double"])
def test_a_network_answers_in_any_number_of_rows_as_pytorch_does(made: str, size: int) -> None:
    module, gives, name, onnx = converted(made)
    rows, form = hostile()[:size], OnnxModel(onnx)
    found = form.run({"features": rows.astype(np.float64)})
    expected = asked(module, rows, gives) if made != "double" else module(torch.from_numpy(rows.astype(np.float64))).detach().numpy()
    scores = found[name].reshape(expected.shape)
    np.testing.assert_allclose(scores, expected, rtol=1e-12 if made == "double" else 1e-5, atol=1e-12 if made == "double" else 1e-5)
    if made == "words":
        assert found["label"].tolist() == [["a", "b", "c"][i] for i in expected.argmax(1)]
    if made == "plain":
        assert found["label"].tolist() == (expected[:, 0] > 0.5).astype(int).tolist()


KEPT: dict[str, Any] = {}


def converted(made: str) -> Any:
    """A module, what it gives, the name of its output, and its file, each made once."""
    if made not in KEPT:
        torch.manual_seed(3)
        module, gives, names, output = {
            "plain": (Plain().eval(), "logits", (), "probability"),
            "missing": (Missing().eval(), "prediction", (), "prediction"),
            "words": (Words().eval(), "logits", ("a", "b", "c"), "probabilities"),
            "double": (Plain(2).double().eval(), "prediction", (), "prediction"),
        }[made]
        done = tm.convert(tm.Network(module, gives=gives, classes=names), X)
        assert done.parity["tolerance"] == (1e-9 if made == "double" else 1e-5)
        assert done.parity["labels_differ"] == 0
        assert {f"batch_of_{size}_rows" for size in (1, 7, 512)} <= set(done.parity)
        KEPT[made] = module, gives, output, done.onnx
    return KEPT[made]


def test_the_bound_of_single_precision_is_far_above_what_was_found() -> None:
    for made in ("plain", "missing", "words"):
        _, _, _, onnx = converted(made)
        from onnx import ModelProto

        (told,) = [json.loads(one.value) for one in ModelProto.FromString(onnx).metadata_props if one.key == "tidemill"]
        assert told["converter"] == "torch"
        assert told["torch"] == torch.__version__
        assert max(value for key, value in told["parity"].items() if key.endswith("difference")) < 2e-6


def test_a_bare_module_gives_predictions_and_columns_of_a_frame_are_inputs(tmp_path: Path) -> None:
    module, frame = Plain(2).eval(), pd.DataFrame(X, columns=[f"f{i}" for i in range(F)])
    tm.convert(module, frame, tmp_path / "m.onnx")
    form = OnnxModel((tmp_path / "m.onnx").read_bytes())
    assert list(form.inputs) == [f"f{i}" for i in range(F)]
    found = form.run({f"f{i}": X[:5, i : i + 1].astype(np.float64) for i in reversed(range(F))})
    np.testing.assert_allclose(found["prediction"], asked(module, X[:5], ""), atol=1e-5)


def test_probabilities_of_two_are_that_of_the_second() -> None:
    class Both(Plain):
        def forward(self, features: Any) -> Any:
            return torch.softmax(super().forward(features), 1)

    module = Both(2).eval()
    form = OnnxModel(tm.convert(tm.Network(module, gives="probabilities", classes=["no", "yes"]), X).onnx)
    found = form.run({"features": X[:50].astype(np.float64)})
    expected = asked(module, X[:50], "")
    np.testing.assert_allclose(found["probability"][:, 0], expected[:, 1], atol=1e-5)
    assert found["label"].tolist() == [["no", "yes"][i] for i in expected.argmax(1)]


@pytest.mark.parametrize(
    ("make", "what", "next_"),
    [
        (lambda: Plain(), "in training mode", r"module\.eval\(\)"),
        (lambda: Branch().eval(), "PyTorch cannot export the network: GuardOnDataDependent", r"torch\.where"),
        (lambda: Recurrent(filled=False).eval(), "gives other answers", r"torch\.nan_to_num"),
    ],
)
def test_what_would_answer_otherwise_is_refused_with_the_reason(
    make: Any, what: str, next_: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoExactForm, match=what) as caught:
        tm.convert(make(), X)
    assert re.search(next_, caught.value.hint)
    assert capfd.readouterr().out == ""


def test_only_a_layer_that_is_trained_still_is_found() -> None:
    module = Plain().eval()
    module.layers[3].train()
    with pytest.raises(NoExactForm, match=r"in training mode \(layers\.3\)"):
        tm.convert(module, X)


def test_the_public_tracer_keeps_a_branch_where_ours_refuses() -> None:
    """Why the exporter that traces is not used."""
    from io import BytesIO
    from warnings import catch_warnings

    module, file = Branch().eval(), BytesIO()
    example = torch.from_numpy(X[:2] + 9)
    with catch_warnings(action="ignore"):
        torch.onnx.export(module, (example,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    (found,) = OnnxModel(file.getvalue()).run({"x": -example.numpy()}).values()
    assert np.abs(found - asked(module, -example.numpy(), "")).max() > 0.1


def test_a_layer_whose_missing_numbers_are_filled_is_taken() -> None:
    assert tm.convert(Recurrent(filled=True).eval(), X).parity["hostile_difference"] < 1e-5


def test_texts_are_refused_and_so_is_what_is_declared_wrongly() -> None:
    frame = pd.DataFrame({"origin": ["a", "b"], "f": [1.0, 2.0]})
    with pytest.raises(NoExactForm, match="a network takes numbers"):
        tm.convert(Missing().eval(), frame)
    with pytest.raises(NoExactForm, match="gives 1 numbers for 3 classes"):
        tm.convert(tm.Network(Plain().eval(), gives="logits", classes=[1, 2, 3]), X)
    for wrong in ({"gives": "logit"}, {"classes": ["a", "b"]}, {"gives": "logits", "classes": ["a", "a"]}):
        with pytest.raises(DefinitionError):
            tm.Network(Plain(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"list is no torch\.nn\.Module"):
        tm.Network([])


class Flights(torch.nn.Module):  # type: ignore[misc]
    """A network over raw features with missing values and a category by its code."""

    def __init__(self, rows: Any, codes: int, category: int) -> None:
        super().__init__()
        filled = torch.nan_to_num(torch.from_numpy(np.asarray(rows, dtype=np.float32)))
        self.register_buffer("middle", filled.mean(0))
        self.register_buffer("spread", filled.std(0) + 1e-3)
        self.codes, self.category, self.words = codes, category, torch.nn.Embedding(codes + 1, 3)
        self.layers = torch.nn.Sequential(torch.nn.Linear(2 * filled.shape[1] + 3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    def forward(self, features: Any) -> Any:
        missing = torch.isnan(features)
        filled = ((torch.nan_to_num(features) - self.middle) / self.spread).clamp(-9, 9)
        code = features[:, self.category].nan_to_num(self.codes, posinf=self.codes, neginf=self.codes).clamp(0, self.codes).long()
        return self.layers(torch.cat([filled, missing.to(filled.dtype), self.words(code)], 1))


def fitted(rows: Any, y: Any, codes: int, category: int) -> Any:
    module = Flights(rows, codes, category)
    given, wanted = torch.from_numpy(np.asarray(rows, dtype=np.float32)), torch.from_numpy(np.asarray(y, dtype=np.float32))
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(module(given)[:, 0], wanted).backward()
        optimiser.step()
    return module.eval()


def test_the_form_that_serves_gives_each_row_the_same_among_any_others() -> None:
    rows = matrix(2000)
    module = fitted(rows, labels(rows), 7, 1)
    compiled = compile_model(tm.Network(module, gives="logits", rounds=30), SIGNATURE, rows)
    predictor = Predictor(compiled.onnx, compiled.signature)
    whole = predictor.predict(rows)
    np.testing.assert_allclose(whole, asked(module, rows, "logits")[:, 0], atol=1e-5)
    assert np.concatenate([predictor.predict(rows[i : i + 1]) for i in range(100)]).tobytes() == whole[:100].tobytes()
    assert predictor.predict(rows[5:307]).tobytes() == whole[5:307].tobytes()
    assert (compiled.library, compiled.rounds, compiled.signature.output) == ("torch", 30, "probability")
    assert Signature.of(compiled.signature.plain()) == compiled.signature
    again = Flights(rows, 7, 1).eval()
    again.load_state_dict(safetensors(compiled.native))
    assert asked(again, rows, "logits").tobytes() == asked(module, rows, "logits").tobytes()


def safetensors(data: bytes) -> dict[str, Any]:
    """As the format's page says: the head's size, the head, the bytes."""
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": np.float32, "I64": np.int64}
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {
        name: torch.from_numpy(np.frombuffer(body[slice(*one["data_offsets"])], kinds[one["dtype"]]).reshape(one["shape"]).copy())
        for name, one in head.items()
    }


def test_one_whose_rows_depend_on_each_other_cannot_serve() -> None:
    with pytest.raises(NoExactForm, match="gives other answers"):
        compile_model(tm.Network(Neighbours().eval()), Signature(tuple("abcdef")), X.astype(np.float64))


def wide(train: training.TrainingSet, params: training.Params) -> tm.Network:
    """One that has enough weights to gain by eight bits."""
    torch.manual_seed(train.seed)
    module = Flights(train.X, 3, train.categorical[0])
    module.layers = torch.nn.Sequential(torch.nn.Linear(2 * train.X.shape[1] + 3, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
    return tm.Network(module.eval(), gives="logits")


def expected_of(chosen: training.TrainingSet) -> Any:
    """What PyTorch says with the weights that were kept."""
    module = wide(replace(chosen, seed=4), {}).module
    return asked(module, chosen.X, "logits")[:, 0]


def test_a_model_of_the_loop_is_a_network(toy: Toy) -> None:
    def net(train: training.TrainingSet, params: training.Params) -> tm.Network:
        torch.manual_seed(train.seed)
        category = train.categorical[0]
        return tm.Network(fitted(train.X, train.y, len(train.signature.categories["booking__grade"]), category), gives="logits", rounds=30)

    chosen = training.training_set(toy.ledger, toy.built.examples, toy.at("2024-02-01"))
    trained = training.train(toy.ledger, training.model(toy.built.task, seed=4)(net), chosen)
    assert trained.model.meta["library"] == "torch"
    assert trained.model.meta["parity"]["tolerance"] == 1e-5
    predictor = load_model(toy.ledger, trained.model)
    torch.manual_seed(4)
    expected = asked(fitted(chosen.X, chosen.y, 3, chosen.categorical[0]), chosen.X, "logits")[:, 0]
    np.testing.assert_allclose(predictor.predict(chosen.X), expected, atol=1e-5)

    small = training.train(toy.ledger, training.model(toy.built.task, seed=4, quantise=tm.Int8(most_loss=0.1))(wide), chosen)
    told = small.model.meta["parity"]
    assert told["int8_bytes_after"] < 0.8 * told["int8_bytes_before"]
    assert 0 < told["int8_difference"] <= 0.1
    assert {"int8_log_loss_before", "int8_log_loss_after", "int8_row_us_after"} <= set(small.run.metrics)
    predictor = load_model(toy.ledger, small.model)
    alone = np.concatenate([predictor.predict(chosen.X[i : i + 1]) for i in range(50)])
    assert predictor.predict(chosen.X)[:50].tobytes() == alone.tobytes(), "a row's answer does not depend on its neighbours"
    assert np.abs(alone - expected_of(chosen)[:50]).max() <= 0.1

    def forgot(train: training.TrainingSet, params: training.Params) -> Any:
        return Flights(train.X, 3, train.categorical[0]).eval()

    with pytest.raises(DefinitionError, match="gives a prediction, not a probability") as caught:
        training.train(toy.ledger, training.model(toy.built.task)(forgot), chosen)
    assert "tm.Network" in caught.value.hint
