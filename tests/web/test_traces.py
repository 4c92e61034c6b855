"""Spans, as a collector of OpenTelemetry gets them: decoded by its own protocol's messages."""

import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from processes import started
from serving.conftest import Served
from serving.conftest import serve as serve
from serving.conftest import served as served
from serving.test_bare import Line, request
from serving.test_deadlines import INFER, stuck, tensors
from serving.test_ladder import ROW, break_version
from serving.test_oip import sums
from serving.test_rpc import Client, asks
from serving.test_rpc import tensor as typed
from tidemill.core import DefinitionError
from tidemill.serving import Caller, Counters, Procedures, traced, tracer
from tidemill.web.attended import attended
from tidemill.web.direct import led
from tidemill.web.metrics import Calls, Traffic
from tidemill.web.rpc import Remote
from tidemill.web.turn import Turn
from toy import copied as copied
from toy import kept as kept
from toy import parcels as parcels
from toy import ready as ready
from toy import replayed as replayed
from toy import toy as toy

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SERVER, ERROR = 2, 2  # the kind of a span, and the code of its status


class Collector:
    """A receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests = list[ExportTraceServiceRequest]()
        collector = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                if self.path == "/v1/traces":
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self) -> list[Any]:
        """In the order of their beginning."""
        found = [span for one in self.requests for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


@contextmanager
def watched(collector: Collector) -> Iterator[None]:
    with traced(collector.address, "parcels", "0.1"):
        yield


def family(spans: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The one span of a request, and its parts."""
    (root,) = [span for span in spans if span.kind == SERVER]
    parts = [span for span in spans if span is not root]
    for part in parts:
        assert (part.parent_span_id, part.trace_id) == (root.span_id, root.trace_id)
        assert root.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano
    return root, parts


def test_a_request_through_the_framework(served: Served, collector: Collector) -> None:
    with watched(collector):
        client = TestClient(attended(served.client.app, 60))
        answer = client.post("/predict/late", json=ROW, headers={**TRACEPARENT, "x-request-id": "gate-7", "user-agent": "gate"})
    root, parts = family(collector.spans)
    version = served.endpoint.standing.champion[0]
    assert (root.name, root.trace_id.hex(), root.parent_span_id.hex()) == ("POST /predict/{name}", TRACE, PARENT)
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{root.span_id.hex()}-01"
    found = attributes(root)
    assert (
        found.items()
        >= {
            "http.request.method": "POST",
            "http.route": "/predict/{name}",
            "http.response.status_code": 200,
            "url.path": "/predict/late",
            "url.scheme": "http",
            "server.address": "testserver",
            "user_agent.original": "gate",
            "tidemill.request": "gate-7",
            "tidemill.deployment": "late",
            "tidemill.version": version,
            "tidemill.rung": "champion",
            "tidemill.prediction": answer.json()["predictions"][0]["id"],
        }.items()
    )
    assert [span.name for span in parts] == ["features", "rung", "log append"]
    assert attributes(parts[1]) == {"tidemill.rung": "champion", "tidemill.rows": 1, "tidemill.version": version}
    assert root.status.code == 0
    assert collector.resource.items() >= {"service.name": "parcels", "service.version": "0.1", "telemetry.sdk.language": "python"}.items()
    assert served.logged[0]["trace"] == TRACE


def test_a_request_below_the_framework(served: Served, collector: Collector) -> None:
    body = json.dumps(ROW).encode()
    head = {b"host": b"127.0.0.1:8642", b"content-length": b"%d" % len(body)}
    with watched(collector):
        turn, answers = Turn(lambda end: None), list[bytes]()
        whole = led(served.gateway.quick, Traffic(Counters()), turn)(b"POST", b"/predict/late", head)
        assert whole is not None
        assert whole({}, body, answers.append)
        turn.settle()
        (answer,) = answers
    root, parts = family(collector.spans)
    assert b"\r\ntraceresponse: 00-%b-" % root.trace_id.hex().encode() in answer
    found = attributes(root)
    assert (root.name, found["http.response.status_code"], found["tidemill.deployment"]) == ("POST /predict/{name}", 200, "late")
    assert (found["server.address"], found["server.port"], root.parent_span_id) == ("127.0.0.1", 8642, b"")
    assert [span.name for span in parts] == ["features", "rung", "log append"]


