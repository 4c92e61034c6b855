"""The routes of the Open Inference Protocol v2 over models: method, path, headers and body in, a reply out. Nothing of sockets."""

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from tidemill.core import DataError, TidemillError, UnknownName
from tidemill.serving import oip
from tidemill.serving.caller import REQUEST, heed_parameters, request_of
from tidemill.serving.oip import Asked, Found
from tidemill.serving.refusals import told
from tidemill.serving.repository import Begun, Model, Models, Served

MOST = 64 << 20  # bytes of a body, unpacked too
HEAD = b"inference-header-content-length"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
TRITON = {"BYTES": "STRING"}  # what it calls a datatype where it configures a model
MODELS, VERSIONS, INFER, LOADS = "/v2/models/", "/versions/", "/infer", "/v2/repository/models/"
log = logging.getLogger(__name__)
UNWRITTEN = "its log cannot be written"
VERBS = {"config", "infer", "ready", "stats"}
Headers = Mapping[bytes, bytes]  # names in lower case


class Reply(msgspec.Struct):
    """Status and body of an answer; `head` is how many bytes of it are JSON where raw tensors follow, `allow` the methods that a path
    takes where the request had another."""

    status: int
    body: bytes
    head: int | None = None
    allow: str = ""


FAILED = Reply(500, b'{"error":"the server failed; its log says why"}')
Call = Callable[[Headers, bytes], Reply | None]  # raises what is wrong; None: it takes longer than others should wait
# The same, and whether it is to be answered now; else it may be begun, and answered by `finished`.
QuickCall = Callable[[Headers, bytes, bool], Reply | Begun | None]
_encode = msgspec.json.encode


class Inference:
    """What answers each route."""

    def __init__(self, models: Models, version: str) -> None:
        """`version` is that of the server."""
        self.models, self.version = models, version

    def quick(self, method: bytes, path: bytes, size: int) -> QuickCall | None:
        """What answers bodies of so many bytes at once, as long as that does not keep others waiting."""
        named = _named(path.decode("latin-1")) if method == b"POST" and size <= oip.LARGE else None
        return partial(self._at_once, *named) if named else None

    def _at_once(self, name: str, version: str, headers: Headers, body: bytes, now: bool) -> Reply | Begun | None:
        try:
            one = self.models.find(name, version)
        except UnknownName:
            return None
        if one.slow(1) or b"content-encoding" in headers:  # who knows how much it is
            return None
        asked = _read(headers, body)
        if isinstance(one, Served):
            begun = None if now or asked.parameters else one.begin(asked)
            return begun or _answered(one, asked)
        rows = asked.rows
        return None if rows > 1 and one.slow(rows) else _answered(one, asked)  # of one it is known

    def slow(self, path: str) -> bool:
        """Whether others would wait for what a path asks for: an answer that takes long, or a model that is loaded."""
        if path.startswith(LOADS):
            return True
        one = self._asked(path) if path.endswith("/infer") else None
        return one is not None and one.slow(1)

    def _asked(self, path: str) -> Model | None:
        """The model that a path asks for an inference; None where it is another path, or there is none."""
        named = _named(path)
        try:
            return self.models.find(*named) if named else None
        except UnknownName:
            return None

    def call(self, method: str, path: str) -> Call:
        """What answers a route, its path unquoted. Raises UnknownName where none leads."""
        known, models = dict[str, Call](), self.models
        match path.strip("/").split("/"):
            case ["v2"]:
                known["GET"] = _given(self.server())
            case ["v2", "health", "live"]:
                known["GET"] = _given({"live": True})
            case ["v2", "health", "ready"]:
                known["GET"] = _given(*_readiness({}, models.ready, "a model is not loaded, or a log cannot be written"))
            case ["v2", "models", "stats"]:
                known["GET"] = _given({"model_stats": stats([*models])})
            case ["v2", "repository", "index"]:
                known["POST"] = partial(_index, models)
            case ["v2", "repository", "models", name, "load"]:
                known["POST"] = partial(_load, models, name)
            case ["v2", "repository", "models", name, "unload"]:
                known["POST"] = partial(_unload, models, name)
            case ["v2", "models", name, "versions", first, *rest]:  # a version may have strokes in it
                ask = rest[-1:] if {*rest[-1:]} <= VERBS else []
                one = models.find(name, "/".join([first, *rest[: len(rest) - len(ask)]]))
                known = self._of_model(one, ask, [one])
            case ["v2", "models", name, *rest]:
                known = self._of_model(models.find(name), rest, models.versions(name))
        if not known:
            raise UnknownName(f"{method} {path}: not found", hint="GET /v2/models/NAME tells what a model takes")
        if method == "HEAD" and "GET" in known:  # the server of HTTP leaves out the body
            method = "GET"
        if method not in known:
            allow = ", ".join(["GET", "HEAD"] if "GET" in known else known)
            refusal = Reply(405, _encode({"error": f"{path} takes {allow}, not {method}"}), allow=allow)
            return lambda headers, body: refusal
        return known[method]

    def server(self) -> dict[str, Any]:
        """What is told of the server."""
        return {"name": "tidemill", "version": self.version, "extensions": EXTENSIONS}

    def _of_model(self, one: Model, rest: list[str], versions: Sequence[Model]) -> dict[str, Call]:
        match rest:
            case []:
                return {"GET": lambda headers, body: Reply(200, _encode(metadata(one, self.models.versions(one.name))))}
            case ["ready"]:
                return {"GET": _given(*_readiness({"name": one.name}, one.is_ready, UNWRITTEN if one.is_loaded else one.why))}
            case ["config"]:
                return {"GET": lambda headers, body: Reply(200, _encode(configuration(one)))}
            case ["stats"]:
                return {"GET": _given({"model_stats": stats(versions)})}
            case ["infer"]:
                return {"POST": partial(_infer, one)}
        return {}


