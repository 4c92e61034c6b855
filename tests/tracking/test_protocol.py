"""The protocol without a client: what clients never send, files with ranges and hostile paths, and requests for another host."""

import asyncio
import json
import random
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlencode

import pytest

from tidemill import tracking
from tidemill.ledger import Ledger
from tidemill.tracking import list_files, metrics, write_token
from tidemill.web.tracking import only_local, tracking_app

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Answer]


@pytest.fixture
def ask(ledger: Ledger) -> Ask:
    """Ask the application itself, without a network."""
    app = only_local(tracking_app(ledger))

    def asked(
        method: str,
        path: str,
        body: Any = None,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        pieces: list[bytes] | None = None,
    ) -> Answer:
        data = pieces if pieces is not None else [json.dumps(body).encode() if body is not None else b""]
        waiting = [{"type": "http.request", "body": one, "more_body": i + 1 < len(data)} for i, one in enumerate(data)]
        sent: list[MutableMapping[str, Any]] = []
        given = {"host": "127.0.0.1:5000", "content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
        }  # fmt: skip

        async def receive() -> MutableMapping[str, Any]:
            while not waiting:  # the client stays
                await asyncio.sleep(3600)
            return waiting.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent[1:]))

    return asked


@pytest.fixture
def run_id(ask: Ask) -> str:
    return str(ask("POST", f"{API}/runs/create", {"experiment_id": "0"}).json["run"]["info"]["run_id"])


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": 5}, 400, "Invalid value 5 for parameter 'name' supplied"),
        ({"name": "x", "tags": "5"}, 400, "Invalid value \"5\" for parameter 'tags' supplied"),
        ({"name": "x", "tags": [{"key": 5}]}, 400, "Invalid value 5 for parameter 'tags[0].key' supplied"),
        ({"name": None}, 400, "Missing value for required parameter 'name'"),
        ({"name": ""}, 400, "Missing value for required parameter 'name'"),
        ([1], 400, "Missing value for required parameter 'name'"),
        ({"name": "x" * 501}, 400, "exceeds the maximum length of 500"),
    ],
)
def test_a_wrong_request_names_the_field_and_the_value(ask: Ask, body: Any, status: int, said: str) -> None:
    answer = ask("POST", f"{API}/experiments/create", body)
    assert answer.status == status
    assert answer.json["error_code"] == "INVALID_PARAMETER_VALUE"
    assert said in answer.json["message"]


def test_what_is_no_json_has_no_fields_and_numbers_may_be_texts(ask: Ask, run_id: str) -> None:
    assert "Missing value" in ask("POST", f"{API}/experiments/create", pieces=[b"{"]).json["message"]
    assert "Missing value" in ask("POST", f"{API}/experiments/create", pieces=[b"[" * 100_000]).json["message"]
    point = {"run_id": run_id, "key": "m", "value": "NaN", "timestamp": "5", "step": "7", "unknown": {"a": 1}}
    assert ask("POST", f"{API}/runs/log-metric", point).json == {}
    found = ask("GET", f"{API}/metrics/get-history", query=f"run_uuid={run_id}&metric_key=m").json
    assert found == {"metrics": [{"key": "m", "value": "NaN", "timestamp": 5, "step": 7}]}


def test_the_prefix_of_pages_works_too_and_what_is_unknown_is_not_found(ask: Ask, run_id: str) -> None:
    assert ask("GET", "/ajax-api/2.0/mlflow/runs/get", query=f"run_id={run_id}").json["run"]["info"]["run_id"] == run_id
    for method, path in (("GET", f"{API}/never"), ("GET", "/page"), ("DELETE", f"{API}/runs/get"), ("GET", "/api/")):
        assert ask(method, path).status == 404
    assert b"tidemill runs list" in ask("GET", "/").body


