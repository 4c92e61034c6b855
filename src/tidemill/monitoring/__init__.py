"""Cohorts with their maturity, quality and drift. Comes in: the prediction log, labels, features. Goes out: alerts, as values."""

from tidemill.monitoring.cohorts import Cohorts, cohorts, local_days, mature_rows, months_of
from tidemill.monitoring.declarations import Drift, Monitor
from tidemill.monitoring.watch import Alert, drift_alert, quality_alert

__all__ = ["Alert", "Cohorts", "Drift", "Monitor", "cohorts", "drift_alert", "local_days", "mature_rows", "months_of", "quality_alert"]
