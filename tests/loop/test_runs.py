"""What the loop trains stands among the runs of an experiment, as what MLflow's clients log does."""

from tidemill.ledger import Branch
from tidemill.tracking.experiments import get_experiment_by_name
from tidemill.tracking.metrics import history
from tidemill.tracking.search import search_runs
from toy import Toy


def test_every_training_is_a_run_of_the_experiment_of_its_model(replayed: tuple[Toy, Branch]) -> None:
    toy, branch = replayed
    experiment = get_experiment_by_name(toy.ledger, "trees")
    runs, _ = search_runs(toy.ledger, [experiment.experiment_id], order_by=["start_time ASC"])
    trained = toy.ledger.executions(kind="training run")
    assert len(runs) == len(trained) == branch.result["cost"]["trainings"]
    first = runs[0]
    assert (first.info.status, first.info.run_name) == ("FINISHED", "trees")
    assert {one.key: one.value for one in first.data.params or ()}["num_leaves"] == "7"
    metrics = {one.key: one.value for one in first.data.metrics or ()}
    assert metrics["rounds"] == 30
    assert history(toy.ledger, first.info.run_id, "rows")[0][0].value == metrics["rows"]
    rows = sorted(one.value for run in runs for one in run.data.metrics or () if one.key == "rows")
    found, _ = search_runs(toy.ledger, [experiment.experiment_id], f"metrics.rows > {rows[0]}")
    assert len(found) == sum(one > rows[0] for one in rows) > 0
