"""Every command: help, output for people and for programs, errors with their four parts and exit codes."""

import html
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tidemill as package
from cli.conftest import TIDEMILL, Command
from disks import unpacked
from tidemill import project
from tidemill.cli import tidemill as cli
from tidemill.features import LmdbOnline
from tidemill.loop import State
from tidemill.registry.aliases import set_alias
from tidemill.session import Session
from tidemill.web.status import render_status
from toy import DECLARATIONS, make_rows, write_project


def of_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command that is installed, which has imported nothing yet."""
    return subprocess.run([TIDEMILL, *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_help_lists_every_command_and_every_command_has_help() -> None:
    found = installed("--help")
    assert found.returncode == 0
    for name in [*cli.commands, "policy compare"]:
        assert name == "policy compare" or re.search(rf"^  {name} ", found.stdout, re.MULTILINE), name
        text = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="tidemill")
        assert text.exit_code == 0, text.output
        assert text.output.startswith(f"Usage: tidemill {name}")


def test_the_version() -> None:
    assert installed("--version").stdout.strip() == f"tidemill, version {package.__version__}"


def test_a_wrong_command_is_said(tidemill: Command) -> None:
    found = tidemill("relpay")
    assert (found.returncode, "No such command 'relpay'" in found.stderr) == (2, True)
    late = tidemill("status", "-v")
    assert (late.returncode, "-v stands before the command: tidemill -v" in late.stderr) == (2, True)


REPLAYED = Path(__file__).parents[2] / "docs" / "replay.md"


# ── replay ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_replay_prints_months_events_cost_and_the_report(tidemill: Command, kept: Path, copied: Path) -> None:
    found = tidemill("replay", folder=copied)
    assert found.returncode == 0, found.stderr
    for text in ("2024-03", "2024-04", "mean", "ROC AUC", "drift found", "promoted", "against", "rows × rounds"):
        assert text in found.stdout, text
    assert "answered from the ledger" in found.stdout
    report = copied / ".tidemill" / "reports" / "replay.html"
    assert str(report) in found.stdout.replace("\n", "") or "replay.html" in found.stdout
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_replay_as_json_is_the_same_from_the_cache_and_in_a_new_folder(tidemill: Command, copied: Path, tmp_path: Path) -> None:
    cached = of_json(tidemill("replay", "--json", folder=copied))
    fresh = of_json(tidemill("replay", "--json", folder=write_project(tmp_path / "fresh")))
    assert {"months", "mean", "events", "cost"} <= set(cached)
    reports = [Path(one.pop("report")).read_text() for one in (cached, fresh)]
    assert reports[0] == reports[1] == (copied / ".tidemill" / "reports" / "replay.html").read_text()
    assert cached == fresh
    days = [one["day"] for one in cached["daily"]]
    assert (days[0], days[-1], days) == ("2024-03-01", "2024-04-30", sorted(days))
    assert {*cached, "report"} == set(re.findall(r"^\| `(\w+)` \|", REPLAYED.read_text().split("## What `--json` prints")[1], re.MULTILINE))


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_no_line_of_a_replay_is_wider_than_the_terminal_or_wraps(tidemill: Command, copied: Path, columns: int) -> None:
    text = tidemill("replay", folder=copied, COLUMNS=str(columns)).stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    months = [line for line in lines if re.match(r"2024-\d\d  ", line)]
    assert len(months) == 3
    assert not any("…" in line for line in months)
    titles = ("labels", "rows", "share", "ROC AUC", "log loss", "cal. error")
    head = "\n".join(lines[: lines.index(months[0])])
    assert [name for name in titles if name not in head] == {60: ["share", "cal. error"], 80: ["cal. error"]}.get(columns, [])
    events = [line for line in lines if re.match(r"2024-\d\d-\d\d ", line)]
    assert len(events) > 5
    assert any(line.endswith("…") for line in events)
    whole = tidemill("-v", "replay", folder=copied, COLUMNS=str(columns)).stdout
    assert "…" not in whole
    assert max(map(len, whole.splitlines())) <= columns
    assert " ".join(line[37:].strip() for line in whole.splitlines()).count("log_loss gain") >= 2


def test_replay_says_what_is_missing_in_the_settings(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", settings='[project]\nname = "p"\n')
    found = tidemill("replay", folder=folder)
    assert found.returncode == 2
    assert "replay.train_until is not set" in found.stderr
    assert "tidemill.toml" in found.stderr


# ── run, status, up's view ──────────────────────────────────────────────────────────────────────────────────────────


LOOSE = DECLARATIONS.replace("max_ece=0.12", "max_ece=0.5").replace('holdout="8d"', 'holdout="12d"')


def write_live(folder: Path, declarations: str = LOOSE) -> Path:
    """A project with rows of this very week: the command reads the machine's clock."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = timedelta(days=(today - timedelta(days=1) - make_rows()[-1]["sent"].replace(hour=0)).days)
    rows = [row | {name: row[name] and row[name] + days for name in ("sent", "booked", "arrived")} for row in make_rows()]
    return write_project(folder, rows, declarations=declarations)


