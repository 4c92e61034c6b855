"""Training sets and runs: what their digests cover, what a function gets, what is tracked, and what is not run again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from xgboost import XGBClassifier

from processes import run_python
from tidemill import training
from tidemill.core import DataError, DefinitionError, NoExactForm
from tidemill.models import load_model
from tidemill.training import Params, Task, Trained, TrainingSet, model
from toy import Row, Toy, make_rows, open_toy, write_rows

UNTIL = "2024-02-01"


def chosen(toy: Toy, until: str = UNTIL) -> TrainingSet:
    return training.training_set(toy.ledger, toy.built.examples, toy.at(until))


def declared_train(toy: Toy, until: str = UNTIL) -> Trained:
    return training.train(toy.ledger, toy.policy.monitor.deployment.model, chosen(toy, until))


def changed(toy: Toy, parcels: Path, tmp_path: Path, change: Row) -> Toy:
    """The project over the same ledger, with all rows changed by functions of a row."""
    from shutil import copy

    for name in ("tidemill.toml", "parcels.py"):
        copy(parcels / name, tmp_path / name)
    write_rows(tmp_path, [row | {name: f(row) for name, f in change.items()} for row in make_rows()])
    return open_toy(tmp_path, toy.ledger)


def test_a_matrix_that_scikit_learn_takes_with_categories_as_codes(toy: Toy) -> None:
    found = chosen(toy)
    assert found.X.dtype == np.float64
    assert found.X.shape == (len(found.y), len(found.signature.features))
    assert set(found.y.tolist()) == {0, 1}
    assert (np.diff(found.at) >= 0).all()
    assert [found.signature.features[i] for i in found.categorical] == ["booking__grade"]
    assert found.signature.categories == {"booking__grade": ("x", "y", "z")}
    assert set(np.unique(found.X[:, found.categorical[0]])) == {0.0, 1.0, 2.0}


def test_a_frame_with_names_says_the_same(toy: Toy) -> None:
    found = chosen(toy)
    frame = found.frame()
    assert list(frame.columns) == ["predict_at", *found.signature.features, "label"]
    assert frame["label"].tolist() == found.y.tolist()
    assert set(frame["booking__grade"]) == {"x", "y", "z"}
    assert frame["booking__weight"].to_numpy().tobytes() == np.ascontiguousarray(found.X[:, 1]).tobytes()
    grades = {row["parcel"]: row["grade"] for row in make_rows()}
    examples = toy.built.examples
    keys = examples.requests.keys[examples.known(toy.at(UNTIL))].tolist()
    assert frame["booking__grade"].tolist() == [grades[key.decode()] for key in keys]


def test_vocabularies_are_of_the_rows_that_were_known(toy: Toy, parcels: Path, tmp_path: Path) -> None:
    other = changed(toy, parcels, tmp_path, {"grade": lambda row: "brand new" if row["sent"].month >= 3 else row["grade"]})
    assert chosen(other).signature.categories == {"booking__grade": ("x", "y", "z")}
    assert "brand new" in chosen(other, "2024-04-01").signature.categories["booking__grade"]


def test_other_words_with_equal_codes_are_another_training_set(toy: Toy, parcels: Path, tmp_path: Path) -> None:
    before = declared_train(toy)
    other = changed(toy, parcels, tmp_path, {"grade": lambda row: {"x": "u", "y": "v", "z": "w"}[row["grade"]]})
    assert chosen(other).ref.digest != chosen(toy).ref.digest
    after = declared_train(other)
    assert not after.cached
    assert after.model.ref.digest != before.model.ref.digest


def test_requests_with_other_keys_are_other_examples_from_the_cache_too(toy: Toy, parcels: Path, tmp_path: Path) -> None:
    for _ in range(2):
        other = changed(toy, parcels, tmp_path, {"parcel": lambda row: "q" + row["parcel"]})
        assert other.built.examples.ref.digest != toy.built.examples.ref.digest
        assert all(key.startswith(b"q") for key in other.built.examples.requests.keys.tolist())


def test_training_is_tracked_and_not_run_again(toy: Toy) -> None:
    first, second = declared_train(toy), declared_train(toy)
    assert (first.cached, second.cached) == (False, True)
    assert first.model.ref == second.model.ref
    assert first.cost == second.cost == len(chosen(toy).y) * 30
    assert first.run.params["num_leaves"] == 7
    assert first.run.params["rows"] == len(chosen(toy).y)
    assert first.run.metrics["rounds"] == 30
    assert first.run.execution.status == "finished"
    assert first.run.execution.code


def test_no_known_label_is_an_error_that_names_the_time(toy: Toy) -> None:
    with pytest.raises(DataError, match="no labelled example was known by 2023-12-01"):
        chosen(toy, "2023-12-01")


def fails(train: TrainingSet, params: Params) -> Pipeline:
    raise KeyError("no such column")


def logs(train: TrainingSet, params: Params) -> Pipeline:
    for step in range(3):
        train.log_metric("loss", 1.0 / (step + 1), step)
    train.log_metric("seed", float(train.seed))
    return make_pipeline(SimpleImputer(), LogisticRegression(max_iter=200)).fit(train.X, train.y)


def test_a_function_that_fails_is_named_with_its_place_and_leaves_a_failed_run(toy: Toy) -> None:
    bad = model(toy.built.task)(fails)
    with pytest.raises(DefinitionError, match=r"model 'fails' cannot be trained: KeyError") as error:
        training.train(toy.ledger, bad, chosen(toy))
    assert "test_sets.py" in error.value.where
    (run,) = toy.ledger.executions(kind="training run")
    assert run.status == "failed"
    assert "KeyError" in run.error


def imports_late(train: TrainingSet, params: Params) -> Pipeline:
    import helper_of_the_project  # type: ignore[import-not-found]  # as it lies beside a project's file

    return helper_of_the_project.fit(train)  # type: ignore[no-any-return]


def test_a_function_that_imports_late_is_told_where_to(toy: Toy) -> None:
    with pytest.raises(DefinitionError, match="No module named 'helper_of_the_project'") as error:
        training.train(toy.ledger, model(toy.built.task)(imports_late), chosen(toy))
    assert "at the top of its file" in error.value.hint


def leaves(train: TrainingSet, params: Params) -> Pipeline:
    raise SystemExit(0)


def unfitted(train: TrainingSet, params: Params) -> Pipeline:
    return make_pipeline(SimpleImputer(), LogisticRegression(max_iter=200))


def unfitted_trees(train: TrainingSet, params: Params) -> LGBMClassifier:
    return LGBMClassifier()


@pytest.mark.parametrize(
    ("function", "said"),
    [(leaves, "cannot be trained: SystemExit: 0"), (unfitted, "was not fitted"), (unfitted_trees, "was not fitted")],
)
def test_a_function_that_leaves_or_does_not_fit_is_named_with_its_place(toy: Toy, function: Callable[..., object], said: str) -> None:
    with pytest.raises(DefinitionError, match=f"model '{function.__name__}' {said}") as error:
        training.train(toy.ledger, model(toy.built.task)(function), chosen(toy))
    assert "test_sets.py" in error.value.where
    assert [run.status for run in toy.ledger.executions(kind="training run")] == ["failed"]


def test_a_function_logs_into_its_own_run_and_gets_its_seed(toy: Toy) -> None:
    trained = training.train(toy.ledger, model(toy.built.task, seed=41)(logs), chosen(toy))
    assert trained.run.history("loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert trained.run.metrics["seed"] == 41.0


def test_a_declared_model_is_still_a_function(toy: Toy) -> None:
    assert isinstance(model(toy.built.task)(logs)(chosen(toy), {}), Pipeline)


def no_nulls(train: TrainingSet, params: Params) -> LogisticRegression:
    return LogisticRegression(max_iter=200).fit(np.nan_to_num(train.X), train.y)


def test_a_model_that_cannot_serve_is_refused_where_it_is_declared(toy: Toy) -> None:
    with pytest.raises(NoExactForm, match="LogisticRegression fails on recorded rows: ValueError: Input X contains NaN") as error:
        training.train(toy.ledger, model(toy.built.task)(no_nulls), chosen(toy))
    assert "test_sets.py" in error.value.where


def forest(train: TrainingSet, params: Params) -> RandomForestClassifier:
    return RandomForestClassifier(5, random_state=train.seed).fit(np.vstack([train.X, np.full_like(train.X[:1], np.nan)]), [*train.y, 0])


def extreme(train: TrainingSet, params: Params) -> XGBClassifier:
    return XGBClassifier(n_estimators=3, n_jobs=1, random_state=train.seed).fit(train.X, train.y)


@pytest.mark.parametrize("function", [forest, extreme])
def test_trees_of_any_library_are_trained_and_compiled(toy: Toy, function: Callable[..., Any]) -> None:
    train_set = chosen(toy)
    trained = training.train(toy.ledger, model(toy.built.task)(function), train_set)
    given = load_model(toy.ledger, trained.model).predict(train_set.X)
    expected = function(train_set, {}).predict_proba(train_set.X)[:, 1]
    assert np.max(np.abs(given - expected)) <= trained.model.meta["parity"]["tolerance"] <= 1e-6
    assert "gives" not in trained.model.meta["signature"]


def amounts(train: TrainingSet, params: Params) -> Pipeline:
    return make_pipeline(SimpleImputer(), Ridge()).fit(train.X, train.y)


def test_what_is_no_classifier_of_two_classes_is_refused_where_it_is_declared(toy: Toy) -> None:
    with pytest.raises(DefinitionError, match="'amounts' gives a prediction, not a probability") as error:
        training.train(toy.ledger, model(toy.built.task)(amounts), chosen(toy))
    assert "test_sets.py" in error.value.where
    assert [run.status for run in toy.ledger.executions(kind="training run")] == ["failed"]


LOADED = """
import sys
from tidemill.ledger import code_of
def fit(x):
    from lightgbm import LGBMClassifier
    from sklearn.impute import SimpleImputer
    import colorsys
    return LGBMClassifier(x), SimpleImputer(), colorsys
before = code_of(fit)
assert "lightgbm" not in sys.modules
for name in ("lightgbm", "sklearn.impute", "colorsys"):
    __import__(name)
print(before == code_of(fit), sorted(before.libraries))
"""


def test_a_model_is_the_same_before_and_after_its_library_was_loaded() -> None:
    """Otherwise a replay that goes on in a new process would be another one."""
    done = run_python(LOADED)
    assert done.stdout.strip() == "True ['lightgbm', 'sklearn']", done.stderr


def test_a_task_takes_views_and_no_names_of_them(toy: Toy) -> None:
    task = toy.declared.only(Task)
    with pytest.raises(DefinitionError, match=r"task 'late' lists 'history\.mean', which is no feature view") as error:
        replace(task, features=[*task.features, "history.mean"])
    assert "give the view itself" in error.value.hint
