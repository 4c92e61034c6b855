"""A deployment behind the Open Inference Protocol: the answers, checks, weights, fallbacks and log lines of rows of features."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from serving.conftest import TODAY, Served
from serving.test_gateway import LAST_DAYS, Replayed, batch_of
from serving.test_ladder import break_version
from serving.test_oip import tensor
from tidemill.serving import Ladder, Reply

Ask = Callable[..., tuple[int, Any]]
Case = list[tuple[float, dict[str, Any]]]


@pytest.fixture
def cases(replayed: Replayed) -> Case:
    """The champion's probability of some requests, and their features for people."""
    return [(probability, values) for _, _, probability, values, _ in batch_of(replayed, *LAST_DAYS)][:12]


@pytest.fixture
def ask(served: Served) -> Ask:
    """Status and JSON of an answer of the protocol."""

    def asked(inputs: list[dict[str, Any]], path: str = "", **more: Any) -> tuple[int, Any]:
        answer = served.client.post(f"/v2/models/late{path}/infer", json={"inputs": inputs, **more})
        return answer.status_code, answer.json()

    return asked


def columns(served: Served, rows: list[dict[str, Any]], width: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """A tensor for each feature: texts as they are, numbers with null for nothing."""
    signature = served.endpoint.predictors[served.endpoint.standing.champion[1]].signature
    kinds = {name: "BYTES" if name in signature.categories else "FP64" for name in signature.features}
    return [tensor(name, kind, [len(rows), *width], [row[name] for row in rows]) for name, kind in kinds.items()]


def matrix(served: Served, rows: list[dict[str, Any]]) -> list[list[float | None]]:
    """The same as numbers, categories as codes."""
    signature = served.endpoint.predictors[served.endpoint.standing.champion[1]].signature
    words = signature.categories
    return [[words[name].index(row[name]) if isinstance(row[name], str) else row[name] for name in signature.features] for row in rows]


@pytest.mark.parametrize("width", [(), (1,)])
def test_a_tensor_for_each_feature_is_answered_as_the_rows_are(served: Served, ask: Ask, cases: Case, width: tuple[int, ...]) -> None:
    rows = [values for _, values in cases]
    status, found = ask(columns(served, rows, width))
    assert status == 200, found
    assert found["outputs"] == [tensor("probability", "FP64", [len(rows), 1], [one for one, _ in cases])]
    assert ask(list(reversed(columns(served, rows, width))))[1]["outputs"] == found["outputs"]
    assert served.ask(rows=rows)[1]["predictions"][3]["probability"] == cases[3][0]
    assert [line["inputs"] for line in served.logged[: len(rows)]] == rows


def test_numbers_of_other_types_and_raw_tensors_are_taken(served: Served, ask: Ask, cases: Case) -> None:
    sent = columns(served, [values for _, values in cases])
    weights = next(one for one in sent if one["name"] == "booking__weight")
    weights |= {"datatype": "FP32", "name": "Booking__Weight", "data": [1.5] * len(cases)}
    expected = [one | {"booking__weight": 1.5} for _, one in cases]
    status, found = ask(sent)
    assert (status, found["outputs"][0]["data"]) == (200, [one["probability"] for one in served.ask(rows=expected)[1]["predictions"]])
    values = np.array(matrix(served, expected), dtype=np.float64)
    one = tensor("features", "FP64", [*values.shape], binary_data_size=values.nbytes)
    head = json.dumps({"inputs": [one], "outputs": [{"name": "probability", "parameters": {"binary_data": True}}]}).encode()
    answer = served.client.post(
        "/v2/models/late/infer", content=head + values.tobytes(), headers={"inference-header-content-length": str(len(head))}
    )
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[size:]).tolist() == found["outputs"][0]["data"]
    assert answer.headers["content-type"] == "application/octet-stream"


def test_a_column_takes_the_place_of_the_matrix_its_own(served: Served, ask: Ask, cases: Case) -> None:
    rows = [values for _, values in cases]
    whole = tensor("features", "FP64", [len(rows), 8], matrix(served, rows))
    grades = tensor("booking__grade", "BYTES", [len(rows)], ["a new grade"] * len(rows))
    status, found = ask([whole, grades])
    assert status == 200, found
    expected = served.ask(rows=[one | {"booking__grade": None} for one in rows])[1]["predictions"]
    assert found["outputs"][0]["data"] == [one["probability"] for one in expected]


