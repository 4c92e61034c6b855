"""Examples: every request of a task with its features as known at its prediction time, its label, and when that was known.

Since each row is read at its own time, one table serves every cut-off: a training set is a choice of rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import Array, Bools, Coded, DataError, Floats, Instants, Ref, definition, digest_value, duration, pack, unpack
from tidemill.data import scan
from tidemill.features import CODE as FEATURES_CODE
from tidemill.features import Matrix, Reader, Requests, key_column, load, load_requests
from tidemill.ledger import Artifact, Ledger, Made, Once, own_code
from tidemill.training.declarations import Label, Task

NEVER = 2**62  # a label that is not known yet, and may never be
CODE = (*FEATURES_CODE, "training")


@dataclass(frozen=True)
class Examples:
    """Requests (n), their feature matrix, `label` (n,) 0, 1 or NaN for none, and `resolved` (n,): when that was known."""

    ref: Ref
    requests: Requests
    matrix: Matrix
    label: Floats
    resolved: Instants

    @property
    def at(self) -> Instants:
        """Prediction times (n,), ascending."""
        return self.requests.at

    def known(self, until: int) -> Bools:
        """Rows that a training set with this cut-off may use: asked before it, with a label known by then."""
        return (self.at < until) & (self.resolved <= until) & ~np.isnan(self.label)


def reader(ledger: Ledger, task: Task, views: dict[str, Artifact]) -> Reader:
    """The reader of a task's features over given view versions."""
    logs = {view.name: load(ledger, view, views[view.name]) for view in task.feature_views}
    return Reader(task.features, logs, {name: views[name].ref.digest for name in logs})


def build_examples(
    ledger: Ledger, task: Task, requests: Artifact, views: dict[str, Artifact], labels: Artifact, *, branch: str = ""
) -> Once:
    """The examples of a task over versions of its requests, views and label dataset."""
    chosen = {view.name: views[view.name].ref for view in task.feature_views}
    inputs: dict[str, Any] = {"definition": definition(task), "requests": requests.ref, "views": chosen, "labels": labels.ref}

    def make() -> Made:
        return _make(ledger, task, requests, views, labels)

    return ledger.once("examples", task.name, inputs, make, branch=branch, code=own_code(*CODE))


def _make(ledger: Ledger, task: Task, requests: Artifact, views: dict[str, Artifact], labels: Artifact) -> Made:
    rows = load_requests(ledger, requests)
    matrix = reader(ledger, task, views).read(rows, rows.at)
    label, resolved = _labels(ledger, task.label, labels, rows)
    arrays: dict[str, Array] = {"x": matrix.values, "status": matrix.status, "label": label, "resolved": resolved}
    words = {name: list(vocabulary) for name, vocabulary in matrix.vocabularies.items()}
    meta = {"names": list(matrix.names), "views": list(matrix.views), "vocabularies": words}
    digest = ledger.blobs.put(pack(arrays, meta))
    counts = {
        "rows": len(rows),
        "labelled": int((~np.isnan(label)).sum()),
        "without label": int((np.isnan(label) & (resolved < NEVER)).sum()),
    }
    blobs = {"examples": digest, "requests": requests.blob("requests")}
    recipe = digest_value([[definition(view) for view in task.features], task.predict_at])
    version = Artifact(Ref.of("examples", task.name, digest_value([blobs, recipe])), {"blobs": blobs, "recipe": recipe, **counts})
    return Made({"version": version}, metrics={k: float(v) for k, v in counts.items()})


def _labels(ledger: Ledger, label: Label, version: Artifact, requests: Requests) -> tuple[Floats, Instants]:
    """(label, when it was known) of each request; NaN with a time is "no label", NaN with NEVER is open."""
    columns = {
        "key": key_column(label.dataset, version.meta["types"]),
        "known": ("__known", "instant"),
        "value": (label.expression, "number"),
    }
    raw = scan(ledger, label.dataset, version, columns, "TRUE", source=str(label.where))
    keys, known, value = raw["key"], raw["known"], raw["value"]
    assert isinstance(keys, Coded)
    assert not isinstance(known, Coded)
    assert not isinstance(value, Coded)
    wanted = np.array([text.encode() for text in keys.vocabulary] or [b""])
    place = np.minimum(np.searchsorted(wanted, requests.keys), len(wanted) - 1)
    row_of_code = np.full(len(wanted), -1)
    row_of_code[keys.codes] = np.arange(len(keys))
    row = np.where(wanted[place] == requests.keys, row_of_code[place], -1)
    found = np.where(row >= 0, np.append(value, np.nan)[row], np.nan)
    when = np.where(row >= 0, np.append(known, NEVER)[row], NEVER)
    limit = requests.event + duration(label.none_after) if label.none_after else np.full(len(row), NEVER)
    odd = np.unique(found[~np.isnan(found) & (found != 0) & (found != 1)])
    if len(odd):
        hint = 'make it a condition, for example "amount > 100"'
        raise DataError(f"the label {label.expression!r} has the value {odd[0]:g}; 0 and 1 are known", where=str(label.where), hint=hint)
    late = np.isnan(found) | (when > limit)
    return np.where(late, np.nan, (found > 0).astype(np.float64)), np.where(late, limit, when).astype(np.int64)


def load_examples(ledger: Ledger, version: Artifact) -> Examples:
    """Open stored examples; nothing is copied until it is used."""
    arrays, meta = unpack(ledger.blobs.get(version.blob("examples")))
    requests = load_requests(ledger, Artifact(version.ref, {"blobs": {"requests": version.blob("requests")}}))
    words = {name: tuple(vocabulary) for name, vocabulary in meta["vocabularies"].items()}
    online = np.zeros(len(requests), dtype=bool)
    matrix = Matrix(tuple(meta["names"]), arrays["x"], words, tuple(meta["views"]), arrays["status"], online)
    return Examples(version.ref, requests, matrix, arrays["label"], arrays["resolved"])
