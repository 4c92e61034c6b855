"""A version of the loop as an MLflow model directory: the compiled ONNX with signature, input example and requirements. No pickle.

MLflow's `onnx` and `python_function` flavors load it. Its columns are the model's features; a category is the code of its word, as
`metadata.tidemill.categories` in `MLmodel` lists them, and what is missing or unseen is NaN. A version that has no compiled form has its
original, under a flavor that no client of MLflow loads: who does that by hand knows what it is.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from tidemill.core import Ref
from tidemill.ledger import Artifact, Execution, Ledger
from tidemill.models import golden_of, signature_of, why_isolated

DATA, EXAMPLE = "model.onnx", "input_example.json"
NEEDED = ("onnx", "onnxruntime", "numpy")
FORMAT = "2.22.0"  # the version of MLflow whose model directories these are


def mlflow_model(ledger: Ledger, artifact: Artifact, *, label: str, run_id: str, at: int, tags: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a version by name, `MLmodel` last. `at` is when it was made (microseconds UTC); `tags` go into its metadata."""
    libraries = _libraries(ledger, made_by(ledger, artifact.ref))
    python = libraries.pop("python", "3.11")
    kept, blobs = why_isolated(artifact), artifact.meta["blobs"]
    needed = [name for name in kept["libraries"] if name != "python"] if kept else NEEDED
    requirements = ["mlflow", *(f"{name}=={libraries[name]}" if name in libraries else name for name in needed)]
    data = f"original.{kept['format']}" if kept else DATA
    own = bytes(ledger.blobs.get(blobs["original" if kept else "onnx"]))
    sources = {"sources.json": bytes(ledger.blobs.get(blobs["sources"]))} if "sources" in blobs else {}
    return {
        data: own,
        **sources,
        EXAMPLE: _json(_example(ledger, artifact)),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "python_env.yaml": _json({"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}),
        "conda.yaml": _json(
            {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", {"pip": requirements}]}
        ),
        "MLmodel": _json(
            {
                "flavors": {"tidemill": {"data": data, **kept}} if kept else _flavors(libraries, python),
                "metadata": {"tidemill": {"version": label, "categories": artifact.meta["signature"]["categories"], **tags}},
                "mlflow_version": FORMAT,
                "model_size_bytes": len(own),
                "model_uuid": artifact.ref.digest[:32],
                "run_id": run_id,
                "saved_input_example_info": {"artifact_path": EXAMPLE, "pandas_orient": "split", "type": "dataframe"},
                "signature": _signature(artifact),
                "utc_time_created": str(datetime.fromtimestamp(at / 1e6, UTC).replace(tzinfo=None)),
            }
        ),
    }


def _flavors(libraries: Mapping[str, str], python: str) -> dict[str, Any]:
    environment = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    own = {"code": None, "data": DATA, "onnx_version": libraries.get("onnx", ""), "providers": ["CPUExecutionProvider"]}
    return {
        "onnx": own,
        "python_function": {"loader_module": "mlflow.onnx", "data": DATA, "env": environment, "python_version": python},
    }


def _signature(artifact: Artifact) -> dict[str, Any]:
    found = signature_of(artifact)
    inputs = [{"type": "double", "name": name, "required": True} for name in found.features]
    outputs = [{"type": "double", "name": found.output, "required": True}]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def _example(ledger: Ledger, artifact: Artifact) -> dict[str, Any]:
    """The golden cases' inputs, the first five."""
    rows = golden_of(ledger, artifact).features[:5]
    values = [[None if np.isnan(value) else value for value in row] for row in rows.tolist()]
    return {"columns": list(signature_of(artifact).features), "data": values}


def made_by(ledger: Ledger, ref: Ref) -> Execution | None:
    """The newest execution that made a thing."""
    newest = max((edge.execution for edge in ledger.parents(ref)), default=0)
    return ledger.execution(newest) if newest else None


def _libraries(ledger: Ledger, made: Execution | None) -> dict[str, str]:
    return environment_of(ledger, made.environment) if made else {}


def environment_of(ledger: Ledger, digest: str) -> dict[str, str]:
    """Versions by package of an environment that the ledger keeps, `python` among them; empty when it is not stored."""
    if not ledger.blobs.has(digest):
        return {}
    plain = msgspec.json.decode(ledger.blobs.get(digest))
    pairs = (line.partition("==") for line in plain["lock"])
    return {"python": plain["python"], **{name: version for name, _, version in pairs}}


def _json(value: Any) -> bytes:
    """JSON, which is YAML too."""
    return json.dumps(value, indent=2).encode() + b"\n"
