"""The routes of the Open Inference Protocol v2 over bare models: method, path, headers and body in, a reply out. Nothing of sockets."""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from tidemill.core import DataError, TidemillError, UnknownName
from tidemill.serving.refusals import told
from tidemill.serving.repository import Repository, Served

MOST = 64 << 20  # bytes of a body, unpacked too
HEAD = b"inference-header-content-length"
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
Headers = Mapping[bytes, bytes]  # names in lower case


class Reply(NamedTuple):
    """Status and body of an answer; `head` is how many bytes of it are JSON where raw tensors follow."""

    status: int
    body: bytes
    head: int | None = None


Call = Callable[[Headers, bytes], Reply | None]  # raises what is wrong; None: it takes longer than others should wait
_encode = msgspec.json.encode


class Inference:
    """What answers each route. Paths that are asked often are found in one step."""

    def __init__(self, models: Repository, version: str) -> None:
        """`version` is that of the server."""
        self._models, self._version = models, version
        self._quick: dict[tuple[bytes, bytes], tuple[Served, Call]] = {}
        for one in models:
            for path in (f"/v2/models/{one.name}/infer", f"/v2/models/{one.name}/versions/{one.version}/infer"):
                served = models.find(one.name) if "/versions/" not in path else one
                self._quick[b"POST", path.encode()] = served, partial(_infer, served)

    def quick(self, method: bytes, path: bytes, size: int) -> Call | None:
        """What answers a body of so many bytes at once, without keeping others waiting."""
        found = self._quick.get((method, path)) if size <= MOST else None
        return found[1] if found and not found[0].slow else None

    def slow(self, path: str) -> bool:
        """Whether others would wait for what a path asks for."""
        found = self._quick.get((b"POST", path.encode()))
        return found is not None and found[0].slow

    def call(self, method: str, path: str) -> Call:
        """What answers a route. Raises UnknownName where none leads."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        known, models = dict[str, Call](), self._models
        match parts:
            case ["v2"]:
                known["GET"] = _given({"name": "tidemill", "version": self._version, "extensions": EXTENSIONS})
            case ["v2", "health", "live"]:
                known["GET"] = _given({"live": True})
            case ["v2", "health", "ready"]:
                known["GET"] = _given({"ready": models.ready}, 200 if models.ready else 503)
            case ["v2", "models", "stats"]:
                known["GET"] = _given(_stats([*models]))
            case ["v2", "repository", "index"]:
                known["POST"] = partial(_index, models)
            case ["v2", "repository", "models", name, "load" | "unload" as verb]:
                known["POST"] = partial(_change, getattr(models, verb), name)
            case ["v2", "models", name, "versions", version, *rest]:
                known = _of_model(models, models.find(name, version), rest, [models.find(name, version)])
            case ["v2", "models", name, *rest]:
                known = _of_model(models, models.find(name), rest, [*models.versions(name).values()])
        if not known:
            raise UnknownName(f"{method} {path}: not found", hint="GET /v2/models/NAME tells what a model takes")
        if method not in known:
            return _given({"error": f"{path} takes {', '.join(known)}, not {method}"}, 405)
        return known[method]


def _of_model(models: Repository, one: Served, rest: list[str], versions: list[Served]) -> dict[str, Call]:
    match rest:
        case []:
            return {"GET": partial(_metadata, one, versions)}
        case ["ready"]:
            ready = one.model is not None
            return {"GET": _given({"name": one.name, "ready": ready}, 200 if ready else 503)}
        case ["stats"]:
            return {"GET": _given(_stats(versions))}
        case ["infer"]:
            return {"POST": partial(_infer, one)}
    return {}


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


def _infer(one: Served, headers: Headers, body: bytes) -> Reply:
    if b"content-encoding" in headers:
        body = unpacked(headers[b"content-encoding"], body)
    answer, head = one.infer(body, _length(headers[HEAD]) if HEAD in headers else None)
    return Reply(200, answer, head)


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


def _metadata(one: Served, versions: list[Served], headers: Headers, body: bytes) -> Reply:
    model = one.ready()
    tensors = {"inputs": [spec.plain() for spec in model.inputs.values()], "outputs": [spec.plain() for spec in model.outputs.values()]}
    plain = {"name": one.name, "versions": [other.version for other in versions], "platform": "onnxruntime_onnx", **tensors}
    return Reply(200, _encode(plain))


def _stats(versions: list[Served]) -> dict[str, Any]:
    return {"model_stats": [{"name": one.name, "version": one.version, **one.counts.plain()} for one in versions]}


def _index(models: Repository, headers: Headers, body: bytes) -> Reply:
    try:
        only = bool(body.strip()) and bool(msgspec.json.decode(body, type=dict[str, Any]).get("ready", False))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the body is not what is expected: {error}", hint='send nothing, or {"ready": true}') from None
    rows = [
        {"name": one.name, "version": one.version, "state": "READY" if one.model else "UNAVAILABLE", "reason": one.why}
        for one in models
        if one.model or not only
    ]
    return Reply(200, _encode(rows))


def _change(change: Callable[[str], None], name: str, headers: Headers, body: bytes) -> Reply:
    change(name)
    return Reply(200, b"{}")
