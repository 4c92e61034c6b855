"""A connection: HTTP/1.1 as uvicorn speaks it, with a way below the framework for what is asked most.

The requests of a client have heads that are equal to the byte, but for those of other sizes, and for what names each request or its trace.
So a head that was parsed is kept, without those names, with what answers it, and is not parsed again: one that is a plain POST and that two
parsers read alike, or no other could be led past them.
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidemill.serving import PARENT, REQUEST
from tidemill.web.turn import Gathered, Turn

MOST_HEAD = 128 << 10  # bytes of a request's address and headers, beside those that come with its first ones
BEGUN, GONE = "tidemill.begun", "tidemill.gone"  # what a scope tells: when the head was whole, and whether the client went away
NO_HTTP = b"HTTP/1.1 400 Bad Request", b"the request is no HTTP/1.1 that this server reads"
PATIENCE, SLOWEST = 20.0, 500  # seconds in which a request is to be there, and bytes for which it gets one more
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
STAY = 0.2  # seconds at the end of a server in which who keeps asking hears so
HALF = 2.0  # in which the rest of a request comes that has begun to
LEAVE = 0.5  # and in which clients close what they are told is over
NO_HOST = NO_HTTP[0], b"a request has one header Host (RFC 9112, 3.2)"
NO_TUNNEL = NO_HTTP[0], b"this server is no proxy"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large", b"the address and the headers are too large"
Headers = Mapping[bytes, bytes]  # names in lower case
# What names a request, its body and who is told the whole answer -> whether there will be one; else the framework is to give it.
Call = Callable[[Headers, bytes, Callable[[bytes], None]], bool]
Quick = Callable[[bytes, bytes, Headers], Call | None]  # of a method, an address and the other headers: by them alone
# Headers that name a request or its trace: W3C Trace Context, Zipkin's B3 (Istio), those of Amazon and Google.
NAMES: tuple[bytes, ...] = (REQUEST, PARENT, b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid")
NAMES += (b"x-amzn-trace-id", b"x-cloud-trace-context")
_NAMED = re.compile(rb"\r\n(%b): ?([!-~]+)(?=\r\n)" % b"|".join(map(re.escape, NAMES)), re.IGNORECASE)
END, LONGEST_KEPT, MOST_KEPT = b"\r\n\r\n", 2 << 10, 1 << 10  # of heads: bytes, and how many
PLAIN = re.compile(rb"POST [!-~]+ HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]?[\t -~\x80-\xff]*\r\n)+\r\n")


class Heads:
    """Heads that were parsed: by their bytes without what names a request, how long the body is and what answers it."""

    def __init__(self) -> None:
        self._kept = dict[bytes, tuple[int, Call, Headers]]()

    def find(self, head: bytes) -> tuple[int, Call, Headers] | None:
        """How long the body is, what answers it, and what names the request."""
        known = self._kept.get(head)
        if known is None:
            rest, named = parted(head)
            known = self._kept.get(rest) if named else None
            return None if known is None else (known[0], known[1], named)
        return known

    def keep(self, head: bytes, size: int, call: Call, names: int) -> None:
        """Keep one, in the place of the oldest where there is no room; not where the parser found other `names` in it."""
        rest, named = parted(head)
        if len(named) != names:
            return
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[rest] = size, call, {}


def parted(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A head without what names the request, and that.

    >>> parted(b"POST / HTTP/1.1\\r\\nhost: a\\r\\nX-Request-Id: 7\\r\\n\\r\\n")
    (b'POST / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n', {b'x-request-id': b'7'})
    """
    pieces = _NAMED.split(head)
    return b"".join(pieces[::3]), dict(zip(map(bytes.lower, pieces[1::3]), pieces[2::3], strict=True))


def _without_upgrade(wire: "Wire") -> bytes:
    """The head that a parser took, without the wish for another protocol."""
    lines = [b"%b %b HTTP/%b" % (wire.parser.get_method(), wire.url, wire.parser.get_http_version().encode())]
    for name, value in wire.headers:
        if name == b"connection":
            value = b", ".join(word for word in map(bytes.strip, value.split(b",")) if word.lower() not in (b"upgrade", b"http2-settings"))
        if name not in (b"upgrade", b"http2-settings") and (value or name != b"connection"):
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def _unheard(named: Headers, body: bytes, tell: Callable[[bytes], None]) -> bool:
    """Answer nothing."""
    return True


class Left(asyncio.Protocol):
    """A connection that is answered no more, until the client closes it too; what it sends until then nobody hears. A reset, which a system
    sends for what is not read, would take the last answer away from it."""

    def __init__(self, lost: Callable[[Exception | None], None]) -> None:
        self.connection_lost = lost  # type: ignore[assignment]  # it is told as before


