"""The rules of the house, as functions from source modules to complaints.

Each takes the modules of the package (read from disk, never imported) and returns one line per place that breaks it: `file:line` and what
to do instead. `test_house.py` runs every rule over `src/` and over a planted violation.
"""

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EDGES = {"cli", "web"}  # they assemble what each stage offers in files of the same names
FILE_LINES = 400
FUNCTION_LINES = 20
MOCKS_PER_1000_LINES = 2

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, and its text."""

    name: str
    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @property
    def stage(self) -> str:
        """`registry` for `tidemill.registry.versions`; empty for `tidemill` itself."""
        return [*self.name.split("."), ""][1]

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Line, module, name: `from a.b import c` is (line, "a.b", "c"); `import a.b` is (line, "a.b", ""). Relative ones made absolute."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = node.module or ""
                if node.level:
                    parts = self.name.split(".")
                    here = parts[: len(parts) - node.level + self.is_package]
                    source = ".".join([*here, source]) if source else ".".join(here)
                found += [(node.lineno, source, alias.name) for alias in node.names]
        return found

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """The numbers of lines that hold code: not blank, not a comment, not a docstring."""
        silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING}
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in silent:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Module, ast.ClassDef, *type_of_function)) and ast.get_docstring(node, clean=False) is not None:
                lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        return frozenset(lines)

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """Name, line and code lines of every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, type_of_function):
                yield node.name, node.lineno, len(self.code_lines.intersection(range(node.lineno, (node.end_lineno or 0) + 1)))


@cache
def modules_under(folder: Path) -> list[Module]:
    """The modules of a tree of sources, named from `folder` down."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, file.relative_to(folder).as_posix(), file.read_text(encoding="utf-8")))
    return found


def _offers(module: Module) -> set[str]:
    """What a package's front door hands out: names that its `__init__` binds, or spells in a lazy table or `__all__`."""
    names = {name for _, _, name in module.imports if name}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        elif isinstance(node, (ast.ClassDef, *type_of_function)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def front_door(modules: list[Module]) -> list[str]:
    """A stage is entered by its front door: `from tidemill import registry` or `from tidemill.registry import promote`, never
    `tidemill.registry.something_inside`. Export the name from the stage's `__init__.py`; if it does not belong there, the thing that two
    stages need belongs in a lower stage, under a name of its own."""
    known = {module.name for module in modules}
    doors = {module.stage: module for module in modules if module.is_package and module.name.count(".") == 1}
    doors |= {module.stage: module for module in modules if module.name.count(".") == 1}
    complaints = []
    for module in modules:
        if not module.stage:
            continue
        for line, source, name in module.imports:
            parts = source.split(".")
            if parts[0] != "tidemill":
                continue
            where = f"{module.path}:{line}: "
            if len(parts) == 1:
                if name not in doors and not name.startswith("__"):
                    complaints.append(f"{where}`{name or source}` is not a stage; inside the house, import the stage that owns it")
                continue
            entered = f"{source}.{name}" if f"{source}.{name}" in known and name not in _offers(doors[parts[1]]) else source
            inner = entered.split(".")[2:]
            if not inner:
                continue
            if inner[0] in EDGES - {module.stage} and parts[1] not in EDGES:
                complaints.append(f"{where}`{entered}` presents; only tidemill.{inner[0]} assembles it")
            elif parts[1] != module.stage and inner != [module.stage]:
                complaints.append(f"{where}`{entered}` is inside {parts[1]}; use what `tidemill.{parts[1]}` offers")
        complaints += _through_the_window(module, doors, known)
    return list(dict.fromkeys(complaints))  # one line may import several names


def _through_the_window(module: Module, doors: dict[str, Module], known: set[str]) -> list[str]:
    """`from tidemill import registry`, then `registry.inner.name`."""
    entered = {name for _, source, name in module.imports if source == "tidemill" and name in doors}
    return [
        f"{module.path}:{node.lineno}: `{ast.unparse(node)}` is inside {node.value.id}; use what `tidemill.{node.value.id}` offers"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in entered
        if f"tidemill.{node.value.id}.{node.attr}" in known and node.attr not in _offers(doors[node.value.id])
    ]


def named_rooms(modules: list[Module]) -> list[str]:
    """There is no `utils`, `common`, `helpers`, `base` or `misc`: a file is named after the concept it holds. What two stages need has a
    name, and lives in `core`, `ledger` or the lower stage."""
    nameless = re.compile(r"^_?(utils?|common|commons|helpers?|base|misc|shared|stuff)$")
    return [f"{module.path}: what is the concept in here?" for module in modules if any(map(nameless.match, module.name.split(".")))]


def finished(modules: list[Module]) -> list[str]:
    """What is in the tree works. Leave out what is not built yet, and write what is missing into the issue, not into the source."""
    words = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|raise NotImplemented)\b")
    return [
        f"{module.path}:{number}: {line.strip()}"
        for module in modules
        for number, line in enumerate(module.text.splitlines(), 1)
        if words.search(line)
    ]


