"""Quality, gates and verdicts. Comes in: scores and labels of the form that will serve. Goes out: a verdict with its evidence."""

from tidemill.evaluation import gates
from tidemill.evaluation.evidence import Evidence, quality
from tidemill.evaluation.gates import Gate, judge

__all__ = ["Evidence", "Gate", "gates", "judge", "quality"]
