"""HTTP: the Open Inference Protocol v2 (JSON) over the feature matrix, and a plain form for people, entity keys in.

Every route says what it requires; `routes` refuses one that does not. Errors are `{"error": …}` with the fitting code.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as HttpRoute

from tidemill.core import DataError, DefinitionError, Floats, Refused, TidemillError, UnknownName
from tidemill.features import Getter
from tidemill.models import Signature
from tidemill.serving.answers import Answer
from tidemill.serving.endpoint import FEW, Endpoint
from tidemill.serving.features import FEATURES_PATH, Features
from tidemill.serving.inference import Call, Headers, Reply
from tidemill.serving.log import AnswerLog
from tidemill.serving.refusals import MAX_BODY, check_origin, told, too_large, zoned

PREDICT, FEATURES = b"/predict/", FEATURES_PATH.encode()
SHORT = 1 << 10  # bytes of a body with a few rows
REQUIRES = ("open", "predict", "read")
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """`{"rows": [{"flight_id": "…"}], "at": "2013-05-01T12:00:00Z"}`; without `at` the prediction time is now."""

    rows: list[dict[str, Any]]
    at: str | list[str] | None = None
    explain: bool = False


class Tensor(msgspec.Struct):
    """A named tensor of the protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Infer(msgspec.Struct):
    """A request of the protocol."""

    inputs: list[Tensor]
    id: str = ""


@dataclass(frozen=True)
class Gateway:
    """Endpoints by name, their logs, the clock, whether a client may state its own prediction time, and when (`due`) and how to look
    for versions that were promoted since. `waits`: reading the online store waits for another machine."""

    endpoints: Mapping[str, Endpoint]
    logs: Mapping[str, AnswerLog]
    clock: Callable[[], int]
    client_time: bool
    due: Callable[[], bool] = lambda: False
    refresh: Callable[[], None] = lambda: None
    features: Features | None = None
    waits: bool = False

    async def endpoint(self, request: Request) -> Endpoint:
        """The endpoint that a path names; raises UnknownName."""
        if self.due():
            await run_in_threadpool(self.refresh)  # others are not kept waiting
        name = request.path_params["name"]
        if name not in self.endpoints:
            raise UnknownName(f"no deployment is named {name!r}", available=sorted(self.endpoints))
        return self.endpoints[name]

    async def live(self, request: Request) -> Response:
        return reply({"live": True})

    async def ready(self, request: Request) -> Response:
        return reply({"ready": bool(self.endpoints)}, 200 if self.endpoints else 503)

    async def server(self, request: Request) -> Response:
        return reply({"name": "tidemill", "version": "2", "extensions": []})

    async def model_ready(self, request: Request) -> Response:
        return reply({"name": (await self.endpoint(request)).name, "ready": True})

    async def metadata(self, request: Request) -> Response:
        """Names, shapes and types of a deployment's inputs and outputs."""
        endpoint = await self.endpoint(request)
        width = len(endpoint.predictors[endpoint.standing.champion[1]].signature.features)
        one = {"name": "features", "datatype": "FP64", "shape": [-1, width]}
        out = {"name": "probability", "datatype": "FP64", "shape": [-1, 1]}
        label = endpoint.standing.champion[0]
        return reply({"name": endpoint.name, "versions": [label], "platform": "onnx", "inputs": [one], "outputs": [out]})

    async def infer(self, request: Request) -> Response:
        """The champion over a feature matrix: rows in, probabilities out. Nothing is looked up and nothing is logged."""
        endpoint = await self.endpoint(request)
        asked = await decode(request, Infer)
        label, digest = endpoint.standing.champion
        predictor = endpoint.predictors[digest]
        answer = predictor.predict(_matrix(asked.inputs, predictor.signature))
        output = {"name": "probability", "datatype": "FP64", "shape": [len(answer), 1], "data": answer.tolist()}
        return reply({"model_name": endpoint.name, "model_version": label, "id": asked.id, "outputs": [output]})

    async def predict(self, request: Request) -> Response:
        """Entity keys in, features looked up at the request's time, predictions out, logged before they leave."""
        endpoint, now = await self.endpoint(request), self.clock()
        asked = await decode(request, Ask)
        times = self._times(asked, now)
        keep = self.logs[endpoint.name].keep
        if len(asked.rows) <= FEW and endpoint.quick and not self.waits:
            answers = await endpoint.answered(asked.rows, times, explain=asked.explain, keep=keep)
        else:  # others are not kept waiting
            answers = await run_in_threadpool(partial(endpoint.answer, asked.rows, times, explain=asked.explain, keep=keep))
        return reply(self._logged(endpoint, answers, now))

    def quick(self, method: bytes, address: bytes, size: int) -> Call | None:
        """What answers a request with a body of so many bytes before others could be kept waiting; None for any other. Where a call turns
        out to take longer, it gives None."""
        if self.features and address.startswith(FEATURES):
            return self.features.quick(method, address, size)
        if method != b"POST" or not address.startswith(PREDICT) or size > SHORT or self.waits or self.due():
            return None
        endpoint = self.endpoints.get(address[len(PREDICT) :].decode("ascii", "replace"))
        return partial(self._at_once, endpoint) if endpoint and endpoint.prompt else None

    def _at_once(self, endpoint: Endpoint, headers: Headers, body: bytes) -> Reply:
        now, asked = self.clock(), decoded(body, Ask)
        answers = endpoint.answer(asked.rows, self._times(asked, now), explain=asked.explain, keep=self.logs[endpoint.name].keep)
        return Reply(200, msgspec.json.encode(self._logged(endpoint, answers, now)))

    def _logged(self, endpoint: Endpoint, answers: Sequence[Answer], now: int) -> dict[str, Any]:
        """What is told of answers, once they are in the log."""
        self.logs[endpoint.name].append(answers, now, endpoint.standing.branch)
        views = len(endpoint.reader.logs)
        return {"deployment": endpoint.name, "predictions": [answer.plain(views) for answer in answers]}

    def _times(self, asked: Ask, now: int) -> list[int]:
        if asked.at is None:
            return [now] * len(asked.rows)
        if not self.client_time:
            raise Refused(
                "a request may not state its own time here", hint="leave out `at`, or set serve.client_time = true in tidemill.toml"
            )
        times = [asked.at] * len(asked.rows) if isinstance(asked.at, str) else asked.at
        if len(times) != len(asked.rows):
            raise DataError(f"`at` has {len(times)} times for {len(asked.rows)} rows", hint="send one time, or one for each row")
        return [zoned(time) for time in times]