def no_pickle(modules: list[Module]) -> list[str]:
    """A pickle runs code when it is read. Models are kept in safe formats (ONNX, skops, a booster's own text file); everything else in
    Parquet, JSON or SQLite. What only a pickle can keep is written where models are trained, and read by a program that no module
    imports: the process of an isolated model."""
    readers = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    writer, apart = "tidemill.models.original", "tidemill.models._apart"
    complaints = []
    for module in modules:
        free = module.name in (writer, apart)
        complaints += [
            f"{module.path}:{line}: imports {source}"
            for line, source, _ in module.imports
            if source == apart or (source.split(".")[0] in readers and not free)
        ]
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            allows = any(word.arg == "allow_pickle" and getattr(word.value, "value", True) is not False for word in node.keywords)
            reads = called.endswith(("pickle.load", "pickle.loads", "Unpickler")) and module.name != apart
            if allows or reads or called.endswith("read_pickle") or called == "torch.load":
                complaints.append(f"{module.path}:{node.lineno}: `{called}` may read a pickle")
    return complaints


def pure_core(modules: list[Module]) -> list[str]:
    """Core computes from its arguments: hand it `now`, the bytes, the seed. Read the clock once at an entry point, files in `store` or the
    stage that owns them. (Which modules core may not import is an import contract in pyproject.toml.)"""
    clock = re.compile(r"(^|\.)(now|utcnow|today)$")
    complaints = []
    for module in modules:
        for node in ast.walk(module.tree) if module.stage == "core" else ():
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            seeded = called.endswith(("default_rng", "SeedSequence", "PCG64", "Generator")) and bool(node.args or node.keywords)
            unseeded = ".random." in called and not seeded
            if called in {"open", "print", "input"} or clock.search(called) or unseeded:
                complaints.append(f"{module.path}:{node.lineno}: `{called}()` is I/O, a clock or randomness")
    return complaints


def clock_at_the_edges(modules: list[Module]) -> list[str]:
    """The wall clock is read where a person, a request or a log call comes in, and where a project opens its ledger; below that, `now` or
    `wall` is an argument. Monotonic timers are free."""
    logs = {"tidemill.tracking.client", "tidemill.tracking.beside"}
    clock = re.compile(r"(^|\.)(time\.time(_ns)?|(datetime|date)\.(now|utcnow|today))$")
    return [
        f"{module.path}:{node.lineno}: `{ast.unparse(node.func)}()` reads the wall clock"
        for module in modules
        if module.stage not in {"cli", "web", "session", "project"} and module.name not in logs
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and clock.search(ast.unparse(node.func))
    ]


def lazy_names(modules: list[Module]) -> list[str]:
    """A name that a package hands out on first use is not that of a file in it: importing the file would put itself in the name's place."""
    known = {module.name for module in modules}
    complaints = []
    for module in modules:
        if module.is_package and any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in module.tree.body):
            tables = [node.value for node in module.tree.body if isinstance(node, ast.Assign)]
            keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
            names = {str(key.value) for key in keys if isinstance(key, ast.Constant)}
            complaints += [f"{module.path}: `{name}` is a file here too" for name in sorted(names) if f"{module.name}.{name}" in known]
    return complaints


def short_files(modules: list[Module]) -> list[str]:
    """A file holds one concept in at most 400 code lines (blank lines, comments and docstrings are free). Split it by concept."""
    return [
        f"{module.path}: {len(module.code_lines)} code lines, at most {FILE_LINES}"
        for module in modules
        if len(module.code_lines) > FILE_LINES
    ]


def short_functions(modules: list[Module]) -> list[str]:
    """Nine functions of ten have at most 20 code lines. Split the longest where a step has a name: one half decides, the other does."""
    sizes = sorted((size, f"{module.path}:{line}: {name}") for module in modules for name, line, size in module.functions())
    if len(sizes) < 2:
        return []
    p90 = statistics.quantiles([size for size, _ in sizes], n=10, method="inclusive")[-1]
    if p90 <= FUNCTION_LINES:
        return []
    return [f"p90 of {len(sizes)} functions is {p90:g} lines, at most {FUNCTION_LINES}; the longest:"] + [
        f"{where} has {size}" for size, where in sizes[:-13:-1]
    ]


def few_mocks(modules: list[Module]) -> list[str]:
    """At most 2 mocks per 1,000 test lines: use the in-memory adapters that Tidemill ships. If a function needs a mock to be tested, split
    it: one half decides, the other does."""
    mocked = {"Mock", "MagicMock", "AsyncMock", "patch", "create_autospec", "monkeypatch.setattr", "monkeypatch.setitem"}
    mocks = [
        f"{module.path}:{node.lineno}: {called}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for called in [ast.unparse(node.func)]
        if called in mocked or called.split(".")[-1] in mocked or called.startswith(("patch.", "mock.patch", "mocker."))
    ]
    lines = sum(len(module.code_lines) for module in modules)
    return [f"{len(mocks)} mocks in {lines} test lines", *mocks] if len(mocks) * 1000 > MOCKS_PER_1000_LINES * lines else []
