"""Trees of every library, over every loss: the form that serves gives the labels of `predict` and the scores of `predict_proba`."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from models.fitted import SIGNATURE, labels, matrix
from tidemill.core import Floats
from tidemill.models import Compiled, OnnxModel, Predictor, Signature, compile_model

NUMBERS = Signature(SIGNATURE.features)
X = matrix(600)
FILLED = np.nan_to_num(X)
TWO = labels(X)
THREE = np.array(["early", "late", "on time"])[np.minimum((FILLED[:, 2] // 8).astype(int) + (FILLED[:, 0] > 20), 2)]
AMOUNT = np.abs(FILLED[:, 0]) + FILLED[:, 2] * 0.3 + 1
TARGETS = {"two": TWO, "three": THREE, "amount": AMOUNT, "share": AMOUNT / AMOUNT.max(), "codes": np.unique(THREE, return_inverse=True)[1]}


def imputed(model: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), model)


def scaled(model: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler, StandardScaler

    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), RobustScaler(), model)


def encoded(model: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    rare = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=80, drop="first")
    return make_pipeline(make_column_transformer((rare, [1]), remainder=make_pipeline(SimpleImputer(), MinMaxScaler(clip=True))), model)


def ranked(model: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return make_pipeline(make_column_transformer((ordinal, [1, 2]), remainder="passthrough"), model)


def histogram(task: str, **params: Any) -> Any:
    from sklearn import ensemble

    made = getattr(ensemble, f"HistGradientBoosting{task}")
    return made(max_iter=15, max_leaf_nodes=9, random_state=1, **params)


def forest(kind: str, **params: Any) -> Any:
    from sklearn import ensemble, tree

    if kind.startswith(("DecisionTree", "ExtraTreeC")):
        return getattr(tree, kind)(random_state=1, **params)
    sized = {"n_estimators": 10, "random_state": 1} | params
    return getattr(ensemble, kind)(**sized)


def light(task: str, **params: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, f"LGBM{task}")(**{"n_estimators": 15, "num_leaves": 9, "n_jobs": 1, "verbose": -1} | params)


def extreme(kind: str, **params: Any) -> Any:
    import xgboost

    return getattr(xgboost, f"XGB{kind}")(**{"n_estimators": 15, "max_depth": 4, "n_jobs": 1} | params)


def over(kind: str, *members: Any, **params: Any) -> Any:
    """A model of scikit-learn over others."""
    from sklearn import calibration, ensemble, model_selection

    if kind == "CalibratedClassifierCV":
        return calibration.CalibratedClassifierCV(*members, cv=2, **params)
    if kind == "GridSearchCV":
        return model_selection.GridSearchCV(*members, cv=2, **params)
    if kind.startswith("Bagging"):
        return getattr(ensemble, kind)(*members, n_estimators=5, random_state=1, **params)
    return getattr(ensemble, kind)([(str(i), one) for i, one in enumerate(members)], **params)


def lines(kind: str = "LogisticRegression") -> Any:
    from sklearn import linear_model

    return scaled(getattr(linear_model, kind)())


CLASSIFIER, REGRESSOR = "Classifier", "Regressor"
BAGGED = {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}
PIPELINES: dict[str, tuple[Callable[[], Any], str]] = {
    "histogram, two": (lambda: histogram(CLASSIFIER), "two"),
    "histogram, three": (lambda: histogram(CLASSIFIER), "three"),
    "histogram, two, categories": (lambda: histogram(CLASSIFIER, categorical_features=[1]), "two"),
    "histogram, three, categories": (lambda: histogram(CLASSIFIER, categorical_features=[1, 2]), "three"),
    "histogram, scaled": (lambda: scaled(histogram(CLASSIFIER)), "two"),
    "histogram, squared error": (lambda: histogram(REGRESSOR), "amount"),
    "histogram, absolute error": (lambda: histogram(REGRESSOR, loss="absolute_error"), "amount"),
    "histogram, poisson": (lambda: histogram(REGRESSOR, loss="poisson"), "amount"),
    "histogram, gamma, categories": (lambda: histogram(REGRESSOR, loss="gamma", categorical_features=[1]), "amount"),
    "histogram, quantile": (lambda: histogram(REGRESSOR, loss="quantile", quantile=0.9), "amount"),
    "forest, two, NaN": (lambda: forest("RandomForestClassifier"), "two"),
    "forest, three, NaN": (lambda: forest("RandomForestClassifier", max_depth=5), "three"),
    "forest, imputed, scaled": (lambda: scaled(forest("RandomForestClassifier", n_estimators=40)), "three"),
    "forest, one-hot": (lambda: encoded(forest("RandomForestClassifier")), "two"),
    "forest, ordinal": (lambda: ranked(forest("RandomForestClassifier")), "two"),
    "forest, amount": (lambda: forest("RandomForestRegressor"), "amount"),
    "extra trees, two, NaN": (lambda: forest("ExtraTreesClassifier"), "two"),
    "extra trees, amount": (lambda: forest("ExtraTreesRegressor", max_depth=6), "amount"),
    "tree, three, NaN": (lambda: forest("DecisionTreeClassifier", max_leaf_nodes=20), "three"),
    "tree, at random": (lambda: forest("ExtraTreeClassifier"), "two"),
    "tree, amount": (lambda: forest("DecisionTreeRegressor"), "amount"),
    "boosting, two": (lambda: imputed(forest("GradientBoostingClassifier")), "two"),
    "boosting, exponential": (lambda: imputed(forest("GradientBoostingClassifier", loss="exponential")), "two"),
    "boosting, from zero": (lambda: imputed(forest("GradientBoostingClassifier", init="zero")), "three"),
    "boosting, huber": (lambda: imputed(forest("GradientBoostingRegressor", loss="huber")), "amount"),
    "lightgbm, three": (lambda: light(CLASSIFIER), "three"),
    "lightgbm, one against all": (lambda: light(CLASSIFIER, objective="multiclassova"), "three"),
    "lightgbm, forest, two": (lambda: light(CLASSIFIER, **BAGGED), "two"),
    "lightgbm, forest, three": (lambda: light(CLASSIFIER, **BAGGED), "three"),
    **{f"lightgbm, {loss}": (lambda loss=loss: light(REGRESSOR, objective=loss), "amount") for loss in ("l2", "l1", "huber", "fair")},
    **{f"lightgbm, {loss}": (lambda loss=loss: light(REGRESSOR, objective=loss), "amount") for loss in ("poisson", "quantile", "mape")},
    **{f"lightgbm, {loss}": (lambda loss=loss: light(REGRESSOR, objective=loss), "amount") for loss in ("gamma", "tweedie")},
    "lightgbm, cross entropy": (lambda: light(REGRESSOR, objective="cross_entropy"), "share"),
    "lightgbm, square root": (lambda: light(REGRESSOR, reg_sqrt=True), "amount"),
    "calibrated, sigmoid": (lambda: over("CalibratedClassifierCV", lines()), "two"),
    "calibrated, isotonic": (lambda: over("CalibratedClassifierCV", forest("RandomForestClassifier"), method="isotonic"), "two"),
    "calibrated, isotonic, of raw scores": (lambda: over("CalibratedClassifierCV", histogram(CLASSIFIER), method="isotonic"), "two"),
    "calibrated, of LightGBM": (lambda: over("CalibratedClassifierCV", light(CLASSIFIER)), "two"),
    "votes, two": (lambda: over("VotingClassifier", lines(), histogram(CLASSIFIER), voting="soft", weights=[1, 2]), "two"),
    "votes, three": (lambda: over("VotingClassifier", lines(), light(CLASSIFIER), light(CLASSIFIER), voting="soft"), "three"),
    "votes, amount": (lambda: over("VotingRegressor", lines("Ridge"), histogram(REGRESSOR)), "amount"),
    "bags, three": (lambda: over("BaggingClassifier", max_features=0.6), "three"),
    "bags, amount": (lambda: over("BaggingRegressor"), "amount"),
    "searched": (lambda: over("GridSearchCV", histogram(CLASSIFIER), param_grid={"max_depth": [2, 4]}), "two"),
    "xgboost, two": (lambda: extreme(CLASSIFIER), "two"),
    "xgboost, three": (lambda: extreme(CLASSIFIER), "codes"),
    "xgboost, categories": (lambda: extreme(CLASSIFIER, enable_categorical=True, feature_types=["q", "c", "q", "q", "q"]), "two"),
    "xgboost, dart": (lambda: extreme(CLASSIFIER, booster="dart", rate_drop=0.3), "two"),
    "xgboost, forest": (lambda: extreme("RFClassifier"), "two"),
    "xgboost, squared error": (lambda: extreme(REGRESSOR), "amount"),
    "xgboost, absolute error": (lambda: extreme(REGRESSOR, objective="reg:absoluteerror"), "amount"),
    "xgboost, poisson": (lambda: extreme(REGRESSOR, objective="count:poisson"), "amount"),
    "xgboost, gamma": (lambda: extreme(REGRESSOR, objective="reg:gamma"), "amount"),
    "xgboost, share": (lambda: extreme(REGRESSOR, objective="reg:logistic"), "share"),
}


@cache
def fitted(name: str) -> tuple[Any, Compiled, Predictor]:
    make, target = PIPELINES[name]
    model = make().fit(X, TARGETS[target])
    compiled = compile_model(model, NUMBERS, X[:200])
    return model, compiled, Predictor(compiled.onnx, compiled.signature)


def bound(name: str) -> float:
    """XGBoost computes in single precision itself; so what one of its scores is, is known to seven digits."""
    return 1e-6 if name.startswith("xgboost") else 1e-9


def own(model: Any, rows: Floats) -> Floats:
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(rows), dtype=np.float64)[:, np.newaxis]
    found = np.asarray(model.predict_proba(rows), dtype=np.float64)
    return found[:, 1:] if found.shape[1] == 2 else found


def test_more_than_thirty_pipelines_of_trees_are_held_to_nine_digits() -> None:
    held = [name for name in PIPELINES if bound(name) == 1e-9 and name != "calibrated, sigmoid"]  # that one is over lines
    assert len(held) >= 30
    assert {PIPELINES[name][1] for name in held} >= {"two", "three", "amount"}
    assert sum("categories" in name or "ordinal" in name or "one-hot" in name for name in held) >= 4


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.filterwarnings("ignore")
def test_it_answers_as_the_library_does(name: str) -> None:
    model, compiled, predictor = fitted(name)
    rows = matrix(2000, seed=11)
    expected, found = own(model, rows), predictor.outputs(rows)
    assert np.max(np.abs(expected - found) / np.maximum(1, np.abs(expected))) < bound(name)
    assert compiled.parity["tolerance"] == bound(name)
    if hasattr(model, "classes_"):
        label = OnnxModel(tm.convert(model, X[:200]).onnx).run({"features": rows})["label"]
        assert label.tolist() == model.predict(rows).tolist()
    alone = np.concatenate([predictor.outputs(rows[i : i + 1]) for i in range(50)])
    assert alone.tobytes() == found[:50].tobytes()


EXACT_TO_THE_BIT = [name for name in PIPELINES if name.split(",")[0] in ("forest", "extra trees", "tree")]


@pytest.mark.parametrize("name", [*EXACT_TO_THE_BIT, "xgboost, squared error", "lightgbm, l2", "boosting, huber"])
def test_what_only_adds_up_is_equal_to_the_bit(name: str) -> None:
    model, _, predictor = fitted(name)
    rows = matrix(500, seed=12)
    assert own(model, rows).tobytes() == predictor.outputs(rows).tobytes()


def test_the_signature_says_what_a_model_gives() -> None:
    found = {name: fitted(name)[1].signature for name in ("histogram, three", "histogram, poisson", "histogram, two", "xgboost, three")}
    three = found["histogram, three"]
    assert (three.output, three.width, three.classes) == ("probabilities", 3, ("early", "late", "on time"))
    assert (found["histogram, poisson"].output, found["histogram, poisson"].width) == ("prediction", 1)
    assert found["histogram, two"] == NUMBERS
    assert found["xgboost, three"].classes == (0, 1, 2)
    for one in found.values():
        assert Signature.of(one.plain()) == one


def test_one_number_is_not_taken_from_several() -> None:
    with pytest.raises(ValueError, match="gives 3 probabilities for a row"):
        fitted("histogram, three")[2].predict(X[:3])


def test_rounds_that_early_stopping_left_out_do_not_answer() -> None:
    model = extreme(CLASSIFIER, n_estimators=80, learning_rate=0.9, early_stopping_rounds=2)
    model.fit(X, TWO, eval_set=[(X[:200], 1 - TWO[:200])], verbose=False)
    compiled = compile_model(model, NUMBERS, X[:100])
    assert compiled.rounds == model.best_iteration + 1 < model.get_booster().num_boosted_rounds()


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_ranking_is_a_prediction(library: str) -> None:
    made = light("Ranker", min_child_samples=2) if library == "lightgbm" else extreme("Ranker")
    model = made.fit(X, TWO, group=[100] * 6)
    compiled = compile_model(model, NUMBERS, X)
    assert compiled.signature.output == "prediction"
    assert compiled.parity["recorded_difference"] == 0.0
    assert len(np.unique(model.predict(X))) > 10


@pytest.mark.parametrize("kind", ["LinearRegression", "Ridge", "Lasso", "ElasticNet", "LogisticRegression"])
def test_lines_of_any_number_of_classes(kind: str) -> None:
    from sklearn import linear_model
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    classifies = kind == "LogisticRegression"
    model = make_pipeline(SimpleImputer(), MaxAbsScaler(), getattr(linear_model, kind)()).fit(X, THREE if classifies else AMOUNT)
    compiled = compile_model(model, NUMBERS, X[:200])
    rows = matrix(300, seed=13)
    found = Predictor(compiled.onnx, compiled.signature).outputs(rows)
    assert np.max(np.abs(own(model, rows) - found)) < 1e-9
    if classifies:
        assert np.asarray(compiled.signature.classes)[found.argmax(axis=1)].tolist() == model.predict(rows).tolist()


def test_a_deep_tree_needs_no_deep_stack() -> None:
    from sklearn.tree import DecisionTreeRegressor

    rows = np.arange(1500.0)[:, np.newaxis]
    model = DecisionTreeRegressor().fit(rows, 1.5 ** np.arange(1500.0))
    assert model.get_depth() > 1000
    compiled = compile_model(imputed(model).fit(rows, 1.5 ** np.arange(1500.0)), Signature(("x",)), rows)
    assert compiled.parity["recorded_difference"] == 0.0


values = st.sampled_from([0.0, 1.0, 2.0, 0.1, 0.3, 16777217.0, 1e-40, np.nan]) | st.floats(-5, 5)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(values, values), min_size=12, max_size=40),
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor"]),
    classes=st.integers(2, 4),
)
def test_a_small_forest_is_equal_to_the_bit_with_ties_and_nan(rows: list[tuple[float, float]], seed: int, kind: str, classes: int) -> None:
    learnt = np.array([*rows, (np.nan, 0.0), (1.0, np.nan)])
    model = forest(kind, n_estimators=4, random_state=seed).fit(learnt, np.arange(len(learnt)) % classes)
    compiled = compile_model(model, Signature(("a", "b")), learnt)
    asked = np.random.default_rng(seed).permuted(np.vstack([learnt, learnt]), axis=0)
    assert own(model, asked).tobytes() == Predictor(compiled.onnx, compiled.signature).outputs(asked).tobytes()
