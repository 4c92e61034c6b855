"""Cohorts with their maturity, quality and drift. Comes in: the prediction log, labels, features. Goes out: alerts, as values."""

from tidemill.monitoring.cohorts import Cohorts, cohorts, local_days, mature_rows, months_of
from tidemill.monitoring.declarations import Drift, Monitor
from tidemill.monitoring.watch import Alert, Watched, drift_alert, drift_said, drift_test, quality_alert, quality_of

__all__ = [
    "Alert",
    "Cohorts",
    "Drift",
    "Monitor",
    "Watched",
    "cohorts",
    "drift_alert",
    "drift_said",
    "drift_test",
    "local_days",
    "mature_rows",
    "months_of",
    "quality_alert",
    "quality_of",
]
