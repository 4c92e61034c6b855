"""`tidemill serve` as a process: HTTP as clients speak it, and what they may not."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import Command
from cli.conftest import forks as forks
from cli.conftest import tidemill as tidemill
from conformance.oip.server import Server
from processes import served
from serving.test_gateway import LAST_DAYS, Replayed, batch_of
from serving.test_oip import sums, tensor
from tidemill import registry
from tidemill.serving import Counters, Headers, Reply
from tidemill.session import Session
from tidemill.web.direct import led
from tidemill.web.metrics import Traffic
from tidemill.web.turn import Turn

BODY = json.dumps({"inputs": [tensor("a", "FP32", [1, 2], [10, 20]), tensor("b", "FP32", [1, 2], [1, 2])]}).encode()
PATH = "/v2/models/sums/infer"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    file = tmp_path_factory.mktemp("bare") / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (_, url):
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


class Line:
    """One connection: what is sent, and the answers as they come."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> "Line":
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers, and the JSON."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = self.file.read(int(headers.get("content-length", 0)))
        return status, headers, json.loads(body) if body else None

    def answer_line(self) -> bytes:
        """The first line of an answer."""
        return self.file.readline()

    @property
    def closed(self) -> bool:
        return self.file.read(1) == b""


def request(body: bytes = BODY, path: str = PATH, method: str = "POST", version: str = "1.1", length: bool = True, **more: str) -> bytes:
    headers = {"host": "127.0.0.1:1", **({"content-length": str(len(body))} if length else {})}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode() + body


def difference(answer: tuple[int, Any, Any]) -> Any:
    status, _, found = answer
    assert status == 200, found
    return found["outputs"][1]["data"]


def test_one_connection_asks_many_times_and_at_once(address: tuple[str, int]) -> None:
    line = Line(address)
    for _ in range(3):
        assert difference(line.send(request()).answer()) == [9.0, 18.0]
    line.send(request() + request(b"", "/v2/models/sums", "GET") + request() + request(b"{}") + request())
    assert difference(line.answer()) == [9.0, 18.0]
    assert line.answer()[2]["name"] == "sums"
    assert difference(line.answer()) == [9.0, 18.0]
    assert line.answer()[0] == 400
    assert difference(line.answer()) == [9.0, 18.0]


def test_bodies_come_in_pieces_and_in_chunks(address: tuple[str, int]) -> None:
    line = Line(address)
    whole = request()
    for i in range(0, len(whole), 40):
        line.send(whole[i : i + 40])
    assert difference(line.answer()) == [9.0, 18.0]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:50], BODY[50:])) + b"0\r\n\r\n"
    assert difference(line.send(request(chunks, length=False, transfer_encoding="chunked")).answer()) == [9.0, 18.0]
    head, body = request(expect="100-continue").split(b"\r\n\r\n")
    line.send(head + b"\r\n\r\n")
    assert (line.answer()[0], difference(line.send(body).answer())) == (100, [9.0, 18.0])


def test_a_connection_ends_when_the_client_wants_it_to(address: tuple[str, int]) -> None:
    for sent in (request(connection="close"), request(version="1.0")):
        line = Line(address).send(sent)
        assert difference(line.answer()) == [9.0, 18.0]
        assert line.closed


def test_requests_of_other_sites_and_of_no_size_are_refused(address: tuple[str, int]) -> None:
    line = Line(address)
    status, _, told = line.send(request(host="evil.example")).answer()
    assert (status, "not as 'evil.example' (the header Host)" in told["error"], "proxy_set_header" in told["error"]) == (403, True, True)
    assert line.send(request(origin="http://evil.example")).answer()[0] == 403
    assert line.send(request(host="localhost:9")).answer()[0] == 200
    assert Line(address).send(request().replace(b"host: 127.0.0.1:1\r\n", b"")).answer()[0] == 400
    assert line.send(request(origin="http://127.0.0.1:1")).answer()[0] == 200
    assert line.send(request(b"", "/v2", "GET", host="evil.example")).answer()[0] == 403
    line = Line(address).send(request(b"", content_length=str(1 << 40)))
    line.send(b" " * (65 << 20))
    assert "larger than" in line.answer()[2]["error"]


def test_errors_have_one_form(address: tuple[str, int]) -> None:
    line = Line(address)
    for sent, status in (
        (request(b"x"), 400),
        (request(path="/v2/models/none/infer"), 404),
        (request(path="/v2/models/%FF/infer"), 404),
        (request(b"", method="DELETE"), 405),
        (request(b"", "/", "GET"), 404),
    ):
        found = line.send(sent).answer()
        assert (found[0], list(found[2])[:1]) == (status, ["error"])