def test_run_makes_a_champion_then_says_that_nothing_is_to_be_done_then_what_changed(tidemill: Command, tmp_path: Path) -> None:
    folder = write_live(tmp_path / "live")
    (first,) = of_json(tidemill("run", "--json", folder=folder))["deployments"]
    assert (first["name"], first["champion"], first["instead_of"]) == ("late", "trees/1", "")
    assert [one["kind"] for one in first["decisions"]] == ["gates passed", "promoted"]
    assert not any(step["cached"] for step in first["steps"])
    again = tidemill("run", folder=folder)
    assert again.returncode == 0, again.stderr
    assert "all cached" in again.stdout
    assert "no reason to train: the champion stays" in again.stdout
    (folder / "parcels.py").write_text(LOOSE.replace('windows=["12h", "3d"]', 'windows=["12h", "5d"]'))
    changed = tidemill("run", folder=folder)
    assert changed.returncode == 0, changed.stderr
    assert re.search(r"changed\s+views\.depot_recent.*3d.*5d", changed.stdout.replace("\n", " ")), changed.stdout
    assert re.search(r"dataset deliveries\s+cached", changed.stdout)
    assert re.search(r"view depot_recent\s+ran", changed.stdout)
    status = of_json(tidemill("status", "--json", folder=folder))
    assert status["deployments"][0]["branch"]["kind"] == "live"


def test_what_files_and_models_print_is_no_part_of_the_json(tidemill: Command, tmp_path: Path) -> None:
    folder = write_live(
        tmp_path / "live", f"{LOOSE}\nprint('read')\n".replace("    from lightgbm", "    print('fitted')\n    from lightgbm")
    )
    found = tidemill("run", "--json", folder=folder)
    assert json.loads(found.stdout)["deployments"][0]["champion"] == "trees/1"
    assert set(found.stderr.split()) == {"read", "fitted"}
    assert tidemill("run", folder=folder).stdout.startswith("read\n")


SECOND = """
serve_too = tm.Deployment("again", trees, gates=[tm.gates.calibration(max_ece=0.5, bins=5)])
keep_too = tm.RetrainPolicy(tm.Monitor(serve_too, every="4d"), on=[tm.Never()])
"""


def test_each_deployment_has_its_pass_also_when_one_is_refused_or_wrong(tidemill: Command, tmp_path: Path) -> None:
    folder = write_live(tmp_path / "live", LOOSE.replace("min_new_labels=100)", "min_new_labels=100, approvals=1)") + SECOND)
    found = tidemill("run", "--json", folder=folder)
    assert (found.returncode, found.stderr) == (6, "")
    late, again = json.loads(found.stdout)["deployments"]
    assert (late["name"], late["error"], "needs 1 more approvals" in late["what"]) == ("late", "Refused", True)
    assert (again["name"], again["champion"]) == ("again", "trees/1")
    sound = (folder / "parcels.py").read_text()
    (folder / "parcels.py").write_text(sound.replace('by=["depot"]', 'by=["nothing"]'))
    wrong = tidemill("run", folder=folder)
    assert (wrong.returncode, "cuts by 'nothing'" in wrong.stderr) == (2, True)
    assert [wrong.stdout.count(text) for text in ("deployment late", "deployment again\n", "6 steps, all cached")] == [1, 1, 1]
    assert "serves deployment again" in wrong.stdout
    (folder / "parcels.py").write_text(sound)
    assert not tidemill("approve", "trees/1", folder=folder).returncode
    both = of_json(tidemill("run", "--json", folder=folder))["deployments"]
    assert [(one["name"], one["champion"]) for one in both] == [("late", "trees/1"), ("again", "trees/1")]


