"""A server of the Open Inference Protocol as a client sees it: nothing but the standard library, so that it runs against any."""

import http.client
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

HEAD = "Inference-Header-Content-Length"
FORMATS = {"BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"}  # of struct, little-endian
FORMATS |= {"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}


@dataclass
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @cached_property
    def json(self) -> Any:
        """The JSON, without raw tensors behind it."""
        return json.loads(self.body[: int(self.headers.get(HEAD.lower(), len(self.body)))])

    @property
    def raw(self) -> bytes:
        """The raw tensors."""
        return self.body[int(self.headers.get(HEAD.lower(), len(self.body))) :]


@dataclass
class Server:
    """Where it is, the model that is asked, and a request that it can answer: by default ones made of what its metadata say."""

    url: str
    model: str
    request: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.request = self.request or {"inputs": [self._made(one) for one in self.metadata["inputs"]]}

    @property
    def path(self) -> str:
        """Of the model."""
        return f"/v2/models/{self.model}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection."""
        parts = urlsplit(self.url)
        assert parts.hostname
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, line: http.client.HTTPConnection | None = None, **headers: str) -> Answer:
        """An answer; a body that is no bytes is JSON. Without a content type, unless one is named."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = line or self.connect()
        try:
            connection.request(method, path, data, told)
            found = connection.getresponse()
            return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            if line is None:
                connection.close()

    def infer(self, change: Any = None, path: str = "", **headers: str) -> Answer:
        """The answer to the request, or to what `change` makes of a copy of it."""
        body = json.loads(json.dumps(self.request))
        return self.ask("POST", f"{self.path}{path}/infer", change(body) if change else body, **headers)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Of the model."""
        found = self.ask("GET", self.path)
        assert found.status == 200, f"GET {self.path}: {found.status} {found.body!r:.200}"
        return dict(found.json)

    @cached_property
    def expected(self) -> list[dict[str, Any]]:
        """The outputs of the request as JSON."""
        found = self.infer()
        assert found.status == 200, f"the request of the suite gets {found.status}: {found.body!r:.300}"
        return list(found.json["outputs"])

    @staticmethod
    def _made(tensor: dict[str, Any]) -> dict[str, Any]:
        shape = [size if size >= 0 else 1 if place else 2 for place, size in enumerate(tensor["shape"])]
        many = 1
        for size in shape:
            many *= size
        kind = tensor["datatype"]
        value: Any = "a" if kind == "BYTES" else True if kind == "BOOL" else 1
        return {"name": tensor["name"], "shape": shape, "datatype": kind, "data": [value] * many}


def flat(data: Any) -> list[Any]:
    """Nested data in one list."""
    return [value for one in data for value in flat(one)] if isinstance(data, list) else [data]


def nested(data: list[Any], shape: list[int]) -> list[Any]:
    """A list as deep as a shape."""
    if len(shape) < 2:
        return data
    size = len(data) // shape[0] if shape[0] else 0
    return [nested(data[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def packed(datatype: str, data: list[Any]) -> bytes:
    """Values as the binary tensor extension has them."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in data)
    nothing = [float("nan") if value is None else value for value in data]
    return struct.pack(f"<{len(data)}{FORMATS[datatype]}", *nothing)


def unpacked(datatype: str, raw: bytes) -> list[Any]:
    """The values of a raw tensor."""
    if datatype != "BYTES":
        return list(struct.unpack(f"<{len(raw) // struct.calcsize(FORMATS[datatype])}{FORMATS[datatype]}", raw))
    found, place = [], 0
    while place < len(raw):
        (size,) = struct.unpack_from("<I", raw, place)
        found.append(raw[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return found


def binary(request: dict[str, Any], *, which: int | None = None) -> tuple[bytes, str]:
    """A request with its tensors (or one of them) behind the JSON, and the length of the JSON."""
    raw = b""
    for place, one in enumerate(request["inputs"]):
        if which in (None, place):
            data = packed(one["datatype"], flat(one.pop("data")))
            one["parameters"] = {"binary_data_size": len(data)}
            raw += data
    head = json.dumps(request).encode()
    return head + raw, str(len(head))
