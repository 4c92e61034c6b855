"""A fitted model that has no exact form, as it is kept: in skops where that is enough, else as a declared pickle with its sources.

Comes in: the model, and why it cannot be compiled. Goes out: bytes that a process of its own loads, with the proof that it answers there
as it did where it was trained. Nothing is loaded here.
"""

import ast
import importlib.util
import io
import pickle
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tidemill.core import DataError, Floats, NoExactForm
from tidemill.models._skops import dumped, known_types, modules_in
from tidemill.models.compiled import block_of
from tidemill.models.fitted import rounds_of, score_of
from tidemill.models.isolated import Isolated, Kept, Original
from tidemill.models.parity import TOLERANCE, compared, hostile_rows
from tidemill.models.signature import Signature


def keep(model: Any, signature: Signature, recorded: Floats, reason: NoExactForm, *, folder: Path, pickled: bool, label: str) -> Kept:
    """The original of a model that has no exact form, proven on `recorded` rows (n, f) and on hostile ones. `folder` is the project's,
    whose own modules go with it; `pickled`: whether a pickle is declared. Raises NoExactForm where it cannot be kept, or answers
    otherwise."""
    categories = {i: len(signature.categories[signature.features[i]]) for i in signature.categorical}
    asked = {"recorded": recorded, "hostile": hostile_rows(recorded, categories, {})}
    expected = {part: _expected(model, part, rows, reason) for part, rows in asked.items()}
    original = _original(model, reason, folder, pickled=pickled, label=label)
    predictor = Isolated(original, signature)
    evidence: dict[str, Any] = {"tolerance": TOLERANCE, "labels_differ": 0}
    for part, rows in asked.items():
        found = compared(part, expected[part], predictor.outputs(rows), classifies=True)
        evidence |= found | {"labels_differ": evidence["labels_differ"] + found["labels_differ"]}
    if max(evidence[f"{part}_difference"] for part in asked) > TOLERANCE or evidence["labels_differ"]:
        what = f"{type(model).__name__} answers otherwise in a process of its own: {evidence}"
        raise NoExactForm(what, hint="let it depend on nothing but its rows: no files, no clock, no chance")
    original = replace(original, block=block_of(predictor.ask, np.concatenate([asked["hostile"], recorded])))
    return Kept(Isolated(original, signature), reason.what, rounds_of(model), evidence)


def _expected(model: Any, part: str, rows: Floats, reason: NoExactForm) -> Floats:
    """The model's own probabilities (n, 1). Raises NoExactForm where it has none, and as it is what says that it was not fitted."""
    name = type(model).__name__
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            found = score_of(model, rows)
    except DataError as error:
        raise NoExactForm(f"{reason.what}; {error.what}", available=reason.available, hint=reason.hint or error.hint) from error
    except Exception as error:  # a model of the project's own raises any
        if "NotFitted" in type(error).__name__:
            raise
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        hint = "it is to take missing values and unseen categories: impute the ones, ignore the others"
        raise NoExactForm(f"{name} fails on {part} rows: {said}", hint=hint) from error
    odd = found[~((found >= 0) & (found <= 1))]
    if len(odd):
        raise NoExactForm(f"{name} gives {odd[0]}, which is no probability", hint="let it give numbers from 0 to 1, for any row")
    return found.reshape(-1, 1)


def _original(model: Any, reason: NoExactForm, folder: Path, *, pickled: bool, label: str) -> Original:
    """Its bytes, without a pickle where that can be."""
    library = type(model).__module__.partition(".")[0]
    try:
        data = _as_skops(model)
        return Original(data, "skops", {}, label, library, _libraries(modules_in(data), "skops"))
    except NoExactForm as error:
        without = error.what
    except Exception as error:  # noqa: BLE001 – it raises every kind
        without = f"skops cannot keep it ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    if not pickled:
        hint = f"{reason.hint}; or let its original answer as a pickle, in a process of its own: @tm.model(…, pickle=True)"
        raise NoExactForm(f"{reason.what}; {without}", available=reason.available, hint=hint)
    modules = set[str]()
    try:
        data = _as_pickle(model, modules)
    except Exception as error:  # its own methods may raise any
        hint = "write its classes and functions at the top of a file of the project: no lambdas, no functions within functions"
        raise NoExactForm(f"{reason.what}; it cannot be pickled: {error}", hint=hint) from error
    sources = _sources(modules, folder)
    needs = modules | {name for text in sources.values() for name in _imports(ast.parse(text), "", package=False)}
    return Original(data, "pickle", sources, label, "python" if type(model).__module__ in sources else library, _libraries(needs))


def _libraries(modules: Iterable[str], *others: str) -> dict[str, str]:
    """The versions of Python and of the distributions that some modules lie in, with numpy and scipy, by which they compute."""
    known, roots = packages_distributions(), {name.partition(".")[0] for name in modules} | {"numpy", "scipy"} & set(sys.modules)
    names = {one for root in roots for one in known.get(root, ()) if one != "tidemill"} | set(others)
    return {"python": platform.python_version()} | {name: version(name) for name in sorted(names)}


def _as_skops(model: Any) -> bytes:
    """In the format of skops. Raises NoExactForm for types that are not known."""
    found = dumped(model)
    known_types(found)
    return found


def _as_pickle(model: Any, modules: set[str]) -> bytes:
    """A pickle; the modules of all classes and functions in it are added to `modules`."""
    made = io.BytesIO()
    _Noting(made, modules).dump(model)
    return made.getvalue()


class _Noting(pickle.Pickler):
    """A pickler that notes in which modules the classes and functions lie."""

    def __init__(self, file: io.BytesIO, modules: set[str]) -> None:
        super().__init__(file, protocol=5)
        self._modules = modules

    def reducer_override(self, value: Any) -> Any:
        own = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
        self._modules.add(str(getattr(own, "__module__", "")))
        return NotImplemented  # as it would be without


def _sources(modules: Iterable[str], folder: Path) -> dict[str, str]:
    """The text of those modules that are of the project, of the packages that they lie in, and of all of the project that these import."""
    found, open_ = dict[str, str](), [*modules]
    while open_:
        one = open_.pop()
        module = sys.modules.get(one)
        if module is None or one in found or (text := _text(module, folder)) is None:
            continue
        found[one] = text
        parents = [one.rpartition(".")[0]] if "." in one else []
        open_ += [*parents, *_imports(ast.parse(text), one, package=hasattr(module, "__path__"))]
    return found


def _text(module: ModuleType, folder: Path) -> str | None:
    """The source of a module of the project, None of any other."""
    file = Path(str(getattr(module, "__file__", None) or ""))
    if not file.is_relative_to(folder) or {"site-packages", "dist-packages"} & set(file.parts) or file.suffix != ".py":
        return None
    return file.read_text(encoding="utf-8")


def _imports(tree: ast.Module, name: str, *, package: bool) -> Iterator[str]:
    """The names of modules that a module may import."""
    base = name if package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if node.level and base:
                origin = importlib.util.resolve_name(origin, base)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
