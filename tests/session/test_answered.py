"""The logs of a project: as one table with what people said, and without an entity that was erased."""

from pathlib import Path

import polars as pl
import pytest

import tidemill as tm
from tidemill.core import UnknownName, instant
from tidemill.serving import AnswerLog, Withheld
from tidemill.serving.answers import Answer, Basis
from tidemill.serving.shadow import Lines
from tidemill.serving.withheld import secret_of
from tidemill.session import Session, log_of, shadows_of

ASKED = instant("2024-04-25T00:00:00Z")


@pytest.fixture
def session(copied: Path) -> Session:
    return tm.open(copied)


def answers(session: Session, rows: int, first: int = 0) -> list[str]:
    endpoint, log = session.deployments["late"].endpoint(), AnswerLog(log_of(session.project, "late"))
    keys = [{"parcel": f"p110-{place:03}"} for place in range(first, first + rows)]
    return log.append(endpoint.answer(keys, [ASKED] * rows, keep=1.0), ASKED + first, session.branch.id)


def test_answers_wherever_they_lie_are_one_table_with_features_and_labels(session: Session) -> None:
    ids = answers(session, 4)
    session.feedback("late", [{"id": ids[0], "label": 1, "comment": "who?"}, {"id": ids[1], "label": 1}])
    session.compact()
    ids += answers(session, 3, 4)
    session.feedback("late", [{"id": ids[1], "label": 0}, {"id": ids[5], "comment": "odd"}])
    table = session.prediction_table("late")
    found = pl.DataFrame(table)
    assert found.columns == [*table.columns]
    assert found["id"].to_list() == ids
    assert found["label"].to_list() == [1, 0, None, None, None, None, None]
    assert found["comment"].to_list() == ["who?", None, None, None, None, "odd", None]
    lines = {one["id"]: one for one in session.predictions("late")}
    assert found["probability"].to_list() == [lines[name]["probability"] for name in ids]
    for name in ("booking__weight", "booking__grade"):
        assert found[name].to_list() == [lines[one][name] for one in ids]
    assert pl.DataFrame(table).equals(found), "it can be read again"
    assert pl.DataFrame(session.prediction_table("late", since="2024-04-26T00:00:00Z")).is_empty()
    with pytest.raises(UnknownName, match="nobody"):
        session.prediction_table("nobody")
    with pytest.raises(UnknownName, match="nobody"):
        session.compact("nobody")


def holding(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("compacted", [True, False])
def test_an_erased_entity_is_in_no_log(session: Session, compacted: bool) -> None:
    log, shadow = log_of(session.project, "late"), shadows_of(session.project, "late")
    ids = answers(session, 40)
    of = {row["parcel"]: row["courier"] for row in pl.read_csv(session.project.folder / "parcels.csv").to_dicts()}
    courier = of["p110-000"]
    gone = [name for place, name in enumerate(ids) if of[f"p110-{place:03}"] == courier]
    session.feedback("late", [{"id": name, "label": 1, "comment": f"of {name}"} for name in ids[:5]])
    writing = AnswerLog(log, withheld=Withheld(hash=["courier"], key=b"0" * 64))
    (log.parent / "key").write_bytes(b"0" * 64)
    assert secret_of(log.parent) == b"0" * 64
    told = Answer("new-1", 0.5, "boosted/1", "champion", ASKED, "request", {}, basis=Basis({}, {}, {"courier": courier}))
    gone += writing.append([told], ASKED + 50, session.branch.id)
    Lines(shadow).write([f'{{"key":"{key}"}}'.encode() for key in ("p110-000", "other")])
    if compacted:
        session.compact()
    plan = session.erase_entity("courier", courier, dry_run=True).plain()
    rows = {one["what"]: one["rows"] for one in plan["found"] if one["place"] == "log"}
    assert rows["answers of deployment late"] == len(gone)
    assert rows["shadow of deployment late"] == 1
    assert len(session.predictions("late")) == 41, "a plan changes nothing"
    session.erase_entity("courier", courier)
    stays = {one["id"] for one in tm.open(session.project.folder).predictions("late")}
    assert stays == {*ids} - {*gone}
    for name in gone:
        assert not holding(log.parent, name)
    assert not holding(log.parent, "p110-000")
    assert shadow.read_bytes() == b'{"key":"other"}\n'
    writing.append([told], ASKED + 60, session.branch.id)
    assert len(tm.open(session.project.folder).predictions("late")) == len(stays) + 1, "a server goes on"