def _matrix(inputs: Sequence[Tensor], signature: Signature) -> Floats:
    if len(inputs) != 1 or inputs[0].datatype not in ("FP64", "FP32", "INT64", "INT32"):
        raise DataError("one numeric input is needed", where="inputs", available=[f"{one.name} {one.datatype}" for one in inputs])
    tensor, width = inputs[0], len(signature.features)
    if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 0:
        raise DataError(f"the input has shape {tensor.shape}; [rows, {width}] is needed", where="inputs[0].shape")
    try:
        values = np.array([np.nan if value is None else value for value in _flat(tensor.data)], dtype=np.float64)
        matrix = values.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the data do not fill the shape {tensor.shape}: {error}", where="inputs[0].data") from error
    for i in signature.categorical:
        name, codes = signature.features[i], matrix[:, i]
        odd = codes[~np.isnan(codes) & ~np.isin(codes, np.arange(len(signature.categories[name])))]
        if len(odd):
            what = f"{name} has the code {odd[0]:g}; its vocabulary has {len(signature.categories[name])} texts, the first is 0"
            raise DataError(what, where="inputs[0].data", hint="send null for a text that the model does not know")
    return matrix


def _flat(data: Sequence[Any]) -> list[Any]:
    return [value for item in data for value in (item if isinstance(item, list) else [item])]


def reply(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    headers = {"x-content-type-options": "nosniff"}
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def decode(request: Request, kind: type[T]) -> T:
    """The body as a typed value; raises DataError with the path of the fault. A missing content type counts as JSON."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise too_large()
    return decoded(body, kind)


def decoded(body: bytes, kind: type[T]) -> T:
    """A body as a typed value; raises DataError with the path of the fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the body is not what is expected: {error}", hint='for example {"rows": [{"id": "…"}]}') from error


def guarded(handler: Handler) -> Handler:
    """Turn our errors into answers; another error is a bug and stays one (500). What a page of another site sends is refused."""

    async def guard(request: Request) -> Response:
        try:
            check_origin(request.headers.get("origin"), request.headers.get("host"), request.url.path)
            return await handler(request)
        except ClientDisconnect:  # in the middle of its body: nobody reads an answer
            return Response(status_code=400)
        except TidemillError as error:
            status, body = told(error)
            return reply(body, status)

    return guard


async def unrouted(request: Request, error: Exception) -> Response:
    """The answer where no route leads (404) or none by this method (405), in the form of all errors, with the routes that there are."""
    assert isinstance(error, HTTPException)
    routes = request.app.routes
    methods = sorted({method for one in routes if one.matches(request.scope)[0] is not Match.NONE for method in one.methods})
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
        route("GET", "/v2", gateway.server, requires="open"),
        route("GET", "/v2/health/live", gateway.live, requires="open"),
        route("GET", "/v2/health/ready", gateway.ready, requires="open"),
        route("GET", "/v2/models/{name}", gateway.metadata, requires="read"),
        route("GET", "/v2/models/{name}/ready", gateway.model_ready, requires="open"),
        route("POST", "/v2/models/{name}/infer", gateway.infer, requires="predict"),
        route("POST", "/predict/{name}", gateway.predict, requires="predict"),
    ]
