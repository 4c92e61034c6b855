"""Kills at many random times. Run by `make torture`."""

import random
import time
from pathlib import Path

import pytest

from loop.test_kills import REPLAY, TESTS, finish
from processes import other
from toy import write_project

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("seed", range(10))
def test_a_replay_killed_at_three_random_times_ends_as_one_that_was_not(tmp_path: Path, seed: int) -> None:
    """Anywhere: while building, training, writing, between ticks. Waiting is the point here, so this sleeps."""
    folder, chance = write_project(tmp_path / "p"), random.Random(seed)
    for _ in range(3):
        with other(REPLAY, TESTS, folder) as process:
            time.sleep(chance.uniform(0.8, 8.0))
            process.kill()
    finish(folder)
