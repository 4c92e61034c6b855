"""The tracking server: MLflow's protocol over a project's ledger, with its artifact proxy."""

import re
from collections.abc import Callable

from tidemill import registry, tracking
from tidemill.core import Refused
from tidemill.ledger import Ledger
from tidemill.registry import web as registry_web
from tidemill.tracking import web as tracking_web
from tidemill.web.files import Files
from tidemill.web.protocol import App, Protocol, Receive, Scope, Send, error_of, headers_of, respond
from tidemill.web.segments import Segments
from tidemill.web.server import not_from_here, run_server

MLFLOW = "3.3.2"  # what /version tells: from 3.4 on, clients would send spans by OTLP, which is not served
_LOCAL = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?")
_ROOT = b"""A tracking server of Tidemill. It has no pages yet. In the project's folder:
  tidemill runs list        what was logged
  tidemill runs show ID     one run
  tidemill models list      registered models
"""
_PLAIN = {
    "/health": (b"OK", b"text/plain; charset=utf-8"),
    "/version": (MLFLOW.encode(), b"text/plain; charset=utf-8"),
    "/api/3.0/mlflow/server-info": (
        b'{"store_type":"SqlStore","workspaces_enabled":false,"trace_archival_enabled":false,"multipart_uploads_enabled":true,'
        b'"multipart_downloads_enabled":false,"presigned_upload_run_id_supported":false,"presigned_upload_model_id_supported":false}',
        b"application/json",
    ),
}


def tracking_app(ledger: Ledger, otherwise: App | None = None) -> App:
    """The protocol over a ledger; what is none of its paths goes to `otherwise`, and is not found where there is none."""
    inner = otherwise or nothing
    known = _PLAIN if otherwise else {**_PLAIN, "/": (_ROOT, b"text/plain; charset=utf-8")}

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        found = known.get(scope.get("path", "").replace("/ajax-api/", "/api/")) if scope["type"] == "http" else None
        if found is None or scope["method"] not in ("GET", "HEAD"):
            await inner(scope, receive, send)
        else:
            await respond(send, 200, found[0], found[1])

    return Files(ledger, Segments(ledger, protocol(ledger, plain)))


def protocol(ledger: Ledger, otherwise: App | None = None) -> Protocol:
    """The calls of tracking and registry over a ledger, whose tables are made where they are not there yet."""
    tracking.prepare(ledger)
    ledger.records.ensure(registry.tables)
    return Protocol(ledger, [*tracking_web.CALLS, *registry_web.CALLS], otherwise or nothing)


def serve_tracking(ledger: Ledger, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve the protocol over a ledger until interrupted; `ready` is told the address."""
    run_server(lambda url: only_local(tracking_app(ledger)), host, port, lambda url, _: ready(url))


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing is here."""
    if scope["type"] == "http":
        await respond(send, 404, b'{"error_code":"ENDPOINT_NOT_FOUND","message":"nothing is at this path"}')


def only_local(app: App) -> App:
    """Refuse requests that another site's name led here, and changes that a page of another site asks for: the server has no users yet."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = headers_of(scope)
            host, origin = given.get(b"host", b""), given.get(b"origin", b"")
            if not _LOCAL.fullmatch(host):
                return await respond(send, *error_of(Refused(str(not_from_here(host)))))
            strange = (origin and origin.partition(b"://")[2] != host) or given.get(b"sec-fetch-site") == b"cross-site"
            if strange and scope["method"] not in ("GET", "HEAD"):
                return await respond(
                    send, 403, b'{"error_code":"PERMISSION_DENIED","message":"a page of another site may change nothing here"}'
                )
        return await app(scope, receive, send)

    return guarded
