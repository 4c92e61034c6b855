"""Many rows answered into a file: to the bit what `/predict` says to each, resumable, and only what is new."""

import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import tidemill as tm
from processes import other
from tidemill import features
from tidemill.core import Busy, DataError, DefinitionError, Ref, UnknownName, instant, show
from tidemill.features import differ_since
from tidemill.serving import AnswerLog, Batch, Endpoint, Gateway, When, gateway_routes, write_scores
from tidemill.session.session import Handle, open_endpoint
from toy import make_rows, write_rows

KEYS = [f"p{day:03}-{place:03}" for day in (70, 100, 118) for place in range(40)]
AT, TODAY = datetime(2024, 4, 30, tzinfo=UTC), instant("2026-11-21T12:00:00Z")
SENT = ("parcel", "sent", "booked", "depot", "courier", "grade", "weight")


@pytest.fixture
def handle(copied: Path) -> Handle:
    return tm.open(copied).deployments["late"]


def told(handle: Handle, rows: Sequence[dict[str, Any]], at: Any) -> list[dict[str, Any]]:
    """What the gateway says over HTTP."""
    session = handle.session
    endpoint = open_endpoint(session.ledger, session.project, handle.branch)
    gateway = Gateway({"late": endpoint}, {"late": AnswerLog(session.project.state / "asked.jsonl", 0.0)}, lambda: 0, True)
    body = {"rows": rows, "at": at, "explain": True}
    answer = TestClient(Starlette(routes=[*gateway_routes(gateway)])).post("/predict/late", content=json.dumps(body))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


def same(file: Path, predictions: Sequence[dict[str, Any]]) -> None:
    """Every value of a file is that of the gateway, floats to the bit."""
    found = pl.read_parquet(file)
    assert len(found) == len(predictions)
    for row, one in zip(found.iter_rows(named=True), predictions, strict=True):
        assert (row["key"], row["version"], row["rung"]) == (one["key"], one["version"], one["rung"])
        assert np.float64(row["probability"]).tobytes() == np.float64(one["probability"]).tobytes()
        assert show(round(row["at"].timestamp() * 1e6)) == one["at"]
        assert json.loads(row["missing"] or "{}") == one["features_missing"]
        assert json.loads(row["unexpected"] or "{}") == one.get("unexpected", {})
        assert row["error"] is None


def requests() -> list[dict[str, Any]]:
    """The toy's requests, as a client has them."""
    return [{name: row[name] for name in SENT} for row in make_rows() if row["parcel"] in set(KEYS)]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def test_keys_columns_and_features_are_answered_as_the_gateway_answers_them(handle: Handle, tmp_path: Path) -> None:
    times = [AT - timedelta(minutes=i) for i in range(len(KEYS))]
    frame = pl.DataFrame({"parcel": KEYS, "asked": times})
    known = told(handle, [{"parcel": key} for key in KEYS], [time.isoformat() for time in times])
    by_key = handle.score(frame, to=tmp_path / "key.parquet", at="asked", chunk=17, explain=True)
    same(by_key.file, known)
    assert (by_key.form, by_key.tally.scored, by_key.tally.left_out) == ("key", len(KEYS), [])
    assert {rung for _, rung in by_key.tally.by} >= {"champion"}

    rows = requests()
    sent = told(handle, [plain(row) for row in rows], AT.isoformat())
    by_columns = handle.score(pl.DataFrame(rows), to=tmp_path / "columns.parquet", at=AT)
    assert by_columns.form == "columns"
    same(by_columns.file, sent)

    given = pl.read_parquet(by_key.file).select(pl.exclude("key", "at", "probability", "version", "rung", "unexpected", "missing", "error"))
    inputs = [one["inputs"] for one in known]
    assert given.rows(named=True) == inputs, "explained"
    by_features = handle.score(given.with_columns(parcel=pl.Series(KEYS)), to=tmp_path / "features.parquet", at=AT)
    whole = [{**one, "parcel": key} for one, key in zip(inputs, KEYS, strict=True)]
    same(by_features.file, told(handle, whole, AT.isoformat()))
    assert by_features.form == "features"


