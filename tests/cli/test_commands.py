"""Every command: help, output for people and for programs, errors with their four parts and exit codes."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tidemill as package
from cli.conftest import Command
from tidemill.cli import COMMANDS
from tidemill.cli import tidemill as cli
from toy import DECLARATIONS, make_rows, write_project


def of_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_help_lists_every_command_and_every_command_has_help(tidemill: Command) -> None:
    found = tidemill("--help")
    assert found.returncode == 0
    for name in [*COMMANDS, "policy compare"]:
        assert name == "policy compare" or re.search(rf"^  {name} ", found.stdout, re.MULTILINE), name
        text = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="tidemill")
        assert text.exit_code == 0, text.output
        assert text.output.startswith(f"Usage: tidemill {name}")


def test_the_version(tidemill: Command) -> None:
    assert tidemill("--version").stdout.strip() == f"tidemill, version {package.__version__}"


def test_a_wrong_command_is_said(tidemill: Command) -> None:
    found = tidemill("relpay")
    assert (found.returncode, "No such command 'relpay'" in found.stderr) == (2, True)


# ── replay ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_replay_prints_months_events_cost_and_the_report(tidemill: Command, kept: Path, copied: Path) -> None:
    found = tidemill("replay", folder=copied)
    assert found.returncode == 0, found.stderr
    for text in ("2024-03", "2024-04", "mean", "ROC AUC", "drift found", "promoted", "against", "rows × rounds"):
        assert text in found.stdout, text
    assert "answered from the ledger" in found.stdout
    report = copied / ".tidemill" / "reports" / "replay.html"
    assert str(report) in found.stdout.replace("\n", "") or "replay.html" in found.stdout
    html = report.read_text()
    assert html.startswith("<!doctype html>")
    assert "<script src" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_replay_as_json_is_the_same_from_the_cache_and_in_a_new_folder(tidemill: Command, copied: Path, tmp_path: Path) -> None:
    cached = of_json(tidemill("replay", "--json", folder=copied))
    fresh = of_json(tidemill("replay", "--json", folder=write_project(tmp_path / "fresh")))
    assert {"months", "mean", "events", "cost"} <= set(cached)
    assert cached == fresh


def test_replay_says_what_is_missing_in_the_settings(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", settings='[project]\nname = "p"\n')
    found = tidemill("replay", folder=folder)
    assert found.returncode == 2
    assert "replay.train_until is not set" in found.stderr
    assert "tidemill.toml" in found.stderr


# ── run, status, up's view ──────────────────────────────────────────────────────────────────────────────────────────


def test_run_makes_a_champion_then_says_that_nothing_is_to_be_done_then_what_changed(tidemill: Command, tmp_path: Path) -> None:
    """Rows of this very week: the command reads the machine's clock."""
    from datetime import UTC, datetime, timedelta

    shift = (
        datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1) - make_rows()[-1]["sent"].replace(hour=0)
    )
    days = timedelta(days=shift.days)
    rows = [row | {name: row[name] and row[name] + days for name in ("sent", "booked", "arrived")} for row in make_rows()]
    loose = DECLARATIONS.replace("max_ece=0.12", "max_ece=0.5").replace('holdout="8d"', 'holdout="12d"')
    folder = write_project(tmp_path / "live", rows, declarations=loose)
    first = of_json(tidemill("run", "--json", folder=folder))
    assert first["champion"] == "trees/1"
    assert [one["kind"] for one in first["decisions"]] == ["gates passed", "promoted"]
    assert not any(step["cached"] for step in first["steps"])
    again = tidemill("run", folder=folder)
    assert again.returncode == 0, again.stderr
    assert "all cached" in again.stdout
    assert "no reason to train: the champion stays" in again.stdout
    (folder / "parcels.py").write_text(loose.replace('windows=["12h", "3d"]', 'windows=["12h", "5d"]'))
    changed = tidemill("run", folder=folder)
    assert changed.returncode == 0, changed.stderr
    assert re.search(r"changed\s+views\.depot_recent.*3d.*5d", changed.stdout.replace("\n", " ")), changed.stdout
    assert re.search(r"dataset deliveries\s+cached", changed.stdout)
    assert re.search(r"view depot_recent\s+ran", changed.stdout)
    status = of_json(tidemill("status", "--json", folder=folder))
    assert status["branch"]["kind"] == "live"


def test_status_for_people_and_programs(tidemill: Command, kept: Path) -> None:
    found = tidemill("status", folder=kept)
    assert found.returncode == 0
    for text in ("parcels", "deployment late: trees/", "champion", "passed"):
        assert text in found.stdout
    plain = of_json(tidemill("status", "--json", folder=kept))
    assert plain["deployments"][0]["champion"]["label"] == next(v["label"] for v in plain["versions"] if v["role"] == "champion")
    assert plain["alerts"]
    assert plain["retrainings"]