def test_rungs_that_fail_and_deadlines_are_told(served: Served, collector: Collector) -> None:
    break_version(served, served.endpoint.standing.champion)
    with watched(collector), stuck(served, "previous"):
        client = TestClient(attended(served.client.app, 60))
        assert client.post("/predict/late", json=ROW, headers={"grpc-timeout": "200m"}).json()["predictions"][0]["rung"] == "constant"
    _, parts = family(collector.spans)
    failed, late, constant = [span for span in parts if span.name == "rung"]
    assert (failed.status.code, late.status.code, constant.status.code) == (ERROR, ERROR, 0)
    assert attributes(failed)["error.type"] == "MemoryError"
    assert attributes(failed.events[0])["exception.message"] == "no room for this"
    assert (attributes(late)["error.type"], attributes(late)["tidemill.rung"]) == ("deadline", "previous version")
    assert attributes(constant)["tidemill.rung"] == "constant"


def test_statuses_and_bugs(served: Served, collector: Collector) -> None:
    client = TestClient(attended(served.client.app, 60))
    with watched(collector):
        client.post("/predict/none", json=ROW)
        served.endpoint._features = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        client.post("/predict/late", json=ROW)
    wrong, bug = [span for span in collector.spans if span.kind == SERVER]
    assert (attributes(wrong)["http.response.status_code"], wrong.status.code) == (404, 0), "the client's fault is no error of the server"
    assert (attributes(bug)["http.response.status_code"], bug.status.code, attributes(bug)["error.type"]) == (500, ERROR, "500")
    assert attributes(bug.events[0])["exception.type"] == "ZeroDivisionError"


def test_the_inference_protocol_over_http_and_grpc(served: Served, collector: Collector) -> None:
    version = served.endpoint.standing.champion[0]
    with watched(collector):
        client = TestClient(attended(served.client.app, 60))
        assert client.post(INFER, json=tensors(served)).status_code == 200
        server = Remote(Procedures(served.gateway.inference), "127.0.0.1", 0, lambda: None, Calls(Counters()), 9)
        with closing(Client(server.address)) as remote:
            infer = remote.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            width = len(served.endpoint.given.signature.features)
            ask = asks("late", typed("features", "FP64", [1, width], "fp64", [0.0] * width))
            infer(ask.SerializeToString(), metadata=[*TRACEPARENT.items()], timeout=20)
            with pytest.raises(Exception, match="no deployment"):
                infer(asks("none").SerializeToString(), timeout=20)
        server.end()
    http, rpc, unknown = [span for span in collector.spans if span.kind == SERVER]
    assert (http.name, attributes(http)["tidemill.version"]) == ("POST /v2/models/{name}/infer", version)
    assert (rpc.name, rpc.trace_id.hex(), rpc.parent_span_id.hex()) == ("inference.GRPCInferenceService/ModelInfer", TRACE, PARENT)
    assert (
        attributes(rpc).items()
        >= {
            "rpc.system": "grpc",
            "rpc.service": "inference.GRPCInferenceService",
            "rpc.method": "ModelInfer",
            "rpc.grpc.status_code": 0,
            "tidemill.deployment": "late",
            "tidemill.rung": "champion",
        }.items()
    )
    assert (attributes(unknown)["rpc.grpc.status_code"], unknown.status.code) == (5, 0)
    parts = [span.name for span in collector.spans if span.trace_id == rpc.trace_id and span is not rpc]
    assert parts == ["rung", "log append"]


def test_what_is_not_sampled_is_not_watched(served: Served, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with watched(collector):
        client = TestClient(attended(served.client.app, 60))
        assert "traceresponse" not in client.post("/predict/late", json=ROW).headers
        assert client.post("/predict/late", json=ROW, headers=TRACEPARENT).status_code == 200
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}, "only what a caller has chosen"


def test_without_a_collector_nothing_is_loaded_or_done(tmp_path: Path) -> None:
    with traced("", "parcels", "0.1"):
        assert tracer() is None
    assert Caller({}).watch is None
    with pytest.raises(DefinitionError, match="no address"), traced("localhost", "parcels", "0.1"):
        pass


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"])
def test_the_environment_can_say_no(collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv(*variable.split("="))
    with traced("", "parcels", "0.1"):
        assert tracer() is None


def test_a_server_sends_what_waits_at_its_end(tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "adder")
    with started("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--json") as (process, said):
        host, _, port = said["url"].removeprefix("http://").partition(":")
        line = Line((host, int(port)))
        for _ in range(3):
            assert line.send(request(**TRACEPARENT)).answer()[1]["traceresponse"].startswith(f"00-{TRACE}-")
        process.terminate()
        process.wait(30)
    assert [span.name for span in collector.spans] == ["POST /v2/models/{name}/infer"] * 3
    assert collector.resource["service.name"] == "adder"


def test_a_collector_that_is_away_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds that it tries to send what waits at the end
    with started("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--json") as (process, said):
        host, _, port = said["url"].removeprefix("http://").partition(":")
        assert Line((host, int(port))).send(request()).answer()[0] == 200
        process.terminate()
        assert process.wait(30) == 0