def _named(path: str) -> tuple[str, str] | None:
    """The model and the version that a path asks for an inference; None where it is another path."""
    if not path.startswith(MODELS) or not path.endswith(INFER):
        return None
    name, _, version = path[len(MODELS) : -len(INFER)].partition(VERSIONS)
    return name, version


def metadata(one: Model, versions: Sequence[Model]) -> dict[str, Any]:
    """What is told of a model that has these versions; raises UnknownName where it is not loaded."""
    takes, gives = ([spec.plain() for spec in specs.values()] for specs in one.tensors())
    plain = {"name": one.name, "versions": [other.version for other in versions], "platform": one.platform}
    return plain | {"inputs": takes, "outputs": gives}


def configuration(one: Model) -> dict[str, Any]:
    """The same as Triton's clients read it, who reckon with a dimension more where `max_batch_size` is not 0; raises UnknownName."""
    takes, gives = (
        [
            {"name": spec.name, "data_type": f"TYPE_{TRITON.get(spec.datatype, spec.datatype)}", "dims": list(spec.shape)}
            for spec in specs.values()
        ]
        for specs in one.tensors()
    )
    return {"name": one.name, "platform": one.platform, "max_batch_size": 0, "input": takes, "output": gives}


def stats(versions: Sequence[Model]) -> list[dict[str, Any]]:
    """What versions answered so far."""
    return [{"name": one.name, "version": one.version, **one.counts.plain()} for one in versions]


def index(models: Models, *, only_ready: bool = False) -> list[dict[str, str]]:
    """All versions of all models, with their state."""
    rows = [(one, ("READY", one.why) if one.is_ready else ("UNAVAILABLE", UNWRITTEN if one.is_loaded else one.why)) for one in models]
    return [
        {"name": one.name, "version": one.version, "state": state, "reason": why}
        for one, (state, why) in rows
        if state == "READY" or not only_ready
    ]


def _readiness(plain: dict[str, Any], is_ready: bool, why: str) -> tuple[dict[str, Any], int]:
    return (plain | {"ready": True}, 200) if is_ready else (plain | {"ready": False, "error": f"not ready: {why}"}, 503)


def _given(plain: Any, status: int = 200) -> Call:
    return lambda headers, body: Reply(status, _encode(plain))


def respond(call: Call, headers: Headers, body: bytes) -> Reply | None:
    """What a call gives, or the reply that tells its error."""
    try:
        return call(headers, body)
    except TidemillError as error:
        return refused(error)


def refused(error: TidemillError) -> Reply:
    """The reply that tells an error."""
    status, plain = told(error)
    return Reply(status, _encode(plain))


