"""The server of `tidemill up`: the gateway's routes, and the pages."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidemill import __version__
from tidemill.core import SECOND, Damaged, StoreError, TidemillError, UnknownName, duration
from tidemill.features import FeatureView, RequestView, View, made_by, space_of
from tidemill.serving import FEATURES_PATH as PATH
from tidemill.serving import (
    AnswerLog,
    Deployment,
    Endpoint,
    Example,
    Features,
    Gateway,
    Operation,
    Shadows,
    gateway_operations,
    gateway_routes,
    rehearse,
    reply,
    route,
    unrouted,
    withheld_by,
)
from tidemill.session import Handle, Session, log_of, now, online_store, shadows_of
from tidemill.web.attended import attended
from tidemill.web.compacting import compacting
from tidemill.web.direct import bounded, led
from tidemill.web.features import Getters
from tidemill.web.metrics import CONTENT, Calls, Traffic, exposition, measured, of_endpoints, of_models, of_process
from tidemill.web.openapi import document, render_docs
from tidemill.web.place import Place
from tidemill.web.protocol import App, Receive, Scope, Send
from tidemill.web.report import render_report
from tidemill.web.rpc import remote
from tidemill.web.server import Beside, Ready, run_server
from tidemill.web.status import render_status
from tidemill.web.tracking import only_local, tracking_app

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
OWN = [
    Operation("GET", path, "read", "Pages", summary, gives, examples=[Example("", path)])
    for path, summary, gives in (
        ("/", "The status page", "text/html"),
        ("/status.json", "The status as an object", "Object"),
        ("/metrics", "What is measured, as Prometheus reads it", "text/plain"),
        ("/docs", "This page", "text/html"),
        ("/openapi.json", "What can be asked, as OpenAPI 3.1", "Object"),
    )
]

log = logging.getLogger(__name__)
LOOK_AGAIN = 2.0  # seconds


def page(html: str) -> Response:
    """A page that can neither load nor send anything."""
    return HTMLResponse(html, headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})


class Pages:
    """The pages of one session."""

    def __init__(self, session: Session, gateway: Gateway, url: str, traffic: Sequence[Traffic], server: int | None = None) -> None:
        """`server`: what started this process, where it is one of several."""
        self.session, self.gateway, self.url, self.traffic, self.server = session, gateway, url, traffic, server

    def status(self) -> dict[str, object]:
        """The status with what only the server knows: its address, and what it has answered."""
        self.gateway.refresh()
        declared = self.session.project
        found = self.session.status() if declared.all(Deployment) else self._of_views()
        for deployment in found["deployments"]:
            if deployment["name"] in self.gateway.endpoints:
                endpoint = self.gateway.endpoints[deployment["name"]]
                deployment["url"] = f"{self.url}/predict/{endpoint.name}"
                deployment["curl"] = curl_line(self.url, endpoint.name, *self.example(endpoint.name))
                if endpoint.shadow and endpoint.shadows:
                    deployment["shadow"] = {"of": endpoint.shadow.model, **endpoint.shadows.plain()}
                deployment["report"] = f"/report/{endpoint.name}" if deployment["months"] else ""
        counts = sum((Counter(endpoint.ladder.counts) for endpoint in list(self.gateway.endpoints.values())), Counter[str]())
        left_out = [f"{one.name}: {rung}" for one in list(self.gateway.endpoints.values()) for rung in one.ladder.left_out]
        answered = sum(n for rung, n in counts.items() if ":" not in rung)
        return found | {"served": {"requests": answered, "by_rung": counts, "left_out": left_out}}

    def _of_views(self) -> dict[str, Any]:
        """The status of a project that deploys nothing: the views that it answers for."""
        declared = self.session.project
        said = {name: declared.settings[f"project.{name}"] for name in ("name", "objective", "owner", "timezone")}
        views: list[View] = [*declared.all(FeatureView), *declared.all(RequestView)]
        return {"project": said, "deployments": [], "views": [self._view(view) for view in views]}

    def _view(self, view: View) -> dict[str, Any]:
        keys = list(view.entity.keys) if isinstance(view, FeatureView) else []
        asked = "".join(f"&{key}=…" for key in keys)
        ask = f"GET {self.url}{PATH}?view={view.name}{asked}" if keys else f"POST {self.url}{PATH}"
        return {"name": view.name, "of": ", ".join(keys), "features": list(made_by(view)), "description": view.description, "ask": ask}

    def example(self, name: str) -> tuple[dict[str, str], str]:
        """A request that can be answered: the key of the newest one, at a time that the online store knows; where everything that is
        looked up has expired by then, at its own."""
        from tidemill.core import duration, show
        from tidemill.features import LIFETIME, parts_of

        endpoint = self.gateway.endpoints[name]
        row = len(endpoint.rows.known) - 1
        names = endpoint.rows.dataset.keys
        parts = parts_of(endpoint.rows.known.keys[row].decode(), len(names))
        own, now = int(endpoint.rows.known.at[row]), int(self.session.serving[name].branch.state["now"])
        views = [view for view in endpoint.reader.views if isinstance(view, FeatureView)]
        lengths = [length for view in views for length in (*view.windows, view.ttl) if length not in ("", LIFETIME)]
        kept = max(map(duration, lengths), default=0)
        at = show(own if now - own > kept > 0 else max(own, now)) if self.gateway.client_time else ""
        return dict(zip(names, parts, strict=True)), at

    async def home(self, request: Request) -> Response:
        return page(await run_in_threadpool(lambda: render_status(self.status())))  # answers are not kept waiting

    async def status_json(self, request: Request) -> Response:
        return reply(await run_in_threadpool(self.status))

    async def metrics(self, request: Request) -> Response:
        gateway = self.gateway
        own, asked = of_endpoints(gateway.endpoints), of_models(gateway.inference.models)
        process = await run_in_threadpool(lambda: [*of_process(gateway.version, gateway.counters, self.server)])
        families = [*(family for one in self.traffic for family in one.families()), *own, *asked, *process]
        return Response(exposition(families), headers={"content-type": CONTENT, "x-content-type-options": "nosniff"})

    async def openapi(self, request: Request) -> Response:
        """What can be asked, for programs."""
        operations = await run_in_threadpool(self.operations)
        return reply(document(operations, self.session.project.name, __version__, self.url))

    async def docs(self, request: Request) -> Response:
        """The same for people."""
        operations = await run_in_threadpool(self.operations)
        return page(render_docs(operations, self.session.project.name, self.url))

    def operations(self) -> list[Operation]:
        """All that this server answers, but for MLflow's protocol, which has documents of its own."""
        self.gateway.refresh()
        newest = {name: self.example(name) for name, endpoint in list(self.gateway.endpoints.items()) if len(endpoint.rows.known)}
        named = {"name": [*newest]}
        reports = [
            Operation("GET", "/report", "read", "Pages", "The report of the replay that serves the first deployment", codes=[404]),
            Operation("GET", "/report/{name}", "read", "Pages", "The report of a deployment", codes=[404], known=named),
        ]
        return [*gateway_operations(self.gateway, newest), *OWN, *reports]

    async def report(self, request: Request) -> Response:
        """The report of the branch that serves a deployment; without a name, of the first."""
        return page(await run_in_threadpool(self.report_of, request.path_params.get("name", "")))

    def report_of(self, name: str) -> str:
        """The page of a report; raises UnknownName."""
        serving = self.session.serving
        name = name or next(iter(serving))
        if name not in serving:
            raise UnknownName(f"no deployment {name!r} serves", available=sorted(serving))
        branch, declared = serving[name].branch, self.session.project
        if not branch.result:
            raise UnknownName("the live branch has no report", hint="run `tidemill replay` for one of the past")
        names = {name: str(declared.settings[f"project.{name}"]) for name in ("name", "objective", "owner", "positive")}
        model = str(branch.parts["model"]["name"])
        return render_report(branch.result, project=names, policy="", model=model, timezone=declared.timezone)


