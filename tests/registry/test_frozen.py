"""The files of a registered version are its own: from its registration on, or from its first use after what makes them is over."""

import threading
from pathlib import Path

import pytest

from tidemill import loop, registry, tracking
from tidemill.core import DataError, Refused, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.aliases import set_alias
from tidemill.registry.models import create_model, delete_model
from tidemill.registry.registered import create_version, delete_version, get_version
from tidemill.store import Records
from tidemill.tracking import Pair, find_file
from tidemill.tracking.experiments import create_experiment, delete_experiment, get_experiment
from tidemill.tracking.models import create_model as create_logged_model
from tidemill.tracking.models import finalize_model
from tidemill.tracking.runs import create_run, delete_run, update_run


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    loop.prepare(ledger)
    create_model(ledger, "m")
    return ledger


def put(ledger: Ledger, location: str, text: str) -> None:
    part = ledger.blobs.part()
    part.write(text.encode())
    tracking.put_file(ledger, tracking.place_of(location), part)


def read(ledger: Ledger, location: str) -> str:
    return bytes(ledger.blobs.get(find_file(ledger, tracking.place_of(location))[0])).decode()


def frozen_files(ledger: Ledger) -> list[str]:
    with ledger.records.snapshot() as sql:
        return [path for (path,) in sql.all("SELECT path FROM artifact_file WHERE path LIKE 'registered/%' ORDER BY path")]


def ended(ledger: Ledger, run: str) -> None:
    update_run(ledger, run, status="FINISHED", ended_at=1)


def place(ledger: Ledger, version: int = 1, name: str = "m") -> str:
    return registry.download_uri(ledger, name, str(version))


