"""`tidemill features list`, `show` and `search` as a person reads them."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cli.conftest import Command
from disks import small_disk
from tidemill import loop, project
from tidemill import open as open_project
from tidemill.core import Ref
from tidemill.serving import AnswerLog, sample_answers
from tidemill.session import log_of
from tidemill.session.session import open_endpoint
from toy import DECLARATIONS, ZONE, open_toy, write_project


def test_views_are_listed_shown_and_found(tidemill: Command, kept: Path) -> None:
    listed = tidemill("features", "list", folder=kept).stdout
    assert "depot_recent" in listed
    assert "by the replay's clock, 2024-05-01T04:00:00Z" in listed
    shown = tidemill("features", "show", "depot_recent", folder=kept).stdout
    for said in (
        "mean(late)",
        "source parcels.csv@",
        "trees/4 serves since 2024-04-20, in a replay",
        "as declared",
        "to compute",
        "late_share_3d",
    ):
        assert said in shown
    assert "z 3" in tidemill("features", "show", "booking:grade", folder=kept).stdout
    assert "late_share" in tidemill("features", "search", "late", "share", folder=kept).stdout
    assert "nothing is found for 'unheard of'" in tidemill("features", "search", "unheard", "of", folder=kept).stdout


@pytest.mark.parametrize("call", ["list", "show depot_recent", "show booking", "search late"])
def test_a_terminal_of_eighty_columns_shows_every_line_whole(tidemill: Command, kept: Path, call: str) -> None:
    shown = tidemill("features", *call.split(), folder=kept, COLUMNS="80").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown.replace("1 … 5", "")


@pytest.mark.parametrize(("call", "key"), [("list", "views"), ("show depot_recent", "statistics"), ("search late", "found")])
def test_each_is_one_object_for_machines(tidemill: Command, kept: Path, call: str, key: str) -> None:
    assert json.loads(tidemill("features", *call.split(), "--json", folder=kept).stdout)[key]


def test_before_anything_has_run_it_says_that_nothing_is_built(tidemill: Command, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", [])
    for call in (["list"], ["show", "courier_last"]):
        found = tidemill("features", *call, folder=folder)
        assert found.returncode == 0, found.stderr
        assert "nothing is built yet" in found.stdout
    wrong = tidemill("features", "show", "nothing", folder=folder)
    assert wrong.returncode == 2
    assert "available: booking, courier_last, depot_recent" in wrong.stderr


def test_what_is_no_longer_kept_is_said(tidemill: Command, copied: Path) -> None:
    with project.find(copied).writing("test") as ledger:
        for blob in ledger.artifact(Ref("feature view", "courier_last")).meta["blobs"].values():
            ledger.blobs.delete(blob)
    shown = tidemill("features", "show", "courier_last", folder=copied).stdout
    assert "its bytes are no longer kept" in shown
    assert "no statistics: neither stored rows nor a training set hold these values" in shown


def test_a_version_that_is_damaged_is_said_beside_the_others(tidemill: Command, copied: Path) -> None:
    with project.find(copied).writing("test") as ledger:
        for blob in ledger.artifact(Ref("feature view", "courier_last")).meta["blobs"].values():
            ledger.blobs.path(blob).write_bytes(b"another")
    listed = tidemill("features", "list", folder=copied)
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines if " damaged" in line] == ["courier_last"]
    assert "tidemill doctor" in listed.stdout
    assert "its bytes are not what was written" in tidemill("features", "show", "courier_last", folder=copied).stdout


def test_a_disk_for_reading_only_is_enough(tidemill: Command, kept: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "128m") as disk:
        folder = shutil.copytree(kept, disk / "parcels")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for call in (["list"], ["show", "depot_recent"], ["search", "late"]):
            found = tidemill("features", *call, folder=folder)
            assert found.returncode == 0, found.stderr
            assert "depot_recent" in found.stdout


def test_skew_of_what_was_served_is_told_and_is_an_exit_code(tidemill: Command, copied: Path) -> None:
    none = tidemill("features", "skew", folder=copied)
    assert (none.returncode, "none of 0 answers has its features in the log" in none.stderr) == (3, True)
    session = open_project(copied)
    endpoint, log = session.deployments["late"].endpoint(), AnswerLog(log_of(session.project, "late"))
    rows = [{"parcel": f"p{day}-{place:03}"} for day in (110, 111) for place in range(40)]
    asked = [int(endpoint.rows.known.at[endpoint.rows.known.find(row["parcel"])]) for row in rows]
    log.append(endpoint.answer(rows, asked, keep=1.0), 5, session.branch.id)
    clean = tidemill("features", "skew", "late", folder=copied)
    assert clean.returncode == 0, clean.stderr
    assert "80 of 80 compared: all 8 features equal" in clean.stdout
    assert "no feature surely differs in more than 0.10% of the answers" in clean.stdout
    endpoint.rows = replace(endpoint.rows, known=replace(endpoint.rows.known, values=endpoint.rows.known.values * [1.0, 2.0, 1.0]))
    log.append(endpoint.answer(rows, asked, keep=1.0), 7_000_000, session.branch.id)
    session.close()
    found = tidemill("features", "skew", "--since", "1970-01-01T00:00:06Z", "--rows", "40", folder=copied)
    assert found.returncode == 1
    assert "booking__weight" in found.stdout
    assert "and 7 that are equal in all" in found.stdout
    assert re.search(r"p11[01]-0\d\d at 2024-04-2\d.*: served [\d.-]+, offline [\d.-]+", found.stdout)
    assert "1 of 8 features surely differ in more than 0.10% of the answers" in found.stdout
    plain = json.loads(tidemill("features", "skew", "--json", folder=copied).stdout)
    assert (plain["answers"], plain["rows"], plain["over"]) == (160, 160, ["booking__weight"])
    (weight,) = [one for one in plain["features"] if one["name"] == "booking__weight"]
    assert (weight["mismatch"], weight["greatest"]) == (80, 0.5)
    narrow = tidemill("features", "skew", folder=copied, COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert re.search(r"^booking__weight +160 ", narrow, re.MULTILINE)
    assert "…" not in narrow
    tree = tidemill("lineage", plain["report"], folder=copied).stdout
    for made_from in ("prediction log:late@", "model:trees@", "feature view:depot_recent@", "requests:bookings@"):
        assert made_from in tree
    assert "no deployment 'early' serves" in tidemill("features", "skew", "early", folder=copied).stderr
    assert "0 is not in the range" in tidemill("features", "skew", "--rows", "0", folder=copied).stderr


def test_what_is_held_by_skew_is_said(tidemill: Command, tmp_path: Path) -> None:
    declarations = DECLARATIONS.replace("maturity=0.9)", "maturity=0.9, skew=tm.Skew())")
    folder = write_project(tmp_path / "parcels", declarations=declarations)
    with project.find(folder).writing("test") as ledger:
        toy = open_toy(folder, loop.prepare(ledger))
        branch = loop.run_once(ledger, toy.built, toy.policy, toy.at("2024-03-01"), ZONE).branch
        found = ledger.branch(branch)
        assert found is not None
        endpoint, log = open_endpoint(ledger, toy.declared, found), AnswerLog(log_of(toy.declared, "late"))
        endpoint.rows = replace(endpoint.rows, known=replace(endpoint.rows.known, values=endpoint.rows.known.values * [1.0, 2.0, 1.0]))
        rows = [row for row, at in enumerate(endpoint.rows.known.at.tolist()) if toy.at("2024-03-01") < at < toy.at("2024-03-05")]
        keys, at = [{"parcel": endpoint.rows.known.keys[row].decode()} for row in rows], endpoint.rows.known.at[rows].tolist()
        log.append(endpoint.answer(keys, at, keep=1.0), toy.at("2024-03-02"), branch)
        loop.run_once(ledger, toy.built, toy.policy, toy.at("2024-03-05"), ZONE, sample=partial(sample_answers, log.path))
    shown = " ".join(tidemill("-v", "status", folder=folder).stdout.split())
    for said in (
        "held nothing goes live while features are not served as learnt: booking__weight differs in",
        f"answers from 2024-03-01T05:00 to 2024-03-05T05:00, {len(rows)} of {len(rows)} compared: 1 of 8 features differ",
        "alerts 2024-03-05 skew found: booking__weight differs in",
    ):
        assert said in shown
    run = tidemill("run", folder=folder)
    assert "features are not served as they are learnt: booking__weight differs in" in run.stdout


def test_an_entity_is_told_of_first_and_erased_with_yes(tidemill: Command, copied: Path) -> None:
    planned = tidemill("features", "erase", "courier", "a", folder=copied)
    assert (planned.returncode, "nothing was erased: the same with --yes does it" in planned.stdout) == (0, True)
    assert "view:courier_last@" in planned.stdout
    told = json.loads(tidemill("features", "erase", "courier", "a", "--yes", "--why", "asked by mail", "--json", folder=copied).stdout)
    assert told["done"]
    assert {one["place"] for one in told["found"]} >= {"offline", "files"}
    assert any(one["what"].startswith("model:") for one in told["stays"])
    assert "erased: its bytes were erased because somebody asked for it" in tidemill("features", "list", folder=copied).stdout
    refused = tidemill("features", "erase", "couriers", "a", folder=copied)
    assert (refused.returncode, "no entity 'couriers' is declared" in refused.stderr) == (2, True)
    assert "nothing found" in tidemill("features", "erase", "courier", "nobody", "--yes", folder=copied).stdout


def test_views_of_other_projects_are_listed_and_a_withdrawn_one_is_refused(tidemill: Command, tmp_path: Path) -> None:
    code = 'import tidemill as tm\nrows = tm.Dataset("rows", {"s": tm.Source("s.csv")}, event_time="at")\n'
    code += (
        'day = tm.FeatureView("day", rows, tm.Entity("shop", key="shop"), {"n": tm.count()}, windows=["24h"], owner="bob", shared=True)\n'
    )
    use = 'import tidemill as tm\nday = tm.shared("shops", "day")\n'
    for name, text, more in (("shops", code, ""), ("users", use, '[shared]\nshops = "../shops"\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tidemill.toml").write_text(f'[project]\nname = "{name}"\n{more}')
        (tmp_path / name / "views.py").write_text(text)
    shops, users = tmp_path / "shops", tmp_path / "users"
    (shops / "s.csv").write_text("shop,at\n1,2024-03-10T09:00:00Z\n")
    early = tidemill("features", "list", folder=users)
    assert early.returncode == 3
    assert f"where: {users / 'views.py'}:2" in early.stderr
    assert tidemill("features", "materialise", folder=shops).returncode == 0
    assert re.search(
        r"shops/day +shop \(shop\) +1 +2024-03-10 09:00 +bob +day", tidemill("features", "list", "--shared", folder=users).stdout
    )
    assert tidemill("features", "materialise", folder=users).stdout == "day: 1 entities written\n"
    assert "taken from shops/day, owner bob; its newest rows are here" in tidemill("features", "show", "day", folder=users).stdout
    (shops / "views.py").write_text(code.replace(", shared=True", ""))
    assert tidemill("features", "materialise", folder=shops).returncode == 0
    refused = tidemill("features", "materialise", "day", folder=users)
    assert refused.returncode == 6
    assert "view=shops/day as it was shared before: project shops has not shared view 'day' since" in refused.stderr
    assert "project shops shares no view over dataset 'rows' since" in refused.stderr
    assert "[shared]" in tidemill("features", "list", "--shared", folder=shops).stdout
