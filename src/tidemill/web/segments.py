"""Segments of native clients over HTTP: one call, whose body is a stretch of a segment, taken in once."""

import asyncio
import struct

import msgspec

from tidemill.core import Damaged, DataError, TidemillError
from tidemill.ledger import Ledger
from tidemill.tracking import SEGMENTS, SEGMENTS_KIND, Shipment, ingest, unpack
from tidemill.web.protocol import App, Receive, Scope, Send, error_of, headers_of, read_body, respond

MOST = 64 << 20  # bytes of a stretch; clients send 2 MiB at once where no frame is longer


class Segments:
    """The call over a ledger. What is none of it is left to `otherwise`."""

    def __init__(self, ledger: Ledger, otherwise: App) -> None:
        self.ledger, self.otherwise = ledger, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != SEGMENTS or scope["method"] != "POST":
            return await self.otherwise(scope, receive, send)
        try:
            kind = headers_of(scope).get(b"content-type", b"").decode("latin-1")
            if kind != SEGMENTS_KIND:  # a page of another site cannot say this unasked
                raise DataError(f"Content-Type should be {SEGMENTS_KIND}, not {kind[:100]!r}")
            shipment, data = _unpack(await read_body(receive, MOST))
            receipt = await asyncio.to_thread(ingest, self.ledger, shipment, data)
        except (Damaged, RecursionError) as error:  # of what was sent: nothing here is read
            await respond(send, *error_of(DataError(f"this is no stretch of a segment: {error}")))
        except TidemillError as error:
            await respond(send, *error_of(error))
        else:
            await respond(send, 200, msgspec.json.encode(receipt))


def _unpack(body: bytes) -> tuple[Shipment, bytes]:
    try:
        return unpack(body)
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise DataError(f"this is no stretch of a segment: {error}") from error