def test_a_form_and_another_hosts_name_are_refused(ask: Ask) -> None:
    form = ask("POST", f"{API}/experiments/create", {"name": "x"}, headers={"content-type": "text/plain"})
    assert (form.status, form.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    for host in ("evil.example", "127.0.0.1.evil.example:5000", ""):
        found = ask("GET", "/health", headers={"host": host})
        assert (found.status, f"not as {host!r} (the header Host)" in found.json["message"]) == (403, True)
    for host in ("localhost:5000", "[::1]:5000", "127.0.0.1"):
        assert ask("GET", "/health", headers={"host": host}).body == b"OK"


def test_a_body_that_is_too_large_is_not_read_to_its_end(ask: Ask) -> None:
    answer = ask("POST", f"{API}/experiments/create", pieces=[b"x" * 2**20] * 80)
    assert answer.status == 400
    assert "larger than" in answer.json["message"]


@pytest.mark.parametrize("value", [1.7976931348623157e308, -0.0, 5e-324, 2**53 + 1, 0])
def test_numbers_come_back_as_they_were(ask: Ask, run_id: str, value: float) -> None:
    ask("POST", f"{API}/runs/log-metric", {"run_id": run_id, "key": "m", "value": value, "timestamp": 0, "step": -(2**40)})
    (found,) = ask("GET", f"{API}/metrics/get-history", query=f"run_id={run_id}&metric_key=m").json["metrics"]
    assert (found["value"], found["timestamp"], found["step"]) == (float(value), 0, -(2**40))


@pytest.mark.parametrize("point", [{"step": 2**63}, {"step": -(2**63) - 1}, {"timestamp": 2**63}, {"timestamp": 10**40}])
def test_a_number_beyond_64_bits_is_refused(ask: Ask, run_id: str, point: dict[str, int]) -> None:
    answer = ask("POST", f"{API}/runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 0, "step": 0} | point)
    assert answer.status == 400
    assert answer.json["error_code"] == "INVALID_PARAMETER_VALUE"


# ── long curves ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", ["", "&max_results=1000000000"])
def test_a_history_beyond_what_one_call_reads_has_pages(ask: Ask, run_id: str, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(metrics, "MOST", 5)
    points = [{"key": "m", "value": i, "timestamp": i, "step": i} for i in range(12)]
    ask("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points})
    pages, token = [], ""
    while not pages or token:
        answer = ask("GET", f"{API}/metrics/get-history", query=f"run_id={run_id}&metric_key=m{asked}&page_token={token}").json
        pages.append([one["step"] for one in answer["metrics"]])
        token = answer.get("next_page_token", "")
    assert pages == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_a_long_curve_is_sampled_without_losing_its_extremes(ask: Ask, run_id: str) -> None:
    values = [(i * 7919) % 1000 / 1000 for i in range(3000)]
    values[1234], values[2345] = 50.0, -50.0
    for start in range(0, 3000, 1000):
        points = [{"key": "m", "value": values[i], "timestamp": i, "step": i} for i in range(start, start + 1000)]
        assert ask("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points}).status == 200
    path = f"{API}/metrics/get-history-bulk-interval"
    found = ask("GET", path, query=f"run_ids={run_id}&metric_key=m&max_results=100").json["metrics"]
    assert len(found) <= 100
    assert [one["step"] for one in found] == sorted(one["step"] for one in found)
    assert {(0, values[0]), (2999, values[2999]), (1234, 50.0), (2345, -50.0)} <= {(one["step"], one["value"]) for one in found}
    assert all(one["run_id"] == run_id and values[one["step"]] == one["value"] for one in found)
    part = ask("GET", path, query=f"run_ids={run_id}&metric_key=m&max_results=100&start_step=10&end_step=59").json["metrics"]
    assert [one["step"] for one in part] == list(range(10, 60)), "what is short is whole"
    assert ask("GET", path, query=f"run_ids={run_id}&metric_key=m&start_step=10").status == 400
    assert len(ask("GET", f"{API}/metrics/get-history-bulk", query=f"run_id={run_id}&metric_key=m&max_results=7").json["metrics"]) == 7


def test_a_curve_whose_steps_span_all_whole_numbers_is_sampled_too(ask: Ask, run_id: str) -> None:
    steps = [-(2**63) + (2**64 - 1) * i // 499 for i in range(500)]
    points = [
        {"key": "m", "value": 90.0 if i == 123 else -i if i == 321 else i % 7, "timestamp": i, "step": step} for i, step in enumerate(steps)
    ]
    assert ask("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points}).status == 200
    path = f"{API}/metrics/get-history-bulk-interval"
    found = ask("GET", path, query=f"run_ids={run_id}&metric_key=m&max_results=60").json["metrics"]
    assert 40 < len(found) <= 60
    assert 1 < len(ask("GET", path, query=f"run_ids={run_id}&metric_key=m&max_results=5").json["metrics"]) <= 5
    assert {(steps[0], 0.0), (steps[123], 90.0), (steps[321], -321.0), (steps[499], 2.0)} <= {(one["step"], one["value"]) for one in found}


def test_a_sampled_point_is_one_that_was_logged_also_among_equals(ask: Ask, run_id: str) -> None:
    logged = {(i, 10_000 - i, float(i % 3)) for i in range(900)}  # later steps were logged earlier
    points = [{"key": "m", "value": value, "timestamp": at, "step": step} for step, at, value in sorted(logged)]
    ask("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points})
    query = f"run_ids={run_id}&metric_key=m&max_results=50"
    found = ask("GET", f"{API}/metrics/get-history-bulk-interval", query=query).json["metrics"]
    assert 10 < len(found) <= 50
    assert {(one["step"], one["timestamp"], one["value"]) for one in found} <= logged


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "said"),
    [
        ("GET", "metrics/get-history-bulk", "metric_key=m", None, "GetMetricHistoryBulk request must specify at least one run_id"),
        ("GET", "metrics/get-history-bulk", "run_id=1", None, "GetMetricHistoryBulk request must specify a metric_key"),
        ("GET", "metrics/get-history-bulk-interval", "metric_key=m", None, "Missing value for required parameter 'run_ids'"),
        ("GET", "metrics/get-history-bulk-interval", "run_ids=1&metric_key=m&start_step=1", None, "If either start step or end step"),
        ("POST", "experiments/search-datasets", "", {}, "SearchDatasets request must specify at least one experiment_id."),
        ("POST", "experiments/search-datasets", "", {"experiment_ids": ["1"] * 21}, "SearchDatasets request cannot specify more than 20"),
    ],
)
def test_what_pages_ask_wrongly_is_refused_in_mlflows_words(ask: Ask, method: str, path: str, query: str, body: Any, said: str) -> None:
    answer = ask(method, f"{API}/{path}", body, query=query)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert said in answer.json["message"]


# ── registered models ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "source",
    [
        "mlflow-artifacts://host:9000/models/../../../",
        "https://host/api/2.0/mlflow-artifacts/artifacts/../../../",
        "mlflow-artifacts://host:9000/models/..%2f..%2fartifacts",
        "mlflow-artifacts:/models/%252e%252e/x",
        "mlflow-artifacts:/models/artifact%00",
        "s3://bucket/a\\..\\b",
        "dbfs:/1/artifacts/a%3f/../../../",
        f"s3://bucket/%{'25' * 100_000}",
        "runs:/{run}/../../another/artifacts/model",
        "runs:/{run}/%2e%2e/x",
        "file:///etc",
        "/tmp",
        "models",
    ],
)
def test_a_version_whose_source_leads_out_is_refused(ask: Ask, run_id: str, source: str) -> None:
    ask("POST", f"{API}/registered-models/create", {"name": "m"})
    body = {"name": "m", "source": source.replace("{run}", run_id), "run_id": run_id}
    answer = ask("POST", f"{API}/model-versions/create", body)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert re.search("Invalid model version source|'source' supplied: it has 200013 characters", answer.json["message"])


def test_a_page_of_another_site_changes_nothing(ask: Ask) -> None:
    def post(origin: str) -> int:
        return ask("POST", f"{API}/experiments/create", {"name": origin}, headers={"origin": origin, "content-type": ""}).status

    assert [post(one) for one in ("http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1:5000")] == [403, 403, 403, 200]
    assert ask("POST", "/mlflow/upload-artifact", query="run_uuid=x&path=a", headers={"origin": "http://evil.example"}).status == 403
    assert ask("POST", f"{API}/experiments/delete", {"experiment_id": "0"}, headers={"sec-fetch-site": "cross-site"}).status == 403


def test_a_token_of_nobody_is_refused_by_every_search(ask: Ask, run_id: str) -> None:
    ask("POST", f"{API}/runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1})
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    searches: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{API}/experiments/search", {"max_results": 5}),
        ("POST", f"{API}/runs/search", {"experiment_ids": ["0"]}),
        ("POST", f"{API}/runs/search", {"experiment_ids": ["0"], "order_by": ["metrics.m"]}),
        ("POST", f"{API}/logged-models/search", {"experiment_ids": ["0"]}),
        ("POST", "/api/3.0/mlflow/traces/search", {"locations": [place]}),
        ("GET", f"{API}/registered-models/search", {}),
        ("GET", f"{API}/model-versions/search", {}),
        ("GET", f"{API}/metrics/get-history", {"run_id": run_id, "metric_key": "m"}),
    ]
    for values in (["abc"], [-5], [1.5], [2**63], [1, 2], [True, "abc", None, 0, ""], [False, 0, "x", 1, ""], ["a", 1, 1.0, 0]):
        for method, path, given in searches:
            asked = {**given, "page_token": write_token(values)}
            answer = ask(method, path, asked, query=urlencode(asked) if method == "GET" else "")
            assert (answer.status, answer.json.get("message", "")[:18]) == (400, "Invalid page token"), (path, values)


def test_a_search_names_so_many_experiments(ask: Ask) -> None:
    many = {"experiment_ids": ["0"] * 10_001, "filter": ""}
    for path in ("runs", "logged-models"):
        assert "at most 10000 experiments" in ask("POST", f"{API}/{path}/search", many).json["message"]
    for given in ({"trace_ids": ["a"] * 10_001}, {"max_timestamp_millis": 1, "max_traces": -4}):
        answer = ask("POST", f"{API}/traces/delete-traces", {"experiment_id": "0", **given})
        assert (answer.status, answer.json["message"][:40]) == (400, "One call deletes at least one trace, and")


def test_models_that_older_clients_tell_of_stand_in_a_list_that_grows(ask: Ask, run_id: str) -> None:
    def tell(flavor: str) -> Answer:
        model = {"artifact_path": "a", "flavors": {flavor: "x" * 3_000}, "utc_time_created": "", "run_id": run_id}
        return ask("POST", f"{API}/runs/log-model", {"run_id": run_id, "model_json": json.dumps(model)})

    assert [tell(str(i)).status for i in range(5)] == [200] * 5
    tags = {tag["key"]: tag["value"] for tag in ask("GET", f"{API}/runs/get", query=f"run_id={run_id}").json["run"]["data"]["tags"]}
    assert [list(one["flavors"]) for one in json.loads(tags["mlflow.log-model.history"])] == [["0"], ["1"], ["2"], ["3"], ["4"]]
    ask("POST", f"{API}/runs/set-tag", {"run_id": run_id, "key": "mlflow.log-model.history", "value": "[{"})
    assert (tell("6").status, "is no list" in tell("6").json["message"]) == (400, True)
    ask("POST", f"{API}/runs/set-tag", {"run_id": run_id, "key": "mlflow.log-model.history", "value": "[]"})
    assert (
        "would be longer than"
        in ask(
            "POST",
            f"{API}/runs/log-model",
            {"run_id": run_id, "model_json": '{"artifact_path":"","flavors":"%s","utc_time_created":"","run_id":""}' % ("x" * 2**20)},
        ).json["message"]
    )


def test_every_text_of_a_request_has_a_limit(ask: Ask, run_id: str) -> None:
    long = "x" * 20_001
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    trace = {"trace_id": "t", "trace_location": place, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
    ask("POST", f"{API}/registered-models/create", {"name": "m"})
    for path, body, what in (
        ("runs/create", {"run_name": long}, "run_name"),
        ("runs/create", {"user_id": long}, "user_id"),
        ("runs/update", {"run_id": run_id, "run_name": long}, "run_name"),
        ("experiments/create", {"name": "e", "artifact_location": long}, "artifact_location"),
        ("logged-models", {"experiment_id": "0", "name": long}, "name"),
        ("logged-models", {"experiment_id": "0", "name": "l", "tags": [{"key": "k", "value": "x" * (2**20 + 1)}]}, "value"),
        ("registered-models/create", {"name": "n", "description": "x" * 100_001}, "description"),
        ("model-versions/create", {"name": "m", "source": "s3://a", "run_link": long}, "run_link"),
    ):
        answer = ask("POST", f"{API}/{path}", body)
        assert (answer.status, f"'{what}'" in answer.json["message"]) == (400, True), path
    for name, value in (("trace_id", "x" * 251), ("state", "x" * 251), ("tags", {"x" * 251: ""}), ("assessments", [{"a": "x" * 2**20}])):
        assert ask("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": {**trace, name: value}}}).status == 400, name
    kept = {**trace, "request_preview": long, "tags": {"a": long}, "trace_metadata": {"b": long}}
    found = ask("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": kept}}).json["trace"]["trace_info"]
    assert [len(found["request_preview"]), len(found["tags"]["a"]), len(found["trace_metadata"]["b"])] == [10_000, 8_000, 8_000]
    assert ask("POST", f"{API}/runs/log-parameter", {"run_id": run_id, "key": "p", "value": long}).status == 200, "it is cut"


def test_what_no_database_holds_is_told_in_words(ask: Ask, run_id: str) -> None:
    late = ask("POST", f"{API}/runs/create", {"start_time": 10**30})
    assert (late.status, "2⁶³" in late.json["message"]) == (400, True)
    long = ask("POST", f"{API}/runs/outputs", {"run_id": run_id, "models": [{"model_id": "m" * 20_000}]})
    assert (long.status, "'model_id' exceeds the maximum length" in long.json["message"]) == (400, True)


def test_an_order_has_a_limit(ask: Ask) -> None:
    many = [f"metrics.m{i}" for i in range(11)]
    assert ask("POST", f"{API}/runs/search", {"experiment_ids": ["0"], "order_by": many[:10]}).status == 200
    assert "at most 10" in ask("POST", f"{API}/runs/search", {"experiment_ids": ["0"], "order_by": many}).json["message"]


def test_a_dataset_has_limits_of_its_own(ask: Ask) -> None:
    run = ask("POST", f"{API}/runs/create", {}).json["run"]["info"]["run_id"]
    for name, longest in (("name", 500), ("digest", 64), ("source", 65_535), ("schema", 2**20 - 1)):
        found = {"name": "d", "digest": "1", "source_type": "local", "source": "s", name: "x" * (longest + 1)}
        answer = ask("POST", f"{API}/runs/log-inputs", {"run_id": run, "datasets": [{"dataset": found}]})
        assert (answer.status, f"'{name}' exceeds the maximum length of {longest}" in answer.json["message"]) == (400, True)
    assert not ask("GET", f"{API}/runs/get", query=f"run_id={run}").json["run"].get("inputs", {}).get("dataset_inputs")


def test_a_prompt_that_is_too_long_is_told_so(ask: Ask) -> None:
    ask("POST", f"{API}/registered-models/create", {"name": "p"})
    body = {"name": "p", "source": "dummy-source", "tags": [{"key": "mlflow.prompt.text", "value": "x" * 100_001}]}
    answer = ask("POST", f"{API}/model-versions/create", body)
    assert (answer.status, "Prompt text exceeds max length of 100000" in answer.json["message"]) == (400, True)


def test_dots_and_slashes_that_lead_nowhere_are_a_source(ask: Ask, run_id: str) -> None:
    ask("POST", f"{API}/registered-models/create", {"name": "m"})
    for source in ("mlflow-artifacts:/models///", "mlflow-artifacts://host:9000/models/a/..../", "s3://bucket/a+b%20c"):
        assert ask("POST", f"{API}/model-versions/create", {"name": "m", "source": source, "run_id": run_id}).status == 200, source


def test_a_logged_model_tells_the_newest_of_each_metric_on_each_dataset(ask: Ask, run_id: str) -> None:
    model = ask("POST", f"{API}/logged-models", {"experiment_id": "0", "name": "l"}).json["model"]["info"]["model_id"]
    points = [
        ("a", 2, 5, 1.0, "x"),
        ("a", 9, 4, 2.0, "x"),
        ("a", 2, 5, 3.0, "x"),
        ("a", 3, 5, 0.5, "x"),
        ("a", 1, 1, 7.0, "y"),
        ("b", 1, -3, 8.0, ""),
    ]
    names = ("key", "timestamp", "step", "value", "dataset_name")
    metrics = [{**dict(zip(names, point, strict=True)), "model_id": model} for point in points]
    assert ask("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": metrics}).status == 200
    found = ask("GET", f"{API}/logged-models/{model}").json["model"]["data"]["metrics"]
    told = [(one["key"], one["timestamp"], one["step"], one["value"], one.get("dataset_name", "")) for one in found]
    assert told == [points[3], points[4], points[5]]


def test_a_logged_model_says_which_versions_were_made_of_it(ask: Ask) -> None:
    model = ask("POST", f"{API}/logged-models", {"experiment_id": "0", "name": "net"}).json["model"]["info"]
    ask("POST", f"{API}/registered-models/create", {"name": "m"})

    def register() -> Any:
        body = {"name": "m", "source": model["artifact_uri"], "model_id": model["model_id"]}
        return ask("POST", f"{API}/model-versions/create", body).json["model_version"]

    def tags() -> Any:
        found = ask("GET", f"{API}/logged-models/{model['model_id']}").json["model"]["info"].get("tags", [])
        return {one["key"]: one["value"] for one in found}

    assert register()["description"] == "", "clients tell a text that is not there from one that is empty"
    assert tags() == {"mlflow.modelVersions": '[{"name": "m", "version": 1}]'}
    register()
    assert tags() == {"mlflow.modelVersions": '[{"name": "m", "version": 1}, {"name": "m", "version": 2}]'}
    broken = {"tags": [{"key": "mlflow.modelVersions", "value": "no list"}]}
    ask("PATCH", f"{API}/logged-models/{model['model_id']}/tags", broken)
    assert register()["version"] == "3"
    assert tags() == {"mlflow.modelVersions": "no list"}
    elsewhere = {"name": "m", "source": "s3://there/it/is", "model_id": "m-elsewhere"}
    assert ask("POST", f"{API}/model-versions/create", elsewhere).json["model_version"]["version"] == "4"


def test_a_description_of_a_version_is_no_change_of_its_model(ask: Ask, ledger: Ledger) -> None:
    ledger.wall = count(0, 1_000_000).__next__
    ask("POST", f"{API}/registered-models/create", {"name": "m"})
    ask("POST", f"{API}/model-versions/create", {"name": "m", "source": "s3://there/it/is"})

    def changed() -> Any:
        return ask("GET", f"{API}/registered-models/get", query="name=m").json["registered_model"]["last_updated_timestamp"]

    before = changed()
    ask("PATCH", f"{API}/model-versions/update", {"name": "m", "version": "1", "description": "what it is"})
    version = ask("GET", f"{API}/model-versions/get", query="name=m&version=1").json["model_version"]
    assert (version["description"], changed()) == ("what it is", before)
    ask("POST", f"{API}/model-versions/transition-stage", {"name": "m", "version": "1", "stage": "Staging"})
    assert changed() > before


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_comes_back_whole_in_parts_and_never_as_a_page(ask: Ask, run_id: str) -> None:
    data = bytes(range(256)) * 1000
    path = f"{FILES}/0/{run_id}/artifacts/dir/page.html"
    assert ask("PUT", path, pieces=[data[:100], data[100:70_000], data[70_000:]]).json == {}
    whole = ask("GET", path)
    assert whole.body == data
    assert whole.headers["content-length"] == str(len(data))
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    assert whole.headers["content-disposition"] == 'attachment; filename="page.html"'
    for asked, expected in (
        ("bytes=0-9", data[:10]),
        ("bytes=100-", data[100:]),
        ("bytes=-5", data[-5:]),
        ("bytes=255990-999999", data[255_990:]),
    ):
        part = ask("GET", path, headers={"range": asked})
        assert (part.status, part.body) == (206, expected)
    assert ask("GET", path, headers={"range": "bytes=9-1"}).status == 200
    behind = ask("GET", path, headers={"range": "bytes=256000-"})
    assert (behind.status, behind.headers["content-range"]) == (416, "bytes */256000")
    assert ask("HEAD", path).body == b""
    assert ask("GET", f"{API}/artifacts/list", query=f"run_id={run_id}").json["files"] == [{"path": "dir", "is_dir": True}]
    listed = ask("GET", FILES, query=f"path=0/{run_id}/artifacts/dir").json["files"]
    assert listed == [{"path": "page.html", "is_dir": False, "file_size": len(data)}]
    assert ask("GET", "/get-artifact", query=f"run_id={run_id}&path=dir/page.html").body == data
    assert ask("DELETE", f"{FILES}/0/{run_id}/artifacts/dir").status == 200
    assert ask("GET", path).status == 404


def test_the_files_of_a_registered_version_do_not_change(ask: Ask, run_id: str, ledger: Ledger) -> None:
    path = f"{FILES}/0/{run_id}/artifacts/model/MLmodel"
    root = ask("GET", f"{API}/runs/get", query=f"run_id={run_id}").json["run"]["info"]["artifact_uri"]
    assert ask("PUT", path, pieces=[b"as it was registered"]).status == 200
    ask("POST", f"{API}/registered-models/create", {"name": "kept"})
    for _ in range(2):
        ask("POST", f"{API}/model-versions/create", {"name": "kept", "source": f"{root}/model", "run_id": run_id})
    places = [
        ask("GET", f"{API}/model-versions/get-download-uri", query=f"name=kept&version={number}").json["artifact_uri"] for number in (1, 2)
    ]
    assert len({f"{root}/model", *places}) == 3
    assert ask("GET", f"{API}/model-versions/get", query="name=kept&version=1").json["model_version"]["source"] == f"{root}/model"
    own = [f"{FILES}/{place.removeprefix('mlflow-artifacts:/').lstrip('/')}" for place in places]
    assert ask("PUT", path, pieces=[b"another"]).status == 200
    assert ask("DELETE", f"{FILES}/0/{run_id}/artifacts/model").status == 200
    assert [ask("GET", f"{one}/MLmodel").body for one in own] == [b"as it was registered"] * 2
    for method, place in (("PUT", f"{own[0]}/MLmodel"), ("PUT", f"{own[0]}/more"), ("DELETE", own[0]), ("DELETE", f"{FILES}/registered")):
        assert ask(method, place, pieces=[b"x"]).status == 403, place
    prompt = {"name": "text", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
    ask("POST", f"{API}/registered-models/create", prompt)
    assert ask("POST", f"{API}/model-versions/create", {**prompt, "source": places[0]}).status == 200
    assert ask("DELETE", f"{API}/registered-models/delete", {"name": "text"}).status == 200
    assert ask("GET", f"{own[0]}/MLmodel").status == 200, "a prompt that names the place of a version does not take it along"
    for wide in ("mlflow-artifacts:/registered", "mlflow-artifacts:/"):
        assert ask("POST", f"{API}/model-versions/create", {"name": "kept", "source": wide}).status == 400, wide
    assert ask("POST", f"{API}/experiments/create", {"name": "x", "artifact_location": "mlflow-artifacts:/registered/x"}).status == 400
    assert ask("DELETE", f"{API}/model-versions/delete", {"name": "kept", "version": "1"}).status == 200
    assert [ask("GET", f"{one}/MLmodel").status for one in own] == [404, 200]
    assert ask("DELETE", f"{API}/registered-models/delete", {"name": "kept"}).status == 200
    assert ask("GET", f"{own[1]}/MLmodel").status == 404


def test_a_version_that_is_registered_before_its_files_is_frozen_when_it_is_read_after_its_run(ask: Ask, run_id: str) -> None:
    root = f"{FILES}/0/{run_id}/artifacts"
    ask("POST", f"{API}/registered-models/create", {"name": "early"})
    for source in (f"runs:/{run_id}/model", f"runs:/{run_id}/model.onnx"):
        assert ask("POST", f"{API}/model-versions/create", {"name": "early", "source": source, "run_id": run_id}).status == 200
    for name in ("model/MLmodel", "model.onnx"):
        assert ask("PUT", f"{root}/{name}", pieces=[b"written after"]).status == 200
    asked = ("name=early&version=1&path=MLmodel", "name=early&version=2&path=")
    assert [ask("GET", "/model-versions/get-artifact", query=query).body for query in asked] == [b"written after"] * 2
    assert ask("PUT", f"{root}/model/MLmodel", pieces=[b"as the run left it"]).status == 200
    assert ask("POST", f"{API}/runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 5}).status == 200
    told = [b"as the run left it", b"written after"]
    assert [ask("GET", "/model-versions/get-artifact", query=query).body for query in asked] == told
    for name in ("model/MLmodel", "model.onnx"):
        assert ask("PUT", f"{root}/{name}", pieces=[b"changed"]).status == 200
    assert [ask("GET", "/model-versions/get-artifact", query=query).body for query in asked] == told
    place = ask("GET", f"{API}/model-versions/get-download-uri", query="name=early&version=2").json["artifact_uri"]
    assert re.fullmatch("mlflow-artifacts:/registered/[0-9a-f]{32}/model.onnx", place)
    assert ask("GET", f"{API}/model-versions/get", query="name=early&version=2").json["model_version"]["source"] == source


def test_a_file_is_no_folder_and_a_folder_no_file(ask: Ask, run_id: str) -> None:
    root = f"{FILES}/0/{run_id}/artifacts"
    assert ask("PUT", f"{root}/d/e/f", pieces=[b"kept"]).status == 200
    assert "'0/" in ask("PUT", f"{root}/d/e", pieces=[b"x"]).json["message"]
    assert ask("PUT", f"{root}/d/e/f/g", pieces=[b"x"]).json["message"].endswith("/d/e/f' is a file, and no folder")
    assert ask("PUT", f"{root}/d/e/f", pieces=[b"new"]).status == 200
    assert ask("PUT", f"{root}/d/e/f0", pieces=[b"x"]).status == 200
    assert ask("PUT", f"{root}/{'x' * 256}", pieces=[b"x"]).status == 400
    assert ask("GET", f"{root}/d/e/f").body == b"new"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a/%2e%2e/%2e%2e/x",
        "%252e%252e/x",
        "/etc/passwd",
        "a\\..\\x",
        "C:/x",
        "a//b",
        "x\0y",
        "a" * 1001,
    ],
)
def test_a_path_that_leads_out_is_refused(ask: Ask, run_id: str, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        assert ask(method, f"{FILES}/{path}", pieces=[b"x"]).status in (400, 404), method
    assert ask("GET", "/get-artifact", query=f"run_id={run_id}&path={path}").status in (400, 404)
    assert ask("GET", f"{API}/artifacts/list", query=f"run_id={run_id}&path={path}").status in (400, 404)


def test_a_dot_in_a_path_is_where_one_is(ask: Ask, run_id: str) -> None:
    root = f"0/{run_id}/artifacts"
    assert ask("PUT", f"{FILES}/{root}/./a/./x.txt", pieces=[b"x"]).status == 200
    for query in (f"path={root}/.", f"path=./{root}", f"path={root}/./"):
        assert ask("GET", FILES, query=query).json["files"] == [{"path": "a", "is_dir": True}], query
    listed = ask("GET", f"{API}/artifacts/list", query=f"run_id={run_id}&path=.").json["files"]
    assert listed == [{"path": "a", "is_dir": True}]
    assert ask("GET", f"{FILES}/{root}/a/x.txt").body == b"x"
    assert ask("DELETE", f"{FILES}/.").status == 400


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("s3://b/a/", "s3://b/a/{}/artifacts"),
        ("s3://b/a?region=x/y#z", "s3://b/a/{}/artifacts?region=x/y#z"),
        ("/mnt/rootpa#th?/", "/mnt/rootpa#th?/{}/artifacts"),
        ("C:/rootpa#th", "C:/rootpa#th/{}/artifacts"),
        ("mysql+driver://u:p@h:5/db/sub/#frag?ment", "mysql+driver://u:p@h:5/db/sub/{}/artifacts#frag?ment"),
    ],
)
def test_a_runs_place_is_in_the_path_of_its_experiments(ask: Ask, location: str, place: str) -> None:
    made = ask("POST", f"{API}/experiments/create", {"name": "x", "artifact_location": location}).json["experiment_id"]
    info = ask("POST", f"{API}/runs/create", {"experiment_id": made}).json["run"]["info"]
    assert info["artifact_uri"] == place.format(info["run_id"])
    model = ask("POST", f"{API}/logged-models", {"experiment_id": made, "name": "n"}).json["model"]["info"]
    assert model["artifact_uri"] == place.format(f"models/{model['model_id']}")


