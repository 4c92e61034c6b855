"""`tidemill serve`: a model on a port: a file, with no project, or a registered version of one."""

import re
import time
from functools import partial
from pathlib import Path

from rich.markup import escape

from tidemill.cli.console import out, print_json
from tidemill.core import MissingFile, StoreError, size
from tidemill.models import MatrixModel, OnnxModel
from tidemill.serving import CachedModel, Repository, Served
from tidemill.web import logged, serve_models

VERSION = re.compile(r"models:/.+|[^/]+@[^/]+|(?!\.{1,2}/)[^/]+/\d+")  # that a file seldom is called


def serve_model(
    folder: str,
    model: str,
    name: str,
    host: str,
    port: int,
    grpc_port: int | None = None,
    cache: str = "",
    *,
    as_json: bool,
    access: bool = False,
) -> None:
    """Serve an ONNX file, or a registered version of the project in a folder, until Ctrl-C, over gRPC too where a port for it is given;
    print the addresses, or an object with them. `cache` is the size of what is kept of answers; with `access`
    each request is a line of the server's log. Raises DefinitionError for what is no size."""
    most = size(cache) if cache else 0
    one = _of_file(Path(model), name) if Path(model).exists() or not VERSION.fullmatch(model) else _of_version(folder, model, name)

    if most:
        load = one.load
        one.load = lambda: CachedModel(load(), most)
        one.model = one.model and CachedModel(one.model, most)

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

    with logged(as_json=as_json, access=access):
        serve_models(Repository([one]), host, port, ready, grpc_port)


def _clock() -> int:
    return time.time_ns() // 1000


def _of_version(folder: str, text: str, name: str) -> Served:
    """A registered version, under its number; loaded anew it is the same, wherever an alias points by then."""
    from tidemill import project, registry

    def opened(text: str) -> tuple[registry.ModelVersion, MatrixModel | OnnxModel]:
        ledger = project.find(folder).ledger()
        try:
            return registry.open_version(ledger, text)
        finally:
            ledger.records.close()

    version, model = opened(text)
    return Served(name or version.name, version.version, lambda: opened(f"{version.name}/{version.version}")[1], _clock, model)


def _of_file(path: Path, name: str) -> Served:
    one = Served(name or path.stem, "1", partial(_load, path), _clock)
    one.model = one.load()
    return one


def _load(path: Path) -> OnnxModel:
    try:
        return OnnxModel(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        hint = "name an ONNX file, or a registered version: NAME@ALIAS, NAME/NUMBER"
        raise MissingFile(f"there is no file {path}", hint=hint) from error
    except OSError as error:
        raise StoreError(f"the file cannot be read: {error.strerror or error}", where=str(path), hint="name an ONNX file") from error
