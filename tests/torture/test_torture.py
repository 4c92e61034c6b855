"""Kills at many random times. Run by `make torture`."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from loop.test_kills import REPLAY, TESTS, Replayed, finish
from processes import other
from tidemill import project
from tidemill.tracking import Shipper, segments
from tidemill.tracking.metrics import history
from toy import write_project

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("seed", range(10))
def test_a_replay_killed_at_three_random_times_ends_as_one_that_was_not(tmp_path: Path, replayed: Replayed, seed: int) -> None:
    """Anywhere: while building, training, writing, between ticks. Waiting is the point here, so this sleeps."""
    folder, chance = write_project(tmp_path / "p"), random.Random(seed)
    for _ in range(3):
        with other(REPLAY, TESTS, folder) as process:
            time.sleep(chance.uniform(0.8, 8.0))
            process.kill()
    finish(folder, replayed)


LOGGING = """
import os, sys, tidemill
run = tidemill.run("killed", to=sys.argv[1], captured=False, system_metrics=0)
print(run.id)
for i in range(10**9):
    run.log_metric("i", i, i)
    if i % 50 == 0:
        os.write(1, f"{i}\\n".encode())
"""


def test_a_hundred_killed_trainings_lose_nothing_that_was_logged(tmp_path: Path) -> None:
    """Each is killed at a random time, and its companion goes on; what waits is shipped later, once."""
    chance, home, acknowledged = random.Random(1), tmp_path / "home", dict[str, int]()
    for _ in range(100):
        with other(LOGGING, home) as process:
            run = process.says()
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            assert process.process.stdout is not None
            acknowledged[run] = max((int(line) for line in process.process.stdout if line.endswith("\n")), default=-1)
    shipper = Shipper()
    for path in segments(home / ".tidemill" / "spool"):
        shipper.ship(path)
    ledger = project.find(home).ledger(read_only=True)
    for run, last in acknowledged.items():
        found = [one.step for one in history(ledger, run, "i")[0]]
        assert found == list(range(len(found)))
        assert len(found) > last, f"{last} was acknowledged, {len(found)} values are there"
    ledger.records.close()
    shipper.close()
