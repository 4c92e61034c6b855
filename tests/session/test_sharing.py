"""Views of one project used in another: the owner's values bit for bit, its say about who may, and what is left when it is away."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tidemill
from postgres import ask as ask_postgres
from postgres import new_schema
from tidemill import cli
from tidemill.core import DataError, DefinitionError, Erased, MissingFile, Ref, Refused, StoreError, TidemillError, UnknownName
from tidemill.data import ingest, publications, publish
from tidemill.features import FeatureView
from tidemill.session import Session, opened_as_built

WEATHER = """faa,seen,known,temp,sky
JFK,2024-03-10T09:00:00Z,2024-03-10T09:10:00Z,7.5,clear
JFK,2024-03-10T10:00:00Z,2024-03-10T10:10:00Z,8.5,rain
JFK,2024-03-10T10:00:00Z,2024-03-10T10:10:00Z,-8.5,fog
LGA,2024-03-10T10:00:00Z,2024-03-10T12:10:00Z,0.1,snow
LGA,2024-03-10T09:00:00Z,2024-03-10T12:10:00Z,0.2,snow
EWR,2024-03-10T10:00:00Z,2024-03-10T10:10:00Z,,clear
"""
OWN = """import tidemill as tm

query = "SELECT faa, CAST(seen AS TIMESTAMPTZ) AS seen, CAST(known AS TIMESTAMPTZ) AS known, CAST(temp AS DOUBLE) AS temp, sky FROM w"
rows = tm.Dataset("rows", {"w": tm.Source("weather.csv")}, event_time="seen", known_at="known", query=query, checks=[tm.not_null("faa")])
airport = tm.Entity("airport", key="faa", description="where one takes off")
weather = tm.FeatureView("weather", rows, airport, {"temp": tm.last("temp").described("in °C"), "sky": tm.category("sky")},
    ttl="1d", owner="bob", tags=["sky"], description="the sky above", shared=True)
day = tm.FeatureView("day", rows, airport, {"n": tm.count(), "sum": tm.sum("temp")}, windows=["24h", "lifetime"], shared=True)
mine = tm.FeatureView("mine", rows, airport, {"n": tm.count()}, windows=["24h"])
"""
USE = """import tidemill as tm

weather = tm.shared("airports", "weather")
day = tm.shared("airports", "day")
"""
BOTH = ["weather", "day"]


@dataclass
class Two:
    """The folders of an owner and of who uses its views; `move` takes the owner's ledger away, and back."""

    owner: Path
    user: Path
    move: Callable[[bool], None]


def project(folder: Path, name: str, code: str, more: str = "") -> Path:
    folder.mkdir()
    (folder / "tidemill.toml").write_text(f'[project]\nname = "{name}"\nowner = "{name} team"\n{more}')
    (folder / "views.py").write_text(code)
    return folder


