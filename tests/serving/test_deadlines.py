"""How long a client waits, and what is done for one that no longer does: nothing."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.conftest import Serve, Served
from serving.test_ladder import ROW, Slow
from serving.test_oip import sums, tensor
from tidemill.core import ClientGone, DataError, DeadlineExceeded
from tidemill.features import Requests
from tidemill.models import OnnxModel
from tidemill.serving import CALLER, Caller, Counters, Inference, Repository, beside
from tidemill.serving import Served as Bare
from tidemill.serving.caller import caller, stated
from tidemill.serving.declarations import Breaker
from tidemill.serving.ladder import Ladder, Rung, Score
from tidemill.serving.log import AnswerLog
from tidemill.serving.threads import THREADS
from tidemill.web.attended import GONE, attended
from tidemill.web.bare import application
from tidemill.web.direct import led
from tidemill.web.metrics import Traffic, exposition, measured
from tidemill.web.turn import Turn

INFER = "/v2/models/late/infer"


@contextmanager
def stuck(served: Served, *names: str) -> Iterator[list[Slow]]:
    """The versions that stand under these names answer when they are let; they are in the end."""
    found = []
    for name in names:
        digest = getattr(served.endpoint.standing, name)[1]
        found.append(Slow(served.endpoint.predictors[digest]))
        served.endpoint.predictors[digest] = found[-1]
    try:
        yield found
    finally:
        for one in found:
            one.let.set()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, float("inf")),
        ({b"grpc-timeout": b"2S"}, 2),
        ({b"grpc-timeout": b"1H"}, 3600),
        ({b"grpc-timeout": b"3M"}, 180),
        ({b"grpc-timeout": b"250m"}, 0.25),
        ({b"grpc-timeout": b"0m"}, 0),
        ({b"grpc-timeout": b"99999999u"}, 99.999999),
        ({b"grpc-timeout": b"500n"}, 5e-7),
        ({b"x-envoy-expected-rq-timeout-ms": b"1500"}, 1.5),
        ({b"x-envoy-expected-rq-timeout-ms": b"0"}, float("inf")),
        ({b"x-envoy-expected-rq-timeout-ms": b"1500", b"grpc-timeout": b"1S"}, 1),
    ],
)
def test_the_time_that_a_client_says(headers: dict[bytes, bytes], seconds: float) -> None:
    assert stated(headers) == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["grpc-timeout", "x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize("value", ["", "1", "-1S", "1.5S", "S", "123456789S", "1s", "soon", "1S1S", "9" * 5000])
def test_what_is_no_time_is_refused_with_what_is(served: Served, name: str, value: str) -> None:
    if name != "grpc-timeout" and value == "1":
        value = "1ms"
    client = TestClient(attended(served.client.app, 60))
    answer = client.post("/predict/late", json=ROW, headers={name: value})
    assert (answer.status_code, name in answer.json()["error"], "next:" in answer.json()["error"]) == (400, True, True)
    head = {b"host": b"127.0.0.1", b"content-length": b"0", name.encode(): value.encode()}
    turn, answers = Turn(lambda end: None), list[bytes]()
    below = led(lambda method, path, size: lambda headers, body, alone: None, Traffic(Counters()), turn)(b"POST", b"/predict/late", head)
    assert below is not None
    assert below({b"x-request-id": b"gate-7"}, b"", answers.append)
    turn.settle()
    (told,) = answers
    assert (told[:12], b"\r\nx-request-id: gate-7\r\n" in told) == (b"HTTP/1.1 400", True)


def test_a_rung_gets_what_is_left_and_the_next_one_answers_in_time(served: Served) -> None:
    """The timeout of the deployment is 2 s: without the client's own, the test would take as long."""
    client = TestClient(attended(served.client.app, 60))
    with stuck(served, "champion", "previous"):
        answer = client.post("/predict/late", json=ROW, headers={"grpc-timeout": "300m"})
    assert (answer.status_code, answer.json()["predictions"][0]["rung"]) == (200, "constant")
    assert served.endpoint.ladder.counts["champion: deadline"] == 1
    assert served.endpoint.ladder.counts["previous version: deadline"] == 1


