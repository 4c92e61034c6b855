"""Quality, gates and verdicts. Comes in: scores and labels of the form that will serve. Goes out: a verdict with its evidence."""

from tidemill.evaluation import gates
from tidemill.evaluation.evidence import REPORTED, Evidence, daily_means, p_above_zero, quality
from tidemill.evaluation.gates import Gate, judge

__all__ = ["REPORTED", "Evidence", "Gate", "daily_means", "gates", "judge", "p_above_zero", "quality"]