def curl_line(url: str, name: str, key: dict[str, str], at: str) -> str:
    """A line to copy."""
    import json
    import shlex

    body = json.dumps({"rows": [key]} | ({"at": at} if at else {}))
    return f"curl -s {url}/predict/{name} -d {shlex.quote(body)}"


class Current:
    """The endpoints of what serves now: when a run promotes a version, the next request finds it, without a restart."""

    def __init__(self, session: Session, clock: Callable[[], int] = now, place: Place | None = None) -> None:
        self.session, self.place = session, place or Place()
        self.endpoints: dict[str, Endpoint] = {}
        self.logs: dict[str, AnswerLog] = {}
        self._shadows: dict[str, Shadows] = {}
        self._marks, self._known_until = dict[str, object](), dict[str, int]()
        self._lock, self._looked = Lock(), 0.0
        try:
            self.store = online_store(session.project)
            self.getters = Getters(session, self.store, self.endpoints, clock)
            self._look(starting=True)
        except Damaged:
            raise
        except StoreError as error:
            error.hint += f"; a server writes its online store and the log of answers below {session.project.state}"
            raise

    def due(self) -> bool:
        """Whether it is time to look again: at most every other second."""
        return time.monotonic() - self._looked >= LOOK_AGAIN

    def refresh(self) -> None:
        """Look again, if it is time; an endpoint is replaced when its branch has moved. Of several threads one looks, and the others
        go on with what there is. Raises nothing of ours: what serves is sound, and goes on."""
        if self.due() and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()

    def _look(self, *, starting: bool = False) -> None:
        self._looked, before = time.monotonic(), self._spaces()
        with self._kept("all", starting=starting):
            handles = self.session.deployments if self.session.project.all(Deployment) else {}
            for name, handle in handles.items():
                with self._kept(name, starting=starting):
                    self._open(name, handle, starting=starting)
            for name, endpoint in self.endpoints.items():
                with self._kept(name, starting=False):
                    if not starting and any(one.made[1] is None for one in endpoint.reader.looked.values()):
                        self._fill(name, endpoint)  # the store lost what it had, as a Redis does that is started anew
                    endpoint.reader.catch_up()
            if self.place.tells if starting else self._spaces() != before:  # of several that start, others may serve what was before
                with self._away(starting=starting):
                    declared = {space_of(view) for view in self.session.project.all(FeatureView)}  # `materialise` may have put them there
                    self.store.keep(self._spaces() | before | declared)  # a request that is under way may still read those before

    @contextmanager
    def _kept(self, name: str, *, starting: bool) -> Iterator[None]:
        """Keep what serves when something cannot be opened; who starts a server is told."""
        try:
            yield
        except TidemillError as error:
            if starting:
                raise
            log.warning("deployment=%s kept error=%s", name, error.what)

    @contextmanager
    def _away(self, *, starting: bool) -> Iterator[None]:
        """Start without a server of online features that is away: until it is back, features are read offline."""
        try:
            yield
        except StoreError as error:
            if not starting or not isinstance(self.session.project.settings.online, str):
                raise
            self._marks.clear()  # and look for it again
            log.warning("online_store=away answered_from=offline error=%s", error.what)

    def _open(self, name: str, handle: Handle, *, starting: bool) -> None:
        mark = (handle.branch.id, handle.branch.state, handle.branch.parts)
        if self._marks.get(name) == mark:
            return
        endpoint = handle.endpoint(self.store)
        # All that is known by now, where the data go on behind the end of a replay: today's requests are answered from the store.
        if name in self.endpoints:
            endpoint.follow(self.endpoints[name])
        else:
            endpoint.ladder.count_in(self.place.counters)
        if endpoint.cache:
            endpoint.cache.count_in(self.place.counters, "deployment", name)
        if name not in self.logs:
            self.logs[name] = self._log(name, endpoint)
        if endpoint.shadow and name not in self._shadows:
            self._shadows[name] = Shadows(shadows_of(self.session.project, name), self.place.counters)
        endpoint.shadows = self._shadows.get(name)
        rehearse(self.session.project.ledger(), endpoint)
        with self._away(starting=starting):
            self._known_until[name] = int(handle.branch.state["now"])
            self._fill(name, endpoint)
            self._marks[name] = mark
        self.endpoints[name] = endpoint
        self.getters.forget()

    def _fill(self, name: str, endpoint: Endpoint) -> None:
        endpoint.reader.materialise(max(self._known_until[name], min(now(), endpoint.reader.newest)))

    def _log(self, name: str, endpoint: Endpoint) -> AnswerLog:
        """The log of a deployment, which keeps what is declared. Raises DefinitionError for names that it does not know."""
        declared = self.session.project
        kept, path, share = declared.get(Deployment, name).log, log_of(declared, name), declared.settings["serve.log_features"]
        if kept is None:
            return AnswerLog(path, float(share))
        keys, features = endpoint.rows.dataset.keys, endpoint.predictors[endpoint.standing.champion[1]].signature.features
        withheld = withheld_by(kept, path.parent, keys, {*endpoint.rows.types, *features})
        return AnswerLog(path, float(share if kept.features is None else kept.features), withheld)

    def _spaces(self) -> set[str]:
        """The spaces of the views that serve."""
        return {one.space for endpoint in self.endpoints.values() for one in endpoint.reader.looked.values()}


