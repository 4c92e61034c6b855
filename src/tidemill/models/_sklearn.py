"""scikit-learn → ONNX in double precision: pipelines of the steps and models that have an exact form, and their safe format.

Written out here since the public converter is single precision, and in several cases silently wrong.
"""

import io
import json
import zipfile
from typing import Any

import numpy as np

from tidemill.core import Floats, MissingExtra
from tidemill.models._sklearn_models import answered
from tidemill.models.graph import Answer, Columns, Graph


def build(graph: Graph, model: Any, given: list[Columns]) -> Answer:
    """Nodes of a fitted model, or of a pipeline of steps that ends in one."""
    return answered(graph, model, given)


def classes(model: Any) -> tuple[Any, ...]:
    """The classes in the order of their scores; none of a regression."""
    return tuple(getattr(model, "classes_", ()))


def native(model: Any) -> bytes:
    """The skops format: no pickle. Equal models give equal bytes."""
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops is not installed", hint="pip install 'tidemill[sklearn]'") from error
    return _without_addresses(skops.io.dumps(model))


def _without_addresses(archive: bytes) -> bytes:
    """A skops archive with objects numbered in their order (skops writes memory addresses) and files without times."""
    with zipfile.ZipFile(io.BytesIO(archive)) as before:
        files = {name: before.read(name) for name in before.namelist()}
    schema = json.loads(files.pop("schema.json"))
    names: dict[str, str] = {}
    _number(schema, {}, names)
    renamed = {names[name]: data for name, data in files.items()}
    after = io.BytesIO()
    with zipfile.ZipFile(after, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(renamed):
            made.writestr(zipfile.ZipInfo(name), renamed[name])
        made.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema, indent=2))
    return after.getvalue()


def _number(node: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            suffix = node["file"].rpartition(".")[2]
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1}.{suffix}")
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _number(part, numbers, names)


def score(model: Any, features: Any) -> Floats:
    """The library's own scores (n, k): the probability of the second of two classes, or of each of several, or what a classifier without
    probabilities decides by; the prediction of a regression."""
    if not hasattr(model, "predict_proba"):
        ask = model.decision_function if hasattr(model, "classes_") else model.predict
        return np.asarray(ask(features), dtype=np.float64).reshape(len(features), -1)
    found = np.asarray(model.predict_proba(features), dtype=np.float64)
    return found[:, 1:] if found.shape[1] == 2 else found


def rounds(model: Any) -> int:
    """Passes over the data or trees, as the model counts them; 1 of one that does not."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    for name in ("n_iter_", "n_estimators_", "n_estimators"):
        if getattr(last, name, None) is not None:
            return int(np.max(getattr(last, name)))
    return 1
