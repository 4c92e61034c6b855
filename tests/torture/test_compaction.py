"""The logs of answers, moved into their tables by processes that are killed, while others write and read."""

import random
import time
from pathlib import Path

import pytest

from processes import other, run_python
from serving.test_compaction import KILLED, START, fill, keys
from tidemill.serving import compact
from tidemill.serving.dataset import answers_at

pytestmark = pytest.mark.torture
STEPS = ("rename", "write_deltalake", "unlink", "compact", "vacuum")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_step_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, step: str, when: str) -> None:
    path = tmp_path / "late.jsonl"
    fill(path, range(50), at=lambda number: START + number)
    for count in (1, 3):
        run_python(KILLED, tmp_path, step, when, count)
        assert keys(path) == [f"key-{number}" for number in range(50)]
    compact(tmp_path, chunk=4000)
    assert keys(path) == [f"key-{number}" for number in range(50)]
    assert not answers_at(path).parts


WRITING = """
import os, sys
from pathlib import Path
from serving.test_compaction import START, answer
from tidemill.serving import AnswerLog
log = AnswerLog(Path(sys.argv[2]) / "late.jsonl")
for number in range(10**9):
    log.append([answer(number)], START + number, sys.argv[3])
    os.write(1, f"{number}\\n".encode())
"""
COMPACTING = """
import sys
from pathlib import Path
from tidemill.serving import compact
while True:
    compact(Path(sys.argv[1]), chunk=300_000, wait=60)
"""
PREPARE = "import sys; sys.path.insert(0, sys.argv[1])\n"


def test_writers_and_compactions_killed_at_random_times_lose_no_answer_that_was_acknowledged(tmp_path: Path) -> None:
    """Each writer has a branch of its own. Waiting is the point here, so this sleeps."""
    chance, acknowledged = random.Random(7), dict[str, int]()
    (tmp_path / "log").mkdir()
    for turn in range(8):
        with (
            other(PREPARE + WRITING, Path(__file__).parent.parent, tmp_path / "log", f"a{turn}") as first,
            other(PREPARE + WRITING, Path(__file__).parent.parent, tmp_path / "log", f"b{turn}") as second,
            other(COMPACTING, tmp_path / "log") as mover,
        ):
            first.says(), second.says()
            time.sleep(chance.uniform(0.5, 3.0))
            for one, name in ((mover, ""), (first, f"a{turn}"), (second, f"b{turn}")):
                one.kill()
                if name:
                    assert one.process.stdout is not None
                    acknowledged[name] = max((int(line) for line in one.process.stdout if line.endswith("\n")), default=0)
    path = tmp_path / "log" / "late.jsonl"
    for _ in range(2):
        found = dict[str, list[int]]()
        for line in answers_at(path).read(dict):
            found.setdefault(line["branch"], []).append(int(line["key"].removeprefix("key-")))
        for branch, last in acknowledged.items():
            assert found[branch] == list(range(len(found[branch])))
            assert len(found[branch]) > last
        compact(tmp_path / "log")
