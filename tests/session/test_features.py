"""Features of a user's rows are those that the loop trains on, for every view of a task, a composite key among them."""

import shutil
from pathlib import Path

import numpy as np

import tidemill
from tidemill import loop
from tidemill.training import Task

PAIR = """pair = tm.Entity("depot-courier", key=["depot", "courier"])
pair_last = tm.FeatureView("pair_last", deliveries, entity=pair, ttl="5d", features={"late": tm.last("late")})
late = tm.Task("""


def test_rows_get_what_a_task_is_trained_on(parcels: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(parcels, tmp_path / "parcels")
    declared = next(file for file in folder.glob("*.py") if "late = tm.Task(" in file.read_text())
    text = declared.read_text().replace("late = tm.Task(", PAIR, 1).replace("courier_last],", "courier_last, pair_last],", 1)
    declared.write_text(text)
    session = tidemill.open(folder)
    task = session.project.get(Task, "late")
    with session.project.writing("test") as ledger:
        examples = loop.build(loop.prepare(ledger), task).examples
    requests, matrix = examples.requests, examples.matrix
    rows = {name: np.array(requests.texts[name].texts(), dtype=object) for name in ("depot", "courier")}
    rows["asked"] = requests.at.astype("datetime64[us]")
    views = [view.name for view in task.feature_views]
    found = session.historical_features(rows, views, at="asked", timezone="UTC", status=True)
    assert len(requests) > 1_000
    for name, column in found.columns.items():
        if not name.endswith("__status"):
            assert column.tobytes() == np.ascontiguousarray(matrix.values[:, matrix.names.index(name)]).tobytes(), name
    assert found.report.statuses["pair_last"]["present"] > 100
    assert found.report.statuses["pair_last"]["unknown"] >= sum(courier is None for courier in rows["courier"]) > 0