def finished(begun: Sequence[Begun]) -> list[Reply]:
    """The replies to requests that were begun; those to one model are answered together."""
    if not begun:
        return []
    if all(map(begun[0].is_like, begun)):
        return _finished(begun)
    alike: dict[Any, list[Begun]] = {}  # not `dict[…]()`, which takes a microsecond
    replies: dict[int, Reply] = {}
    for one in begun:
        alike.setdefault((id(one.by), id(one.model), *one.asked.wanted), []).append(one)
    for some in alike.values():
        replies.update(zip(map(id, some), _finished(some), strict=True))
    return [replies[id(one)] for one in begun]


def _finished(some: Sequence[Begun]) -> list[Reply]:
    """Whatever happens: what escapes is a bug of the server, and others are not to hear of it."""
    model = some[0].by
    try:
        found = zip(some, model.finish(some), strict=True)
        return [refused(answer) if isinstance(answer, TidemillError) else _told(model, one.asked, answer) for one, answer in found]
    except Exception:
        log.exception("model=%s %d requests could not be answered", model.name, len(some))
        model.counts.fail(len(some))
        return [FAILED] * len(some)


def _told(one: Model, asked: Asked, found: Found) -> Reply:
    return Reply(200, *oip.write(one.name, asked, found))


def _infer(one: Model, headers: Headers, body: bytes) -> Reply:
    return _answered(one, _read(headers, body))


def _answered(one: Model, asked: Asked) -> Reply:
    if asked.parameters:
        heed_parameters(asked.parameters)
    return _told(one, asked, one.infer(asked))


def _read(headers: Headers, body: bytes) -> Asked:
    if b"content-encoding" in headers:
        body = unpacked(headers[b"content-encoding"], body)
    asked = oip.read(body, _length(headers[HEAD]) if HEAD in headers else None)
    if REQUEST in headers:
        asked.request = request_of(headers)
    return asked


def _length(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise DataError(f"{text.decode('latin-1')!r} is no number of bytes", where=HEAD.decode().title())
    return int(text)


def unpacked(encoding: bytes, body: bytes) -> bytes:
    """A body that was sent packed. Raises DataError for one that is damaged, too large, or packed otherwise."""
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "deflate"):
        raise DataError(f"the content encoding {name!r} is not known", available=["gzip", "deflate"])
    try:
        work = zlib.decompressobj(zlib.MAX_WBITS | 32)
        found = work.decompress(body, MOST)
    except zlib.error as error:
        raise DataError(f"the body is no {name}: {error}", hint="send it again, or as it is") from None
    if work.unconsumed_tail:
        raise DataError(f"the body has more than {MOST} bytes when it is unpacked", hint="send fewer rows at once")
    if not work.eof:
        raise DataError(f"the body is no whole {name}", hint="send it again, or as it is")
    return found


def _index(models: Models, headers: Headers, body: bytes) -> Reply:
    only = (sent := _object(body, 'send nothing, or {"ready": true}')).get("ready", False)
    if not isinstance(only, bool):
        raise DataError(f"ready is {sent['ready']!r:.100}", where="ready", hint="send true or false")
    return Reply(200, _encode(index(models, only_ready=only)))


def _load(models: Models, name: str, headers: Headers, body: bytes) -> Reply:
    given = _object(body, "send nothing").get("parameters") or {}
    if not isinstance(given, dict):
        raise DataError(f"parameters is {given!r:.100}", where="parameters", hint="send none")
    check_load(given)
    models.load(name)
    return Reply(200, b"{}")


def check_load(parameters: Iterable[str]) -> None:
    """Raise DataError for a model that would be loaded otherwise than it lies there."""
    if given := ", ".join(parameters):
        raise DataError(f"a model is loaded from where it lies, without {given}", where="parameters", hint="send none")


def _unload(models: Models, name: str, headers: Headers, body: bytes) -> Reply:
    models.unload(name)  # Triton's client says whether others that rest on it are meant too: there are none
    return Reply(200, b"{}")


def _object(body: bytes, hint: str) -> dict[str, Any]:
    """A body that may be left out. Raises DataError for one that is no object."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the body is not what is expected: {error}", hint=hint) from None
