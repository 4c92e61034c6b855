"""A hundred and fifty thousand wrong, odd and hostile requests: none is answered by a bug (5xx), the server goes on and does not grow."""

import gzip
import json
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.test_oip import echo
from tidemill.session import Session
from toy import copied as copied
from toy import kept as kept

pytestmark = pytest.mark.torture
REQUESTS = 100_000
# Each costs as much as many others.
PAGES: list[tuple[str, str, Any]] = [("GET", path, None) for path in ("/status.json", "/metrics", "/openapi.json", "/docs")]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 2**64, 10**400, 0.1, -0.0, 1e308, 5e-324, 1e-400, "", "\x00", "\ud800"),
    *(
        "inf",
        "-inf",
        "NaN",
        "p118-003",
        "late",
        "é" * 50,
        "x" * 2_000,
        "\x1f",
        "'; DROP TABLE x; --",
        "../../etc/passwd",
        "2024-04-30T00:00:00Z",
    ),
    *(
        "0000-00-00",
        "9999-12-31T23:59:59Z",
        [],
        {},
        [[]],
        [None] * 20,
        {"": None},
        {"rows": []},
        [1, "a", None, [2]],
        {"a": {"b": {"c": []}}},
    ),
]
WORDS = [
    "predict",
    "features",
    "v2",
    "models",
    "late",
    "infer",
    "versions",
    "1",
    "health",
    "ready",
    "stats",
    "repository",
    "index",
    "load",
    "feedback",
]
WORDS += ["status.json", "report", "metrics", "openapi.json", "docs", "api", "%00", "%ff", "..", "é", "", "~", "x" * 300]
ENCODINGS = ["gzip", "deflate", "identity", "br", "", "gzip, gzip"]


