"""A request on its way through the framework: who waits for it, until when, and what is answered where that is over or something breaks."""

import asyncio
import logging
import time
from typing import Any

from tidemill.core import TidemillError
from tidemill.serving import CALLER, ENDLESS, REQUEST, Caller, Headers, Reply, exceeded, refused
from tidemill.web.wire import BEGUN, GONE

log = logging.getLogger(__name__)
LIMITED = ("/predict/", "/v2", "/features", "/feedback/")  # what is answered in a moment; a file may take its time


def attended(app: Any, most: float) -> Any:
    """An application whose answers are there within so many seconds at the `most`, or within those that the client says: 504 otherwise.
    What was sent as `x-request-id` is told with the answer. What escapes it is a bug: it is logged, and told as a 500."""

    async def attend(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        limited = scope["path"].startswith(LIMITED)
        caller = Caller(headers, most if limited else ENDLESS, scope.get(BEGUN) or time.monotonic(), scope.get(GONE) or _here)
        CALLER.set(caller)
        limit, begun = asyncio.timeout(None), False

        async def tell(message: Any) -> None:
            nonlocal begun
            if not begun and not limit.expired():
                limit.reschedule(None)  # half an answer would be none
            begun = True
            await send(_named(message, headers))

        try:
            if limited:
                caller.heed()
                limit = asyncio.timeout(caller.left)
            async with limit:
                await app(scope, receive, tell)
                return
        except TidemillError as error:
            answer = refused(error)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                answer = refused(exceeded())
            else:
                log.exception("route=%s a request could not be answered", scope["path"])
                answer = Reply(500, b'{"error":"the server failed; its log says why"}')
        if not begun:  # otherwise the connection is cut
            head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
            await send(_named({"type": "http.response.start", "status": answer.status, "headers": head}, headers))
            await send({"type": "http.response.body", "body": answer.body})

    return attend


def _here() -> bool:
    return False


def _named(message: Any, headers: Headers) -> Any:
    """With the client's own id, where it sent one."""
    if REQUEST not in headers or "headers" not in message:
        return message
    return {**message, "headers": [*message["headers"], (REQUEST, headers[REQUEST])]}