def test_a_refused_first_model_leaves_its_verdict(tidemill: Command, tmp_path: Path) -> None:
    folder = write_live(tmp_path / "live", LOOSE.replace("train.y, cat", "1 - train.y, cat"))
    assert "tidemill run" in tidemill("status", folder=folder).stderr
    assert tidemill("run", folder=folder).returncode == 6
    (late,) = of_json(tidemill("status", "--json", folder=folder))["deployments"]
    assert (late["name"], late["refused"]["kind"], late["refused"]["subject"]) == ("late", "gate refused", "trees/1")
    assert "log_loss gain -" in late["refused"]["why"]
    status = tidemill("status", folder=folder).stdout.replace("\n", " ")
    assert re.search(r"late: no version serves yet refused .* the gates refused the first live model, trees/1: better", status), status
    for what in ([], ["trees/1"]):
        assert re.search(r"gate refused trees/1: better", tidemill("why", *what, folder=folder).stdout)


def test_two_policies_of_one_deployment_are_one_too_many(tidemill: Command, copied: Path) -> None:
    (copied / "parcels.py").write_text(DECLARATIONS + COMPARISON)
    found = tidemill("run", folder=copied)
    assert (found.returncode, "next: declare one for each deployment" in found.stderr) == (3, True), found.stderr


def test_the_first_run_says_that_the_replay_no_longer_serves(tidemill: Command, copied: Path) -> None:
    (copied / "parcels.py").write_text(LOOSE)
    (late,) = of_json(tidemill("status", "--json", folder=copied))["deployments"]
    told = tidemill("run", folder=copied)
    assert f"`tidemill up` now serves the live branch instead of the replay {late['branch']['id']}" in told.stdout, (
        told.stdout + told.stderr
    )
    assert "instead of" not in tidemill("run", folder=copied).stdout
    both = tidemill("why", "trees/1", folder=copied).stdout
    assert re.search(r"  live  promoted trees/1", both), both
    assert re.search(r"  replay  promoted trees/1", both), both
    (copied / "parcels.py").write_text(DECLARATIONS)
    again = tidemill("replay", folder=copied).stdout.replace("\n", " ")
    assert "go on with the live branch live-late, not with this replay" in again, again


def test_each_deployment_has_its_own_report(tidemill: Command, copied: Path) -> None:
    (copied / "parcels.py").write_text(DECLARATIONS + SECOND)
    assert "replay-late.html" in tidemill("replay", "--deployment", "late", folder=copied).stdout.replace("\n", "")
    unknown = tidemill("replay", "--deployment", "nobody", folder=copied)
    assert (unknown.returncode, "available: late, again" in unknown.stderr) == (2, True), unknown.stderr


def test_an_approval_names_a_person_and_the_user_of_the_machine(tidemill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_live(tmp_path / "live", LOOSE.replace("min_new_labels=100)", "min_new_labels=100, approvals=2)"))
    waits = tidemill("run", folder=folder)
    assert (waits.returncode, "trees/1 passed its gates and needs 2 more approvals" in waits.stderr) == (6, True), waits.stderr
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "somebody else")
    status = " ".join(tidemill("status", folder=folder).stdout.split())
    assert "deployment late: no version serves yet" in status
    assert (
        "waiting trees/1 passed its gates and needs people: nobody has agreed yet; 2 more must agree: `tidemill approve trees/1`" in status
    )
    user = pwd.getpwuid(os.getuid()).pw_name
    for who, then in (
        (["--who", "Ann"], "so far: Ann; 1 more must agree: `tidemill approve trees/1`"),
        ([], f"so far: Ann, {user}; `tidemill run` goes on"),
    ):
        found = tidemill("approve", "trees/1", *who, folder=folder)
        assert (found.returncode, f"approved trees/1; {then}\n" in found.stdout) == (0, True), found.stdout + found.stderr
        (late,) = of_json(tidemill("status", "--json", folder=folder))["deployments"]
        assert [one["said"] for one in late["waiting"]] == [then]
        assert then in " ".join(tidemill("status", folder=folder).stdout.split())
        assert then in html.unescape(render_status({"deployments": [late]}))
    assert (late["waiting"][0]["needed"], late["waiting"][0]["missing"], late["waiting"][0]["agreed"]) == (2, 0, ["Ann", user])
    assert "had approved trees/1 already: a name counts once" in tidemill("approve", "trees/1", "--who", "Ann", folder=folder).stdout
    assert of_json(tidemill("run", "--json", folder=folder))["deployments"][0]["champion"] == "trees/1"
    assert "waiting" not in of_json(tidemill("status", "--json", folder=folder))["deployments"][0]
    session = Session(folder)
    found = [one for one in session.ledger.decisions(session.branch.id) if one.kind == "approved"]
    told = {"user": user, "model": State.of(session.branch.state).champion.digest}
    assert [(one.who, one.evidence) for one in found] == [("Ann", told), (user, told), ("Ann", told)]


