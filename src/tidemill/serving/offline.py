"""The features of logged answers, computed again from the ledger alone: without an online store, as known at each answer's time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import DataError, DefinitionError, Ref
from tidemill.features import Function, Matrix, OwnColumns, Requests
from tidemill.ledger import Ledger
from tidemill.models import load_model
from tidemill.serving.answers import inputs_of
from tidemill.serving.given import Given
from tidemill.serving.log import Logged
from tidemill.serving.rows import open_rows


@dataclass(frozen=True)
class Recomputed:
    """The features of one answer, as `Logged` has them: each value by name, and the views without one."""

    inputs: dict[str, Any]
    missing: dict[str, str]

    @classmethod
    def of(cls, matrix: Matrix, row: int) -> "Recomputed":
        return cls(inputs_of(matrix, row), matrix.problems(row))


def recompute(
    ledger: Ledger, recipe: Mapping[str, Any], rows: Sequence[Logged], functions: Sequence[Function] = ()
) -> list[Recomputed | None]:
    """The features of logged answers by a recipe; None of one whose key the recipe's requests do not hold, or whose own columns they cannot
    take. Raises UnknownName, MissingFile and Damaged where something that the recipe names is gone."""
    opened = open_rows(ledger, recipe, functions=functions)
    reader, requests = opened.reader, opened.known
    at, found = np.array([row.at_us for row in rows], dtype=np.int64), list[Recomputed | None]([None] * len(rows))
    held = np.array([-1 if row.sent is not None else requests.find(row.key) for row in rows], dtype=np.int64)
    known = np.flatnonzero(held >= 0)
    if len(known):
        matrix = reader.read(requests.take(held[known]), at[known])
        for i, place in enumerate(known.tolist()):
            found[place] = Recomputed.of(matrix, i)
    sent = [(place, row.sent) for place, row in enumerate(rows) if row.sent is not None]
    for place, columns in sent:
        asked = _asked(opened.own, columns)
        found[place] = Recomputed.of(reader.read(asked, at[[place]]), 0) if asked else None
    return found


def _asked(own: OwnColumns, columns: Mapping[str, Any]) -> Requests | None:
    try:
        return own.requests([columns])
    except (DataError, DefinitionError):  # its columns, or a function on them, are others today
        return None


def score_again(ledger: Ledger, model: Ref, inputs: Mapping[str, Any]) -> float:
    """What a model says to features as the log has them. Raises DataError where they are not those of the model, UnknownName, MissingFile
    and Damaged where it is gone."""
    predictor = load_model(ledger, ledger.artifact(model))
    matrix = Given(predictor.signature).matrix([inputs], [0])
    return float(predictor.predict(matrix.values)[0])
