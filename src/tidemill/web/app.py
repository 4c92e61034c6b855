"""The server of `tidemill up`: the gateway's routes, and the pages."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidemill.core import Busy, Refused, TidemillError, UnknownName
from tidemill.serving import AnswerLog, Endpoint, Gateway, gateway_routes, reply, route
from tidemill.session import Session, now, online_store
from tidemill.web.report import render_report
from tidemill.web.status import render_status

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

log = logging.getLogger(__name__)
LOOK_AGAIN = 2.0  # seconds


def page(html: str) -> Response:
    """A page that can neither load nor send anything."""
    return HTMLResponse(html, headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})


class Pages:
    """The pages of one session."""

    def __init__(self, session: Session, gateway: Gateway, url: str) -> None:
        self.session, self.gateway, self.url = session, gateway, url

    def status(self) -> dict[str, object]:
        """The status with what only the server knows: its address, and what it has answered."""
        self.gateway.refresh()
        found = self.session.status()
        for deployment in found["deployments"]:
            endpoint = self.gateway.endpoints[deployment["name"]]
            deployment["url"] = f"{self.url}/predict/{endpoint.name}"
            deployment["curl"] = curl_line(self.url, endpoint.name, *self.example(endpoint.name))
        counts = sum((Counter(endpoint.counts) for endpoint in self.gateway.endpoints.values()), Counter[str]())
        return found | {"served": {"requests": sum(n for rung, n in counts.items() if ":" not in rung), "by_rung": counts}}

    def example(self, name: str) -> tuple[dict[str, str], str]:
        """A request that can be answered: the key of the newest one, and its own prediction time."""
        from tidemill.core import show
        from tidemill.features import SEPARATOR

        endpoint = self.gateway.endpoints[name]
        row = len(endpoint.requests) - 1
        parts = endpoint.requests.keys[row].decode().split(SEPARATOR)
        at = show(int(endpoint.requests.at[row])) if self.gateway.client_time else ""
        return dict(zip(endpoint.dataset.keys, parts, strict=True)), at

    async def home(self, request: Request) -> Response:
        return page(render_status(self.status()))

    async def status_json(self, request: Request) -> Response:
        return reply(self.status())

    async def report(self, request: Request) -> Response:
        """The report of the branch that serves."""
        branch = self.session.branch
        settings = self.session.project.settings
        names = {name: str(settings[f"project.{name}"]) for name in ("name", "objective", "owner")}
        if not branch.result:
            raise UnknownName("the live branch has no report", hint="run `tidemill replay` for one of the past")
        html = render_report(
            branch.result, project=names, policy="", model=str(branch.parts["model"]["name"]), timezone=self.session.project.timezone
        )
        return page(html)


def curl_line(url: str, name: str, key: dict[str, str], at: str) -> str:
    """A line to copy."""
    import json
    import shlex

    body = json.dumps({"rows": [key]} | ({"at": at} if at else {}))
    return f"curl -s {url}/predict/{name} -d {shlex.quote(body)}"


class Current:
    """The endpoints of what serves now: when a run promotes a version, the next request finds it, without a restart."""

    def __init__(self, session: Session) -> None:
        self.session, self.store = session, online_store(session.project)
        self.endpoints: dict[str, Endpoint] = {}
        self.logs: dict[str, AnswerLog] = {}
        self._marks: dict[str, object] = {}
        self._looked = -LOOK_AGAIN
        self.refresh()

    def refresh(self) -> None:
        """Look again, at most every other second; an endpoint is replaced when its branch has moved."""
        if time.monotonic() - self._looked < LOOK_AGAIN:
            return
        self._looked = time.monotonic()
        try:
            handles = self.session.deployments
        except TidemillError as error:
            if not self.endpoints:
                raise
            log.warning("deployments=%s kept error=%s", ",".join(self.endpoints), error.what)
            return  # a ledger that cannot be read is no reason not to answer
        for name, handle in handles.items():
            mark = (handle.branch.id, handle.branch.state, handle.branch.parts)
            if self._marks.get(name) != mark:
                try:
                    endpoint = handle.endpoint(self.store)
                except TidemillError as error:
                    if name not in self.endpoints:
                        raise
                    log.warning("deployment=%s kept=%s error=%s", name, self.endpoints[name].standing.champion[0], error.what)
                    continue  # what serves is sound: it goes on
                endpoint.reader.materialise(int(handle.branch.state["now"]))
                endpoint.counts = self.endpoints[name].counts if name in self.endpoints else endpoint.counts
                self.endpoints[name], self._marks[name] = endpoint, mark
                self.logs.setdefault(name, AnswerLog(self.session.project.state / "log" / f"{name}.jsonl"))


def make_app(session: Session, url: str, *, clock: Callable[[], int] = now) -> Starlette:
    """The application over a session. The online store is brought up to the end of the branch first."""
    current = Current(session)
    gateway = Gateway(current.endpoints, current.logs, clock, bool(session.project.settings["serve.client_time"]), current.refresh)
    pages = Pages(session, gateway, url)
    own = [
        route("GET", "/", pages.home, requires="read"),
        route("GET", "/status.json", pages.status_json, requires="read"),
        route("GET", "/report", pages.report, requires="read"),
    ]
    local = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "testserver"])  # no other site's name for us
    app = Starlette(routes=[*gateway_routes(gateway), *own], middleware=[local])
    app.state.gateway = gateway
    return app


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; raises Refused for an address that others can reach, and Busy for a port that is taken."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise Refused(f"without users, the server binds to this machine only, not to {host}", hint="leave serve.host at 127.0.0.1")
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # with the protocol named, answers leave without delay
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)  # before the address is told: who is quick waits, and is not turned away
    except OSError as error:
        listener.close()
        raise Busy(f"port {port} is taken: {error.strerror}", where=host, hint="choose another: --port 0 takes a free one") from error
    with listener:
        yield listener


def serve(session: Session, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is told the address."""
    import uvicorn
    import uvloop

    with bound(host, port) as listener:
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        config = uvicorn.Config(make_app(session, url), log_level="warning", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        ready(url)
        uvloop.run(server.serve(sockets=[listener]))
