"""Training with PyTorch and Lightning, logged by MLflow's client. Runs in an environment of its own, which `scripts/mlflow-torch` makes."""

import tempfile
import warnings
from typing import Any

import lightning
import mlflow.pytorch
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from scenarios import _new

torch.set_num_threads(1)
warnings.filterwarnings("ignore", module="lightning")
ROWS = torch.linspace(0, 1, 64).reshape(32, 2)


class _Line(lightning.LightningModule):
    """A line through the sums of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, rows: Any) -> Any:
        return self.layer(rows)

    def training_step(self, batch: Any, number: int) -> Any:
        loss = torch.nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("val_loss", torch.nn.functional.mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def a_training_with_autologging_and_its_model() -> None:
    client, net = MlflowClient(), _Line()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ROWS, ROWS.sum(1, keepdim=True)), batch_size=8)
    mlflow.pytorch.autolog(checkpoint=True, checkpoint_monitor="val_loss", checkpoint_save_best_only=False)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as active:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "default_root_dir": folder}
        lightning.Trainer(max_epochs=3, accelerator="cpu", **quiet).fit(net, data, data)
    mlflow.pytorch.autolog(disable=True)
    run_id = active.info.run_id
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert {"epochs": "3", "lr": "0.05", "optimizer_name": "Adam"}.items() <= found.data.params.items()
    for name in ("loss", "val_loss"):
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == [0, 1, 2], name
        assert found.data.metrics[name] == history[-1].value
    assert {"model_summary.txt", "checkpoints"} <= {file.path for file in client.list_artifacts(run_id)}
    assert len(client.list_artifacts(run_id, "checkpoints/epoch_2")) == 2
    (logged,) = found.outputs.model_outputs
    assert client.get_logged_model(logged.model_id).source_run_id == run_id
    assert torch.equal(mlflow.pytorch.load_model(f"models:/{logged.model_id}")(ROWS), net(ROWS))
    _registers(client, net)


def _registers(client: MlflowClient, net: _Line) -> None:
    name = _new("line")
    kinds = [Schema([TensorSpec(np.dtype(np.float32), (-1, width))]) for width in (2, 1)]
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            net, name="net", signature=ModelSignature(*kinds), input_example=ROWS[:2].numpy(), registered_model_name=name
        )
    client.set_registered_model_alias(name, "champion", "1")
    found = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(ROWS.numpy())
    assert np.allclose(found, net(ROWS).detach().numpy())
