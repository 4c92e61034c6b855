"""A connection that knows heads, beside one that parses each anew: the same bytes whatever comes, and however it is cut."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tidemill.serving import Reply
from tidemill.web.turn import Turn
from tidemill.web.wire import LONGEST_KEPT, MOST_KEPT, Call, Heads, Wire

HOST = b"host: 127.0.0.1\r\n"
LATER = b"/later"  # asked for by a path that nothing answers at once: the framework does


class Forgetful(Heads):
    """Every head is parsed."""

    def keep(self, head: bytes, size: int, call: Call, names: int) -> None:
        """Nothing is kept."""


class Memory(asyncio.Transport):
    """What was written, and whether it was closed; nothing comes behind the end. It breaks when it is written to after so many bytes."""

    def __init__(self, lasts: float = inf) -> None:
        super().__init__()
        self.sent, self.closed, self.read, self.lasts = b"", False, True, lasts

    def write(self, data: Any) -> None:
        self.closed = self.closed or len(self.sent) >= self.lasts
        self.sent += data

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True


class Site:
    """What is behind a connection: paths that are answered at once, those of them that are not for now, and how often each way was gone."""

    def __init__(self, *, alone: bool = False) -> None:
        self.away, self.slow, self.ways, self.turn = set[bytes](), 1, Counter[str](), Turn()
        self.turn.alone = alone
        how: Any = {"ws": "none", "interface": "asgi3", "lifespan": "off", "log_config": None, "access_log": False}
        self.config = uvicorn.Config(self.app, server_header=False, date_header=False, **how)
        self.config.load()

    def quick(self, method: bytes, address: bytes, headers: Mapping[bytes, bytes]) -> Call | None:
        size = headers.get(b"content-length", b"0" if method == b"GET" else b"")
        if not size.isdigit() or b"transfer-encoding" in headers or address == LATER or address in self.away:
            return None
        self.ways["parsed"] += 1
        about = b"%b %b %d %b" % (method, address, len(headers), headers.get(b"x-more", b""))

        def call(named: Mapping[bytes, bytes], body: bytes, tell: Callable[[bytes], None]) -> bool:
            if address in self.away:
                return False
            self.ways["at once"] += 1
            told = b"%b %b|%b" % (about, b",".join(b"%b=%b" % one for one in sorted(named.items())), body)
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"
            if self.turn.alone:
                tell(answer % (len(told), told))
            else:
                self.turn.answer(Reply(200, told), lambda reply: tell(answer % (len(reply.body), reply.body)))
            return True

        return call

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await turns(self.slow)
        self.ways["framework"] += 1
        told = b"%b %b|%b" % (scope["method"].encode(), scope["raw_path"], body)
        await send({"type": "http.response.start", "status": 203, "headers": [(b"content-length", b"%d" % len(told))]})
        await send({"type": "http.response.body", "body": told})


def connected(site: Site, heads: Heads, lasts: float = inf) -> tuple[Wire, Memory]:
    loop, transport = asyncio.get_running_loop(), Memory(lasts)
    wire = Wire(quick=site.quick, heads=heads, turn=site.turn, config=site.config, server_state=ServerState(), app_state={}, _loop=loop)
    wire.connection_made(transport)
    return wire, transport


async def turns(many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


async def heard(site: Site, heads: Heads, steps: Sequence[bytes | set[bytes] | int], lasts: float = inf) -> tuple[bytes, bool]:
    """What a connection says to pieces that come one after the other; between them paths go away and come back, and the framework becomes
    slower."""
    wire, transport = connected(site, heads, lasts)
    site.away, site.slow = set(), 1
    for step in steps:
        if isinstance(step, set):
            site.away = step
        elif isinstance(step, int):
            site.slow = step
        elif not transport.closed:
            wire.data_received(step)
            await turns(8)
    await turns(40)
    said = transport.sent, transport.closed
    if not transport.closed:
        transport.close()
    wire.connection_lost(None)
    return said


def post(body: bytes, path: bytes = b"/a", more: bytes = b"", version: bytes = b"1.1", size: bytes = b"") -> bytes:
    length = b"content-length: %b\r\n" % (size or b"%d" % len(body))
    return b"POST %b HTTP/%b\r\n%b%b%b\r\n%b" % (path, version, HOST, more, length, body)


BODIES = (b"", b"x", b"\r\n\r\n", b"POST /a HTTP/1.1\r\n", b"0\r\n\r\n" * 3, post(b"inner"), b"y" * 700)
ODD = [
    post(b"one", b"/b"),
    post(b"one", LATER),
    post(b"one", more=b"x-more: 1\r\n"),
    post(b"one", more=b"x-more:1\r\nconnection: keep-alive\r\n"),
    post(b"one", more=b"x-more: \xe9\t!\r\n"),
    post(b"one", more=b"x-more: 1\r\nx-more: 2\r\n"),
    post(b"one", more=b"x-request-id: 1\r\nx-request-id: 2\r\n"),
    post(b"one", more=b"X-Request-ID:1\r\ntraceparent: 00-1\r\n"),
    post(b"one", more=b"x-request-id: 1 2\r\n"),
    post(b"one", more=b"x-request-id: \xe9\r\nx-request-id: 2\r\n"),
    post(b"one", more=b"x-request-id: 2\r\nx-request-id: \xe9\r\n"),
    post(b"one", more=b"x-request-id:\r\n"),
    post(b"one", more=b"x-request-id: 1\r\n host: 2\r\n"),
    post(b"one", more=b"x-request-id: 1\rhost: 2\r\n"),
    post(b"one", more=HOST),
    post(b"one").replace(HOST, b""),
    post(b"one", more=b"a: " + b"h" * LONGEST_KEPT + b"\r\n"),
    post(b"one", more=b"Connection: Close\r\n"),
    post(b"one", version=b"1.0"),
    post(b"one", version=b"1.0", more=b"connection: keep-alive\r\n"),
    post(b"one", more=b"expect: 100-continue\r\n"),
    post(b"one", more=b"connection: upgrade\r\nupgrade: h2c\r\n"),
    post(b"one", more=b"connection: upgrade\r\nupgrade: websocket\r\n"),
    post(b"one", size=b"03"),
    post(b"one", size=b"+3"),
    post(b"one", size=b"3 "),
    post(b"one", size=b"3, 3"),
    post(b"one", more=b"content-length: 3\r\n"),
    post(b"one", more=b"content-length: 2\r\n"),
    post(b"one", more=b"transfer-encoding: chunked\r\n"),
    post(b"3\r\none\r\n0\r\n\r\n").replace(b"content-length: 15", b"transfer-encoding: chunked"),
    post(b"one", more=b"x-fold: 1\r\n 2\r\n"),
    post(b"one", more=b"x-space : 1\r\n"),
    post(b"one", more=b"x-null: \x00\r\n"),
    post(b"one", more=b"x-bare: 1\rx: 2\r\n"),
    post(b"one").replace(b"\r\n", b"\n"),
    post(b"\n\r\n\r\none").replace(b"\r\n\r\n", b"\n\n", 1),
    b"\r\n" + post(b"one"),
    b"\r\n\r\n" + post(b"one"),
    b"\n" + post(b"one"),
    b" " + post(b"one"),
    post(b"one")[:-1],
    post(b"one") + b"\r\n",
    post(b"one").replace(b"/a", b"/\xe9"),
    post(b"one").replace(b"/a", b"http://127.0.0.1/a"),
    post(b"one").replace(b"/a", b"*"),
    post(b"one").replace(b"POST", b"post"),
    b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /a HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\none",
    b"GET /later HTTP/1.1\r\n" + HOST + b"\r\n",
    b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\n",
    b"DELETE /a HTTP/1.1\r\n" + HOST + b"content-length: 1\r\n\r\n1",
    b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\x01",
    b"\r\n\r\n",
    b"",
]


def steps(chance: random.Random) -> list[bytes | set[bytes] | int]:
    """Requests, most of them plain and alike, cut into pieces anywhere."""
    data = b""
    for _ in range(chance.randint(1, 8)):
        plain = chance.random() < 0.75
        named = chance.choice(
            [b"", b"", b"x-request-id: %d\r\n" % chance.randrange(99), b"Traceparent: %d\r\nb3: 1\r\n" % chance.randrange(9)]
        )
        path = chance.choice([b"/a", b"/a", b"/b", b"/c?d=1", LATER])
        data += post(chance.choice(BODIES), path, named) if plain else chance.choice(ODD)
        data += b"<cut>" if chance.random() < 0.6 else b""
    pieces: list[bytes | set[bytes] | int] = [chance.choice([1, 1, 20])]
    for piece in data.split(b"<cut>"):
        if chance.random() < 0.1:
            pieces.append({path for path in (b"/a", b"/b") if chance.random() < 0.5})
        at = sorted(chance.choices(range(len(piece) + 1), k=chance.choice([0, 0, 0, 1, 2, 5])))
        pieces += [piece[start:end] for start, end in zip([0, *at], [*at, len(piece)], strict=True) if end > start]
    return pieces


def test_whatever_comes_is_answered_as_if_each_head_were_parsed() -> None:
    async def compared() -> Counter[str]:
        chance, went = random.Random(7), Counter[str]()
        for i in range(10):
            site, known = Site(alone=i % 2 == 1), Heads()  # what was learned from one connection holds for the others
            for _ in range(200):
                await heard(site, known, steps(chance), chance.randrange(400))  # a client that goes in the midst teaches nothing wrong
                pieces = steps(chance)
                assert await heard(site, known, pieces) == await heard(Site(), Forgetful(), pieces), pieces
            went.update(site.ways)
        return went

    went = asyncio.run(compared())
    assert went["framework"] > 500
    assert went["at once"] - went["parsed"] > 1_000, "answers without a parser"


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_request_leaves_nothing_behind_that_others_are_led_by(odd: bytes, alone: bool) -> None:
    async def compared() -> None:
        site, known = Site(alone=alone), Heads()
        await heard(site, known, [odd])
        for pieces in ([odd, post(b"two")], [odd + post(b"two")], [post(b"one"), odd, post(b"two")]):
            assert await heard(site, known, pieces) == await heard(Site(), Forgetful(), pieces), pieces

    asyncio.run(compared())


@pytest.mark.parametrize("alone", [False, True])
def test_what_stands_behind_the_end_of_a_connection_is_unheard_there_alone(alone: bool) -> None:
    """A client that asks twice in one packet and is gone before the first answer: the second request is for nobody."""

    async def asked() -> list[tuple[bytes, bool]]:
        site, known = Site(alone=alone), Heads()
        both = [await heard(site, known, [post(b"one")]), await heard(site, known, [post(b"one") + post(b"other")], 0)]
        return [*both, await heard(site, known, [post(b"third") + post(b"two")])]

    (*_, (said, closed)) = asyncio.run(asked())
    assert (said.count(b"HTTP/1.1 200"), b"|third" in said, said.endswith(b"|two"), closed) == (2, True, True, False)


def test_a_head_that_was_seen_is_not_parsed_again_on_any_connection() -> None:
    async def asked() -> tuple[Counter[str], bytes]:
        site, known = Site(), Heads()
        for _ in range(2):
            said, _ = await heard(site, known, [post(b"one") + post(b"two"), post(b"one"), post(b"2"), post(b"3")])
        return site.ways, said

    ways, said = asyncio.run(asked())
    assert said.endswith(b"|3")
    assert ways == {"at once": 10, "parsed": 3}, (
        "the second of the first packet is read before its head is known; another size, another head"
    )


def test_what_names_a_request_makes_no_head_another_one() -> None:
    async def asked() -> tuple[Counter[str], bytes]:
        site, known, said = Site(), Heads(), b""
        wire, transport = connected(site, known)
        for i in range(2 * MOST_KEPT):
            wire.data_received(post(b"x", more=b"x-request-id: %d\r\nTraceParent: 00-%d\r\n" % (i, i)))
        await turns(1)
        said = transport.sent
        wire.connection_lost(None)
        return site.ways, said

    ways, said = asyncio.run(asked())
    assert ways == {"at once": 2 * MOST_KEPT, "parsed": 1}
    assert said.endswith(b" traceparent=00-2047,x-request-id=2047|x")


@pytest.mark.parametrize("sent", [post(b"").replace(HOST, b""), post(b"", more=HOST), post(b"", LATER, more=HOST)])
def test_a_request_names_its_host_once(sent: bytes) -> None:
    said, closed = asyncio.run(heard(Site(), Heads(), [sent]))
    assert (said[:12], b"RFC 9112" in said, closed) == (b"HTTP/1.1 400", True, True)


def test_few_heads_are_kept() -> None:
    async def asked() -> tuple[Counter[str], int]:
        site, known = Site(), Heads()
        wire, _ = connected(site, known)
        for i in range(2 * MOST_KEPT):
            wire.data_received(post(b"x", more=b"x-more: %d\r\n" % i))
        newest, oldest = post(b"x", more=b"x-more: %d\r\n" % (2 * MOST_KEPT - 1)), post(b"x", more=b"x-more: 0\r\n")
        kept = sum(known.find(one[:-1]) is not None for one in (newest, oldest))
        wire.connection_lost(None)
        return site.ways, kept

    assert asyncio.run(asked()) == ({"at once": 2 * MOST_KEPT, "parsed": 2 * MOST_KEPT}, 1)


WISHES = [
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\n",
]


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_for_another_protocol_is_passed_over_and_no_body_is_taken_for_a_request(wish: bytes) -> None:
    """However it is cut: what curl --http2 sends, and what would be smuggled."""
    inner = post(b"inner", b"/smuggled")
    sent = post(inner, more=wish) + post(b"two", b"/b") + post(inner, LATER, wish) + post(b"three", b"/c", wish + b"connection: close\r\n")

    async def answered() -> None:
        for cuts in ([], range(1, len(sent)), *([at] for at in range(1, len(sent)))):
            said, closed = await heard(
                Site(), Heads(), [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
            )
            found = re.findall(rb"HTTP/1.1 20.*?\r\n\r\nPOST (/\w+)[^|]*\|(POST /smuggled|two|three)", said, re.DOTALL)
            assert (found, closed) == ([(b"/a", inner[:14]), (b"/b", b"two"), (LATER, inner[:14]), (b"/c", b"three")], True), cuts

    asyncio.run(answered())


def test_there_is_no_tunnel() -> None:
    said, closed = asyncio.run(heard(Site(), Heads(), [b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"]))
    assert (said[:12], b"no proxy" in said, closed) == (b"HTTP/1.1 400", True, True)


def test_who_asks_and_does_not_read_is_kept_waiting() -> None:
    """What it asked for would fill the server's memory."""

    async def asked() -> None:
        wire, transport = connected(Site(), Heads())
        wire.data_received(post(b"one"))
        wire.pause_writing()  # more lies in the transport than it takes
        assert not transport.read
        wire.resume_writing()
        assert transport.read
        wire.connection_lost(None)

    asyncio.run(asked())