# ── lineage, why ────────────────────────────────────────────────────────────────────────────────────────────────────


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(found for parent in node["parents"] for found in walk(parent))]


def test_the_lineage_of_a_prediction_reaches_the_source_files_with_digests(tidemill: Command, kept: Path) -> None:
    tree = of_json(tidemill("lineage", "prediction:p118-003", "--json", folder=kept))
    nodes = walk(tree)
    kinds = [node["ref"].split(":")[0] for node in nodes]
    way = ["prediction", "deployment", "model", "training run", "training set", "examples", "requests", "feature view", "dataset", "source"]
    for kind in way:
        assert kind in kinds, kinds
    assert [kinds.index(kind) for kind in way[:6]] == sorted(kinds.index(kind) for kind in way[:6])
    sources = [node for node in nodes if node["ref"].startswith("source:parcels.csv")]
    assert sources
    assert all("digest" in node["detail"] for node in sources)
    runs = [node for node in nodes if node["ref"].startswith("training run:")]
    assert all(re.search(r"code [0-9a-f]{12}, environment [0-9a-f]{12}", node["detail"]) for node in runs)
    text = tidemill("lineage", "prediction:p118-003", folder=kept).stdout
    assert "source:parcels.csv" in text
    assert "by trees/" in text


@pytest.mark.parametrize("ref", ["late", "trees/1", "dataset:deliveries", "feature view:depot_recent"])
def test_other_things_have_a_lineage_too(tidemill: Command, kept: Path, ref: str) -> None:
    nodes = walk(of_json(tidemill("lineage", ref, "--json", folder=kept)))
    assert any(node["ref"].startswith("source:parcels.csv") for node in nodes)


@pytest.mark.parametrize(
    ("ref", "what"),
    [("prediction:nobody", "made no prediction for 'nobody'"), ("trees/99", "nothing is named"), ("model:x", "nothing is recorded")],
)
def test_an_unknown_ref_is_said(tidemill: Command, kept: Path, ref: str, what: str) -> None:
    found = tidemill("lineage", ref, folder=kept)
    assert (found.returncode, what in found.stderr) == (2, True), found.stderr
    plain = tidemill("lineage", ref, "--json", folder=kept)
    assert plain.returncode == 2
    error = json.loads(plain.stdout)
    assert set(error) == {"error", "what", "where", "available", "next"}
    assert what in error["what"]


def test_why_a_version_serves_and_why_a_step_ran(tidemill: Command, kept: Path) -> None:
    told = of_json(tidemill("why", "trees/2", "--json", folder=kept))
    assert told[0]["kind"] == "retrained"
    assert "log_loss" in told[0]["why"]
    steps = of_json(tidemill("why", "--json", folder=kept))
    assert {one["kind"] for one in steps} >= {"dataset", "feature view", "requests", "examples", "training run"}
    assert "first time" in tidemill("why", "deliveries", folder=kept).stdout
    missing = tidemill("why", "nothing", folder=kept)
    assert (missing.returncode, "nothing is known about 'nothing'" in missing.stderr) == (2, True)


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, bool]:
    return {one["check"]: one["ok"] for one in json.loads(done.stdout)}


def test_doctor_finds_nothing_wrong_with_a_sound_project(tidemill: Command, kept: Path) -> None:
    found = tidemill("doctor", "--json", folder=kept)
    assert found.returncode == 0, found.stdout
    assert all(checks(found).values())
    assert {"environment", "declarations", "ledger", "decisions", "blobs"} <= set(checks(found))
    assert "wrong" not in tidemill("doctor", folder=kept).stdout


