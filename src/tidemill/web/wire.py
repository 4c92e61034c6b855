"""A connection: HTTP/1.1 as uvicorn speaks it, with a way below the framework for what is asked most."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 128 << 10  # bytes of a request's address and headers, beside those that come with its first ones
BEGUN, GONE = "tidemill.begun", "tidemill.gone"  # what a scope tells: when the head was whole, and whether the client went away
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
Call = Callable[[bytes], bytes | None]  # a body -> the whole answer, or nothing where the framework is to give it
Quick = Callable[[bytes, bytes, Mapping[bytes, bytes]], Call | None]  # of a method, an address and headers


class Gathered:
    """A transport that sends what is written in one turn of the loop at once: an answer's head and body leave in one packet, and who
    waits for them wakes up once."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._pieces = transport, loop, list[bytes]()
        self.is_closing = transport.is_closing  # asked for each answer

    def write(self, data: bytes) -> None:
        """Send, with what else this turn of the loop has to say."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def now(self, data: bytes) -> None:
        """Send what is whole in itself."""
        if self._pieces:
            self.write(data)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():  # the client may have gone away in this very turn
            self._transport.writelines(pieces)

    def close(self) -> None:
        """Close, after what was written."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Wire(HttpToolsProtocol):
    """One connection. What `quick` finds a call for is answered at once and in its turn, without a task, a scope or a cycle."""

    def __init__(self, *, quick: Quick | None, **config: Any) -> None:
        super().__init__(**config)
        self.quick, self.parts = quick, list[bytes]()
        self.call: Call | None = None  # what answers the request that is coming in
        self.plain = 0  # bytes that have come since a request began or a piece of its body came
        self.asked = 0.0  # when the newest request was answered below the framework
        self.idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(Gathered(transport, self.loop))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        super().connection_lost(exc)
        if self.idle:
            self.idle.cancel()

    def data_received(self, data: bytes) -> None:
        """Some of a request came."""
        self.plain += len(data)
        super().data_received(data)
        if self.plain > MOST_HEAD:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins; what the framework wants to know of it is told later."""
        self.plain, self.url, self.headers, self.expect_100_continue = 0, b"", [], False

    def on_headers_complete(self) -> None:
        """Choose the way."""
        under_way = self._under_way()
        self.call = self.quick(self.parser.get_method(), self.url, dict(self.headers)) if self.quick and not under_way else None
        if self.call is None:
            self._lead_on()
        elif self.expect_100_continue:
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
        self.plain = 0
        if self.call is None:
            super().on_message_complete()
            return
        call, body, self.call = self.call, b"".join(self.parts), None
        self.parts.clear()
        answer = call(body)
        if answer is None:
            self.expect_100_continue = False  # it was told to go on
            self._lead_on()
            super().on_body(body)
            super().on_message_complete()
            return
        self.transport.now(answer)  # type: ignore[attr-defined]
        self.asked = self.loop.time()
        if not self.parser.should_keep_alive():
            self.transport.close()
        elif self.idle is None:
            self.idle = self.loop.call_later(self.timeout_keep_alive, self._end_idle)

    def _lead_on(self) -> None:
        """Tell the framework of a request."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[BEGUN], scope[GONE] = time.monotonic(), self.transport.is_closing
        self.headers += headers
        super().on_headers_complete()

    def _under_way(self) -> bool:
        """Whether the framework has an answer to give."""
        cycle: Any = self.cycle  # None before the first
        return cycle is not None and not cycle.response_complete

    def _end_idle(self) -> None:
        """Close a connection on which nothing was asked for a while; of one that is asked often, look again then."""
        rest = self.asked + self.timeout_keep_alive - self.loop.time()
        if rest > 0 or self.parts or self._under_way():
            self.idle = self.loop.call_later(max(rest, 1.0), self._end_idle)
        elif not self.transport.is_closing():
            self.transport.close()
