"""A user's folder → its declarations, each with file and line.

The `*.py` files of the folder that use names of `tidemill`, or import a file of it or of its packages that does, are imported; what they
declare is collected by the generic type in `core`, named by kind and name.
"""

import ast
import importlib.util
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from tidemill.core import Damaged, Declaration, DefinitionError, MissingFile, TidemillError, UnknownName, version_of, walk
from tidemill.ledger import Ledger
from tidemill.project.settings import FILE, Settings, read_settings
from tidemill.store import FolderBlobs, Records, holder, store_error, writer

D = TypeVar("D", bound=Declaration)
OF_SCRIPTS = {"convert", "open", "run", "core", "__version__"}  # names of Tidemill that declare nothing
SCRIPT = 'put scripts into a subfolder, or begin what one runs with: if __name__ == "__main__":'


def now() -> int:
    """The wall clock in microseconds UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Project:
    """Settings and declarations of one folder."""

    settings: Settings

    @cached_property
    def declarations(self) -> tuple[Declaration, ...]:
        """What the files declare; they are imported on first use. Raises DefinitionError with file and line."""
        path = importing(self.folder)
        if path is not None:
            what = f"{path.name} opens the project that it is a part of: the project's files are imported to learn what they declare"
            raise DefinitionError(what, hint=SCRIPT)
        _forget()
        _imported_at[self.folder] = now()
        found: dict[tuple[str, ...], Declaration] = {}
        for path in _declaring(self.folder):
            module = _import(path)
            for value in list(vars(module).values()):
                for declaration in walk(value):
                    _collect(found, declaration)
        return tuple(found.values())

    @property
    def folder(self) -> Path:
        return self.settings.folder

    @property
    def name(self) -> str:
        return str(self.settings["project.name"])

    @property
    def timezone(self) -> str:
        return str(self.settings["project.timezone"])

    @property
    def state(self) -> Path:
        """Where the project's state lies: caches, segments and the lock, beside the default records and blobs."""
        return self.folder / ".tidemill"

    def all(self, cls: type[D]) -> list[D]:
        """Declarations of a type, in the order of the files."""
        return [found for found in self.declarations if isinstance(found, cls)]

    def get(self, cls: type[D], name: str) -> D:
        """A declaration by name; raises UnknownName."""
        found = self.all(cls)
        for declaration in found:
            if getattr(declaration, "name", "") == name:
                return declaration
        names = [str(getattr(d, "name", "")) for d in found]
        raise UnknownName(f"no {cls.kind} is named {name!r}", where=str(self.folder), available=names)

    def only(self, cls: type[D], name: str = "") -> D:
        """The declaration of that name, or the only one of its type; raises DefinitionError when that is not clear."""
        if name:
            return self.get(cls, name)
        found = self.all(cls)
        if len(found) != 1:
            names = [str(getattr(d, "name", "")) for d in found]
            problem = f"the project declares {len(found)} of {cls.__name__}, one is needed"
            raise DefinitionError(
                problem, where=str(self.folder), available=names, hint="name the one that is meant" if found else "declare one"
            )
        return found[0]

    def ledger(self, *, read_only: bool = False) -> Ledger:
        """The project's ledger; close its records when done."""
        place, blobs = self.settings.records, self.settings.path("store.blobs")
        if isinstance(place, Path) and any(blobs.glob("??/*")):
            _check_there(place)
        records = Records(place, read_only=read_only)
        return Ledger(records, FolderBlobs(blobs), now, read_only=read_only)

    @contextmanager
    def writing(self, command: str, *, wait: float = 0.0) -> Iterator[Ledger]:
        """The ledger, with the writer's lock held. What dead processes left is put in order first: open executions, half-written blobs."""
        told = lambda who: print(f"{who}, at most {wait:.0f} s", file=sys.stderr)  # noqa: E731, T201 – said once, to the person who waits
        with writer(self.state / "writer.lock", command, wait=wait, waiting=told):
            ledger = self.ledger()
            try:
                with ledger.records.alone(command, wait=wait, waiting=told):
                    ledger.close_dead()
                    ledger.blobs.sweep()
                    yield ledger
            finally:
                ledger.records.close()

    def writer(self) -> dict[str, object]:
        """Who held the writer's lock last."""
        return holder(self.state / "writer.lock")