def test_status_for_people_and_programs(tidemill: Command, kept: Path) -> None:
    found = tidemill("status", folder=kept)
    assert found.returncode == 0
    for text in ("parcels", "deployment late: trees/", "champion", "passed"):
        assert text in found.stdout
    plain = of_json(tidemill("status", "--json", folder=kept))
    (late,) = plain["deployments"]
    assert late["champion"]["label"] == next(v["label"] for v in late["versions"] if v["role"] == "champion")
    assert late["alerts"]
    assert late["retrainings"]
    assert "watched" in found.stdout


def test_status_says_what_was_rolled_back_and_a_query_in_a_reason_stays_in_its_line(tidemill: Command, copied: Path) -> None:
    with project.find(copied).writing("test") as ledger, ledger.records.begin() as connection:
        (branch,) = ledger.branches("replay")
        for kind, why in (("rolled back", "worse"), ("retrained", "SELECT a\n  FROM b")):
            ledger.decide(connection, branch.id, at=0, who="ann", kind=kind, subject="trees/1", why=why, evidence={})
    found = tidemill("status", folder=copied).stdout
    assert re.search(r"^trees/1 +rolled back +passed", found, re.MULTILINE), found
    assert re.search(r"^retrained .*SELECT a FROM b", found, re.MULTILINE), found


# ── lineage, why ────────────────────────────────────────────────────────────────────────────────────────────────────


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(found for parent in node["parents"] for found in walk(parent))]


@pytest.mark.parametrize("terminal", [False, True])
def test_no_text_of_a_project_steers_the_terminal(copied: Path, terminal: bool) -> None:
    """An objective that clears the screen, no markup, or a picture by its name is words; the colours of the command itself stay."""
    settings = copied / "tidemill.toml"
    steering = r"\u001b[2J\u0007\u009b31m [/] [bold] :truck:"
    settings.write_text(settings.read_text().replace("Say at booking", f"Say{steering} at booking"))
    environment = {**os.environ, "COLUMNS": "160"} | ({"FORCE_COLOR": "1", "TERM": "xterm"} if terminal else {"NO_COLOR": "1"})
    call = [str(TIDEMILL), "-C", str(copied), "status"]
    found = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert found.returncode == 0, found.stderr
    assert "Say[2J31m [/] [bold] :truck: at booking" in found.stdout
    assert ("\x1b[1m" in found.stdout) == terminal
    assert not any(control in found.stdout for control in ("\x1b[2J", "\x07", "\x9b"))


def test_no_text_of_data_steers_the_terminal(tidemill: Command, tmp_path: Path) -> None:
    rows = make_rows()
    rows[5]["weight"] = "\x1b[2Jheavy\x07"
    found = tidemill("replay", folder=write_project(tmp_path / "p", rows))
    assert found.returncode == 3
    assert "[2Jheavy" in found.stderr
    assert not {"\x1b", "\x07"} & set(found.stderr)


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


def test_the_past_can_be_asked_about_while_the_files_are_wrong(tidemill: Command, copied: Path) -> None:
    """Lineage and why read the ledger; what reads the declarations says file and line."""
    (copied / "parcels.py").write_text(DECLARATIONS + "serve = (\n")
    line = len(DECLARATIONS.splitlines()) + 1
    assert "source:parcels.csv" in tidemill("lineage", "prediction:p118-003", folder=copied).stdout
    assert of_json(tidemill("why", "trees/2", "--json", folder=copied))[0]["kind"] == "retrained"
    found = tidemill("status", folder=copied)
    assert (found.returncode, f"where: {copied / 'parcels.py'}:{line}" in found.stderr) == (2, True), found.stderr
    assert {name for name, ok in checks(tidemill("doctor", "--json", folder=copied)).items() if not ok} == {"declarations"}


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
    others = [path for path in (copied / ".tidemill" / "blobs").rglob("*") if path.is_file() and path != blob][:11]
    for path in others:
        path.chmod(0o644)
        path.write_bytes(b"?")
    told = tidemill("doctor", "--json", folder=copied).stdout
    assert all(path.name[:8] in told for path in others), "who is to delete them needs each name"


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