def seeds(features: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Requests that are well: method, path, body."""
    tensor = {"name": "features", "shape": [1, len(features)], "datatype": "FP64", "data": [0.5] * len(features)}
    own = {"parcel": "new", "depot": "N", "courier": None, "grade": "x", "weight": 2.5, "sent": "2024-04-20T05:00:00Z"}
    return [
        ("POST", "/predict/late", {"rows": [{"parcel": "p118-003"}], "at": "2024-04-30T00:00:00Z", "explain": True}),
        ("POST", "/predict/late", {"rows": [own | {"booked": "2024-04-19T05:00:00Z"}, features], "at": ["2024-04-30T00:00:00Z"] * 2}),
        ("POST", "/features", {"views": ["depot_recent", "courier_last"], "rows": [{"depot": "N", "courier": "c1"}]}),
        ("GET", "/features?view=depot_recent&depot=N&depot=S", None),
        ("POST", "/v2/models/late/infer", {"inputs": [tensor], "id": "7", "outputs": [{"name": "probability"}]}),
        ("POST", "/v2/models/late/infer", {"inputs": [tensor | {"data": None, "parameters": {"binary_data_size": 8 * len(features)}}]}),
        ("POST", "/v2/repository/index", {"ready": True}),
        ("POST", "/feedback/late", {"rows": [{"id": "x", "label": 1, "comment": "late"}]}),
        *(("GET", path, None) for path in ("/v2", "/v2/models/late", "/v2/models/late/ready", "/v2/models/late/config")),
    ] * 16 + PAGES


def seeds_of_bare() -> list[tuple[str, str, Any]]:
    """The same for a bare model of texts, and one of numbers."""
    one = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "é"]}
    raw = one | {"data": None, "parameters": {"binary_data_size": 12}}
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    return [
        ("POST", "/v2/models/late/infer", {"inputs": [one], "id": "7", "outputs": outputs}),
        ("POST", "/v2/models/late/versions/1/infer", {"inputs": [one], "parameters": {"binary_data_output": True}}),
        ("POST", "/v2/models/late/infer", {"inputs": [raw]}),
        ("POST", "/v2/repository/models/late/load", {"parameters": {}}),
        ("POST", "/v2/repository/index", {"ready": True}),
        *(
            ("GET", path, None)
            for path in ("/v2", "/v2/models/late", "/v2/models/late/ready", "/v2/models/late/config", "/v2/models/stats")
        ),
    ] * 16 + PAGES[1:]


def bent(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """A value with some of its parts replaced, left out, doubled or wrapped."""
    if depth > 6 or chance.random() < 0.12:
        return chance.choice(ODD)
    if isinstance(value, dict):
        found = {(chance.choice(WORDS) if chance.random() < 0.05 else name): bent(one, chance, depth + 1) for name, one in value.items()}
        for name in [*found]:
            if chance.random() < 0.05:
                del found[name]
        return found
    if isinstance(value, list):
        found_ = [bent(one, chance, depth + 1) for one in value for _ in range(chance.choice([1, 1, 1, 1, 0, 2]))]
        return [found_] if chance.random() < 0.04 else found_
    return value


def requests(chance: random.Random, well: list[tuple[str, str, Any]]) -> Iterator[bytes]:
    """Requests as they go over the wire, each with a length that is true: what else is no request at all."""
    while True:
        method, path, plain = chance.choice(well)
        if chance.random() < 0.15:
            path = "/" + "/".join(chance.choices(WORDS, k=chance.randint(1, 5)))
        if chance.random() < 0.1:
            path += "?" + "&".join(f"{chance.choice(WORDS)}={chance.choice(WORDS)}" for _ in range(chance.randint(1, 4)))
        if chance.random() < 0.05:
            method = chance.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
        body = b"" if plain is None else json.dumps(bent(plain, chance)).encode("utf-8", "surrogatepass")
        if chance.random() < 0.1 and body:
            raw = bytearray(body)
            for _ in range(chance.randint(1, 4)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            body = bytes(raw)
        if chance.random() < 0.01:
            body = b"[" * chance.choice([10, 1_000, 100_000])
        lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
        if chance.random() < 0.1:
            lines.append(f"content-encoding: {chance.choice(ENCODINGS)}")
            body = gzip.compress(body) if chance.random() < 0.5 else body
        if chance.random() < 0.1:
            lines.append(
                f"inference-header-content-length: {chance.choice(['0', '1', str(len(body)), str(len(body) // 2), '-1', 'x', '9' * 30])}"
            )
            body += b"\x00" * chance.choice([0, 8, 64, 8 * 9])
        if chance.random() < 0.02:
            lines.append(f"origin: {chance.choice(['null', 'http://127.0.0.1', 'https://evil.example', ''])}")
        yield "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


class Line:
    """A connection that is opened anew where the server closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(self.address, timeout=60)
        self.file = self.socket.makefile("rb")

    def ask(self, data: bytes) -> int:
        """The status of one request; 0 where the server closed the connection without a word."""
        self.socket.sendall(data)
        head = self.file.readline()
        if not head:
            self.open()
            return 0
        status, length = int(head.split()[1]), 0
        closes = False
        while line := self.file.readline().strip().lower():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
            closes |= name == b"connection" and value.strip() == b"close"
        if not data.startswith(b"HEAD "):
            self.file.read(length)
        if closes:
            self.open()
        return status


@contextmanager
def quietly(log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose log goes to a file: a pipe that nobody reads would stop it when it is full."""
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments, "--port", "0", "--json"]
    with log.open("w") as errors, subprocess.Popen(call, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not said.rstrip().endswith("}"):
                said += process.stdout.readline()
            yield process, json.loads(said)["url"]
        finally:
            process.kill()


def fuzzed(many: int, well: list[tuple[str, str, Any]], good: tuple[str, Any], log: Path, *arguments: str) -> None:
    """Ask a server so many times; then it still answers a `good` request, and has not grown."""
    chance, statuses, odd, sizes = random.Random(1), Counter[int](), list[tuple[int, bytes]](), list[int]()
    with quietly(log, *arguments) as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        line = Line((host, int(port)))
        for number, data in zip(range(many), requests(chance, well), strict=False):
            status = line.ask(data)
            statuses[status] += 1
            if status >= 500 and status not in (503, 504):
                odd.append((status, data[:600]))
            if number % (many // 20) == 0:
                sizes.append(psutil.Process(process.pid).memory_info().rss >> 20)
        assert process.poll() is None
        path, plain = good
        body = json.dumps(plain).encode()
        last = line.ask(b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    assert odd == [], f"{len(odd)} of {statuses}"
    assert last == 200
    assert statuses[0] == 0, statuses
    assert statuses[200] > many / 20, statuses
    assert sizes[-1] < sizes[5] + 64, f"MiB, in the course of it: {sizes}"
    assert "Traceback" not in log.read_text()


def test_no_request_to_a_project_is_answered_by_a_bug(copied: Path, tmp_path: Path) -> None:
    session = Session(copied)
    endpoint = session.deployments["late"].endpoint()
    (explained,) = endpoint.answer([{"parcel": "p118-003"}], [1_714_435_200_000_000], explain=True)
    session.close()
    good = ("/predict/late", {"rows": [{"parcel": "p118-003"}]})
    fuzzed(REQUESTS, seeds(explained.inputs or {}), good, tmp_path / "log", "-C", str(copied), "up")


def test_no_request_to_a_bare_model_is_answered_by_a_bug(tmp_path: Path) -> None:
    (tmp_path / "late.onnx").write_bytes(echo("BYTES"))
    good = ("/v2/models/late/infer", seeds_of_bare()[0][2])
    fuzzed(REQUESTS // 2, seeds_of_bare(), good, tmp_path / "log", "serve", str(tmp_path / "late.onnx"))