def test_each_row_is_asked_at_its_own_time_unless_another_is_said(handle: Handle, tmp_path: Path) -> None:
    rows = [row for row in make_rows() if row["parcel"] in set(KEYS)]
    own = [(row["sent"] - timedelta(hours=1)).isoformat() for row in rows]
    found = handle.score({"parcel": np.array([row["parcel"] for row in rows])}, to=tmp_path / "own.parquet")
    same(found.file, told(handle, [{"parcel": row["parcel"]} for row in rows], own))


def test_a_dataset_that_has_grown_is_scored_where_it_is_new(copied: Path, tmp_path: Path) -> None:
    rows = make_rows(per_day=60)[:600]
    shown, more = rows[:500] + rows[520:], rows[500:520]
    write_rows(copied, shown)
    handle, to = tm.open(copied).deployments["late"], tmp_path / "s.parquet"
    first = handle.score("dataset:bookings", to=to, chunk=200)
    assert (first.tally.rows, first.tally.scored, first.kept) == (580, 580, 0)
    again = handle.score("dataset:bookings", to=tmp_path / "t.parquet", chunk=100)
    assert (again.tally.scored, again.kept, again.ref, again.execution) == (0, 580, first.ref, first.execution)
    assert to.read_bytes() == (tmp_path / "t.parquet").read_bytes()

    write_rows(copied, [*shown, *more])  # in the middle of the dataset's order
    handle = tm.open(copied).deployments["late"]
    grown = handle.score("dataset:bookings", to=to)
    assert (grown.tally.rows, grown.tally.scored, grown.kept) == (600, 20, 580)
    shutil.rmtree(copied / ".tidemill" / "scores")
    assert handle.score("dataset:bookings", to=tmp_path / "whole.parquet").ref == grown.ref
    assert (tmp_path / "whole.parquet").read_bytes() == to.read_bytes()

    state = handle.branch.state
    other_model = Handle(handle.session, "late", replace(handle.branch, state={**state, "champion": state["previous"]}))
    anew = other_model.score("dataset:bookings", to=to)
    assert anew.tally.scored == 600
    assert {version for version, _ in anew.tally.by} == {state["previous"]["label"]}


def test_what_is_still_to_come_is_asked_as_of_now_and_again_the_next_time(handle: Handle, tmp_path: Path) -> None:
    rows = [{**row, "sent": row["sent"] + timedelta(days=36_500)} for row in requests()[:10]] + requests()[10:30]
    asked = pl.DataFrame(rows)
    first = handle.score(asked, to=tmp_path / "a.parquet")
    again = handle.score(asked, to=tmp_path / "b.parquet")
    assert (first.tally.scored, again.tally.scored, again.kept) == (30, 10, 20)
    before, after = (pl.read_parquet(one.file)["at"].to_list() for one in (first, again))
    assert before[10:] == after[10:]
    assert len({*before[:10]}) == len({*after[:10]}) == 1
    assert before[0] < after[0]


KILLED = """
import os, signal, sys
import tidemill as tm
def listen(done, rows):
    if done >= 400:
        os.kill(os.getpid(), signal.SIGKILL)
tm.open(sys.argv[1]).deployments["late"].score("dataset:bookings", to=sys.argv[2], chunk=100, listen=listen)
"""


def test_a_run_that_was_killed_goes_on(copied: Path, tmp_path: Path) -> None:
    to = tmp_path / "s.parquet"
    with other(KILLED, copied, to) as process:
        assert process.process.wait(60) == -signal.SIGKILL
    assert not to.exists()
    handle = tm.open(copied).deployments["late"]
    found = handle.score("dataset:bookings", to=to, chunk=1000)
    assert found.kept == 400
    shutil.rmtree(copied / ".tidemill" / "scores")
    assert handle.score("dataset:bookings", to=tmp_path / "whole.parquet").ref == found.ref