def make_app(
    session: Session, url: str, *, clock: Callable[[], int] = now, traffic: Sequence[Traffic] = (), place: Place | None = None
) -> Starlette:
    """The application over a session, of the process at a place. The online store is brought up to what is known by now first."""
    here = place or Place()
    current = Current(session, clock, here)
    client_time = bool(session.project.settings["serve.client_time"])
    waits = isinstance(session.project.settings.online, str)
    features = Features(current.getters.prepared, current.getters.open, client_time, waits, current.due, current.refresh)
    look = current.due, current.refresh
    gateway = Gateway(current.endpoints, current.logs, clock, client_time, *look, features, waits, __version__, here.counters)
    pages = Pages(session, gateway, url, traffic, here.parent)
    own = [
        route("GET", "/", pages.home, requires="read"),
        route("GET", "/status.json", pages.status_json, requires="read"),
        route("GET", "/metrics", pages.metrics, requires="read"),
        route("GET", "/docs", pages.docs, requires="read"),
        route("GET", "/openapi.json", pages.openapi, requires="read"),
        route("GET", "/report", pages.report, requires="read"),
        route("GET", "/report/{name}", pages.report, requires="read"),
    ]
    app = Starlette(routes=[*gateway_routes(gateway), *own], exception_handlers={HTTPException: unrouted})
    app.state.gateway = gateway
    return app


