"""HTTP: a plain form for people, entity keys in, and the Open Inference Protocol v2, features in.

Every route says what it requires; `routes` refuses one that does not. Errors are `{"error": …}` with the fitting code.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as HttpRoute

from tidemill.core import DataError, DefinitionError, Refused, TidemillError, UnknownName, show
from tidemill.features import FeatureView, Getter
from tidemill.serving.answers import Answer
from tidemill.serving.asking import FEW
from tidemill.serving.caller import caller, request_of
from tidemill.serving.counters import Counters
from tidemill.serving.deployed import Deployments
from tidemill.serving.endpoint import MAX_ROWS, Endpoint
from tidemill.serving.features import FEATURES_PATH, Features
from tidemill.serving.feedback import Feedback, FeedbackLog
from tidemill.serving.inference import HEAD, MODELS, MOST, Headers, Inference, QuickCall, Reply
from tidemill.serving.log import AnswerLog, spliced
from tidemill.serving.operations import PROTOCOL, Example, Operation, of_protocol
from tidemill.serving.refusals import CLIENT_GONE, MAX_BODY, check_origin, told, too_large, zoned
from tidemill.serving.repository import Begun
from tidemill.serving.threads import beside

PREDICT, FEATURES = b"/predict/", FEATURES_PATH.encode()
SHORT, MEDIUM = 1 << 10, 1 << 14  # bytes of a body with a few rows, and with a few rows of tensors
EXAMPLE = '{"rows": [{"id": "…"}]}'
REQUIRES = ("open", "predict", "read")
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]
_encode = msgspec.json.Encoder().encode


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """`{"rows": [{"flight_id": "…"}], "at": "2013-05-01T12:00:00Z"}`; without `at` the prediction time is now."""

    rows: list[dict[str, Any]]
    at: str | list[str] | None = None
    explain: bool = False


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """`{"rows": [{"id": "…", "label": 1, "comment": "…"}]}`"""

    rows: list[Feedback]


@dataclass(frozen=True)
class Gateway:
    """Endpoints by name, their logs, the clock, whether a client may state its own prediction time, and when (`due`) and how to look
    for versions that were promoted since. `waits`: reading the online store waits for another machine; `version` is that of the server."""

    endpoints: Mapping[str, Endpoint]
    logs: Mapping[str, AnswerLog]
    clock: Callable[[], int]
    client_time: bool
    due: Callable[[], bool] = lambda: False
    refresh: Callable[[], None] = lambda: None
    features: Features | None = None
    waits: bool = False
    version: str = ""
    counters: Counters = field(default_factory=Counters)

    async def endpoint(self, request: Request) -> Endpoint:
        """The endpoint that a path names; raises UnknownName."""
        if self.due():
            await beside(self.refresh)  # others are not kept waiting
        name = request.path_params["name"]
        if name not in self.endpoints:
            raise UnknownName(f"no deployment is named {name!r}", available=sorted(self.endpoints))
        return self._asked(self.endpoints[name])

    def _asked(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint, which the server's log names from now on."""
        asked = caller()
        asked.deployment, asked.version = endpoint.name, endpoint.standing.champion[0]
        return endpoint

    async def protocol(self, request: Request) -> Response:
        """Any route of the inference protocol."""
        if self.due():
            await beside(self.refresh)
        body, headers = await read(request, MOST), dict(request.scope["headers"])
        call = self.inference.call(request.method, request.scope["path"])
        found = await beside(call, headers, body) if body else call(headers, body)  # others are not kept waiting
        assert found is not None
        told = {"x-content-type-options": "nosniff", **({"allow": found.allow} if found.allow else {})}
        if found.head is None:
            return Response(found.body, found.status, told, "application/json")
        return Response(found.body, found.status, told | {HEAD.decode(): str(found.head)}, "application/octet-stream")

    @cached_property
    def inference(self) -> Inference:
        """The protocol over the deployments."""
        return Inference(Deployments(self.endpoints, self.logs, self.clock, self.counters), self.version)

    @cached_property
    def _feedback(self) -> dict[Path, FeedbackLog]:
        """Those that were written to; one that is opened for each request would tell each time that the disk refuses."""
        return {}

    async def predict(self, request: Request) -> Response:
        """Entity keys in, features looked up at the request's time, predictions out, logged before they leave."""
        begun, endpoint, now = time.perf_counter_ns(), await self.endpoint(request), self.clock()
        asked = await decode(request, Ask)
        times = self._times(asked, now)
        keep = self.logs[endpoint.name].keep
        if len(asked.rows) <= FEW and endpoint.quick and not self.waits:
            answers = await endpoint.answered(asked.rows, times, explain=asked.explain, keep=keep)
        else:  # others are not kept waiting
            answers = await beside(partial(endpoint.answer, asked.rows, times, explain=asked.explain, keep=keep))
        caller().check()  # what is in the log was told
        return reply(self._logged(endpoint, answers, now, begun, dict(request.scope["headers"])))

    async def feedback(self, request: Request) -> Response:
        """Labels and comments by the ids of answers, in the log before it is acknowledged."""
        endpoint, now = await self.endpoint(request), self.clock()
        asked = await decode(request, Told, '{"rows": [{"id": "…", "label": 1}]}')
        if not 0 < len(asked.rows) <= MAX_ROWS:
            raise DataError(f"{len(asked.rows)} rows were sent; between 1 and {MAX_ROWS} are taken at once")
        answers = self.logs[endpoint.name].path
        log = self._feedback[answers] = self._feedback.get(answers) or FeedbackLog(answers)
        added = await beside(log.add, asked.rows, now)
        return reply({"deployment": endpoint.name, "added": added, "labelled_at": show(now)})

    def quick(self, method: bytes, address: bytes, size: int) -> QuickCall | None:
        """What answers requests with bodies of so many bytes before others could be kept waiting; None for any other. Where a call turns
        out to take longer, or it is to be looked whether other versions serve, it gives None."""
        if self.features and address.startswith(FEATURES):
            call = self.features.quick(method, address, size)
        elif address.startswith(MODELS.encode()):
            call = self.inference.quick(method, address, size) if size <= MEDIUM else None
        elif method == b"POST" and address.startswith(PREDICT) and size <= SHORT and not self.waits:
            call = partial(self._at_once, address[len(PREDICT) :].decode("ascii", "replace"))
        else:
            call = None
        return partial(self._unless_due, call) if call else None

    def _unless_due(self, call: QuickCall, headers: Headers, body: bytes, now: bool) -> Reply | Begun | None:
        return None if self.due() else call(headers, body, now)

    def _at_once(self, name: str, headers: Headers, body: bytes, now: bool) -> Reply | None:
        endpoint = self.endpoints.get(name)
        if endpoint is None or not endpoint.prompt:
            return None
        begun, came, asked = time.perf_counter_ns(), self.clock(), decoded(body, Ask)
        self._asked(endpoint)
        answers = endpoint.answer(asked.rows, self._times(asked, came), explain=asked.explain, keep=self.logs[endpoint.name].keep)
        return Reply(200, self._logged(endpoint, answers, came, begun, headers))

    def _logged(self, endpoint: Endpoint, answers: Sequence[Answer], now: int, begun: int, headers: Headers) -> bytes:
        """What is told of answers, once they are in the log."""
        name = request_of(headers)
        request = {"request": name} if name else {}
        ids, told = self.logs[endpoint.name].add(answers, now, endpoint.standing.branch, begun=begun, route="predict", **request)
        asked, views = caller(), len(endpoint.reader.logs)
        asked.version, asked.rung, asked.prediction = answers[0].version, answers[0].rung, ids[0]
        more = [answer.beside(views) for answer in answers]
        whole = [spliced(one, _encode(other)) if other else one for one, other in zip(told, more, strict=True)]
        return spliced(_encode({"deployment": endpoint.name, **request}), b'{"predictions":[%b]}' % b",".join(whole))

    def _times(self, asked: Ask, now: int) -> list[int]:
        if asked.at is None:
            return [now] * len(asked.rows)
        if not self.client_time:
            raise Refused(
                "a request may not state its own time here", hint="leave out `at`, or set serve.client_time = true in tidemill.toml"
            )
        if isinstance(asked.at, str):
            return [zoned(asked.at)] * len(asked.rows)
        if len(asked.at) != len(asked.rows):
            raise DataError(f"`at` has {len(asked.at)} times for {len(asked.rows)} rows", hint="send one time, or one for each row")
        return [zoned(time, f"at[{i}]") for i, time in enumerate(asked.at)]


