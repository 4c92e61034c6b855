"""The native client: what it logged arrives whole, once, and in order, whatever ends first: the training, the disk, the server."""

import math
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill
from processes import other, run_python, served
from tidemill import project, tracking
from tidemill.core import Busy, Damaged, DataError, MissingFile, Ref, Refused, StoreError, TidemillError
from tidemill.ledger import Ledger
from tidemill.tracking import companion, intake, shipping
from tidemill.tracking.artifacts import find_file, list_files, place_of
from tidemill.tracking.experiments import create_experiment, get_experiment
from tidemill.tracking.hardware import Hardware, gpu_metrics
from tidemill.tracking.metrics import history
from tidemill.tracking.runs import get_run
from tidemill.tracking.segment import EVENT, METRIC, NAME, End, File, Head, Params, Segment, frame, is_written, pack_metric, read_head, scan
from tidemill.tracking.shipping import Shipper
from tidemill.tracking.spool import attach, files_of

MANY = ["tags", "metrics", "params"]
COMMAND = [sys.executable, "-c", "from tidemill.cli import main; main()"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has a spool of its own, and no companion outlives it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TIDEMILL_URI", raising=False)
    yield
    for one in companion.running():
        one.leave()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def opened(home: Path) -> Ledger:
    return project.find(home).ledger(read_only=True)


def values(ledger: Ledger, run: str, key: str) -> list[tuple[int, float]]:
    return [(one.step or 0, one.value or 0.0) for one in history(ledger, run, key)[0]]


def told(ledger: Ledger, run: str) -> dict[str, dict[str, Any]]:
    found = get_run(ledger, run).data
    return {name: {one.key: one.value for one in getattr(found, name) or ()} for name in MANY}


# ── from end to end ─────────────────────────────────────────────────────────────────────────────────────────────


def log_all(run: tracking.ActiveRun, folder: Path) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights.bin").write_bytes(b"\0" * 70_000)
    for step in range(1000):
        run.log_metric("loss", 1 / (step + 1), step)
    run.log_metrics({"auc": 0.75, "nan": math.nan}, step=3)
    run.log_params({"depth": 3, "rate": 0.1})
    run.set_tags({"stage": "try"})
    run.log_artifacts(folder / "model", "model")
    run.log_text("# Notes", "notes/read.md")
    run.log_input(folder / "model" / "weights.bin", context="validation")


def check_all(ledger: Ledger, run: str) -> None:
    found = told(ledger, run)
    assert values(ledger, run, "loss") == [(step, 1 / (step + 1)) for step in range(1000)]
    assert found["metrics"]["auc"] == 0.75
    assert math.isnan(found["metrics"]["nan"])
    assert found["params"] == {"depth": "3", "rate": "0.1"}
    assert found["tags"]["stage"] == "try"
    whole = get_run(ledger, run)
    assert (whole.info.status, get_experiment(ledger, whole.info.experiment_id).name) == ("FINISHED", "flowers")
    dataset = (whole.inputs.dataset_inputs or [])[0].dataset if whole.inputs else None
    assert dataset is not None
    assert dataset.name == "weights.bin"
    root = place_of(whole.info.artifact_uri)
    assert find_file(ledger, f"{root}/model/weights.bin")[1] == 70_000
    assert [one.path for one in list_files(ledger, root)] == ["model", "notes"]


def test_a_run_goes_to_a_project_that_is_made_for_it(home: Path, tmp_path: Path) -> None:
    with tidemill.run("flowers", to=home, captured=False, system_metrics=0, wait=60) as run:
        log_all(run, tmp_path)
    check_all(opened(home), run.id)
    assert not list((home / ".tidemill" / "spool").glob("*.seg")), "what was shipped is gone"


def test_a_run_goes_to_a_server(home: Path, tmp_path: Path) -> None:
    with served("server", "--home", str(home), "--port", "0", "--json") as (_, url):
        with tidemill.run("flowers", to=url, captured=False, system_metrics=0, wait=60) as run:
            log_all(run, tmp_path)
        with tidemill.run(id=run.id, to=url, captured=False, wait=60) as again:  # it does not know what the first one logged
            again.log_text("x", "model")
            again.log_metric("after", 1.0)
        check_all(opened(home), run.id)
        found = told(opened(home), run.id)
        assert "after" in found["metrics"], "a file that is refused holds up nothing"
        assert re.match("model: the server refuses .*is a folder", found["tags"]["tidemill.refused.file"])


def test_without_a_word_it_goes_to_the_project_around(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project.ensure(home).folder / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    with tidemill.run(captured=False, system_metrics=0, wait=60) as run:
        run.log_metric("m", 1.0)
    assert get_experiment(opened(home), get_run(opened(home), run.id).info.experiment_id).name == "Default"


def test_runs_within_a_run_are_its_children_and_each_ends_as_its_block(home: Path) -> None:
    with tidemill.run("search", to=home, captured=False, system_metrics=0, wait=60) as mother:
        with tidemill.run("search", to=home, captured=False, system_metrics=0, wait=60) as good:
            good.log_metric("m", 1.0)
        with pytest.raises(ZeroDivisionError), tidemill.run("search", to=home, captured=False, system_metrics=0, wait=60) as bad:
            bad.log_metric("m", 1 / 0)
        with pytest.raises(KeyboardInterrupt), tidemill.run("search", to=home, captured=False, system_metrics=0, wait=60) as stopped:
            raise KeyboardInterrupt
    ledger = opened(home)
    ends = {one.id: get_run(ledger, one.id).info.status for one in (mother, good, bad, stopped)}
    assert ends == {mother.id: "FINISHED", good.id: "FINISHED", bad.id: "FAILED", stopped.id: "KILLED"}
    assert told(ledger, good.id)["tags"]["mlflow.parentRunId"] == mother.id
    assert "mlflow.parentRunId" not in told(ledger, mother.id)["tags"]
    assert next(one for one in ledger.executions(kind="run") if one.status == "failed").error == "ZeroDivisionError: division by zero"


def test_a_run_is_taken_up_again_and_its_first_parameter_stays(home: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60, params={"depth": 3}) as run:
        run.log_metric("m", 1.0, 1)
        run.log_text("x", "notes.md")
    with tidemill.run(id=run.id, to=home, captured=False, wait=60) as again:
        again.log_metric("m", 2.0, 2)
        again.log_text("x", "notes.md/below")
        again.log_param("depth", 4)
    found = told(opened(home), run.id)
    assert values(opened(home), run.id, "m") == [(1, 1.0), (2, 2.0)]
    assert found["params"] == {"depth": "3"}
    assert found["tags"]["tidemill.refused.depth"] == "4"
    assert re.match(r"notes.md/below: .*/notes.md' is a file, and no folder", found["tags"]["tidemill.refused.file"])
    assert not list((home / ".tidemill" / "spool").glob("*.seg"))


def test_threads_lose_nothing_of_each_other(home: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        threads = [threading.Thread(target=lambda k=k: [run.log_metric(f"m{k}", i, i) for i in range(2000)]) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for k in range(4):
        assert values(opened(home), run.id, f"m{k}") == [(i, float(i)) for i in range(2000)]


def test_a_forked_process_logs_to_the_same_run(home: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        run.log_metric("before", 1.0)
        child = os.fork()
        if not child:
            try:
                run.log_metric("child", 2.0)
                run.log_metric("before", 3.0, 1)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        run.log_metric("mother", 4.0)
    for one in companion.running():
        one.leave()
    found = told(opened(home), run.id)["metrics"]
    assert found == {"before": 3.0, "child": 2.0, "mother": 4.0}


@pytest.mark.parametrize("value", ["0.5", None, [1.0], 1j])
def test_what_is_no_number_is_refused_where_it_is_logged(home: Path, value: Any) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        with pytest.raises(DataError, match=r"metric 'bad' at step 0 is .*: not a number"):
            run.log_metric("bad", value)
        with pytest.raises(DataError, match="not a number"):
            run.log_metrics({"good": 1.0, "bad": value})
    assert told(opened(home), run.id)["metrics"] == {}


def test_names_and_files_that_cannot_be_are_refused(home: Path, tmp_path: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60, params={"p": 1}) as run:
        with pytest.raises(DataError, match="Names may only contain"):
            run.log_metric("a\nb", 1.0)
        with pytest.raises(DataError, match="parameter 'p' is '1' and cannot become '2'"):
            run.log_param("p", 2)
        with pytest.raises(MissingFile, match="no such file"):
            run.log_artifact(tmp_path / "nothing")
        with pytest.raises(DataError, match="is no figure"):
            run.log_figure(3, "a.png")
        run.log_text("x", "folder/file")
        for path, why in (("folder", "'folder' is a folder"), ("folder/file/below", "'folder/file' is a file"), ("", "'.' is a folder")):
            with pytest.raises(DataError, match=f"Invalid path: {why} of this run"):
                run.log_text("y", path)
        run.log_text("z", "folder/file")
    ledger = opened(home)
    place = place_of(get_run(ledger, run.id).info.artifact_uri)
    assert bytes(ledger.blobs.get(find_file(ledger, f"{place}/folder/file")[0])) == b"z"
    assert "tidemill.refused.file" not in told(ledger, run.id)["tags"]


# ── what is captured ────────────────────────────────────────────────────────────────────────────────────────────

SCRIPT = """
import random, sys
sys.path.insert(0, {folder!r})
import helper, tidemill
import numpy as np
np.random.seed(17)
with tidemill.run("captured", to={home!r}, system_metrics=0.05, wait=60) as run:
    run.log_metric("x", helper.VALUE)
print(run.id)
"""


def test_code_seeds_environment_and_machine_are_captured_without_a_call(home: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "helper.py").write_text("VALUE = 1.0\n")
    (work / "train.py").write_text(SCRIPT.format(folder=str(work), home=str(home)))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    (work / "helper.py").write_text("VALUE = 2.0\n")
    run = subprocess.run([sys.executable, "train.py"], cwd=work, capture_output=True, text=True, check=True).stdout.split()[-1]
    ledger = opened(home)
    found = told(ledger, run)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, capture_output=True, text=True, check=True).stdout.strip()
    tags = found["tags"]
    assert (tags["mlflow.source.git.commit"], tags["tidemill.git.dirty"], tags["tidemill.seed.numpy"]) == (commit, "true", "17")
    assert tags["tidemill.command"].endswith("train.py")
    execution = ledger.execution(1)
    assert b"+VALUE = 2.0" in bytes(ledger.blobs.get(execution.code))
    assert b"numpy==" in bytes(ledger.blobs.get(execution.environment))
    root = place_of(get_run(ledger, run).info.artifact_uri)
    assert [one.path for one in list_files(ledger, root, "code")] == ["code/helper.py", "code/train.py"]
    assert bytes(ledger.blobs.get(find_file(ledger, f"{root}/code/helper.py")[0])) == b"VALUE = 2.0\n"
    assert found["metrics"]["system/process_memory_megabytes"] > 5
    assert 0 < found["metrics"]["system/system_memory_usage_percentage"] <= 100


def test_hardware_tells_the_process_and_its_gpus() -> None:
    hardware = Hardware(os.getpid())
    first, second = hardware.look(1.0), hardware.look(1.0)
    assert "system/process_cpu_percentage" not in first, "a share of time needs two looks"
    assert second["system/process_cpu_percentage"] >= 0
    found = gpu_metrics("0, 12, 512, 1024, [N/A]\n1, 0, 0, 1024, 70.25\n")
    assert found["system/gpu_0_memory_usage_percentage"] == 50
    assert found["system/gpu_1_power_usage_watts"] == 70.25
    assert "system/gpu_0_power_usage_watts" not in found


def test_a_training_set_that_is_asked_for_within_a_run_is_its_input(home: Path) -> None:
    class Known:
        ref = Ref.of("training set", "late", "a" * 40)

    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        tracking.note_input(Known())
    ledger = opened(home)
    assert ledger.executions(kind="run")[0].inputs == {"late": str(Known.ref)}
    assert get_run(ledger, run.id).inputs is not None


# ── what ends first ─────────────────────────────────────────────────────────────────────────────────────────────

ENDLESS = """
import sys, tidemill
run = tidemill.run("killed", to=sys.argv[1], captured=False, system_metrics=0, wait=60)
print(run.id)
for i in range(10**9):
    run.log_metric("i", i, i)
    if i % 1000 == 0:
        print(i)
"""


def test_what_was_logged_survives_a_kill_and_the_run_has_failed(home: Path) -> None:
    with other(ENDLESS, home) as process:
        run = process.says()
        while (last := int(process.says())) < 20_000:
            pass
        process.kill()
    result = subprocess.run([*COMMAND, "-C", str(home), "sync"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    ledger = opened(home)
    found = values(ledger, run, "i")
    assert found == [(i, float(i)) for i in range(len(found))]
    assert len(found) > last
    assert get_run(ledger, run).info.status == "FAILED"
    assert ledger.executions(kind="run")[0].error == intake.LOST


AWAY = """
import sys, tidemill
with tidemill.run("away", to=sys.argv[1], captured=False, system_metrics=0, wait=60) as run:
    for i in range(5000):
        run.log_metric("i", i, i)
    run.log_text("kept", "kept.txt")
print(run.id)
"""


def test_a_server_that_is_away_fails_nothing_and_sync_sends_it_later(home: Path, tmp_path: Path) -> None:
    ended = run_python(AWAY, "http://127.0.0.1:9")
    assert ended.returncode == 0
    assert "the server is away" in ended.stderr
    run = ended.stdout.split()[-1]
    refused = subprocess.run([*COMMAND, "sync"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "stays" in refused.stdout
    sync = [*COMMAND, "sync", "--to", str(home), "--json"]
    sent = subprocess.run(sync, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert len(values(opened(home), run, "i")) == 5000
    assert get_run(opened(home), run).info.status == "FINISHED"


def head(run: str = "r1", to: str = "") -> Head:
    return Head(run, to, 1_000_000, "e", "n", "me", "here", 1)


def written(path: Path, to: Path, *, metrics: int = 40, run: str = "r1") -> Path:
    """A segment whose process has ended."""
    segment = Segment(path, head(run, str(to)))
    segment.append(frame(NAME, [0, "m"]))
    for i in range(metrics):
        segment.append(pack_metric(METRIC, 0, 1_000_000 + i * 1000, i, float(i)))
        if i % 7 == 3:
            segment.append(frame(EVENT, Params({f"p{i}": str(i)})))
    segment.close()
    return path


def test_a_segment_that_is_cut_anywhere_gives_what_stands_before(tmp_path: Path) -> None:
    data = written(tmp_path / "a.seg", tmp_path).read_bytes()[8:]
    whole = list(scan(data))
    ends = [0, *(at for at, _, _ in whole)]
    points = sum(len(what) for _, kind, what in whole if kind == METRIC)
    assert points == 40
    for cut in range(len(data)):
        at = max((end for end, _, _ in scan(data[:cut])), default=0)
        assert cut - 32 - 200 < at <= cut
        assert at in ends or (at - max(end for end in ends if end <= at)) % 32 == 0


@settings(max_examples=25, deadline=None)
@given(stretch=st.integers(1, 700), failures=st.lists(st.booleans(), max_size=12))
def test_every_stretch_arrives_once_whatever_fails_between(
    stretch: int, failures: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The destination fails before or after it has taken a stretch, and the shipper begins anew."""
    folder = tmp_path_factory.mktemp("once")
    path = written(folder / "r1-0.seg", folder / "home")
    left = list(failures)

    class Failing(shipping.Embedded):
        def ship(self, shipment: intake.Shipment, data: bytes) -> intake.Receipt:
            before = left.pop() if left else None
            if before:
                raise StoreError("away")
            receipt = super().ship(shipment, data)
            if before is False:
                raise StoreError("gone before it answered")
            return receipt

    done = False
    while not done:
        shipper = Shipper(opens=Failing, stretch=stretch)
        try:
            done = shipper.ship(path)
        except StoreError:
            pass
        finally:
            shipper.close()
    ledger = opened(folder / "home")
    assert values(ledger, "r1", "m") == [(i, float(i)) for i in range(40)]
    assert len(told(ledger, "r1")["params"]) == 6
    ledger.records.close()


def test_a_damaged_segment_is_moved_aside_and_what_stands_before_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "r1-0.seg", tmp_path / "home")
    data = bytearray(path.read_bytes())
    data[-40:] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"begins no frame|is not what was written"):
        Shipper().ship(path)
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    assert len(values(opened(tmp_path / "home"), "r1", "m")) == 39


@pytest.mark.parametrize("content", [b"", b"TIDE", b"nothing of ours" * 10])
def test_what_is_no_segment_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r1-0.seg"
    path.write_bytes(content)
    with pytest.raises(Damaged, match="no segment of a run"):
        read_head(path)


def test_a_disk_that_refuses_loses_nothing_that_it_takes_later(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "a.seg", head())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        for i in range(50):
            segment.append(pack_metric(METRIC, 0, i, i, float(i)))
        assert segment.refused
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    segment.append(pack_metric(METRIC, 0, 50, 50, 50.0))
    assert not segment.refused
    found = [point for _, kind, what in scan((tmp_path / "a.seg").read_bytes()[8:]) if kind == METRIC for point in what]
    assert [point[2] for point in found] == list(range(51))


def test_others_see_whether_a_segment_is_being_written(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "a.seg", head())
    assert is_written(tmp_path / "a.seg")
    segment.close()
    assert not is_written(tmp_path / "a.seg")


BAD_HEAD = intake.Shipment("s", head("../x"), 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x05\0\0\0{}",
        shipping.pack(intake.Shipment("s", head(), 0), b"x" * 20),
        shipping.pack(BAD_HEAD, b""),
    ],
)
def test_a_server_refuses_what_is_no_segment(home: Path, body: bytes) -> None:
    import http.client

    with served("server", "--home", str(home), "--port", "0", "--json") as (_, url):
        for kind, said in ((shipping.SEGMENTS_KIND, b"INVALID_PARAMETER_VALUE"), ("application/json", b"Content-Type")):
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
            connection.request("POST", shipping.SEGMENTS, body, {"content-type": kind})
            answer = connection.getresponse()
            assert answer.status in (400, 503)
            assert said in answer.read() or answer.status == 503
            connection.close()


# ── what a reviewer did to it ───────────────────────────────────────────────────────────────────────────────────


def test_a_stretch_that_is_cut_short_on_its_way_is_refused_and_sent_again(ledger: Ledger, tmp_path: Path) -> None:
    tracking.prepare(ledger)
    data = written(tmp_path / "r1-0.seg", tmp_path).read_bytes()
    for cut in (100, 1000, len(data) - 1):
        with pytest.raises(DataError, match="ends within a frame"):
            intake.ingest(ledger, intake.Shipment("r1-0", head(), 0), data[:cut])
    receipt = intake.ingest(ledger, intake.Shipment("r1-0", head(), 0), data)
    assert receipt.offset == len(data)
    assert len(values(ledger, "r1", "m")) == 40


def test_a_later_segment_may_come_first_and_the_first_one_tells_the_run(ledger: Ledger, tmp_path: Path) -> None:
    tracking.prepare(ledger)
    later = Head("r1", "", 9_000_000, pid=2, first=False)
    segment = Segment(tmp_path / "r1-1.seg", later)
    segment.append(frame(NAME, [0, "late"]) + pack_metric(METRIC, 0, 9_000_000, 1, 2.0))
    segment.close()
    intake.ingest(ledger, intake.Shipment("r1-1", later, 0), (tmp_path / "r1-1.seg").read_bytes())
    intake.ingest(ledger, intake.Shipment("r1-0", head(), 0), written(tmp_path / "r1-0.seg", tmp_path).read_bytes())
    run = get_run(ledger, "r1")
    assert (get_experiment(ledger, run.info.experiment_id).name, run.info.run_name, run.info.start_time) == ("e", "n", 1000)
    found = tracking.find_runs(ledger, "metrics.late > 1", experiments=["e"])
    assert [one.id for one in found] == ["r1"]


def test_a_run_that_was_deleted_for_good_does_not_come_back(ledger: Ledger, tmp_path: Path) -> None:
    tracking.prepare(ledger)
    data = written(tmp_path / "r1-0.seg", tmp_path).read_bytes()
    intake.ingest(ledger, intake.Shipment("r1-0", head(), 0), data)
    with ledger.records.transaction() as sql:
        sql.run("UPDATE segment SET shipped = -1")
        sql.run("DELETE FROM run")
    with pytest.raises(Refused, match="was deleted"):
        intake.ingest(ledger, intake.Shipment("r1-0", head(), len(data)), b"")


def test_paths_and_texts_are_made_such_that_every_store_can_hold_them(home: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        run.log_text("x", "./deep//notes.md")
        run.log_param("p", "a\0b\udc80")
        for path in ("../up.md", "a\\b"):
            with pytest.raises(DataError, match="Invalid path"):
                run.log_text("x", path)
    for named in ({"id": "bad id!"}, {"experiment": "x" * 501}):
        with pytest.raises(DataError):
            tidemill.run(to=home, captured=False, **named)  # type: ignore[arg-type]
    ledger = opened(home)
    assert told(ledger, run.id)["params"] == {"p": "ab?"}
    root = place_of(get_run(ledger, run.id).info.artifact_uri)
    assert find_file(ledger, f"{root}/deep/notes.md")[1] == 1


def test_an_experiment_that_keeps_its_files_elsewhere_holds_up_no_values(home: Path) -> None:
    ledger = project.ensure(home).ledger()
    tracking.prepare(ledger)
    create_experiment(ledger, "far", "s3://bucket/there")
    with tidemill.run("far", to=home, captured=False, system_metrics=0, wait=60) as run:
        run.log_metric("m", 1.0)
        run.log_text("x", "notes.md")
    assert values(ledger, run.id, "m") == [(0, 1.0)]
    ledger.records.close()


def test_what_a_disk_refuses_to_the_last_is_counted_and_a_lost_name_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.tracking.segment.HELD", 200)
    segment = Segment(tmp_path / "a.seg", head())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a.seg").stat().st_size, hard))
    try:
        kept = [segment.append(pack_metric(METRIC, 0, i, i, float(i))) for i in range(10)]
        assert kept == [True] * 6 + [False] * 4
        assert segment.dropped == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert segment.append(pack_metric(METRIC, 0, 10, 10, 10.0)), "the disk takes it again"
    segment.close()
    assert segment.dropped == 4
    with pytest.raises(DataError, match="the run has ended"):
        segment.append(b"x" * 32)


def test_what_is_held_when_a_run_ends_on_a_full_disk_is_counted(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "a.seg", head())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a.seg").stat().st_size, hard))
    try:
        for i in range(10):
            segment.append(pack_metric(METRIC, 0, i, i, float(i)))
        segment.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert segment.dropped == 10


def test_a_forked_process_that_lives_on_holds_up_nobody(home: Path) -> None:
    reading, writing = os.pipe()
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        run.log_metric("m", 1.0)
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the test lets go
            os._exit(0)
    assert not (home / ".tidemill" / "spool" / f"{run._segment.path.name}").exists(), "it was shipped and removed while the child lives"
    os.close(reading)
    os.close(writing)
    os.waitpid(child, 0)


def test_room_that_a_loss_of_power_left_empty_is_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "r1-0.seg", tmp_path / "home")
    with path.open("ab") as file:
        file.write(b"\0" * 3000)
    assert Shipper().ship(path)
    assert len(values(opened(tmp_path / "home"), "r1", "m")) == 40


def test_a_damaged_segment_ends_its_run(tmp_path: Path) -> None:
    path = written(tmp_path / "r1-0.seg", tmp_path / "home")
    with path.open("ab") as file:
        file.write(b"\xff" * 300)
    with pytest.raises(Damaged):
        Shipper().ship(path)
    assert get_run(opened(tmp_path / "home"), "r1").info.status == "FAILED"


def test_a_segment_without_its_files_says_so(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "r1-0.seg", head(to=str(tmp_path / "home")))
    segment.append(frame(EVENT, File("model/weights.bin", "gone")))
    segment.close()
    shipper = Shipper()
    assert shipper.ship(tmp_path / "r1-0.seg")
    assert shipper.missing == ["model/weights.bin"]


@pytest.mark.parametrize(("refuses", "taken"), [(DataError, True), (Refused, True), (StoreError, False), (Busy, False)])
def test_a_file_that_is_refused_for_good_is_passed_over_and_one_that_is_not_taken_now_waits(
    tmp_path: Path, refuses: type[TidemillError], *, taken: bool
) -> None:
    path = tmp_path / "r1-0.seg"
    segment = Segment(path, head(to=str(tmp_path / "home")))
    segment.append(
        frame(EVENT, File("odd\0.txt", attach(path, b"odd"))) + frame(NAME, [0, "after"]) + pack_metric(METRIC, 0, 1_000_000, 0, 1.0)
    )
    segment.append(frame(EVENT, File("good.txt", attach(path, b"good"))) + frame(EVENT, Params({"p": "1"})))
    segment.append(frame(EVENT, End(2_000_000, "FINISHED", "")))
    segment.close()
    refusing = True

    class Choosing(shipping.Embedded):
        def upload(self, path: str, file: Path) -> None:
            if refusing and "odd" in path:
                raise refuses("not this one")
            super().upload(path.replace("\0", ""), file)

    shipper = Shipper(opens=Choosing)
    if taken:
        assert shipper.ship(path)
        assert shipper.refused == ["odd.txt: not this one"]
    else:
        with pytest.raises(refuses, match="not this one"):
            shipper.ship(path)
        refusing = False
        assert shipper.ship(path)
        assert not shipper.refused
    assert not files_of(path).exists()
    ledger = opened(tmp_path / "home")
    found, whole = told(ledger, "r1"), get_run(ledger, "r1")
    assert (found["metrics"], found["params"], whole.info.status) == ({"after": 1.0}, {"p": "1"}, "FINISHED")
    assert found["tags"].get("tidemill.refused.file") == ("odd.txt: not this one" if taken else None)
    there = [one.path for one in list_files(ledger, place_of(whole.info.artifact_uri))]
    assert there == (["good.txt"] if taken else ["good.txt", "odd.txt"])
    shipper.close()


def test_what_a_driver_says_in_words_is_no_value() -> None:
    assert gpu_metrics("No devices were found\n") == {}


def test_of_one_moment_the_last_value_counts(home: Path) -> None:
    with tidemill.run("a", to=home, captured=False, system_metrics=0, wait=60) as run:
        for value in (0.9, 0.5, 0.1):
            run.log_metric("loss", value)
    found = {one for _, one in values(opened(home), run.id, "loss")}
    assert found == {0.9, 0.5, 0.1}
