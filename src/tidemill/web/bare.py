"""Bare models on a port: the inference protocol's hot path below the web framework, the rest as an application."""

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from tidemill import __version__
from tidemill.core import TidemillError
from tidemill.serving import CLIENT_GONE, LARGE, MOST, Call, Counts, Inference, Reply, Repository, beside, of_protocol, refused
from tidemill.web.attended import attended
from tidemill.web.direct import MOST_SECONDS, MOST_UNDER_WAY, bounded, checked, led
from tidemill.web.metrics import CONTENT, Calls, Family, Traffic, exposition, measured, of_caches, of_models, of_process
from tidemill.web.place import Place
from tidemill.web.rpc import remote
from tidemill.web.server import Beside, Ready, run_server

KINDS = {"/docs": b"text/html; charset=utf-8", "/openapi.json": b"application/json", "/metrics": CONTENT.encode()}


def serve_models(
    models: Repository,
    host: str,
    port: int,
    ready: Ready,
    grpc_port: int | None = None,
    place: Place | None = None,
    most_seconds: float = MOST_SECONDS,
) -> None:
    """Serve bare models until interrupted, over gRPC too where a port for it is given; `ready` is told the addresses, the
    second empty where there is none. `place` is that of this process where it is one of several; an answer takes `most_seconds`."""
    here = place or Place()
    inference, traffic, calls, most = (
        Inference(models, __version__),
        Traffic(here.counters),
        Calls(here.counters),
        here.share(MOST_UNDER_WAY),
    )
    for one in models:
        one.counts = Counts(here.counters, one.name, one.version)

    def caches() -> Iterable[Family]:
        return of_caches("model", [(one.name, getattr(one.model, "cache", None)) for one in models])

    def families() -> Iterable[Family]:
        return [*traffic.families(), *calls.families(), *of_models(models), *caches(), *of_process(__version__, here.counters, here.parent)]

    def make(url: str) -> Any:
        app = application(inference, url, families)
        return measured(attended(bounded(app, most), most_seconds), traffic)

    def beside() -> AbstractContextManager[Beside]:
        return remote(inference, host, grpc_port, calls=calls, most=most, seconds=most_seconds, place=here)

    run_server(make, host, port, ready, partial(led, inference.quick, traffic), beside, here)


def application(inference: Inference, url: str, metrics: Callable[[], Iterable[Family]] = tuple) -> Any:
    """The routes as an ASGI application at an address, and what is measured; a slow model runs beside the event loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers, parts, size, more = dict(scope["headers"]), list[bytes](), 0, True
        while more and size <= MOST:
            message = await receive()
            if message["type"] == "http.disconnect":  # in the middle of its body
                await send({"type": "http.response.start", "status": CLIENT_GONE, "headers": []})
                return
            parts.append(message.get("body", b""))  # to join them each time would copy all that came before
            size, more = size + len(parts[-1]), message.get("more_body", False)
        body = b"".join(parts)
        kind = KINDS.get(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
        try:
            call = _beside(inference, url, metrics, scope["path"]) if kind else inference.call(scope["method"], scope["path"])
        except TidemillError as error:
            answer = refused(error)
        else:
            slow = len(body) > LARGE or inference.slow(scope["path"])
            found = await beside(checked, call, headers, body) if slow else checked(call, headers, body)
            assert found is not None  # nothing of a bare model is put off
            answer = found
        if kind is None or answer.status != 200:
            kind = b"application/json" if answer.head is None else b"application/octet-stream"
        told = [(b"content-type", kind), (b"content-length", b"%d" % len(answer.body)), (b"x-content-type-options", b"nosniff")]
        if answer.allow:
            told.append((b"allow", answer.allow.encode()))
        if answer.head is not None:
            told.append((b"inference-header-content-length", b"%d" % answer.head))
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": answer.body})

    return app


def _beside(inference: Inference, url: str, metrics: Callable[[], Iterable[Family]], path: str) -> Call:
    """What is measured; what can be asked, for programs or for people."""
    if path == "/metrics":
        return lambda headers, sent: Reply(200, exposition(metrics()))
    from tidemill.web.openapi import document, render_docs

    operations, title = of_protocol(inference.models), ", ".join(dict.fromkeys(one.name for one in inference.models))
    if path == "/docs":
        body = render_docs(operations, title, url).encode()
    else:
        body = json.dumps(document(operations, title, __version__, url)).encode()
    return lambda headers, sent: Reply(200, body)
