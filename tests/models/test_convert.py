"""A fitted model becomes an ONNX file with proof, over matrices and frames with texts; silent errors of the public converter are found."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import tidemill as tm
from models.fitted import labels, matrix
from tidemill.core import DataError, MissingFile, NoExactForm
from tidemill.models import OnnxModel, Rows, prove

RANDOM = np.random.default_rng(0)
N = 400


def flights(*, missing: bool = True) -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "origin": RANDOM.choice(["JFK", "LGA", "EWR", "ünï"], N),
            "tail": RANDOM.choice([f"N{i}" for i in range(15)], N),
            "delay": RANDOM.normal(10, 30, N),
            "hour": RANDOM.integers(0, 24, N),
            "holiday": RANDOM.random(N) < 0.2,
        }
    )
    if missing:
        made.loc[RANDOM.random(N) < 0.1, "origin"] = None
        made.loc[RANDOM.random(N) < 0.1, "delay"] = np.nan
    return made


WITH, WITHOUT = flights(), flights(missing=False)
LATE = np.where(WITH.delay.fillna(0) + 10 * (WITH.origin == "JFK") + WITH.hour + RANDOM.normal(0, 20, N) > 25, "late", "on time")
X = matrix(N)
TWO = labels(X)


def pipeline(encoder: Any, model: Any, numbers: Any = "passthrough") -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline

    return make_pipeline(make_column_transformer((encoder, ["origin", "tail"]), remainder=numbers), model)


def over_texts() -> dict[str, tuple[Any, Any]]:
    from lightgbm import LGBMClassifier
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
    from xgboost import XGBClassifier

    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    rare = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=25, drop="first", sparse_output=False)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    frequent = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=6)
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), hot)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    forest = RandomForestClassifier(10, random_state=1)
    whole = make_column_transformer((filled, ["origin", "tail"]), (numbers, ["delay", "hour"]))
    as_categories = WITH.astype({"origin": "category", "tail": "category"})
    small = {"max_iter": 8, "random_state": 1}
    quiet = {"n_estimators": 8, "verbose": -1, "n_jobs": 1, "min_child_samples": 5}
    return {
        "one-hot, lines": (pipeline(hot, LogisticRegression(max_iter=500), numbers), WITH),
        "one-hot, forest": (pipeline(hot, forest), WITHOUT),
        "one-hot of rare ones, forest": (pipeline(rare, forest), WITHOUT),
        "one-hot, histogram": (pipeline(hot, HistGradientBoostingClassifier(**small)), WITH),
        "ordinal, histogram": (pipeline(ordinal, HistGradientBoostingClassifier(categorical_features=[0, 1], **small)), WITH),
        "ordinal of the frequent, histogram": (pipeline(frequent, HistGradientBoostingClassifier(**small)), WITH),
        "target, boosting": (pipeline(TargetEncoder(random_state=1), GradientBoostingClassifier(n_estimators=5)), WITHOUT),
        "imputed texts, lines": (make_pipeline(whole, LogisticRegression(max_iter=500)), WITH),
        "one-hot, LightGBM": (pipeline(hot, LGBMClassifier(**quiet)), WITH),
        "one-hot, XGBoost": (pipeline(hot, XGBClassifier(n_estimators=8, n_jobs=1)), WITH),
        "categories of pandas, histogram": (HistGradientBoostingClassifier(**small), as_categories),
        "categories of pandas, LightGBM": (LGBMClassifier(**quiet), as_categories),
    }


TEXTS = [
    "one-hot, lines",
    "one-hot, forest",
    "one-hot of rare ones, forest",
    "one-hot, histogram",
    "ordinal, histogram",
    "ordinal of the frequent, histogram",
    "target, boosting",
    "imputed texts, lines",
    "one-hot, LightGBM",
    "one-hot, XGBoost",
    "categories of pandas, histogram",
    "categories of pandas, LightGBM",
]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_over_texts_answers_as_it_does(name: str) -> None:
    model, frame = over_texts()[name]
    xgboost = "XGBoost" in name
    model.fit(frame, (LATE == "late").astype(int) if xgboost else LATE)
    done = tm.convert(model, frame[:200])
    assert done.converter == "tidemill"
    assert len(repr(done)) < 1_000, "a notebook shows it"
    form, asked = OnnxModel(done.onnx), frame[200:]
    tensors = {
        column: asked[[column]].astype(object).where(asked[[column]].notna(), "").to_numpy()
        if column in ("origin", "tail")
        else asked[[column]].to_numpy(dtype=np.float64)
        for column in form.inputs
    }
    found = form.run(tensors)
    assert np.max(np.abs(found["probability"][:, 0] - model.predict_proba(asked)[:, 1])) < (1e-6 if xgboost else 1e-9)
    assert found["label"].tolist() == model.predict(asked).tolist()


def test_a_frame_of_polars_will_do() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = pl.DataFrame({name: [None if one != one else one for one in WITHOUT[name].tolist()] for name in WITHOUT})
    hot = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(make_column_transformer((hot, ["origin"]), ("passthrough", ["delay", "hour"])), RandomForestClassifier(5))
    done = tm.convert(model.fit(rows, LATE), rows)
    assert [*OnnxModel(done.onnx).inputs] == ["origin", "delay", "hour"]  # what the model leaves out need not be sent
    assert done.parity["hostile_difference"] == 0.0


def test_types_of_pandas_with_missing_values_will_do() -> None:
    rows = WITH.assign(hour=WITH.hour.astype("Int64"), holiday=WITH.holiday.astype("boolean"), delay=WITH.delay.astype("Float64"))
    rows.loc[3, "hour"] = pd.NA
    from sklearn.ensemble import HistGradientBoostingClassifier

    numbers = rows[["delay", "hour", "holiday"]]
    done = tm.convert(HistGradientBoostingClassifier(max_iter=5).fit(numbers, LATE), numbers)
    assert done.parity["recorded_difference"] < 1e-9


def test_an_empty_text_may_be_a_category_where_none_is_missing() -> None:
    from sklearn.preprocessing import OrdinalEncoder
    from sklearn.tree import DecisionTreeClassifier

    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=9, encoded_missing_value=-2)
    for rows, learnt in ((WITHOUT.replace({"origin": {"LGA": ""}}), True), (WITH, True), (WITH.replace({"origin": {"LGA": ""}}), False)):
        model = pipeline(ordinal, DecisionTreeClassifier(max_depth=6), "drop").fit(rows, LATE)
        if learnt:
            assert tm.convert(model, rows).parity["hostile_difference"] == 0.0
        else:
            with pytest.raises(NoExactForm, match="two kinds of missing texts"):
                tm.convert(model, rows)


def test_empty_and_missing_texts_that_differ_are_named() -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    rows = WITH.replace({"origin": {"LGA": ""}})
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    model = pipeline(filled, DecisionTreeClassifier(), "drop").fit(rows, LATE)
    with pytest.raises(NoExactForm, match="gives other answers") as error:
        tm.convert(model, rows)
    assert "make them one in origin" in error.value.hint


def test_numbers_and_texts_are_not_imputed_by_one_word() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    filled = make_pipeline(SimpleImputer(strategy="constant"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(make_column_transformer((filled, ["origin", "holiday"])), DecisionTreeClassifier()).fit(WITH, LATE)
    with pytest.raises(NoExactForm, match="puts 'missing_value' into a column of numbers"):
        tm.convert(model, WITH)


def several() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(4, max_depth=3, random_state=1).fit(X, np.array(["a", "b", "c", "d"])[np.arange(N) % 4])


def test_the_file_says_how_it_was_proven(tmp_path: Path) -> None:
    import onnx

    done = tm.convert(several(), X, tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == done.onnx
    onnx.checker.check_model(written)
    (about,) = [json.loads(one.value) for one in written.metadata_props if one.key == "tidemill"]
    assert about["parity"] == done.parity
    assert (about["model"], about["converter"], about["classes"]) == ("RandomForestClassifier", "tidemill", ["a", "b", "c", "d"])
    assert done.parity["recorded_rows"] == N
    found = OnnxModel(done.onnx).run({"features": X})
    assert found["probabilities"].shape == (N, 4)
    assert found["label"].tolist() == several().predict(X).tolist()


def test_a_tie_goes_to_the_class_that_the_library_takes() -> None:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    rows = np.array([[0.0], [0.0], [1.0], [1.0]] * 10)
    two = np.array([0, 1] * 20)
    for model, chosen in ((RandomForestClassifier(4, bootstrap=False), 0), (GradientBoostingClassifier(n_estimators=2), 1)):
        model.fit(rows, two)
        assert model.predict_proba(rows)[:, 1].tolist() == [0.5] * 40
        assert model.predict(rows).tolist() == [chosen] * 40
        assert OnnxModel(tm.convert(model, rows).onnx).run({"features": rows})["label"].tolist() == [chosen] * 40


@pytest.mark.parametrize("kind", [bool, float, np.int8])
def test_classes_may_be_any_whole_numbers(kind: type) -> None:
    from sklearn.tree import DecisionTreeClassifier

    done = tm.convert(DecisionTreeClassifier(max_depth=3).fit(X, TWO.astype(kind)), X)
    assert set(OnnxModel(done.onnx).run({"features": X})["label"].tolist()) == {0, 1}


def test_columns_may_have_the_names_that_nodes_have() -> None:
    from lightgbm import LGBMClassifier

    rows = pd.DataFrame(X, columns=["raw", "slope", "v0", "c1", "classes"])
    model = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(rows, TWO)
    assert tm.convert(model, rows).parity["recorded_difference"] < 1e-9


def test_what_a_model_itself_refuses_is_noted() -> None:
    from sklearn.linear_model import Ridge

    frame = pd.DataFrame({"a": X[:, 2], "b": np.arange(N)}).fillna(0)
    done = tm.convert(Ridge().fit(frame, TWO), frame)
    assert done.parity["refuses_missing"] == ["a", "b"]
    assert "extreme_rows" not in done.parity
    assert done.parity["hostile_difference"] < 1e-9


def public() -> dict[str, Any]:
    """Models that only the public converter knows, with what has to be stated."""
    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, SVR, LinearSVC

    return {"SVC": SVC(), "SVR": SVR(), "AdaBoost": AdaBoostClassifier(n_estimators=3)} | {
        "nearest": KNeighborsClassifier(),
        "lines": LinearSVC(),
        "Bayes": GaussianNB(),
    }


@pytest.mark.parametrize("name", ["SVC", "SVR", "AdaBoost", "nearest", "lines", "Bayes"])
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_exact_form_goes_through_the_public_converter_and_the_same_proof(name: str) -> None:
    rows = np.nan_to_num(X)
    model = public()[name].fit(rows, TWO)
    if name in ("SVC", "SVR", "AdaBoost"):
        with pytest.raises(NoExactForm, match="gives other answers") as error:
            tm.convert(model, rows)
        assert "state within=1e-" in error.value.hint
    done = tm.convert(model, rows, within=1e-5)
    assert done.converter == "skl2onnx"
    assert done.parity["tolerance"] == 1e-5
    assert max(done.parity["recorded_difference"], done.parity["hostile_difference"]) < 1e-5


def refused() -> dict[str, tuple[Any, Any, str]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    rows = np.nan_to_num(X)
    hot = OneHotEncoder()
    lines = LogisticRegression(max_iter=500)
    named = WITHOUT.rename(columns={"hour": "label"})
    return {
        "unseen": (pipeline(hot, lines).fit(WITHOUT, LATE), WITHOUT, "fails on hostile rows: Found unknown categories"),
        "a function": (pipeline(FunctionTransformer(str.lower), lines, "drop"), WITHOUT, "FunctionTransformer has no exact form here"),
        "no rows": (LogisticRegression().fit(rows, TWO), rows[:0], "no rows on which"),
        "one row": (LogisticRegression().fit(rows, TWO), rows[0], r"float64 of shape \(5,\)"),
        "times": (lines, WITHOUT.assign(hour=pd.Timestamp("2024-01-01")), "'hour' holds datetime"),
        "mixed": (lines, WITHOUT.assign(tail=[1, "a"] * (N // 2)), "'tail' holds int"),
        "an output's name": (
            pipeline(OneHotEncoder(handle_unknown="ignore"), lines).fit(named, LATE),
            named,
            "'label' is named as an output",
        ),
        "nothing": (object(), rows, "has no safe format here"),
    }


@pytest.mark.parametrize("name", ["unseen", "no rows", "one row", "times", "mixed", "an output's name", "nothing"])
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_converted_is_refused_with_the_reason(name: str) -> None:
    model, rows, reason = refused()[name]
    with pytest.raises((NoExactForm, DataError), match=reason) as error:
        tm.convert(model, rows)
    assert error.value.hint


# ── what the public converter gets wrong without a word; the bound is wide, so that only wrong answers are found ────────


def wrong() -> dict[str, tuple[Any, Any]]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.impute import KNNImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = np.nan_to_num(X)
    small = {"max_iter": 20, "random_state": 1, "min_samples_leaf": 2}
    steep = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    hot = make_column_transformer((OneHotEncoder(handle_unknown="ignore", sparse_output=False), [1]), remainder="passthrough")
    return {
        "native categories": (HistGradientBoostingClassifier(categorical_features=[1], **small).fit(rows, TWO), rows),
        "calibration over a pipeline": (CalibratedClassifierCV(steep, method="sigmoid").fit(rows, TWO), rows),
        "isotonic calibration": (CalibratedClassifierCV(GaussianNB(), method="isotonic").fit(rows, TWO), rows),
        "missing values of a forest": (RandomForestClassifier(10, random_state=1).fit(X, TWO), X),
        "the logarithm of poisson": (HistGradientBoostingRegressor(loss="poisson", **small).fit(rows, np.abs(rows[:, 0])), rows),
        "nearest neighbours in place of missing values": (make_pipeline(KNNImputer(), LogisticRegression(max_iter=500)).fit(X, TWO), X),
        "thresholds after a scaler": (make_pipeline(StandardScaler(), HistGradientBoostingClassifier(**small)).fit(rows, TWO), rows),
        "thresholds of a forest": (make_pipeline(hot, RandomForestClassifier(10, random_state=1)).fit(rows, TWO), rows),
        "thresholds of a forest over doubles": (RandomForestClassifier(10, random_state=1).fit(rows, TWO), rows),
    }


WRONG = [
    "native categories",
    "calibration over a pipeline",
    "isotonic calibration",
    "missing values of a forest",
    "the logarithm of poisson",
    "nearest neighbours in place of missing values",
    "thresholds after a scaler",
    "thresholds of a forest",
    "thresholds of a forest over doubles",
]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_silent_errors_of_the_public_converter_are_found(name: str) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    model, rows = wrong()[name]
    number, asked = (DoubleTensorType, rows) if "doubles" in name else (FloatTensorType, rows.astype(np.float32))
    with warnings.catch_warnings(action="ignore"):
        made = convert_sklearn(model, initial_types=[("features", number([None, 5]))], target_opset={"": 21, "ai.onnx.ml": 3})
    assert OnnxModel(made.SerializeToString()).run({"features": asked})  # it loads and answers
    with pytest.raises(NoExactForm, match=r"gives other answers|fails on hostile rows"):
        prove(model, Rows.of(rows), made.SerializeToString(), within=1e-4, thresholds=_thresholds(model, rows))


def _thresholds(model: Any, rows: Any) -> Any:
    from tidemill.models.compiled import adapter
    from tidemill.models.graph import Graph

    graph = Graph()
    try:
        adapter(model).build(graph, model, Rows.of(rows).inputs(graph))
    except NoExactForm:
        return {}
    return graph.beside


def test_a_tie_that_goes_to_the_other_class_is_found() -> None:
    import onnx
    from sklearn.ensemble import RandomForestClassifier

    rows = np.array([[0.0], [0.0], [1.0], [1.0]] * 10)
    model = RandomForestClassifier(4, bootstrap=False).fit(rows, np.array([0, 1] * 20))
    right = tm.convert(model, rows)
    other = onnx.load_from_string(right.onnx)
    (node,) = [node for node in other.graph.node if node.op_type == "Greater"]
    node.op_type = "GreaterOrEqual"
    with pytest.raises(NoExactForm, match=r"'labels_differ': [1-9]") as error:
        prove(model, Rows.of(rows), other.SerializeToString(), within=1e-4)
    assert "'recorded_difference': 0.0" in error.value.what


def test_what_the_public_converter_gets_right_is_proven_within_its_bound() -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    rows = np.nan_to_num(X)
    model = LogisticRegression(max_iter=2000).fit(rows, TWO)
    made = convert_sklearn(model, initial_types=[("features", FloatTensorType([None, 5]))], options={"zipmap": False})
    assert prove(model, Rows.of(rows), made.SerializeToString(), within=1e-4)["labels_differ"] == 0


@pytest.mark.parametrize(
    ("fitted", "rows", "what"),
    [
        (True, WITHOUT.drop(columns="delay"), "columns are missing: {'delay'}"),
        (True, WITHOUT[["delay", "hour"]].to_numpy(dtype=float), "RandomForest|Pipeline"),
        (False, WITHOUT, "not fitted yet"),
    ],
    ids=["a column missing", "a matrix", "not fitted"],
)
def test_rows_that_the_model_does_not_take_are_told_in_its_words(*, fitted: bool, rows: Any, what: str) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    hot = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(make_column_transformer((hot, ["origin"]), ("passthrough", ["delay", "hour"])), RandomForestClassifier(5))
    with pytest.raises(DataError, match=what) as error:
        tm.convert(model.fit(WITHOUT, LATE) if fitted else model, rows)
    assert "itself does not take these rows" in error.value.what
    assert "columns that it was fitted with" in error.value.hint


def test_a_folder_that_is_not_there_is_told_before_the_proof(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as error:
        tm.convert(None, [[1.0]], tmp_path / "away" / "late.onnx")
    assert error.value.where == str(tmp_path / "away")


def test_tensors_that_a_model_refuses_are_told_in_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    from sklearn.linear_model import LogisticRegression

    frame = WITHOUT[["delay", "hour"]].astype(float)
    form = OnnxModel(tm.convert(LogisticRegression(max_iter=500).fit(frame, LATE), frame).onnx)
    with pytest.raises(DataError, match="different numbers of rows: delay 2, hour 1") as error:
        form.run({"delay": np.zeros((2, 1)), "hour": np.zeros((1, 1))})
    assert error.value.where == "inputs"
    assert capfd.readouterr().err == "", "the runtime would write a line for each: who reads no stderr would stop the server"
