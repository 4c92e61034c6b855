"""The form that serves answers as the library does, row by row as in any batch; what has no such form is refused with a reason."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fitted import EXACT, SIGNATURE, bare, boosted, linear, matrix
from tidemill.core import Floats, NoExactForm
from tidemill.models import Compiled, Predictor, Signature, compile_model
from tidemill.models.compiled import block_of

NUMBERS = Signature(SIGNATURE.features)


@cache
def fitted(name: str) -> tuple[Any, Compiled, Predictor]:
    model = EXACT[name]()
    compiled = compile_model(model, SIGNATURE, matrix(300, seed=5))
    return model, compiled, Predictor(compiled.onnx, SIGNATURE)


def own(model: Any, rows: Floats) -> Floats:
    return np.asarray(model.predict_proba(rows)[:, 1])


values = st.sampled_from([0.0, -0.0, 1.0, 2.5, 23.0, 24.0, -1e9, 1e9, 1e-300, np.nan]) | st.floats(-100, 100)
codes = st.sampled_from([float(code) for code in range(9)] + [np.nan])
row = st.tuples(values, codes, values, values, values)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=40))
def test_it_answers_as_the_library_does(name: str, rows: list[tuple[float, ...]]) -> None:
    model, _, predictor = fitted(name)
    X = np.array(rows)
    expected, given_answers = own(model, X), predictor.predict(X)
    assert np.max(np.abs(expected - given_answers)) < 1e-12
    assert ((expected > 0.5) == (given_answers > 0.5))[np.abs(expected - 0.5) > 1e-12].all()


@pytest.mark.parametrize("name", EXACT)
def test_it_answers_as_the_library_does_on_many_rows(name: str) -> None:
    model, _, predictor = fitted(name)
    X = matrix(20_000, seed=9)
    assert np.max(np.abs(own(model, X) - predictor.predict(X))) < 1e-12


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=70), cuts=st.lists(st.integers(1, 40), max_size=5))
def test_a_row_has_one_answer_whatever_stands_beside_it(name: str, rows: list[tuple[float, ...]], cuts: list[int]) -> None:
    predictor, X = fitted(name)[2], np.array(rows)
    whole = predictor.predict(X)
    alone = np.concatenate([predictor.predict(X[i : i + 1]) for i in range(len(X))])
    borders = sorted({0, len(X), *(cut for cut in cuts if cut < len(X))})
    pieces = np.concatenate([predictor.predict(X[a:b]) for a, b in pairwise(borders)])
    assert whole.tobytes() == alone.tobytes() == pieces.tobytes()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 63, 64, 65, 1000, 4097])
def test_batches_of_any_size_agree(size: int) -> None:
    for name in ("boosted", "linear"):
        predictor, X = fitted(name)[2], matrix(5000, seed=3)
        assert predictor.predict(X[:size]).tobytes() == predictor.predict(X)[:size].tobytes()
        assert predictor.predict(X[100 : 100 + size]).tobytes() == predictor.predict(X)[100 : 100 + size].tobytes()


def test_any_memory_layout_will_do() -> None:
    predictor, X = fitted("boosted")[2], matrix(50)
    wanted = predictor.predict(X).tolist()
    assert predictor.predict(np.asfortranarray(X)).tolist() == wanted
    assert predictor.predict(np.repeat(X, 2, axis=0)[::2]).tolist() == wanted


def test_no_rows_have_no_answers() -> None:
    for name in ("boosted", "linear"):
        assert fitted(name)[2].predict(matrix(0)).shape == (0,)


@pytest.mark.parametrize(
    ("depends_on", "block"),
    [(lambda rows: 0, 0), (lambda rows: len(rows) > 100, 8), (lambda rows: len(rows) == 3, 8), (lambda rows: rows[-1, 0], 1)],
    ids=["nothing", "many", "few", "neighbours"],
)
@pytest.mark.parametrize("recorded", [20, 3_000])
def test_it_is_asked_with_as_many_rows_as_change_no_answer(depends_on: Callable[[Floats], float], block: int, recorded: int) -> None:
    def ask(rows: Floats, size: int) -> Floats:
        whole = np.pad(rows, ((0, -len(rows) % size if size else 0), (0, 0)))
        parts = np.split(whole, len(whole) // size) if size else [whole]
        return np.concatenate([part[:, 0] + 1e-12 * depends_on(part) for part in parts])[: len(rows)]

    assert block_of(ask, np.random.default_rng(1).random((recorded, 2))) == block


def test_the_evidence_is_kept() -> None:
    parity = fitted("boosted")[1].parity
    assert parity["recorded_rows"] == 300
    assert parity["hostile_rows"] > 300
    assert parity["recorded_difference"] <= parity["tolerance"]
    assert parity["hostile_difference"] <= parity["tolerance"]
    assert parity["labels_differ"] == 0
    assert (fitted("boosted")[1].rounds, fitted("boosted")[1].library) == (40, "lightgbm")
    assert fitted("linear")[1].rounds > 1


def test_the_native_form_is_the_librarys_own_and_no_pickle() -> None:
    import lightgbm
    import skops.io

    X = matrix(100)
    booster = lightgbm.Booster(model_str=fitted("boosted")[1].native.decode())
    assert np.array_equal(booster.predict(X), own(fitted("boosted")[0], X))
    data = fitted("linear")[1].native
    loaded = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    assert np.array_equal(own(loaded, X), own(fitted("linear")[0], X))


def others() -> dict[str, tuple[Any, str]]:
    """Models without an exact form here, and what the refusal says."""
    from lightgbm import LGBMRegressor
    from sklearn.ensemble import AdaBoostClassifier, GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
    from xgboost import XGBClassifier, XGBRegressor

    X, filled = matrix(600), np.nan_to_num(matrix(600))
    y = (filled[:, 0] > 10).astype(int)
    two = np.column_stack([filled[:, 0], filled[:, 2]])
    quiet = {"n_estimators": 5, "verbose": -1, "n_jobs": 1}
    return {
        "an objective of one's own": (LGBMRegressor(objective=_squared, **quiet).fit(X, filled[:, 0]), "objective 'none|custom'"),
        "zero as missing": (boosted(zero_as_missing=True), "zero_as_missing"),
        "linear trees": (boosted(linear_tree=True, categorical_feature=[]), "linear trees have no exact form"),
        "a boosting of votes": (AdaBoostClassifier(n_estimators=2).fit(filled, y), "AdaBoostClassifier has no exact form"),
        "a forest of two targets": (RandomForestRegressor(3).fit(X, two), "several targets"),
        "lines of two targets": (LinearRegression().fit(filled, two), "several targets"),
        "boosting from a model": (
            GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(filled, y),
            "begins with LinearRegr",
        ),
        "boosted lines": (XGBClassifier(booster="gblinear").fit(X, y), "gblinear has no exact form"),
        "boosting of two targets": (XGBRegressor(n_estimators=2).fit(X, two), "several targets"),
        "boosting to a hinge": (XGBClassifier(objective="binary:hinge", n_estimators=2).fit(X, y), "objective 'binary:hinge'"),
        "minus one as missing": (XGBClassifier(missing=-1, n_estimators=2).fit(X, y), "reads -1 as missing"),
        "an unknown step": (make_pipeline(PolynomialFeatures(2), bare()).fit(filled, y), "PolynomialFeatures has no exact form"),
        "a function": (
            make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(X, y),
            "FunctionTransformer has no exact form",
        ),
        "fails on NaN": (make_pipeline(StandardScaler(), LogisticRegression()).fit(filled, y), "fails on rows with missing values"),
        "fails on unseen categories": (linear(encoder={"handle_unknown": "error"}), "fails on a category that it has not seen"),
        "an indicator": (linear(imputer={"add_indicator": True}), "SimpleImputer"),
        "another missing value": (_other_missing(), "SimpleImputer"),
        "not a model": (object(), "has no safe format here"),
    }


def _squared(truth: Floats, given: Floats) -> tuple[Floats, Floats]:
    return given - truth, np.ones_like(truth)


def _other_missing() -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    X = np.nan_to_num(matrix(300))
    return make_pipeline(SimpleImputer(missing_values=-1), LogisticRegression(max_iter=2000)).fit(X, (X[:, 0] > 10).astype(int))


@cache
def refused() -> dict[str, tuple[Any, str]]:
    return others()


NAMES = [
    "an objective of one's own",
    "zero as missing",
    "linear trees",
    "a boosting of votes",
    "a forest of two targets",
    "lines of two targets",
    "boosting from a model",
    "boosted lines",
    "boosting of two targets",
    "boosting to a hinge",
    "minus one as missing",
    "an unknown step",
    "a function",
    "fails on NaN",
    "fails on unseen categories",
    "an indicator",
    "another missing value",
    "not a model",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_exact_form_is_refused_with_the_reason(name: str) -> None:
    model, reason = refused()[name]
    with pytest.raises(NoExactForm, match=reason):
        compile_model(model, NUMBERS if "fails on NaN" in name else SIGNATURE, matrix(200))
