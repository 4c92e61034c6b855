"""The inference protocol over gRPC, asked by plain grpcio: every datatype both ways, what is refused and with which status, streams,
deadlines, and the end of the server."""

import json
import shutil
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes import started
from serving.conftest import Served as Deployment
from serving.test_bare import BODY, Line, difference, request
from serving.test_deployed import Case, columns
from serving.test_deployed import cases as cases
from serving.test_oip import SOME, echo, packed, sums
from tidemill import __version__
from tidemill.core import Array, Busy, DataError, MissingExtra, Refused, TidemillError
from tidemill.models import DATATYPES, OnnxModel
from tidemill.serving import Counters, Inference, InferenceLog, Procedures, Repository, Served, appending
from tidemill.serving.messages import MESSAGES
from tidemill.web import rpc
from tidemill.web.metrics import Calls
from tidemill.web.rpc import Remote, remote

SERVICE = "/inference.GRPCInferenceService/"
CONTENTS = {"BOOL": "bool", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes", "INT64": "int64", "UINT64": "uint64"}


def loaded(**models: bytes) -> Repository:
    made = [Served(name, "1", lambda data=data: OnnxModel(data), lambda: 7_000) for name, data in models.items()]  # type: ignore[misc]
    for one in made:
        one.model = one.load()
    return Repository(made)


class Client:
    """A channel to a server; methods by name."""

    def __init__(self, address: str, **how: Any) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, **how)

    def call(self, method: str, body: Any = b"", timeout: float | None = 20, **how: Any) -> Any:
        """The answer to a message, or to bytes as they are."""
        sent = body if isinstance(body, bytes) else body.SerializeToString()
        path = method if "/" in method else SERVICE + method
        name = path.rpartition("/")[2].replace("Check", "HealthCheck") + "Response"
        return MESSAGES[name].FromString(self.channel.unary_unary(path)(sent, timeout=timeout, **how))

    def refused(self, method: str, body: Any = b"", **how: Any) -> tuple[str, str]:
        """The status that tells what is wrong, and its words."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, body, **how)
        return caught.value.code().name, caught.value.details()

    def stream(self, bodies: Iterator[bytes]) -> Any:
        """Answers as they come."""
        return self.channel.stream_stream(
            SERVICE + "ModelStreamInfer", response_deserializer=MESSAGES["ModelStreamInferResponse"].FromString
        )(bodies, timeout=20)

    def watch(self, service: str = "") -> Any:
        sent = MESSAGES["HealthCheckRequest"](service=service).SerializeToString()
        read = MESSAGES["HealthCheckResponse"].FromString
        return self.channel.unary_stream("/grpc.health.v1.Health/Watch", response_deserializer=read)(sent, timeout=20)

    def close(self) -> None:
        self.channel.close()


@contextmanager
def serving(models: Repository, **how: Any) -> Iterator[Client]:
    with remote(Inference(models, __version__), "127.0.0.1", 0) as (address, _), closing(Client(address, **how)) as client:
        yield client


@pytest.fixture(scope="module")
def models() -> Repository:
    return loaded(sums=sums(), double=echo("FP64"), **{name.lower(): echo(name) for name in DATATYPES})


@pytest.fixture(scope="module")
def client(models: Repository) -> Iterator[Client]:
    with serving(models) as one:
        yield one


def asks(model: str, *tensors: dict[str, Any], raw: list[bytes] | None = None, **more: Any) -> Any:
    return MESSAGES["ModelInferRequest"](model_name=model, inputs=[*tensors], raw_input_contents=raw or [], **more)


def tensor(name: str, datatype: str, shape: list[int], field: str = "", values: Any = None) -> dict[str, Any]:
    """A tensor; its values typed, where there are some."""
    plain: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if values is None:
        return plain
    if field.startswith("fp"):
        values = [np.array(values, dtype=DATATYPES[datatype]).tobytes()]
    return plain | {"contents": {f"{field}_contents": values}}


def field_of(datatype: str) -> str:
    return CONTENTS.get(datatype, "uint" if datatype.startswith("U") else "int")


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("raw", [False, True])
def test_every_datatype_comes_and_goes(client: Client, datatype: str, raw: bool) -> None:
    data = SOME[datatype]
    if raw:
        asked = asks(datatype.lower(), tensor("x", datatype, [2, 3]), raw=[packed(datatype, data)], id="7")
    elif datatype == "FP16":
        code, words = client.refused("ModelInfer", asks("fp16", tensor("x", "FP16", [2, 3], "fp32", data)))
        assert (code, "FP16 has no typed contents" in words, "inputs[0].contents" in words) == ("INVALID_ARGUMENT", True, True)
        return
    else:
        values = [text.encode() for text in data] if datatype == "BYTES" else data
        asked = asks(datatype.lower(), tensor("x", datatype, [2, 3], field_of(datatype), values), id="7")
    answer = client.call("ModelInfer", asked)
    (output,) = answer.outputs
    assert (answer.model_name, answer.model_version, answer.id) == (datatype.lower(), "1", "7")
    assert (output.name, output.datatype, [*output.shape]) == ("y", datatype, [2, 3])
    if raw:
        assert [*answer.raw_output_contents] == [packed(datatype, data)]
        return
    assert not answer.raw_output_contents
    ((field, values),) = output.contents.ListFields()
    assert field.name == f"{field_of(datatype)}_contents"
    if datatype == "BYTES":
        assert [text.decode() for text in values] == data
    elif datatype.startswith("FP"):
        assert b"".join(values) == packed(datatype, data)
    else:
        assert [*values] == data


def test_floats_may_come_one_by_one(client: Client) -> None:
    """As the format allows: whoever writes them need not pack them."""
    tag = bytes([6 << 3 | 5])
    contents = b"".join(tag + np.float32(value).tobytes() for value in (1.5, -2))
    head = MESSAGES["InferInputTensor"](name="x", datatype="FP32", shape=[1, 2]).SerializeToString()
    one = head + bytes([5 << 3 | 2, len(contents)]) + contents
    answer = client.call("ModelInfer", asks("fp32").SerializeToString() + bytes([5 << 3 | 2, len(one)]) + one)
    assert b"".join(answer.outputs[0].contents.fp32_contents) == np.array([1.5, -2], dtype="<f4").tobytes()


def test_brain_floats_come_raw(client: Client) -> None:
    raw = (np.array([1.5, -2.0], dtype=np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    answer = client.call("ModelInfer", asks("fp32", tensor("x", "BF16", [1, 2]), raw=[raw]))
    assert [*answer.raw_output_contents] == [np.array([1.5, -2.0], dtype="<f4").tobytes()]


def test_several_inputs_the_outputs_that_are_wanted_and_versions(client: Client) -> None:
    inputs = [tensor("b", "FP32", [1, 2], "fp32", [1, 2]), tensor("A", "FP64", [1, 2], "fp64", [10, 20])]
    answer = client.call("ModelInfer", asks("sums", *inputs, outputs=[{"name": "difference"}], model_version="1"))
    assert [(one.name, one.contents.fp32_contents[0]) for one in answer.outputs] == [("difference", np.array([9, 18], "<f4").tobytes())]
    answer = client.call("ModelInfer", asks("sums", *inputs))
    assert [one.name for one in answer.outputs] == ["sum", "difference"]


def test_tensors_without_values(client: Client) -> None:
    for datatype in ("FP64", "BYTES", "INT8"):
        for raw in ([], [b""]):
            sent = tensor("x", datatype, [0, 3]) | {"contents": {}}  # as MLServer's stub has them beside raw ones
            answer = client.call("ModelInfer", asks(datatype.lower(), sent, raw=raw))
            assert [*answer.outputs[0].shape] == [0, 3]
            assert [*answer.raw_output_contents] == raw


TYPED = tensor("x", "FP64", [1, 2], "fp64", [1, 2])
RAW = tensor("x", "FP64", [1, 2])


@pytest.mark.parametrize(
    ("asked", "code", "what"),
    [
        (asks("fp64"), "INVALID_ARGUMENT", "the input 'x' is missing"),
        (asks("fp64", TYPED, TYPED), "INVALID_ARGUMENT", "comes twice"),
        (asks("fp64", TYPED, outputs=[{"name": "z"}]), "INVALID_ARGUMENT", "the model has no output 'z'"),
        (asks("fp64", {**TYPED, "shape": [1, 3]}), "INVALID_ARGUMENT", "2 values came for the shape [1, 3]"),
        (asks("fp64", {**TYPED, "shape": [2]}), "INVALID_ARGUMENT", "has the shape [2]"),
        (asks("fp64", {**TYPED, "shape": [-1, 2]}), "INVALID_ARGUMENT", "[-1, 2] is no shape"),
        (asks("fp64", {**RAW, "shape": [0, 2**62, 2**62]}), "INVALID_ARGUMENT", "is no shape"),
        (asks("fp64", {**TYPED, "datatype": "FP65"}), "INVALID_ARGUMENT", "the datatype 'FP65' is not known"),
        (asks("fp64", {**TYPED, "datatype": "FP32"}), "INVALID_ARGUMENT", "FP32 came in fp64_contents"),
        (asks("uint8", tensor("x", "UINT8", [1, 2], "uint", [1, 300])), "INVALID_ARGUMENT", "are not UINT8"),
        (asks("bytes", tensor("x", "BYTES", [1, 1], "bytes", [b"\xff"])), "INVALID_ARGUMENT", "are not BYTES"),
        (asks("bytes", tensor("x", "BYTES", [2**50]), raw=[b""]), "INVALID_ARGUMENT", "are more than its 0 bytes"),
        (asks("fp64", RAW), "INVALID_ARGUMENT", "0 values came for the shape [1, 2]"),
        (asks("fp64", RAW, raw=[bytes(15)]), "INVALID_ARGUMENT", "2 values of FP64 are 16 bytes, not 15"),
        (asks("fp64", RAW, raw=[bytes(16)] * 2), "INVALID_ARGUMENT", "2 raw contents came for 1 inputs"),
        (asks("fp64", TYPED, raw=[bytes(16)]), "INVALID_ARGUMENT", "it has contents, and there are raw ones"),
        (asks("none", TYPED), "NOT_FOUND", "there is no model 'none'"),
        (asks("fp64", TYPED, model_version="2"), "NOT_FOUND", "has no version '2'"),
        (asks("fp64", TYPED, id="x" * 9_000, model_version="ß" * 9_000), "NOT_FOUND", "has no version"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: Client, asked: Any, code: str, what: str) -> None:
    found = client.refused("ModelInfer", asked)
    assert (found[0], what in found[1]) == (code, True), found


@given(body=st.binary(max_size=200), method=st.sampled_from(["ModelInfer", "ModelStatistics", "RepositoryModelLoad", "ModelMetadata"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_answered_or_refused(body: bytes, method: str) -> None:
    """Bytes of any kind, and the beginning of a right request behind which they stand."""
    for sent in (body, RIGHT + body, RIGHT[: len(body)] + body):
        with suppress(TidemillError):  # a client is told
            PROCEDURES.methods[SERVICE + method](sent)
        assert MESSAGES["ModelStreamInferResponse"].FromString(PROCEDURES.stream(sent)).HasField("infer_response")


RIGHT = asks("sums", *[tensor(name, "FP32", [1, 2], "fp32", [1, 2]) for name in "ab"]).SerializeToString()
PROCEDURES = Procedures(Inference(loaded(sums=sums()), __version__))


def test_a_message_of_nothing_but_parts_is_refused_before_they_are_made() -> None:
    for part in (b"\x22\0", b"\x2a\0", b"\x32\0"):
        with pytest.raises(DataError, match="a request of 600000 inputs, outputs and parameters"):
            PROCEDURES.methods[SERVICE + "ModelInfer"](part * 600_000)


def test_bytes_that_are_no_message_and_methods_that_there_are_not(client: Client) -> None:
    assert client.refused("ModelInfer", b"\xff" * 9)[0] == "INVALID_ARGUMENT"
    with pytest.raises(grpc.RpcError) as caught:
        client.channel.unary_unary(SERVICE + "TraceSetting")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_packed_messages_too_large_ones_and_bombs(models: Repository) -> None:
    with serving(models, options=[("grpc.max_send_message_length", -1)]) as client:
        for how in grpc.Compression:
            client.call("ModelInfer", asks("fp64", TYPED), compression=how, timeout=None)
        for how in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            assert client.refused("ModelInfer", bytes((64 << 20) + 1), compression=how)[0] == "RESOURCE_EXHAUSTED"


def test_the_server_and_its_models_describe_themselves(client: Client) -> None:
    assert client.call("ServerLive").live
    assert client.call("ServerReady").ready
    server = client.call("ServerMetadata")
    assert (server.name, server.version, "statistics" in server.extensions) == ("tidemill", __version__, True)
    named = {"name": "sums", "version": "1"}
    assert client.call("ModelReady", MESSAGES["ModelReadyRequest"](**named)).ready
    model = client.call("ModelMetadata", MESSAGES["ModelMetadataRequest"](**named))
    assert (model.name, [*model.versions], model.platform) == ("sums", ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, [*one.shape]) for one in model.inputs] == [(name, "FP32", [-1, 2]) for name in "ab"]
    assert [one.name for one in model.outputs] == ["sum", "difference"]
    for method in ("ModelReady", "ModelMetadata", "ModelStatistics"):
        for wrong in ({"name": "none"}, {"name": "sums", "version": "2"}):
            assert client.refused(method, MESSAGES[f"{method}Request"](**wrong))[0] == "NOT_FOUND"


def named(kind: str, name: str, **more: Any) -> Any:
    return MESSAGES[f"RepositoryModel{kind}Request"](model_name=name, **more)


def test_models_are_listed_unloaded_and_loaded_and_their_health_told() -> None:
    with serving(loaded(one=echo("FP64"), two=echo("INT8"))) as client:
        index = MESSAGES["RepositoryIndexRequest"]
        health = "/grpc.health.v1.Health/Check"
        watched, unknown = client.watch(), client.watch("none")
        assert (next(watched).status, next(unknown).status, client.call(health).status) == (1, 3, 1)
        client.call("RepositoryModelUnload", named("Unload", "one"))
        assert next(watched).status == 2
        assert client.call(health, MESSAGES["HealthCheckRequest"](service="inference.GRPCInferenceService")).status == 2
        assert client.refused(health, MESSAGES["HealthCheckRequest"](service="none"))[0] == "NOT_FOUND"
        assert [(one.name, one.version, one.state) for one in client.call("RepositoryIndex", index()).models] == [
            ("one", "1", "UNAVAILABLE"),
            ("two", "1", "READY"),
        ]
        assert [one.name for one in client.call("RepositoryIndex", index(ready=True)).models] == ["two"]
        assert not client.call("ModelReady", MESSAGES["ModelReadyRequest"](name="one")).ready
        assert not client.call("ServerReady").ready
        code, words = client.refused("ModelInfer", asks("one", TYPED))
        assert (code, "unloaded" in words) == ("UNAVAILABLE", True)
        as_kserve = MESSAGES["RepositoryModelLoadRequest"](repository_name="one")  # its first field
        answer = client.call("RepositoryModelLoad", as_kserve)
        assert (answer.model_name, answer.isLoaded) == ("one", True)
        client.call("ModelInfer", asks("one", TYPED))
        assert client.refused("RepositoryModelLoad", named("Load", "none"))[0] == "NOT_FOUND"
        config = [{"key": "config", "value": {"string_param": "{}"}}]
        assert client.refused("RepositoryModelLoad", named("Load", "one", parameters=config))[0] == "INVALID_ARGUMENT"
        watched.cancel()


def test_counts_are_those_of_http() -> None:
    models = loaded(one=echo("FP64"))
    http = Inference(models, __version__)
    with serving(models) as client:
        for _ in range(3):
            client.call("ModelInfer", asks("one", tensor("x", "FP64", [2, 1], "fp64", [1, 2])))
        client.refused("ModelInfer", asks("one"))
        (found,) = client.call("ModelStatistics").model_stats
        assert (found.inference_count, found.execution_count, found.last_inference) == (6, 3, 7)
        assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (3, 1)
        assert found.inference_stats.success.ns >= found.inference_stats.compute_infer.ns > 0
        reply = http.call("GET", "/v2/models/one/stats")({}, b"")
        assert reply is not None
        assert b'"inference_count":6,"execution_count":3' in reply.body


def test_the_log_names_a_request_as_its_message_or_its_metadata_does(tmp_path: Path) -> None:
    models = loaded(one=echo("FP64"))
    models.find("one").log = InferenceLog(tmp_path, "one")
    with serving(models) as client:
        for more in ({}, {"id": "mine"}):
            client.call("ModelInfer", asks("one", tensor("x", "FP64", [1, 1], "fp64", [1]), **more), metadata=[("x-request-id", "gate-7")])
    assert [json.loads(line)["request"] for line in (tmp_path / "one.jsonl").open()] == ["gate-7", "mine"]


def test_who_cannot_write_its_log_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "LOOK_AGAIN", 0.0)
    models, folder = loaded(one=echo("FP64")), tmp_path / "log"
    models.find("one").log = InferenceLog(folder, "one")

    def ready() -> list[Any]:
        named = MESSAGES["ModelReadyRequest"](name="one")
        return [
            client.call("ServerReady").ready,
            client.call("ModelReady", named).ready,
            client.call("/grpc.health.v1.Health/Check").status,
        ]

    with serving(models) as client:
        assert ready() == [True, True, 1]
        shutil.rmtree(folder)
        folder.write_text("a file")
        for _ in range(2):
            code, words = client.refused("ModelInfer", asks("one", TYPED))
            assert (code, "cannot write the log of requests" in words) == ("UNAVAILABLE", True)
            assert ready() == [False, False, 2]
        (state,) = client.call("RepositoryIndex").models
        assert (state.state, state.reason) == ("UNAVAILABLE", "its log cannot be written")
        assert client.call("ModelMetadata", MESSAGES["ModelMetadataRequest"](name="one")).name == "one"
        folder.unlink()
        assert ready() == [True, True, 1]
        assert (folder / "one.jsonl").read_bytes() == b""


def test_a_stream_answers_each_message_and_goes_on_after_a_wrong_one(client: Client) -> None:
    def bodies() -> Iterator[bytes]:
        for number in ("1", "2", "3"):
            model = "none" if number == "2" else "fp64"
            yield asks(model, TYPED, id=number).SerializeToString()
        yield b"\xff"

    one, two, three, four = client.stream(bodies())
    assert [one.infer_response.id, three.infer_response.id] == ["1", "3"]
    assert three.infer_response.outputs[0].contents.fp64_contents[0] == np.array([1, 2], "<f8").tobytes()
    assert (two.infer_response.id, "there is no model" in two.error_message, one.error_message) == ("2", True, "")
    assert "are no ModelInferRequest" in four.error_message


def test_more_streams_than_there_may_be_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "STREAMS", 2)
    with serving(loaded(one=echo("FP64"))) as client:
        streams = [client.watch() for _ in range(2)]
        assert [next(one).status for one in streams] == [1, 1]
        with pytest.raises(grpc.RpcError) as caught:
            next(client.watch())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.call("ServerLive").live
        for one in streams:
            one.cancel()


class Slow(OnnxModel):
    """A model that goes on when it is let."""

    def __init__(self) -> None:
        super().__init__(echo("FP64"))
        self.began, self.may, self.runs = Event(), Event(), 0

    def run(self, tensors: Any, wanted: Any = ()) -> dict[str, Array]:
        self.runs += 1
        self.began.set()
        assert self.may.wait(20)
        return super().run(tensors, wanted)


@contextmanager
def slow(workers: int, most: int = 99, seconds: float = 60) -> Iterator[tuple[Slow, Remote, Client, Callable[..., Any]]]:
    """A slow model, its server, who asks it, and what asks it without waiting."""
    model = Slow()
    procedures = Procedures(Inference(Repository([Served("slow", "1", Slow, lambda: 0, model)]), __version__))
    server = Remote(procedures, "127.0.0.1", 0, lambda: None, Calls(Counters()), most, workers, seconds)
    with closing(Client(server.address)) as client:
        ask, body = client.channel.unary_unary(SERVICE + "ModelInfer").future, asks("slow", TYPED).SerializeToString()
        try:
            yield model, server, client, lambda timeout=20.0: ask(body, timeout=timeout)
        finally:
            model.may.set()
            server.end()


def test_nothing_is_done_for_who_no_longer_waits() -> None:
    with slow(workers=1) as (model, _, client, ask):
        first = ask()
        assert model.began.wait(20)
        late, given_up = ask(timeout=0.05), ask()
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        given_up.cancel()
        assert next(client.watch()).status == 1  # the server heard of it before it heard this
        model.may.set()
        assert first.result()
        assert ask().result()
        assert model.runs == 2


def test_the_most_that_an_answer_may_take_holds_here_too() -> None:
    with slow(workers=1, seconds=0) as (model, _, client, ask):
        failed = ask().exception()
        assert (failed.code(), "not there in time" in failed.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
        assert (model.runs, client.refused("ServerLive")[0]) == (0, "DEADLINE_EXCEEDED")


def test_more_than_may_be_under_way_are_turned_away() -> None:
    with slow(workers=1, most=2) as (model, _, client, ask):
        first, second = ask(), ask()
        assert model.began.wait(20)
        assert client.refused("ServerLive")[0] == "RESOURCE_EXHAUSTED"
        model.may.set()
        assert first.result()
        assert second.result()


def test_what_is_under_way_is_answered_before_the_end_and_streams_are_closed() -> None:
    with slow(workers=2) as (model, server, client, ask):
        sent = SimpleQueue[bytes]()
        watched, streamed = client.watch(), client.stream(iter(sent.get, b""))
        sent.put(asks("none").SerializeToString())
        assert (next(watched).status, "no model" in next(streamed).error_message) == (1, True)
        under_way = ask()
        assert model.began.wait(20)
        ending = Thread(target=server.end)
        ending.start()
        assert [one.status for one in watched] == [2]
        with pytest.raises(grpc.RpcError):
            next(streamed)
        assert client.refused("ServerLive")[0] == "UNAVAILABLE"
        model.may.set()
        assert under_way.result()
        ending.join()
        sent.put(b"")


def test_the_command_serves_both_and_ends_both(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    with started("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--grpc-port", "0", "--json") as (process, said):
        host, _, port = said["url"].removeprefix("http://").partition(":")
        line, inputs = Line((host, int(port))), [tensor(name, "FP32", [1, 2], "fp32", [1, 2]) for name in "ab"]
        assert difference(line.send(request()).answer()) == [9.0, 18.0]
        line.send(request(b"", length=False, transfer_encoding="chunked") + b"%x\r\n%b\r\n" % (len(BODY), BODY))
        with closing(Client(said["grpc"])) as client:
            assert client.call("ModelInfer", asks("sums", *inputs)).outputs[0].name == "sum"
            assert client.call("ModelStatistics").model_stats[0].execution_count == 2
            assert client.refused("ModelInfer", asks("none"))[0] == "NOT_FOUND"
            with urllib.request.urlopen(f"{said['url']}/metrics", timeout=20) as answer:
                metrics = answer.read().decode()
            assert 'tidemill_grpc_requests_total{method="ModelInfer",status="OK"} 1.0' in metrics
            assert 'tidemill_grpc_requests_total{method="ModelInfer",status="NOT_FOUND"} 1.0' in metrics
            assert 'tidemill_grpc_request_seconds_count{method="ModelInfer"} 2.0' in metrics
            watched = client.watch()
            assert next(watched).status == 1
            process.send_signal(signal.SIGTERM)
            assert [one.status for one in watched] == [2]
        assert difference(line.send(b"0\r\n\r\n").answer()) == [9.0, 18.0]
        assert process.wait(20) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_port_that_is_taken_is_said_and_others_reach_none(client: Client) -> None:
    taken = int(client.address.rpartition(":")[2])
    for host, port, kind, what in (("127.0.0.1", taken, Busy, f"port {taken} is taken"), ("0.0.0.0", 0, Refused, "this machine only")):
        with pytest.raises(kind, match=what), remote(Inference(loaded(), __version__), host, port):
            pass


def test_a_deployment_answers_and_logs_as_over_http(served: Deployment, cases: Case) -> None:
    sent = columns(served, [values for _, values in cases])
    assert served.client.post("/v2/models/late/infer", json={"inputs": sent, "id": "7"}).status_code == 200
    logged = served.logged
    typed = [
        tensor(one["name"], one["datatype"], one["shape"], field_of(one["datatype"]), [as_field(value) for value in one["data"]])
        for one in sent
    ]
    looked = []
    with remote(served.gateway.inference, "127.0.0.1", 0, lambda: looked.append(1)) as (address, _), closing(Client(address)) as client:
        answer = client.call("ModelInfer", asks("late", *typed, id="7"))
        assert np.frombuffer(answer.outputs[0].contents.fp64_contents[0]).tolist() == [probability for probability, _ in cases]
        told = {one.key: one.value.string_param for one in answer.parameters}
        assert (told["rung"], told["version"]) == ("champion", answer.model_version)
        assert served.logged[len(logged)]["id"].startswith(told["prediction_id"])
        own = dict.fromkeys(("id", "latency_us"))
        assert [line | own for line in served.logged[len(logged) :]] == [line | own for line in logged]
        found = client.call("ModelStatistics", MESSAGES["ModelStatisticsRequest"](name="late")).model_stats
        assert [(one.execution_count, one.inference_count) for one in found if one.execution_count] == [(2, 2 * len(cases))]
        assert client.refused("RepositoryModelLoad", named("Load", "late"))[0] == "PERMISSION_DENIED"
        assert len(looked) == 3  # for versions that were promoted since


def as_field(value: Any) -> Any:
    """A value of JSON as its field takes it."""
    return value.encode() if isinstance(value, str) else np.nan if value is None else value


def test_up_serves_both(copied: Path) -> None:
    command = ("-C", str(copied), "up", "--port", "0", "--grpc-port", "0", "--json")
    with started(*command) as (process, said), closing(Client(said["grpc"])) as client:
        assert [one.name for one in client.call("RepositoryIndex").models][:1] == ["late"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtra) as caught, remote(Inference(loaded(), __version__), "127.0.0.1", 0):
        pass
    assert "tidemill[grpc]" in caught.value.hint
