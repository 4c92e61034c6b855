"""Each answer has an id: in the answer, in its line of the log, and unlike any other's."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serving.conftest import TODAY, Served
from tidemill.core import DataError
from tidemill.serving import asked_of, whole_of
from tidemill.serving.ids import new_ids

ROWS = [{"parcel": "p100-003"}, {"parcel": "p100-004"}]


def test_an_answer_has_its_lines_id_how_long_it_took_and_the_clients_own(served: Served) -> None:
    asked = served.client.post("/predict/late", json={"rows": ROWS}, headers={"X-Request-ID": "gate-7" + "x" * 500})
    answer, lines = asked.json(), served.logged
    assert [one["id"] for one in answer["predictions"]] == [line["id"] for line in lines]
    assert {asked_of(line["id"]) for line in lines} == {TODAY}
    assert {line["request"] for line in lines} == {answer["request"]} == {("gate-7" + "x" * 500)[:200]}
    assert all(0 < line["latency_us"] < 60_000_000 for line in lines)
    served.ask(rows=ROWS[:1])
    assert "request" not in served.logged[-1]


def test_the_protocol_tells_the_id_of_the_request_that_its_rows_share(served: Served) -> None:
    features = served.one(rows=ROWS[:1], explain=True)["inputs"]
    inputs = [
        {"name": name, "shape": [2], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value, value]}
        for name, value in features.items()
    ]
    body = json.dumps({"inputs": inputs}, allow_nan=False)
    answer = served.client.post("/v2/models/late/infer", content=body, headers={"x-request-id": "r-9"}).json()
    lines = served.logged[1:]
    assert [line["id"] for line in lines] == [f"{answer['parameters']['prediction_id']}.{row}" for row in range(2)]
    assert ({whole_of(line["id"]) for line in lines}, "id" in answer) == ({answer["parameters"]["prediction_id"]}, False)
    assert {(line["request"], line["latency_us"] > 0) for line in lines} == {("r-9", True)}


def test_no_two_are_alike_though_they_are_asked_at_once() -> None:
    def some(_: int) -> list[str]:
        return [one for _ in range(2_000) for one in new_ids(TODAY, 1)]

    with ThreadPoolExecutor(4) as pool:
        found = [one for part in pool.map(some, range(4)) for one in part]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(new_ids(TODAY, 1)[0] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found += pipe.read().split()
    assert len(set(found)) == len(found) == 8_050


def test_they_sort_by_time() -> None:
    times = [0, 1, TODAY - 1, TODAY, TODAY + 1, 1 << 51]
    ids = [new_ids(time, 1)[0] for time in times]
    assert sorted(ids) == ids
    assert [asked_of(one) for one in ids] == times


ODD: list[Callable[[str], Any]] = [
    lambda one: "",
    lambda one: one[1:],
    lambda one: one.upper(),
    lambda one: one + ".",
    lambda one: one + "\n",
]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_id_is_said_to_be_none(odd: Callable[[str], str]) -> None:
    with pytest.raises(DataError, match="no id of a prediction"):
        asked_of(odd(new_ids(TODAY, 1)[0]))
