"""Cohorts with their maturity, quality, drift and skew. Comes in: the prediction log, labels, features. Goes out: alerts, as values."""

from tidemill.monitoring.cohorts import Cohorts, cohorts, local_days, mature_rows, months_of
from tidemill.monitoring.declarations import Drift, Monitor, Skew
from tidemill.monitoring.skew import Compared, Example, FeatureSkew, Skewed, compare, skew_alert, too_many
from tidemill.monitoring.watch import Alert, Watched, drift_alert, drift_said, drift_test, quality_alert, quality_of

__all__ = [
    "Alert",
    "Cohorts",
    "Compared",
    "Drift",
    "Example",
    "FeatureSkew",
    "Monitor",
    "Skew",
    "Skewed",
    "Watched",
    "cohorts",
    "compare",
    "drift_alert",
    "drift_said",
    "drift_test",
    "local_days",
    "mature_rows",
    "months_of",
    "quality_alert",
    "quality_of",
    "skew_alert",
    "too_many",
]
