"""What a server of the Open Inference Protocol v2 has to do over REST, case by case.

MUST: the protocol says so. SHOULD: clients in use rely on it, or it says so softly. EXT: an extension (binary tensors, repository,
statistics, packed bodies), or beyond. `(lesson n)` is one of what servers in use do otherwise, so that a client breaks on it.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from conformance.oip.server import HEAD, Answer, Server, binary, flat, nested, packed, unpacked

Check = Callable[[Server], None]  # raises AssertionError
Change = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Case:
    """One thing that a server does, or does not."""

    level: str
    name: str
    check: Check

    def __str__(self) -> str:
        return f"{self.level} {self.name}"


CASES: list[Case] = []


def case(level: str, name: str) -> Callable[[Check], Check]:
    """A function as a case."""

    def add(check: Check) -> Check:
        CASES.append(Case(level, name, check))
        return check

    return add


def fine(found: Answer) -> Any:
    """The JSON of an answer that is one."""
    assert found.status == 200, f"{found.status}: {found.body!r:.300}"
    return found.json


def is_error(found: Answer, *codes: int) -> None:
    """An error in the form that clients read (lesson 1)."""
    assert found.status in codes, f"{found.status} and not {codes}: {found.body!r:.300}"
    assert isinstance(found.json.get("error"), str), f"no error text: {found.body!r:.300}"
    assert found.json["error"]
    assert found.headers["content-type"].startswith("application/json")


def same(found: list[Any], expected: list[Any]) -> None:
    """Equal numbers, NaN (null in JSON) included, as far as the datatype goes."""
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        nothing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (one, two)]
        close = isinstance(one, float) and isinstance(two, float | int) and math.isclose(one, two, rel_tol=1e-6, abs_tol=1e-12)
        assert all(nothing) or one == two or close, f"{one!r} and not {two!r}"


def same_outputs(found: Answer, server: Server) -> None:
    """The answer has the outputs that the plain request has."""
    outputs = fine(found)["outputs"]
    assert [one["name"] for one in outputs] == [one["name"] for one in server.expected]
    for one, two in zip(outputs, server.expected, strict=True):
        same(flat(one["data"]), flat(two["data"]))


# ── health and metadata ─────────────────────────────────────────────────────────────────────────────────────────────


@case("MUST", "the server is live")
def _(server: Server) -> None:
    assert server.ask("GET", "/v2/health/live").status == 200


@case("MUST", "the server is ready")
def _(server: Server) -> None:
    assert server.ask("GET", "/v2/health/ready").status == 200


@case("MUST", "the model is ready")
def _(server: Server) -> None:
    assert server.ask("GET", f"{server.path}/ready").status == 200


@case("SHOULD", "live says so in its body (lesson 3)")
def _(server: Server) -> None:
    assert fine(server.ask("GET", "/v2/health/live"))["live"] is True


@case("SHOULD", "ready says so in its body (lesson 3)")
def _(server: Server) -> None:
    assert fine(server.ask("GET", "/v2/health/ready"))["ready"] is True


@case("SHOULD", "the model's readiness says so in its body, with its name (lesson 3)")
def _(server: Server) -> None:
    assert fine(server.ask("GET", f"{server.path}/ready")) == {"name": server.model, "ready": True}


@case("SHOULD", "a server that is ready has models that are ready (lesson 12)")
def _(server: Server) -> None:
    fine(server.ask("GET", "/v2/health/ready"))
    fine(server.ask("GET", f"{server.path}/ready"))
    fine(server.infer())


@case("MUST", "the server tells its name, version and extensions")
def _(server: Server) -> None:
    found = fine(server.ask("GET", "/v2"))
    assert isinstance(found["name"], str)
    assert isinstance(found["version"], str)
    assert all(isinstance(one, str) for one in found["extensions"])


@case("MUST", "the model tells its name and platform")
def _(server: Server) -> None:
    assert server.metadata["name"] == server.model
    assert server.metadata["platform"]
    assert isinstance(server.metadata["platform"], str)


for part in ("inputs", "outputs"):

    @case("MUST", f"the model tells its {part} with names, datatypes and shapes (lesson 7)")
    def _(server: Server, part: str = part) -> None:
        assert server.metadata[part]
        for one in server.metadata[part]:
            assert isinstance(one["name"], str)
            assert one["datatype"] in KINDS
            assert all(isinstance(size, int) and size >= -1 for size in one["shape"])


KINDS = {"BOOL", "BYTES", "FP16", "FP32", "FP64", "BF16", *(f"{sign}INT{size}" for sign in ("", "U") for size in (8, 16, 32, 64))}


@case("SHOULD", "the model tells its versions (lesson 8)")
def _(server: Server) -> None:
    assert server.metadata["versions"]
    assert all(isinstance(one, str) for one in server.metadata["versions"])


@case("MUST", "metadata are JSON")
def _(server: Server) -> None:
    for path in ("/v2", server.path):
        assert server.ask("GET", path).headers["content-type"].startswith("application/json")


# ── versions (lesson 8) ─────────────────────────────────────────────────────────────────────────────────────────────


@case("MUST", "each version tells the same metadata")
def _(server: Server) -> None:
    for version in server.metadata["versions"]:
        assert fine(server.ask("GET", f"{server.path}/versions/{version}"))["name"] == server.model


@case("MUST", "each version is ready")
def _(server: Server) -> None:
    for version in server.metadata["versions"]:
        assert server.ask("GET", f"{server.path}/versions/{version}/ready").status == 200


@case("MUST", "each version answers, and the answer names it")
def _(server: Server) -> None:
    for version in server.metadata["versions"]:
        assert fine(server.infer(path=f"/versions/{version}"))["model_version"] == version


@case("MUST", "a version that there is not is an error")
def _(server: Server) -> None:
    for rest in ("", "/ready", "/infer"):
        found = server.ask("POST" if rest == "/infer" else "GET", f"{server.path}/versions/987654{rest}", server.request)
        is_error(found, 400, 404)


# ── inference ───────────────────────────────────────────────────────────────────────────────────────────────────────


@case("MUST", "an answer names the model, and has outputs with all fields")
def _(server: Server) -> None:
    found = fine(server.infer())
    assert found["model_name"] == server.model
    assert found["outputs"]
    told = {one["name"]: one for one in server.metadata["outputs"]}
    for one in found["outputs"]:
        assert one["datatype"] == told[one["name"]]["datatype"]
        assert len(flat(one["data"])) == math.prod(one["shape"])
        assert len(one["shape"]) == len(told[one["name"]]["shape"])
        assert all(size in (-1, got) for size, got in zip(told[one["name"]]["shape"], one["shape"], strict=True))


@case("SHOULD", "an answer names the version, one of those that are told")
def _(server: Server) -> None:
    assert fine(server.infer())["model_version"] in server.metadata["versions"]


@case("MUST", "the id comes back")
def _(server: Server) -> None:
    for name in ("7", "a b", "né 日本", "x" * 200):
        assert fine(server.infer(lambda body, name=name: body | {"id": name}))["id"] == name


@case("MUST", "without an id there is none, or any text")
def _(server: Server) -> None:
    assert isinstance(fine(server.infer()).get("id", ""), str)


@case("MUST", "the same request has the same answer")
def _(server: Server) -> None:
    same_outputs(server.infer(), server)


for kind in ("application/json", "application/json; charset=utf-8"):

    @case("MUST", f"a request may be {kind}")
    def _(server: Server, kind: str = kind) -> None:
        same_outputs(server.infer(content_type=kind), server)


@case("SHOULD", "a request without a content type is JSON (lesson 4)")
def _(server: Server) -> None:
    same_outputs(server.infer(), server)


@case("SHOULD", "a request as curl -d sends it is JSON (lesson 4)")
def _(server: Server) -> None:
    same_outputs(server.infer(content_type="application/x-www-form-urlencoded"), server)


@case("MUST", "data may be flat")
def _(server: Server) -> None:
    same_outputs(server.infer(lambda body: _each(body, lambda one: {"data": flat(one["data"])})), server)


@case("MUST", "data may be nested as the shape is")
def _(server: Server) -> None:
    same_outputs(server.infer(lambda body: _each(body, lambda one: {"data": nested(flat(one["data"]), one["shape"])})), server)


@case("MUST", "inputs may come in any order")
def _(server: Server) -> None:
    same_outputs(server.infer(lambda body: body | {"inputs": body["inputs"][::-1]}), server)


@case("MUST", "the outputs that are asked for come, in that order, and no other")
def _(server: Server) -> None:
    names = [one["name"] for one in server.metadata["outputs"]][::-1]
    for some in (names, names[:1]):
        found = fine(server.infer(lambda body, some=some: body | {"outputs": [{"name": name} for name in some]}))
        assert [one["name"] for one in found["outputs"]] == some


@case("SHOULD", "parameters and fields that nobody knows do no harm")
def _(server: Server) -> None:
    more = {"parameters": {"nobody": "knows", "it": 7}, "model_name": server.model, "nobody": [1]}
    same_outputs(server.infer(lambda body: _each(body, lambda one: {"parameters": {"content_type": "np"}}) | more), server)


@case("SHOULD", "null stands for an optional field that is left out")
def _(server: Server) -> None:
    nothing = {"id": None, "parameters": None, "outputs": None}
    same_outputs(server.infer(lambda body: _each(body, lambda one: {"parameters": None}) | nothing), server)


@case("SHOULD", "many rows are answered as few are")
def _(server: Server) -> None:
    rows = server.request["inputs"][0]["shape"][0]

    def many(one: dict[str, Any]) -> dict[str, Any]:
        return {"shape": [one["shape"][0] * 50, *one["shape"][1:]], "data": flat(one["data"]) * 50}

    found = fine(server.infer(lambda body: _each(body, many)))
    for one, two in zip(found["outputs"], server.expected, strict=True):
        if two["shape"][:1] == [rows]:
            same(flat(one["data"]), flat(two["data"]) * 50)


@case("MUST", "requests at once are answered each")
def _(server: Server) -> None:
    def ask(number: int) -> None:
        found = server.infer(lambda body: body | {"id": str(number)})
        assert fine(found)["id"] == str(number)
        same_outputs(found, server)

    with ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(ask, range(80))]) == 80


def _each(body: dict[str, Any], change: Change) -> dict[str, Any]:
    return body | {"inputs": [one | change(one) for one in body["inputs"]]}


# ── what is wrong is said (lessons 1 and 2) ─────────────────────────────────────────────────────────────────────────


def _first(**fields: Any) -> Change:
    """Another first input."""
    return lambda body: body | {"inputs": [body["inputs"][0] | fields, *body["inputs"][1:]]}


def _without(*names: str) -> Change:
    """The first input without some fields."""
    return lambda body: (
        body | {"inputs": [{name: one for name, one in body["inputs"][0].items() if name not in names}, *body["inputs"][1:]]}
    )


def _wider(body: dict[str, Any]) -> dict[str, Any]:
    one = body["inputs"][0]
    shape = [*one["shape"][:-1], one["shape"][-1] + 1]
    return _first(shape=shape, data=(flat(one["data"]) * 2)[: math.prod(shape)] if math.prod(shape) else [])(body)


def _cut(body: dict[str, Any]) -> dict[str, Any]:
    return _first(data=flat(body["inputs"][0]["data"])[:-1])(body)


def _ragged(body: dict[str, Any]) -> dict[str, Any]:
    return _first(data=[flat(body["inputs"][0]["data"]), [1]])(body)


WRONG: list[tuple[str, str, Change]] = [
    ("MUST", "a body that is no JSON", lambda body: b'{"inputs": ['),
    ("MUST", "a body that is empty", lambda body: b""),
    ("MUST", "a body that is no UTF-8", lambda body: b'{"inputs": "\xff"}'),
    ("MUST", "a body that is no object", lambda body: [body]),
    ("MUST", "a body that is null", lambda body: b"null"),
    ("MUST", "a body that is nested without end", lambda body: b"[" * 50_000),
    ("MUST", "a request without inputs", lambda body: {}),
    ("MUST", "a request with an empty list of inputs", lambda body: {"inputs": []}),
    ("MUST", "inputs that are no list", lambda body: {"inputs": "x"}),
    ("MUST", "an input without a name", _without("name")),
    ("MUST", "an input without a shape", _without("shape")),
    ("MUST", "an input without a datatype", _without("datatype")),
    ("MUST", "an input without data", _without("data")),
    ("MUST", "an input of another name", _first(name="nobody knows it")),
    ("MUST", "a datatype that there is not", _first(datatype="FP65")),
    ("MUST", "a datatype that is a number", _first(datatype=64)),
    ("MUST", "a shape that is no list", _first(shape=2)),
    ("MUST", "a negative size", _first(shape=[-1, 2])),
    ("MUST", "a size that is no whole number", _first(shape=[1.5])),
    ("MUST", "fewer values than the shape says", _cut),
    ("MUST", "another number of dimensions (lesson 2)", lambda body: _first(shape=[1, 1, len(flat(body["inputs"][0]["data"]))])(body)),
    ("MUST", "rows of different lengths", _ragged),
    ("MUST", "an output that there is not", lambda body: body | {"outputs": [{"name": "nobody knows it"}]}),
    ("MUST", "outputs that are no list", lambda body: body | {"outputs": "x"}),
    ("MUST", "an id that is no text", lambda body: body | {"id": {"a": 1}}),
    ("SHOULD", "an input that comes twice", lambda body: body | {"inputs": [*body["inputs"], body["inputs"][0]]}),
    ("SHOULD", "an input too many", lambda body: body | {"inputs": [*body["inputs"], body["inputs"][0] | {"name": "nobody knows it"}]}),
    ("SHOULD", "a size that overflows", _first(shape=[2**62, 2**62])),
    ("EXT", "BF16 as JSON (lesson 10)", _first(datatype="BF16")),
]
for level, name, change in WRONG:

    @case(level, f"{name} is a 400 that says what is wrong")
    def _(server: Server, change: Change = change) -> None:
        is_error(server.infer(change), 400)
        same_outputs(server.infer(), server)


@case("MUST", "more features than the model takes (lesson 2) are a 400 that says what is wrong")
def _(server: Server) -> None:
    sizes = {one["name"]: one["shape"] for one in server.metadata["inputs"]}
    if sizes[server.request["inputs"][0]["name"]][-1] >= 0:  # otherwise it takes any number
        is_error(server.infer(_wider), 400)


@case("MUST", "a text for a number is a 400 that says what is wrong")
def _(server: Server) -> None:
    numbers = [place for place, one in enumerate(server.request["inputs"]) if one["datatype"] != "BYTES"]
    for place in numbers[:1]:

        def change(body: dict[str, Any], place: int = place) -> dict[str, Any]:
            body["inputs"][place]["data"] = ["a"] * len(flat(body["inputs"][place]["data"]))
            return body

        is_error(server.infer(change), 400)


@case("MUST", "a model that there is not is an error")
def _(server: Server) -> None:
    for method, rest in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        is_error(server.ask(method, f"/v2/models/nobody-knows-it{rest}", server.request), 400, 404)


@case("SHOULD", "a path that there is not is an error of the same form (lesson 1)")
def _(server: Server) -> None:
    is_error(server.ask("GET", "/v2/nobody-knows-it"), 404)


@case("SHOULD", "another method is an error of the same form (lesson 1)")
def _(server: Server) -> None:
    is_error(server.ask("GET", f"{server.path}/infer"), 404, 405)


@case("SHOULD", "HEAD is answered as GET is, without a body")
def _(server: Server) -> None:
    for path in ("/v2", "/v2/health/live", f"{server.path}/ready", server.path):
        found = server.ask("HEAD", path)
        assert (found.status, found.body) == (200, b"")


@case("SHOULD", "another method is told which there are")
def _(server: Server) -> None:
    for path, method in ((f"{server.path}/infer", "POST"), (server.path, "GET")):
        found = server.ask("PUT", path, {})
        is_error(found, 405)
        assert method in found.headers["allow"]


@case("SHOULD", "a stroke at the end of a path does no harm")
def _(server: Server) -> None:
    same_outputs(server.ask("POST", f"{server.path}/infer/", server.request), server)
    assert fine(server.ask("GET", f"{server.path}/"))["name"] == server.model


for sent in (b"hello\r\n\r\n", b"NOBODY /v2 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):

    @case("EXT", f"what is no HTTP ({sent[:6]!r}) is a 400 in the form of all errors, and nobody else is hurt")
    def _(server: Server, sent: bytes = sent) -> None:
        line = server.connect()
        line.connect()
        line.sock.sendall(sent)
        told = b"".join(iter(lambda: line.sock.recv(4096), b""))  # until it is closed
        line.close()
        head, _, body = told.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        is_error(Answer(int(status.split()[1]), dict(one.lower().split(": ", 1) for one in lines), body), 400, 405, 501)
        same_outputs(server.infer(), server)


# ── the binary tensor extension (lesson 5) ──────────────────────────────────────────────────────────────────────────


@case("EXT", "the server tells of binary tensors")
def _(server: Server) -> None:
    assert {"binary_tensor_data", "binary_data"} & {*fine(server.ask("GET", "/v2"))["extensions"]}


def raw_infer(server: Server, change: Change | None = None, which: int | None = None) -> Answer:
    """An answer to raw tensors."""
    body, head = binary(json.loads(json.dumps(change(server.request) if change else server.request)), which=which)
    return server.ask("POST", f"{server.path}/infer", body, content_type="application/octet-stream", **{HEAD: head})


@case("EXT", "all inputs may be raw")
def _(server: Server) -> None:
    same_outputs(raw_infer(server), server)


@case("EXT", "one input may be raw and the others JSON")
def _(server: Server) -> None:
    for place in range(len(server.request["inputs"])):
        same_outputs(raw_infer(server, which=place), server)


@case("EXT", "raw inputs may come with any content type")
def _(server: Server) -> None:
    body, head = binary(json.loads(json.dumps(server.request)))
    same_outputs(server.ask("POST", f"{server.path}/infer", body, **{HEAD: head}), server)


def raw_outputs(server: Server, found: Answer) -> None:
    """Raw outputs are those of JSON."""
    told, place = fine(found), 0
    assert found.headers[HEAD.lower()] == str(len(found.body) - len(found.raw))
    for one, two in zip(told["outputs"], server.expected, strict=True):
        size = one["parameters"]["binary_data_size"]
        assert "data" not in one
        same(unpacked(one["datatype"], found.raw[place : place + size]), flat(two["data"]))
        place += size
    assert place == len(found.raw)


@case("EXT", "outputs come raw where each asks for it")
def _(server: Server) -> None:
    outputs = [{"name": one["name"], "parameters": {"binary_data": True}} for one in server.metadata["outputs"]]
    raw_outputs(server, server.infer(lambda body: body | {"outputs": outputs}))


@case("EXT", "outputs come raw where the request asks for all")
def _(server: Server) -> None:
    raw_outputs(server, raw_infer(server, lambda body: body | {"parameters": {"binary_data_output": True}}))


@case("EXT", "an output is JSON where it says so")
def _(server: Server) -> None:
    outputs = [{"name": one["name"], "parameters": {"binary_data": False}} for one in server.metadata["outputs"]]
    same_outputs(raw_infer(server, lambda body: body | {"outputs": outputs}), server)


@case("EXT", "a half-size float comes raw, or is refused (lesson 10)")
def _(server: Server) -> None:
    def half(body: dict[str, Any]) -> dict[str, Any]:
        return _each(body, lambda one: {"datatype": "FP16"} if one["datatype"].startswith("FP") else {})

    found = raw_infer(server, half)
    if found.status == 200:
        same_outputs(found, server)
    else:
        is_error(found, 400)


@case("EXT", "raw bytes that are no whole number of values are a 400")
def _(server: Server) -> None:
    body, head = binary(json.loads(json.dumps(server.request)))
    for wrong in (body[:-1], body + b"\0"):
        is_error(server.ask("POST", f"{server.path}/infer", wrong, **{HEAD: head}), 400)


for length in ("-1", "x", "99999999", "0"):

    @case("EXT", f"a length of the JSON that is {length} is a 400")
    def _(server: Server, length: str = length) -> None:
        body, _ = binary(json.loads(json.dumps(server.request)))
        is_error(server.ask("POST", f"{server.path}/infer", body, **{HEAD: length}), 400)


for size in (-1, 1 << 40, "8", True):

    @case("EXT", f"a size of raw data that is {size!r} is a 400")
    def _(server: Server, size: Any = size) -> None:
        is_error(server.infer(lambda body: _first(parameters={"binary_data_size": size})(_without("data")(body))), 400)


@case("EXT", "texts that end behind their bytes are a 400")
def _(server: Server) -> None:
    for place, one in enumerate(server.request["inputs"]):
        if one["datatype"] == "BYTES":
            body = json.loads(json.dumps(server.request))
            del body["inputs"][place]["data"]
            raw = packed("BYTES", flat(one["data"]))[:-1] + b"\xff\xff"
            body["inputs"][place]["parameters"] = {"binary_data_size": len(raw)}
            head = json.dumps(body).encode()
            is_error(server.ask("POST", f"{server.path}/infer", head + raw, **{HEAD: str(len(head))}), 400)


@case("EXT", "binary_data that is no truth is a 400")
def _(server: Server) -> None:
    output = {"name": server.metadata["outputs"][0]["name"], "parameters": {"binary_data": "false"}}
    is_error(server.infer(lambda body: body | {"outputs": [output]}), 400)
    is_error(server.infer(lambda body: body | {"parameters": {"binary_data_output": "no"}}), 400)


for wanted in ({"classification": 1}, {"shared_memory_region": "nobody", "shared_memory_byte_size": 8}):

    @case("EXT", f"an output as {next(iter(wanted))} is so, or a 400: never as if it had not been asked for")
    def _(server: Server, wanted: dict[str, Any] = wanted) -> None:
        output = {"name": server.metadata["outputs"][0]["name"], "parameters": wanted}
        found = server.infer(lambda body: body | {"outputs": [output]})
        if found.status != 200:
            is_error(found, 400, 501)
        else:
            assert "classification" in wanted
            assert found.json["outputs"][0]["datatype"] == "BYTES"


@case("EXT", "an input in shared memory that there is not is a 400")
def _(server: Server) -> None:
    region = {"shared_memory_region": "nobody", "shared_memory_byte_size": 8}
    is_error(server.infer(lambda body: _first(parameters=region)(_without("data")(body))), 400)


# ── compression (lesson 11) and HTTP ────────────────────────────────────────────────────────────────────────────────

for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):

    @case("EXT", f"a body may be packed as {encoding} (lesson 11)")
    def _(server: Server, encoding: str = encoding, pack: Callable[[bytes], bytes] = pack) -> None:
        same_outputs(server.infer(lambda body: pack(json.dumps(body).encode()), content_encoding=encoding), server)

    @case("EXT", f"a body that is no {encoding} is a 400")
    def _(server: Server, encoding: str = encoding, pack: Callable[[bytes], bytes] = pack) -> None:
        is_error(server.infer(lambda body: b"this is not packed", content_encoding=encoding), 400)
        is_error(server.infer(lambda body: pack(json.dumps(body).encode())[:-6], content_encoding=encoding), 400)


@case("EXT", "a packed body may have raw tensors in it (lesson 11)")
def _(server: Server) -> None:
    body, head = binary(json.loads(json.dumps(server.request)))
    same_outputs(server.ask("POST", f"{server.path}/infer", gzip.compress(body), content_encoding="gzip", **{HEAD: head}), server)


@case("EXT", "a packing that nobody knows is a 400")
def _(server: Server) -> None:
    is_error(server.infer(content_encoding="nobody-knows-it"), 400, 415)


@case("MUST", "a connection stays open, also behind an error")
def _(server: Server) -> None:
    line = server.connect()
    body = json.dumps(server.request).encode()
    for sent, status in ((body, 200), (b"{", 400), (body, 200)):
        found = server.ask("POST", f"{server.path}/infer", sent, line)
        assert found.status == status
    line.close()


@case("SHOULD", "a body may come in pieces of unknown length")
def _(server: Server) -> None:
    line, body = server.connect(), json.dumps(server.request).encode()
    pieces = iter([body[:20], body[20:]])
    line.request("POST", f"{server.path}/infer", pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    found = line.getresponse()
    same_outputs(Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()), server)
    line.close()


# ── repository and statistics ───────────────────────────────────────────────────────────────────────────────────────

for name, sent in (("no body (lesson 6)", None), ("an empty object", {}), ("ready: true", {"ready": True})):

    @case("EXT", f"the index of the repository takes {name}")
    def _(server: Server, sent: Any = sent) -> None:
        rows = fine(server.ask("POST", "/v2/repository/index", sent))
        ours = [one for one in rows if one["name"] == server.model]
        assert ours
        assert all(one.get("state", "READY") == "READY" for one in ours)
        assert {one["version"] for one in ours} == {*server.metadata["versions"]}


@case("EXT", "the configuration of a model agrees with its metadata, for Triton's clients")
def _(server: Server) -> None:
    for path in (server.path, *(f"{server.path}/versions/{one}" for one in server.metadata["versions"])):
        found = fine(server.ask("GET", f"{path}/config"))
        assert found["name"] == server.model
        batch = [-1] if found["max_batch_size"] else []
        for name in ("input", "output"):
            told = [
                (one["name"], one["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES"), batch + one["dims"]) for one in found[name]
            ]
            assert told == [(one["name"], one["datatype"], one["shape"]) for one in server.metadata[f"{name}s"]]


@case("EXT", "a model is not loaded as if a configuration had not been sent")
def _(server: Server) -> None:
    sent = {"parameters": {"config": '{"max_batch_size": 8}'}}
    is_error(server.ask("POST", f"/v2/repository/models/{server.model}/load", sent), 400, 403)
    for wrong in (b"{", {"parameters": 7}, {"parameters": [1]}):
        is_error(server.ask("POST", f"/v2/repository/models/{server.model}/load", wrong), 400, 403)
    same_outputs(server.infer(), server)


@case("EXT", "the index refuses what is no object")
def _(server: Server) -> None:
    is_error(server.ask("POST", "/v2/repository/index", b"["), 400)


@case("EXT", "a model is unloaded and loaded, or that is refused")
def _(server: Server) -> None:
    before = server.expected
    found = server.ask("POST", f"/v2/repository/models/{server.model}/unload")
    if found.status != 200:
        is_error(found, 400, 403, 405, 501)
    else:
        assert server.ask("GET", f"{server.path}/ready").status != 200
        is_error(server.infer(), 400, 404, 503)
        ready = fine(server.ask("POST", "/v2/repository/index", {"ready": True}))
        assert server.model not in [one["name"] for one in ready]
        fine(server.ask("POST", f"/v2/repository/models/{server.model}/load", {}))
    assert server.ask("GET", f"{server.path}/ready").status == 200
    assert fine(server.infer())["outputs"] == before


@case("EXT", "a model that there is not is not loaded")
def _(server: Server) -> None:
    for verb in ("load", "unload"):
        is_error(server.ask("POST", f"/v2/repository/models/nobody-knows-it/{verb}"), 400, 403, 404)


@case("EXT", "statistics count rows and requests")
def _(server: Server) -> None:
    def counted() -> tuple[int, int, int]:
        told = fine(server.ask("GET", f"{server.path}/stats"))["model_stats"]
        assert all(one["name"] == server.model for one in told)
        success, fail = (sum(one["inference_stats"][name]["count"] for one in told) for name in ("success", "fail"))
        return sum(one["inference_count"] for one in told), success, fail

    rows, before = server.request["inputs"][0]["shape"][0], counted()
    fine(server.infer())
    server.infer(lambda body: body | {"outputs": [{"name": "nobody knows it"}]})
    after = counted()
    assert [new - old for new, old in zip(after, before, strict=True)] == [rows, 1, 1]


@case("EXT", "statistics of one version, and of all models")
def _(server: Server) -> None:
    for version in server.metadata["versions"]:
        (one,) = fine(server.ask("GET", f"{server.path}/versions/{version}/stats"))["model_stats"]
        assert one["version"] == version
    assert fine(server.ask("GET", "/v2/models/stats"))["model_stats"]
