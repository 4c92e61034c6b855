"""The logs of answers and of feedback move into tables, and whoever reads them finds each line once, wherever it lies."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from disks import small_disk
from processes import run_python
from tidemill.core import Busy, StoreError, show
from tidemill.serving import AnswerLog, FeedbackLog, compact, find_answers, last_feedback, read_feedback, read_log, sample_answers
from tidemill.serving import appending as logs
from tidemill.serving.answers import Answer, Basis
from tidemill.serving.compaction import is_due
from tidemill.serving.dataset import answers_at
from tidemill.serving.feedback import Feedback
from tidemill.serving.lines import ANSWERS
from tidemill.store import writer

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DAY, HOUR = 86_400_000_000, 3_600_000_000


KILLED = """
import os, signal, sys
from pathlib import Path
import deltalake
from tidemill.serving import compact
step, after, count = sys.argv[2], sys.argv[3] == "after", int(sys.argv[4])
def killing(real):
    def call(*args, **more):
        global count
        count -= 1
        if count == 0 and not after: os.kill(os.getpid(), signal.SIGKILL)
        found = real(*args, **more)
        if count == 0: os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call
places = {"write_deltalake": deltalake, "vacuum": deltalake.DeltaTable, "compact": deltalake.table.TableOptimizer}
place = places.get(step, Path)
setattr(place, step, killing(getattr(place, step)))
compact(Path(sys.argv[1]), chunk=4000)
"""


def answer(number: int, **more: Any) -> Answer:
    basis = Basis({"view__wind": number + 0.1, "view__size": None, "calendar__carrier": "DL"}, {"requests": "abc"}, {"distance": number})
    odd = {"view__wind": "5.1, above 5: clipped"} if number % 3 == 0 else {}
    rest = START - HOUR, "online", {"airport": "expired"}
    return replace(Answer(f"key-{number}", number / 1000, "boosted/1", "champion", *rest, basis=basis, unexpected=odd), **more)


def fill(path: Path, numbers: range, *, at: Callable[[int], int] = lambda number: START + number * HOUR) -> list[str]:
    log = AnswerLog(path)
    ids = [log.append([answer(number)], at(number), "live", route="predict", request="their-7")[0] for number in numbers]
    log.close()
    return ids


def keys(path: Path) -> list[str]:
    return [one["key"] for one in read_log(path)]


def test_lines_are_the_same_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    ids = fill(path, range(60))
    AnswerLog(path).append([answer(60, basis=None, given=START), answer(61, version="", features="none")], START + 60 * HOUR, "live")
    with closing(FeedbackLog(path)) as log:
        log.add([Feedback(ids[3], 1, "stood at the gate"), Feedback(ids[4], 0)], START + DAY)
        log.add([Feedback(ids[3], 0)], START + 2 * DAY)
    lines, said, sample = list(read_log(path)), list(read_feedback(path)), sample_answers(path, "live", START + HOUR, START + DAY, 10)
    found = compact(tmp_path)
    assert not path.exists()
    assert [(one.what, one.lines, one.rows, one.damaged) for one in found] == [
        ("predictions", 62, 62, 0),
        ("feedback", 3, 3, 0),
    ]
    assert list(read_log(path)) == lines
    assert list(read_feedback(path)) == said
    assert last_feedback(path)[ids[3]].label == 0
    assert sample_answers(path, "live", START + HOUR, START + DAY, 10) == sample
    assert [one.key for one in find_answers(path, "live", "key-7")] == ["key-7"]
    assert not find_answers(path, "other")
    fill(path, range(62, 65))
    assert keys(path) == [f"key-{number}" for number in range(65)]


texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.dictionaries(texts, texts, max_size=3)
lines = st.fixed_dictionaries(
    {"asked": st.integers(0, 10**16), "branch": texts, "key": texts, "at_us": st.integers(-(10**15), 10**16)}
    | {"probability": st.floats(allow_nan=False, allow_infinity=False), "version": texts, "rung": texts},
    optional={"latency_us": st.integers(0, 2**62), "route": texts, "note_features": texts, "unexpected": names, "versions": names}
    | {"inputs": st.dictionaries(texts, st.none() | texts | st.floats(allow_nan=False, allow_infinity=False), max_size=4)}
    | {"sent": st.dictionaries(texts, st.none() | texts | st.booleans() | st.integers(-(2**60), 2**60) | st.lists(texts), max_size=3)}
    | {"withheld": st.dictionaries(texts, st.lists(texts, max_size=3), max_size=2), "of_later": st.none() | names},
)


@settings(max_examples=25, deadline=None)
@given(some=st.lists(lines, min_size=1, max_size=8))
def test_whatever_a_line_holds_it_comes_back(some: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("log")
    written = [{"id": f"{one['asked']:013x}-{number:09x}", "at": show(one["at_us"]), **one} for number, one in enumerate(some)]
    (folder / "late.jsonl").write_text("".join(json.dumps(one) + "\n" for one in written))
    compact(folder)
    found = {one["id"]: one for one in read_log(folder / "late.jsonl")}
    assert found == {one["id"]: one for one in written}


def test_a_line_is_found_by_its_id_wherever_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    moved = fill(path, range(40))
    compact(tmp_path)
    sealed = fill(path, range(40, 50))
    logs.seal(path, answers_at(path).sealed, path.stat().st_size + 10**6)
    live = fill(path, range(50, 60))
    wanted = [moved[0], moved[39], sealed[0], live[9]]
    assert answers_at(path).find([*wanted, f"{START:013x}-000000000"], dict).keys() == {*wanted}
    assert keys(path) == [f"key-{number}" for number in range(60)]


def test_every_delta_reader_finds_typed_columns(tmp_path: Path) -> None:
    fill(tmp_path / "late.jsonl", range(30))
    fill(tmp_path / "early.jsonl", range(2))
    compact(tmp_path)
    table = DeltaTable(str(tmp_path / "delta" / "predictions"))
    assert table.metadata().partition_columns == ["deployment", "day"]
    assert sorted(path.split("/part")[0] for path in table.file_uris())[1].endswith("deployment=late/day=2026-01-01")
    polars = pytest.importorskip("polars")
    found = polars.read_delta(str(tmp_path / "delta" / "predictions")).filter(deployment="late").sort("place")
    assert found["probability"].to_list() == [number / 1000 for number in range(30)]
    assert str(found.schema["asked"]) == "Datetime(time_unit='us', time_zone='UTC')"
    assert dict(found["features"][7]) == {"view__size": None, "view__wind": 7.1}


@pytest.mark.parametrize(("step", "when"), [("rename", "after"), ("write_deltalake", "after"), ("unlink", "before")])
def test_killed_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, step: str, when: str) -> None:
    """At every step: `tests/torture`."""
    path = tmp_path / "late.jsonl"
    fill(path, range(50), at=lambda number: START + number)
    run_python(KILLED, tmp_path, step, when, 1)
    assert keys(path) == [f"key-{number}" for number in range(50)]
    compact(tmp_path, chunk=4000)
    assert keys(path) == [f"key-{number}" for number in range(50)]
    assert not answers_at(path).parts


def test_answers_go_on_while_it_is_compacted_and_while_it_is_read(tmp_path: Path) -> None:
    path, end, seen = tmp_path / "late.jsonl", Event(), list[list[str]]()
    written = [0]

    def write() -> None:
        log = AnswerLog(path)
        while written[0] < 1_500:
            log.append([answer(written[0])], START + written[0], "live")
            written[0] += 1
            end.wait(0.0005)
        log.close()

    def read() -> None:
        while not end.is_set():
            before = written[0]
            found = keys(path)
            assert found == [f"key-{number}" for number in range(len(found))]
            assert len(found) >= before
            seen.append(found)

    failures = list[BaseException]()
    threads = [Thread(target=_noted(one, failures)) for one in (write, read)]
    for one in threads:
        one.start()
    while threads[0].is_alive():
        compact(tmp_path, chunk=200_000)
    end.set()
    for one in threads:
        one.join()
    assert not failures
    assert seen
    assert keys(path) == [f"key-{number}" for number in range(written[0])]


def _noted(call: Callable[[], None], failures: list[BaseException]) -> Callable[[], None]:
    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 – told by the thread that waits
            failures.append(error)

    return run


def test_one_compacts_at_a_time(tmp_path: Path) -> None:
    fill(tmp_path / "late.jsonl", range(2))
    with writer(tmp_path / "compaction.lock", "another"), pytest.raises(Busy, match="another"):
        compact(tmp_path)
    assert compact(tmp_path)[0].lines == 2


def test_damaged_lines_are_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    fill(path, range(2))
    with path.open("ab") as file:
        file.write(b'{"branch": "live", "key"\n\xff\xfe\n{"branch": "live"}\n')
    fill(path, range(2, 4))
    with path.open("ab") as file:
        file.write(b'{"cut')
    found = compact(tmp_path)[0]
    assert (found.lines, found.damaged) == (4, 4)
    assert b"".join(one.read_bytes() for one in (tmp_path / "damaged").iterdir()) == (
        b'{"branch": "live", "key"\n\xff\xfe\n{"branch": "live"}\n{"cut\n'
    )
    assert keys(path) == [f"key-{number}" for number in range(4)]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = disk / "late.jsonl"
        fill(path, range(900))
        with pytest.raises(StoreError, match="for a while"):
            compact(disk)
        assert len(keys(path)) == 900


@pytest.mark.parametrize("in_place", ["a file", "a folder of others", "a table of others"])
def test_what_lies_in_the_place_of_the_table_is_left_alone(tmp_path: Path, in_place: str) -> None:
    path, place = tmp_path / "late.jsonl", tmp_path / "delta" / "predictions"
    ids = fill(path, range(3))
    place.parent.mkdir()
    if in_place == "a file":
        place.write_text("mine")
    elif in_place == "a folder of others":
        place.mkdir()
        (place / "photo.png").touch()
    else:
        import polars as pl

        pl.DataFrame({"id": ["a"]}).write_delta(str(place))
    with pytest.raises(StoreError):
        compact(tmp_path)
    if in_place != "a table of others":
        assert keys(path) == ["key-0", "key-1", "key-2"]
        assert answers_at(path).find(ids, dict).keys() == {*ids}


def test_a_damaged_table_is_said(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    fill(path, range(3))
    compact(tmp_path)
    next((tmp_path / "delta" / "predictions" / "_delta_log").glob("*.json")).write_text('{"add":')
    fill(path, range(3))
    with pytest.raises(StoreError, match="the table of answers cannot be read"):
        compact(tmp_path)
    with pytest.raises(StoreError, match="the table of answers cannot be read"):
        keys(path)


def test_small_files_become_one_and_old_days_go(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    for number in range(10):
        fill(path, range(number, number + 1), at=lambda number: START + number)
        compact(tmp_path)
    table = answers_at(path).table.open()
    assert table
    assert len(table.files) <= 3
    assert keys(path) == [f"key-{number}" for number in range(10)]
    fill(path, range(10, 12), at=lambda number: START + number * DAY)
    found = compact(tmp_path, keep_since=START + 11 * DAY)[0]
    assert (found.dropped, keys(path)) == (11, ["key-11"])


def test_a_table_of_fewer_columns_takes_more(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    fill(path, range(2))
    few = {name: kind for name, kind in ANSWERS.columns.items() if name not in ("note", "sent")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidemill.serving.dataset.ANSWERS", replace(ANSWERS, columns=few))
        compact(tmp_path)
    assert keys(path) == ["key-0", "key-1"]
    fill(path, range(2, 4), at=lambda number: START + DAY * number)
    compact(tmp_path)
    assert [one.get("sent") for one in read_log(path)] == [None, None, {"distance": 2}, {"distance": 3}]


def test_when_it_is_due(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    assert not is_due(tmp_path, START, size=10**6, age=HOUR)
    fill(path, range(3))
    assert is_due(tmp_path, START, size=100, age=HOUR)
    assert is_due(tmp_path, START + HOUR + 1, size=10**6, age=HOUR)
    assert not is_due(tmp_path, START + HOUR - 1, size=10**6, age=HOUR)


@pytest.mark.parametrize("before", [b"\n", b"\n\n{\n", b'{"branch": "ma\n', b"\xff\n"])
def test_what_cannot_be_read_before_the_first_answer_does_not_keep_it_there(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "late.jsonl"
    path.write_bytes(before)
    assert not is_due(tmp_path, START + HOUR + 1, size=10**6, age=HOUR)
    fill(path, range(3))
    assert is_due(tmp_path, START + HOUR + 1, size=10**6, age=HOUR)
    assert not is_due(tmp_path, START + HOUR - 1, size=10**6, age=HOUR)
