"""Files over HTTP: MLflow's artifact proxy, up and down in constant memory, with ranges, and never as something that a browser runs."""

import asyncio
import mimetypes
import os
import posixpath
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import msgspec

from tidemill.core import DataError, TidemillError
from tidemill.ledger import Ledger
from tidemill.registry import download_uri
from tidemill.store import Part
from tidemill.tracking import (
    abort_upload,
    begin_upload,
    check_path,
    complete_upload,
    delete_files,
    files_of_model,
    files_of_run,
    find_file,
    keep_part,
    list_files,
    place_of,
    put_file,
)
from tidemill.web.protocol import App, Receive, Scope, Send, error_of, headers_of, promptly, query_of, read_body, refuse_form, respond

PROXY = "/mlflow-artifacts/artifacts"
_PREFIX = re.compile("^/(ajax-)?api/2[.]0(?=/)")
CHUNK = 1 << 20
MOST_ASKED = 4 << 20  # bytes of a request that is no file
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
        own = _PREFIX.sub("", raw)
        if own == PROXY and method == "GET":
            return self._list
        if own.startswith(f"{PROXY}/"):
            scope["artifact"] = unquote(own[len(PROXY) + 1 :])
            return {"GET": self._download, "HEAD": self._download, "PUT": self._upload, "DELETE": self._delete}.get(method)
        plain = {
            ("GET", "/get-artifact"): self._of_run,
            ("GET", "/model-versions/get-artifact"): self._of_version,
            ("POST", "/mlflow/upload-artifact"): self._upload_to_run,
            ("POST", "/mlflow/artifacts/presigned-upload-url"): self._presign,
            ("POST", "/mlflow/artifacts/presigned-download-url"): self._presign,
        }
        if (method, own) in plain:
            return plain[method, own]
        parts = re.fullmatch(r"/mlflow-artifacts/(mpu/create|mpu/complete|mpu/abort|presigned|parts)/(.+)", own)
        if parts:
            scope["artifact"] = unquote(parts[2])
            return {
                ("POST", "mpu/create"): self._begin,
                ("POST", "mpu/complete"): self._complete,
                ("POST", "mpu/abort"): self._abort,
                ("PUT", "parts"): self._part,
                ("GET", "presigned"): self._presigned,
            }.get((method, parts[1]))
        model = re.fullmatch(r"/mlflow/logged-models/([^/]+)/artifacts/files", own)
        if model and method == "GET":
            scope["model"] = unquote(model[1])
            return self._of_model
        return None

    # ── the proxy ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _query(scope, "path")
        files = await asyncio.to_thread(list_files, self.ledger, path)
        await respond(send, 200, msgspec.json.encode({"files": files} if files else {}))

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._store(scope["artifact"], receive)
        await respond(send, 200, b"{}")

    async def _store(self, path: str, receive: Receive) -> None:
        check_path(path)
        part, size = await self._received(receive)
        try:
            await self._keep(size, put_file, path, part)
        finally:
            part.discard()

    async def _keep(self, size: int, act: Callable[..., Any], *given: Any) -> Any:
        """What hashes and writes `size` bytes: of more than a moment's work in a thread, so that others are not kept waiting."""
        run = asyncio.to_thread if size > CHUNK else partial(promptly, self.ledger.records)
        return await run(act, self.ledger, *given)

    async def _received(self, receive: Receive) -> tuple[Part, int]:
        """The body of a request, in constant memory, and its size; raises DataError when the client went away."""
        part, size = self.ledger.blobs.part(), 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DataError("the upload ended before its end")
                data = message.get("body", b"")
                part.write(data)
                size += len(data)
                if not message.get("more_body"):
                    return part, size
        except BaseException:
            part.discard()
            raise

    async def _delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        await promptly(self.ledger.records, delete_files, self.ledger, scope["artifact"])
        await respond(send, 200, b"{}")

    async def _download(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_file(scope["artifact"], scope, receive, send)

    # ── in parts, and by addresses that are handed out ──────────────────────────────────────────────────────────

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = await _asked(scope, receive)
        place = posixpath.join(scope["artifact"], posixpath.basename(ask.path))
        upload = await promptly(self.ledger.records, begin_upload, self.ledger, place, ask.num_parts)
        root = f"{_address(scope)}/api/2.0/mlflow-artifacts/parts/{upload}"
        parts = [{"url": f"{root}/{number}", "part_number": number, "headers": {}} for number in range(1, ask.num_parts + 1)]
        await respond(send, 200, msgspec.json.encode({"upload_id": upload, "credentials": parts}))

    async def _part(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload, _, number = scope["artifact"].partition("/")
        part, size = await self._received(receive)
        try:
            digest = await self._keep(size, keep_part, upload, int(number) if re.fullmatch("[0-9]{1,5}", number) else 0, part)
        finally:
            part.discard()
        await respond(send, 200, b"{}", headers=[(b"etag", f'"{digest}"'.encode())])

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = await _asked(scope, receive)
        place = posixpath.join(scope["artifact"], posixpath.basename(ask.path))
        given = [(one.part_number, one.etag) for one in ask.parts]
        await asyncio.to_thread(complete_upload, self.ledger, ask.upload_id, place, given)
        await respond(send, 200, b"{}")

    async def _abort(self, scope: Scope, receive: Receive, send: Send) -> None:
        await promptly(self.ledger.records, abort_upload, self.ledger, (await _asked(scope, receive)).upload_id)
        await respond(send, 200, b"{}")

    async def _presigned(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, size = find_file(self.ledger, scope["artifact"])
        url = f"{_address(scope)}/api/2.0{PROXY}/{quote(scope['artifact'])}"
        await respond(send, 200, msgspec.json.encode({"url": url, "headers": {}, "file_size": size}))

    async def _presign(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The proxy's own address: this server has no users yet, so there is nothing to sign."""
        ask = await _asked(scope, receive)
        root = files_of_model(self.ledger, ask.model_id) if ask.model_id else files_of_run(self.ledger, ask.run_id)
        path = posixpath.join(place_of(root), check_path(ask.path))
        found: dict[str, Any] = {"presigned_url": f"{_address(scope)}/api/2.0{PROXY}/{quote(path)}", "headers": {}}
        if scope["path"].endswith("download-url"):
            found["file_size"] = find_file(self.ledger, path)[1]
        await respond(send, 200, msgspec.json.encode(found))

    # ── by run and by model ─────────────────────────────────────────────────────────────────────────────────────

    async def _of_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_run(self.ledger, _query(scope, "run_id") or _query(scope, "run_uuid")))
        await self._send_file(posixpath.join(root, check_path(_query(scope, "path"))), scope, receive, send)

    async def _of_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_model(self.ledger, scope["model"]))
        await self._send_file(posixpath.join(root, check_path(_query(scope, "artifact_file_path"))), scope, receive, send)

    async def _of_version(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (self.ledger, _query(scope, "name"), _query(scope, "version"))
        root = place_of(await promptly(self.ledger.records, download_uri, *asked))
        await self._send_file(posixpath.join(root, check_path(_query(scope, "path"))), scope, receive, send)

    async def _upload_to_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = place_of(files_of_run(self.ledger, _query(scope, "run_uuid") or _query(scope, "run_id")))
        await self._store(posixpath.join(root, check_path(_query(scope, "path"))), receive)
        await respond(send, 200, b"{}")

    async def _send_file(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        digest, size = find_file(self.ledger, path)
        name = posixpath.basename(path)
        start, end, status = _range(scope, size)
        if status == 416:
            headers = [(b"content-range", f"bytes */{size}".encode())]
            return await respond(
                send, 416, b'{"error_code":"INVALID_PARAMETER_VALUE","message":"the range begins behind the end"}', headers=headers
            )
        blobs = self.ledger.blobs  # what is missing or damaged is told before the answer has begun
        held = blobs.get(digest) if size <= CHUNK else await asyncio.to_thread(blobs.path, digest)
        quoted = re.sub(r"[^ -~]", "?", name).replace('"', "'")
        headers = [
            (b"content-type", _kind(posixpath.splitext(name)[1])),
            (b"content-length", str(end - start).encode()),
            (b"content-disposition", f'attachment; filename="{quoted}"'.encode()),
            *SAFE,
        ]
        if status == 206:
            headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
        end = start if scope["method"] == "HEAD" else end
        head = {"type": "http.response.start", "status": status, "headers": headers}
        if isinstance(held, memoryview):
            await send(head)
            await send({"type": "http.response.body", "body": bytes(held[start:end])})
            return None
        handle = os.open(held, os.O_RDONLY)
        try:
            await send(head)
            await _send_pieces(handle, start, end, receive, send)
        finally:
            os.close(handle)


@lru_cache(1_000)
def _kind(ending: str) -> bytes:
    """The content type of a file, by the ending of its name."""
    return (mimetypes.guess_type(f"a{ending}")[0] or "application/octet-stream").encode()


async def _send_pieces(handle: int, start: int, end: int, receive: Receive, send: Send) -> None:
    left = asyncio.ensure_future(_left(receive))
    more = True
    try:
        while more and not left.done():
            piece = os.pread(handle, min(CHUNK, end - start), start)
            if not piece and start < end:
                return  # the file was cut while it was read: the client misses bytes that the head of the answer promised
            start += len(piece)
            more = start < end
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            if more:
                await asyncio.sleep(0)  # others are not kept waiting
    finally:
        left.cancel()


async def _left(receive: Receive) -> None:
    """Wait until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _PartOf(msgspec.Struct):
    """A part that a client says it has sent."""

    part_number: int
    etag: str = ""
    url: str = ""


class _Ask(msgspec.Struct):
    """What a call about an upload or an address says; each reads its own of it."""

    path: str = ""
    num_parts: int = 1
    upload_id: str = ""
    parts: list[_PartOf] = []
    run_id: str = ""
    model_id: str = ""
    expiration: int = 0


async def _asked(scope: Scope, receive: Receive) -> _Ask:
    refuse_form(scope)
    try:
        return msgspec.json.decode(await read_body(receive, MOST_ASKED) or b"{}", type=_Ask, strict=False)
    except RecursionError:
        raise DataError("Invalid request: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Invalid request: {error}") from error


def _address(scope: Scope) -> str:
    """How the client called this server, which is where it can come back to."""
    host = headers_of(scope).get(b"host", b"").decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{host}"


def _query(scope: Scope, name: str) -> str:
    found: list[str] = parse_qs(query_of(scope), keep_blank_values=True).get(name, [""])
    return found[-1]


def _range(scope: Scope, size: int) -> tuple[int, int, int]:
    """(start, end, status) of what is asked for; what is no range of one piece is the whole file (RFC 9110, 14.2)."""
    match = re.fullmatch(rb"bytes=([0-9]{0,18})-([0-9]{0,18})", headers_of(scope).get(b"range", b"").strip())
    if match is None or not (match[1] or match[2]) or not size:
        return 0, size, 200
    if not match[1]:
        return max(size - int(match[2]), 0), size, 206
    start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    return (start, end, 206) if start < end else (0, size, 416 if start >= size else 200)
