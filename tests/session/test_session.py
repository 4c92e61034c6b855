"""A project by hand, as in a notebook: training sets, training, predictions, lineage, status."""

from pathlib import Path

import numpy as np
import pytest

import tidemill as tm
from processes import run_python
from tidemill.core import DataError, MissingFile, Ref, UnknownName, instant, show
from tidemill.data import segments
from tidemill.ledger import Branch, Node
from tidemill.serving import Deployment
from tidemill.session import Session
from toy import Toy, write_project


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


def test_times_may_be_dates_and_without_a_zone_they_are_the_projects(session: Session) -> None:
    from datetime import UTC, date, datetime

    deployment = session.deployments["late"]
    row = {"parcel": "p100-003"}
    midnight = instant("2024-04-20", "America/New_York")
    for at in ("2024-04-20", date(2024, 4, 20), datetime(2024, 4, 20, 4, tzinfo=UTC), "2024-04-20T00:00:00"):
        assert deployment.predict(row, at=at)["at"] == show(midnight)
    assert deployment.predict(row)["note"].startswith("every looked-up feature")


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
    assert {"project", "branch", "deployments", "versions", "alerts", "retrainings", "lineage", "months"} <= set(found)
    roles = [version["role"] for version in found["versions"]]
    assert roles.count("champion") == 1
    assert found["deployments"][0]["fallback"] == ["previous version", "constant 0.3"]


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
