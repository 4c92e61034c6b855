"""A request on its way through the framework: who waits for it, until when, and what is answered where that is over or something breaks."""

import asyncio
import logging
import time
from typing import Any

from tidemill.core import TidemillError
from tidemill.serving import CALLER, CLIENT_GONE, ENDLESS, REQUEST, Caller, Reply, exceeded, refused, tracer
from tidemill.web.direct import RETRY
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
        more = _more(caller, scope)
        CALLER.set(caller)
        limit, status = asyncio.timeout(None), 0

        async def tell(message: Any) -> None:
            nonlocal status
            if not status and not limit.expired():
                limit.reschedule(None)  # half an answer would be none
            if "status" in message:
                status = _status(caller, message["status"])
                message = message if status == message["status"] else {**message, "status": status}
            told = [*more, RETRY] if message.get("status") == 503 else more
            await send({**message, "headers": [*message["headers"], *told]} if told and "headers" in message else message)

        async def answered() -> Reply | None:
            """What is to be told in place of the application's own answer."""
            nonlocal limit
            try:
                if limited:
                    caller.heed()
                    limit = asyncio.timeout(caller.left)
                async with limit:
                    await app(scope, receive, tell)
                    return None
            except TidemillError as error:
                return refused(error)
            except Exception as error:
                if isinstance(error, TimeoutError) and limit.expired():
                    return refused(exceeded())
                if caller.watch:
                    caller.watch.fail(error)
                log.exception("route=%s a request could not be answered", scope["path"])
                return Reply(500, b'{"error":"the server failed; its log says why"}')

        answer = await answered()
        if answer is not None and not status:  # otherwise the connection is cut
            status = _status(caller, answer.status)
            head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body)), *more]
            head += [RETRY] if status == 503 else []
            await send({"type": "http.response.start", "status": status, "headers": head})
            await send({"type": "http.response.body", "body": answer.body})
        if caller.watch:
            caller.watch.end(status, caller.about)

    return attend


def _status(caller: Caller, status: int) -> int:
    """What is counted and logged: nobody hears of an answer whose client went away. A bug stays one."""
    return CLIENT_GONE if status != 500 and caller.gone() else status


def _here() -> bool:
    return False


def _more(caller: Caller, scope: Any) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that say which request it is to. The span of the request begins."""
    headers, watching = caller.headers, tracer()
    caller.watch = watching.http(scope["method"], scope["path"], headers) if watching else None
    told = [(b"traceresponse", caller.watch.told)] if caller.watch else []
    return told + ([(REQUEST, headers[REQUEST])] if REQUEST in headers else [])
