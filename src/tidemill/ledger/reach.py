"""What a function reaches, as text to be hashed: byte code, constants, closures, globals, the user's functions, classes,
modules and containers; of a library its name and version. `Reach.unseen` lists what has no content that could be read.
"""

import dis
import functools
import hashlib
import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from importlib import metadata
from pathlib import Path, PurePath
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from tidemill.core import Declaration, version_of

_OWN = str(Path(__file__).parent.parent) + "/"
_PATHS = sysconfig.get_paths()
_SITES = [_PATHS["stdlib"], _PATHS["platstdlib"], _PATHS["purelib"], _PATHS["platlib"], *site.getsitepackages(), site.getusersitepackages()]
_LIBRARIES = (*(f"{path}/" for path in _SITES), _OWN, "<frozen")
_SPELLED = (date, time, timedelta, tzinfo, Decimal, PurePath, range, slice)  # their repr is their content


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return type(value) is dict and all(_plain(key) and _plain(item) for key, item in value.items())
    return value is None or value is ... or isinstance(value, (bool, int, float, complex, str, bytes))


def _text(value: Any) -> str:
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}{sorted(map(_text, value))}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}{[_text(item) for item in value]}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__}{[(_text(key), _text(item)) for key, item in value.items()]}"
    return repr(value)


def _of_library(module: ModuleType | None) -> bool:
    if module is None or module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return file is None or file.startswith(_LIBRARIES)