def test_the_log_says_how_an_answer_was_asked_for(served: Served, ask: Ask, cases: Case) -> None:
    rows = [values for _, values in cases[:2]]
    assert ask([*columns(served, rows), tensor("parcel", "BYTES", [2], ["p1", "p2"])], id="r-7")[0] == 200
    assert ask(columns(served, rows), f"/versions/{served.endpoint.standing.champion[0]}")[0] == 200
    served.ask(rows=rows)
    assert [(line.get("route"), line.get("request"), line["key"]) for line in served.logged] == [
        ("infer", "r-7", "p1"),
        ("infer", "r-7", "p2"),
        *[(f"infer {served.endpoint.standing.champion[0]}", None, "")] * 2,
        *[("predict", None, "")] * 2,
    ]
    assert {(line["asked"], line["at_us"], line["rung"], line["features_from"]) for line in served.logged} == {
        (TODAY, TODAY, "champion", "request")
    }


WRONG: list[tuple[Callable[[list[dict[str, Any]]], Any], str]] = [
    (lambda sent: sent[1:], "is missing"),
    (lambda sent: [*sent, tensor("size", "FP64", [2], [1, 2])], "the model has no input 'size'"),
    (lambda sent: [sent[0] | {"data": sent[0]["data"][:1], "shape": [1]}, *sent[1:]], "different numbers of rows"),
    (lambda sent: [one | ({"data": ["1", "2"], "datatype": "BYTES"} if "weight" in one["name"] else {}) for one in sent], "send FP64"),
    (lambda sent: [one | ({"data": [1, 2], "datatype": "FP64"} if "grade" in one["name"] else {}) for one in sent], "send BYTES"),
    (lambda sent: [one | {"shape": [1, 2]} for one in sent], "has the shape [1, 2]"),
    (lambda sent: [*sent, tensor("parcel", "BYTES", [1], ["p1"])], "1 keys came for 2 rows"),
    (lambda sent: [*sent, tensor("parcel", "BYTES", [2], ["p1", None])], "rows[1] has a null key"),
    (lambda sent: [*sent, tensor("parcel", "BYTES", [2], ["p1", "x" * 2_000])], "a key of the request has 2,000 bytes"),
    (lambda sent: [one | {"data": [], "shape": [0]} for one in sent], "0 rows were sent"),
]


@pytest.mark.parametrize(("change", "what"), WRONG, ids=[what for _, what in WRONG])
def test_what_is_wrong_is_said_and_not_logged(served: Served, ask: Ask, cases: Case, change: Any, what: str) -> None:
    status, found = ask(change(columns(served, [values for _, values in cases[:2]])))
    assert (status, what in found["error"]) == (400, True), found
    assert served.logged == []
    (champion, *_) = served.client.get("/v2/models/late/stats").json()["model_stats"]
    assert champion["inference_stats"]["fail"]["count"] == 1


def told(answer: Any) -> dict[str, str]:
    """What an answer says of itself, without its id."""
    return {name: value for name, value in answer["parameters"].items() if name != "prediction_id"}


def test_the_ladder_is_the_same_and_the_answer_says_its_rung(served: Served, ask: Ask, cases: Case) -> None:
    sent, standing = columns(served, [cases[0][1]]), served.endpoint.standing
    assert standing.previous is not None
    champion, previous = standing.champion[0], standing.previous[0]
    assert told(ask(sent)[1]) == {"rung": "champion", "version": champion}
    one = ask(sent, f"/versions/{previous}")[1]
    assert (one["model_version"], told(one)) == (previous, {"rung": "previous version", "version": previous})
    break_version(served, standing.champion)
    again = ask(sent)[1]
    assert (again["model_version"], told(again), again["outputs"]) == (previous, told(one), one["outputs"])
    status, found = ask(sent, f"/versions/{champion}")
    assert (status, "could not answer" in found["error"]) == (503, True), "who names a version gets no other"
    break_version(served, standing.previous)
    last = ask(sent)[1]
    assert (last["outputs"][0]["data"], told(last)) == ([0.3], {"rung": "constant", "version": ""})


def test_the_weights_are_the_same_by_a_key_of_the_client(served: Served, ask: Ask, cases: Case) -> None:
    standing = served.endpoint.standing
    assert standing.previous is not None
    challenger = standing.previous[0]
    served.endpoint.standing = replace(standing, previous=None, challenger=standing.previous, weight=0.5)
    sent = columns(served, [cases[0][1]])

    def version(**more: Any) -> str:
        status, found = ask(sent, **more)
        assert status == 200, found
        return str(found["model_version"])

    by_id = {name: version(id=name) for name in map(str, range(40))}
    assert {*by_id.values()} == {standing.champion[0], challenger}
    assert by_id == {name: version(parameters={"sticky_key": name}, id="another") for name in by_id}
    assert len({version() for _ in range(5)}) == 1, "without any the features themselves tell"
    names = [*by_id][:12]
    status, found = ask(columns(served, [values for _, values in cases]), parameters={"sticky_key": names})
    assert found["parameters"]["version"].split(",") == [by_id[name] for name in names]
    assert {*found["parameters"]["rung"].split(",")} == {"champion", "challenger"}
    for wrong in (7, ["a"], [1] * 12):
        status, found = ask(columns(served, [values for _, values in cases]), parameters={"sticky_key": wrong})
        assert (status, "sticky_key" in found["error"]) == (400, True)
    assert {line["version"] for line in served.logged if line["rung"] == "challenger"} == {challenger}


