"""Feedback by hand, and a model that is trained on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tidemill as tm
from tidemill.core import HOUR, DataError, UnknownName, instant
from tidemill.serving import AnswerLog
from tidemill.session import Session, log_of
from toy import DECLARATIONS

TOLD = '''
told = tm.Dataset("told", {"said": tm.Source(".tidemill/log/delta/feedback", format="delta")}, key="parcel",
    event_time="predicted_at", known_at="labelled_at", query="""
        SELECT key AS parcel, predicted_at, labelled_at, label FROM said WHERE deployment = 'late' AND label IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY labelled_at DESC) = 1""")
by_people = tm.Task("by_people", request=bookings, predict_at="sent - INTERVAL 1 HOUR", features=[booking, depot_recent],
    label=tm.Label(told, "label = 1"))
'''
ASKED = instant("2024-04-25T00:00:00Z")
Ask = Callable[[int], list[str]]


@pytest.fixture
def session(copied: Path) -> Session:
    return tm.open(copied)


@pytest.fixture
def ask(session: Session) -> Ask:
    """Have so many answers logged; returns their ids."""

    def asked(rows: int) -> list[str]:
        endpoint, log = session.deployments["late"].endpoint(), AnswerLog(log_of(session.project, "late"))
        keys = [{"parcel": f"p110-{place:03}"} for place in range(rows)]
        return log.append(endpoint.answer(keys, [ASKED] * rows, keep=1.0), ASKED, session.branch.id)

    return asked


def test_rows_of_any_kind_are_taken_and_given_back_one_for_each_answer(session: Session, ask: Ask) -> None:
    ids = ask(4)
    first = session.feedback("late", {"id": ids[0], "label": True})
    assert (first["added"], first["skipped"]) == (1, 0)
    assert session.feedback("late", [{"id": ids[0], "label": 0, "note": "other columns are not looked at"}])["added"] == 1
    frame = pd.DataFrame({"id": ids, "label": [None, 1, None, 0], "comment": ["", None, "who?", "x"], "key": list("abcd")})
    found = session.feedback("late", frame)
    assert (found["added"], found["skipped"]) == (3, 1)
    rows = session.feedback_rows("late")
    assert [(row["id"], row["label"], row["comment"]) for row in rows] == [
        (ids[0], 0, ""),
        (ids[1], 1, ""),
        (ids[2], None, "who?"),
        (ids[3], 0, "x"),
    ]
    assert [row["key"] for row in rows] == [f"p110-{place:03}" for place in range(4)]
    assert {row["predicted_at"] for row in rows} == {"2024-04-25T00:00:00Z"}


WRONG: list[tuple[Any, type[Exception], str]] = [
    ([{"label": 1}], DataError, "rows\\[0\\]: .*id"),
    (["a"], DataError, "rows\\[0\\] is 'a'"),
    ([{"id": "0000000000000-000000000", "label": 1}], UnknownName, "rows\\[0\\]: 'late' has no answer"),
]


@pytest.mark.parametrize(("rows", "error", "what"), WRONG)
def test_what_is_wrong_is_said(session: Session, rows: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        session.feedback("late", rows)
    with pytest.raises(UnknownName, match="nobody"):
        session.feedback("nobody", [])
    assert session.feedback_rows("late") == []


def test_a_model_is_trained_on_what_people_said(session: Session, ask: Ask, copied: Path) -> None:
    ids = ask(40)
    session.feedback("late", {"id": ids, "label": [place % 3 == 0 for place in range(40)]})
    session.feedback("late", {"id": ids[0], "label": 0})
    assert [one["lines"] for one in session.compact()] == [40, 41]
    (copied / "parcels.py").write_text(DECLARATIONS + TOLD)
    opened = tm.open(copied)
    now = max(instant(row["labelled_at"]) for row in opened.feedback_rows("late"))
    train = opened.training_set("by_people", until=pd.Timestamp(now + HOUR, unit="us", tz="UTC").to_pydatetime())
    assert (len(train.y), int(train.y.sum())) == (40, 13), "one label was taken back"
