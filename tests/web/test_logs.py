"""The server's own log: one line for each event, with the request that it belongs to; a reader that stands still keeps nobody waiting."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidemill
from processes import served
from serving.conftest import Served
from serving.conftest import serve as serve
from serving.conftest import served as answering
from serving.test_bare import BODY, Line, request
from serving.test_oip import sums
from tidemill.serving import CALLER, Caller, Counters
from tidemill.web.attended import attended
from tidemill.web.logs import MOST_A_SECOND, MOST_LINES, Lined, line_of, logged, note_access
from tidemill.web.metrics import of_process
from toy import copied as copied
from toy import kept as kept
from toy import parcels as parcels
from toy import ready as ready
from toy import replayed as replayed
from toy import toy as toy

answering = answering
log = logging.getLogger("tidemill.testing")
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Read:
    """The lines that were written, when the log has ended."""

    lines: list[str]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@contextmanager
def reading(tmp_path: Path, **how: Any) -> Iterator[Read]:
    found, file = Read(), tmp_path / "server.log"
    with file.open("wb") as to, logged(to=to.fileno(), **how):
        yield found
    found.lines = file.read_text().splitlines()


def parsed(line: str) -> dict[str, str]:
    """The fields of a line of text, as logfmt is read."""
    found, rest = dict[str, str](), line
    while rest:
        name, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
        else:
            value, _, _ = rest.partition(" ")
            end = len(value)
        found[name], rest = value, rest[end + 1 :]
    return found


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(max_size=8)))
def test_any_text_can_be_read_back_from_one_line(fields: dict[str, str]) -> None:
    for as_json in (False, True):
        data = line_of(fields, as_json=as_json)
        assert (data.count(b"\n"), data[-1:]) == (1, b"\n")
        text = data[:-1].decode()
        assert (json.loads(text) if as_json else parsed(text)) == {
            name: value.encode(errors="backslashreplace").decode() for name, value in fields.items()
        }


def test_a_text_of_a_client_begins_no_line_and_tells_a_terminal_nothing(tmp_path: Path) -> None:
    wrong = "1\x9b2J\x1b[2J\u202e\x7f\x85\nlevel=error forged=yes"
    for as_json in (False, True):
        with reading(tmp_path, as_json=as_json) as read:
            try:
                raise ValueError(wrong)
            except ValueError:
                log.exception("path=%s", wrong)
        text = "\n".join(read.lines)
        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith("level=") for line in read.lines)
        assert [line[:2] == "  " for line in read.lines] == [False, *[True] * (len(read.lines) - 1)]
        assert (read.objects[0] if as_json else parsed(read.lines[0]))["path"] == wrong


def test_a_line_has_the_fields_of_its_message_and_the_request(tmp_path: Path) -> None:
    with reading(tmp_path) as text:
        log.warning("deployment=%s rung=%s rows=%d error=%r", "late", "previous version", 3, ValueError("no room"))
    found = parsed(text.lines[0])
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "tidemill.testing",
        "deployment": "late",
        "rung": "previous version",
        "rows": "3",
        "error": "ValueError('no room')",
    }
    with reading(tmp_path, as_json=True) as read:
        copy_context().run(speak)
    first, second, *made = read.objects
    assert (first["rows"], first["circuit"], first["message"], first["request"], first["trace"]) == (3, "open", "kept", "gate-7", TRACE)
    assert second["request"] == TRACE
    assert len({one["request"] for one in made}) == 1, "one that is made stays"


def speak() -> None:
    """Lines of three requests."""
    parent = (b"traceparent", b"00-%b-b7ad6b7169203331-01" % TRACE.encode())
    CALLER.set(Caller(dict([(b"x-request-id", b"gate-7"), parent])))
    log.warning("rows=%d kept circuit=open", 3)
    CALLER.set(Caller(dict([parent])))
    log.warning("again")
    CALLER.set(Caller({}))
    log.warning("one")
    log.warning("two")


def test_each_request_is_a_line_where_that_is_asked_for(tmp_path: Path) -> None:
    with reading(tmp_path, as_json=True) as none:
        note_access("GET", "/v2", 200, 0.5)
    with reading(tmp_path, as_json=True, access=True) as read:
        for _ in range(MOST_A_SECOND + 5):
            note_access("GET", "/v2", 200, 0.5)
    assert (none.lines, len(read.lines)) == ([], MOST_A_SECOND + 5)
    assert read.objects[0].items() >= {"method": "GET", "path": "/v2", "status": 200, "seconds": 0.5}.items()


def test_a_value_of_a_line_is_whole() -> None:
    cut = [
        f"{path.name}: {found[0]}"
        for path in Path(tidemill.__file__).parent.rglob("*.py")
        for found in re.finditer(r"log\.\w+\(\s*\".*\b\w+=%[-0-9.]*[a-z]\w+", path.read_text())
    ]
    assert cut == [], "what follows a directive would be a message of its own: its unit belongs to the value"


def test_what_the_end_of_a_server_breaks_off_has_no_traceback(tmp_path: Path) -> None:
    with reading(tmp_path, as_json=True) as read:
        for error in (asyncio.CancelledError("timeout graceful shutdown exceeded"), ValueError("broken")):
            logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    assert ["broken" in one["exception"] for one in read.objects] == [True]


def test_what_happens_often_is_told_so_often_and_how_often_it_was_not(tmp_path: Path) -> None:
    now, file = [100.0], tmp_path / "log"
    with file.open("wb") as to:
        handler = Lined(to.fileno(), as_json=True, clock=lambda: now[0])
        for second, times in ((100, 100), (101, 3), (105, MOST_A_SECOND + 2)):
            now[0] = float(second)
            for _ in range(times):
                handler.emit(logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "Invalid HTTP request received.", (), None))
        handler.emit(logging.LogRecord("tidemill.x", logging.WARNING, "", 0, "another=%s", (1,), None))
        handler.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 2 * MOST_A_SECOND + 3 + 1 + 1
    assert [one["suppressed"] for one in lines if "suppressed" in one] == [100 - MOST_A_SECOND, 2]
    assert lines[0]["message"] == "Invalid HTTP request received."


def test_who_does_not_read_keeps_nobody_waiting_and_learns_how_much_was_left_out() -> None:
    reader, writer = os.pipe()
    counters = Counters()
    handler = Lined(writer, as_json=True, counters=counters)
    record = logging.LogRecord("tidemill.access", logging.INFO, "", 0, "path=%s", ("x" * 5_000,), None)
    for _ in range(MOST_LINES + 500):  # a pipe holds 64 KiB
        handler.emit(record)
    with os.fdopen(reader, "rb") as file, ThreadPoolExecutor(1) as late:
        text = late.submit(file.read)
        handler.close()
        os.close(writer)
        lines = [json.loads(line) for line in text.result().splitlines()]
    assert lines[0]["path"] == "x" * 5_000
    dropped = [one["dropped"] for one in lines if "dropped" in one]
    assert len(lines) - len(dropped) + sum(dropped) == MOST_LINES + 500
    assert sum(dropped) > 400
    families = {one.name: [*one.samples] for one in of_process("1", counters)}
    assert families["tidemill_log_lines_dropped_total"] == [("", (), float(sum(dropped)))]


def test_an_exception_is_told_with_the_request_and_not_to_the_client(answering: Served, tmp_path: Path) -> None:
    told = list[Any]()

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"rows": [{"parcel": "p118-003"}]}'}

    answering.endpoint._features = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    scope = {"type": "http", "method": "POST", "path": "/predict/late", "raw_path": b"", "query_string": b""}
    with reading(tmp_path, as_json=True) as read:
        asyncio.run(attended(answering.client.app, 60)(scope | {"headers": [(b"x-request-id", b"gate-7")]}, receive, send))
    assert (told[0]["status"], dict(told[0]["headers"])[b"x-request-id"]) == (500, b"gate-7")
    assert b"ZeroDivision" not in told[1]["body"]
    (line,) = read.objects
    version = answering.endpoint.standing.champion[0]
    assert line.items() >= {"request": "gate-7", "route": "/predict/late", "deployment": "late", "version": version}.items()
    assert "ZeroDivisionError" in line["exception"]
    assert "\n" not in read.lines[0]


def test_a_server_goes_on_while_nobody_reads_its_log(tmp_path: Path) -> None:
    """Each of these requests that are none is a line of 100 bytes; its log is a pipe that nobody reads."""
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    with served("-v", "serve", str(file), "--port", "0", "--json") as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        line = Line((host, int(port)))
        for _ in range(1_500):
            assert line.send(request(BODY, x_request_id="gate-7")).answer()[0] == 200
        for _ in range(30):
            odd = Line((host, int(port))).send(b"nonsense\r\n\r\n")
            assert odd.answer_line().startswith(b"HTTP/1.1 400")
        assert line.send(request()).answer()[0] == 200
        process.terminate()
        assert process.stderr is not None
        lines = [json.loads(text) for text in process.stderr.read().splitlines()]
    asked = [one for one in lines if one["logger"] == "tidemill.access"]
    assert asked[0].items() >= {"path": "/v2/models/sums/infer", "status": 200, "request": "gate-7"}.items()
    dropped = sum(one.get("dropped", 0) for one in lines)
    assert len(asked) < 1_501
    assert dropped > 0


@pytest.mark.parametrize("option", ["--json", None])
def test_the_server_of_mlflow_logs_so_too(tmp_path: Path, option: str | None) -> None:
    code = "from tidemill.web import logged; import logging\nwith logged(as_json={}): logging.getLogger('tidemill.x').warning('a=%s', 1)"
    done = subprocess.run([sys.executable, "-c", code.format(bool(option))], capture_output=True, text=True, timeout=60, check=True)
    assert ("a=1" in done.stderr, done.stderr.startswith("{")) == (not option, bool(option))
