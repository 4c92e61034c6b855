"""What can happen to the versions of a deployment: the kinds of the decisions that the ledger keeps."""

from enum import StrEnum


class Event(StrEnum):
    """The kind of a decision, in the words in which it is stored and shown. In the order of a version's life.

    >>> print(Event.ROLLED_BACK)
    rolled back
    """

    WATCHED = "watched"
    FEATURES_COMPARED = "features compared"
    DRIFT_FOUND = "drift found"
    QUALITY_DROP = "quality drop"
    SKEW_FOUND = "skew found"
    RETRAINED = "retrained"
    GATES_UNDECIDED = "gates undecided"
    GATE_REFUSED = "gate refused"
    GATES_PASSED = "gates passed"
    APPROVAL_NEEDED = "approval needed"
    APPROVED = "approved"
    CANARY = "canary"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    WEIGHTED = "weights set"
    ANSWERS_LOST = "answers lost"
    ERASED = "erased"