@pytest.mark.parametrize("wrong", [b"GARBAGE\r\n\r\n", b"POST /a HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"])
@pytest.mark.parametrize("before", [[LATER], [LATER, LATER], [b"/a", LATER], [LATER, b"/a"]], ids=str)
def test_what_is_under_way_is_answered_before_what_is_wrong_behind_it(before: list[bytes], wrong: bytes) -> None:
    sent = b"".join(post(b"%d" % i, path) for i, path in enumerate(before)) + wrong
    for pieces in ([sent, post(b"unheard")], [sent[:-5], sent[-5:] + post(b"unheard")], [3, sent, post(b"unheard")]):
        said, closed = asyncio.run(heard(Site(), Heads(), pieces))
        assert re.findall(rb"HTTP/1.1 ([0-9]{3})", said) == [
            *(b"203" if path == LATER or LATER in before[:i] else b"200" for i, path in enumerate(before)),
            b"400",
        ]
        assert re.findall(rb"\|([0-9])", said) == [b"%d" % i for i in range(len(before))]
        assert closed


def test_a_body_that_breaks_off_behind_another_request_takes_nothing_from_it() -> None:
    chunked = b"POST %b HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\n3\r\none\r\nno size\r\n" % (LATER, HOST)
    said, closed = asyncio.run(heard(Site(), Heads(), [post(b"first", LATER) + chunked]))
    assert (re.findall(rb"HTTP/1.1 ([0-9]{3})", said), b"|first" in said, closed) == ([b"203", b"400"], True, True)
    said, closed = asyncio.run(heard(Site(), Heads(), [chunked]))
    assert (re.findall(rb"HTTP/1.1 ([0-9]{3})", said), closed) == ([b"400"], True)


@pytest.mark.parametrize(
    "wrong", [b"GARBAGE\r\n\r\n", b"POST /later HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nno size\r\n"]
)
def test_a_server_that_ends_answers_what_is_before_a_wrong_request_and_says_nothing_behind_its_end(
    wrong: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def ended() -> tuple[bytes, bool]:
        site = Site()
        site.slow = 3
        wire, transport = connected(site, Heads())
        transport.write_eof = lambda: setattr(transport, "write", None)  # type: ignore[method-assign]  # nothing can be written any more
        transport.set_protocol = lambda protocol: None  # type: ignore[method-assign]
        wire.data_received(post(b"first", LATER) + wrong)
        wire.shutdown()
        await turns(40)
        wire.connection_lost(None)
        return transport.sent, wire.transport.leave is None  # type: ignore[attr-defined]  # it was left

    said, left = asyncio.run(ended())
    assert (b"|first" in said, said.count(b"HTTP/1.1 203"), left) == (True, 1, True)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
