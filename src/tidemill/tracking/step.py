"""A run that this process makes itself: a step of the pipeline as a run of an experiment, open for logging while it runs."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidemill.core import DataError
from tidemill.ledger import Execution, Ledger
from tidemill.tracking.experiments import below, ensure_default, experiment_named
from tidemill.tracking.limits import PARAM_VALUE, check_metric
from tidemill.tracking.metrics import put_metrics, remember
from tidemill.tracking.schema import tables
from tidemill.tracking.values import Metric


def prepare(ledger: Ledger) -> None:
    """Make the tables and experiment 0 where they are not there yet."""
    ledger.records.ensure(tables)
    ensure_default(ledger)


def track(ledger: Ledger, execution: int, experiment: str, name: str) -> "Run":
    """Make a run of an experiment (made where it is not there yet) of an execution of the ledger."""
    uid = uuid.uuid4().hex
    with ledger.records.transaction() as sql:
        number = experiment_named(ledger, sql, experiment)
        started = sql.one("SELECT started_at FROM execution WHERE id = ?", (execution,))
        location = sql.one("SELECT location FROM experiment WHERE id = ?", (number,))
        assert started is not None
        assert location is not None
        sql.run(
            "INSERT INTO run (execution, uid, experiment, name, who, stage, started_at, location) VALUES (?, ?, ?, ?, '', 'active', ?, ?) "
            "ON CONFLICT DO NOTHING",
            (execution, uid, number, name, started[0] // 1000, below(location[0], uid, "artifacts")),
        )
        sql.run("INSERT INTO tag (run, key, value) VALUES (?, 'mlflow.runName', ?) ON CONFLICT DO NOTHING", (execution, name))
    return Run(ledger, execution)


@dataclass(frozen=True)
class Run:
    """One execution, open for logging while it runs and for reading ever after."""

    ledger: Ledger
    number: int

    def log_metric(self, key: str, value: float, step: int = 0) -> None:
        """Append one value of a metric; it has survived the end of the process when this returns."""
        self.log_metrics({key: value}, step)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Append one value of several metrics, all or nothing."""
        now = self.ledger.wall() // 1000
        for key, value in values.items():
            if not isinstance(value, (int, float)):
                raise DataError(f"metric {key!r} is {type(value).__name__}, not a number")
        points = [check_metric(Metric(key, value, now, step)) for key, value in values.items()]
        with self.ledger.records.transaction() as sql:
            row = sql.one("SELECT experiment FROM run WHERE execution = ?", (self.number,))
            names = put_metrics(sql, self.ledger.records, self.number, row[0] if row else 0, points)
        remember(self.ledger.records, names)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Write parameters as text, where a search finds them."""
        rows = [(self.number, str(key), str(value)[:PARAM_VALUE]) for key, value in values.items()]
        with self.ledger.records.transaction() as sql:
            sql.many("INSERT INTO param (run, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def history(self, key: str) -> list[tuple[int, float]]:
        """(step, value) by the time of logging, then by step."""
        query = (
            "SELECT m.step, m.value, m.nan FROM metric AS m JOIN metric_name AS n ON n.id = m.name WHERE m.run = ? AND n.name = ? "
            "ORDER BY m.timestamp, m.step, m.value"
        )
        with self.ledger.records.snapshot() as sql:
            return [(step, float("nan") if nan else value) for step, value, nan in sql.all(query, (self.number, key))]

    @property
    def execution(self) -> Execution:
        """What the ledger holds of the run: status, inputs, outputs, code, environment."""
        return self.ledger.execution(self.number)

    @property
    def params(self) -> dict[str, Any]:
        return self.execution.params

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric."""
        query = (
            "SELECT n.name, l.value, l.nan FROM metric_latest AS l JOIN metric_name AS n ON n.id = l.name WHERE l.run = ? ORDER BY n.name"
        )
        with self.ledger.records.snapshot() as sql:
            logged = {name: float("nan") if nan else value for name, value, nan in sql.all(query, (self.number,))}
        return {**self.execution.metrics, **logged}