def test_a_row_that_cannot_be_answered_is_told_with_its_number(handle: Handle, tmp_path: Path) -> None:
    to, keys = tmp_path / "s.parquet", [*KEYS[:20], "nobody", *KEYS[20:30]]
    frame = pl.DataFrame({"parcel": keys})
    with pytest.raises(DataError, match=r"row 20: no request has the key \{'parcel': 'nobody'\}") as error:
        handle.score(frame, to=to, at=AT, chunk=8)
    assert "--keep-going" in error.value.hint
    assert not to.exists()
    found = handle.score(frame, to=to, at=AT, keep_going=True)
    assert (found.kept, found.tally.scored, found.tally.failed) == (20, 10, 1)
    rows = pl.read_parquet(to).rows(named=True)
    assert rows[20] == {**dict.fromkeys(rows[20]), "key": "nobody", "at": AT, "error": found.tally.first}
    assert all(row["error"] is None and row["probability"] is not None for row in rows[:20] + rows[21:])
    assert handle.score(frame, to=to, at=AT, keep_going=True).kept == 30, "what failed is tried again"


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        ({"parcel": ["p070-000"], "weight": [1.0]}, {}, "lack the request's column"),
        ({"nothing": [1]}, {}, "lack the key 'parcel'"),
        ({"booking__weight": [1.0]}, {}, "lack the feature"),
        ({"parcel": ["p070-000"]}, {"at": "asked"}, "no column of the rows, and no time"),
        ({"parcel": ["p070-000"], "asked": [None]}, {"at": "asked"}, "row 0 has no time"),
        ({"parcel": ["p070-000"], "asked": ["soon"]}, {"at": "asked"}, "row 0 has no time"),
        ({"parcel": ["p070-000"]}, {"by": "name"}, "nothing that a row asks by"),
        ({"parcel": [None]}, {}, "row 0 has a null key 'parcel'"),
        ({"parcel": ["p070-000"]}, {"to": "scores.csv"}, "not the name of a Parquet file"),
        ({"parcel": ["p070-000"]}, {"chunk": -1}, "chunk"),
    ],
)
def test_what_is_wrong_is_said(handle: Handle, tmp_path: Path, rows: dict[str, Any], asked: dict[str, Any], said: str) -> None:
    with pytest.raises((DataError, DefinitionError), match=said):
        handle.score(
            [dict(zip(rows, one, strict=True)) for one in zip(*rows.values(), strict=True)], **{"to": tmp_path / "s.parquet", **asked}
        )
    assert [*tmp_path.glob("*.parquet")] == []


def test_a_version_answers_alone(handle: Handle, tmp_path: Path) -> None:
    label = handle.branch.state["previous"]["label"]
    found = handle.score({"parcel": np.array(KEYS)}, to=tmp_path / "s.parquet", at=AT, version=label)
    assert found.tally.by == {(label, "previous version"): len(KEYS)}
    with pytest.raises(UnknownName, match="does not serve") as error:
        handle.score({"parcel": np.array(KEYS)}, to=tmp_path / "s.parquet", version="trees/99")
    assert label in error.value.available


def test_a_hold_out_holds_and_a_row_that_a_model_cannot_answer_is_no_harm_to_its_neighbours(handle: Handle, tmp_path: Path) -> None:
    """Beside many rows and by itself each gets the same answer."""
    endpoint = handle.endpoint()
    odd = replace(
        endpoint, predictors={**endpoint.predictors, endpoint.standing.champion[1]: Picky(endpoint)}, holdout=tm.Holdout(0.2, 0.5)
    )
    batch = Batch.of(odd, "key", own_time=True, now=TODAY)
    together, apart = (scored(batch, {"parcel": np.array(KEYS)}, tmp_path / f"{chunk}", chunk) for chunk in (0, 1))
    assert together.equals(apart)
    assert {*together["rung"]} == {"champion", "previous version", "hold-out"}


def scored(batch: Batch, rows: Any, folder: Path, chunk: int = 0, *, when: When | None = None, keep_going: bool = False) -> pl.DataFrame:
    """What a batch says to rows."""
    with features.bring(rows, "rows") as brought:
        write_scores(brought, batch, when or When(), folder.with_suffix(".parquet"), folder / "kept", chunk=chunk, keep_going=keep_going)
    return pl.read_parquet(folder.with_suffix(".parquet"))


