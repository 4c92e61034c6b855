"""A version that a client of MLflow registered as ONNX, made a model of the ledger, to which a feature can be bound: without pickle."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tidemill.core import DataError, Ref, UnknownName
from tidemill.features import SAVED
from tidemill.ledger import Artifact, Ledger
from tidemill.models import read_onnx, store_onnx, whole_onnx
from tidemill.registry.files import download_uri
from tidemill.registry.history import named_version
from tidemill.registry.values import ModelVersion
from tidemill.tracking import find_file, get_run, parse_yaml, place_of

REGISTERED = "registered model"
LOG = "log it with mlflow.onnx.log_model (of scikit-learn, skl2onnx makes ONNX; of PyTorch, torch.onnx.export)"


def adopt(ledger: Ledger, text: str, *, output: str = "", features: Sequence[str] = ()) -> Artifact:
    """The model that a version is (`models:/embedder/2`, `embedder@champion`): one of the loop as it is; of a client's its ONNX, checked
    and recorded with where it comes from. `features` names what it takes, in its order, and `output` what is taken of several. Raises
    UnknownName, and DataError for what is no ONNX of one matrix."""
    version = named_version(ledger, text)
    digest = next((tag.value for tag in version.tags or () if tag.key == "tidemill.digest"), "")
    if digest:
        return ledger.artifact_of("model", digest)
    try:
        onnx, told = onnx_of(ledger, version)
        signature = read_onnx(onnx, names=features or _names(told), categories=_categories(told), output=output)
    except DataError as error:
        error.what = f"{version.name}/{version.version} cannot be adopted: {error.what}"
        raise
    found = store_onnx(ledger, version.name, onnx, signature)
    ledger.put_artifact(found, {"adopted": Ref(REGISTERED, version.name, version.version), **_read_by(ledger, version)})
    return found


def onnx_of(ledger: Ledger, version: ModelVersion) -> tuple[bytes, Mapping[str, Any]]:
    """The ONNX that a client registered, in one piece, and what its MLmodel says. Raises DataError for what is none."""
    root = place_of(download_uri(ledger, version.name, version.version))
    told = _told(ledger, root)
    file = _onnx_file(root, told, f"{version.name}/{version.version}")
    folder = file.rpartition("/")[0]
    return whole_onnx(_read(ledger, file), lambda name: _read(ledger, f"{folder}/{name}")), told


def _read_by(ledger: Ledger, version: ModelVersion) -> dict[str, Ref]:
    """What the run of a version read of this project, which tells what its model can have learned from."""
    found = dict[str, Ref]()
    with suppress(UnknownName):  # the run was never here, or what it read
        for one in (get_run(ledger, version.run_id).inputs.dataset_inputs or ()) if version.run_id else ():
            kind = one.dataset.source.partition(":")[0] if one.dataset and one.dataset.source else ""
            if one.dataset and kind in ("training set", SAVED):
                found[f"learned from {one.dataset.name}"] = ledger.artifact_of(kind, one.dataset.digest).ref
    return found


def adopted(ledger: Ledger, version: ModelVersion) -> list[Ref]:
    """The models that a version was adopted as."""
    edges = ledger.children(Ref(REGISTERED, version.name, version.version))
    return [ledger.artifact(Ref.parse(edge.child)).ref for edge in edges if edge.child.startswith("model:")]


def _read(ledger: Ledger, path: str) -> bytes:
    try:
        return bytes(ledger.blobs.get(find_file(ledger, path)[0]))
    except UnknownName as error:
        raise DataError(f"its file {path.rpartition('/')[2]!r} is not here", where=path, hint="log it again") from error


def _told(ledger: Ledger, root: str) -> Mapping[str, Any]:
    """What the file MLmodel says; nothing where a version is one file."""
    try:
        digest, _ = find_file(ledger, f"{root}/MLmodel")
    except UnknownName:
        return {}
    return parse_yaml(bytes(ledger.blobs.get(digest)), f"{root}/MLmodel")


def _onnx_file(root: str, told: Mapping[str, Any], label: str) -> str:
    """Where the ONNX of a version lies."""
    flavors = told.get("flavors")
    own = flavors.get("onnx") if isinstance(flavors, Mapping) else None
    data = own.get("data") if isinstance(own, Mapping) else None
    if isinstance(data, str) and data:
        return f"{root}/{data}"
    if not told and root.endswith(".onnx"):
        return root
    kinds = sorted(map(str, flavors)) if isinstance(flavors, Mapping) else []
    what = f"its flavors are {', '.join(kinds)}" if kinds else "it has no MLmodel that names one"
    raise DataError(f"it is no ONNX model: {what}", where=label, hint=f"a pickle is never loaded here: {LOG}")


def _names(told: Mapping[str, Any]) -> list[str]:
    """The names of the columns that its signature has; none of one of tensors."""
    signature = told.get("signature")
    inputs = signature.get("inputs") if isinstance(signature, Mapping) else None
    try:
        columns = json.loads(inputs) if isinstance(inputs, str) else []
    except ValueError:
        return []
    names = [one.get("name") for one in columns if isinstance(one, Mapping) and one.get("type") != "tensor"]
    return [str(name) for name in names] if None not in names else []


def _categories(told: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The vocabularies that a model of another ledger brings."""
    found: Any = told
    for name in ("metadata", "tidemill", "categories"):
        found = found.get(name) if isinstance(found, Mapping) else None
    whole = isinstance(found, Mapping) and all(isinstance(own, list) and all(isinstance(w, str) for w in own) for own in found.values())
    return found if whole else {}
