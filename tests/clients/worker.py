"""Runs scenarios with the real client, in the client's own environment: a name on standard input, its outcome on standard output."""

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
sys.path[:] = [str(Path(__file__).parent), *sys.path, *sys.argv[1:]]  # what is installed elsewhere comes last
out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is not an outcome

import scenarios  # noqa: E402
from mlflow.utils import requirements_utils  # noqa: E402

# What a model of a kind imports is looked up in a new Python of its own, which takes ten seconds and asks no server.
requirements_utils._capture_imported_modules = lambda uri, flavor, *rest, **more: [flavor, "cloudpickle", "numpy", "pandas"]

for line in sys.stdin:
    asked = json.loads(line)
    try:
        scenarios.run(asked["scenario"], asked["uri"], import_module(asked["module"]))
        error = ""
    except BaseException:  # noqa: BLE001 – a failed assertion is an outcome
        error = traceback.format_exc()
    out.write(json.dumps({"error": error}) + "\n")
    out.flush()
