"""Other servers of models, each as its makers have it best for one small model on one core; run by an interpreter that has it.

    PYTHON benchmarks/measure/peer.py mlserver|litserve|bentoml|mlflow lr|rf|hgb MODEL.onnx PORT

LitServe and BentoML run the ONNX file, MLServer (without its pool of workers, requests that come together as one batch) and MLflow
scikit-learn's own model, trained here.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


def trained(model: str) -> Any:
    """The same model as the ONNX file."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, label = load_breast_cancer(return_X_y=True)
    made = {
        "lr": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "rf": RandomForestClassifier(n_estimators=100, random_state=0),
        "hgb": HistGradientBoostingClassifier(random_state=0),
    }
    return made[model].fit(rows, label)


def session() -> Any:
    """Labels of rows by the ONNX file that the environment names."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    found = onnxruntime.InferenceSession(os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"])
    name = found.get_inputs()[0].name
    return lambda rows: found.run(["label"], {name: np.asarray(rows, dtype=np.float32)})[0]


LITSERVE = """
import sys
import litserve
from peer import session

class Api(litserve.LitAPI):
    def setup(self, device):
        self.ask = session()

    def decode_request(self, request):
        return request["x"]

    def predict(self, rows):
        return self.ask(rows)

    def encode_response(self, output):
        return {"y": output.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
"""
BENTO = """
import bentoml, numpy
from peer import session

@bentoml.service(logging={"access": {"enabled": False}})
class Service:
    def __init__(self):
        self.ask = session()

    @bentoml.api
    def predict(self, x: numpy.ndarray) -> numpy.ndarray:
        return self.ask(x)
"""


def main() -> None:
    """Become such a server."""
    name, model, file, port = sys.argv[1:]
    os.environ |= {"MODEL_FILE": file, "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "UVICORN_LOG_LEVEL": "warning"}
    folder = Path(tempfile.mkdtemp(dir=Path(file).parent))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    (folder / "service.py").write_text(LITSERVE if name == "litserve" else BENTO)
    if name == "litserve":
        command = ["python", str(folder / "service.py"), port]
    elif name == "bentoml":
        command = ["bentoml", "serve", "service:Service", "--host", "127.0.0.1", "--port", port, "--working-dir", str(folder)]
    elif name == "mlserver":
        import joblib

        joblib.dump(trained(model), folder / "model.joblib")
        settings: dict[str, Any] = {"debug": False, "host": "127.0.0.1", "http_port": int(port), "parallel_workers": 0}
        settings |= {"grpc_port": int(port) + 1, "metrics_port": int(port) + 2}
        (folder / "settings.json").write_text(json.dumps(settings))
        own = {"name": model, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": str(folder / "model.joblib")}}
        own |= {"max_batch_size": 64, "max_batch_time": 0.001}  # seconds
        (folder / "model-settings.json").write_text(json.dumps(own))
        command = ["mlserver", "start", str(folder)]
    else:
        import mlflow.sklearn

        mlflow.sklearn.save_model(trained(model), str(folder / "model"), serialization_format="cloudpickle")
        command = ["mlflow", "models", "serve", "-m", str(folder / "model"), "-h", "127.0.0.1", "-p", port, "--env-manager", "local"]
    os.execv(BIN / command[0], command)


if __name__ == "__main__":
    main()
