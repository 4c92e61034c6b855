"""The catalogue of a project: what is declared, what was built of it, who uses it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidemill as tm
from postgres import move_records, new_schema
from tidemill import project
from tidemill.core import UnknownName
from tidemill.ledger import Ledger
from tidemill.session import Session
from toy import DECLARATIONS, SETTINGS, make_rows, write_project, write_rows

WORDS = 'windows=["12h", "3d"], owner="ann", tags=["depots"], description="what arrived of late",'


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, kept: Path, tmp_path: Path) -> Iterator[Path]:
    """The project with its replay, its records in a file or in PostgreSQL."""
    if request.param == "sqlite":
        yield kept
        return
    with new_schema() as address:
        folder = shutil.copytree(kept, tmp_path / "parcels")
        move_records(folder, address)
        yield folder


def listed(session: Session) -> dict[str, dict[str, Any]]:
    return {view["name"]: view for view in session.features.list()}


def declare(folder: Path, before: str, after: str) -> Session:
    """The project with one thing said in another way."""
    assert before in DECLARATIONS
    (folder / "parcels.py").write_text(DECLARATIONS.replace(before, after))
    return tm.open(folder)


def damage(ledger: Ledger, ref: tm.core.Ref) -> None:
    """Turn a byte in the middle of each blob of the newest artifact of a name."""
    for digest in ledger.artifact(ref).meta["blobs"].values():
        file = ledger.blobs.path(digest)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(data)


def test_what_was_replayed_is_listed_by_the_clock_of_the_replay(either: Path) -> None:
    found = listed(tm.open(either))
    assert list(found) == ["depot_recent", "courier_last", "booking"]
    recent = found["depot_recent"]
    assert (recent["entity"], recent["features"], recent["values"]) == ({"name": "depot", "key": ["depot"]}, ["late_share", "delivered"], 4)
    assert recent["deployments"] == ["late"]
    assert recent["freshness"]["clock"] == "replay"
    assert recent["freshness"]["now"] == "2024-05-01T04:00:00Z"
    assert 0 <= recent["freshness"]["seconds"] < 86_400, "rows that the replay's clock has not reached count for nothing"
    assert found["booking"]["kind"] == "request view"
    assert found["booking"]["null_share"] == 0


def test_a_view_knows_its_sources_and_the_models_bound_to_it(either: Path) -> None:
    session = tm.open(either)
    found = session.features.show("depot_recent")
    version = found["newest"]["version"]
    assert session.ledger.artifact(tm.core.Ref("feature view", "depot_recent")).ref.version == version
    assert [source["path"] for source in found["dataset"]["sources"]] == ["parcels.csv"]
    assert found["dataset"]["sources"][0]["bytes"] == (either / "parcels.csv").stat().st_size
    assert "WHERE late IS NOT NULL" in found["dataset"]["query"]
    assert [(one["deployment"], one["champion"], one["bound_to"]) for one in found["deployments"]] == [("late", "trees/4", version)]
    assert [(one["versions"], one["bound_to"]) for one in found["models"]] == [([f"trees/{n}" for n in (1, 2, 3, 4, 5)], version)]
    asked = session.features.show("booking")
    assert {one["bound_to"] for one in (*asked["deployments"], *asked["models"])} == {asked["newest"]["version"]}


def test_statistics_of_windows_are_of_the_training_set_and_others_of_stored_rows(kept: Path) -> None:
    session = tm.open(kept)
    recent, last, asked = (session.features.show(name) for name in ("depot_recent", "courier_last", "booking"))
    assert recent["statistics"]["over"].startswith("training set:late@")
    assert list(recent["statistics"]["features"]) == [
        f"depot_recent__{name}" for name in ("late_share_12h", "late_share_3d", "delivered_12h", "delivered_3d")
    ]
    values = last["statistics"]["features"]["courier_last__late"]
    assert (values["count"], values["nulls"], values["min"], values["max"]) == (last["newest"]["rows"], 0, 0, 1)
    assert {one["value"] for one in asked["statistics"]["features"]["booking__grade"]["top"]} == set("xyz")
    assert asked["statistics"]["features"]["booking__hour"]["max"] == 23
    for found in (recent, last, asked):
        assert found["cost"]["seconds"] > 0
        assert found["cost"]["bytes"] > 1000


def test_one_feature_can_be_asked_for_alone(kept: Path) -> None:
    found = tm.open(kept).features.show("depot_recent:delivered")
    assert {name: one["made_by"] for name, one in found["definition"]["features"].items()} == {"delivered": "count()"}
    assert list(found["statistics"]["features"]) == ["depot_recent__delivered_12h", "depot_recent__delivered_3d"]


@pytest.mark.parametrize("name", ["depot_recent:delivered_3d", "depot_recent__delivered_3d"])
def test_a_feature_in_one_window_is_named_as_models_and_files_name_it(kept: Path, name: str) -> None:
    found = tm.open(kept).features.show(name)
    assert list(found["definition"]["features"]) == ["delivered"]
    assert list(found["statistics"]["features"]) == ["depot_recent__delivered_3d"]


def test_before_anything_has_run_it_says_what_is_declared_and_writes_nothing(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p")
    session = declare(folder, 'windows=["12h", "3d"],', WORDS)
    found = listed(session)["depot_recent"]
    assert (found["owner"], found["tags"], found["newest"], found["null_share"], found["freshness"]) == (
        "ann",
        ["depots"],
        None,
        None,
        None,
    )
    shown = session.features.show("depot_recent")
    assert shown["deployments"] == [{"deployment": "late", "branch": "", "champion": "", "since": "", "bound_to": ""}]
    assert (shown["models"], shown["versions"], shown["statistics"]["features"], shown["cost"]) == ([], [], {}, None)
    assert [hit["name"] for hit in session.features.search("ann")] == ["depot_recent"]
    assert not (folder / ".tidemill").exists()


def test_before_anything_has_run_in_a_database_it_says_the_same(tmp_path: Path) -> None:
    with new_schema() as address:
        folder = write_project(tmp_path / "p", [], settings=f'{SETTINGS}\n[store]\nrecords = "{address}"\n')
        assert listed(tm.open(folder))["booking"]["newest"] is None


def test_an_edit_that_is_not_built_yet_is_told_and_words_are_none(copied: Path) -> None:
    found = listed(declare(copied, 'windows=["12h", "3d"],', WORDS))
    assert not found["depot_recent"]["newest"]["of_an_earlier_definition"]
    session = declare(copied, 'ttl="2d"', 'ttl="3d"')
    shown = session.features.show("courier_last")
    assert shown["newest"]["of_an_earlier_definition"]
    assert shown["definition"]["ttl"] == "3d"
    assert shown["statistics"]["features"]["courier_last__late"]["nulls"] == 0
    assert shown["deployments"][0]["bound_to"] == shown["newest"]["version"], "what serves goes on with what it was trained on"


def test_newer_rows_make_a_newer_version_and_models_stay_bound_to_theirs(copied: Path) -> None:
    before = tm.open(copied).features.show("courier_last")
    write_rows(copied, make_rows()[:-60])
    session = tm.open(copied)
    rows = {"courier": ["a"], "at": ["2024-04-01T00:00:00Z"]}
    session.historical_features(rows, ["courier_last"], at="at")
    session.close()
    shown = tm.open(copied).features.show("courier_last")
    assert len(shown["versions"]) == 2
    assert shown["versions"][0]["version"] == shown["newest"]["version"] != before["newest"]["version"]
    assert shown["deployments"][0]["bound_to"] == shown["models"][0]["bound_to"] == before["newest"]["version"]
    assert not shown["newest"]["of_an_earlier_definition"]
    assert shown["statistics"]["of_version"] == shown["newest"]["version"]


def test_statistics_of_a_training_set_say_from_which_version_it_was_made(copied: Path) -> None:
    bound = tm.open(copied).features.show("depot_recent")["newest"]["version"]
    write_rows(copied, make_rows()[:-60])
    session = tm.open(copied)
    session.historical_features({"depot": ["N"], "at": ["2024-04-01T00:00:00Z"]}, ["depot_recent"], at="at")
    shown = session.features.show("depot_recent")
    assert shown["statistics"]["of_version"] == bound != shown["newest"]["version"]


def test_a_version_whose_bytes_are_gone_says_so(copied: Path) -> None:
    with project.find(copied).writing("test") as ledger:
        artifact = ledger.artifact(tm.core.Ref("feature view", "courier_last"))
        ledger.blobs.delete(artifact.meta["blobs"]["events"])
    session = tm.open(copied)
    shown = session.features.show("courier_last")
    assert (shown["freshness"], shown["cost"]["bytes"], shown["statistics"]["features"]) == (None, None, {})
    assert shown["newest"]["bytes"] == "gone"
    assert listed(session)["courier_last"]["null_share"] is None


@pytest.mark.parametrize("name", ["courier_last", "booking", "depot_recent"])
def test_a_version_whose_bytes_are_damaged_says_so_and_the_others_are_listed(copied: Path, name: str) -> None:
    kind = "requests" if name == "booking" else "feature view"
    with project.find(copied).writing("test") as ledger:
        damage(ledger, tm.core.Ref(kind, "bookings" if name == "booking" else name))
    session = tm.open(copied)
    found = listed(session)
    assert {view: one["newest"]["bytes"] for view, one in found.items()} == {view: "damaged" if view == name else "kept" for view in found}
    assert found[name]["freshness"] is None
    shown = session.features.show(name)
    assert (shown["newest"]["bytes"], shown["freshness"], shown["cost"]["bytes"]) == ("damaged", None, None)


def test_a_training_set_that_is_damaged_has_no_statistics(copied: Path) -> None:
    with project.find(copied).writing("test") as ledger:
        damage(ledger, tm.core.Ref("examples", "late"))
    session = tm.open(copied)
    assert listed(session)["depot_recent"]["null_share"] is None
    assert session.features.show("depot_recent")["statistics"]["features"] == {}


@pytest.mark.parametrize(("name", "available"), [("nothing", "courier_last"), ("courier_last:nothing", "late"), ("", "booking")])
def test_a_wrong_name_tells_what_there_is(kept: Path, name: str, available: str) -> None:
    with pytest.raises(UnknownName) as error:
        tm.open(kept).features.show(name)
    assert available in error.value.available
