"""What several processes count together: sums, what of a killed one stays, and what does not."""

from collections import Counter
from mmap import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes import other
from tidemill.serving import SIZE, Counters
from tidemill.serving.counters import NOW

NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(st.integers(0, 2), NAMES, st.integers(-(2**40), 2**40)), max_size=40))
def test_each_reads_the_sum_of_all(told: list[tuple[int, tuple[str, ...], int]]) -> None:
    """Beside a counter of one process."""
    memory = mmap(-1, 3 * SIZE)
    processes, sums = [Counters(memory, part) for part in range(3)], Counter[tuple[str, ...]]()
    for part, name, by in told:
        processes[part].row(*name)[0] += by
        sums[name] += by
        for one in processes:
            assert sum(row[0] for row in one.rows(*name)) == sums[name]
    for one in [*processes, Counters(memory, 0)]:
        assert {name: sum(row[0] for row in one.rows(*name)) for name in one.names()} == dict(sums)


COUNTING = """
import os, sys
from mmap import mmap
from tidemill.serving import Counters
file = os.open(sys.argv[1], os.O_RDWR)
counters = Counters(mmap(file, 0), int(sys.argv[2]))
counters.begin()
counters.ready()
counters.open = 7
counters.row("now", "left out", "late")[0] = 1
for i in range(10**9):
    counters.row("answers", str(i % 5))[0] += 1
    if i % 100 == 0:
        os.write(1, f"{i}\\n".encode())
"""


def test_what_a_killed_process_counted_stays_and_its_successor_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "counters"
    file.write_bytes(bytes(2 * SIZE))
    with file.open("r+b") as opened:
        ours, before = Counters(mmap(opened.fileno(), 0), 0), 0
        for _ in range(3):
            with other(COUNTING, file, 1) as process:
                for _ in range(20):
                    said = int(process.says())
                found = sum(ours.of("answers").values())
                assert (found > before + said, ours.processes, [*ours.of(NOW, "left out")]) == (True, 1, ["late"])
                process.kill()
            after = sum(ours.of("answers").values())
            assert after >= found
            ours.forget(1)
            assert (ours.processes, ours.fewest, [*ours.of(NOW, "left out")]) == (0, 0, [])
            assert sum(ours.of("answers").values()) == after
            before = after


def test_where_there_is_no_room_nothing_breaks(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    wide = SIZE // 8 - 20
    counters.row("all of it", width=wide)[wide - 1] = 1
    counters.row("one that does not fit any more", width=9)[8] += 3
    counters.row("one that does not fit any more", width=9)[8] += 3
    assert counters.row("one that does not fit any more", width=9)[8] == 6
    assert [list(row)[-1:] for row in counters.rows("all of it")] == [[1.0]]
    assert caplog.text.count("counters=full") == 1


def test_a_process_has_the_fewest_connections_of_those_that_answer() -> None:
    memory = mmap(-1, 3 * SIZE)
    one, two, three = (Counters(memory, part) for part in range(3))
    one.open, two.open = 5, 3
    one.ready()
    assert (one.fewest, three.processes) == (5, 1)
    two.ready()
    assert (one.fewest, three.processes) == (3, 2)
    two.begin()
    assert (one.fewest, one.open) == (5, 5)
