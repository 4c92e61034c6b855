"""Training sets: the examples that a cut-off allows, as a matrix that scikit-learn, LightGBM and XGBoost take as it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import Coded, DataError, Floats, Instants, Ints, MissingExtra, Ref, canonical, digest_bytes, show
from tidemill.ledger import Artifact, Ledger, Made, own_code
from tidemill.models import Signature
from tidemill.training.examples import CODE, Examples


@dataclass(frozen=True)
class TrainingSet:
    """`X` (rows, features) float64, categories as codes, missing and unseen as NaN; `y` (rows,) 0 or 1; `at` (rows,) prediction times.
    `until` is the knowledge cut-off.

    `signature` holds the names and the vocabularies, which are of these rows only. `log_metric(key, value, step)` belongs to
    the run that trains on it.
    """

    ref: Ref
    X: Floats
    y: Ints
    at: Instants
    signature: Signature
    until: int = 0
    seed: int = 0
    log_metric: Callable[..., None] = field(default=lambda key, value, step=0: None)

    def __repr__(self) -> str:
        rows, features = self.X.shape
        return (
            f"TrainingSet({self.ref}, {rows:,} rows × {features} features, {int(self.y.sum()):,} positive, known until {show(self.until)})"
        )

    @property
    def categorical(self) -> list[int]:
        """Positions of the columns that are categories."""
        return self.signature.categorical

    def columns(self) -> dict[str, Any]:
        """Columns by name: prediction time, features (categories as text) and label."""
        found: dict[str, Any] = {"predict_at": self.at.astype("datetime64[us]")}
        for i, name in enumerate(self.signature.features):
            words = self.signature.categories.get(name)
            found[name] = self.X[:, i] if words is None else _texts(self.X[:, i], words)
        return found | {"label": self.y}

    def frame(self) -> Any:
        """A frame with names: pandas, or polars where only that is installed. Raises MissingExtra without either."""
        try:
            import pandas as pd

            return pd.DataFrame(self.columns())
        except ImportError:
            try:
                import polars as pl
            except ImportError as error:
                raise MissingExtra("a frame needs pandas or polars", hint="pip install pandas") from error
            return pl.DataFrame(self.columns())


def _texts(codes: Floats, words: tuple[str, ...]) -> Any:
    return np.array([words[int(code)] if code == code else None for code in codes], dtype=object)


def training_set(ledger: Ledger, examples: Examples, until: int, *, branch: str = "") -> TrainingSet:
    """The training set of a knowledge cut-off (microseconds UTC), recorded with its lineage. Raises DataError when it has no rows."""
    rows = np.flatnonzero(examples.known(until))
    if not len(rows):
        raise DataError(f"no labelled example was known by {show(until)}", where=str(examples.ref), hint="choose a later time")
    found, signature = _matrix(examples, rows)
    label = examples.label[rows].astype(np.int64)

    def make() -> Made:
        spelled = canonical({"features": signature.features, "categories": signature.categories})  # codes mean nothing without their words
        digest = digest_bytes(found.tobytes(), label.tobytes(), examples.at[rows].tobytes(), spelled)
        meta = {"until": until, "rows": len(rows), "positives": int(label.sum()), "examples": str(examples.ref)}
        return Made({"set": Artifact(Ref.of("training set", examples.ref.name, digest), meta)}, metrics={"rows": float(len(rows))})

    inputs = {"examples": examples.ref, "until": until}
    once = ledger.once("training set", examples.ref.name, inputs, make, branch=branch, code=own_code(*CODE))
    return TrainingSet(once.output.ref, found, label, examples.at[rows], signature, until)


def _matrix(examples: Examples, rows: Any) -> tuple[Floats, Signature]:
    """The rows' values with categories coded by the vocabulary of these rows alone."""
    matrix = examples.matrix
    found = matrix.values[rows]
    categories = {}
    for i, name in enumerate(matrix.names):
        if name in matrix.vocabularies:
            codes = np.where(np.isnan(found[:, i]), -1, found[:, i]).astype(np.int32)
            used = np.unique(codes[codes >= 0])
            categories[name] = tuple(matrix.vocabularies[name][code] for code in used.tolist())
            coded = Coded(codes, matrix.vocabularies[name]).to(categories[name])
            found[:, i] = np.where(coded >= 0, coded, np.nan)
    return found, Signature(matrix.names, categories)