@pytest.fixture(params=["folders", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Two]:
    with ExitStack() as stack:
        if request.param == "folders":
            more, shared, move = ["", ""], 'airports = "../owner"', lambda away: aside(tmp_path, away)
        else:
            schemas = [stack.enter_context(new_schema()) for _ in range(2)]
            more = [f'[store]\nrecords = "{schema}"\n' for schema in schemas]
            shared = f'airports = {{records = "{schemas[0]}", blobs = "../owner/.tidemill/blobs"}}'
            move = lambda away: renamed(schemas[0].rpartition("=")[2], away)  # noqa: E731
        owner = project(tmp_path / "owner", "airports", OWN, more[0])
        (owner / "weather.csv").write_text(WEATHER)
        user = project(tmp_path / "user", "delays", USE, f"{more[1]}[shared]\n{shared}\n")
        yield Two(owner, user, move)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's folder, its views built."""
    owner = project(tmp_path_factory.mktemp("sharing") / "owner", "airports", OWN)
    (owner / "weather.csv").write_text(WEATHER)
    ask(owner)
    return owner


@pytest.fixture
def folders(built: Path, tmp_path: Path) -> Two:
    """The same in folders alone, the owner's views built."""
    owner = shutil.copytree(built, tmp_path / "owner")
    user = project(tmp_path / "user", "delays", USE, '[shared]\nairports = "../owner"\n')
    return Two(owner, user, lambda away: aside(tmp_path, away))


def aside(folder: Path, away: bool) -> None:
    names = ("owner", "away") if away else ("away", "owner")
    (folder / names[0]).rename(folder / names[1])


def renamed(schema: str, away: bool) -> None:
    names = (schema, f"{schema}_away") if away else (f"{schema}_away", schema)
    ask_postgres(f"ALTER SCHEMA {names[0]} RENAME TO {names[1]}")


def edit(folder: Path, *changes: tuple[str, str]) -> None:
    file = folder / "views.py"
    for before, after in changes:
        assert file.read_text().count(before) == 1, before
        file.write_text(file.read_text().replace(before, after))


def ask(folder: Path, views: Any = BOTH, at: str = "2024-03-10T13") -> dict[str, Any]:
    """Features of all airports before and after the late rows were known."""
    rows = {"faa": np.array(["JFK", "LGA", "EWR", "XXX"] * 2, dtype=object)}
    rows["event_timestamp"] = np.array(["2024-03-10T11"] * 4 + [at] * 4, dtype="datetime64[us]")
    session = tidemill.open(folder)
    try:
        found = session.historical_features(rows, views, timezone="UTC", status=True).columns
        return {name: column.tobytes() if column.dtype != object else column.tolist() for name, column in found.items()}
    finally:
        session.close()


def online(folder: Path, views: Any = BOTH) -> list[Any]:
    session = tidemill.open(folder)
    try:
        session.materialise()
        found = session.online_features({"faa": ["JFK", "LGA", "EWR", "XXX"]}, views)
        assert found.offline == {}
        return [found.status, [list(row.values()) for row in session.online(views).get_many({"faa": ["JFK", "LGA", "EWR", "XXX"]})]]
    finally:
        session.close()


def push(folder: Path, **row: Any) -> None:
    session = tidemill.open(folder)
    session.push("rows", {"faa": "JFK", "seen": "2024-03-10T12:00:00Z", "known": "2024-03-10T12:00:00Z", "sky": "hail"} | row)
    session.close()


def test_the_values_are_the_owners_bit_for_bit(two: Two) -> None:
    theirs = ask(two.owner)
    assert ask(two.user) == theirs
    assert theirs["weather__sky"] == ["rain", None, "clear", None, "rain", "snow", "clear", None], "of equal times the last in their order"
    session = tidemill.open(two.owner)
    now = {"seen": "2024-03-10T12:00:00Z", "known": "2024-03-10T12:00:00Z", "sky": "hail"}
    session.push("rows", [{"faa": "JFK", "temp": 21.5, **now}, {"faa": "XXX", "temp": 20.25, **now}])
    session.close()
    before, theirs = ask(two.user, at="2044-01-01"), ask(two.owner, at="2044-01-01")
    assert before != theirs, "the owner's next version has what was pushed"
    assert ask(two.user, at="2044-01-01") == theirs
    assert online(two.user) == online(two.owner)


def test_rows_are_taken_once_and_say_whose_they_are(folders: Two) -> None:
    ask(folders.user)
    owner, user = tidemill.open(folders.owner), tidemill.open(folders.user)
    theirs, ours = owner.ledger.artifact(Ref("dataset", "rows")), user.ledger.artifact(Ref("dataset", "airports.rows"))
    assert ours.ref.digest == theirs.ref.digest
    assert ours.meta == theirs.meta
    tree = user.lineage("dataset:airports.rows")
    assert [str(parent.ref) for parent in tree.parents] == [f"source:airports/rows@{theirs.ref.version}"]
    assert tree.parents[0].meta["dataset"] == str(theirs.ref)
    view = user.project.get(FeatureView, "day")
    with user.project.writing("test") as ledger:
        assert ingest(ledger, view.dataset).cached
    with pytest.raises(DataError, match="another project's"):
        user.push("airports.rows", {"faa": "JFK"})
    with pytest.raises(DefinitionError, match="over rows of another project, and shared"):
        replace(view, shared=True)
    owner.close()
    user.close()


def test_a_view_is_declared_as_its_owner_does(folders: Two) -> None:
    ours, theirs = tidemill.open(folders.user), tidemill.open(folders.owner)
    for name in BOTH:
        view, own = ours.project.get(FeatureView, name), theirs.project.get(FeatureView, name)
        assert (view.about(), view.columns, view.entity) == (own.about(), own.columns, own.entity)
        assert (view.entity.about(), view.dataset.checks) == (own.entity.about(), own.dataset.checks)
        assert view.where.file == str(folders.user / "views.py")


# ── who may ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def caught(call: Callable[[], object]) -> TidemillError:
    with pytest.raises(TidemillError) as found:
        call()
    return found.value


@pytest.mark.parametrize(
    ("before", "after", "what", "available"),
    [
        ('"airports", "day"', '"airports", "mine"', "project airports shares no view 'mine'", ["day", "weather"]),
        ('"airports", "day"', '"airport", "day"', "no other project is named 'airport'", ["airports"]),
        ('"airports", "day"', '"airports", 7', "the view's name 7 is no text", []),
        ('"airports", "day"', '"airports", "../day"', "the view's name '../day' has '.'", []),
    ],
)
def test_what_is_not_shared_is_refused_with_its_place(folders: Two, before: str, after: str, what: str, available: list[str]) -> None:
    edit(folders.user, (before, after))
    error = caught(lambda: tidemill.open(folders.user))
    assert isinstance(error, (DefinitionError, UnknownName))
    assert (error.what, error.where, error.available) == (what, f"{folders.user / 'views.py'}:4", available)
    assert "mine" not in after or "ask airports team" in error.hint
    shared = Session(folders.user).features.shared()
    assert [one["name"] for one in shared] == ["airports/day", "airports/weather"], "who named it wrongly sees what there is"


def test_a_view_that_was_never_built_is_not_shared_yet(folders: Two) -> None:
    shutil.rmtree(folders.owner / ".tidemill")
    error = caught(lambda: tidemill.open(folders.user))
    assert isinstance(error, MissingFile)
    assert "has no ledger yet" in error.what
    edit(folders.owner, ('"lifetime"], shared=True', '"lifetime"]'), ('above", shared=True', 'above"'))
    ask(folders.owner)
    error = caught(lambda: tidemill.open(folders.user))
    assert error.what == "project airports shares no view 'weather'"
    assert error.available == []


@pytest.mark.parametrize("how", ["says so", "is gone"])
def test_a_withdrawn_view_is_not_brought_up_to_date_and_stays_as_it_was(folders: Two, how: str, caplog: pytest.LogCaptureFixture) -> None:
    ask(folders.user)
    gone = (", shared=True)\nmine", ")\nmine") if how == "says so" else ("day = ", "#")
    edit(folders.owner, gone, ('above", shared=True', 'above"'))
    ask(folders.owner, ["weather"])
    caplog.clear()
    session = tidemill.open(folders.user)
    assert len([one for one in caplog.messages if "has not shared view" in one]) == 2
    error = caught(lambda: session.historical_features({"faa": ["JFK"], "event_timestamp": ["2024-03-10T11:00:00Z"]}, BOTH))
    assert isinstance(error, Refused)
    assert "shares no view over dataset 'rows' since 2" in error.what
    assert session.features.show("day")["newest"]["bytes"] == "kept"
    opened = opened_as_built(session.ledger, session.project, session.project.get(FeatureView, "day"))
    assert opened is not None
    session.close()
    found = CliRunner().invoke(cli.tidemill, ["-C", str(folders.user), "doctor", "--json"])
    (told,) = [one for one in json.loads(found.output) if one["check"] == "other projects"]
    assert (told["ok"], told["found"].partition("\n")[0]) == (False, "used here and shared no longer: airports/day, airports/weather")
    shutil.rmtree(folders.user / ".tidemill" / "shared")
    error = caught(lambda: tidemill.open(folders.user))
    assert isinstance(error, DefinitionError)
    assert error.what.startswith("project airports has not shared view 'weather' since 2")
    edit(folders.owner, ('above"', 'above", shared=True'))
    ask(folders.owner, ["weather"])
    edit(folders.user, ('day = tm.shared("airports", "day")', ""))
    assert ask(folders.user, ["weather"]) == ask(folders.owner, ["weather"])


def test_only_the_projects_own_declaration_shares_or_withdraws(folders: Two) -> None:
    session = tidemill.open(folders.owner)
    shared = session.project.get(FeatureView, "weather")
    ask(folders.owner, [replace(shared, shared=False, ttl="2d")])
    assert not any(one.withdrawn for one in publications(session.ledger))
    edit(folders.owner, ("the sky above", "the sky"))
    ask(folders.owner)
    ask(folders.owner)
    history = session.ledger.alias_history("shared view", "weather", "newest")
    assert len(history) == 2, "a sentence is mended, and nothing else"
    assert len(session.ledger.alias_history("shared view", "day", "newest")) == 1
    assert {one.plain["about"]["description"] for one in publications(session.ledger)} == {"the sky", ""}
    session.close()


def test_what_was_imported_before_an_edit_does_not_undo_it(folders: Two) -> None:
    rows = {"faa": ["JFK"], "event_timestamp": ["2024-03-10T11:00:00Z"]}

    def shared() -> list[str]:
        session = Session(folders.owner)  # its files are not imported
        found = [one.view for one in publications(session.ledger) if not one.withdrawn]
        session.close()
        return sorted(found)

    before = tidemill.open(folders.owner)
    edit(folders.owner, ('above", shared=True', 'above"'))
    ask(folders.owner)
    assert shared() == ["day"]
    before.historical_features(rows, BOTH)
    assert shared() == ["day"], "a notebook that is still open shares nothing again"
    without = tidemill.open(folders.owner)
    edit(folders.owner, ('above"', 'above", shared=True'))
    ask(folders.owner)
    without.historical_features(rows, BOTH)
    assert shared() == BOTH[::-1], "nor does it withdraw"
    push(folders.owner, temp=1.5)
    before.historical_features(rows, BOTH)
    assert ask(folders.user, at="2044-01-01") == ask(folders.owner, at="2044-01-01"), "newer rows of the same declaration are shared"
    before.close()
    without.close()


# ── an owner who is away, or changes its mind ───────────────────────────────────────────────────────────────────────


def test_without_the_owners_store_what_was_built_is_used(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    ask(two.owner)
    before = online(two.user)
    two.move(True)
    caplog.clear()
    session = tidemill.open(two.user)
    assert len(caplog.messages) == 2, "one line for each view"
    assert all("as it was shared before" in one for one in caplog.messages)
    error = caught(lambda: session.historical_features({"faa": ["JFK"], "event_timestamp": ["2024-03-10T11:00:00Z"]}, BOTH))
    assert isinstance(error, (MissingFile, StoreError))
    assert error.what.startswith("dataset 'airports.rows' cannot be brought up to date: ")
    assert f"{two.user / 'tidemill.toml'}:" in error.hint
    with (two.user / "views.py").open("a") as file:
        file.write(
            'own = tm.FeatureView("own", tm.Dataset("own", {"s": tm.Source("own.csv")}, event_time="at"), tm.Entity("x", key="x"), ["y"])\n'
        )
    (two.user / "own.csv").write_text("x,at,y\n1,2024-03-10T09:00:00Z,2\n")
    session.close()
    session = tidemill.open(two.user)
    caplog.clear()
    assert session.materialise() == {"own": 1}
    assert [one.partition(":")[0] for one in caplog.messages] == ["view=weather is left as it is", "view=day is left as it is"]
    assert isinstance(caught(lambda: session.materialise(["day"])), (MissingFile, StoreError))
    found = session.online_features({"faa": ["JFK", "LGA", "EWR", "XXX"]}, BOTH)
    assert (found.status, found.offline) == (before[0], {})
    assert opened_as_built(session.ledger, session.project, session.project.get(FeatureView, "day")) is not None
    session.close()
    shutil.rmtree(two.user / ".tidemill" / "shared")
    error = caught(lambda: tidemill.open(two.user))
    assert isinstance(error, (MissingFile, StoreError))
    assert error.where == f"{two.user / 'views.py'}:3"
    two.move(False)
    assert ask(two.user) == ask(two.owner)


def test_a_cache_that_is_damaged_is_none(folders: Two) -> None:
    tidemill.open(folders.user)
    for file in (folders.user / ".tidemill" / "shared").glob("*.json"):
        file.write_bytes(file.read_bytes()[:50])
    folders.move(True)
    assert isinstance(caught(lambda: tidemill.open(folders.user)), MissingFile)


def test_an_edit_of_the_owner_is_one_here(folders: Two, caplog: pytest.LogCaptureFixture) -> None:
    before = tidemill.open(folders.user).project.get(FeatureView, "day")
    ask(folders.user)
    edit(
        folders.owner,
        ('tm.sum("temp")', 'tm.sum("temp + 1")'),
        ("CAST(temp AS DOUBLE) AS temp", "2 * CAST(temp AS DOUBLE) AS temp"),
    )
    ask(folders.owner, ["day"])  # the other view was not built since
    session = tidemill.open(folders.user)
    now = session.project.get(FeatureView, "day")
    assert now != before
    assert now.dataset == session.project.get(FeatureView, "weather").dataset
    assert "2 * CAST" in now.dataset.query
    assert ask(folders.user) == ask(folders.owner)
    with session.project.writing("test") as ledger:
        caplog.clear()
        newer = ingest(ledger, now.dataset).output
        assert caplog.messages == []
        older = ingest(ledger, before.dataset).output
        assert caplog.messages == ["dataset=airports.rows has no newer rows: project airports defines them otherwise by now"]
        swept = tidemill.open(folders.owner).ledger.blobs
        swept.delete(older.ref.digest)
        assert ingest(ledger, before.dataset).cached, "its bytes are here"
        ledger.blobs.delete(older.ref.digest)
        assert "cannot be taken" in caught(lambda: ingest(ledger, before.dataset)).what
    assert older.meta["profile"]["temp"]["max"] * 2 == newer.meta["profile"]["temp"]["max"], (
        "what was defined before has its rows of before"
    )
    session.close()


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_view_and_its_entity_may_have_other_names_here(folders: Two) -> None:
    own = """
own = tm.Dataset("own", {"o": tm.Source("own.csv")}, event_time="at")
day_ = tm.FeatureView("day", own, tm.Entity("airport", key="id"), ["x"])
"""
    (folders.user / "own.csv").write_text("id,at,x\nJFK,2024-03-10T09:00:00Z,1\n")
    (folders.user / "views.py").write_text(USE + own)
    error = caught(lambda: tidemill.open(folders.user))
    assert error.what == "the entity 'airport' is declared in two different ways"
    edit(folders.user, ('"weather")', '"weather", entity="field")'), ('"airports", "day")', '"airports", "day", entity="field")'))
    error = caught(lambda: tidemill.open(folders.user))
    assert error.what == "the feature view 'day' is declared in two different ways"
    assert f"{folders.user / 'views.py'}:4" in error.where
    edit(folders.user, ('"airports", "day", ', '"airports", "day", name="daily", '))
    theirs, ours = ask(folders.owner), ask(folders.user, ["weather", "daily"])
    assert ours == {name.replace("day__", "daily__"): values for name, values in theirs.items()}


def test_a_ledger_of_before_shares_nothing(folders: Two) -> None:
    shutil.rmtree(folders.owner / ".tidemill")
    edit(folders.owner, (", shared=True)\nmine", ")\nmine"), ('above", shared=True', 'above"'))
    ask(folders.owner)
    session = tidemill.open(folders.owner)
    assert publications(session.ledger) == []
    session.close()
    assert caught(lambda: tidemill.open(folders.user)).what == "project airports shares no view 'weather'"


# ── erasure ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_erased_here_is_not_taken_again(folders: Two) -> None:
    ask(folders.user)
    session = tidemill.open(folders.user)
    plan = session.erase_entity("airport", "JFK", dry_run=True).plain()
    assert {one["what"].partition("@")[0]: one["rows"] for one in plan["found"]}["airports/rows (dataset:airports.rows)"] == 3
    session.erase_entity("airport", "JFK")
    push(folders.owner, temp=99.5)
    theirs, ours = ask(folders.owner), ask(folders.user)
    assert ours["weather__sky"] == [None, None, "clear", None, None, "snow", "clear", None]
    assert theirs["weather__sky"][0] == "rain"
    assert ours["day__status"][:2] == ["unknown", "unknown"]
    assert session.ledger.artifact(Ref("dataset", "airports.rows")).meta["rows"] == 3
    session.close()


def test_the_owners_report_says_that_others_may_have_rows(folders: Two) -> None:
    edit(folders.owner, ('above", shared=True', 'above"'))
    session = tidemill.open(folders.owner)
    stays = {one["what"]: one["why"] for one in session.erase_entity("airport", "JFK").plain()["stays"]}
    assert stays["dataset:rows"] == "shared with other projects (day, weather): who took its rows erases the entity there too"
    error = caught(lambda: ask(folders.user))
    assert isinstance(error, Erased)
    assert "with its next run" in error.hint
    ask(folders.owner, ["day"])
    edit(folders.user, ('weather = tm.shared("airports", "weather")', ""))
    assert ask(folders.user, ["day"]) == ask(folders.owner, ["day"])
    assert session.erase_entity("airport", "XXX", dry_run=True).stays == []
    session.close()


# ── what there is ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_shared_is_found(folders: Two, caplog: pytest.LogCaptureFixture) -> None:
    (folders.user / "views.py").write_text(USE.replace('day = tm.shared("airports", "day")', ""))
    features = tidemill.open(folders.user).features
    day, weather = features.shared()
    assert [one["name"] for one in features.shared("airports")] == ["airports/day", "airports/weather"]
    assert (day["name"], day["entity"], day["features"], day["values"]) == (
        "airports/day",
        {"name": "airport", "key": ["faa"]},
        ["n", "sum"],
        4,
    )
    assert (day["owner"], weather["owner"]) == ("airports team", "bob"), "the project's where the view says none"
    assert (weather["description"], weather["tags"], weather["used_as"], day["used_as"]) == ("the sky above", ["sky"], ["weather"], [])
    assert weather["freshness"]["newest"] == "2024-03-10T12:10:00Z"
    assert json.loads(json.dumps(day)) == day
    hits = {hit["name"]: hit["project"] for hit in features.search("airport")}
    assert hits == {"weather": "", "airports/day": "airports"}
    assert [hit["name"] for hit in features.search("sum")] == ["airports/day:sum"]
    assert caught(lambda: features.shared("airport")).available == ["airports"]
    folders.move(True)
    caplog.clear()
    assert features.shared() == []
    assert [hit["name"] for hit in features.search("airport")] == ["weather"]
    assert len([one for one in caplog.messages if "project=airports is not reached" in one]) == 2
    assert isinstance(caught(lambda: features.shared("airports")), MissingFile)


def test_a_page_says_whose_a_view_is_and_whether_there_is_news(folders: Two) -> None:
    def page(folder: Path, name: str) -> dict[str, Any]:
        return tidemill.open(folder).features.show(name)

    taken = page(folders.user, "day")["taken_from"]
    assert (taken["project"], taken["view"], taken["owner"], taken["newer"]) == ("airports", "day", "airports team", None)
    ask(folders.user)
    assert page(folders.user, "day")["taken_from"]["newer"] is False
    push(folders.owner, temp=1.5)
    ask(folders.owner)
    assert page(folders.user, "day")["taken_from"]["newer"] is True
    assert page(folders.user, "day")["project"] == "airports"
    own = page(folders.owner, "day")
    assert own["shared"]["declared"]
    assert own["shared"]["recorded"].startswith("2")
    assert page(folders.owner, "mine")["shared"] is None
    theirs = page(folders.user, "airports/weather:temp")
    whole = page(folders.owner, "weather:temp")
    same = ("name", "description", "definition", "versions", "newest", "dataset", "statistics")
    assert {name: theirs[name] for name in same} == {name: whole[name] for name in same}
    assert "weather" in caught(lambda: page(folders.user, "airports/weathr")).available
    folders.move(True)
    taken = page(folders.user, "day")["taken_from"]
    assert (taken["version"], taken["newer"]) == (None, None)
    assert "does not lie in ../owner" in taken["why"]


def test_what_another_version_wrote_is_told(folders: Two) -> None:
    owner = tidemill.open(folders.owner)
    plain = dict(next(one.plain for one in publications(owner.ledger) if one.view == "day"))
    with owner.project.writing("test") as ledger:
        publish(ledger, "day", {**plain, "definition": {**plain["definition"], "features": {"n": {"newer": 1}}, "order": ["n"]}}, "test")
    error = caught(lambda: tidemill.open(folders.user))
    assert error.what.startswith("what project airports says of a view cannot be read: ")
    assert error.where == f"{folders.user / 'views.py'}:4"
    owner.close()
