"""Files over HTTP: MLflow's artifact proxy, up and down in constant memory, with ranges, and never as something that a browser runs."""

import asyncio
import mimetypes
import os
import posixpath
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from tidemill.core import DataError, TidemillError
from tidemill.ledger import Ledger
from tidemill.tracking import check_path, delete_files, files_of_model, files_of_run, find_file, list_files, place_of, put_file
from tidemill.web.protocol import App, Receive, Scope, Send, error_of, respond

PROXY = "/mlflow-artifacts/artifacts"
CHUNK = 1 << 20
SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"accept-ranges", b"bytes"),
]


class Files:
    """The proxy over a ledger's blobs. What is none of its paths is left to `otherwise`."""

    def __init__(self, ledger: Ledger, otherwise: App) -> None:
        self.ledger, self.otherwise = ledger, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        act = self._find(scope) if scope["type"] == "http" else None
        if act is None:
            return await self.otherwise(scope, receive, send)
        try:
            await act(scope, receive, send)
        except TidemillError as error:
            await respond(send, *error_of(error))

    def _find(self, scope: Scope) -> Callable[..., Any] | None:
        raw = scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or scope["path"]
        method = scope["method"]
        found = re.match(r"/(?:ajax-)?api/2\.0(/.*)", raw)
        own = found[1] if found else raw
        if own == PROXY and method == "GET":
            return self._list
        if own.startswith(f"{PROXY}/"):
            scope["artifact"] = unquote(own[len(PROXY) + 1 :])
            return {"GET": self._download, "HEAD": self._download, "PUT": self._upload, "DELETE": self._delete}.get(method)
        plain = {
            ("GET", "/get-artifact"): self._of_run,
            ("POST", "/mlflow/upload-artifact"): self._upload_to_run,
        }
        if (method, own) in plain:
            return plain[method, own]
        model = re.fullmatch(r"/mlflow/logged-models/([^/]+)/artifacts/files", own)
        if model and method == "GET":
            scope["model"] = unquote(model[1])
            return self._of_model
        return None

    # ── the proxy ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _query(scope, "path")
        files = list_files(self.ledger, path)
        await respond(send, 200, msgspec.json.encode({"files": files} if files else {}))

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._store(scope["artifact"], receive)
        await respond(send, 200, b"{}")

    async def _store(self, path: str, receive: Receive) -> None:
        check_path(path)
        part = self.ledger.blobs.part()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DataError("the upload ended before its end")
                part.write(message.get("body", b""))
                if not message.get("more_body"):
                    break
            put_file(self.ledger, path, part)
        finally:
            part.discard()

    async def _delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        delete_files(self.ledger, scope["artifact"])
        await respond(send, 200, b"{}")

    async def _download(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_file(scope["artifact"], scope, send)

    # ── by run and by model ─────────────────────────────────────────────────────────────────────────────────────

    async def _of_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_run(self.ledger, _query(scope, "run_id") or _query(scope, "run_uuid")))
        await self._send_file(posixpath.join(root, check_path(_query(scope, "path"))), scope, send)

    async def _of_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_model(self.ledger, scope["model"]))
        await self._send_file(posixpath.join(root, check_path(_query(scope, "artifact_file_path"))), scope, send)

    async def _upload_to_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_run(self.ledger, _query(scope, "run_uuid") or _query(scope, "run_id")))
        await self._store(posixpath.join(root, check_path(_query(scope, "path"))), receive)
        await respond(send, 200, b"{}")

    async def _send_file(self, path: str, scope: Scope, send: Send) -> None:
        digest, size = find_file(self.ledger, path)
        name = posixpath.basename(path)
        start, end, status = _range(scope, size)
        quoted = name.encode("ascii", "replace").decode().replace('"', "'")
        headers = [
            (b"content-type", (mimetypes.guess_type(name)[0] or "application/octet-stream").encode()),
            (b"content-length", str(end - start).encode()),
            (b"content-disposition", f'attachment; filename="{quoted}"'.encode()),
            *SAFE,
        ]
        if status == 206:
            headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["method"] == "HEAD" or end == start:
            await send({"type": "http.response.body", "body": b""})
            return
        handle = os.open(self.ledger.blobs.path(digest), os.O_RDONLY)
        try:
            while start < end:
                piece = os.pread(handle, min(CHUNK, end - start), start)
                if not piece:
                    break
                start += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": start < end})
                await asyncio.sleep(0)  # others are not kept waiting
        finally:
            os.close(handle)


def _query(scope: Scope, name: str) -> str:
    found: list[str] = parse_qs(scope["query_string"].decode(), keep_blank_values=True).get(name, [""])
    return found[-1]


def _range(scope: Scope, size: int) -> tuple[int, int, int]:
    """(start, end, status) of what is asked for; a range that cannot be is the whole file."""
    text = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"range"), "")
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if match is None or not (match[1] or match[2]) or not size:
        return 0, size, 200
    if not match[1]:
        return max(size - int(match[2]), 0), size, 206
    start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    return (start, end, 206) if start < end else (0, size, 200)
