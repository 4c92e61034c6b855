"""Hostile or damaged input: one answer that says what is wrong, and no exception of the server's own."""

import asyncio
import os
import struct
import threading
from typing import Any

import pytest

from tidemill.ledger import Ledger
from tidemill.tracking import SEGMENTS, SEGMENTS_KIND
from tidemill.web.protocol import App
from tidemill.web.tracking import tracking_app

FILES = "/api/2.0/mlflow-artifacts/artifacts"
CREATE = "/api/2.0/mlflow/runs/create"
LOG = "/api/2.0/mlflow/runs/log-metric"
JSON = [(b"content-type", b"application/json")]
DEEP = b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
NULLS = b'{"run_name":null,"tags":' + b"[" * 600 + b"]" * 600 + b"}"


def call(
    ledger: Ledger, method: str, path: str, *, query: bytes = b"", headers: Any = JSON, body: bytes = b""
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Status, body and headers of the one answer to a request."""
    return asyncio.run(ask(tracking_app(ledger), method, path, query=query, headers=headers, body=body))


async def ask(
    app: App, method: str, path: str, *, query: bytes = b"", headers: Any = JSON, body: bytes = b""
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """As `call`, beside others."""
    sent: list[Any] = []
    size = 1 << 16
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    waiting = [{"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)} for i, piece in enumerate(pieces)]

    async def receive() -> dict[str, Any]:
        while not waiting:  # the client stays
            await asyncio.sleep(3600)
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "headers": headers}
    await app(scope, receive, send)
    assert [one["type"] for one in sent].count("http.response.start") == 1, "one answer"
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]), dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "body", [DEEP, NULLS, b"\xff\xfe", b'{"run_name":"\xff"}', b'{"x":null,"run_name":"\\ud800","tags":null}', b"9" * 5000]
)
@pytest.mark.parametrize("path", [CREATE, "/api/2.0/mlflow-artifacts/mpu/create/0", LOG])
def test_a_body_that_is_nonsense_is_a_bad_request_or_an_empty_one(ledger: Ledger, path: str, body: bytes) -> None:
    status, answer, _ = call(ledger, "POST", path, body=body)
    assert status in ((400,) if path == LOG else (200, 400)), answer


def test_a_query_that_is_no_text_is_a_bad_request(ledger: Ledger) -> None:
    for path in ("/get-artifact", "/api/2.0/mlflow/runs/get"):
        status, answer, _ = call(ledger, "GET", path, query=b"run_id=\xff")
        assert (status, b"no UTF-8" in answer) == (400, True)


def test_numbers_of_thousands_of_digits_are_no_numbers(ledger: Ledger) -> None:
    assert call(ledger, "PUT", f"{FILES}/0/a.bin", body=b"x" * 10)[0] == 200
    found = call(ledger, "GET", f"{FILES}/0/a.bin", headers=[(b"range", b"bytes=" + b"9" * 5000 + b"-")])
    assert found[:2] == (200, b"x" * 10), "a range that cannot be is the whole file"
    assert call(ledger, "PUT", f"/api/2.0/mlflow-artifacts/parts/x/{'9' * 5000}", body=b"x")[0] == 404


def test_a_name_cannot_write_headers(ledger: Ledger) -> None:
    assert call(ledger, "PUT", f"{FILES}/0/a%0d%0aset-cookie:b", body=b"x")[0] == 200
    headers = call(ledger, "GET", f"{FILES}/0/a%0d%0aset-cookie:b")[2]
    assert headers[b"content-disposition"] == b'attachment; filename="a??set-cookie:b"'


@pytest.mark.parametrize("size", [10, 100_000, 3 << 20])
def test_a_file_whose_bytes_are_damaged_or_gone_is_one_error(folder_ledger: Ledger, size: int) -> None:
    assert call(folder_ledger, "PUT", f"{FILES}/0/a.bin", body=b"x" * size)[0] == 200
    (digest,) = folder_ledger.blobs.digests()
    path = folder_ledger.blobs.folder / digest[:2] / digest[2:]  # type: ignore[attr-defined]
    os.truncate(path, size // 2)
    assert call(folder_ledger, "GET", f"{FILES}/0/a.bin")[:2] == (
        503,
        b'{"error_code":"TEMPORARILY_UNAVAILABLE","message":"blob %s is not what was written"}' % digest[:12].encode(),
    )
    path.unlink()
    assert call(folder_ledger, "GET", f"{FILES}/0/a.bin")[0] == 404
    assert call(folder_ledger, "PUT", f"{FILES}/0/a.bin", body=b"x" * size)[0] == 200
    assert call(folder_ledger, "GET", f"{FILES}/0/a.bin")[:2] == (200, b"x" * size)


def test_a_large_file_is_not_read_on_for_a_client_that_went_away(folder_ledger: Ledger) -> None:
    assert call(folder_ledger, "PUT", f"{FILES}/0/a.bin", body=b"x" * (5 << 20))[0] == 200
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": f"{FILES}/0/a.bin", "query_string": b"", "headers": []}
    asyncio.run(tracking_app(folder_ledger)(scope, receive, send))
    assert [len(one.get("body", b"")) >> 20 for one in sent] == [0, 1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        struct.pack("<I", 12) + b'{"segment":"a","head":[',
        struct.pack("<I", 3) + b"\xff\xff\xff",
        struct.pack("<I", len(DEEP)) + DEEP,
    ],
)
def test_nonsense_for_a_segment_is_a_bad_request(ledger: Ledger, body: bytes) -> None:
    status, answer, _ = call(ledger, "POST", SEGMENTS, headers=[(b"content-type", SEGMENTS_KIND.encode())], body=body)
    assert (status, b"no stretch of a segment" in answer) == (400, True)


def test_a_write_that_waits_for_another_keeps_nobody_else_waiting(folder_ledger: Ledger) -> None:
    app, held, release = tracking_app(folder_ledger), threading.Event(), threading.Event()

    def hold() -> None:
        with folder_ledger.records.transaction():
            held.set()
            release.wait(60)

    async def both() -> None:
        waiting = asyncio.create_task(ask(app, "POST", CREATE, body=b'{"experiment_id":"0"}'))
        sent = asyncio.create_task(ask(app, "PUT", f"{FILES}/0/a.bin", body=b"x" * 100_000 + b"y" * 500_000))
        await asyncio.sleep(0)  # both begin
        assert (await ask(app, "GET", "/health"))[:2] == (200, b"OK")
        assert not waiting.done()
        release.set()
        assert (await waiting)[0] == (await sent)[0] == 200

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    asyncio.run(both())
    thread.join()
    assert call(folder_ledger, "GET", f"{FILES}/0/a.bin")[1] == b"x" * 100_000 + b"y" * 500_000