@cache
def library_version(package: str) -> str:
    """The installed version of an import package, "unknown" when nothing says it."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    found = next((one for one in metadata.distributions() if _holds(one, package)), None)
    return found.version if found else str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _holds(installed: metadata.Distribution, package: str) -> bool:
    """Whether a distribution brings an import package; `metadata.packages_distributions` looks at each file of all, which takes 0.2 s."""
    declared = (installed.read_text("top_level.txt") or "").split()
    if declared:
        return package in declared
    return re.search(rf"^{re.escape(package)}(/|(\.[\w-]+)*\.(py|so|pyd),)", installed.read_text("RECORD") or "", re.MULTILINE) is not None


@dataclass
class Reach:
    """Grows by `visit`; `parts` is the content in a fixed order."""

    parts: list[str] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    _seen: dict[Any, Any] = field(default_factory=dict)  # holds what it has seen, so that no id is used twice

    def visit(self, name: str, value: Any, names: frozenset[str] = frozenset()) -> None:
        """Add a value under the name by which it was reached; `names` are those that its user speaks of."""
        if _plain(value):
            self.parts.append(f"{name}={_text(value)}")
        elif isinstance(value, ModuleType):
            self._module(name, value, names)
        elif id(value) in self._seen:
            self.parts.append(f"{name} as before")
        else:
            self._seen[id(value)] = value
            self._object(name, value)

    def _object(self, name: str, value: Any) -> None:
        if isinstance(value, Declaration):
            self.parts.append(f"{name}={version_of(value)}")
        elif isinstance(value, (FunctionType, type)):
            self._definition(name, value)
        elif isinstance(value, (Mapping, list, tuple)):
            self._container(name, value)
        elif not self._wrapper(name, value):
            self._instance(name, value)

    def _definition(self, name: str, value: Any) -> None:
        module = sys.modules.get(value.__module__ or "")
        if module is not None and _of_library(module):
            self._library(f"{name}:{value.__module__}.{value.__qualname__}", module)
        elif isinstance(value, FunctionType):
            self._function(name, value)
        else:
            self._class(name, value)

    def _container(self, name: str, value: Any) -> None:
        items = [(_text(key), item) for key, item in value.items()] if isinstance(value, Mapping) else list(enumerate(value))
        self.parts.append(f"{name}: {type(value).__name__} of {len(items)}")
        for key, item in items:
            self.visit(f"{name}[{key}]", item)

    def _wrapper(self, name: str, value: Any) -> bool:
        """Whether the value only stands for others, which are visited."""
        if isinstance(value, functools.partial):
            inner = [value.func, value.args, value.keywords]
        elif isinstance(value, MethodType):
            inner = [value.__func__, value.__self__]
        elif isinstance(value, property):
            inner = [value.fget, value.fset, value.fdel]
        elif isinstance(value, (functools.cached_property, functools.singledispatchmethod)):
            inner = [getattr(value, "func", None)]
        elif isinstance(getattr(value, "__wrapped__", None), FunctionType):  # a cached function, a static or a class method
            inner = [value.__wrapped__]
        else:
            return False
        self.parts.append(f"{name}: {type(value).__name__}")
        for i, item in enumerate(inner):
            self.visit(f"{name}.{i}", item)
        return True

    def _instance(self, name: str, value: Any) -> None:
        kind, module = type(value), sys.modules.get(type(value).__module__)
        if isinstance(value, _SPELLED):
            self.parts.append(f"{name}={value!r}")
        elif isinstance(value, re.Pattern):
            self.parts.append(f"{name}={value.pattern!r} {value.flags}")
        elif hasattr(value, "tobytes") and hasattr(value, "dtype") and hasattr(value, "shape") and not value.dtype.hasobject:
            self.parts.append(f"{name}={value.dtype.str}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}")
        elif module is not None and not _of_library(module):
            self.visit(f"{name}.class", kind)
            self.visit(f"{name}.fields", {**{s: getattr(value, s, None) for s in _slots(kind)}, **getattr(value, "__dict__", {})})
        elif callable(value) and hasattr(value, "__name__") and not hasattr(value, "__dict__"):  # a function written in C
            self._library(f"{name}:{value.__name__}", sys.modules.get(getattr(value, "__module__", "") or "") or module)
        else:
            self._of_library_class(name, value, module)

    def _of_library_class(self, name: str, value: Any, module: ModuleType | None) -> None:
        self._library(f"{name}:{type(value).__qualname__}", module)
        if hasattr(value, "get_params"):  # an estimator: its parameters; what it learned is not read
            self.visit(f"{name}.params", value.get_params(deep=False))
        if not hasattr(value, "get_params") or any(key.endswith("_") and not key.startswith("_") for key in vars(value)):
            self.unseen.append(f"{name} ({type(value).__name__})")

    def _class(self, name: str, value: type) -> None:
        self.parts.append(f"class {name} {list(vars(value).get('__annotations__', {}))}")
        for base in [*value.__bases__, *([type(value)] if type(value) is not type else [])]:
            self.visit(base.__name__, base)
        for factory in (f.default_factory for f in vars(value).get("__dataclass_fields__", {}).values()):
            if factory is not MISSING:
                self.visit("default_factory", factory)
        for key, item in sorted(vars(value).items()):
            if not _made_by_python(key, item):
                self.visit(key, item)

    def _library(self, spelled: str, module: ModuleType | None) -> None:
        self._package(spelled, (module.__name__ if module else "unknown").split(".")[0])

    def _package(self, spelled: str, package: str) -> None:
        self.parts.append(spelled)
        if package not in sys.stdlib_module_names and package != "tidemill":
            self.libraries[package] = library_version(package)

    def _module(self, name: str, module: ModuleType, names: frozenset[str]) -> None:
        if _of_library(module):
            self._library(f"{name}:{module.__name__}", module)
        elif (id(module), names) not in self._seen:
            self._seen[id(module), names] = module
            used = sorted(n for n in names & vars(module).keys() if not n.startswith("__"))
            for attribute in used:
                self.visit(f"{name}.{attribute}", vars(module)[attribute], names)
            if not used:  # used as a whole, or by names that are made at run time
                self._file(name, getattr(module, "__file__", None))

    def _file(self, name: str, file: str | None) -> None:
        if file and Path(file).is_file():
            self.parts.append(f"{name}={hashlib.sha256(Path(file).read_bytes()).hexdigest()}")
        else:
            self.unseen.append(f"{name} (module)")

    def _function(self, name: str, function: FunctionType) -> None:
        codes, called, imported = [function.__code__], set[str](), set[str]()
        for code in codes:  # grows while it is walked: nested functions and comprehensions
            constants = code.co_consts[1:] if code.co_consts and code.co_consts[0] == function.__doc__ else code.co_consts
            codes += [constant for constant in constants if isinstance(constant, CodeType)]
            self.parts += [*_spelled(code), *[_text(c) for c in constants if not isinstance(c, CodeType)]]
            called.update(n for n in code.co_names if not n.startswith("__"))
            imported.update(str(i.argval) for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME")
        names = frozenset(called)
        self.visit(f"def {name}", (function.__defaults__ or (), function.__kwdefaults__ or {}))
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # a cell that is not filled yet
                self.visit(cell_name, cell.cell_contents, names)
        for global_name in sorted(names & function.__globals__.keys()):
            self.visit(global_name, function.__globals__[global_name], names)
        for module_name in sorted(imported):
            self._import(module_name, function.__globals__.get("__package__") or "", names)

    def _import(self, name: str, package: str, names: frozenset[str]) -> None:
        """A module that a function imports when it runs; whether it is loaded already makes no difference for a library."""
        module = sys.modules.get(name) or sys.modules.get(f"{package}.{name}" if name else package)
        if module is not None:
            return self._module(name, module, names)
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name.split(".")[0])
            if spec is not None and (spec.name in sys.stdlib_module_names or (spec.origin or "").startswith(_LIBRARIES)):
                return self._package(f"{name}:{name}", spec.name)
            if spec is not None:
                return self._file(name, spec.origin)
        self.unseen.append(f"{name} (module)")
        return None


def _slots(kind: type) -> list[str]:
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [slot for slots in found for slot in ([slots] if isinstance(slots, str) else slots)]


def _made_by_python(key: str, item: Any) -> bool:
    if isinstance(item, (GetSetDescriptorType, MemberDescriptorType)) or key == "_abc_impl":
        return True
    code = getattr(getattr(item, "__wrapped__", item), "__code__", None)
    return key.startswith("__") and (code is None or code.co_filename == "<string>")  # so dataclasses write theirs


def _spelled(code: CodeType) -> list[str]:
    """What a code object does, without its names of files and lines."""
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    shape = (arguments, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_names, code.co_freevars)
    return [code.co_code.hex(), code.co_exceptiontable.hex(), _text(shape)]
