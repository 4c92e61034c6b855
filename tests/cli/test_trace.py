"""`tidemill trace` and `tidemill predictions list` over a log of real answers."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from tidemill.serving import AnswerLog, Withheld
from tidemill.session import log_of
from tidemill.session import open as open_project
from toy import DECLARATIONS

TRACE = "0af7651916cd43dd8448eb211c80319c"
AT = 1714000000000000  # 2024-04-24T23:06:40Z
OWN = {"parcel": "new", "depot": "N", "courier": "a", "grade": "x", "weight": -2.5, "sent": "2024-04-25T01:00:00Z"}
OWN |= {"booked": "2024-04-24T00:00:00Z"}


@pytest.fixture
def ids(copied: Path) -> dict[str, str]:
    """Of answers in the log: one of own columns that is clipped, one by key, one without its features, one that withholds some."""
    text = DECLARATIONS.replace('tm.Deployment("late", trees,', 'tm.Deployment("late", trees, expect=EXPECT,')
    text = text.replace("serve = ", 'EXPECT = [tm.Expect("booking__weight", low=0, high=60, otherwise="clip")]\nserve = ')
    (copied / "parcels.py").write_text(text)
    session = open_project(copied)
    endpoint, found = session.deployments["late"].endpoint(), dict[str, str]()
    for name, row, keep, withheld in (
        ("own", OWN, 1.0, None),
        ("key", {"parcel": "p110-001"}, 1.0, None),
        ("bare", {"parcel": "p110-002"}, 0.0, None),
        ("withheld", OWN, 1.0, Withheld({"depot"}, {"booking__grade"}, b"key")),
    ):
        log = AnswerLog(log_of(session.project, "late"), keep, withheld)
        (found[name],) = log.append(
            endpoint.answer([row], [AT], keep=keep), AT, session.branch.id, route="predict", request="gate-7", trace=TRACE
        )
        log.close()
    session.feedback("late", {"id": found["own"], "label": 1, "comment": "stood at the gate"})
    session.close()
    return found


def traced(tidemill: Command, folder: Path, name: str) -> dict[str, Any]:
    found = tidemill("trace", name, "--json", folder=folder)
    assert found.returncode == 0, found.stderr
    return dict(json.loads(found.stdout))


def test_an_answer_is_shown_step_by_step(tidemill: Command, copied: Path, ids: dict[str, str]) -> None:
    found = traced(tidemill, copied, ids["own"])
    assert (found["deployment"], found["request"]["sent"], found["request"]["request"]) == ("late", OWN, "gate-7")
    assert found["request"]["trace"] == TRACE
    weight = next(one for one in found["features"] if one["name"] == "booking__weight")
    assert (weight["value"], weight["seen"], weight["from"], weight["status"]) == (-2.5, 0, "request", "present")
    share = next(one for one in found["features"] if one["view"] == "depot_recent")
    assert (share["from"], len(share["version"])) == ("offline", 12)
    assert found["again"] == found["probability"], "from what the log has of it, computed again"
    assert (found["rung"], found["model"].partition("@")[0]) == ("champion", "model:trees")
    assert [(one["label"], one["comment"]) for one in found["feedback"]] == [(1, "stood at the gate")]
    text = tidemill("trace", ids["own"], folder=copied).stdout
    for said in ("gate-7", TRACE, "depot N", "-2.5, below 0: clipped", "computed again: equal", "label 1  stood at the gate", "model saw"):
        assert said in text, text
    narrow = tidemill("trace", ids["own"], folder=copied, COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert "model saw" not in tidemill("trace", ids["key"], folder=copied).stdout


def test_what_was_not_kept_is_said_and_how_to_keep_it(tidemill: Command, copied: Path, ids: dict[str, str]) -> None:
    bare = tidemill("trace", ids["bare"], folder=copied).stdout
    assert ("features were not kept" in bare, "tm.PredictionLog(features=1.0)" in bare) == (True, True)
    some = traced(tidemill, copied, ids["withheld"])
    assert some["withheld"] == {"inputs": ["booking__grade"], "sent": ["depot"]}
    assert (some["again"], "depot" in some["request"]["sent"]) == (None, False)
    assert "withheld of what was sent: depot" in tidemill("trace", ids["withheld"], folder=copied).stdout


def test_an_unknown_id_is_said(tidemill: Command, copied: Path, ids: dict[str, str]) -> None:
    for name, what, code in (("seven", "is no id of a prediction", 3), (ids["own"] + "9", "no answer has the id", 2)):
        found = tidemill("trace", name, folder=copied)
        assert (found.returncode, what in found.stderr) == (code, True), found.stderr


def test_hard_cases_are_exported_labelled_and_given_back(tidemill: Command, copied: Path, ids: dict[str, str], tmp_path: Path) -> None:
    listed = tidemill("predictions", "list", "late", "--out-of-range", folder=copied)
    assert (ids["own"] in listed.stdout, ids["key"] in listed.stdout) == (True, False)
    for columns in (60, 80, 120):
        narrow = tidemill("predictions", "list", "late", folder=copied, COLUMNS=str(columns)).stdout
        assert "…" not in narrow
        assert all(name in narrow for name in ids.values())
    plain = json.loads(tidemill("predictions", "list", "late", "--json", folder=copied).stdout)
    assert (plain["found"], {one["id"] for one in plain["predictions"]}) == (4, {*ids.values()})
    file = tmp_path / "cases.csv"
    said = tidemill("predictions", "list", "late", "--unsure", "0.5", "--export", str(file), folder=copied)
    assert "4 predictions" in said.stdout, said.stderr
    with file.open(newline="") as opened:
        rows = [row | {"label": "0"} for row in csv.DictReader(opened)]
    assert "booking__weight" in rows[0]
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    assert tidemill("feedback", "add", "late", str(file), folder=copied).stdout.startswith("4 rows of feedback")
    moved = tidemill("predictions", "compact", folder=copied).stdout
    assert f"the tables are in {copied / '.tidemill' / 'log' / 'delta'}\n" in moved
    shutil.rmtree(copied / ".tidemill" / "log" / "delta" / "feedback")
    assert "no prediction is one" in tidemill("predictions", "list", "late", "--wrong", folder=copied).stdout
