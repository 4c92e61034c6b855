"""A project by hand, as in a notebook: training sets, training, predictions, lineage, status."""

import re
from pathlib import Path

import numpy as np
import pytest

import tidemill as tm
from processes import run_python
from tidemill import training
from tidemill.core import Busy, DataError, DefinitionError, MissingFile, Ref, UnknownName, instant, show
from tidemill.data import segments
from tidemill.ledger import Branch, Node
from tidemill.serving import AnswerLog, Deployment
from tidemill.session import Session, log_of, policy_of
from toy import DECLARATIONS, Toy, write_project


@pytest.fixture(scope="module")
def session(kept: Path) -> Session:
    """Reads only."""
    return tm.open(kept)


def test_a_folder_that_is_no_project_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no tidemill.toml here"):
        tm.open(tmp_path)


def test_before_anything_ran_declarations_are_there_and_reading_says_what_is_missing(tmp_path: Path) -> None:
    session = tm.open(write_project(tmp_path / "p", []))
    assert session.project.get(Deployment, "late").timeout == "2s"
    with pytest.raises((MissingFile, UnknownName)) as error:
        session.status()
    assert "tidemill run" in str(error.value)


def test_a_project_of_views_alone_is_told_what_builds_them(tmp_path: Path) -> None:
    views = DECLARATIONS.partition("\n@tm.model")[0]
    with pytest.raises(DataError, match="declares no policy") as error:
        policy_of(tm.open(write_project(tmp_path / "p", [], declarations=views)).project)
    assert "tidemill features materialise" in error.value.hint


def test_what_is_wrong_in_the_files_is_said_when_a_project_is_opened(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"parcels\.py cannot be imported"):
        tm.open(write_project(tmp_path / "p", [], declarations="import tidemill as tm\n\nserve = (\n"))


def test_a_training_set_and_a_model_by_hand_are_those_of_the_loop(copied: Path, replayed: tuple[Toy, Branch]) -> None:
    session = tm.open(copied)
    train = session.training_set("late", until="2024-03-01")
    frame = train.frame()
    assert "predict_at" in frame.columns
    assert len(frame) == len(train.y)
    run = session.train("trees", until="2024-03-01")
    assert run.cached, "the replay made the very same"
    assert run.model.digest == session.branch.state["frozen"]["digest"]
    assert run.params["rows"] == len(train.y)
    assert run.metrics["rounds"] == 30
    assert "model:trees" in repr(run)
    earlier = session.train("trees", until="2024-02-01")
    assert not earlier.cached
    assert isinstance(earlier.model, Ref)
    session.close()


def test_what_is_cached_is_given_while_another_process_writes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = tm.open(copied)
    train = session.training_set("late", until="2024-03-01")

    def wait(*args: object, **named: object) -> None:
        raise Busy("the writer's lock is asked for")

    monkeypatch.setattr("tidemill.project.project.writer", wait)
    again = tm.open(copied)
    assert again.training_set("late", until="2024-03-01").ref == train.ref
    assert again.train("trees", until="2024-03-01").cached
    with pytest.raises(Busy, match="is asked for"):
        again.train("trees", until="2024-02-03")
    again.close()


def test_what_a_notebook_shows_is_short(session: Session, replayed: tuple[Toy, Branch]) -> None:
    toy, _ = replayed
    assert repr(session).startswith("Session(parcels in ")
    assert re.fullmatch(r"Handle\(late: replay \w+, trees/\d serves\)", repr(session.deployments["late"]))
    lines = repr(session.lineage("trees/1")).splitlines()
    assert re.fullmatch(r"version model:trees@1  \(run \d+, code \w{12}, environment \w{12}\)", lines[0])
    assert lines[1].startswith("  training set training set:late@")
    assert any(re.fullmatch(r" {8,}\S+ source:parcels.csv@\w+", line) for line in lines), lines
    assert max(map(len, lines)) < 160
    with pytest.raises(DataError, match="a request is a dict, not 'p118-003'") as error:
        session.deployments["late"].predict("p118-003")  # type: ignore[arg-type]
    assert "parcel" in error.value.hint
    chosen = training.training_set(toy.ledger, toy.built.examples, toy.at("2024-03-01"))
    assert re.search(r"rows × \d+ features, [\d,]+ positive, known until 2024-03-01T05:00:00Z\)$", repr(chosen))


def test_unknown_names_come_with_those_that_are_known(copied: Path) -> None:
    session = tm.open(copied)
    for call in (lambda: session.training_set("lat", until="2024-03-01"), lambda: session.train("tree", until="2024-03-01")):
        with pytest.raises(UnknownName) as error:
            call()
        assert error.value.available in (["late"], ["trees"])


