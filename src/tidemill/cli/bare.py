"""`tidemill serve`: a model on a port: a file, with no project, or a registered version of one."""

import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rich.markup import escape

from tidemill import __version__
from tidemill.cli.console import ending, out, print_json
from tidemill.core import SECOND, DataError, DefinitionError, MissingFile, StoreError, duration, odd_duration, odd_size, size
from tidemill.models import MatrixModel, OnnxModel
from tidemill.serving import CachedModel, InferenceLog, Repository, Served, Shelf, Tensors, Together, traced
from tidemill.web import Place, logged, number_of, supervise

PICKLES = (".joblib", ".pickle", ".pkl", ".skops")
STATISTICS = "stats"  # of all models, by the protocol
VERSION = re.compile(r"models:/.+|[^/]+@[^/]+|(?!\.{1,2}/)[^/]+/\d+")  # that a file seldom is called


def serve_model(
    folder: str,
    model: str,
    name: str,
    host: str,
    port: int,
    grpc_port: int | None = None,
    workers: int | str = 1,
    cache: str = "",
    log: Path | None = None,
    deadline: str = "60s",
    *,
    as_json: bool,
    access: bool = False,
) -> None:
    """Serve an ONNX file, or a registered version of the project in a folder, until Ctrl-C, over gRPC too where a port for it is given,
    by so many processes; print the addresses, or an object with them. `cache` is the size of what each keeps of answers; `log` is the
    folder of what is asked and answered; an answer takes at most a `deadline`; with `access` each request is a line of the server's own
    log. Raises DefinitionError for what is no size and no duration, StoreError for a folder that cannot be written."""
    for problem in (*(odd_size("--cache", cache, "64MB") if cache else ()), *odd_duration("--deadline", deadline, "30s")):
        raise problem
    most, place, many = size(cache) if cache else 0, Place.taken(), number_of(workers)
    if place.alone and many > 1:
        with logged(as_json=as_json, access=access):
            supervise(many, host, port, grpc_port, sys.argv[1:])
        return
    from tidemill.web import serve_models  # much, of which a parent needs nothing

    is_file = Path(model).exists() or not VERSION.fullmatch(model)
    source = _of_file(Path(model), name) if is_file else _of_version(folder, model, name)
    if "/" in source.name or source.name == STATISTICS:
        raise DefinitionError(f"no address leads to a model that is called {source.name!r}", hint="give it another name: --name")
    source = _cached(source, most, place) if most else source
    one = _loaded(source) if place.alone else _together(source, Shelf(place.shelf))
    one.log = InferenceLog(log, one.name) if log else None

    logs = one.log and (one.log.path if place.alone else one.log.first)

    def ready(url: str, grpc: str) -> None:
        if as_json:
            more = ({"grpc": grpc} if grpc else {}) | ({"log": str(logs)} if logs else {})
            print_json({"url": url, **more, "models": [one.name], "workers": place.of})
            return
        out.print(f"[bold]{escape(one.name)}[/] answers POST {url}/v2/models/{quote(one.name)}/infer")
        if grpc:
            out.print(f"  and over gRPC at {grpc}")
        for what, specs in zip(("takes", "gives"), one.tensors(), strict=True):
            for spec in specs.values():
                out.print(f"  {what}  {escape(spec.name)}  {spec.datatype} {escape(str(list(spec.shape)))}")
        if logs:
            out.print(f"  logs to {escape(str(logs))}")
        out.print(ending(place.of))

    with logged(as_json=as_json, access=access, counters=place.counters), traced("", one.name, __version__):
        serve_models(Repository([one]), host, port, ready, grpc_port, place, duration(deadline) / SECOND)


def _clock() -> int:
    return time.time_ns() // 1000


class Source(NamedTuple):
    """A model by name and version, the bytes that it is made of, and what makes it of them."""

    name: str
    version: str
    fetch: Callable[[], bytes]
    opened: Callable[[bytes], Tensors]


def _cached(source: Source, most: int, place: Place) -> Source:
    def opened(data: bytes) -> CachedModel:
        model = source.opened(data)
        if isinstance(model, OnnxModel) and model.draws:
            what = f"{source.name!r} draws random numbers ({model.draws}), and would say the same again and again"
            raise DefinitionError(what, hint="leave out --cache")
        found = CachedModel(model, most)
        found.cache.count_in(place.counters, "model", source.name)
        return found

    return source._replace(opened=opened)


def _loaded(source: Source) -> Served:
    one = Served(source.name, source.version, lambda: source.opened(source.fetch()), _clock)
    one.model = one.load()
    return one


def _together(source: Source, shelf: Shelf) -> Together:
    """As the processes serve it that are there already; the first one loads it."""
    load = partial(source.opened, b"")
    one = Together(source.name, source.version, load, _clock, shelf=shelf, fetch=source.fetch, opened=source.opened)
    if not shelf.changes:
        one.load_anew()
    one.catch_up()
    return one


def _of_version(folder: str, text: str, name: str) -> Source:
    """A registered version, under its number: it lies in the project, and loaded anew it is the same, wherever an alias points by then."""
    from tidemill import project, registry

    def opened(text: str) -> tuple[registry.ModelVersion, MatrixModel | OnnxModel]:
        ledger = project.find(folder).ledger()
        try:
            return registry.open_version(ledger, text)
        finally:
            ledger.records.close()

    version, _ = opened(text)
    return Source(name or version.name, version.version, bytes, lambda _: opened(f"{version.name}/{version.version}")[1])


def _of_file(path: Path, name: str) -> Source:
    return Source(name or path.stem, "1", partial(_read, path), lambda data: OnnxModel(data, str(path)))


def _read(path: Path) -> bytes:
    if path.suffix in PICKLES and path.exists():
        hint = 'make an ONNX file of the model where it was trained: tm.convert(model, rows, "model.onnx")'
        raise DataError("a pickle runs what its author wants, and is not loaded", where=str(path), hint=hint)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        hint = "name an ONNX file, or a registered version: NAME@ALIAS, NAME/NUMBER"
        raise MissingFile(f"there is no file {path}", hint=hint) from error
    except OSError as error:
        raise StoreError(f"the file cannot be read: {error.strerror or error}", where=str(path), hint="name an ONNX file") from error