def directly(features: Features, otherwise: App) -> App:
    """Lead what asks for features past all else: a framework takes as long as the answer. In the inference protocol a stroke at the end
    of a path says nothing, and a client need not follow to the path without."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v2/") and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/")}
        quick = scope["type"] == "http" and scope["path"] == PATH and scope["method"] in ("GET", "POST")
        await (features if quick else otherwise)(scope, receive, send)

    return app


def serve(session: Session, host: str, port: int, grpc_port: int | None = None, *, ready: Ready, place: Place | None = None) -> None:
    """Serve a project until interrupted, MLflow's protocol included, its deployments over gRPC too where a port for it is given; `ready` is
    told the addresses. `place` is that of this process where it is one of several."""
    here = place or Place()
    settings = session.project.settings
    gateways, traffic, calls = list[Gateway](), Traffic(here.counters), Calls(here.counters)
    most = here.share(settings["serve.most_under_way"])
    most_seconds = duration(settings["serve.deadline"]) / SECOND
    with ExitStack() as last:
        if not here.number:  # of several processes one is enough
            last.enter_context(compacting(session.project))

        def make(url: str) -> App:
            app = make_app(session, url, traffic=[traffic, calls], place=here)  # first: it says which of its files may not be written
            gateways.append(app.state.gateway)
            ledger = session.project.ledger()
            last.callback(ledger.records.close)
            whole = directly(app.state.gateway.features, tracking_app(ledger, app))
            return only_local(measured(attended(bounded(whole, most), most_seconds), traffic))

        def beside() -> AbstractContextManager[Beside]:
            return remote(gateways[0].inference, host, grpc_port, gateways[0].refresh, calls, most, most_seconds, here)

        run_server(make, host, port, ready, partial(led, lambda *asked: gateways[0].quick(*asked), traffic), beside, here)