def test_a_prediction_is_that_of_the_replay(session: Session) -> None:
    branch = session.branch
    _, last = segments(session.ledger, branch.id, "late")[-1]
    for i in range(0, len(last.at), 10):
        key, at = last.keys[i].decode(), show(int(last.at[i]))
        answer = session.deployments["late"].predict({"parcel": key}, at=at)
        assert answer["probability"] == last.shadows["champion"][1][i]
        assert answer["version"] == last.shadows["champion"][0]
    many = session.deployments["late"].predict([{"parcel": key.decode()} for key in last.keys[:5]], at=at, explain=True)
    assert [one["key"] for one in many] == [key.decode() for key in last.keys[:5]]
    assert "booking__weight" in many[0]["inputs"]


def test_times_may_be_dates_and_without_a_zone_they_are_refused(session: Session) -> None:
    from datetime import UTC, date, datetime

    deployment = session.deployments["late"]
    row = {"parcel": "p100-003"}
    midnight = instant("2024-04-20", "America/New_York")
    for at in ("2024-04-20", date(2024, 4, 20), datetime(2024, 4, 20, 4, tzinfo=UTC), "2024-04-20T00:00:00-04:00"):
        assert deployment.predict(row, at=at)["at"] == show(midnight)
    for naive in ("2024-04-20T00:00:00", datetime(2024, 4, 20)):  # noqa: DTZ001 – without a zone on purpose
        for call in (
            deployment.predict,
            lambda _, at: session.training_set("late", until=at),
            lambda _, at: session.train("trees", until=at),
        ):
            with pytest.raises(DefinitionError, match="has no time zone"):
                call(row, at=naive)
    assert deployment.predict(row)["note"].startswith("every looked-up feature")


def test_each_row_may_have_its_own_time(session: Session) -> None:
    deployment, row = session.deployments["late"], {"parcel": "p100-003"}
    first, second = deployment.predict([row, row], at=["2024-04-20", "2024-04-21"])
    assert [first, second] == [deployment.predict(row, at=day) for day in ("2024-04-20", "2024-04-21")]
    assert first["features_from"] == "offline"
    assert "note_features" not in first, "there is no store that could hold something newer"
    with pytest.raises(DataError, match="`at` has 1 times for 2 rows"):
        deployment.predict([row, row], at=["2024-04-20"])


def test_a_wrong_request_by_hand_is_the_same_error(session: Session) -> None:
    with pytest.raises(UnknownName, match="no request has the key"):
        session.deployments["late"].predict({"parcel": "nobody"})
    with pytest.raises(DataError, match="lacks the key"):
        session.deployments["late"].predict({})


def refs(node: Node) -> list[Ref]:
    return [node.ref, *(ref for parent in node.parents for ref in refs(parent))]


def test_lineage_goes_back_to_the_file(session: Session) -> None:
    model = Ref("model", "trees", "1", session.branch.state["frozen"]["digest"])
    for asked in ("late", "trees/1", "prediction:p118-003", "prediction:late/p118-003", model):
        found = refs(session.lineage(asked))
        sources = [ref for ref in found if ref.kind == "source"]
        assert {ref.name for ref in sources} == {"parcels.csv"}
        assert all(len(ref.digest) >= 12 for ref in sources)
    with pytest.raises(UnknownName):
        session.lineage("trees/77")


def test_the_model_of_a_prediction_is_the_one_that_answered(session: Session) -> None:
    branch, seen = session.branch, set()
    for _, segment in segments(session.ledger, branch.id, "late")[::6]:
        key, label = segment.keys[0].decode(), segment.versions[int(segment.version[0])]
        model = next(ref for ref in refs(session.lineage(f"prediction:{key}")) if ref.kind == "model")
        assert f"{model.name}/{model.version}" == label
        seen.add(label)
    assert len(seen) > 1


def test_status_is_plain_data_and_whole(session: Session) -> None:
    import json

    found = session.status()
    assert json.loads(json.dumps(found))["project"]["name"] == "parcels"
    (late,) = found["deployments"]
    assert {"branch", "versions", "watched", "alerts", "retrainings", "lineage", "months"} <= set(late)
    roles = [version["role"] for version in late["versions"]]
    assert roles.count("champion") == 1
    assert late["fallback"] == ["previous version", "constant 0.3"]
    assert set(late["watched"]["found"]["quality"]) == {"log_loss"}
    assert late["watched"]["found"]["drift"]