# ── one file ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["runs:/{run}/model.onnx", "{root}/model.onnx"])
def test_a_source_that_is_one_file_is_the_versions_own(ready: Ledger, way: str, tmp_path: Path) -> None:
    info = create_run(ready, "0").info
    put(ready, f"{info.artifact_uri}/model.onnx", "as it was")
    put(ready, f"{info.artifact_uri}/model.onnx.json", "another file")
    create_version(ready, "m", way.format(run=info.run_id, root=info.artifact_uri))
    put(ready, f"{info.artifact_uri}/model.onnx", "changed")
    where = place(ready)
    assert tracking.frozen_place(where) == where.removesuffix("/model.onnx") != where
    assert read(ready, where) == "as it was"
    with pytest.raises(Refused):
        put(ready, where, "x")
    assert registry.export(ready, "m", "1", tmp_path / "out") == ["model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "as it was"
    create_version(ready, "m", "models:/m/1")
    delete_version(ready, "m", "1")
    assert (read(ready, place(ready, 2)), len(frozen_files(ready))) == ("as it was", 1)
    delete_model(ready, "m")
    assert frozen_files(ready) == []


# ── files that come after the version ───────────────────────────────────────────────────────────────────────────


def early(ledger: Ledger, **more: str) -> tuple[str, str]:
    """A version of a run that has no files yet; the run's id, and where the files will lie."""
    info = create_run(ledger, "0").info
    source = f"{info.artifact_uri}/model"
    create_version(ledger, "m", source, **more)
    return info.run_id, source


def test_a_version_without_files_is_live_while_its_run_goes_on_and_frozen_at_its_first_use_after(ready: Ledger) -> None:
    run, source = early(ready)
    assert place(ready) == source
    put(ready, f"{source}/MLmodel", "one")
    assert place(ready) == source, "the run goes on"
    put(ready, f"{source}/MLmodel", "two")
    ended(ready, run)
    assert frozen_files(ready) == [], "nobody has used it"
    where = place(ready)
    assert tracking.frozen_place(where) == where == place(ready)
    put(ready, f"{source}/MLmodel", "three")
    assert (read(ready, f"{where}/MLmodel"), get_version(ready, "m", "1").source) == ("two", source)
    delete_version(ready, "m", "1")
    assert frozen_files(ready) == []


def test_without_files_it_stays_live_after_its_run(ready: Ledger) -> None:
    run, source = early(ready)
    ended(ready, run)
    assert place(ready) == source
    put(ready, f"{source}/MLmodel", "late")
    assert read(ready, f"{place(ready)}/MLmodel") == "late"
    assert len(frozen_files(ready)) == 1


def test_who_is_named_as_its_run_counts_and_a_deleted_one_is_over(ready: Ledger) -> None:
    other = create_run(ready, "0").info.run_id
    run, source = early(ready, run_id=other)
    put(ready, f"{source}/MLmodel", "x")
    ended(ready, run)
    assert place(ready) == source, "the run that is named goes on"
    delete_run(ready, other)
    assert place(ready) != source


def test_a_logged_model_is_over_when_it_is_ready_and_its_run_has_ended(ready: Ledger) -> None:
    run = create_run(ready, "0").info.run_id
    model = create_logged_model(ready, "0", name="model", run_id=run).info
    create_version(ready, "m", f"models:/{model.model_id}")
    put(ready, f"{model.artifact_uri}/MLmodel", "x")
    ended(ready, run)
    assert place(ready) == model.artifact_uri, "it is pending"
    finalize_model(ready, model.model_id, "LOGGED_MODEL_READY")
    assert tracking.frozen_place(place(ready))


@pytest.mark.parametrize("use", ["alias", "source", "export"])
def test_each_first_use_freezes(ready: Ledger, use: str, tmp_path: Path) -> None:
    run, source = early(ready)
    put(ready, f"{source}/MLmodel", "used")
    ended(ready, run)
    if use == "alias":
        set_alias(ready, "m", "best", "1")
    elif use == "source":
        create_version(ready, "m", "models:/m/1")
    else:
        registry.export(ready, "m", "1", tmp_path / "out")
    put(ready, f"{source}/MLmodel", "changed")
    assert read(ready, f"{place(ready)}/MLmodel") == "used"
    assert len(frozen_files(ready)) == (2 if use == "source" else 1)


def test_uses_at_once_give_one_place(ready: Ledger) -> None:
    run, source = early(ready)
    for number in range(30):
        put(ready, f"{source}/{number:02}", "x")
    ended(ready, run)
    found: list[str] = []
    start = threading.Barrier(4)

    def use() -> None:
        start.wait()
        found.append(place(ready))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (len(found), len(set(found)), len(frozen_files(ready))) == (4, 1, 30)


def test_what_is_frozen_or_still_to_come_is_read_without_a_writing_transaction(folder_ledger: Ledger) -> None:
    ready = loop.prepare(folder_ledger)
    create_model(ready, "m")
    info = create_run(ready, "0").info
    put(ready, f"{info.artifact_uri}/model/MLmodel", "x")
    create_version(ready, "m", f"{info.artifact_uri}/model")
    early(ready)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ready.records.transaction():
            held.set()
            done.wait()

    writer = threading.Thread(target=hold)
    writer.start()
    held.wait()
    try:
        with ready.records.at_once():  # a writer would raise
            found = place(ready), place(ready, 2)
    finally:
        done.set()
        writer.join()
    assert [bool(tracking.frozen_place(one)) for one in found] == [True, False]


def test_what_is_told_of_a_version_is_read_from_a_ledger_that_nobody_writes_to(folder_ledger: Ledger, tmp_path: Path) -> None:
    ready = loop.prepare(folder_ledger)
    create_model(ready, "m")
    run, source = early(ready)
    put(ready, f"{source}/requirements.txt", "numpy==2.0")
    ended(ready, run)
    records = Records(tmp_path / "state" / "records.db", read_only=True)
    facts = registry.facts_of(Ledger(records, ready.blobs, ready.wall, read_only=True), "m/1")
    records.close()
    assert facts.environment == {"numpy": "2.0"}


def test_a_prompt_and_a_place_that_is_too_wide_stay_as_they_were_said(ready: Ledger) -> None:
    run, source = early(ready)
    put(ready, f"{source}/MLmodel", "x")
    ended(ready, run)
    for said in (source, "mlflow-artifacts:/", "mlflow-artifacts:/registered"):
        number = create_version(ready, "m", said, tags=[Pair("mlflow.prompt.is_prompt", "true")]).version
        assert place(ready, int(number)) == said


# ── whose the files are ─────────────────────────────────────────────────────────────────────────────────────────


def test_files_go_with_their_version_though_another_was_made_from_its_place(ready: Ledger) -> None:
    info = create_run(ready, "0").info
    put(ready, f"{info.artifact_uri}/model/MLmodel", "x")
    create_version(ready, "m", f"{info.artifact_uri}/model")
    create_version(ready, "m", place(ready))
    create_version(ready, "m", f"{place(ready)}/nothing", tags=[Pair("mlflow.prompt.is_prompt", "true")])
    create_version(ready, "m", f"{place(ready)}/nothing")
    delete_version(ready, "m", "4")
    delete_version(ready, "m", "3")
    assert len(frozen_files(ready)) == 2, "a version that names a place below another's does not take it along"
    delete_version(ready, "m", "1")
    assert frozen_files(ready) == [f"{place(ready, 2).removeprefix('mlflow-artifacts:/')}/MLmodel"]


def test_no_experiment_lies_where_the_files_of_versions_do(ready: Ledger) -> None:
    info = create_run(ready, "0").info
    put(ready, f"{info.artifact_uri}/model/MLmodel", "x")
    create_version(ready, "m", f"{info.artifact_uri}/model")
    for around in (
        "mlflow-artifacts:/registered",
        "mlflow-artifacts:/./registered",
        "mlflow-artifacts:///registered/x",
        "mlflow-artifacts:/registered?x",
    ):
        with pytest.raises(DataError):
            create_experiment(ready, around, around)
    experiment = create_experiment(ready, "e", "mlflow-artifacts:/registered-by-us")
    with ready.records.transaction() as sql:  # as one may be there from before
        sql.run("UPDATE experiment SET location = 'mlflow-artifacts:/./registered' WHERE id = ?", (int(experiment),))
    delete_experiment(ready, experiment)
    registry.apply(ready, registry.plan(ready, registry.Rule(0), ready.wall() + 2**60))
    with pytest.raises(UnknownName):
        get_experiment(ready, experiment)
    assert len(frozen_files(ready)) == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_a_version_names_by_its_uri_stays(ready: Ledger, *, after: bool) -> None:
    info = create_run(ready, "0").info
    put(ready, f"{info.artifact_uri}/model/MLmodel", "x")
    ended(ready, info.run_id)
    delete_run(ready, info.run_id)
    now = ready.wall() + 2**60
    actions = registry.plan(ready, registry.Rule(0), now)
    create_version(ready, "m", f"runs:/{info.run_id}/model")
    actions = actions if after else registry.plan(ready, registry.Rule(0), now)
    assert [type(one) for one in registry.apply(ready, actions)] == [registry.Stays]
