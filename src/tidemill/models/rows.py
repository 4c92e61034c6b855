"""Rows that a user has, a matrix or a frame of pandas or polars, as numbers and back: what a model is asked with, and its ONNX form.

A text is the place of its word among those of the column; words that were never there have places too. Missing is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import Array, DataError, Floats
from tidemill.models.graph import Columns, Graph
from tidemill.models.onnx import DATATYPES, Spec

NEVER = ("never seen", "ne vu ✓", " ")  # words that no column has


@dataclass(frozen=True)
class Column:
    """One column of a frame: its words where it holds texts, and its type in the frame."""

    name: str
    label: Any
    dtype: Any
    missing: Any = None
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Rows:
    """Rows as a matrix (n, f) of numbers, and as they were given; `columns` of a frame, none of a matrix."""

    values: Floats
    own: Any
    columns: tuple[Column, ...] = ()
    kind: str = "numpy"
    dtype: Any = None

    @classmethod
    def of(cls, rows: Any) -> "Rows":
        """Raises DataError for what is neither a matrix of numbers nor a frame of numbers and texts."""
        kind = type(rows).__module__.split(".")[0]
        if kind not in ("pandas", "polars"):
            return cls._matrix(np.asarray(rows))
        found = [_column(label, rows[label], str(label)) for label in rows.columns]
        names = [column.name for column, _ in found]
        if len(set(names)) < len(names) or not names:
            raise DataError("the columns of the frame have no names of their own", available=names, hint="rename them")
        return cls(np.column_stack([values for _, values in found]), rows, tuple(column for column, _ in found), kind)

    @classmethod
    def _matrix(cls, rows: Array) -> "Rows":
        if rows.ndim != 2 or rows.dtype.kind not in "fiub":
            raise DataError(
                f"the rows are {rows.dtype} of shape {rows.shape}", hint="give a matrix of numbers, or a frame of pandas or polars"
            )
        return cls(rows.astype(np.float64), rows, dtype=rows.dtype)

    @property
    def categories(self) -> dict[int, int]:
        """How many words the columns of texts have."""
        return {i: len(column.words) for i, column in enumerate(self.columns) if column.words is not None}

    def _whole(self, i: int) -> bool:
        """The empty text is a word of this column, and none is missing."""
        return "" in (self.columns[i].words or ()) and not np.isnan(self.values[:, i]).any()

    @property
    def blurred(self) -> list[str]:
        """Columns whose empty texts ONNX cannot tell from missing ones."""
        return [one.name for i, one in enumerate(self.columns) if "" in (one.words or ()) and not self._whole(i)]

    def inputs(self, graph: Graph) -> list[Columns]:
        """Append the inputs that take such rows: one for each column of a frame, or `features`."""
        if not self.columns:
            return [graph.matrix("features", self.values.shape[1])]
        return [graph.column(one.name, text=one.words is not None, whole=self._whole(i)) for i, one in enumerate(self.columns)]

    def held(self, values: Floats) -> Floats:
        """Numbers (m, f) with those of a column of booleans cut to these, and without missing texts where the empty one is a word."""
        made = values.copy()
        for i, column in enumerate(self.columns):
            if column.words is not None and self._whole(i):
                made[np.isnan(values[:, i]), i] = column.words.index("")
        for i in range(values.shape[1]):
            if str(self.columns[i].dtype if self.columns else self.dtype).lower().startswith("bool"):
                made[:, i] = np.where(np.isnan(values[:, i]), np.nan, values[:, i] > 0.5)
        return made

    def given(self, values: Floats) -> Any:
        """Numbers (m, f) as the model takes them, each column in its type where that holds them."""
        if not self.columns:
            return _typed(values, self.dtype)
        made = {column.label: _back(column, values[:, i]) for i, column in enumerate(self.columns)}
        if self.kind == "pandas":
            import pandas as pd

            return pd.DataFrame({label: _series(column, made[column.label]) for label, column in zip(made, self.columns, strict=True)})
        import polars as pl

        texts = {column.label: pl.String for column in self.columns if column.words is not None}
        return pl.DataFrame({label: made[label].tolist() if label in texts else made[label] for label in made}, schema_overrides=texts)

    def tensors(self, values: Floats, takes: Mapping[str, Spec]) -> dict[str, Array]:
        """Numbers (m, f) as the inputs of an ONNX file: its only one, or one (m, 1) for each column."""
        if not self.columns:
            (one,) = takes.values()
            return {one.name: _cast(values, one)}
        return {
            column.name: _cast(values[:, i : i + 1], takes[column.name]) if column.words is None else _texts(column, values[:, i : i + 1])
            for i, column in enumerate(self.columns)
            if column.name in takes
        }


def _column(label: Any, series: Any, name: str) -> tuple[Column, Floats]:
    dtype, pandas = series.dtype, hasattr(series, "isna")
    if pandas and getattr(dtype, "kind", "O") in "fiub":
        return Column(name, label, dtype), np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = np.asarray(series.to_numpy())
    if values.dtype.kind in "fiub":
        return Column(name, label, dtype), values.astype(np.float64)
    words = values.astype(object)
    missing = np.asarray(series.isna().to_numpy() if pandas else [one is None for one in words], dtype=bool)
    others = sorted({type(one).__name__ for one in words[~missing]} - {"str"})
    if others:
        hint = "make it numbers, or texts only"
        raise DataError(f"column {name!r} holds {', '.join(others)}, which is neither number nor text", hint=hint)
    known = np.unique(words[~missing].astype(str))
    codes = np.full(len(words), np.nan)
    codes[~missing] = np.searchsorted(known, words[~missing].astype(str))
    mark = words[missing][0] if missing.any() else np.nan if pandas else None
    return Column(name, label, dtype, mark, tuple(str(word) for word in known)), codes


def _typed(values: Floats, dtype: Any) -> Array:
    """Values in a type of numpy where it holds them, else as doubles."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(dtype)
    return cast if np.array_equal(cast.astype(np.float64), values, equal_nan=True) else values


def _back(column: Column, codes: Floats) -> Array:
    """A column (m,) as the frame had it."""
    if column.words is None:
        numeric = isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub"
        return _typed(codes, column.dtype) if numeric else codes
    found = _texts(column, codes)
    found[np.isnan(codes)] = column.missing
    return found


def _texts(column: Column, codes: Floats) -> Array:
    """The words of places; a missing one is empty."""
    assert column.words is not None
    known = len(column.words)
    every = np.array([*column.words, *NEVER, ""], dtype=object)
    places = np.where((codes >= 0) & (codes < known), codes, known + np.mod(np.nan_to_num(codes), len(NEVER)))
    return every[np.where(np.isnan(codes), len(every) - 1, places).astype(np.int64)]


def _series(column: Column, values: Array) -> Any:
    import pandas as pd

    if column.words is None:
        return values
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = list(column.dtype.categories)
        return pd.Categorical(values, categories=[*known, *(word for word in NEVER if word not in known)])
    return pd.Series(values, dtype=column.dtype)


def _cast(values: Floats, spec: Spec) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(values.astype(DATATYPES[spec.datatype]))