class Wire(HttpToolsProtocol):
    """One connection. What `quick` finds a call for is answered in this turn of the loop, without a task, a scope or a cycle."""

    patience = PATIENCE

    def __init__(self, *, quick: Quick | None, heads: Heads, turn: Turn, **config: Any) -> None:
        super().__init__(**config)
        self.quick, self.heads, self.turn, self.parts = quick, heads, turn, list[bytes]()
        self.call: Call | None = None  # what answers the request that is coming in
        self.named = dict[bytes, bytes]()  # what names it
        self.wrong = NO_HTTP  # what is said of a request that cannot be read
        self.led_on = False  # whether the request that is parsed next is known to be one for the framework
        self.wishes, self.end_of_wish = False, 0  # whether a request wishes another protocol, and bytes until the end of its head
        self.between = True  # whether the parser waits for a request, and nothing of it has come
        self.held, self.lacks = list[bytes](), 0  # a request with a known head of which so many bytes have not come
        self.head = b""  # that of the request which comes in, where it came in one piece and may be kept
        self.plain = 0  # bytes that have come since a request began or a piece of its body came
        self.since, self.came = 0.0, 0  # when a request began to come that is not whole, and its bytes
        self.asked = 0.0  # when the newest request was answered
        self.idle: asyncio.TimerHandle | None = None
        self.ends = False  # whether the server does: each answer may be the last
        self.last: Any = None  # the cycle that was to go on, and says that it is the last
        self.refusal: tuple[bytes, bytes] | None = None  # what is said when the framework has answered what came before

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(Gathered(transport, self.turn))  # type: ignore[arg-type]
        self.asked = self.loop.time() + self.patience - self.timeout_keep_alive
        self.idle = self.loop.call_later(min(self.patience, self.timeout_keep_alive), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        super().connection_lost(exc)
        if self.idle:
            self.idle.cancel()

    def shutdown(self) -> None:
        """The server ends: what has come is answered, and with the last answer the connection ends. Who asks nothing is left after a
        moment: of who keeps asking, nearly all are told by an answer, and none sends to a connection that is closed."""
        if self.transport.is_closing():
            return
        self.turn.settle()
        self.ends, self.quick, self.heads = True, None, Heads()  # the framework says with an answer that it is the last
        self.transport.leave = self._leave  # type: ignore[attr-defined]  # it is a `Gathered`
        if self.call is not None:  # its body is coming in
            self._lead_on_with(b"".join(self.parts))
        elif self._under_way():
            self._make_last()
        else:
            self.loop.call_later(STAY, self._leave_idle)

    def _make_last(self) -> None:
        """Let the newest request be the last that is answered."""
        if self.last is not None and not self.last.response_started:
            self.last.keep_alive = True
        self.last = self.cycle if self.cycle.keep_alive else None
        self.cycle.keep_alive = False

    def _leave_idle(self, later: float = HALF) -> None:
        if self.transport.leave and not (self.transport.is_closing() or self._under_way()):  # type: ignore[attr-defined]
            if self.since and later:
                self.loop.call_later(later, self._leave_idle, 0.0)
            else:
                self.transport.close()

    def _leave(self) -> None:
        """Say that this was all, and give the client time to say so too."""
        self.pipeline.clear()  # what stands behind the last answer is not run
        self.flow.resume_reading()
        self.transport.set_protocol(Left(self.connection_lost))
        self.transport.write_eof()
        self.loop.call_later(LEAVE, self.transport.close)

    def pause_writing(self) -> None:
        """The client does not read what it asked for: take nothing more from it until it does."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Some of a request came."""
        self.turn.reads = True
        try:
            self._read(data)
        finally:
            self.turn.end_to_read()

    def _read(self, data: bytes) -> None:
        if self.refusal:  # nothing that comes behind is heard
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self.held:
            self.held.append(data)
            self.lacks -= len(data)
            self.came += len(data)
            if self.lacks > 0:
                return
            data = b"".join(self.held)
            self.held.clear()
        while self.between:
            end = data.find(END) + len(END)
            known = self.heads.find(data[:end])
            if known is None or self._under_way():
                self.head = data[:end] if len(END) <= end <= LONGEST_KEPT else b""
                break
            size, call, named = known
            self.lacks = end + size - len(data)
            if self.lacks > 0:
                self.held.append(data)
                self._note_begun(len(data))
                return
            self.since, self.came = 0.0, 0
            if not call(named, data[end : end + size], self._answer):
                self.led_on = True
                break
            if not self.lacks:
                return
            data = data[end + size :]
        self.plain += len(data)
        self._parse(data)
        if not self.between:
            self._note_begun(len(data))
        if self.plain > MOST_HEAD:
            self._refuse(*TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        """Some of a request that is not known by its head. Behind one that asks for another protocol the parser reads nothing, not even its
        body; nobody is bound to change it (RFC 9110, 7.8), so it is parsed once more without its wish."""
        super().data_received(data)
        while self.wishes and not self.transport.is_closing():
            data = _without_upgrade(self) + data[self.end_of_wish :]
            self.wishes, self.head, self.parser = False, b"", HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            super().data_received(data)

    def _should_upgrade(self) -> bool:
        """Asked where the parser stops behind a head, which it says with how many bytes it read."""
        error = sys.exc_info()[1]
        if isinstance(error, HttpParserUpgrade):
            self.end_of_wish = error.args[0]
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """It is not worth a line."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read."""
        self._refuse(*self.wrong)

    def _refuse(self, line: bytes, what: bytes) -> None:
        """Answer in the form of all errors, behind what is under way, and close."""
        self.turn.settle()
        cycle: Any = self.cycle
        if self._under_way() and cycle.more_body and self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # it will never be whole, and others before it are under way
        elif not self._under_way() or cycle.more_body:
            self._say_refusal(line, what)
            return
        self.refusal = self.refusal or (line, what)
        self.flow.pause_reading()

    def _say_refusal(self, line: bytes, what: bytes) -> None:
        body = b'{"error":"%b"}' % what
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(b"%b\r\n%b%b" % (line, head, body))
        self.transport.close()

    def _note_begun(self, size: int) -> None:
        """So many bytes came of a request that is not whole."""
        self.since = self.since or self.loop.time()
        self.came += size

    def on_message_begin(self) -> None:
        """A request begins; what the framework wants to know of it is told later."""
        self.plain, self.url, self.headers, self.expect_100_continue, self.between = 0, b"", [], False, False

    def on_headers_complete(self) -> None:
        """Choose the way."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self.wrong = NO_TUNNEL
                raise ValueError  # the parser stops
            self.wishes = True
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self.wrong = NO_HOST
            raise ValueError  # the parser stops
        under_way, headers = self._under_way(), dict(self.headers)
        self.named = {name: headers.pop(name) for name in NAMES if name in headers}
        if self.transport.is_closing():  # behind the last one that is answered
            self.call, self.head = _unheard, b""  # which others with such a head are not
        elif self.quick is None or under_way or self.led_on:
            self.call = None
        else:
            self.call = self.quick(self.parser.get_method(), self.url, headers)
        self.led_on = False
        if self.call is None:
            self._lead_on()
        elif self.expect_100_continue:
            self.turn.settle()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.plain = 0
        if self.call is None:
            super().on_body(body)
        else:
            self.parts.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.wishes:
            return
        head, self.head, self.plain, self.between = self.head, b"", 0, self.parser.should_keep_alive()
        self.since, self.came = 0.0, 0
        if self.call is None:
            super().on_message_complete()
            return
        call, body, self.call = self.call, b"".join(self.parts), None
        self.parts.clear()
        if not call(self.named, body, self._answer):
            self._lead_on_with(body)
            super().on_message_complete()
        elif not self.between:
            self.transport.close()
        elif head and self._may_be_kept(head):
            self.heads.keep(head, len(body), call, sum(name in NAMES for name, _ in self.headers))

    def _answer(self, answer: bytes) -> None:
        """Send an answer, and note that something was asked."""
        self.transport.say(answer)  # type: ignore[attr-defined]  # it is a `Gathered`
        self.asked = self.loop.time()

    def on_response_complete(self) -> None:
        """The framework has answered."""
        self.asked, newest = self.loop.time(), not self.pipeline
        super().on_response_complete()
        if self.since and self.timeout_keep_alive_task is not None:  # `_look` sees to a request that has begun
            self._unset_keepalive_if_required()
        is_left = self.ends and self.transport.leave is None  # type: ignore[attr-defined]  # it is a `Gathered`
        if self.refusal and newest and not (is_left or self.transport.is_closing()):
            self._say_refusal(*self.refusal)

    def _may_be_kept(self, head: bytes) -> bool:
        """Whether a head that the parser took is known by its bytes: another parser sees the same end of it, and the connection goes on."""
        return self.between and not self.expect_100_continue and not self.parser.should_upgrade() and PLAIN.fullmatch(head) is not None

    def _lead_on_with(self, body: bytes) -> None:
        """Tell the framework of a request that was meant to be answered below it, and of what came of its body."""
        self.call, self.expect_100_continue = None, False  # it was told to go on
        self.parts.clear()
        self._lead_on()
        super().on_body(body)

    def _lead_on(self) -> None:
        """Tell the framework of a request."""
        self.turn.settle()
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[BEGUN], scope[GONE] = time.monotonic(), self.transport.is_closing
        self.headers += headers
        super().on_headers_complete()
        if self.ends:
            self._make_last()

    def _under_way(self) -> bool:
        """Whether the framework has an answer to give."""
        cycle: Any = self.cycle  # None before the first
        return cycle is not None and not cycle.response_complete

    def _look(self) -> None:
        """End what comes too slowly (Slowloris), and a connection on which nothing was asked for a while; look again later otherwise."""
        now, cycle = self.loop.time(), self.cycle
        waits = self._under_way() and (bool(self.pipeline) or not cycle.more_body or self.flow.read_paused)  # for us
        until = self.since + self.patience + self.came / SLOWEST if self.since else self.asked + self.timeout_keep_alive
        if self.transport.is_closing():
            return
        if waits or until > now:
            self.idle = self.loop.call_later(1.0 if waits else max(until - now, 0.01), self._look)
            return
        if self.since and not (self._under_way() and cycle.response_started):
            self.turn.settle()
            self.transport.write(TOO_SLOW)
        self.transport.close()
