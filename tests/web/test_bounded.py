"""A server that has enough to do turns away what comes, says so, and tells how it is doing."""

import asyncio
import json
from typing import Any

from tidemill.web.attended import attended
from tidemill.web.direct import bounded


class Client:
    """One request to an application, and what it was told."""

    def __init__(self, app: Any, path: str = "/predict/late") -> None:
        self.told: list[Any] = []
        self.task = asyncio.ensure_future(app({"type": "http", "method": "POST", "path": path, "headers": []}, self.receive, self.send))

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b""}

    async def send(self, message: Any) -> None:
        self.told.append(message)

    @property
    def status(self) -> int:
        return int(self.told[0]["status"])


def test_what_comes_beyond_is_turned_away_at_once_and_room_comes_back() -> None:
    async def run() -> None:
        let = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await let.wait()
            if scope["path"] == "/broken":
                raise RuntimeError
            await send({"type": "http.response.start", "status": 200, "headers": []})

        app = attended(bounded(slow, 2), 60.0)
        first, broken = Client(app), Client(app, "/broken")
        await asyncio.sleep(0)
        third = Client(app)
        await third.task
        assert third.status == 503
        assert dict(third.told[0]["headers"])[b"retry-after"] == b"1"
        told = json.loads(third.told[1]["body"])
        assert "2 requests are under way" in told["error"]
        assert dict(third.told[0]["headers"])[b"content-length"] == b"%d" % len(third.told[1]["body"])
        health = [Client(app, path) for path in ("/v2/health/live", "/metrics", "/status.json")]
        await asyncio.sleep(0)
        let.set()
        await asyncio.gather(first.task, broken.task, *(one.task for one in health), return_exceptions=True)
        assert [one.status for one in (first, *health)] == [200] * 4
        again = [Client(app), Client(app)]
        await asyncio.gather(*(one.task for one in again))
        assert [one.status for one in again] == [200] * 2, "also of the one that broke"

    asyncio.run(run())
