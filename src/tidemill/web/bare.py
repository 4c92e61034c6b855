"""Bare models on a port: the inference protocol's hot path below the web framework, the rest as an application."""

import asyncio
from collections.abc import Callable
from typing import Any

from tidemill import __version__
from tidemill.core import Refused, TidemillError
from tidemill.serving import MOST, Call, Headers, Inference, Reply, Repository, refused, respond, too_large
from tidemill.web.server import run_server

LOCAL = (b"127.0.0.1", b"localhost", b"[::1]")
_STATUS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 503: b"Service Unavailable"}
_LINES = {
    status: b"HTTP/1.1 %d %s\r\nx-content-type-options: nosniff\r\ncontent-type: application/" % (status, words)
    for status, words in _STATUS.items()
}


def serve_models(models: Repository, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve bare models until interrupted; `ready` is told the address."""
    inference = Inference(models, __version__)

    def quick(method: bytes, address: bytes, headers: Headers) -> Callable[[bytes], bytes] | None:
        call = inference.quick(method, address)
        if call is None or not 0 <= int(headers.get(b"content-length", b"-1")) <= MOST:
            return None
        return lambda body: written(checked(call, headers, body))

    run_server(lambda url: application(inference), host, port, ready, quick)


def checked(call: Call, headers: Headers, body: bytes) -> Reply:
    """The reply to a request that may be answered: of this machine, not of another site's page, and of a size that is taken."""
    try:
        check_from_here(headers)
        if len(body) > MOST:
            raise too_large(MOST)
    except TidemillError as error:
        return refused(error)
    return respond(call, headers, body)


def check_from_here(headers: Headers) -> None:
    """Raise Refused for a request that another site's name led here, or that a page of another site sends: there are no users yet."""
    host = headers.get(b"host", b"")
    if host.rpartition(b":")[0] not in LOCAL and host not in LOCAL:
        raise Refused("this server answers to this machine only", hint="ask it as 127.0.0.1")
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != host:
        raise Refused("a page of another site may not ask this server", hint="ask from a program, not from a page")


def written(answer: Reply) -> bytes:
    """An answer as HTTP/1.1 has it."""
    line = _LINES[answer.status]
    if answer.head is None:
        return b"%sjson\r\ncontent-length: %d\r\n\r\n%b" % (line, len(answer.body), answer.body)
    head = b"%soctet-stream\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n"
    return b"%b%b" % (head % (line, answer.head, len(answer.body)), answer.body)


def application(inference: Inference) -> Any:
    """The routes as an ASGI application; a slow model runs beside the event loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers, body, more = dict(scope["headers"]), b"", True
        while more and len(body) <= MOST:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            call = inference.call(scope["method"], scope["path"])
        except TidemillError as error:
            answer = refused(error)
        else:
            slow = inference.slow(scope["path"])
            answer = await asyncio.to_thread(checked, call, headers, body) if slow else checked(call, headers, body)
        kind = b"application/json" if answer.head is None else b"application/octet-stream"
        told = [(b"content-type", kind), (b"content-length", b"%d" % len(answer.body)), (b"x-content-type-options", b"nosniff")]
        if answer.head is not None:
            told.append((b"inference-header-content-length", b"%d" % answer.head))
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": answer.body})

    return app
