"""PyTorch's autologging, and a model that PyTorch wrote, against the tracking server. `scripts/mlflow-torch` makes the environment."""

import pytest

from clients.conftest import ROOT, worker

pytestmark = pytest.mark.torture
PYTHON = ROOT / ".venv-mlflow-torch" / "bin" / "python"


def test_pytorch_logs_by_itself_and_its_models_come_back(server: str) -> None:
    if not (PYTHON.parents[1] / ".ready").exists():
        pytest.skip("PyTorch is not installed: `scripts/mlflow-torch` installs it into .venv-mlflow-torch, where it can be had")
    for run in worker(PYTHON):
        run("torch_scenarios", "a_training_with_autologging_and_its_model", server)
