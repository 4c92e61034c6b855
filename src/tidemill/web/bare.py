"""Bare models on a port: the inference protocol's hot path below the web framework, the rest as an application."""

import asyncio
from typing import Any

from tidemill import __version__
from tidemill.core import TidemillError
from tidemill.serving import MOST, Inference, Repository, refused
from tidemill.web.direct import checked, led
from tidemill.web.rpc import remote
from tidemill.web.server import Ready, run_server


def serve_models(models: Repository, host: str, port: int, ready: Ready, grpc_port: int | None = None) -> None:
    """Serve bare models until interrupted, over gRPC too where a port for it is given; `ready` is told the addresses, the
    second empty where there is none."""
    inference = Inference(models, __version__)
    run_server(lambda url: application(inference), host, port, ready, led(inference.quick), lambda: remote(inference, host, grpc_port))


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
            found = await asyncio.to_thread(checked, call, headers, body) if slow else checked(call, headers, body)
            assert found is not None  # nothing of a bare model is put off
            answer = found
        kind = b"application/json" if answer.head is None else b"application/octet-stream"
        told = [(b"content-type", kind), (b"content-length", b"%d" % len(answer.body)), (b"x-content-type-options", b"nosniff")]
        if answer.head is not None:
            told.append((b"inference-header-content-length", b"%d" % answer.head))
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": answer.body})

    return app
