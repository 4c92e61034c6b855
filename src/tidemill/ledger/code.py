"""Code and environment as digests, captured without a call.

`code_of(function)` hashes byte code, constants, closures, plain globals, and the user's functions and classes that a
function reaches; of a library that it reaches it takes the name and version. A comment or a blank line changes nothing.
What it cannot see is listed in `unseen`: objects that are neither plain, nor code, nor of an installed library.
"""

import hashlib
import inspect
import platform
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tidemill.core import Declaration, digest_value, version_of

_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages())
_OWN = str(Path(__file__).parent.parent)


@dataclass(frozen=True)
class Code:
    """Digest of a function and all that it reaches; the libraries with their versions; what could not be seen."""

    digest: str
    libraries: dict[str, str]
    unseen: tuple[str, ...] = ()


@dataclass
class _Walk:
    parts: list[str] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)


def code_of(function: Callable[..., Any]) -> Code:
    """What a function is, by content.

    >>> code_of(lambda x: x + 1).digest == code_of(lambda x: x + 2).digest
    False
    """
    walk = _Walk()
    _visit(walk, getattr(function, "__name__", "function"), inspect.unwrap(function))
    return Code(digest_value([walk.parts, walk.libraries]), dict(sorted(walk.libraries.items())), tuple(sorted(set(walk.unseen))))


def _text(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, (set, frozenset)) else repr(value)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))


def _is_library(file: str | None) -> bool:
    return file is None or file.startswith("<frozen") or (file.startswith(_LIBRARIES) or file.startswith(_OWN))


def _visit(walk: _Walk, name: str, value: Any) -> None:
    if _plain(value):
        walk.parts.append(f"{name}={_text(value)}")
    elif id(value) in walk.seen:
        walk.parts.append(f"{name}=seen")
    else:
        walk.seen.add(id(value))
        _visit_object(walk, name, value)


def _visit_object(walk: _Walk, name: str, value: Any) -> None:
    module = sys.modules.get(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") or "")
    if isinstance(value, Declaration):
        walk.parts.append(f"{name}={version_of(value)}")
    elif module is not None and _is_library(getattr(module, "__file__", None)) and not isinstance(value, Mapping):
        _library(walk, name, module)
    elif isinstance(value, ModuleType):
        walk.parts.append(f"{name}={hashlib.sha256(inspect.getsource(value).encode()).hexdigest()}")
    elif isinstance(value, FunctionType):
        _function(walk, name, value)
    elif isinstance(value, type):
        walk.parts.append(f"class {name}")
        for key, item in sorted(vars(value).items()):
            if not key.startswith("__") or key == "__init__":
                _visit(walk, key, inspect.unwrap(item) if callable(item) else item)
    else:
        walk.unseen.append(f"{name} ({type(value).__name__})")


def _library(walk: _Walk, name: str, module: ModuleType) -> None:
    package = module.__name__.split(".")[0]
    walk.parts.append(f"{name}:{module.__name__}")
    if package not in sys.stdlib_module_names and package != "tidemill":
        walk.libraries[package] = _version(package)


@cache
def _version(package: str) -> str:
    try:
        return metadata.version((metadata.packages_distributions().get(package) or [package])[0])
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _function(walk: _Walk, name: str, function: FunctionType) -> None:
    codes, names = [function.__code__], set()
    for code in codes:  # grows while it is walked: nested functions and comprehensions
        constants = code.co_consts[1:] if code.co_consts and code.co_consts[0] == function.__doc__ else code.co_consts
        codes += [constant for constant in constants if isinstance(constant, CodeType)]
        walk.parts += [code.co_code.hex(), *[_text(c) for c in constants if not isinstance(c, CodeType)], _text(code.co_names)]
        names.update(code.co_names)
    walk.parts.append(_text((name, function.__defaults__, function.__kwdefaults__)))
    for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        _visit(walk, cell_name, cell.cell_contents)
    for global_name in sorted(names & function.__globals__.keys()):
        _visit(walk, global_name, function.__globals__[global_name])


@cache
def own_code(*stages: str) -> str:
    """Digest of the source of stages of Tidemill itself: a step made by other code is another step."""
    files = [path for stage in stages for path in sorted((Path(_OWN) / stage).rglob("*.py"))]
    return digest_value([[path.relative_to(_OWN).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files])


@cache
def environment() -> dict[str, Any]:
    """Python, machine kind, and every installed distribution with its version."""
    lock = sorted({f"{d.metadata['Name'].lower()}=={d.version}" for d in metadata.distributions() if d.metadata["Name"]})
    return {"python": platform.python_version(), "machine": f"{sys.platform}-{platform.machine()}", "lock": lock}
