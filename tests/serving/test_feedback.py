"""Labels and comments by the id of an answer: what is taken, what is refused, and what counts."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from disks import small_disk
from serving.conftest import TODAY, Serve, Served
from tidemill.core import HOUR, MINUTE, SECOND, canonical, show
from tidemill.serving import feedback_of, last_feedback, read_feedback
from tidemill.serving.dataset import answers_at
from tidemill.serving.ids import new_ids

ROWS = [{"parcel": f"p100-{place:03}"} for place in range(3)]


def tell(served: Served, *rows: Any) -> tuple[int, Any]:
    answer = served.client.post("/feedback/late", content=json.dumps({"rows": [*rows]}))
    return answer.status_code, answer.json()


def test_a_label_is_told_by_the_id_of_the_answer(served: Served) -> None:
    answers = served.ask(rows=ROWS)[1]["predictions"]
    served.clock[0] += 3 * HOUR
    said = [{"id": answers[0]["id"], "label": 1}, {"id": answers[2]["id"], "label": False, "comment": "stood at the gate"}]
    assert tell(served, *said) == (200, {"deployment": "late", "added": 2, "labelled_at": show(TODAY + 3 * HOUR)})
    assert tell(served, {"id": answers[1]["id"], "comment": "who?"})[0] == 200
    found = [*read_feedback(served.log)]
    assert [(one.id, one.label, one.comment) for one in found] == [
        (answers[0]["id"], 1, ""),
        (answers[2]["id"], 0, "stood at the gate"),
        (answers[1]["id"], None, "who?"),
    ]
    for one, answer in zip(found, (answers[0], answers[2], answers[1]), strict=True):
        assert (one.key, one.predicted_at, one.version) == (answer["key"], answer["at"], answer["version"])
        assert (one.probability, one.rung, one.labelled_at) == (answer["probability"], answer["rung"], show(TODAY + 3 * HOUR))


def test_the_later_label_counts_and_both_stay(served: Served) -> None:
    name = served.one(rows=ROWS[:1])["id"]
    for row in ({"label": 1, "comment": "late, I think"}, {"label": 0}, {"comment": "on time"}):
        served.clock[0] += HOUR
        assert tell(served, {"id": name, **row})[0] == 200
    (one,) = last_feedback(served.log).values()
    assert (one.label, one.comment, one.labelled_at) == (0, "on time", show(TODAY + 2 * HOUR))
    assert [one.label for one in read_feedback(served.log)] == [1, 0, None]


Wrong = Callable[[str], Any]
WRONG: list[tuple[Wrong, int, str]] = [
    (lambda name: {"id": name, "label": 2}, 400, "rows[1].label is 2, and not 0 or 1"),
    (lambda name: {"id": name, "label": 0.5}, 400, "rows[1].label is 0.5, and not 0 or 1"),
    (lambda name: {"id": name, "label": "yes"}, 400, "$.rows[1].label"),
    (lambda name: {"id": name}, 400, "rows[1] has neither a label nor a comment"),
    (lambda name: {"id": name, "lable": 1}, 400, "lable"),
    (lambda name: {"label": 1}, 400, "id"),
    (lambda name: {"id": "seven", "label": 1}, 400, "rows[1].id: 'seven' is no id of a prediction"),
    (lambda name: {"id": f"{name}.0", "label": 1}, 404, "rows[1]: 'late' has no answer with the id"),
    (lambda name: {"id": new_ids(TODAY + HOUR, 1)[0], "label": 1}, 404, "rows[1]: 'late' has no answer"),
]


@pytest.mark.parametrize(("wrong", "status", "what"), WRONG)
def test_what_is_wrong_is_refused_with_its_place_and_nothing_is_added(served: Served, wrong: Wrong, status: int, what: str) -> None:
    name = served.one(rows=ROWS[:1])["id"]
    found, answer = tell(served, {"id": name, "label": 1}, wrong(name))
    assert (found, what in answer["error"]) == (status, True), answer
    assert [*read_feedback(served.log)] == []


def test_no_rows_and_no_deployment(served: Served) -> None:
    assert tell(served)[0] == 400
    assert served.client.post("/feedback/other", content='{"rows": []}').status_code == 404


def test_where_the_disk_takes_none_it_is_an_error(serve: Serve, tmp_path: Path) -> None:
    served = serve(log=tmp_path / "late.jsonl")
    name = served.one(rows=ROWS[:1])["id"]
    feedback_of(served.log).parent.write_text("a file")
    status, answer = tell(served, {"id": name, "label": 1})
    assert (status, "the log of feedback" in answer["error"]) == (503, True), answer


def test_a_full_disk_is_told_once_and_when_it_takes_lines_again(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        served = serve(log=disk / "late.jsonl")
        name = served.one(rows=ROWS[:1])["id"]
        assert tell(served, {"id": name, "label": 1})[0] == 200
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        long = {"id": name, "comment": "late" * 2_000}
        assert [tell(served, long)[0] for _ in range(3)] == [503] * 3
        (disk / "filler").unlink()
        assert tell(served, long)[0] == 200
        told = [record.getMessage() for record in caplog.records if "feedback" in record.getMessage()]
        assert ["cannot be written" in told[0], "is written again" in told[1], len(told)] == [True, True, 2]
        assert [one.label for one in read_feedback(served.log)] == [1, None]


# ── found without reading the whole log ─────────────────────────────────────────────────────────────────────────────


def written(path: Path, times: list[tuple[int, int]]) -> list[str]:
    """A log of answers that were asked at times and took so long, in this order; returns their ids."""
    ids = [new_ids(asked, 1)[0] for asked, _ in times]
    lines = [
        canonical({"asked": asked, "id": name, "latency_us": took, "key": "k" * 400})
        for name, (asked, took) in zip(ids, times, strict=True)
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return ids


def test_any_answer_is_found_among_many_whatever_it_took(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    asked = [TODAY + place * 7 * SECOND for place in range(3_000)]
    times = sorted(((one, (place * 37 % 11) ** 8 % (5 * MINUTE)) for place, one in enumerate(asked)), key=sum)
    ids = written(path, times)
    for name in ids[::131]:
        assert list(answers_at(path).find([name], dict)) == [name]
    assert answers_at(path).find(ids[::3], dict).keys() == {*ids[::3]}
    assert answers_at(path).find([new_ids(one, 1)[0] for one in (0, TODAY + 1, 1 << 51)], dict) == {}
    for since in (0, times[5][0], times[1_500][0], times[-1][0], 1 << 51):
        assert [one["id"] for one in answers_at(path).read(dict, since=since)] == [
            name for name, (one, _) in zip(ids, times, strict=True) if one >= since
        ]


def test_little_of_a_long_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.serving import search

    path, seen = tmp_path / "late.jsonl", [0]
    ids = written(path, [(TODAY + place * 10 * SECOND, 100) for place in range(5_000)])
    mark = search._mark

    def counted(line: bytes) -> Any:
        seen[0] += 1
        return mark(line)

    monkeypatch.setattr(search, "_mark", counted)
    assert answers_at(path).find(ids[4_000:4_001], dict)
    assert seen[0] < 400


def test_behind_a_clock_that_went_back_the_whole_log_is_read_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    ids = written(path, [(TODAY + HOUR + place * SECOND, 100) for place in range(2_000)] + [(TODAY, 100)])
    assert answers_at(path).find(ids[-1:], dict) == {}
    assert answers_at(path).find(ids[-1:], dict, thorough=True).keys() == {ids[-1]}


def test_a_line_that_was_cut_is_none(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    ids = written(path, [(TODAY, 1), (TODAY, 1)])
    path.write_bytes(path.read_bytes()[:-3])
    assert answers_at(path).find(ids, dict).keys() == {ids[0]}