SECOND = """
serve_too = tm.Deployment("again", trees, gates=[tm.gates.calibration(max_ece=0.5, bins=5)])
serve_never = tm.Deployment("idle", trees, gates=gates)
watch_too = tm.Monitor(serve_too, every="4d")
keep_too = tm.RetrainPolicy(watch_too, on=[tm.Never()])
"""


def test_several_deployments_have_each_their_own_history(copied: Path) -> None:
    from tidemill import loop, project
    from tidemill.session import policy_of

    (copied / "parcels.py").write_text(DECLARATIONS + SECOND)
    declared = project.load(copied)
    policy, until = policy_of(declared, "again"), instant("2024-03-25", "America/New_York")
    with declared.writing("run") as ledger:
        built = loop.build(loop.prepare(ledger), policy.monitor.deployment.model.task)
        loop.run_once(ledger, built, policy, until, declared.timezone)
    session = tm.open(copied)
    assert {name: history.branch.kind for name, history in session.serving.items()} == {"late": "replay", "again": "live"}
    late, again, idle = session.status()["deployments"]
    assert (late["name"], again["champion"]["label"], idle) == ("late", "trees/1", {"name": "idle"})
    assert len(late["versions"]) > len(again["versions"]) == 1
    assert session.lineage("again").ref.name == "again"
    assert session.lineage("prediction:late/p118-003").ref.name == "late/p118-003"
    asked = instant("2024-04-27T10:00:00Z")
    for handle in (session.deployments["late"], session.deployments["again"]):
        AnswerLog(log_of(session.project, handle.name)).append(
            handle.endpoint().answer([{"parcel": "p118-003"}], [asked]), 7, handle.branch.id
        )
    assert {node.ref.name for node in session.lineage("prediction:p118-003").parents} == {"late", "again"}
    assert session.deployments["again"].predict({"parcel": "p100-003"}, at="2024-04-20")["version"] == "trees/1"
    with pytest.raises(UnknownName, match="no deployment 'idle' serves") as error:
        session.deployments["idle"]
    assert error.value.available == ["again", "late"]
    (copied / "parcels.py").write_text(DECLARATIONS)
    without = tm.open(copied)
    assert list(without.serving) == ["late"]
    assert without.lineage("again").ref.name == "again", "what is no longer declared has a past all the same"


def test_what_the_gateway_answered_has_a_lineage_too(copied: Path) -> None:
    session = tm.open(copied)
    handle = session.deployments["late"]
    asked = {"parcel": "new", "depot": "N", "courier": "a", "grade": "x", "weight": 2.0, "sent": "2024-04-20T05:00:00Z"}
    asked["booked"] = "2024-04-19T05:00:00Z"
    answer = handle.endpoint().answer([asked], [instant("2024-04-20T04:00:00Z")])
    with pytest.raises(DataError, match="a key of the request has 2,000 bytes"):
        handle.predict({**asked, "parcel": "x" * 2_000}, at="2024-04-20T04:00:00Z")
    with pytest.raises(UnknownName, match="made no prediction"):
        session.lineage("prediction:new")
    AnswerLog(log_of(session.project, "late")).append(answer, 7, session.branch.id)
    found = session.lineage("prediction:new")
    (deployment,) = found.parents
    assert deployment.role == "answered by"
    assert deployment.meta["probability"] == answer[0].probability
    assert {ref.name for ref in refs(found) if ref.kind == "source"} == {"parcels.csv"}
    AnswerLog(log_of(session.project, "late")).append(
        handle.endpoint().answer([{"parcel": "p118-003"}], [instant("2024-06-01")]), 8, session.branch.id
    )
    assert len(session.lineage("prediction:p118-003").parents) == 2, "the replay's answer and the gateway's"


READ = """
import sys, tidemill as tm
session = tm.open(sys.argv[1])
print(session.status()["deployments"][0]["name"], session.lineage("late").ref.kind)
print(session.deployments["late"].predict({"parcel": "p100-003"})["rung"])
"""


def test_reading_changes_nothing(kept: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.suffix in (".db", ".csv", ".py", ".lock")}

    before = times()
    done = run_python(READ, kept)
    assert done.stdout.split() == ["late", "deployment", "champion"], done.stderr
    assert times() == before


def test_features_by_hand_are_a_matrix_with_names(copied: Path) -> None:
    session = tm.open(copied)
    train = session.training_set("late", until="2024-03-01")
    columns = train.columns()
    assert np.isnan(columns["courier_last__late"]).any()
    assert columns["label"].sum() == train.y.sum()
    session.close()