def test_hasty_clients_open_no_circuit(served: Served) -> None:
    client = TestClient(attended(served.client.app, 60))
    with stuck(served, "champion") as (model,):
        for _ in range(6):  # a circuit opens at five
            client.post("/predict/late", json=ROW, headers={"grpc-timeout": "40m"})
        assert [*served.endpoint.ladder.left_out] == []
        model.let.set()
    assert served.one(**ROW)["rung"] == "champion"


def test_without_another_rung_it_is_a_504_and_not_in_the_log(served: Served) -> None:
    served.endpoint.fallback = []
    client = TestClient(attended(served.client.app, 60))
    with stuck(served, "champion"):
        answer = client.post("/predict/late", json=ROW, headers={"x-envoy-expected-rq-timeout-ms": "50"})
        many = client.post("/predict/late", json=ROW | {"rows": ROW["rows"] * 11}, headers={"grpc-timeout": "50m"})
        features = tensors(served)
        protocol = client.post(INFER, json=features | {"parameters": {"timeout": 50_000}})
    for one in (answer, many, protocol):
        assert (one.status_code, "not there in time" in one.json()["error"]) == (504, True), one.json()
    assert served.logged == []


def test_what_was_logged_in_time_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that is over between the log and the answer: nobody could tell a line of an answer that was none."""
    append = AnswerLog.append

    def late(*given: Any, **how: Any) -> list[str]:
        ids = append(*given, **how)
        caller().until = 1e-9
        return ids

    monkeypatch.setattr(AnswerLog, "append", late)
    client = TestClient(attended(served.client.app, 60))
    answer = client.post(INFER, json=tensors(served) | {"parameters": {"timeout": 20_000_000}})
    assert (answer.status_code, len(served.logged)) == (200, 1)


def test_the_setting_holds_for_who_says_nothing_and_who_would_wait_longer(served: Served) -> None:
    served.endpoint.fallback = []
    client = TestClient(attended(served.client.app, 0.05))
    with stuck(served, "champion"):
        assert client.post("/predict/late", json=ROW).status_code == 504
        assert client.post("/predict/late", json=ROW, headers={"grpc-timeout": "1H"}).status_code == 504
    assert served.one(**ROW)["rung"] == "champion"


def tensors(served: Served) -> dict[str, Any]:
    endpoint = served.endpoint
    newest = endpoint.rows.known.take([len(endpoint.rows.known) - 1])
    assert isinstance(newest, Requests)
    return {"inputs": endpoint.tensors[endpoint.standing.champion[0]].examples(endpoint.reader.read(newest, newest.at)).popitem()[1]}


@pytest.mark.parametrize("wrong", ["1s", -1, 1.5, True, None])
def test_a_timeout_of_the_protocol_is_a_number_of_microseconds(served: Served, wrong: Any) -> None:
    body = tensors(served)
    client = TestClient(attended(served.client.app, 60))
    answer = client.post(INFER, json=body | {"parameters": {"timeout": wrong}})
    assert (answer.status_code, "parameters.timeout" in answer.json()["error"]) == (400, True)
    for fine in (0, 20_000_000):
        assert client.post(INFER, json=body | {"parameters": {"timeout": fine}}).status_code == 200


def test_a_bare_model_that_takes_longer_is_not_waited_for() -> None:
    let, model = threading.Event(), OnnxModel(sums())

    class Sleeper:
        inputs, outputs, isolated, platform = model.inputs, model.outputs, False, model.platform

        def run(self, tensors: Any, wanted: Any = ()) -> Any:
            let.wait(60)
            return model.run(tensors, wanted)

    bare = Bare("sums", "1", lambda: model, lambda: 0, Sleeper())
    bare.pace.note(10**9)
    client = TestClient(attended(application(Inference(Repository([bare]), "1"), "http://127.0.0.1"), 60), base_url="http://127.0.0.1")
    body = {"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}
    answer = client.post("/v2/models/sums/infer", json=body, headers={"grpc-timeout": "50m"})
    assert (answer.status_code, "error" in answer.json()) == (504, True)
    let.set()
    assert client.post("/v2/models/sums/infer", json=body).status_code == 200


def test_a_model_that_is_loaded_keeps_nobody_waiting() -> None:
    let, model = threading.Event(), OnnxModel(sums())

    def load() -> OnnxModel:
        assert let.wait(60)
        return model

    app = application(Inference(Repository([Bare("sums", "1", load, lambda: 0, model)]), "1"), "http://127.0.0.1")

    async def run() -> list[int]:
        loading = asyncio.create_task(asked(app, "/v2/repository/models/sums/load"))
        others = [await asked(app, path, method="GET") for path in ("/v2/health/ready", "/v2/models/sums/ready")]
        waits = not loading.done()
        let.set()
        return [*others, int(waits), await loading]

    assert asyncio.run(run()) == [200, 200, 1, 200]


async def asked(app: Any, path: str, method: str = "POST", body: bytes | None = b"") -> int:
    """The status of an answer; without a body the client goes away before its end."""
    told = list[Any]()

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"} if body is None else {"type": "http.request", "body": body}

    head = [(b"host", b"127.0.0.1")]
    await app({"type": "http", "method": method, "path": path, "query_string": b"", "headers": head}, receive, send)
    return int(told[0]["status"])


def test_who_goes_away_in_the_midst_of_a_body_is_no_fault_of_the_server() -> None:
    model, counters = OnnxModel(sums()), Counters()
    app = application(Inference(Repository([Bare("sums", "1", lambda: model, lambda: 0, model)]), "1"), "http://127.0.0.1")
    traffic = Traffic(counters)
    assert asyncio.run(asked(measured(attended(app, 60), traffic), "/v2/models/sums/infer", body=None)) == 499
    told = exposition(traffic.families()).decode()
    assert 'tidemill_requests_total{route="/v2",status="499"} 1.0' in told
    assert "tidemill_requests_under_way 0.0" in told


def test_how_many_are_under_way_is_told() -> None:
    traffic = Traffic(Counters())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "tidemill_requests_under_way 1.0" in exposition(traffic.families()).decode()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert asyncio.run(asked(measured(app, traffic), "/metrics")) == 200
    assert "tidemill_requests_under_way 0.0" in exposition(traffic.families()).decode()


def test_work_that_nobody_waits_for_is_not_begun() -> None:
    """Every thread is taken: of those that wait, one's time is over, one's client goes away, one stays."""
    done = list[str]()

    async def run() -> None:
        let, taken = threading.Event(), threading.Semaphore(0)

        def hold() -> None:
            taken.release()
            let.wait(60)

        async def under(caller: Caller, work: Callable[[], Any]) -> Any:
            CALLER.set(caller)
            async with asyncio.timeout(None if caller.left > 100 else caller.left):
                return await beside(work)

        holding = [asyncio.create_task(under(Caller({}), hold)) for _ in range(THREADS)]
        await asyncio.to_thread(lambda: [taken.acquire() for _ in range(THREADS)])
        gone = threading.Event()
        late, left, stays = (
            asyncio.create_task(under(caller, lambda name=name: done.append(name)))  # type: ignore[misc]
            for name, caller in (("late", Caller({}, 0.02)), ("left", Caller({}, gone=gone.is_set)), ("stays", Caller({})))
        )
        with pytest.raises(TimeoutError):
            await late
        gone.set()
        let.set()
        await stays
        with pytest.raises(DeadlineExceeded, match="went away"):
            await left
        await asyncio.gather(*holding)

    asyncio.run(run())
    assert done == ["stays"]


def test_who_went_away_is_asked_no_model_for(served: Served) -> None:
    async def run() -> list[Any]:
        told = list[Any]()

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(ROW | {"rows": ROW["rows"] * 11}).encode()}

        async def send(message: Any) -> None:
            told.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict/late",
            "raw_path": b"/predict/late",
            "query_string": b"",
            "headers": [],
        }
        await attended(served.client.app, 60)(scope | {GONE: lambda: True}, receive, send)
        return told

    assert asyncio.run(run())[0]["status"] == 499
    assert (served.logged, served.endpoint.ladder.counts) == ([], {})


async def left(app: Any, path: str, body: Any, begun: threading.Event, let: threading.Event) -> int:
    """The status of a request whose client goes away while a model that has begun answers; then that is let."""
    gone, told = threading.Event(), list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        told.append(message)

    head = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": head}
    asking = asyncio.create_task(app(scope | {GONE: gone.is_set}, receive, send))
    await asyncio.to_thread(begun.wait, 60)
    gone.set()
    let.set()
    await asking
    return int(told[0]["status"])


def test_who_goes_away_while_a_bare_model_runs_is_no_failure_of_it(caplog: pytest.LogCaptureFixture) -> None:
    begun, let, model, traffic = threading.Event(), threading.Event(), OnnxModel(sums()), Traffic(Counters())

    class Sleeper:
        inputs, outputs, isolated, platform = model.inputs, model.outputs, False, model.platform

        def run(self, tensors: Any, wanted: Any = ()) -> Any:
            begun.set()
            let.wait(60)
            return model.run(tensors, wanted)

    bare = Bare("sums", "1", lambda: model, lambda: 0, Sleeper())
    bare.pace.note(10**9)
    app = measured(attended(application(Inference(Repository([bare]), "1"), "http://127.0.0.1"), 60), traffic)
    body = {"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}
    with caplog.at_level(logging.INFO, "tidemill.access"):
        assert asyncio.run(left(app, "/v2/models/sums/infer", body, begun, let)) == 499
    assert 'tidemill_requests_total{route="/v2",status="499"} 1.0' in exposition(traffic.families()).decode()
    assert "status=499" in caplog.text
    assert (bare.counts.read()["requests"], bare.counts.read()["failed"]) == (0, 0)


@pytest.mark.parametrize("path", ["/predict/late", INFER])
def test_who_goes_away_while_a_rung_answers_is_no_strike_and_no_answer(served: Served, path: str) -> None:
    begun, body = threading.Event(), ROW if path != INFER else tensors(served)
    with stuck(served, "champion") as (model,):
        let, ask = model.let, model.predict
        model.predict = lambda features: begun.set() or ask(features)  # type: ignore[method-assign,func-returns-value]
        assert asyncio.run(left(attended(served.client.app, 60), path, body, begun, let)) == 499
    assert served.logged == []
    assert not [what for what in served.endpoint.ladder.counts if what.startswith("champion: ")]
    assert [one.counts.read()["failed"] for one in served.gateway.inference.models] == [0] * 2


def test_who_went_away_does_not_take_the_one_try_of_an_open_circuit() -> None:
    now, works = [0], [False]

    def give() -> list[Score]:
        if not works[0]:
            raise OSError
        return [Score(0.5, "1", "champion")]

    ladder, rung = Ladder("late", breaker=Breaker(failures=1, pause="1s"), ticks=lambda: now[0]), Rung("champion", 1, give)
    assert [ladder.tried(rung), [*ladder.left_out]] == [None, ["champion"]]
    now[0], works[0] = 2_000_000_000, True
    token = CALLER.set(Caller({}, 60.0, gone=lambda: True))
    with pytest.raises(ClientGone):
        ladder.tried(rung)
    CALLER.reset(token)
    assert ladder.tried(rung) == give()


def test_the_clients_id_is_told_with_every_answer_of_the_framework(serve: Serve) -> None:
    client = TestClient(attended(serve().client.app, 60))
    for path, status in (("/predict/late", 200), ("/predict/none", 404)):
        answer = client.post(path, json=ROW, headers={"x-request-id": "gate-7"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "gate-7")
    assert "x-request-id" not in client.post("/predict/late", json=ROW).headers


def test_no_time_is_refused_in_words() -> None:
    with pytest.raises(DataError, match="soon"):
        stated({b"grpc-timeout": b"soon"})
