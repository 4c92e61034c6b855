"""Connections as sockets: what comes too slowly or too large is ended, what comes at once is answered in its order, and a server that ends
answers what is under way."""

import asyncio
import json
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from processes import served
from serving.test_bare import BODY, PATH, Line, difference, request
from serving.test_oip import sums, tensor
from tidemill.web.turn import Turn
from tidemill.web.wire import MOST_HEAD, Heads, Wire
from web.test_wire import LATER, Site, connected, turns

HEAD = b"POST /x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    file = tmp_path_factory.mktemp("connections") / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (_, url):
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


class Hasty(Wire):
    """One that waits a moment for a request."""

    patience = 0.05


def spoken(act: Callable[[int], Any]) -> Any:
    """What a client comes to, in a thread of its own, at the port of a server that is hasty."""

    async def run() -> Any:
        site, loop = Site(), asyncio.get_running_loop()
        made = partial(Hasty, quick=site.quick, heads=Heads(), turn=site.turn, config=site.config, server_state=ServerState(), app_state={})
        server = await loop.create_server(made, "127.0.0.1", 0)
        try:
            return await asyncio.to_thread(act, server.sockets[0].getsockname()[1])
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize("path", [b"/x", LATER], ids=["below the framework", "in the framework"])
@pytest.mark.parametrize(
    "sent",
    [b"P", HEAD[:30], HEAD, HEAD + b"\r\n", HEAD + b"\r\n" + b"x" * 40],
    ids=["one byte", "half a line", "half a head", "no body", "half a body"],
)
def test_a_request_that_does_not_come_to_its_end_is_ended(path: bytes, sent: bytes) -> None:
    def act(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(sent.replace(b"/x", path))
            return b"".join(iter(partial(client.recv, 4096), b""))

    assert spoken(act).startswith(b"HTTP/1.1 408 ")


def test_a_known_head_whose_body_does_not_come_is_ended_too() -> None:
    def act(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(2 * (HEAD + b"\r\n" + b"x" * 100) + HEAD + b"\r\n" + b"x" * 40)
            return b"".join(iter(partial(client.recv, 4096), b""))

    found = spoken(act)
    assert (found.count(b"HTTP/1.1 200"), found.count(b"HTTP/1.1 408")) == (2, 1)


def test_who_says_nothing_is_left() -> None:
    def act(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            return client.recv(1)

    assert spoken(act) == b""


def test_a_large_body_gets_more_time_as_it_comes() -> None:
    """Two thousand bytes are four seconds more: the rest comes long after the moment that a request has."""

    def act(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as client,
            socket.create_connection(("127.0.0.1", port), timeout=20) as slow,
        ):
            client.sendall(b"POST /x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2100\r\n\r\n" + b"x" * 2000)
            slow.sendall(b"P")
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")  # by now that moment is over
            client.sendall(b"x" * 100)
            return client.recv(4096)

    assert spoken(act).startswith(b"HTTP/1.1 200")


def test_ten_thousand_requests_at_once_are_answered_in_their_order(address: tuple[str, int]) -> None:
    many, bodies = 10_000, []
    for place in range(100):
        inputs = [tensor("a", "FP32", [1, 2], [place, 0]), tensor("b", "FP32", [1, 2], [0, 0])]
        bodies.append(json.dumps({"id": str(place), "inputs": inputs}).encode())
    line = Line(address)
    for begin in range(0, many, 500):  # each half a thousand before its answers are read
        line.send(b"".join(request(bodies[place % 100]) for place in range(begin, begin + 500)))
        assert [line.answer()[2]["id"] for _ in range(500)] == [str(place % 100) for place in range(begin, begin + 500)]


def test_many_connections_at_once(address: tuple[str, int]) -> None:
    most = min(1_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    lines = [Line(address) for _ in range(most)]
    for line in lines:
        line.send(request())
    assert all(line.answer()[0] == 200 for line in lines)
    for line in lines:
        line.socket.close()
    assert difference(Line(address).send(request()).answer()) == [9.0, 18.0]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v2/" + b"a" * 66_000 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", 400),
        (b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=["address", "no size", "no request"],
)
def test_what_is_no_request_that_is_taken_is_refused_and_the_server_goes_on(address: tuple[str, int], sent: bytes, status: int) -> None:
    line = Line(address)
    line.send(sent)
    assert line.answer_line().split()[1] == b"%d" % status
    assert difference(Line(address).send(request()).answer()) == [9.0, 18.0]


def test_a_head_without_end_is_refused() -> None:
    async def run() -> None:
        wire, transport = connected(Site(), Heads())
        wire.data_received(b"GET /x HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ")
        for _ in range(MOST_HEAD >> 10):
            wire.data_received(b"a" * 1024)
            assert not transport.closed
        wire.data_received(b"a")
        await turns(2)
        assert (transport.sent[:13], transport.closed) == (b"HTTP/1.1 431 ", True)

    asyncio.run(run())


DEEP = b'{"inputs": [], "parameters": {"deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}"
WIDE = b'{"inputs": [' + b",".join([b'{"name":"a","shape":[1],"datatype":"FP32","data":[1]}'] * 10_001) + b"]}"


@pytest.mark.parametrize(
    ("body", "said"),
    [(DEEP, "recursion"), (WIDE, "inputs"), (BODY[:-1], "truncated")],
    ids=["nesting", "inputs", "cut"],
)
def test_what_is_too_deep_or_too_many_is_a_wrong_request(address: tuple[str, int], body: bytes, said: str) -> None:
    status, _, answer = Line(address).send(request(body)).answer()
    assert (status, said in answer["error"].lower()) == (400, True), answer


def test_a_body_beyond_the_limit_is_refused(address: tuple[str, int]) -> None:
    line = Line(address)
    line.send(request(b"", length=False, content_length=str((64 << 20) + 1)))
    piece = b" " * (1 << 20)
    with suppress(OSError):  # it may have answered already
        for _ in range(65):
            line.send(piece)
    assert line.answer_line().split()[1] == b"400"


def test_at_its_end_a_server_answers_what_is_under_way_and_takes_nothing_more(tmp_path: Path) -> None:
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        idle, busy = Line((host, int(port))), Line((host, int(port)))
        assert difference(idle.send(request()).answer()) == [9.0, 18.0]
        chunked = request(b"", length=False, transfer_encoding="chunked", expect="100-continue")
        assert busy.send(chunked).answer_line().startswith(b"HTTP/1.1 100")  # it is under way
        busy.file.readline()
        process.send_signal(signal.SIGTERM)
        assert idle.closed, "what waits for nothing is closed at once"
        with pytest.raises(OSError, match="refused"):
            Line((host, int(port)))
        assert difference(busy.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)).answer()) == [9.0, 18.0]
        assert busy.closed
        assert process.wait(30) == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "two processes"])
