"""The story: build → train → gates → rollout → watch → retrain, as one tick; replay runs it over the past.

Read `tick.py` first, then `decide.py`.
"""

from tidemill.loop.build import Built, build, prepare
from tidemill.loop.compare import compare
from tidemill.loop.declarations import Age, DriftFound, Every, Never, PolicyComparison, QualityDrop, RetrainPolicy, SkewFound, Trigger
from tidemill.loop.former import edits, former_features
from tidemill.loop.live import Passed, lost_answers, run_once
from tidemill.loop.people import Waiting, approvable, approvals, needed, standing, waiting
from tidemill.loop.replay import Progress, Replay, replay, with_model
from tidemill.loop.rollback import Restored, roll_back
from tidemill.loop.skew import Measured, measure
from tidemill.loop.state import Served, State
from tidemill.loop.weights import Shared, set_weights, shared_by

__all__ = [
    "Age",
    "Built",
    "DriftFound",
    "Every",
    "Measured",
    "Never",
    "Passed",
    "PolicyComparison",
    "Progress",
    "QualityDrop",
    "Replay",
    "Restored",
    "RetrainPolicy",
    "Served",
    "Shared",
    "SkewFound",
    "State",
    "Trigger",
    "Waiting",
    "approvable",
    "approvals",
    "build",
    "compare",
    "edits",
    "former_features",
    "lost_answers",
    "measure",
    "needed",
    "prepare",
    "replay",
    "roll_back",
    "run_once",
    "set_weights",
    "shared_by",
    "standing",
    "waiting",
    "with_model",
]
