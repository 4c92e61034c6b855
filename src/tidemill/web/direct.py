"""What is answered below the web framework: whom it may answer, and the answer as HTTP has it."""

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tidemill.core import Busy, Refused, TidemillError
from tidemill.serving import (
    CALLER,
    EXPECTED,
    FAILED,
    MOST,
    NOBODY,
    REQUEST,
    TIMEOUT,
    Call,
    Caller,
    Headers,
    QuickCall,
    Reply,
    refused,
    respond,
    too_large,
    tracer,
)
from tidemill.web.logs import ACCESS, note_access
from tidemill.web.metrics import Traffic
from tidemill.web.server import not_from_here
from tidemill.web.turn import UNTOLD, Turn

if TYPE_CHECKING:
    from tidemill.web.wire import Call as Whole
    from tidemill.web.wire import Quick

log = logging.getLogger(__name__)
MOST_UNDER_WAY = 512  # requests
MOST_SECONDS = 60.0  # that an answer may take
TOLD = ("/v2/health", "/metrics", "/status.json")
LOCAL = (b"127.0.0.1", b"localhost", b"[::1]")
RETRY = b"retry-after", b"1"  # second; of each answer with 503
_STATUS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 500: b"Internal Server Error"}
_STATUS |= {503: b"Service Unavailable", 504: b"Gateway Timeout"}
_LINES = {
    status: b"HTTP/1.1 %d %s\r\nx-content-type-options: nosniff\r\ncontent-type: application/" % (status, words)
    for status, words in _STATUS.items()
}
_LINES[503] = _LINES[503].replace(b"\r\n", b"\r\n%b: %b\r\n" % RETRY, 1)


def led(find: Callable[[bytes, bytes, int], QuickCall | None], traffic: Traffic, turn: Turn) -> "Quick":
    """For a connection: by method, address and headers what answers bodies at the end of the `turn`, which `traffic` counts. `find` tells
    by method, address and the size of a body."""

    def quick(method: bytes, address: bytes, headers: Headers) -> "Whole | None":
        text = headers.get(b"content-length", b"0" if method == b"GET" else b"")
        if not text.isdigit() or b"transfer-encoding" in headers:
            return None
        size, path, waits = int(text), address.decode("latin-1"), TIMEOUT in headers or EXPECTED in headers
        call = find(method, address, size) if size <= MOST else None
        if call is None or not _is_from_here(headers):
            return None
        note, verb, shown, tells = traffic.noted(path), method.decode(), path.partition("?")[0], ACCESS.isEnabledFor(logging.INFO)

        def told(begun: float, caller: Caller, named: Headers, send: Callable[[bytes], None], reply: Reply) -> None:
            answer = written(reply)
            if named and REQUEST in named:
                answer = answer.replace(b"\r\n", b"\r\n%b: %b\r\n" % (REQUEST, named[REQUEST]), 1)
            if caller.watch:
                answer = answer.replace(b"\r\n", b"\r\ntraceresponse: %b\r\n" % caller.watch.told, 1)
                caller.watch.end(reply.status, caller.about)
            note(reply.status, seconds := perf_counter() - begun)
            if tells:
                CALLER.set(caller)
                note_access(verb, shown, reply.status, seconds)
                CALLER.set(NOBODY)
            send(answer)

        def whole(named: Headers, body: bytes, send: Callable[[bytes], None]) -> bool:
            """Answer, whatever happens: what escapes is a bug of the server, and the connection would call it the client's."""
            begun = perf_counter()
            CALLER.set(caller := Caller({**headers, **named} if named else headers))
            if (watching := tracer()) is not None:
                caller.watch = watching.http(verb, path, caller.headers)
            try:
                if waits:
                    caller.heed()
                reply = call(caller.headers, body, turn.alone or waits or watching is not None)  # who waits only so long asks now
            except TidemillError as error:
                reply = refused(error)
            except Exception as error:
                log.exception("route=%s a request could not be answered", shown)
                if caller.watch:
                    caller.watch.fail(error)
                reply = FAILED
            CALLER.set(NOBODY)  # what the connection says next is of nobody's request

            if reply is None:
                return False
            if turn.alone and isinstance(reply, Reply):
                try:
                    told(begun, caller, named, send, reply)
                except Exception:
                    log.exception(UNTOLD)
            else:
                turn.answer(reply, partial(told, begun, caller, named, send))
            return True

        return whole

    return quick


def _is_from_here(headers: Headers) -> bool:
    try:
        check_from_here(headers)
    except Refused:
        return False
    return True


def checked(call: Call, headers: Headers, body: bytes) -> Reply | None:
    """What a call gives for a request that may be answered: of this machine, not of another site's page, and of a size that is taken."""
    try:
        check_from_here(headers)
        if len(body) > MOST:
            raise too_large(MOST)
    except TidemillError as error:
        return refused(error)
    return respond(call, headers, body)


def bounded(app: Any, most: int) -> Any:
    """An application that turns away (503) what comes while so many requests are under way: who is kept waiting asks once more, and the
    wait would grow without end. How it is doing a server always tells."""
    under_way = 0

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        nonlocal under_way
        if under_way >= most and not scope["path"].startswith(TOLD):
            error = Busy(f"{most} requests are under way", hint="ask again in a second")
            body = refused(error).body
            head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 503, "headers": head})
            await send({"type": "http.response.body", "body": body})
            return
        under_way += 1
        try:
            await app(scope, receive, send)
        finally:
            under_way -= 1

    return gate


def check_from_here(headers: Headers) -> None:
    """Raise Refused for a request that another site's name led here, or that a page of another site sends: there are no users yet."""
    host = headers.get(b"host", b"")
    if host.rpartition(b":")[0] not in LOCAL and host not in LOCAL:
        raise not_from_here(host)
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != host:
        raise Refused("a page of another site may not ask this server", hint="ask from a program, not from a page")


def written(answer: Reply) -> bytes:
    """An answer as HTTP/1.1 has it."""
    line = _LINES.get(answer.status) or _LINES[500]
    if answer.head is None:
        return b"%sjson\r\ncontent-length: %d\r\n\r\n%b" % (line, len(answer.body), answer.body)
    head = b"%boctet-stream\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b"
    return head % (line, answer.head, len(answer.body), answer.body)
