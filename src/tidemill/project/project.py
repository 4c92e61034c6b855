"""A user's folder → its declarations, each with file and line.

The `*.py` files of the folder that use names of `tidemill`, or import a file of it that does, are imported; what they declare is
collected by the generic type in `core`, named by kind and name.
"""

import ast
import importlib.util
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
OF_SCRIPTS = {"open", "run", "__version__"}  # names of Tidemill that declare nothing
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
        found: dict[tuple[str, ...], Declaration] = {}
        for path in _declaring(sorted(self.folder.glob("*.py"))):
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


def _declaring(paths: Sequence[Path]) -> list[Path]:
    """Files that may declare something: they import Tidemill, and not only for what scripts use, or they import a file or a package of the
    folder that does. What else lies there is a script of its own: who asks for the status of a project wants nothing trained."""
    read = {path.stem: _reads(path) for path in paths}
    chosen = {stem for stem, (imports, used, _) in read.items() if imports and not (used and used <= OF_SCRIPTS)}
    chosen |= {folder.name for folder in (paths[0].parent.iterdir() if paths else ()) if folder.is_dir() and _is_package(folder)}
    more = True
    while more:
        found = {stem for stem, (imports, _, modules) in read.items() if not imports and modules & chosen} - chosen
        more, chosen = bool(found), chosen | found
    return [path for path in paths if path.stem in chosen]


def _is_package(folder: Path) -> bool:
    """Whether a folder holds files that import Tidemill; an environment that lies there is none."""
    if folder.name.startswith(".") or not _of_project(str(folder), folder.parent) or (folder / "pyvenv.cfg").exists():
        return False
    return any(re.search(r"^\s*(?:import|from)\s+tidemill\b", _text(one), re.MULTILINE) for one in folder.rglob("*.py"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _reads(path: Path) -> tuple[bool, set[str], set[str]]:
    """Whether a file imports Tidemill, the names of it that it uses, and the modules that it imports."""
    text = _text(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a script that nobody imports
            nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "tidemill" in text, set(), set()  # its import says what is wrong
    called, used, modules = set[str](), set[str](), set[str]()
    imports = any(isinstance(node, ast.Constant) and node.value == "tidemill" for node in nodes)
    for node in nodes:
        if isinstance(node, ast.Import):
            called |= {one.asname or "tidemill" for one in node.names if one.name == "tidemill"}
            used |= {one.name.partition(".")[2] for one in node.names if one.name.startswith("tidemill.")}
            modules |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.partition(".")[0]
            used |= {one.name for one in node.names} if top == "tidemill" else set()
            modules.add(top)
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    used |= {node.attr for node in attributes if node.value.id in called}  # type: ignore[attr-defined]
    return imports or "tidemill" in modules, used, modules


def importing(folder: Path | None = None) -> Path | None:
    """The project's file that is being imported just now to learn what it declares, of one folder or of any."""
    return _loading.get(folder) if folder else next(iter(_loading.values()), None)


def _collect(found: dict[tuple[str, ...], Declaration], declaration: Declaration) -> None:
    key = (declaration.kind, str(getattr(declaration, "name", "")), *([version_of(declaration)] if declaration.part else []))
    other = found.setdefault(key, declaration)
    if other is not declaration and version_of(other) != version_of(declaration):
        raise DefinitionError(
            f"the {key[0]} {key[1]!r} is declared in two different ways",
            where=f"{other.where} and {declaration.where}",
            hint="give one of them another name",
        )


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
            hint = (
                "install what it needs"
                if isinstance(error, ImportError)
                else SCRIPT
                if isinstance(error, SystemExit)
                else "correct the file"
            )
            what = f"{path.name} cannot be imported: {type(error).__name__}: {error}"
            raise DefinitionError(what, where=_place(error, path), hint=hint) from error
        finally:
            del _loading[path.parent]
    return module


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
        sys.path.remove(str(folder))
        new = {name: getattr(sys.modules.get(name), "__file__", None) for name in set(sys.modules) - before}
        _imported.update(name for name, file in new.items() if _of_project(file, folder))


def _of_project(file: str | None, folder: Path) -> bool:
    """Whether a file is the project's own: in its folder, and not in an environment that lies there."""
    return file is not None and Path(file).is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_project(frame.filename, path.parent)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