def find(folder: Path | str = ".") -> Project:
    """The project in a folder, its files not imported yet; raises MissingFile and DefinitionError for the settings."""
    if str(folder).startswith(("http:/", "https:/")):
        hint = "name the folder on the server's machine; runs reach a server by TIDEMILL_URI, and MLflow's client reads from one"
        raise MissingFile("a project is a folder, and this is the address of a server", where=str(folder), hint=hint)
    return Project(read_settings(Path(folder)))


def ensure(folder: Path) -> Project:
    """The project in a folder, made where there is none; raises StoreError when the disk refuses."""
    if not (folder / FILE).exists():
        name = folder.resolve().name.replace("\\", "/").replace('"', "'")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
        except OSError as error:
            raise store_error(error, str(folder)) from error
    return find(folder)


def load(folder: Path | str = ".") -> Project:
    """The project in a folder, its files imported; raises MissingFile, DefinitionError with file and line."""
    found = find(folder)
    _ = found.declarations
    return found


def _check_there(place: Path) -> None:
    """Raise Damaged where the file of records is missing or empty: with blobs beside it, a new one would hide that they were lost."""
    if place.exists() and place.stat().st_size:
        return
    what = "is empty, but there are blobs: its contents were lost" if place.exists() else "is missing, but there are blobs: it was lost"
    hint = "restore it from a backup; or delete it and the blobs to begin anew"
    raise Damaged(f"the ledger file {what}", where=str(place), hint=hint if place.exists() else hint.replace("it and the", "the"))


def _declaring(folder: Path) -> list[Path]:
    """Files that may declare something: they import Tidemill, and not only for what scripts use, or they import a file of the folder, or of
    a package in it, that does. What else lies there is a script of its own: who asks for the status of a project wants nothing trained."""
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith(".") and not path.is_dir())
    read: dict[Path, tuple[set[str], set[Path]]] = {}
    more = set(paths)
    while more:
        read |= {path: _reads(path, folder) for path in more}
        more = {file for path in more for file in read[path][1]} - read.keys()
    chosen = {path for path, (used, _) in read.items() if used - OF_SCRIPTS}
    while found := {path for path, (used, files) in read.items() if not used and files & chosen} - chosen:
        chosen |= found
    return [path for path in paths if path in chosen]