def test_an_upload_that_breaks_off_leaves_nothing(ledger: Ledger) -> None:
    waiting = [{"type": "http.request", "body": b"x" * 100_000, "more_body": True}, {"type": "http.disconnect"}]
    sent: list[MutableMapping[str, Any]] = []
    scope = {"type": "http", "method": "PUT", "path": f"{FILES}/0/cut", "query_string": b"", "headers": []}

    async def receive() -> MutableMapping[str, Any]:
        return waiting.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(tracking_app(ledger)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert list(ledger.blobs.digests()) == []


def test_a_file_needs_a_name(ask: Ask) -> None:
    assert ask("PUT", f"{FILES}/", pieces=[b"x"]).status == 400


def test_a_folder_lists_what_lies_directly_in_it(ledger: Ledger) -> None:
    chance = random.Random(3)
    word: Callable[[], str] = lambda: "".join(chance.choice("ab-0ü") for _ in range(chance.randint(1, 3)))  # noqa: E731
    names = {"/".join(word() for _ in range(chance.randint(1, 3))) for _ in range(300)} | {f"many/{i}" for i in range(100)}
    tracking.prepare(ledger)
    with ledger.records.transaction() as sql:
        sql.many("INSERT INTO artifact_file (path, digest, size) VALUES (?, ?, ?)", [(f"r/{name}", "d", len(name)) for name in names])
    for folder in {"", *(name.rpartition("/")[0] for name in names)}:
        inside = [name.removeprefix(f"{folder}/") if folder else name for name in names if not folder or name.startswith(f"{folder}/")]
        files = {name.partition("/")[0] for name in inside if "/" not in name}
        expected = sorted(files | {name.partition("/")[0] for name in inside})
        found = list_files(ledger, "r", folder)
        assert [one.path.removeprefix(f"{folder}/") for one in found] == expected, folder
        assert {one.path.removeprefix(f"{folder}/") for one in found if not one.is_dir} == files


def test_equal_files_are_stored_once(ask: Ask, ledger: Ledger) -> None:
    for name in "abc":
        ask("PUT", f"{FILES}/0/{name}", pieces=[b"same" * 50_000])
    assert len(set(ledger.blobs.digests())) == 1