# ── an older ledger, and one in a database ──────────────────────────────────────────────────────────────────────────────


def test_an_older_ledger_is_moved_forward_when_asked(tidemill: Command, copied: Path) -> None:
    import sqlite3

    with sqlite3.connect(copied / ".tidemill" / "records.db") as records:
        records.executescript("DROP INDEX edge_by_parent; DROP INDEX execution_by_end; PRAGMA user_version = 1")
    records.close()
    refused = tidemill("status", folder=copied)
    assert refused.returncode == 4
    assert "tidemill migrate" in refused.stderr
    moved = tidemill("migrate", folder=copied)
    assert moved.stdout.startswith("format 1 → "), moved.stderr
    assert tidemill("status", folder=copied).returncode == 0
    again = json.loads(tidemill("migrate", "--json", folder=copied).stdout)
    assert again["before"] == again["format"]


def test_one_setting_moves_the_ledger_to_a_database(tidemill: Command, tmp_path: Path, postgres: str) -> None:
    (tmp_path / "tidemill.toml").write_text(f'[project]\nname = "elsewhere"\n[store]\nrecords = "{postgres}"\n')
    nothing = tidemill("doctor", folder=tmp_path)
    assert "no ledger yet" in nothing.stdout + nothing.stderr
    assert tidemill("migrate", folder=tmp_path).stdout.startswith("new, format ")
    assert tidemill("doctor", folder=tmp_path).returncode == 0
    assert not (tmp_path / ".tidemill" / "records.db").exists()


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