def test_what_is_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    with served("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--json") as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        line, other = Line((host, int(port))), Line((host, int(port)))
        line.send(request(b"", length=False, transfer_encoding="chunked") + b"%x\r\n%b\r\n" % (len(BODY), BODY))
        assert difference(other.send(request()).answer()) == [9.0, 18.0]
        process.send_signal(signal.SIGTERM)
        assert other.closed
        assert difference(line.send(b"0\r\n\r\n").answer()) == [9.0, 18.0]
        assert line.closed
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_command_says_what_is_wrong_with_a_file(tidemill: Command, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    (tmp_path / "trees.joblib").write_bytes(b"cposix\nsystem\n")
    (tmp_path / "stats.onnx").write_bytes(sums())
    for words, what in (
        (["none.onnx"], "there is no file"),
        (["no.onnx"], "the model cannot be loaded"),
        (["."], "directory"),
        (["trees.joblib"], "tm.convert(model, rows"),
        (["stats.onnx"], "no address leads to a model that is called 'stats'"),
        (["stats.onnx", "--name", "a/b"], "no address leads to a model that is called 'a/b'"),
    ):
        found = tidemill("serve", str(tmp_path / words[0]), *words[1:])
        assert found.returncode != 0
        assert what in found.stderr.lower()
        assert "Traceback" not in found.stderr


def test_a_name_may_be_any_text_and_its_address_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "né ü.onnx").write_bytes(sums())
    with served("serve", str(tmp_path / "né ü.onnx"), "--port", "0", "--json") as (_, url):
        server = Server(url, "n%C3%A9%20%C3%BC")
        assert server.metadata["name"] == "né ü"
        assert server.infer().json["model_name"] == "né ü"


def test_little_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    code = """
import sys
from pathlib import Path
import tidemill.web.bare as bare
bare.run_server = lambda *rest: print(*sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[2:])))
from tidemill.cli.bare import serve_model
serve_model(".", sys.argv[1], "", "127.0.0.1", 0, as_json=True)
"""
    heavy = ["sklearn", "pandas", "duckdb", "sqlalchemy", "starlette", "onnx", "lmdb"]
    call = [sys.executable, "-c", code, str(tmp_path / "sums.onnx"), *heavy]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.split() == []


def test_a_registered_version_is_served_with_the_bits_of_its_model(copied: Path, replayed: Replayed) -> None:
    with Session(copied).ledger.records.snapshot() as sql:
        (name,) = registry.looped(sql)
    version = registry.named_version(Session(copied).ledger, f"{name}@champion")
    for text, more in ((f"{name}@champion", ()), (f"models:/{name}/{version.version}", ("--name", "parcels"))):
        with served("-C", str(copied), "serve", text, "--port", "0", "--json", *more) as (_, url):
            server = Server(url, more[1] if more else name)
            assert server.metadata["versions"] == [version.version]
            (features,) = server.metadata["inputs"]
            assert (features["name"], features["datatype"], features["shape"]) == ("features", "FP64", [-1, 8])
            assert [one["shape"] for one in server.metadata["outputs"]] == [[-1, 1]]
            rows = matrix_of(replayed, *LAST_DAYS)
            sent = tensor("features", "FP64", [len(rows), 8], rows)
            assert server.ask("POST", f"/v2/repository/models/{server.model}/load").status == 200
            found = server.infer(lambda body, sent=sent: {"inputs": [sent]}).json
            assert found["outputs"][0]["data"] == [one[2] for one in batch_of(replayed, *LAST_DAYS)]


def matrix_of(replayed: Replayed, start: str, end: str) -> list[list[float | None]]:
    """The features of the requests of some days, in the order of the model."""
    toy, _ = replayed
    examples = toy.built.examples
    rows = np.flatnonzero((examples.at >= toy.at(start)) & (examples.at < toy.at(end)))
    return [[None if value != value else value for value in row] for row in examples.matrix.values[rows].tolist()]


def test_a_version_that_there_is_not_is_told_with_what_there_is(tidemill: Command, copied: Path, tmp_path: Path) -> None:
    for text, what in (("trees@nobody", "has no alias 'nobody'"), ("nobody/3", "nobody"), ("models:/trees/987", "987")):
        found = tidemill("-C", str(copied), "serve", text)
        assert found.returncode != 0
        assert what in found.stderr
        assert "Traceback" not in found.stderr


def test_what_escapes_is_told_as_the_servers_fault_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(headers: Headers, body: bytes, alone: bool) -> Reply:
        raise ZeroDivisionError("a bug")

    turn, answers = Turn(lambda end: None), list[bytes]()
    quick = led(lambda method, address, size: broken, Traffic(Counters()), turn)
    call = quick(b"POST", b"/x", {b"content-length": b"2", b"host": b"localhost"})
    assert call is not None
    assert call({}, b"{}", answers.append)
    turn.settle()
    (answer,) = answers
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert "ZeroDivisionError: a bug" in caplog.text