def _reads(path: Path, folder: Path) -> tuple[set[str], set[Path]]:
    """The names of Tidemill that a file uses, `*` where they cannot be told, and the files of the folder that it imports."""
    text = b"tidemill"
    try:
        text = path.read_bytes()
        nodes = _nodes(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ({"*"} if b"tidemill" in text.replace(b"\0", b"") else set()), set()  # its import says what is wrong
    called, used, attributes, files = set[str](), set[str](), set[tuple[str, str]](), set[Path]()
    for node in nodes:
        match node:
            case ast.Import(names):
                called |= {one.asname or one.name for one in names if one.name == "tidemill"}
                used |= {one.name.split(".")[1] for one in names if one.name.startswith("tidemill.")}
                files |= {file for one in names for file in _files(folder, one.name)}
            case ast.ImportFrom(module, names, level):
                if not level and module and module.split(".")[0] == "tidemill":
                    used |= {"core"} if module.startswith("tidemill.core") else {one.name for one in names}
                base = path.parents[:level][-1] if level else folder
                files |= {file for one in names for file in _files(base, f"{module or ''}.{one.name}".removeprefix("."))}
            case ast.Attribute(ast.Name(name), attribute):
                attributes.add((name, attribute))
            case ast.Call(ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"), [ast.Constant("tidemill"), *_]):
                used.add("*")
    used |= {attribute for name, attribute in attributes if name in called}
    return used or ({"*"} if called else set()), files


def _nodes(text: bytes) -> list[ast.AST]:
    """The parts of a source, without what only a type checker reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a script that nobody imports
        nodes: list[ast.AST] = [ast.parse(text)]
    for node in nodes:  # it grows as it is walked
        match node:
            case ast.If(ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), _, otherwise):
                nodes += otherwise
            case _:
                nodes += ast.iter_child_nodes(node)
    return nodes


def _files(folder: Path, module: str) -> list[Path]:
    """The files that are read when a module is imported from a folder: its own, and those of the packages that it lies in."""
    parts = module.split(".")
    places = [folder.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    return [file for place in places for file in (place.with_name(f"{place.name}.py"), place / "__init__.py") if os.access(file, os.R_OK)]


def importing(folder: Path | None = None) -> Path | None:
    """The project's file that is being imported just now to learn what it declares, of one folder or of any."""
    return _loading.get(folder) if folder else next(iter(_loading.values()), None)


def imported_at(place: Path) -> int | None:
    """When the files of a folder, or of the one that a file lies in, were imported last in this process; None where they never were."""
    return next((_imported_at[above] for above in (place, *place.parents) if above in _imported_at), None)


def _collect(found: dict[tuple[str, ...], Declaration], declaration: Declaration) -> None:
    name = str(getattr(declaration, "name", ""))
    key = (declaration.family or declaration.kind, name, *([version_of(declaration)] if declaration.part else []))
    other = found.setdefault(key, declaration)
    if other is not declaration and version_of(other) != version_of(declaration):
        kinds = f"a {other.kind} and a {declaration.kind} are named {name!r}"
        what = kinds if other.kind != declaration.kind else f"the {other.kind} {name!r} is declared in two different ways"
        raise DefinitionError(what, where=f"{other.where} and {declaration.where}", hint="give one of them another name")


class _Uncached(SourceFileLoader):
    """Reads a file's source each time, and leaves no byte code behind."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class _Finder(MetaPathFinder):
    """Finds the modules of a project's folder; all others are found as ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        places = [str(self.folder)] if path is None else [place for place in path if _of_project(place, self.folder)]
        for place in places:
            spec = FileFinder(place, (_Uncached, [".py"])).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        return None


_loading: dict[Path, Path] = {}  # by folder, the file that is being imported
_imported_at: dict[Path, int] = {}  # by folder, microseconds UTC
_imported: set[str] = set()  # modules of projects: another project may have files of the same names, and a file may have changed


def _forget() -> None:
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()


def _import(path: Path) -> ModuleType:
    name = f"_tidemill_project_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importing(path.parent):
        sys.modules[name] = module
        _loading[path.parent] = path
        try:
            spec.loader.exec_module(module)
        except TidemillError as error:
            error.where = error.where or _place(error, path)
            raise
        except (Exception, SystemExit) as error:  # a script that ends must not end the command
            what = f"{path.name} cannot be imported: {type(error).__name__}: {error}"
            raise DefinitionError(what, where=_place(error, path), hint=_hint(error)) from error
        finally:
            del _loading[path.parent]
    return module


def _hint(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return SCRIPT
    if isinstance(error, (SyntaxError, ValueError)) and re.search("contain null bytes|codec can't decode", str(error)):
        return "save the file as UTF-8"
    own = not isinstance(error, ImportError) or str(error).startswith(("cannot import name", "attempted relative import"))
    return f"{'correct the file' if own else 'install what it needs'}; or, where it declares nothing, put it into a subfolder"


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """Files of the folder can import each other. Their byte code is not kept: it is dated by the second, too coarse for an edit."""
    before, finder = set(sys.modules), _Finder(folder)
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        with suppress(ValueError):  # the file may have taken it off
            sys.path.remove(str(folder))
        new = {name: module for name, module in list(sys.modules.items()) if name not in before}
        _imported.update(name for name, module in new.items() if _of_project(_file(module), folder))


def _file(module: ModuleType) -> str | None:
    """Where a module lies; one without a file of its own is a folder."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)


def _of_project(file: str | None, folder: Path) -> bool:
    """Whether a file is the project's own: in its folder, and not in an environment that lies there."""
    return file is not None and Path(file).is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_project(frame.filename, path.parent)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
