"""Deletion by rule: what goes is what nothing refers to, whole, once, and with its bytes; what stays says why."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import registry, tracking
from tidemill.ledger import Ledger
from tidemill.registry import Rule
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.registry.retention import DeleteExperiment, DeleteModel, DeleteRun, OtherFact, RunFact, Stays, decide
from tidemill.store import FolderBlobs
from tidemill.tracking.experiments import create_experiment, delete_experiment
from tidemill.tracking.metrics import history
from tidemill.tracking.models import create_model as create_logged_model
from tidemill.tracking.models import delete_model as delete_logged_model
from tidemill.tracking.runs import create_run, delete_run, log_metric, set_tag, update_run
from tidemill.tracking.values import Metric, Pair

DAY = 86_400_000_000
NOW = 1000 * DAY


def a_run(one: str, **facts: object) -> RunFact:
    return RunFact(**({"id": one, "name": one, "experiment": "1", "location": "", "deleted_at": None, "ended_at": None} | facts))  # type: ignore[arg-type]


runs = st.lists(
    st.builds(
        RunFact,
        id=st.integers(0, 7).map(str),
        name=st.just("n"),
        experiment=st.sampled_from("12"),
        location=st.just(""),
        deleted_at=st.none() | st.integers(0, 1000).map(lambda day: day * DAY),
        ended_at=st.none() | st.integers(0, 1000).map(lambda day: day * DAY),
        parent=st.sampled_from(["", *"01234567"]),
        referred=st.sampled_from(["", "m/1"]),
    ),
    unique_by=lambda run: run.id,
    max_size=8,
)


def in_circle(run: RunFact, runs: list[RunFact]) -> bool:
    """Whether a run is below itself, or below one that is."""
    parents, at = {one.id: one.parent for one in runs}, run.parent
    for _ in runs:
        at = parents.get(at, "")
    return bool(at)


@given(runs=runs, deleted=st.integers(0, 1000), unreferenced=st.none() | st.integers(0, 1000))
def test_what_goes_is_due_is_referred_to_by_nothing_and_takes_its_children_along(
    runs: list[RunFact], deleted: int, unreferenced: int | None
) -> None:
    rule = Rule(deleted * DAY, None if unreferenced is None else unreferenced * DAY)
    experiment = OtherFact("1", "e", "", 0)
    actions = decide(runs, [], [experiment], rule, NOW)
    gone = {action.run.id for action in actions if isinstance(action, DeleteRun)}
    until = -1 if rule.unreferenced is None else NOW - rule.unreferenced
    for run in runs:
        old = run.deleted_at is not None and run.deleted_at <= NOW - rule.deleted
        loose = run.deleted_at is None and run.ended_at is not None and run.ended_at <= until
        if run.id in gone:
            assert old or loose
            assert not run.referred
            assert all(child.id in gone for child in runs if child.parent == run.id and child.id != run.id)
            above = [action.run.id for action in actions if isinstance(action, DeleteRun)]
            parents = [other for other in runs if other.id == run.parent and not in_circle(other, runs)]
            assert all(above.index(run.id) < above.index(parent.id) for parent in parents if parent.id in gone), "children first"
        elif old and not run.referred and not any(child.parent == run.id for child in runs):
            raise AssertionError(f"{run} had to go")
    there = any(run.experiment == "1" and run.id not in gone for run in runs)
    assert any(isinstance(action, DeleteExperiment) for action in actions) == (not there)


def test_a_logged_model_goes_with_its_rule_and_stays_with_its_version() -> None:
    models = [OtherFact("m-1", "a", "", 0), OtherFact("m-2", "b", "", 0, referred="b/1"), OtherFact("m-3", "c", "", NOW)]
    assert decide([], models, [], Rule(DAY), NOW) == [DeleteModel(models[0]), Stays("logged model m-2", "b/1 refers to it")]


def logged(ledger: Ledger, experiment: str, text: str, *, ended_at: int = 1) -> str:
    """A run with a metric, a tag and a file."""
    run = create_run(ledger, experiment, started_at=0).info.run_id
    log_metric(ledger, run, Metric("m", 1.0, 1, 1))
    set_tag(ledger, run, Pair("a", "b"))
    part = ledger.blobs.part()
    part.write(text.encode() * 5000)
    tracking.put_file(ledger, f"{experiment}/{run}/artifacts/file.txt", part)
    update_run(ledger, run, status="FINISHED", ended_at=ended_at)
    return run


def clean(ledger: Ledger, rule: Rule, now: int) -> list[registry.Action]:
    actions = registry.plan(ledger, rule, now)
    registry.apply(ledger, actions)
    registry.sweep(ledger, now)
    return actions


def rows(ledger: Ledger) -> dict[str, int]:
    tables = ("run", "metric", "metric_latest", "tag", "artifact_file", "execution")
    with ledger.records.snapshot() as sql:
        return {table: int((sql.one(f"SELECT count(*) FROM {table}") or (0,))[0]) for table in tables}


@pytest.fixture
def shelf(folder_ledger: Ledger) -> Ledger:
    tracking.prepare(folder_ledger)
    folder_ledger.records.ensure(registry.tables)
    return folder_ledger


def test_a_deleted_run_goes_with_all_that_it_logged_and_its_bytes(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e")
    gone, kept = logged(shelf, experiment, "gone"), logged(shelf, experiment, "kept")
    delete_run(shelf, gone)
    now = shelf.wall() + 2**60
    assert [type(action) for action in clean(shelf, Rule(2**61), now)] == [], "it can be restored for so long"
    assert len(list(shelf.blobs.digests())) == 2
    assert [action.run.id for action in clean(shelf, Rule(0), now) if isinstance(action, DeleteRun)] == [gone]
    assert rows(shelf) == {"run": 1, "metric": 1, "metric_latest": 1, "tag": 2, "artifact_file": 1, "execution": 1}
    assert len(history(shelf, kept, "m")[0]) == 1
    assert len(list(shelf.blobs.digests())) == 1
    assert clean(shelf, Rule(0), now) == [], "a second call finds nothing to do"


def test_equal_bytes_stay_while_one_name_is_left(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e")
    delete_run(shelf, logged(shelf, experiment, "same"))
    kept = logged(shelf, experiment, "same")
    clean(shelf, Rule(0), shelf.wall() + 2**60)
    digest, _ = tracking.find_file(shelf, f"{experiment}/{kept}/artifacts/file.txt")
    shelf.blobs.verify(digest)


def test_a_run_that_is_registered_or_kept_by_its_tag_stays_and_says_why(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e")
    registered, tagged = logged(shelf, experiment, "r"), logged(shelf, experiment, "t")
    create_model(shelf, "m")
    create_version(shelf, "m", f"mlflow-artifacts:/{experiment}/{registered}/artifacts/model", run_id="")
    set_tag(shelf, tagged, Pair("tidemill.keep", "yes"))
    delete_run(shelf, registered)
    delete_run(shelf, tagged)
    found = clean(shelf, Rule(0), shelf.wall() + 2**60)
    assert {action.why for action in found if isinstance(action, Stays)} == {"m/1 refers to it", "the tag tidemill.keep refers to it"}
    assert rows(shelf)["run"] == 2


def test_by_rule_runs_go_to_which_nothing_refers(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e")
    logged(shelf, experiment, "old", ended_at=1)
    new = logged(shelf, experiment, "new", ended_at=10_000)
    found = clean(shelf, Rule(0, unreferenced=5_000_000), 10_000_000)
    assert [action.why for action in found if isinstance(action, DeleteRun)] == ["nothing refers to it"]
    with shelf.records.snapshot() as sql:
        assert sql.all("SELECT uid FROM run") == [(new,)]


def test_a_deleted_experiment_goes_when_it_is_empty(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e", tags=[Pair("a", "b")])
    logged(shelf, experiment, "x")
    delete_experiment(shelf, experiment)
    kinds = [type(action) for action in clean(shelf, Rule(0), shelf.wall() + 2**60)]
    assert kinds == [DeleteRun, DeleteExperiment]
    create_experiment(shelf, "e")
    assert not list(shelf.blobs.digests())


def test_what_is_restored_after_the_plan_is_not_deleted(shelf: Ledger) -> None:
    from tidemill.tracking.runs import restore_run

    experiment = create_experiment(shelf, "e")
    run = logged(shelf, experiment, "x")
    delete_run(shelf, run)
    actions = registry.plan(shelf, Rule(0), shelf.wall() + 2**60)
    restore_run(shelf, run)
    registry.apply(shelf, actions)
    assert rows(shelf)["run"] == 1


def test_what_a_version_is_made_of_after_the_plan_is_not_deleted(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e")
    by_place, tagged = logged(shelf, experiment, "x"), logged(shelf, experiment, "y")
    parent, made = logged(shelf, experiment, "p"), logged(shelf, experiment, "m")
    model = create_logged_model(shelf, experiment, name="a", run_id=made).info
    lone = create_logged_model(shelf, experiment, name="b").info
    delete_logged_model(shelf, lone.model_id)
    create_model(shelf, "m")
    now = shelf.wall() + 2**60
    actions = registry.plan(shelf, Rule(0, unreferenced=0), now)
    assert len([action for action in actions if isinstance(action, DeleteRun | DeleteModel)]) == 5
    create_version(shelf, "m", f"mlflow-artifacts:/{experiment}/{by_place}/artifacts/model")
    set_tag(shelf, tagged, Pair("tidemill.keep", "yes"))
    set_tag(shelf, create_run(shelf, experiment, started_at=0).info.run_id, Pair("mlflow.parentRunId", parent))
    create_version(shelf, "m", f"{model.artifact_uri}/model.onnx")
    create_version(shelf, "m", f"{lone.artifact_uri}/model.onnx")
    done = registry.apply(shelf, actions)
    assert [type(one) for one in done] == [Stays] * 5
    assert rows(shelf)["artifact_file"] == 4
    assert registry.apply(shelf, registry.plan(shelf, Rule(0, unreferenced=0), now)) == registry.plan(shelf, Rule(0, unreferenced=0), now)


def test_a_version_keeps_its_files_wherever_the_experiment_lies(shelf: Ledger) -> None:
    experiment = create_experiment(shelf, "e", "mlflow-artifacts:/artifacts/exp1")
    run = create_run(shelf, experiment).info
    create_model(shelf, "m")
    create_version(shelf, "m", f"{run.artifact_uri}/model")
    delete_run(shelf, run.run_id)
    outer = create_experiment(shelf, "outer", "mlflow-artifacts:/artifacts")
    delete_experiment(shelf, outer)
    found = clean(shelf, Rule(0), shelf.wall() + 2**60)
    assert {action.why for action in found if isinstance(action, Stays)} == {"m/1 refers to it"}
    assert rows(shelf)["run"] == 1


def test_of_the_segments_of_a_deleted_run_a_word_stays(shelf: Ledger) -> None:
    run = logged(shelf, create_experiment(shelf, "e"), "x")
    with shelf.records.transaction() as sql:
        sql.run("INSERT INTO segment (id, run, shipped) SELECT 'seg', execution, 100 FROM run WHERE uid = ?", (run,))
    delete_run(shelf, run)
    clean(shelf, Rule(0), shelf.wall() + 2**60)
    with shelf.records.snapshot() as sql:
        assert sql.all("SELECT id, shipped FROM segment") == [("seg", -1)]


def test_a_blob_that_is_stored_again_while_it_is_swept_is_there(tmp_path: Path) -> None:
    """One thread stores the same bytes again and again, another sweeps: after each store the blob is there."""
    blobs, done = FolderBlobs(tmp_path), threading.Event()
    digest = blobs.put(b"x" * 100)
    lost: list[str] = []

    def sweep() -> None:
        while not done.is_set():
            blobs.discard(digest, before)

    thread = threading.Thread(target=sweep)
    for i in range(300):
        with suppress(FileNotFoundError):
            os.utime(tmp_path / digest[:2] / digest[2:], ns=(i, i))
        before = 1_000_000_000_000_000  # all that is stored now is newer
        if not thread.is_alive():
            thread.start()
        part = blobs.part()
        part.write(b"x" * 100)
        part.keep()
        end = time.monotonic() + 5
        while not (there := blobs.has(digest)) and time.monotonic() < end:
            pass  # for a moment it may lie aside
        if not there:
            lost.append(digest)
    done.set()
    thread.join()
    assert not lost
