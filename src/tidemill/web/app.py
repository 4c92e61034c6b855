"""The server of `tidemill up`: the gateway's routes, and the pages."""

import logging
import time
from collections import Counter
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidemill.core import Damaged, StoreError, TidemillError, UnknownName
from tidemill.serving import AnswerLog, Endpoint, Gateway, gateway_routes, reply, route, unrouted
from tidemill.session import Session, log_of, now, online_store
from tidemill.web.report import render_report
from tidemill.web.server import run_server
from tidemill.web.status import render_status
from tidemill.web.tracking import only_local, tracking_app

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
            if deployment["name"] in self.gateway.endpoints:
                endpoint = self.gateway.endpoints[deployment["name"]]
                deployment["url"] = f"{self.url}/predict/{endpoint.name}"
                deployment["curl"] = curl_line(self.url, endpoint.name, *self.example(endpoint.name))
                deployment["report"] = f"/report/{endpoint.name}" if deployment["months"] else ""
        counts = sum((Counter(endpoint.counts) for endpoint in self.gateway.endpoints.values()), Counter[str]())
        return found | {"served": {"requests": sum(n for rung, n in counts.items() if ":" not in rung), "by_rung": counts}}

    def example(self, name: str) -> tuple[dict[str, str], str]:
        """A request that can be answered: the key of the newest one, at a time that the online store knows; where everything that is
        looked up has expired by then, at its own."""
        from tidemill.core import duration, show
        from tidemill.features import SEPARATOR, FeatureView

        endpoint = self.gateway.endpoints[name]
        row = len(endpoint.requests) - 1
        parts = endpoint.requests.keys[row].decode().split(SEPARATOR)
        own, now = int(endpoint.requests.at[row]), int(self.session.serving[name].branch.state["now"])
        views = [view for view in endpoint.reader.views if isinstance(view, FeatureView)]
        kept = max((duration(length) for view in views for length in (*view.windows, *([view.ttl] if view.ttl else []))), default=0)
        at = show(own if now - own > kept > 0 else max(own, now)) if self.gateway.client_time else ""
        return dict(zip(endpoint.dataset.keys, parts, strict=True)), at

    async def home(self, request: Request) -> Response:
        return page(render_status(self.status()))

    async def status_json(self, request: Request) -> Response:
        return reply(self.status())

    async def report(self, request: Request) -> Response:
        """The report of the branch that serves a deployment; without a name, of the first."""
        serving = self.session.serving
        name = request.path_params.get("name", next(iter(serving)))
        if name not in serving:
            raise UnknownName(f"no deployment {name!r} serves", available=sorted(serving))
        branch, declared = serving[name].branch, self.session.project
        if not branch.result:
            raise UnknownName("the live branch has no report", hint="run `tidemill replay` for one of the past")
        names = {name: str(declared.settings[f"project.{name}"]) for name in ("name", "objective", "owner", "positive")}
        model = str(branch.parts["model"]["name"])
        return page(render_report(branch.result, project=names, policy="", model=model, timezone=declared.timezone))


def curl_line(url: str, name: str, key: dict[str, str], at: str) -> str:
    """A line to copy."""
    import json
    import shlex

    body = json.dumps({"rows": [key]} | ({"at": at} if at else {}))
    return f"curl -s {url}/predict/{name} -d {shlex.quote(body)}"


class Current:
    """The endpoints of what serves now: when a run promotes a version, the next request finds it, without a restart."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.endpoints: dict[str, Endpoint] = {}
        self.logs: dict[str, AnswerLog] = {}
        self._marks: dict[str, object] = {}
        self._looked = -LOOK_AGAIN
        try:
            self.store = online_store(session.project)
            self.refresh()
        except Damaged:
            raise
        except StoreError as error:
            error.hint += f"; a server writes its online store and the log of answers below {session.project.state}"
            raise

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
                self.logs.setdefault(name, AnswerLog(log_of(self.session.project, name)))


def make_app(session: Session, url: str, *, clock: Callable[[], int] = now) -> Starlette:
    """The application over a session. The online store is brought up to the end of the branch first."""
    current = Current(session)
    gateway = Gateway(current.endpoints, current.logs, clock, bool(session.project.settings["serve.client_time"]), current.refresh)
    pages = Pages(session, gateway, url)
    own = [
        route("GET", "/", pages.home, requires="read"),
        route("GET", "/status.json", pages.status_json, requires="read"),
        route("GET", "/report", pages.report, requires="read"),
        route("GET", "/report/{name}", pages.report, requires="read"),
    ]
    local = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "testserver"])  # no other site's name for us
    app = Starlette(routes=[*gateway_routes(gateway), *own], middleware=[local], exception_handlers={HTTPException: unrouted})
    app.state.gateway = gateway
    return app


def serve(session: Session, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve a project until interrupted, MLflow's protocol included; `ready` is told the address."""
    ledger = session.project.ledger()
    try:
        run_server(lambda url: only_local(tracking_app(ledger, make_app(session, url))), host, port, ready)
    finally:
        ledger.records.close()