def reply(body: Any, status: int = 200) -> Response:
    """A JSON answer; bytes are that already."""
    headers = {"x-content-type-options": "nosniff"}
    return Response(body if isinstance(body, bytes) else _encode(body), status, headers, "application/json")


async def decode(request: Request, kind: type[T], example: str = EXAMPLE) -> T:
    """The body as a typed value; raises DataError with the path of the fault. A missing content type counts as JSON."""
    return decoded(await read(request, MAX_BODY), kind, example)


async def read(request: Request, most: int) -> bytes:
    """The body; raises DataError where it has more bytes than that."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_large(most)
    return b"".join(parts)


def decoded(body: bytes, kind: type[T], example: str = EXAMPLE) -> T:
    """A body as a typed value; raises DataError with the path of the fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = error if body.strip() else "it is empty"
        raise DataError(f"the body is not what is expected: {what}", hint=f"for example {example}") from error


def guarded(handler: Handler) -> Handler:
    """Turn our errors into answers; another error is a bug and stays one (500). What a page of another site sends is refused."""

    async def guard(request: Request) -> Response:
        try:
            check_origin(request.headers.get("origin"), request.headers.get("host"), request.url.path)
            return await handler(request)
        except ClientDisconnect:  # in the middle of its body
            return Response(status_code=CLIENT_GONE)
        except TidemillError as error:
            status, body = told(error)
            return reply(body, status)

    return guard