def test_versions_are_described_counted_and_listed(served: Served, ask: Ask, cases: Case) -> None:
    get, labels = served.client.get, [*served.endpoint.standing.labels]
    assert len(labels) == 2
    whole = get("/v2/models/late").json()
    signature = served.endpoint.predictors[served.endpoint.standing.champion[1]].signature
    assert [(one["name"], one["datatype"], one["shape"]) for one in whole["inputs"]] == [
        ("features", "FP64", [-1, 8]),
        *((name, "BYTES" if name in signature.categories else "FP64", [-1]) for name in signature.features),
    ]
    for label in labels:
        assert get(f"/v2/models/late/versions/{label}").json() == whole
        assert get(f"/v2/models/late/versions/{label.replace('/', '%2F')}/ready").json() == {"name": "late", "ready": True}
    for path in ("/v2/models/late/versions/trees/9", "/v2/models/late/versions/trees/9/ready", "/v2/models/late/nothing"):
        assert get(path).status_code == 404
    assert get("/v2/models/late/infer").status_code == 405
    rows = columns(served, [values for _, values in cases])
    for path in ("", "", f"/versions/{labels[1]}"):
        assert ask(rows, path)[0] == 200
    assert ask(rows, outputs=[{"name": "label"}])[0] == 400
    found = get("/v2/models/stats").json()["model_stats"]
    assert found == get("/v2/models/late/stats").json()["model_stats"]
    assert [(one["version"], one["execution_count"], one["inference_count"]) for one in found] == [(labels[0], 2, 24), (labels[1], 1, 12)]
    assert found[0]["inference_stats"]["fail"]["count"] == 1
    assert found[0]["last_inference"] == TODAY // 1000
    assert get(f"/v2/models/late/versions/{labels[1]}/stats").json()["model_stats"] == found[1:]
    index = served.client.post("/v2/repository/index").json()
    assert index == [{"name": "late", "version": label, "state": "READY", "reason": ""} for label in labels]
    for verb in ("load", "unload"):
        answer = served.client.post(f"/v2/repository/models/late/{verb}")
        assert (answer.status_code, "tidemill rollback" in answer.json()["error"]) == (403, True)
        assert served.client.post(f"/v2/repository/models/other/{verb}").status_code == 404


def test_a_few_rows_are_answered_at_once_and_many_are_not(served: Served, ask: Ask, cases: Case) -> None:
    found = served.gateway
    path, sent = b"/v2/models/late/infer", columns(served, [values for _, values in cases])
    expected = ask(columns(served, [cases[0][1]]))[1]
    call = found.quick(b"POST", path, 100)
    assert call is not None
    reply = call({}, json.dumps({"inputs": columns(served, [cases[0][1]])}).encode(), True)
    assert isinstance(reply, Reply)
    assert json.loads(reply.body)["outputs"] == expected["outputs"]
    assert call({}, json.dumps({"inputs": sent}).encode(), True) is None
    assert len(served.logged) == 2
    assert found.quick(b"POST", path, 1 << 20) is None
    assert found.quick(b"GET", path, 0) is None
    other = found.quick(b"POST", b"/v2/models/other/infer", 0)
    assert other is not None
    assert other({}, b"{}", True) is None


@pytest.mark.parametrize(("otherwise", "status", "rung"), [("reject", 400, ""), ("fall back", 200, "constant"), ("count", 200, "champion")])
def test_what_is_expected_of_features_holds_here_too(served: Served, cases: Case, otherwise: Any, status: int, rung: str) -> None:
    expect = (tm.Expect("booking__weight", high=50, otherwise=otherwise),)
    endpoint = replace(served.endpoint, expect=expect, fallback=(tm.Constant(0.3),), ladder=Ladder("late"))
    served.gateway.endpoints["late"] = endpoint  # type: ignore[index]
    sent = columns(served, [cases[0][1] | {"booking__weight": 5_000.0}])
    answer = served.client.post("/v2/models/late/infer", json={"inputs": sent})
    assert answer.status_code == status, answer.text
    if status == 400:
        assert "rows[0]: booking__weight is 5000" in answer.json()["error"]
        assert served.logged == []
    else:
        assert answer.json()["parameters"]["rung"] == rung
        assert "booking__weight" in served.logged[0]["unexpected"]
        assert json.loads(answer.json()["parameters"]["unexpected"])["booking__weight"] == served.logged[0]["unexpected"]["booking__weight"]
