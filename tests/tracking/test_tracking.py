"""Runs: what was logged comes back, in its order; wrong values are refused whole; and the way is short."""

import math
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tidemill
from processes import other
from tidemill import tracking
from tidemill.core import DataError, Ref, digest_bytes
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.store import FolderBlobs, Records
from tidemill.tracking import Run

HOUSE = str(Path(tidemill.__file__).parent)


@pytest.fixture
def run(ledger: Ledger) -> Run:
    return started(ledger)


def started(ledger: Ledger) -> Run:
    tracking.prepare(ledger)
    artifact = Artifact(Ref.of("model", "m", digest_bytes(b"m")), {})
    once = ledger.once("training run", "m", {}, lambda: Made({"model": artifact}, {"depth": 3}, {"rows": 10.0}))
    return Run(ledger, once.execution)


def test_a_history_comes_back_by_time_then_step(run: Run) -> None:
    for step, value in enumerate([3.0, 2.0, 2.5]):
        run.log_metric("loss", value, step)
    run.log_metric("loss", 9.0, step=0)
    assert run.history("loss") == [(0, 3.0), (0, 9.0), (1, 2.0), (2, 2.5)], "within a millisecond, by step"
    assert run.history("never") == []


@pytest.mark.parametrize("value", [0.1 + 0.2, -0.25, 1e308, 5e-324, math.inf, -math.inf, 7, True])
def test_every_number_comes_back_as_it_was(run: Run, value: float) -> None:
    run.log_metric("m", value)
    assert run.history("m") == [(0, value)]


def test_nan_comes_back_as_nan(run: Run) -> None:
    run.log_metric("m", math.nan)
    assert math.isnan(run.history("m")[0][1])
    assert math.isnan(run.metrics["m"])


@pytest.mark.parametrize("value", ["0.5", None, [1.0], 1j])
def test_what_is_no_number_is_refused_and_nothing_of_its_batch_is_kept(run: Run, value: Any) -> None:
    with pytest.raises(DataError, match=rf"metric 'bad' is {type(value).__name__}, not a number"):
        run.log_metrics({"good": 1.0, "bad": value})
    assert run.history("good") == []


def test_the_newest_value_stands_beside_what_the_run_itself_gave(run: Run) -> None:
    run.log_metrics({"a": 1.0, "b": 2.0}, step=1)
    run.log_metric("a", 5.0, step=2)
    assert run.metrics == {"rows": 10.0, "a": 5.0, "b": 2.0}
    assert run.params == {"depth": 3}
    assert run.execution.status == "finished"


def test_logging_one_metric_takes_few_calls_in_few_modules(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    run = started(Ledger(records, FolderBlobs(tmp_path / "blobs"), lambda: 0))
    run.log_metric("warm", 1.0)
    calls: list[tuple[str, str]] = []

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(HOUSE):
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))

    sys.setprofile(count)
    try:
        run.log_metric("loss", 0.5, 3)
    finally:
        sys.setprofile(None)
    records.close()
    assert 0 < len(calls) <= 25, calls
    assert len({file for file, _ in calls}) <= 6  # the sixth is the database's own part of the records


LOG = """
import sys
from pathlib import Path
from tidemill import tracking
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records
ledger = Ledger(Records(Path(sys.argv[1]) / "records.db"), FolderBlobs(Path(sys.argv[1]) / "blobs"), lambda: 0)
run = tracking.Run(ledger, int(sys.argv[2]))
for step in range(100_000):
    run.log_metric("loss", float(step), step)
    print(step)
"""


def test_what_was_logged_has_survived_a_kill(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    run = started(Ledger(records, FolderBlobs(tmp_path / "blobs"), lambda: 0))
    with other(LOG, tmp_path, run.number) as logging:
        while int(logging.says()) < 50:
            pass
        logging.kill()
        rest = os.read(logging.process.stdout.fileno(), 1 << 20) if logging.process.stdout else b""
    said = 50 + rest.count(b"\n")
    found = run.history("loss")
    assert len(found) >= said
    assert found == [(step, float(step)) for step in range(len(found))]
    records.close()
