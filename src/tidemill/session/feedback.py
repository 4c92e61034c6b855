"""Feedback by hand: rows of any kind into the log of a deployment."""

from contextlib import closing
from pathlib import Path
from typing import Any

from tidemill import features
from tidemill.core import show
from tidemill.serving import FeedbackLog, said_of


def told_feedback(answers: Path, rows: Any, now: int) -> dict[str, Any]:
    """What `Session.feedback` gives; `answers` is the log that the rows are about."""
    said = said_of(features.whole_rows(rows, ("id", "label", "comment")))
    with closing(FeedbackLog(answers)) as log:
        added = log.add(said, now, by_hand=True)
    return {"deployment": answers.stem, "added": added, "skipped": len(said) - added, "labelled_at": show(now)}
