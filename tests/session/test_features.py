"""Features of a user's rows are those that the loop trains on, for every view of a task, a composite key among them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import tidemill
from tidemill import loop
from tidemill.core import DefinitionError, Ref, UnknownName
from tidemill.data import ingest
from tidemill.features import Matrix, OwnColumns
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.session import Session
from tidemill.training import Task

PAIR = """pair = tm.Entity("depot-courier", key=["depot", "courier"])
pair_last = tm.FeatureView("pair_last", deliveries, entity=pair, ttl="5d", features={"late": tm.last("late")})
late = tm.Task("""


def test_rows_get_what_a_task_is_trained_on(parcels: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(parcels, tmp_path / "parcels")
    declared = next(file for file in folder.glob("*.py") if "late = tm.Task(" in file.read_text())
    text = declared.read_text().replace("late = tm.Task(", PAIR, 1).replace("courier_last],", "courier_last, pair_last],", 1)
    declared.write_text(text)
    session = tidemill.open(folder)
    task = session.project.get(Task, "late")
    with session.project.writing("test") as ledger:
        examples = loop.build(loop.prepare(ledger), task).examples
    requests, matrix = examples.requests, examples.matrix
    rows = {name: np.array(requests.texts[name].texts(), dtype=object) for name in ("depot", "courier")}
    rows["asked"] = requests.at.astype("datetime64[us]")
    views = [view.name for view in task.feature_views]
    found = session.historical_features(rows, views, at="asked", timezone="UTC", status=True)
    assert len(requests) > 1_000
    for name, column in found.columns.items():
        if not name.endswith("__status"):
            assert column.tobytes() == np.ascontiguousarray(matrix.values[:, matrix.names.index(name)]).tobytes(), name
    assert found.report.statuses["pair_last"]["present"] > 100
    assert found.report.statuses["pair_last"]["unknown"] >= sum(courier is None for courier in rows["courier"]) > 0


# ── the features of a model ─────────────────────────────────────────────────────────────────────────────────────────

SENT = """SELECT parcel, sent, depot, courier, grade, weight, CAST(sent AS TIMESTAMPTZ) - INTERVAL 1 HOUR AS asked
FROM read_csv('{}', nullstr='NA') ORDER BY hash(parcel)"""


def bookings(folder: Path) -> Any:
    """What was sent, in no order, as a client has it."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(SENT.format(folder / "parcels.csv")).fetchnumpy()
    return {
        name: np.ma.filled(column.astype(object), None) if column.dtype == object else np.ma.getdata(column)
        for name, column in found.items()
    }


def matrix_of(session: Session, keys: Any) -> tuple[Matrix, Any]:
    """The features of the champion's task, and their rows of these keys."""
    with session.project.writing("test") as ledger:
        examples = loop.build(loop.prepare(ledger), session.project.get(Task, "late")).examples
        examples = replace(examples, matrix=replace(examples.matrix, values=examples.matrix.values.copy()))
        return examples.matrix, [examples.requests.find(key) for key in keys]


@pytest.mark.parametrize("model", ["trees@champion", "trees/1", "models:/trees@champion"])
def test_the_features_of_a_model_are_those_that_it_was_trained_on(copied: Path, model: str) -> None:
    session, rows = tidemill.open(copied), bookings(copied)
    found = session.historical_features(rows, model=model, at="asked", timezone="UTC")
    matrix, places = matrix_of(session, rows["parcel"])
    assert tuple(found.columns) == matrix.names, "in the order of the model, the request's own among them"
    assert found.report.notes == ()
    for i, name in enumerate(matrix.names):
        column, words = matrix.values[places, i], matrix.vocabularies.get(name)
        if words is None:
            assert found.columns[name].tobytes() == column.tobytes(), name
        else:
            assert found.columns[name].tolist() == [words[int(code)] if code == code else None for code in column], name


def edit(folder: Path, *changes: tuple[str, str]) -> None:
    """Change what a project declares."""
    declared = next(file for file in folder.glob("*.py") if "late = tm.Task(" in file.read_text())
    for before, after in changes:
        text = declared.read_text()
        assert before in text
        declared.write_text(text.replace(before, after, 1))


def test_a_model_stays_bound_to_the_definitions_that_it_was_trained_with(copied: Path) -> None:
    rows = bookings(copied)
    before = tidemill.open(copied).historical_features(rows, model="trees/1", at="asked", timezone="UTC")
    edit(copied, ('windows=["12h", "3d"]', 'windows=["1d"]'), ('"weight": "weight"', '"weight": "2 * weight"'))
    edit(
        copied, ("SELECT parcel, arrived, depot, courier, late FROM parcels WHERE late IS NOT NULL", "SELECT * FROM parcels WHERE late = 1")
    )
    session = tidemill.open(copied)
    found = session.historical_features(rows, model="trees/1", at="asked", timezone="UTC")
    assert list(found.columns) == list(before.columns)
    for name, column in before.columns.items():
        assert np.array_equal(found.columns[name], column, equal_nan=column.dtype != object), name
    booking, depot, courier = found.report.notes
    assert booking.startswith("booking is read as trees/1 was trained with it, and declared otherwise now: features.weight.expression: ")
    assert 'windows: ["12h","3d"] → ["1d"]' in depot
    assert "its dataset: query: SELECT parcel" in courier
    assert found.report.plain()["notes"] == list(found.report.notes)
    assert booking in repr(found)
    declared = session.historical_features(rows, ["booking:weight", "depot_recent"], at="asked", timezone="UTC").columns
    assert list(declared) == ["booking__weight", "depot_recent__late_share_1d", "depot_recent__delivered_1d"]
    assert np.array_equal(declared["booking__weight"], 2 * found.columns["booking__weight"], equal_nan=True)


def test_a_view_that_is_not_declared_any_more_is_read_for_the_model_that_has_it(copied: Path) -> None:
    edit(
        copied,
        ("booking, depot_recent, courier_last]", "booking, depot_recent]"),
        ("courier_last = tm.FeatureView(", "other = tm.FeatureView("),
    )
    edit(copied, ('"courier_last"', '"other"'))
    found = tidemill.open(copied).historical_features(bookings(copied), model="trees/1", at="asked", timezone="UTC")
    assert list(found.columns)[-1] == "courier_last__late"
    assert found.report.notes == (
        "courier_last is read as trees/1 was trained with it, and declared otherwise now: it is not declared any more",
    )


def test_a_model_is_named_by_its_ref_too(copied: Path) -> None:
    session = tidemill.open(copied)
    trained = session.train("trees", until="2024-03-01")
    rows = {name: column[:50] for name, column in bookings(copied).items()}
    found = session.historical_features(rows, model=trained.model, at="asked", timezone="UTC", save="fifty")
    alike = session.historical_features(rows, model=found.ref or "", at="asked", timezone="UTC")
    assert alike.columns["booking__weight"].tolist() == read_parquet(found.file)["booking__weight"].tolist()
    assert found.ref == session.historical_features(rows, model=str(trained.model), at="asked", timezone="UTC", save="fifty").ref
    assert len(read_parquet(found.file)["booking__grade"]) == 50


def read_parquet(file: Path | None) -> dict[str, Any]:
    return duckdb.connect().execute(f"SELECT * FROM read_parquet('{file}')").fetchnumpy()


@pytest.mark.parametrize(
    ("more", "kind", "what"),
    [
        ({"model": "trees/99"}, UnknownName, "version=99"),
        ({"model": "trees"}, UnknownName, "'trees' names no version"),
        ({"model": Ref("dataset", "bookings")}, UnknownName, "dataset:bookings@.* is no model"),
        ({"model": "trees@champion", "views": ["booking"]}, DefinitionError, "views and a model are both named"),
        ({}, DefinitionError, "is no list of views"),
    ],
)
def test_a_wrong_model_is_refused(kept: Path, more: dict[str, Any], kind: type[Exception], what: str) -> None:
    with pytest.raises(kind, match=what):
        tidemill.open(kept).historical_features({}, at="asked", **more)


def test_what_a_tracked_run_asks_for_is_its_input(copied: Path, tmp_path: Path) -> None:
    session = tidemill.open(copied)
    rows = {name: column[:50] for name, column in bookings(copied).items()}
    with tidemill.run("notebook", to=copied, captured=False, system_metrics=0, wait=60):
        found = session.historical_features(rows, model="trees/1", at="asked", timezone="UTC", save="fifty")
    with tidemill.run("notebook", to=copied, captured=False, system_metrics=0, wait=60):
        session.historical_features(rows, ["courier_last"], at="asked", timezone="UTC")
    unsaved, saved = tidemill.open(copied).ledger.executions(kind="run", limit=2)
    assert saved.inputs == {"fifty": str(found.ref)}
    assert set(unsaved.inputs) == {"courier_last"}
    assert unsaved.inputs["courier_last"].startswith("feature view:courier_last@")


def test_a_clients_model_has_the_features_that_its_run_read(copied: Path, tmp_path: Path) -> None:
    session, rows = tidemill.open(copied), bookings(copied)
    some, views = {name: column[:50] for name, column in rows.items()}, ["courier_last", "booking:weight", "depot_recent:delivered_3d"]
    with tidemill.run("notebook", to=copied, captured=False, system_metrics=0, wait=60) as run:
        session.historical_features(some, views, at="asked", timezone="UTC", save="fifty", status=True)
    with session.project.writing("test") as ledger:
        create_model(ledger, "mine")
        create_version(ledger, "mine", f"runs:/{run.id}/model", run_id=run.id)
        create_version(ledger, "mine", "elsewhere:/model")
    edit(copied, ('windows=["12h", "3d"]', 'windows=["1d"]'), ('"courier_last"', '"other"'))
    found = tidemill.open(copied).historical_features(rows, model="mine/1", at="asked", timezone="UTC")
    assert list(found.columns) == ["courier_last__late", "booking__weight", "depot_recent__delivered_3d"]
    assert [note.partition(" is read as mine/1")[0] for note in found.report.notes] == ["courier_last", "depot_recent"]
    matrix, places = matrix_of(tidemill.open(tmp_path / "parcels"), rows["parcel"])
    assert found.columns["booking__weight"].tobytes() == matrix.values[places, matrix.names.index("booking__weight")].tobytes()
    assert "source:parcels.csv@" in repr(session.lineage("models:/mine/1"))
    with pytest.raises(UnknownName, match="mine/2 was registered by a client: nothing is known of its features"):
        session.historical_features(rows, model="mine/2", at="asked", timezone="UTC")


# ── features of the request itself ──────────────────────────────────────────────────────────────────────────────────

FUNCTION = """
@tm.request_view(bookings, columns=["weight", "grade"], returns=["load"])
def load(columns):
    import numpy as np

    return {"load": np.where(columns["grade"] == "x", columns["weight"] / 3, np.log1p(np.abs(columns["weight"])))}


late = tm.Task("""


def test_request_features_of_rows_are_those_of_serving(copied: Path) -> None:
    edit(copied, ("late = tm.Task(", FUNCTION))
    session, rows = tidemill.open(copied), bookings(copied)
    found = session.historical_features(rows, ["booking", "load:load"], timezone="UTC")
    assert list(found.columns) == ["booking__grade", "booking__weight", "booking__hour", "load__load"]
    assert found.report.statuses == {}, "there is nothing to look up, and no time is needed"
    with session.project.writing("test") as ledger:
        dataset = ingest(ledger, session.project.get(tidemill.Dataset, "bookings")).output
        views = [session.project.get(tidemill.RequestView, name) for name in ("booking", "load")]
        own = OwnColumns.of(views[0].dataset, dataset.meta["types"], views, "sent - INTERVAL 1 HOUR", lookups=["depot", "courier"])
        one_by_one = {name: column.tolist() for name, column in rows.items() if name != "asked"}
        sent = [dict(zip(one_by_one, row, strict=True)) for row in zip(*one_by_one.values(), strict=True)][:300]
        times = [{name: f"{row['sent'].isoformat()}Z" for name in ("sent", "booked")} for row in sent]
        requests = own.requests([row | time for row, time in zip(sent, times, strict=True)])
    for i, name in enumerate(requests.names):
        words = requests.vocabularies.get(name)
        served = requests.values[:, i].tolist()
        plain = [words[int(code)] for code in served] if words else served
        assert found.columns[name][:300].tolist() == plain or np.array_equal(found.columns[name][:300], plain, equal_nan=True), name