class Picky:
    """The champion, which fails where one of its rows is heavy."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._own = endpoint.predictors[endpoint.standing.champion[1]]
        self.signature, self.pace, self.isolated = self._own.signature, self._own.pace, False

    def predict(self, asked: Any) -> Any:
        if (asked[:, self.signature.features.index("booking__weight")] > 2.5).any():
            raise ValueError("too heavy")
        return self._own.predict(asked)


def test_a_file_is_in_the_ledger_and_its_lineage_leads_to_the_sources(copied: Path, tmp_path: Path) -> None:
    session = tm.open(copied)
    found = session.deployments["late"].score("dataset:bookings", to=tmp_path / "s.parquet")
    run = session.ledger.execution(found.execution)
    assert (run.kind, run.name, run.status) == ("batch prediction", "late", "finished")
    tree = session.lineage(str(found.ref))
    roles = {node.role: node.ref for node in tree.parents}
    assert {one.kind for one in roles.values()} == {"dataset", "model", "feature view"}
    assert "source:parcels.csv" in repr(tree)
    assert str(found.ref) in repr(session.lineage("dataset:bookings", forward=True))
    (tmp_path / "s.parquet").write_bytes(b"")
    assert session.deployments["late"].score("dataset:bookings", to=tmp_path / "s.parquet").ref == found.ref, "written again"
    session.erase_entity("courier", "a")
    assert not (copied / ".tidemill" / "scores").exists(), "what is kept holds keys"


def test_views_that_have_grown_leave_the_answers_of_before(copied: Path, tmp_path: Path) -> None:
    """What became known later changes no answer of a time before it; from then on all are asked anew."""
    session, rows, asked = tm.open(copied), make_rows(), requests()
    handle = session.deployments["late"]
    since = datetime(2024, 4, 28, 12, tzinfo=UTC)
    more = [{**rows[0], "parcel": "new", "courier": "new", "depot": asked[0]["depot"], "arrived": since, "late": 1}]
    first = handle.score(pl.DataFrame(asked), to=tmp_path / "a.parquet")
    write_rows(copied, [*rows, *more])
    session = tm.open(copied)
    session.historical_features([{**row, "event_timestamp": since} for row in asked[:1]], ["depot_recent", "courier_last"])
    recipe = dict(handle.branch.parts["recipe"])
    newest = {name: session.ledger.artifact(Ref("feature view", name)).ref.digest for name in ("depot_recent", "courier_last")}
    recipe["views"] = [{**one, "digest": newest.get(one["definition"]["name"], one["digest"])} for one in recipe["views"]]
    assert recipe != handle.branch.parts["recipe"]
    grown = Handle(session, "late", replace(handle.branch, parts={**handle.branch.parts, "recipe": recipe}))
    logs = [one.endpoint().reader.logs["courier_last"] for one in (handle, grown)]
    assert (differ_since(*logs), differ_since(logs[1], logs[1])) == (instant(since), None)
    later = sum(row["sent"] - timedelta(hours=1) >= since for row in asked)
    second = grown.score(pl.DataFrame(asked), to=tmp_path / "b.parquet")
    assert 0 < later < len(asked)
    assert (first.tally.scored, second.tally.scored, second.kept) == (len(asked), later, len(asked) - later)
    shutil.rmtree(copied / ".tidemill" / "scores")
    assert grown.score(pl.DataFrame(asked), to=tmp_path / "c.parquet").ref == second.ref
    assert second.ref != first.ref, "the new delivery is seen"


def test_two_runs_over_the_same_rows_do_not_mix(handle: Handle, tmp_path: Path) -> None:
    frame, listened = pl.DataFrame({"parcel": KEYS[:5]}), list[str]()

    def listen(done: int, rows: int) -> None:
        with pytest.raises(Busy):
            handle.score(frame, to=tmp_path / "other.parquet")
        listened.append("busy")

    handle.score(frame, to=tmp_path / "s.parquet", listen=listen)
    assert listened