def test_who_keeps_asking_while_a_server_ends_sees_no_reset(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Below the framework and in it, one at a time and several in one piece: what was sent is answered, and the last answer says so."""
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    chunked = request(b"", length=False, transfer_encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    with served("serve", str(file), "--port", "0", "--json", *workers) as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        asking = threading.Barrier(13)

        def ask(sent: list[bytes]) -> bool:
            """Whether the server said at last that the connection ends, and did so."""
            line, said, times = Line((host, int(port))), False, 0
            while not said:
                line.send(b"".join(sent))
                for _ in sent:
                    assert not said, "behind the last answer there is none"
                    status, headers, _ = line.answer()
                    assert status == 200
                    said = headers.get("connection") == "close"
                times += 1
                if times == 5:
                    asking.wait(60)
            return line.closed

        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(ask, sent) for sent in 3 * ([request()], [chunked], [request()] * 3, [chunked] * 3)]
            asking.wait(60)
            process.send_signal(signal.SIGTERM)
            assert [one.result(60) for one in asked] == [True] * 12
        assert process.wait(30) == 0


def test_what_stands_behind_the_last_answer_of_a_server_is_not_run() -> None:
    ran: list[str] = []

    async def main() -> bytes:
        go_on, turn, state, made = asyncio.Event(), Turn(), ServerState(), list[Wire]()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            ran.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"be", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"en"})

        config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None, access_log=False)
        config.load()

        def make() -> Wire:
            made.append(Wire(quick=None, heads=Heads(), turn=turn, config=config, server_state=state, app_state={}))
            return made[-1]

        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET /first HTTP/1.1\r\nhost: a\r\n\r\n")
            found = await reader.readuntil(b"be")
            made[-1].shutdown()
            writer.write(b"GET /behind HTTP/1.1\r\nhost: a\r\n\r\n")
            await writer.drain()
            while not made[-1].pipeline:
                await asyncio.sleep(0)
            go_on.set()
            found += await asyncio.wait_for(reader.read(), 20)
            writer.close()
        return found

    assert asyncio.run(asyncio.wait_for(main(), 60)).endswith(b"\r\n\r\nbeen")
    assert ran == ["/first"]


def test_a_request_that_is_coming_in_when_a_server_ends_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        lines = [Line((host, int(port))) for _ in range(4)]
        for line in lines[:2]:  # one whose head is known by then
            assert difference(line.send(request()).answer()) == [9.0, 18.0]
        cuts = [-10, 60, -10, 60]
        for line, cut in zip(lines, cuts, strict=True):
            line.send(request()[:cut])
        idle = Line((host, int(port)))
        assert idle.send(request()).answer()[0] == 200  # what was sent before has come
        process.send_signal(signal.SIGTERM)
        assert idle.closed
        for line, cut in zip(lines, cuts, strict=True):
            answer = line.send(request()[cut:]).answer()
            assert (difference(answer), answer[1]["connection"], line.closed) == ([9.0, 18.0], "close", True)
        assert process.wait(30) == 0


def test_a_request_that_begins_behind_an_answer_of_the_framework_has_its_time() -> None:
    """The framework closes what is idle a moment after its answer; a request that has begun is not."""

    async def run() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        wire, transport = connected(site, Heads())
        wire.data_received(b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\n\r\nx%b" % (LATER, HEAD[:30]))
        await turns(20)
        timer = wire.timeout_keep_alive_task
        wire.data_received(HEAD[30:] + b"\r\n" + b"x" * 100)
        await turns(20)
        said = transport.sent.count(b"HTTP/1.1 200")
        assert wire.idle is not None
        wait = wire.idle.when() - loop.time()
        wire.connection_lost(None)
        return timer is None and said == 1, wait

    site = Site()
    answered, wait = asyncio.run(run())
    assert answered
    assert wait <= site.config.timeout_keep_alive, "who asks nothing more is looked at as soon as that may be"