async def unrouted(request: Request, error: Exception) -> Response:
    """The answer where no route leads (404) or none by this method (405), in the form of all errors, with the routes that there are."""
    assert isinstance(error, HTTPException)
    routes = request.app.routes
    path = next((one.path for one in routes if one.matches(request.scope)[0] is not Match.NONE), "")  # a version may look like a longer one
    methods = sorted({method for one in routes if one.path == path for method in one.methods})
    known = methods or [f"{min(one.methods)} {one.path}" for one in routes]  # min: GET before HEAD
    found = UnknownName(f"{request.method} {request.url.path}: {error.detail.lower()}", available=sorted(known))
    answer = reply({"error": str(found), "detail": found.data()}, error.status_code)
    answer.headers.update(error.headers or {})
    if methods:
        answer.headers["Allow"] = ", ".join(methods)
    return answer


def route(method: str, path: str, handler: Handler | Features, *, requires: str) -> HttpRoute:
    """A route that says what it requires; raises DefinitionError for one that does not."""
    if requires not in REQUIRES:
        raise DefinitionError(f"route {method} {path} does not say what it requires", available=list(REQUIRES))
    endpoint = handler if isinstance(handler, Features) else guarded(handler)
    return HttpRoute(path, endpoint, methods=[method], name=f"{requires}:{path}")


def _none(views: Sequence[str]) -> Getter:
    raise UnknownName(f"there is no view {', '.join(views)}", hint="ask a server of a project that declares views")


def gateway_routes(gateway: Gateway) -> list[HttpRoute]:
    """The routes that serving offers; those of many small requests first."""
    features = gateway.features or Features(lambda views: None, _none)
    return [
        route("POST", FEATURES_PATH, features, requires="read"),
        route("GET", FEATURES_PATH, features, requires="read"),
        route("POST", "/predict/{name}", gateway.predict, requires="predict"),
        route("POST", "/feedback/{name}", gateway.feedback, requires="predict"),
        *(route(one.method, one.path.replace("{version}", "{version:path}"), gateway.protocol, requires=one.requires) for one in PROTOCOL),
    ]


def gateway_operations(gateway: Gateway, newest: Mapping[str, tuple[Mapping[str, str], str]]) -> list[Operation]:
    """What the gateway answers, with examples that work. `newest` is of each deployment the key of a request that can be answered, and the
    time to ask at, empty for now."""
    rows, getting, posting = list[Example](), list[Example](), list[Example]()
    for name, (key, at) in newest.items():
        path, when = f"/predict/{quote(name, safe='')}", {"at": at} if at else {}
        rows.append(Example("the key of a known request", path, {"rows": [key], **when}))
        rows.append(Example("with the features that it rests on", path, {"rows": [key], **when, "explain": True}))
        for view, keys in _views(gateway.endpoints[name]):
            getting.append(Example(f"the newest features of {view}", f"{FEATURES_PATH}?{urlencode({'view': view, **keys})}"))
            posting.append(Example(f"the newest features of {view}", FEATURES_PATH, {"views": [view], "rows": [keys]}))
    errors, known = (400, 403, 404, 503, 504), {"name": [*newest]}
    of, about = "Features by entity key", "Labels and comments by the ids of answers"  # without an example: it would be a label
    return [
        Operation(
            "POST",
            "/predict/{name}",
            "predict",
            "Predictions",
            "Keys in, features looked up, predictions out",
            "Predictions",
            "PredictRequest",
            errors,
            known,
            (),
            rows,
        ),
        Operation("POST", "/feedback/{name}", "predict", "Feedback", about, "Feedback", "FeedbackRequest", (400, 404, 503, 504), known),
        Operation("GET", FEATURES_PATH, "read", of, "The newest features of one row", "Features", "", errors, {}, ("view", "at"), getting),
        Operation("POST", FEATURES_PATH, "read", of, "The newest features of rows", "Features", "FeaturesRequest", errors, {}, (), posting),
        *of_protocol(gateway.inference.models),
    ]


def _views(endpoint: Endpoint) -> Iterator[tuple[str, dict[str, str]]]:
    """The views that are looked up, and the keys of the newest request; those that it has not are left out."""
    known = endpoint.rows.known
    newest = known.take([len(known) - 1]) if len(known) else known
    texts = {name: column.texts()[0] for name, column in newest.texts.items() if len(newest)}
    for view in endpoint.reader.views:
        if isinstance(view, FeatureView):
            keys = {key: texts.get(key) for key in view.entity.keys}
            found = {key: text for key, text in keys.items() if text is not None}
            if len(found) == len(keys):
                yield view.name, found
