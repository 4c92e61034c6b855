"""`tidemill feedback`: a file of labels in, a file of what was said out."""

import csv
import json
from pathlib import Path

import duckdb
import pytest

from cli.conftest import Command
from tidemill.serving import AnswerLog
from tidemill.session import log_of
from tidemill.session import open as open_project


@pytest.fixture
def ids(copied: Path) -> list[str]:
    """Of three answers in the log."""
    session = open_project(copied)
    endpoint, log = session.deployments["late"].endpoint(), AnswerLog(log_of(session.project, "late"))
    rows = [{"parcel": f"p110-{place:03}"} for place in range(3)]
    found = log.append(endpoint.answer(rows, [1714000000000000] * 3, keep=1.0), 1714000000000000, session.branch.id)
    session.close()
    return found


def test_a_file_of_labels_is_added_and_what_was_said_is_exported(tidemill: Command, copied: Path, ids: list[str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(f'id,probability,label,comment\n{ids[0]},0.5,1,"on the dock, at noon"\n{ids[1]},0.5,,\n{ids[2]},0.4,False,\n')
    added = tidemill("feedback", "add", "late", str(labels), folder=copied)
    assert (added.returncode, added.stdout) == (0, "2 rows of feedback on late, 1 without a label or a comment skipped\n"), added.stderr
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": ids[1], "comment": "unclear"}) + "\n")
    plain = json.loads(tidemill("feedback", "add", "late", str(tmp_path / "more.jsonl"), "--json", folder=copied).stdout)
    assert (plain["added"], plain["skipped"]) == (1, 0)
    expected = [(ids[0], 1, "on the dock, at noon"), (ids[2], 0, ""), (ids[1], None, "unclear")]
    for ending in ("csv", "parquet", "jsonl"):
        file = tmp_path / f"said.{ending}"
        done = tidemill("feedback", "export", "late", str(file), folder=copied)
        assert (done.returncode, done.stdout) == (0, f"3 rows in {file}\n"), done.stderr
        columns = "id, TRY_CAST(label AS INT), coalesce(comment, '')"
        rows = duckdb.sql(f"SELECT {columns}, key, probability FROM '{file}'").fetchall()
        assert [row[:3] for row in rows] == expected
        assert [row[3] for row in rows] == ["p110-000", "p110-002", "p110-001"]
    with (tmp_path / "said.csv").open() as file:
        assert next(csv.DictReader(file))["labelled_at"].endswith("Z")


def test_what_is_wrong_with_a_file_is_said_and_none_is_added(tidemill: Command, copied: Path, ids: list[str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    for text, what in (
        (f"id,label\n{ids[0]},1\n{ids[1]},maybe\n", "rows[1]"),
        (f"id,label\n{ids[0]},1\n{ids[1][:-1]}9,1\n", "has no answer with the id"),
        (f"name,label\n{ids[0]},1\n", "has no column 'id'"),
    ):
        wrong.write_text(text)
        found = tidemill("feedback", "add", "late", str(wrong), folder=copied)
        assert (found.returncode != 0, what in found.stderr, "wrong.csv" in found.stderr) == (True, True, True), found.stderr
    assert tidemill("feedback", "add", "late", str(tmp_path / "none.csv"), folder=copied).returncode == 3
    assert "no ending" in tidemill("feedback", "export", "late", str(tmp_path / "out"), folder=copied).stderr
    done = tidemill("feedback", "export", "late", str(tmp_path / "said.csv"), folder=copied)
    assert done.stdout.startswith("0 rows")
