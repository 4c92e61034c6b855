"""Tensors of the inference protocol as feature rows: the whole matrix, a tensor for each feature, or a matrix with some columns in place of
its own. Checked as rows of JSON are, with the path of the fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

from tidemill.core import Array, DataError, Floats
from tidemill.features import Matrix
from tidemill.models import Signature, Spec
from tidemill.serving.oip import Asked, as_spec, named

MATRIX = "features"
DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True)
class Tensors:
    """How they are read for a model of this `signature`. Texts of the request's `keys` may come beside, each as a tensor by its name."""

    signature: Signature
    keys: Sequence[str] = ()

    @cached_property
    def specs(self) -> dict[str, Spec]:
        """What may come: the matrix in the order of the model, categories as codes of its vocabulary; or each feature by its name."""
        kinds = {name: "BYTES" if name in self.signature.categories else "FP64" for name in self.signature.features}
        columns = {name: Spec(name, kind, (-1,)) for name, kind in kinds.items()}
        return columns | {MATRIX: Spec(MATRIX, "FP64", (-1, len(kinds)))}

    def matrix(self, asked: Asked) -> tuple[Matrix, list[dict[str, Any]]]:
        """The features (n, f), and of each row the parts of its key that came. Raises DataError for a feature that did not come, a
        tensor that is none, another type or shape, and a code that the vocabulary lacks."""
        known, given = self.specs, asked.tensors
        if [*given] == [MATRIX]:
            values = as_spec(given[MATRIX], known[MATRIX])
            beside = [dict[str, Any]() for _ in range(len(values))]
        else:
            given = given if given.keys() <= self._known.keys() else named(given, self._known)
            values, beside = self._columns(given), _rows({key: given[key] for key in self.keys if key in given and key not in known})
            beside = beside or [{} for _ in range(len(values))]
            if len(beside) != len(values):
                raise DataError(f"{len(beside)} keys came for {len(values)} rows", where="inputs", hint="send as many of each")
        self._check_codes(values)
        nothing, offline = np.empty((len(values), 0), np.uint8), np.zeros(len(values), dtype=bool)
        return Matrix(self.signature.features, values, self.signature.categories, (), nothing, offline), beside

    def examples(self, matrix: Matrix) -> dict[str, list[dict[str, Any]]]:
        """The first row of features as a request may have them."""
        values = self.signature.align(matrix.names, matrix.values, matrix.vocabularies)[0].tolist()
        row = [value if isfinite(value) else None for value in values]
        words = self.signature.categories
        people = [
            words[name][int(value)] if name in words and value is not None else value
            for name, value in zip(self.signature.features, row, strict=True)
        ]
        columns = [
            {"name": name, "shape": [1], "datatype": self.specs[name].datatype, "data": [value]}
            for name, value in zip(self.signature.features, people, strict=True)
        ]
        whole = {"name": MATRIX, "shape": [1, len(row)], "datatype": "FP64", "data": row}
        return {"a tensor for each feature": columns, "the matrix of features, categories as codes": [whole]}

    @cached_property
    def _known(self) -> dict[str, Spec]:
        """With what may come beside."""
        return {key: Spec(key, "BYTES", (-1,)) for key in self.keys} | self.specs

    def _columns(self, given: Mapping[str, Array]) -> Floats:
        """One tensor for each feature, in place of a column of the matrix where that came too."""
        features = self.signature.features
        found = [(place, name, self._column(name, given[name])) for place, name in enumerate(features) if name in given]
        if MATRIX not in given and len(found) < len(features):
            lacks, hint = next(name for name in features if name not in given), f"send all features, or the whole matrix as {MATRIX!r}"
            raise DataError(f"the feature {lacks!r} is missing", where="inputs", available=list(features), hint=hint)
        matrix = as_spec(given[MATRIX], self.specs[MATRIX]) if MATRIX in given else None
        values = np.empty((len(found[0][2]), len(features))) if matrix is None else matrix.copy()
        for place, name, column in found:
            if len(column) != len(values):
                what = f"the tensors have different numbers of rows: {name!r} has {len(column)}, others {len(values)}"
                raise DataError(what, where="inputs", hint="send as many of each")
            values[:, place] = column
        return values

    def _column(self, name: str, array: Array) -> Any:
        if array.ndim == 1 and array.dtype == DOUBLE and name not in self._codes:
            return array
        flat = array.ravel() if array.shape[1:] == (1,) else array
        column = as_spec(flat, self.specs[name])
        codes = self._codes.get(name)
        return column if codes is None else [codes.get(text, np.nan) for text in column.tolist()]

    def _check_codes(self, values: Floats) -> None:
        for place, many in self._sizes:
            for row, code in enumerate(values[:, place].tolist()):
                if code == code and not (0 <= code < many and code.is_integer()):  # NaN is not itself
                    name = self.signature.features[place]
                    what = f"{name} has the code {code:g}; its vocabulary has {many} texts, the first is 0"
                    hint = f"send null for a text that the model does not know, or texts as the tensor {name!r}"
                    raise DataError(what, where=f"inputs, row {row}", hint=hint)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        names = self.signature.features
        return [(place, len(self.signature.categories[names[place]])) for place in self.signature.categorical]

    @cached_property
    def _codes(self) -> Mapping[str, Mapping[str, float]]:
        """The number of each word of a category."""
        return {name: {word: float(code) for code, word in enumerate(words)} for name, words in self.signature.categories.items()}


def _rows(columns: Mapping[str, Array]) -> list[dict[str, Any]]:
    """What stands beside the features, of each row."""
    if not columns:
        return []
    sizes = {array.size for array in columns.values()}
    if len(sizes) > 1:
        raise DataError("the parts of the key have different numbers of rows", where="inputs", hint="send as many of each")
    return [dict(zip(columns, row, strict=True)) for row in zip(*(array.ravel().tolist() for array in columns.values()), strict=True)]
