"""The least that an inference request can cost, written by hand: one model, one tensor, no checks, nothing kept.

    python benchmarks/measure/bound.py raw|uvicorn|grpc MODEL.onnx     prints its address as JSON

`raw` is a bare protocol on uvloop and httptools, `uvicorn` an ASGI application, `grpc` a method of grpcio with raw tensors alone.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvicorn
import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/%b\r\ncontent-length: %d\r\n%b\r\n%b"


class Input(msgspec.Struct):
    """A tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] | None = None


class Request(msgspec.Struct):
    """One tensor in a list."""

    inputs: list[Input]


class Output(msgspec.Struct, omit_defaults=True):
    """A tensor of the answer."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Model:
    """JSON or raw floats in, the same out."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.run, self.entry = session.run, session.get_inputs()[0].name
        self.decode, self.encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode

    def infer(self, body: bytes, head: int) -> tuple[bytes, int]:
        """The answer, and how much of it is JSON; 0 where all is."""
        tensor = self.decode(body[:head] if head else body).inputs[0]
        if head:
            rows = np.frombuffer(body, "<f4", offset=head).reshape(tensor.shape)
        else:
            rows = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
        label, shares = self.run(None, {self.entry: rows})
        if not head:
            told = [Output("label", label.shape, "INT64", label.tolist()), Output("shares", shares.shape, "FP32", shares.ravel().tolist())]
            return self.encode({"model_name": "m", "outputs": told}), 0
        sizes = ({"binary_data_size": label.nbytes}, {"binary_data_size": shares.nbytes})
        told = [Output("label", label.shape, "INT64", None, sizes[0]), Output("shares", shares.shape, "FP32", None, sizes[1])]
        plain = self.encode({"model_name": "m", "outputs": told})
        return plain + label.tobytes() + shares.tobytes(), len(plain)


class Raw(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; every request is an inference."""

    model: Model

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Some of a request came."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.body, self.head = b"", 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Where raw tensors begin."""
        if len(name) == 31 and name.lower() == b"inference-header-content-length":
            self.head = int(value)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Answer."""
        body, head = self.model.infer(self.body, self.head)
        more = b"inference-header-content-length: %d\r\n" % head if head else b""
        self.transport.write(ANSWER % (b"octet-stream" if head else b"json", len(body), more, body))


def application(model: Model) -> Callable[..., Awaitable[None]]:
    """The same as an ASGI application."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        head = next((int(value) for name, value in scope["headers"] if name == b"inference-header-content-length"), 0)
        answer, head = model.infer(body, head)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        headers += [(b"inference-header-content-length", b"%d" % head)] if head else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def field(number: int, data: bytes) -> bytes:
    """Bytes in a message of protobuf, fewer than 2 ** 14."""
    return bytes([number << 3 | 2, *([len(data)] if len(data) < 128 else [len(data) & 127 | 128, len(data) >> 7])]) + data


def fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field of such a message."""
    place = 0
    while place < len(body):
        number, size, place = body[place] >> 3, body[place + 1], place + 2
        if size > 127:
            size, place = (size & 127) + (body[place] << 7), place + 1
        yield number, body[place : place + size]
        place += size


def remote(model: Model) -> None:
    """Serve over gRPC without end: the last tensor of a request is its rows."""
    import grpc

    told = [field(1, name) + field(2, kind) for name, kind in ((b"label", b"INT64"), (b"probabilities", b"FP32"))]

    def infer(body: bytes, context: Any) -> bytes:
        rows = np.frombuffer(dict(fields(body))[7], "<f4").reshape(-1, 30)
        label, shares = model.run(None, {model.entry: rows})
        shapes = (field(3, bytes([len(rows)])), field(3, bytes([len(rows), 2])))
        heads = b"".join(field(5, one + shape) for one, shape in zip(told, shapes, strict=True))
        return field(1, b"m") + heads + field(6, label.tobytes()) + field(6, shares.tobytes())

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_registered_method_handlers("inference.GRPCInferenceService", {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)})
    print(json.dumps({"grpc": f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"}), flush=True)
    server.start()
    server.wait_for_termination()


async def raw(listener: socket.socket) -> None:
    """Serve without end."""
    server = await asyncio.get_running_loop().create_server(Raw, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Serve a model until the end of the process."""
    kind, path = sys.argv[1:]
    model = Model(str(Path(path)))
    if kind == "grpc":
        remote(model)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    if kind == "raw":
        Raw.model = model
        uvloop.run(raw(listener))
    config = uvicorn.Config(application(model), http="httptools", ws="none", lifespan="off", log_level="warning", access_log=False)
    uvloop.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