def test_doctor_finds_a_flipped_byte_in_a_blob(tidemill: Command, copied: Path) -> None:
    blob = max((copied / ".tidemill" / "blobs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    found = tidemill("doctor", "--json", folder=copied)
    assert found.returncode == 1
    assert {name for name, ok in checks(found).items() if not ok} == {"blobs"}
    assert blob.name[:8] in found.stdout


def test_doctor_finds_a_damaged_ledger_and_a_changed_decision(tidemill: Command, copied: Path) -> None:
    import sqlite3

    with sqlite3.connect(copied / ".tidemill" / "records.db") as records:
        records.execute("update decision set why = 'all was well' where id = 2")
    found = tidemill("doctor", "--json", folder=copied)
    assert found.returncode == 1
    assert not checks(found)["decisions"]
    records.close()
    path = copied / ".tidemill" / "records.db"
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096 * 3):
        data[at : at + 512] = b"\xff" * 512
    path.write_bytes(data)
    found = tidemill("doctor", folder=copied)
    assert found.returncode == 1
    assert re.search(r"wrong\s+ledger", found.stdout), found.stdout
    assert "Traceback" not in found.stderr


# ── wrong input ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outside_a_project_every_command_says_where_to_go(tidemill: Command, tmp_path: Path) -> None:
    for call in (["replay"], ["run"], ["status"], ["up"], ["approve", "x/1"]):
        found = tidemill(*call, folder=tmp_path)
        assert found.returncode == 3, call
        assert "no tidemill.toml here" in found.stderr
        assert "next: go to a project's folder" in found.stderr
        assert "Traceback" not in found.stderr


def test_before_anything_has_run_reading_says_what_to_run(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", [])
    for call in (["status"], ["lineage", "late"], ["up", "--port", "0"]):
        found = tidemill(*call, folder=folder)
        assert found.returncode in (2, 3), (call, found.stderr)
        assert "tidemill run" in found.stderr, found.stderr


CASES = [
    ("missing file", DECLARATIONS.replace("parcels.csv", "gone.csv"), 3, "there is no file 'gone.csv'", r"parcels\.py:5"),
    ("unknown column", DECLARATIONS.replace('tm.mean("late")', 'tm.mean("lateness")'), 2, "lateness", r"parcels\.py:\d+"),
    ("wrong SQL", DECLARATIONS.replace("FROM parcels WHERE late", "FROM parcels WHERRE late"), 2, "syntax error", r"parcels\.py:\d+"),
    ("unknown lookup", DECLARATIONS.replace('key="courier")', 'key="driver")'), 2, "driver", r"parcels\.py:\d+"),
    ("no such name", DECLARATIONS.replace("tm.Canary", "tm.Cannary"), 2, "Cannary", r"parcels\.py:\d+"),
]


@pytest.mark.parametrize(("name", "text", "code", "what", "where"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_definition_is_said_with_file_and_line(
    tidemill: Command, tmp_path: Path, name: str, text: str, code: int, what: str, where: str
) -> None:
    folder = write_project(tmp_path / "p", make_rows(per_day=3), declarations=text)
    found = tidemill("replay", folder=folder)
    assert found.returncode == code, found.stderr
    assert what in found.stderr
    assert re.search(rf"where: .*{where}", found.stderr), found.stderr
    assert "Traceback" not in found.stderr


def test_a_csv_with_a_wrong_column_or_type_is_said(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", make_rows(per_day=3))
    path = folder / "parcels.csv"
    good = path.read_text()
    path.write_text(good.replace("weight", "mass", 1))
    found = tidemill("replay", folder=folder)
    assert found.returncode in (2, 3)
    assert "weight" in found.stderr
    path.write_text(good.replace(",2024", ",soon", 1))
    found = tidemill("replay", folder=folder)
    assert found.returncode in (2, 3)
    assert "sent" in found.stderr
    path.write_text(good)
    assert "no labelled" not in tidemill("replay", folder=folder).stderr


def test_errors_for_programs_are_objects(tidemill: Command, tmp_path: Path) -> None:
    found = tidemill("replay", "--json", folder=tmp_path)
    error = json.loads(found.stdout)
    assert (found.returncode, error["error"]) == (3, "MissingFile")
    assert error["where"] == str(tmp_path)
    assert "init" in error["next"]


def test_approving_what_does_not_wait_is_refused(tidemill: Command, copied: Path) -> None:
    found = tidemill("approve", "trees/1", folder=copied)
    assert (found.returncode, "trees/1 is not waiting for approval" in found.stderr) == (2, True)


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────────────

COMPARISON = """
cheap = tm.RetrainPolicy(watch, on=[tm.QualityDrop("log_loss", by=0.03)], cooldown="8d", min_new_labels=100)
what_if = tm.PolicyComparison(cheap, against=[tm.Never()], choose_on=("2024-03-01", "2024-04-12"), report_on=("2024-04-12", "2024-05-01"))
"""


def test_policies_are_compared_and_nothing_that_serves_moves(tidemill: Command, copied: Path) -> None:
    before = of_json(tidemill("status", "--json", folder=copied))
    (copied / "parcels.py").write_text(DECLARATIONS + COMPARISON)
    table = tidemill("policy", "compare", folder=copied)
    assert table.returncode == 0, table.stderr
    for text in ("on drop of log_loss", "never", "← chosen", "regret", "rows × rounds"):
        assert text in table.stdout
    found = of_json(tidemill("policy", "compare", "--json", folder=copied))
    assert [(one["model"], one["policy"]) for one in found["policies"]] == [("trees", "on drop of log_loss"), ("trees", "never")]
    (copied / "parcels.py").write_text(DECLARATIONS)
    after = of_json(tidemill("status", "--json", folder=copied))
    assert after["branch"] == before["branch"]
    assert after["deployments"] == before["deployments"]


def test_a_project_without_a_comparison_says_what_to_declare(tidemill: Command, kept: Path) -> None:
    found = tidemill("policy", "compare", folder=kept)
    assert (found.returncode, "PolicyComparison" in found.stderr) == (2, True)
