"""A socket of this machine, and an application behind it."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import EADDRINUSE
from typing import Any

from tidemill.core import Busy, Refused, StoreError

MOST_HEAD = 128 << 10  # bytes of a request's address and headers, beside those that come with its first ones
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; raises Refused for an address that others can reach, Busy for a port that is taken, StoreError for one
    that the system does not give."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise Refused(
            f"without users, the server binds to this machine only, not to {host}", hint="let it be 127.0.0.1 (--host, or serve.host)"
        )
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # with the protocol named, answers leave without delay
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)  # before the address is told: who is quick waits, and is not turned away
    except OSError as error:
        listener.close()
        kind, why = (Busy, "is taken") if error.errno == EADDRINUSE else (StoreError, "cannot be listened to")
        raise kind(f"port {port} {why}: {error.strerror}", where=host, hint="choose another: --port 0 takes a free one") from error
    with listener:
        yield listener


Quick = Callable[[bytes, bytes, Mapping[bytes, bytes]], Callable[[bytes], bytes] | None]  # method, address and headers: body -> answer


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


def run_server(make: Callable[[str], Any], host: str, port: int, ready: Callable[[str], None], quick: Quick | None = None) -> None:
    """Serve an application, made for its address, until interrupted; `ready` is told the address. What `quick` finds goes past it."""
    import uvicorn
    import uvloop
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    class Gathering(HttpToolsProtocol):
        plain = 0  # bytes that have come since a request began or a piece of its body came
        call: Callable[[bytes], bytes] | None = None  # what answers the request below the framework
        parts: list[bytes]

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Gathered(transport, self.loop))  # type: ignore[arg-type]

        def data_received(self, data: bytes) -> None:
            self.plain += len(data)
            super().data_received(data)
            if self.plain > MOST_HEAD:
                self.transport.write(TOO_LARGE)
                self.transport.close()

        def on_message_begin(self) -> None:
            self.plain = 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            before: RequestResponseCycle | None = self.cycle
            busy = before is not None and not before.response_complete
            self.call = quick(self.parser.get_method(), self.url, dict(self.headers)) if quick and not busy else None
            if self.call is None:
                super().on_headers_complete()
                return
            self.parts = []
            if self.expect_100_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

        def on_body(self, body: bytes) -> None:
            self.plain = 0
            if self.call is None:
                super().on_body(body)
            else:
                self.parts.append(body)

        def on_message_complete(self) -> None:
            self.plain = 0
            if self.call is None:
                super().on_message_complete()
                return
            call, self.call = self.call, None
            parts = self.parts
            self.transport.now(call(parts[0] if len(parts) == 1 else b"".join(parts)))  # type: ignore[attr-defined]
            if not self.parser.should_keep_alive():
                self.transport.close()
            elif self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    with bound(host, port) as listener:
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            make(url),
            http=Gathering,
            ws="none",
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,  # how a request came is not for the client to say
            server_header=False,
            log_level="warning",
            access_log=False,
        )
        server = uvicorn.Server(config)
        ready(url)
        uvloop.run(server.serve(sockets=[listener]))
