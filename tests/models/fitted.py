"""Fitted models for tests: each with the matrix that it was trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tidemill.core import Floats
from tidemill.models import Signature

CATEGORIES = ("ATL", "BOS", "DEN", "JFK", "LGA", "SFO", "ünï")
SIGNATURE = Signature(("delay", "origin", "hour", "wind", "seen"), {"origin": CATEGORIES})


def matrix(rows: int, seed: int = 0) -> Floats:
    """Numbers with NaN, a category, few distinct values, a column that is mostly NaN."""
    random = np.random.default_rng(seed)
    made = np.column_stack(
        [
            random.normal(10, 30, rows),
            random.integers(0, len(CATEGORIES), rows),
            random.integers(0, 24, rows),
            random.exponential(5, rows).round(1),
            np.where(random.random(rows) < 0.8, np.nan, random.random(rows)),
        ]
    )
    made[random.random(made.shape) < 0.1] = np.nan
    return made


def labels(X: Floats, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    filled = np.nan_to_num(X)
    pull = (
        0.03 * filled[:, 0]
        + 0.5 * np.isin(filled[:, 1], [1, 3])
        + 0.05 * filled[:, 2]
        - 1
        + np.random.default_rng(seed).normal(0, 1, len(X))
    )
    return (pull > 0).astype(np.int64)


def boosted(**params: Any) -> Any:
    """LightGBM as examples/flights trains it."""
    from lightgbm import LGBMClassifier

    X = matrix(3000)
    fixed = {
        "n_estimators": 40,
        "num_leaves": 15,
        "deterministic": True,
        "force_row_wise": True,
        "random_state": 1,
        "n_jobs": 1,
        "verbose": -1,
    }
    fit = {"categorical_feature": params.pop("categorical_feature", SIGNATURE.categorical)}
    return LGBMClassifier(**(fixed | params)).fit(X, labels(X), **fit)


def linear(encoder: dict[str, Any] | None = None, imputer: dict[str, Any] | None = None, numbers: Any = None, final: Any = None) -> Any:
    """A logistic regression as examples/flights trains it."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    X = matrix(3000)
    numbers = numbers or make_pipeline(SimpleImputer(**(imputer or {})), StandardScaler())
    one_hot = OneHotEncoder(**({"handle_unknown": "ignore"} | (encoder or {})))
    columns = make_column_transformer((one_hot, SIGNATURE.categorical), remainder=numbers)
    return make_pipeline(columns, final or LogisticRegression(max_iter=500)).fit(X, labels(X))


def grown() -> Any:
    """A forest of scikit-learn over numbers with missing ones."""
    from sklearn.ensemble import RandomForestClassifier

    X = matrix(1000)
    return RandomForestClassifier(20, random_state=1).fit(X, labels(X))


def hidden() -> Any:
    """LightGBM at the end of a pipeline of scikit-learn."""
    from lightgbm import LGBMClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    X = matrix(1000)
    return make_pipeline(SimpleImputer(), LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)).fit(X, labels(X))


def extreme() -> Any:
    """XGBoost."""
    from xgboost import XGBClassifier

    X = matrix(1000)
    return XGBClassifier(n_estimators=10, n_jobs=1).fit(X, labels(X))


def bare() -> Any:
    """A logistic regression without a pipeline."""
    from sklearn.linear_model import LogisticRegression

    X = np.nan_to_num(matrix(500))
    return LogisticRegression(max_iter=2000).fit(X, labels(X))


EXACT: dict[str, Callable[[], Any]] = {
    "boosted": boosted,
    "boosted without categories": lambda: boosted(categorical_feature=[]),
    "boosted, one leaf": lambda: boosted(min_child_samples=10_000),
    "boosted, one tree": lambda: boosted(n_estimators=1),
    "boosted, deep": lambda: boosted(num_leaves=127, min_child_samples=2, n_estimators=20),
    "boosted, dart": lambda: boosted(boosting_type="dart"),
    "boosted, goss": lambda: boosted(data_sample_strategy="goss"),
    "boosted, another slope": lambda: boosted(sigmoid=2.5),
    "boosted, weights": lambda: boosted(class_weight="balanced", subsample=0.7, subsample_freq=1, colsample_bytree=0.7),
    "boosted, NaN as number": lambda: boosted(use_missing=False),
    "linear": linear,
    "linear, median": lambda: linear(imputer={"strategy": "median"}),
    "linear, rare categories": lambda: linear(encoder={"min_frequency": 400, "handle_unknown": "infrequent_if_exist"}),
    "linear, a dropped category": lambda: linear(encoder={"drop": "first"}),
    "linear, NaN as a category": lambda: linear(encoder={"sparse_output": False}),
}
