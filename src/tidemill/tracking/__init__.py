"""Runs, their parameters and metrics. A run is an execution of the ledger; only the history of its metrics is kept here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Float, Integer, MetaData, Table, Text, insert, select

from tidemill.core import DataError
from tidemill.ledger import Execution, Ledger

tables = MetaData()
metric = Table(
    "metric",
    tables,
    Column("id", Integer, primary_key=True),
    Column("execution", Integer, nullable=False, index=True),
    Column("key", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("value", Float),  # null stands for NaN
)
_INSERT = insert(metric)


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
        rows = []
        for key, value in values.items():
            if not isinstance(value, (int, float)):
                raise DataError(f"metric {key!r} is {type(value).__name__}, not a number")
            rows.append({"execution": self.number, "key": key, "step": step, "value": None if math.isnan(value) else float(value)})
        with self.ledger.records.begin() as connection:
            connection.execute(_INSERT, rows)

    def history(self, key: str) -> list[tuple[int, float]]:
        """(step, value) in the order of logging."""
        query = select(metric.c.step, metric.c.value).where(metric.c.execution == self.number, metric.c.key == key).order_by(metric.c.id)
        with self.ledger.records.read() as connection:
            return [(row.step, math.nan if row.value is None else row.value) for row in connection.execute(query)]

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
        query = select(metric.c.key, metric.c.value).where(metric.c.execution == self.number).order_by(metric.c.id)
        with self.ledger.records.read() as connection:
            logged = {row.key: math.nan if row.value is None else row.value for row in connection.execute(query)}
        return {**self.execution.metrics, **logged}


def runs(ledger: Ledger, *, limit: int = 100) -> list[Run]:
    """The newest training runs."""
    return [Run(ledger, execution.id) for execution in ledger.executions(kind="training run", limit=limit)]
