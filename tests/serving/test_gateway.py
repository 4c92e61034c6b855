"""The gateway over the toy project: one row at a time it answers as the replay did, and says how it came to its answer."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.conftest import TODAY, Serve, Served
from tidemill.core import HOUR, DefinitionError, instant, show
from tidemill.data import segments
from tidemill.features import MemoryOnline, OnlineStore
from tidemill.ledger import Branch
from tidemill.serving import gateway
from toy import Toy

Replayed = tuple[Toy, Branch]


def batch_of(replayed: Replayed, start: str, end: str) -> list[tuple[str, int, float, dict[str, Any], dict[str, str]]]:
    """(key, prediction time, champion's probability by the batch path, features for people, problems) of the requests of some days."""
    toy, branch = replayed
    examples = toy.built.examples
    rows = np.flatnonzero((examples.at >= toy.at(start)) & (examples.at < toy.at(end)))
    scores: dict[bytes, float] = {}
    for _, segment in segments(toy.ledger, branch.id, "late"):
        scores |= dict(zip(segment.keys.tolist(), segment.shadows["champion"][1].tolist(), strict=True))
    found = []
    for row in rows.tolist():
        values: dict[str, Any] = {}
        for name, value in zip(examples.matrix.names, examples.matrix.values[row].tolist(), strict=True):
            words = examples.matrix.vocabularies.get(name)
            values[name] = None if np.isnan(value) else words[int(value)] if words else value
        key = examples.requests.keys[row]
        found.append((key.decode(), int(examples.at[row]), scores[key], values, examples.matrix.problems(row)))
    return found


LAST_DAYS = ("2024-04-28", "2024-05-01")  # the last champion serves


def test_row_by_row_the_offline_path_answers_as_the_replay_did(replayed: Replayed, served: Served) -> None:
    for key, at, probability, values, problems in batch_of(replayed, *LAST_DAYS):
        answer = served.one(rows=[{"parcel": key}], at=show(at), explain=True)
        assert (answer["key"], answer["rung"], answer["features_from"]) == (key, "champion", "offline")
        assert answer["probability"] == probability
        assert answer["inputs"] == values
        assert answer["features_missing"] == problems
        assert "older than the newest stored value" in answer["note_features"]


def test_row_by_row_the_online_store_answers_with_the_same_bits(replayed: Replayed, serve: Serve, online: OnlineStore) -> None:
    """The store is brought up to each request's time, as a live one is brought up to now."""
    served = serve(online)
    for key, at, probability, values, problems in batch_of(replayed, *LAST_DAYS):
        served.endpoint.reader.materialise(at)
        answer = served.one(rows=[{"parcel": key}], at=show(at), explain=True)
        assert answer["features_from"] == "online"
        assert "note_features" not in answer
        assert (answer["probability"], answer["inputs"], answer["features_missing"]) == (probability, values, problems)


def test_the_log_says_what_each_answer_rests_on(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    versions = {name: toy.built.versions[name].ref.version for name in ("requests", "view depot_recent", "view courier_last")}
    for key, at, _, values, _ in batch_of(replayed, "2024-04-30", "2024-05-01")[:20]:
        assert "inputs" not in served.one(rows=[{"parcel": key}], at=show(at))
        line = served.logged[-1]
        assert (line["key"], line["inputs"], line["versions"]) == (key, values, versions)
        assert "sent" not in line
    row = {"parcel": "new", "depot": "N", "courier": None, "grade": "x", "weight": 2.5, "sent": "2024-04-20T05:00:00Z"}
    row["booked"] = "2024-04-19T05:00:00Z"
    served.ask(rows=[{"parcel": key}, row, {"parcel": key}], at="2024-04-30T00:00:00Z")
    assert [one.get("sent") for one in served.logged[-3:]] == [None, row, None]
    assert served.logged[-2]["inputs"]["booking__weight"] == 2.5


def test_of_a_share_of_the_answers_the_log_keeps_what_they_rest_on(replayed: Replayed, serve: Serve, tmp_path: Path) -> None:
    kept = {}
    for keep in (0.0, 0.2, 0.6, 1.0):
        served = serve(log=tmp_path / f"{keep}.jsonl", keep=keep)
        for key, at, *_ in batch_of(replayed, *LAST_DAYS):
            served.one(rows=[{"parcel": key}], at=show(at), explain=True)
        kept[keep] = {one["key"] for one in served.logged if "inputs" in one}
        assert len(served.logged) == len(batch_of(replayed, *LAST_DAYS))
    assert kept[0.0] < kept[0.2] < kept[0.6] < kept[1.0], "what a share holds, a greater one holds too"
    assert kept[0.0] == set()
    assert [abs(len(kept[share]) / len(kept[1.0]) - share) < 0.12 for share in (0.2, 0.6)] == [True, True]


def test_a_number_is_logged_to_the_bit_and_an_infinite_one_by_name(served: Served) -> None:
    requests = served.endpoint.rows.known
    odd = [np.inf, -np.inf, 0.1 + 0.2, 5e-324, -0.0, 1.7976931348623157e308]
    values = requests.values.copy()
    values[: len(odd), list(requests.names).index("booking__weight")] = odd
    served.endpoint.rows = replace(served.endpoint.rows, known=replace(requests, values=values))
    for row in range(len(odd)):
        served.one(rows=[{"parcel": requests.keys[row].decode()}], at="2024-04-30T00:00:00Z")
    found = [one["inputs"]["booking__weight"] for one in served.logged]
    assert found[:2] == ["inf", "-inf"]
    assert np.array(found[2:]).tobytes() == np.array(odd[2:]).tobytes()


def test_many_rows_at_their_own_times_are_answered_as_one_by_one(replayed: Replayed, serve: Serve) -> None:
    store = MemoryOnline()
    served = serve(store)
    rows = batch_of(replayed, *LAST_DAYS)
    served.endpoint.reader.materialise(rows[-1][1])
    status, answer = served.ask(rows=[{"parcel": key} for key, *_ in rows], at=[show(at) for _, at, *_ in rows])
    assert status == 200
    assert [one["probability"] for one in answer["predictions"]] == [probability for _, _, probability, _, _ in rows]
    assert {one["features_from"] for one in answer["predictions"]} == {"online", "offline"}, "each row says its own path"
    assert answer["predictions"][-1]["features_from"] == "online"


def test_a_request_with_its_own_columns_is_evaluated_by_the_same_sql(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    key, at, probability, values, _ = batch_of(replayed, *LAST_DAYS)[7]
    examples = toy.built.examples
    row = examples.requests.find(key)
    texts = {name: column.take(np.array([row])).texts()[0] for name, column in examples.requests.texts.items()}
    event = int(examples.requests.event[row])
    own = {"parcel": "never seen", "sent": show(event), "booked": show(at - 1), "weight": values["booking__weight"], **texts}
    answer = served.one(rows=[own], at=show(at), explain=True)
    assert (answer["key"], answer["probability"], answer["inputs"]) == ("never seen", probability, values)
    unseen = served.one(rows=[own | {"grade": "a new grade"}], at=show(at), explain=True)
    assert 0 <= unseen["probability"] <= 1
    assert unseen["inputs"]["booking__grade"] == "a new grade"


def test_a_known_key_with_columns_is_answered_as_sent(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    key, at, probability, values, _ = batch_of(replayed, *LAST_DAYS)[7]
    examples = toy.built.examples
    row = examples.requests.find(key)
    texts = {name: column.take(np.array([row])).texts()[0] for name, column in examples.requests.texts.items()}
    times = {"sent": show(int(examples.requests.event[row])), "booked": show(at - 1)}
    stored = {"parcel": key, **times, "weight": values["booking__weight"], **texts}
    assert served.one(rows=[stored], at=show(at))["probability"] == probability
    changed = served.one(rows=[stored | {"weight": 7.5}], at=show(at), explain=True)
    assert (changed["key"], changed["inputs"]["booking__weight"]) == (key, 7.5)
    status, answer = served.ask(rows=[{"parcel": key, "weight": 7.5}], at=show(at))
    assert status == 400, "a part of a request says nothing about the rest"
    assert "the request lacks" in answer["error"]


def test_a_batch_of_keys_and_of_own_columns_is_answered_in_its_order(replayed: Replayed, served: Served) -> None:
    (key, at, *_), (other, *_) = batch_of(replayed, *LAST_DAYS)[7:9]
    own = {"parcel": "new", "sent": show(at + HOUR), "booked": show(at - 1), "weight": 2.5, "depot": "N", "courier": "a", "grade": "x"}
    rows, late = [own, {"parcel": key}, own | {"weight": 7.5}, {"parcel": other}], show(at + HOUR)
    status, answer = served.ask(rows=rows, at=late)
    assert status == 200, answer
    alone = [served.one(rows=[row], at=late) for row in rows]
    assert [one | {"id": ""} for one in answer["predictions"]] == [one | {"id": ""} for one in alone]
    status, answer = served.ask(rows=[*rows, own | {"booked": show(at + 2 * HOUR)}], at=late)
    assert (status, "rows[4] was not known at" in answer["error"]) == (400, True)


@pytest.mark.parametrize("key", [None, "a\0", "\0"])
def test_a_key_that_is_null_or_holds_a_zero_is_refused(served: Served, key: str | None) -> None:
    own = {"parcel": key, "sent": "2024-04-20T01:00:00Z", "booked": "2024-04-19T00:00:00Z"}
    status, answer = served.ask(rows=[own | {"weight": 2.5, "depot": "N", "courier": "a", "grade": "x"}], at="2024-04-20T00:00:00Z")
    assert (status, "key" in answer["error"]) == (400, True)
    assert served.ask(rows=[{"parcel": key}])[0] in (400, 404)
    assert served.logged == []


@pytest.mark.parametrize(
    ("column", "value"), [("parcel", ["a"]), ("parcel", 1.5), ("weight", True), ("weight", "inf"), ("grade", {"a": 1})]
)
def test_a_value_of_the_wrong_type_is_refused_with_its_column(served: Served, column: str, value: object) -> None:
    own = {"parcel": "new", "sent": "2024-04-20T01:00:00Z", "booked": "2024-04-19T00:00:00Z"}
    own = own | {"weight": 2.5, "depot": "N", "courier": None, "grade": "x"}
    assert served.ask(rows=[own], at="2024-04-20T00:00:00Z")[0] == 200
    for row in (own | {column: value}, {column: value}) if column == "parcel" else (own | {column: value},):
        status, answer = served.ask(rows=[row], at="2024-04-20T00:00:00Z")
        assert (status, f"{column} = {value!r}" in answer["error"]) == (400, True), answer
    assert len(served.logged) == 1


def test_at_todays_clock_every_window_is_empty_and_the_answer_says_so(serve: Serve) -> None:
    store = MemoryOnline()
    served = serve(store)
    served.endpoint.reader.materialise(instant("2024-05-01T00:00:00Z"))
    answer = served.one(rows=[{"parcel": "p100-003"}], explain=True)
    assert answer["at"] == show(TODAY)
    assert answer["features_from"] == "offline", "more is known by now than at the end of the replay"
    assert answer["note"] == "every looked-up feature is missing or expired at this time"
    assert set(answer["features_missing"].values()) <= {"expired", "unknown"}
    assert set(answer["features_missing"]) == {"depot_recent", "courier_last"}
    assert answer["inputs"]["depot_recent__late_share_12h"] is None
    assert answer["inputs"]["booking__weight"] is not None, "what the request itself says is there"


def test_a_part_that_is_missing_is_named_with_its_reason(replayed: Replayed, served: Served) -> None:
    rows = batch_of(replayed, "2024-04-28", "2024-05-01")
    key, at, *_ = next(row for row in rows if row[4] == {"courier_last": "unknown"})
    answer = served.one(rows=[{"parcel": key}], at=show(at))
    assert answer["features_missing"] == {"courier_last": "unknown"}, "its courier is null, which matches nothing"
    assert "note" not in answer


# ── what is wrong is said ───────────────────────────────────────────────────────────────────────────────────────────

OWN = {"parcel": "new", "sent": "2024-04-20T01:00:00Z", "booked": "2024-04-19T00:00:00Z"} | {
    "weight": 2,
    "depot": "N",
    "courier": "a",
    "grade": "x",
}
WRONG = [
    ({"rows": [{"parcel": "p100-003"}, {"parcel": "nobody"}]}, 404, "rows[1]: no request has the key {'parcel': 'nobody'}"),
    ({"rows": [{"parcl": "p100-003"}]}, 400, "rows[0] lacks the key 'parcel'"),
    ({"rows": [{"parcel": "p100-003"}, {"parcel": "new", "weight": 1}]}, 400, "rows[1]: the request lacks"),
    ({"rows": [OWN, {"parcel": "p100-003"}, OWN | {"sent": "soon"}, OWN | {"weight": "x"}]}, 400, "rows[2]: the request's sent = soon"),
    ({"rows": [OWN, OWN | {"weight": "x"}]}, 400, "rows[1]: the request cannot be evaluated: the request's weight = 'x'"),
    ({"rows": [OWN, {"parcel": 1.5}]}, 400, "rows[1]: the request's parcel = 1.5"),
    ({"rows": []}, 400, "0 rows were sent; between 1 and 10000"),
    ({"rows": [{"parcel": "p100-003"}] * 10_001}, 400, "10001 rows were sent"),
    ({"rows": [{"parcel": "p100-003"}], "at": "yesterday"}, 400, "'yesterday' is not a time"),
    ({"rows": [{"parcel": "p100-003"}] * 2, "at": ["2024-04-01T00:00:00Z", "soon"]}, 400, "at[1] = 'soon' is not a time"),
    ({"rows": [{"parcel": "p100-003"}], "at": ["2024-04-01T00:00:00Z"] * 2}, 400, "`at` has 2 times for 1 rows"),
    ({"rows": [{"parcel": "p100-003"}], "at": 7}, 400, "$.at"),
    ({"rows": "p100-003"}, 400, "$.rows"),
    ({}, 400, "rows"),
]


@pytest.mark.parametrize(("body", "status", "what"), WRONG, ids=lambda case: str(case)[:40])
def test_a_wrong_request_gets_its_code_and_loses_nothing(served: Served, body: dict[str, Any], status: int, what: str) -> None:
    found, answer = served.ask(**body)
    assert (found, what in answer["error"]) == (status, True), answer
    assert set(answer["detail"]) == {"error", "what", "where", "available", "next"}
    assert served.logged == []
    assert served.ask(rows=[{"parcel": "p100-003"}])[0] == 200


@pytest.mark.parametrize("body", [b'{"rows": [', b'{"rows":[{"parcel":"\xff"}]}', b"\xff\xfe"])
def test_what_is_no_json_is_said(served: Served, body: bytes) -> None:
    answer = served.client.post("/predict/late", content=body)
    assert answer.status_code == 400
    assert "the body is not what is expected" in answer.json()["error"]


def test_a_body_that_is_too_large_is_not_read_to_its_end(served: Served) -> None:
    answer = served.client.post("/predict/late", content=b" " * (gateway.MAX_BODY + 1))
    assert answer.status_code == 400
    assert "larger than" in answer.json()["error"]


def test_a_page_of_another_site_is_refused(served: Served) -> None:
    body = json.dumps({"rows": [{"parcel": "p100-003"}]})
    for origin in ("https://evil.example", "null", "http://testserver:1"):
        answer = served.client.post("/predict/late", content=body, headers={"origin": origin, "content-type": "text/plain"})
        assert (answer.status_code, answer.json()["detail"]["error"]) == (403, "Refused")
    assert served.logged == []
    assert served.client.post("/predict/late", content=body, headers={"origin": "http://testserver"}).status_code == 200
    assert served.client.post("/predict/late", content=body).status_code == 200, "a program needs no content type"


def test_a_client_that_hangs_up_in_its_body_is_no_error(served: Served) -> None:
    said = iter([{"type": "http.request", "body": b'{"rows"', "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(said)

    async def send(message: Any) -> None:
        """Nobody reads it."""

    scope = {"type": "http", "method": "POST", "path": "/predict/late", "headers": [], "query_string": b""}
    asyncio.run(served.client.app(scope, receive, send))  # type: ignore[arg-type]
    assert served.logged == []


def test_an_unknown_deployment_is_named(served: Served) -> None:
    for path, body in (("/predict/nobody", {"rows": []}), ("/v2/models/nobody/infer", {"inputs": []})):
        answer = served.client.post(path, json=body)
        assert answer.status_code == 404
        assert answer.json()["detail"]["available"] == ["late"]


def test_a_client_may_not_state_its_time_unless_that_is_granted(serve: Serve) -> None:
    served = serve(client_time=False)
    status, answer = served.ask(rows=[{"parcel": "p100-003"}], at="2024-04-20T00:00:00Z")
    assert (status, answer["detail"]["error"]) == (403, "Refused")
    assert "serve.client_time" in answer["error"]
    assert served.one(rows=[{"parcel": "p100-003"}])["at"] == show(TODAY)


def test_a_key_of_any_text_does_no_harm(served: Served) -> None:
    for key in ("", "p100-003'; DROP TABLE requests; --", "\x00", "ü" * 5000, "p100-003\x1f", "p100-003\x00"):
        status, answer = served.ask(rows=[{"parcel": key}])
        assert status == 404, answer


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_answer_is_in_the_log_with_when_it_was_asked(served: Served) -> None:
    served.ask(rows=[{"parcel": "p100-003"}, {"parcel": "p100-004"}], at="2024-04-20T00:00:00Z")
    one, two = served.logged
    assert (one["key"], two["key"]) == ("p100-003", "p100-004")
    assert one["asked"] == TODAY
    assert one["at_us"] == instant("2024-04-20T00:00:00Z")
    assert {"probability", "version", "rung", "features_from"} <= set(one)


# ── Open Inference Protocol ─────────────────────────────────────────────────────────────────────────────────────────


def infer(served: Served, data: Any, shape: list[int], datatype: str = "FP64") -> Any:
    one = {"name": "features", "shape": shape, "datatype": datatype, "data": data}
    return served.client.post("/v2/models/late/infer", content=json.dumps({"id": "7", "inputs": [one]}))


def test_health_and_metadata(served: Served) -> None:
    get = served.client.get
    assert get("/v2").json()["name"] == "tidemill"
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2/models/late/ready").json() == {"name": "late", "ready": True}
    found = get("/v2/models/late").json()
    assert (found["name"], found["inputs"][0]["shape"]) == ("late", [-1, 8])
    assert found["versions"] == [*served.endpoint.standing.labels]
    assert found["versions"][0] == served.endpoint.standing.champion[0]
    assert get("/v2/models/other").status_code == 404


def test_a_feature_matrix_gets_the_answers_of_the_model(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    predictor = served.endpoint.predictors[served.endpoint.standing.champion[1]]
    examples = toy.built.examples
    rows = predictor.signature.align(examples.matrix.names, examples.matrix.values[:50], examples.matrix.vocabularies)
    expected = predictor.predict(rows).tolist()
    nested = [[None if np.isnan(value) else value for value in row] for row in rows.tolist()]
    flat = [value for row in nested for value in row]
    for data in (nested, flat):
        answer = infer(served, data, [50, 8]).json()
        assert answer["outputs"][0]["data"] == expected
        assert answer["outputs"][0]["shape"] == [50, 1]
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "late", served.endpoint.standing.champion[0])
    assert [one["probability"] for one in served.logged] == expected * 2


@pytest.mark.parametrize(
    ("data", "shape", "datatype"),
    [
        ([1.0] * 8, [1, 9], "FP64"),
        ([1.0] * 7, [1, 8], "FP64"),
        ([1.0] * 8, [8], "FP64"),
        ([1.0] * 8, [-1, 8], "FP64"),
        (["a"] * 8, [1, 8], "BYTES"),
        (["a"] * 8, [1, 8], "FP64"),
        ([[1.0] * 8, [1.0] * 7], [2, 8], "FP64"),
        ([{}] * 8, [1, 8], "FP64"),
    ],
)
def test_a_matrix_of_another_shape_or_kind_is_refused(served: Served, data: Any, shape: list[int], datatype: str) -> None:
    answer = infer(served, data, shape, datatype)
    assert answer.status_code == 400, answer.text
    assert "error" in answer.json()


@pytest.mark.parametrize("code", [-1, 3, 0.5, 1e300])
def test_a_category_that_the_model_does_not_have_is_refused(served: Served, code: float) -> None:
    signature = served.endpoint.predictors[served.endpoint.standing.champion[1]].signature
    (place,) = signature.categorical
    for known in (0, 2, None):
        assert infer(served, [known if i == place else 1.0 for i in range(8)], [1, 8]).status_code == 200
    answer = infer(served, [code if i == place else 1.0 for i in range(8)], [1, 8])
    assert (answer.status_code, f"{signature.features[place]} has the code" in answer.json()["error"]) == (400, True)


def test_no_rows_and_no_inputs(served: Served) -> None:
    assert infer(served, [], [0, 8]).status_code in (200, 400)
    assert served.client.post("/v2/models/late/infer", json={"inputs": []}).status_code == 400


def test_a_route_that_does_not_say_what_it_requires_fails_at_import(served: Served) -> None:
    async def nothing(request: Any) -> Any:
        raise AssertionError(request)

    with pytest.raises(DefinitionError, match="does not say what it requires"):
        gateway.route("GET", "/x", nothing, requires="")
