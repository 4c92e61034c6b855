"""`tidemill serve`: models on a port, with no project."""

import time
from functools import partial
from pathlib import Path

from rich.markup import escape

from tidemill.cli.console import out, print_json
from tidemill.core import MissingFile, StoreError
from tidemill.models import OnnxModel
from tidemill.serving import Repository, Served
from tidemill.web import serve_models


def serve_model(path: Path, name: str, host: str, port: int, grpc_port: int | None = None, *, as_json: bool) -> None:
    """Serve an ONNX file until Ctrl-C, over gRPC too where a port for it is given; print the addresses, or an object with them."""
    one = Served(name or path.stem, "1", partial(_load, path), lambda: time.time_ns() // 1000)
    one.model = one.load()

    def ready(url: str, grpc: str) -> None:
        if as_json:
            print_json({"url": url, **({"grpc": grpc} if grpc else {}), "models": [one.name]})
            return
        out.print(f"[bold]{escape(one.name)}[/] answers POST {url}/v2/models/{one.name}/infer")
        if grpc:
            out.print(f"  and over gRPC at {grpc}")
        for what, specs in zip(("takes", "gives"), one.tensors(), strict=True):
            for spec in specs.values():
                out.print(f"  {what}  {escape(spec.name)}  {spec.datatype} {escape(str(list(spec.shape)))}")
        out.print("Ctrl-C ends it")

    serve_models(Repository([one]), host, port, ready, grpc_port)


def _load(path: Path) -> OnnxModel:
    try:
        return OnnxModel(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise MissingFile(f"there is no file {path}", hint="name an ONNX file") from error
    except OSError as error:
        raise StoreError(f"the file cannot be read: {error.strerror or error}", where=str(path), hint="name an ONNX file") from error