def test_a_source_that_may_not_be_read_is_said(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p")
    (folder / "parcels.csv").chmod(0)
    found = tidemill("replay", folder=folder, heeds_modes=True)
    assert (found.returncode, "the file 'parcels.csv' cannot be read: Permission denied" in found.stderr) == (3, True), found.stderr
    assert f"{folder / 'parcels.py'}:5" in found.stderr


def test_a_folder_that_may_not_be_read_is_no_module(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", declarations=f"import secrets\n{DECLARATIONS}")
    (folder / "secrets").mkdir(mode=0)
    found = tidemill("doctor", folder=folder, heeds_modes=True)
    assert re.search(r"ok +declarations", found.stdout), found.stdout + found.stderr
    (folder / "parcels.py").chmod(0)
    found = tidemill("doctor", folder=folder, heeds_modes=True)
    assert "parcels.py cannot be imported: PermissionError" in found.stdout


def test_errors_for_programs_are_objects(tidemill: Command, tmp_path: Path) -> None:
    found = tidemill("replay", "--json", folder=tmp_path)
    error = json.loads(found.stdout)
    assert (found.returncode, error["error"]) == (3, "MissingFile")
    assert error["where"] == str(tmp_path)
    assert "init" in error["next"]


def test_approving_what_does_not_wait_is_refused(tidemill: Command, copied: Path) -> None:
    found = tidemill("approve", "trees/1", folder=copied)
    assert (found.returncode, "trees/1 is not waiting for approval" in found.stderr) == (2, True)


# ── a state that cannot be written ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def locked(copied: Path) -> Iterator[Path]:
    """A project whose state nobody may write, root neither if it heeds modes."""
    subprocess.run(["chmod", "-R", "a-w", copied / ".tidemill"], check=True)
    yield copied
    subprocess.run(["chmod", "-R", "u+w", copied / ".tidemill"], check=True)


@pytest.mark.parametrize("command", ["status", "lineage late", "lineage prediction:p100-003", "why trees/1", "why", "doctor"])
def test_a_state_that_cannot_be_written_can_be_read(tidemill: Command, locked: Path, command: str) -> None:
    state = locked / ".tidemill"
    before = sorted(state.rglob("*"))
    found = tidemill(*command.split(), folder=locked, heeds_modes=True)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert sorted(state.rglob("*")) == before


@pytest.mark.parametrize("there", [[], ["online"], ["online", "log"]])
def test_a_server_says_what_it_must_write(tidemill: Command, locked: Path, there: list[str]) -> None:
    """Also when the one or the other is there and may be written."""
    state = locked / ".tidemill"
    state.chmod(0o755)
    for name in there:
        (state / name).mkdir()
    if "log" in there:
        (state / "log" / "late.jsonl").touch()
        (state / "log" / "late.jsonl").chmod(0o444)
        (state / "log").chmod(0o555)
    state.chmod(0o555)
    found = tidemill("up", "--port", "0", folder=locked, heeds_modes=True)
    place, what = (state / "online", "the online store") if not there else (state / "log", "the log of answers")
    assert found.returncode == 4
    assert f"cannot write {what}: Permission denied" in found.stderr
    assert f"where: {place}" in found.stderr
    assert f"next: give this user the right to write; a server writes its online store and the log of answers below {state}" in found.stderr


def test_an_online_store_that_is_there_and_may_not_be_written_is_said(tidemill: Command, locked: Path) -> None:
    folder = locked / ".tidemill" / "online"
    subprocess.run(["chmod", "-R", "u+w", folder.parent], check=True)
    LmdbOnline(folder).close()
    subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    found = tidemill("up", "--port", "0", folder=locked, heeds_modes=True)
    assert (found.returncode, "cannot write the online store: Permission denied" in found.stderr) == (4, True), found.stderr


@pytest.mark.parametrize("command", ["run", "replay", "approve trees/9"])
def test_what_must_write_says_so(tidemill: Command, locked: Path, command: str) -> None:
    found = tidemill(*command.split(), folder=locked, heeds_modes=True)
    assert found.returncode == 4
    assert f"where: {locked / '.tidemill' / 'writer.lock'}" in found.stderr
    assert "next: give this user the right to write" in found.stderr


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────────────

COMPARISON = """
cheap = tm.RetrainPolicy(watch, on=[tm.QualityDrop("log_loss", by=0.03)], cooldown="8d", min_new_labels=100)
what_if = tm.PolicyComparison(cheap, against=[tm.Never()], choose_on=("2024-03-01", "2024-04-12"), report_on=("2024-04-12", "2024-05-01"))
"""


def test_policies_are_compared_and_nothing_that_serves_moves(tidemill: Command, copied: Path) -> None:
    before = of_json(tidemill("status", "--json", folder=copied))
    (copied / "parcels.py").write_text(DECLARATIONS + COMPARISON.replace("[tm.Never()]", '[tm.Never(), tm.Age("300d")]'))
    table = tidemill("policy", "compare", folder=copied)
    assert table.returncode == 0, table.stderr
    for text in ("on drop of log_loss", "never", "← chosen", "regret", "rows × rounds"):
        assert text in table.stdout
    found = of_json(tidemill("policy", "compare", "--json", folder=copied))
    told = [("trees", "on drop of log_loss", ""), ("trees", "never", ""), ("trees", "age 300d", "never")]
    assert [(one["model"], one["policy"], one["same_as"]) for one in found["policies"]] == told
    assert table.stdout.count("the same: age 300d") == table.stdout.count("age 300d") == 1
    for columns in (60, 80, 100, 120):
        narrow = tidemill("policy", "compare", folder=copied, COLUMNS=str(columns)).stdout.splitlines()
        assert max(map(len, narrow)) <= columns
        assert not any("…" in line for line in narrow)
    (copied / "parcels.py").write_text(DECLARATIONS)
    after = of_json(tidemill("status", "--json", folder=copied))
    assert after["deployments"] == before["deployments"]


def test_a_project_without_a_comparison_says_what_to_declare(tidemill: Command, kept: Path) -> None:
    found = tidemill("policy", "compare", folder=kept)
    assert (found.returncode, "PolicyComparison" in found.stderr) == (2, True)


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_are_listed_shown_and_told_apart(copied: Path, tidemill: Command) -> None:
    (model,) = json.loads(tidemill("models", "list", "--json", folder=copied).stdout)
    assert (model["name"], model["deployment"], model["newest"], model["aliases"]) == ("trees", "late", "5", {"champion": "4"})
    assert "trees" in tidemill("models", "list", folder=copied).stdout
    shown = json.loads(tidemill("models", "show", "trees", "--json", folder=copied).stdout)
    assert [one["version"] for one in shown["versions"]] == ["5", "4", "3", "2", "1"]
    told = [line.split() for line in tidemill("models", "show", "trees", folder=copied).stdout.splitlines()[2:]]
    assert [line[-2:] for line in told] == [[one["ref"], one["run_id"][:8]] for one in shown["versions"]], "a line for each version"
    moves = json.loads(tidemill("models", "history", "trees", "champion", "--json", folder=copied).stdout)
    assert [(move["version"], move["who"]) for move in moves] == [("1", "loop"), ("2", "loop"), ("4", "loop")]
    assert "the first champion" in tidemill("models", "history", "trees", folder=copied).stdout
    found = json.loads(tidemill("models", "diff", "trees/2", "trees@champion", "--json", folder=copied).stdout)
    assert (found["two"], len(found["predictions"])) == ("trees/4", 2)
    said = tidemill("models", "diff", "trees/2", "trees/4", folder=copied).stdout
    assert "predictions on the golden cases of trees/2: 20 rows" in said
    assert "equal: code, environment, signature, features" in said
    unknown = tidemill("models", "show", "none", folder=copied)
    assert (unknown.returncode, "Traceback" in unknown.stderr) == (2, False)


def test_an_alias_goes_back_and_a_replay_does_not(copied: Path, tidemill: Command) -> None:
    refused = tidemill("rollback", "late", "--why", "worse", folder=copied)
    assert (refused.returncode, "`tidemill run --deployment late` begins a live branch" in refused.stderr) == (6, True)
    followed = tidemill("rollback", "models:/trees@champion", "--why", "worse", folder=copied)
    assert (followed.returncode, "`tidemill rollback late` moves it back" in followed.stderr) == (6, True)
    with project.find(copied).writing("test") as ledger:
        for version in ("1", "2"):
            set_alias(ledger, "trees", "liked", version, who="ann", why="nice")
    done = tidemill("rollback", "models:/trees@liked", "--why", "worse", "--who", "ben", "--json", folder=copied)
    assert json.loads(done.stdout) == {"what": "models:/trees@liked", "before": "trees/2", "now": "trees/1", "dropped": ""}
    moves = json.loads(tidemill("models", "history", "trees", "liked", "--json", folder=copied).stdout)
    assert [(move["version"], move["who"], move["why"]) for move in moves] == [
        ("1", "ann", "nice"),
        ("2", "ann", "nice"),
        ("1", "ben", "worse"),
    ]
    assert tidemill("rollback", "late", folder=copied).returncode == 2, "without a reason"
    empty = tidemill("rollback", "models:/trees@liked", "--why", " ", folder=copied)
    assert (empty.returncode, "--why is empty" in empty.stderr) == (2, True)


def test_a_store_is_taken_over_and_a_version_written_out(tmp_path: Path, tidemill: Command) -> None:
    unpacked(Path(__file__).parents[1] / "clients" / "stores" / "stores.tar.xz", tmp_path)
    home, source = tmp_path / "home", f"sqlite:///{tmp_path}/db/mlflow.db"
    home.mkdir()
    planned = tidemill("import", source, "--dry-run", folder=home)
    assert (planned.returncode, "nothing was written: a dry run" in planned.stdout) == (0, True), planned.stderr
    assert json.loads(tidemill("models", "list", "--json", folder=home).stdout) == []
    done = tidemill("import", source, folder=home)
    assert (done.returncode, "1,105" in done.stdout) == (0, True), done.stderr
    again = json.loads(tidemill("import", str(tmp_path / "mlruns"), "--json", folder=home).stdout)
    assert (again["new"]["runs"], len(again["problems"])) == (5, 2), "versions of the same numbers"
    written = tidemill("export", "models:/parcels@champion", str(tmp_path / "out"), "--json", folder=home)
    assert json.loads(written.stdout)["files"] == ["MLmodel", "model.pkl"]
    full = tidemill("export", "parcels/3", str(tmp_path / "out"), folder=home)
    assert (full.returncode, "holds something already" in full.stderr) == (6, True)
    missing = tidemill("import", str(tmp_path / "none"), folder=home)
    assert (missing.returncode, "there is nothing to import" in missing.stderr) == (3, True)


def test_a_version_of_the_loop_is_written_as_a_model_directory(copied: Path, tidemill: Command, tmp_path: Path) -> None:
    done = tidemill("export", "trees@champion", str(tmp_path / "out"), folder=copied)
    assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "out" / "MLmodel").read_text())
    assert (sorted(model["flavors"]), model["metadata"]["tidemill"]["version"]) == (["onnx", "python_function"], "trees/4")
    assert (tmp_path / "out" / "model.onnx").stat().st_size == model["model_size_bytes"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".pkl"]
