"""The toy project, and its champion behind HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tidemill.core import instant
from tidemill.features import MemoryOnline, OnlineStore
from tidemill.ledger import Branch
from tidemill.serving import AnswerLog, Endpoint, Gateway, gateway_routes, read_log
from tidemill.session.session import open_endpoint
from toy import Toy
from toy import copied as copied
from toy import kept as kept
from toy import parcels as parcels
from toy import ready as ready
from toy import replayed as replayed
from toy import toy as toy

TODAY = instant("2026-11-21T12:00:00Z")


@dataclass
class Served:
    """A deployment behind the real routes; `clock` may be set."""

    endpoint: Endpoint
    client: TestClient
    log: Path
    clock: list[int]
    gateway: Gateway

    def ask(self, **body: Any) -> Any:
        """The answer to a body, as (status, JSON)."""
        answer = self.client.post(f"/predict/{self.endpoint.name}", json=body)
        return answer.status_code, answer.json()

    def one(self, **body: Any) -> dict[str, Any]:
        """The prediction for one row."""
        status, answer = self.ask(**body)
        assert status == 200, answer
        (prediction,) = answer["predictions"]
        return dict(prediction)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return list(read_log(self.log))


Serve = Callable[..., Served]


@pytest.fixture
def serve(replayed: tuple[Toy, Branch], tmp_path: Path) -> Serve:
    """Open the replayed deployment: `online` is its store, `client_time` whether a request may state its own time,
    `keep` the share of answers that are logged with their features."""
    toy, branch = replayed

    def opened(online: OnlineStore | None = None, *, client_time: bool = True, log: Path | None = None, keep: float = 1.0) -> Served:
        endpoint = open_endpoint(toy.ledger, toy.declared, branch, online)
        path, clock = log or tmp_path / "log" / "late.jsonl", [TODAY]
        gateway = Gateway({"late": endpoint}, {"late": AnswerLog(path, keep)}, lambda: clock[0], client_time)
        return Served(endpoint, TestClient(Starlette(routes=[*gateway_routes(gateway)])), path, clock, gateway)

    return opened


@pytest.fixture
def served(serve: Serve) -> Served:
    """Answered from the offline path."""
    return serve()


@pytest.fixture
def online() -> MemoryOnline:
    return MemoryOnline()
