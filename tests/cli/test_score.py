"""`tidemill score` as a person runs it."""

import json
from pathlib import Path

from cli.conftest import Command


def test_rows_are_scored_and_what_is_wrong_with_one_is_said(tidemill: Command, copied: Path, tmp_path: Path) -> None:
    rows, to = tmp_path / "rows.csv", tmp_path / "scores.parquet"
    rows.write_text("parcel,note\np070-000,one\nnobody,two\np070-001,three\n")
    wrong = tidemill("score", "late", str(rows), "--to", str(to), folder=copied)
    assert wrong.returncode == 3
    assert "row 1: no request has the key {'parcel': 'nobody'}" in wrong.stderr
    assert "--keep-going" in wrong.stderr
    assert not to.exists()

    asked = ("score", "late", str(rows), "--to", str(to), "--keep-going", "--at", "2024-04-30", "--explain")
    done = tidemill(*asked, folder=copied)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "3 rows by key, 2 scored, 0 kept" in done.stdout
    assert "1 could not be answered, the first: row 1" in done.stdout
    assert "not read: note" in done.stdout
    found = json.loads(tidemill(*asked, "--json", folder=copied).stdout)
    assert (found["rows"], found["scored"], found["kept"], found["failed"]) == (3, 0, 2, 1)
    assert found["file"] == str(to)
    assert [one["rows"] for one in found["answers"]] == [2]
    lineage = tidemill("lineage", found["ref"], "--json", folder=copied)
    assert found["ref"] in lineage.stdout
    assert "source:rows.csv" in lineage.stdout
