"""What changes the digest of a function: the table of `research/pipelines.md`, section 4, whole and right, and what it left open."""

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from processes import run_python
from tidemill.ledger import Code, code_of, environment, own_code
from tidemill.ledger.reach import library_version

STEP = '''
import math
import re
from dataclasses import dataclass, field
from functools import cache, partial, wraps
import numpy as np
from sklearn.linear_model import LogisticRegression
import helpers
from helpers import Base, clean, twice

RATE = 0.5
WORDS = {"a": [1, {"x", "y", "z"}], "b": (2, None)}
TABLE = {"clean": clean, "other": [twice]}
PATTERN = re.compile("a+")
WEIGHTS = np.arange(5.0)
ESTIMATOR = LogisticRegression(C=1.0)
HALF = partial(pow, 2, 5)

@dataclass
class Settings:
    depth: int = 3
    names: list = field(default_factory=lambda: ["a"])
    def __post_init__(self):
        self.deep = self.depth > 2
    @property
    def size(self):
        return self.depth * 2
    @classmethod
    def small(cls):
        return cls(1)
    @staticmethod
    def unit():
        return 1

SETTINGS = Settings(4)

class Fitter(Base):
    def __call__(self, x):
        return self.start(x) + 1

def logged(function):
    @wraps(function)
    def inner(*args):
        return (1, function(*args))
    return inner

@logged
def decorated(x):
    return x - 1

@cache
def cached(x):
    return x * 3

def make_closure(n):
    def inner(x):
        return x + n
    return inner

CLOSED = make_closure(7)

def caught(x):
    try:
        first(x)
        second(x)
    except ValueError:
        return 0

def first(x): return x
def second(x): return x

def late(x):
    from helpers import by_name
    return by_name(x)

def step(x, scale=2, *, shift=0):
    """Doc."""
    values = [clean(v) * RATE for v in np.asarray(x)]
    total = helpers.attribute(math.floor(sum(values)))
    parts = (WORDS, TABLE, PATTERN, WEIGHTS, ESTIMATOR, HALF, SETTINGS, Settings, Fitter, decorated, cached, CLOSED, caught, late)
    return total, len(parts), scale, shift
'''

HELPERS = """
LIMIT = 10
def clean(v): return min(v, LIMIT)
def twice(v): return v * 2
def attribute(v): return inner_helper(v) + 1
def inner_helper(v): return v
def by_name(v): return v
def unused(v): return v
class Base:
    def start(self, x): return x
"""

CHANGES = {
    # name: (file, before, after, whether the digest must change)
    "nothing": ("step", "RATE = 0.5", "RATE = 0.5", False),
    "body of a helper": ("helpers", "return min(v, LIMIT)", "return max(v, LIMIT)", True),
    "constant used by the helper": ("helpers", "LIMIT = 10", "LIMIT = 11", True),
    "constant used by the step": ("step", "RATE = 0.5", "RATE = 0.25", True),
    "the step itself": ("step", "return total, len(parts)", "return total, 1 + len(parts)", True),
    "a comment in the step": ("step", "    total = helpers", "    # now the sum\n\n    total = helpers", False),
    "the docstring of the step": ("step", '"""Doc."""', '"""Other words."""', False),
    "white space": ("step", "scale=2, *, shift=0", "scale = 2, *,\n    shift = 0", False),
    "lines above the step": ("step", "RATE = 0.5", "\n\n\nRATE = 0.5", False),
    "a helper that is not called": ("helpers", "def unused(v): return v", "def unused(v): return -v", False),
    "a comment in the helper": ("helpers", "LIMIT = 10", "LIMIT = 10  # more would be odd", False),
    "a default": ("step", "scale=2", "scale=3", True),
    "a default by name": ("step", "shift=0", "shift=1", True),
    "an argument more": ("step", "def first(x): return x", "def first(x, y=0): return x", True),
    "a helper called as an attribute": ("helpers", "return inner_helper(v) + 1", "return inner_helper(v) + 2", True),
    "a helper of that helper": ("helpers", "def inner_helper(v): return v", "def inner_helper(v): return abs(v)", True),
    "a helper imported inside": ("helpers", "def by_name(v): return v", "def by_name(v): return -v", True),
    "a list in a dict": ("step", '"a": [1,', '"a": [2,', True),
    "a set in a dict": ("step", '{"x", "y", "z"}', '{"x", "y"}', True),
    "the order in which a set is written": ("step", '{"x", "y", "z"}', '{"z", "y", "x"}', False),
    "a function in a list in a dict": ("helpers", "return v * 2", "return v * 3", True),
    "a pattern": ("step", '"a+"', '"b+"', True),
    "an array": ("step", "np.arange(5.0)", "np.arange(6.0)", True),
    "a parameter of an estimator": ("step", "LogisticRegression(C=1.0)", "LogisticRegression(C=2.0)", True),
    "an argument that is bound": ("step", "partial(pow, 2, 5)", "partial(pow, 2, 6)", True),
    "a field of an instance": ("step", "Settings(4)", "Settings(5)", True),
    "a default of a dataclass": ("step", "depth: int = 3", "depth: int = 2", True),
    "a default factory": ("step", 'lambda: ["a"]', 'lambda: ["b"]', True),
    "a special method": ("step", "self.depth > 2", "self.depth > 3", True),
    "a property": ("step", "self.depth * 2", "self.depth * 4", True),
    "a class method": ("step", "return cls(1)", "return cls(2)", True),
    "a static method": ("step", "        return 1\n", "        return 2\n", True),
    "a method": ("step", "return self.start(x) + 1", "return self.start(x) + 2", True),
    "a method of a base class": ("helpers", "def start(self, x): return x", "def start(self, x): return -x", True),
    "a decorator": ("step", "return (1, function(*args))", "return (2, function(*args))", True),
    "what is decorated": ("step", "return x - 1", "return x - 2", True),
    "a cached function": ("step", "return x * 3", "return x * 4", True),
    "a closure's cell": ("step", "make_closure(7)", "make_closure(8)", True),
    "the reach of a try": (
        "step",
        "        second(x)\n    except ValueError:\n        return 0",
        "    except ValueError:\n        return 0\n    else:\n        second(x)",
        True,
    ),
}


def code_in(folder: Path, step: str = STEP, helpers: str = HELPERS) -> Code:
    """The code of `step` in files of a fresh folder."""
    folder.mkdir()
    (folder / "step.py").write_text(step)
    (folder / "helpers.py").write_text(helpers)
    sys.path.insert(0, str(folder))
    try:
        import step as module  # type: ignore[import-not-found]

        return code_of(module.step)
    finally:
        sys.path.remove(str(folder))
        for name in ("step", "helpers"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_exactly_when_it_matters(tmp_path: Path, change: str) -> None:
    file, before, after, changes = CHANGES[change]
    texts = {"step": STEP, "helpers": HELPERS}
    assert before in texts[file]
    one, two = code_in(tmp_path / "before"), code_in(tmp_path / "after", **(texts | {file: texts[file].replace(before, after)}))
    assert (one.digest != two.digest) == changes


def test_all_of_it_is_seen_and_the_libraries_are_named(tmp_path: Path) -> None:
    code = code_in(tmp_path / "it")
    assert code.unseen == ()
    assert code.libraries.keys() == {"numpy", "sklearn"}


def test_another_process_and_folder_give_the_same_digest(tmp_path: Path) -> None:
    here = code_in(tmp_path / "here").digest
    code_in(tmp_path / "there")
    code = "import sys; sys.path.insert(0, sys.argv[1])\nimport step; from tidemill.ledger import code_of; print(code_of(step.step).digest)"
    assert run_python(code, tmp_path / "there").stdout.strip() == here


def test_a_function_of_a_notebook_is_seen() -> None:
    code = """
from tidemill.ledger import code_of
def helper(x): return x + {}
def step(x): return helper(x)
print(code_of(step).digest)
"""
    one, same, two = (run_python(code.replace("{}", number)).stdout for number in "112")
    assert one == same != two


def test_another_version_of_a_library_is_other_code(tmp_path: Path) -> None:
    def with_version(version: str) -> Code:
        site = tmp_path / version
        package = site / "site-packages" / "wheelwright"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("def turn(x): return x")
        info = package.parent / f"wheelwright-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wheelwright\nVersion: {version}\n")
        code = """
import sys, sysconfig, site
site.getsitepackages = lambda: [sys.argv[1]]
sys.path.insert(0, sys.argv[1])
import wheelwright
from tidemill.ledger import code_of
def step(x): return wheelwright.turn(x)
found = code_of(step)
print(found.digest, found.libraries["wheelwright"])
"""
        digest, found = run_python(code, package.parent).stdout.split()
        return Code(digest, {"wheelwright": found})

    one, two = with_version("1.0"), with_version("2.0")
    assert (one.libraries["wheelwright"], two.libraries["wheelwright"]) == ("1.0", "2.0")
    assert one.digest != two.digest


def test_what_cannot_be_seen_is_said() -> None:
    fitted, handle = _fitted(), object()

    def step() -> object:
        return fitted, handle

    assert code_of(step).unseen == ("fitted (LogisticRegression)", "handle (object)")


def _fitted() -> object:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit([[0.0], [1.0]], [0, 1])


def test_functions_may_call_each_other_and_themselves() -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    assert code_of(even).digest == code_of(even).digest != code_of(odd).digest


def test_the_own_code_of_stages_is_named_by_their_sources() -> None:
    assert own_code("core") == own_code("core") != own_code("core", "data")


def test_the_environment_is_plain_data() -> None:
    found: Mapping[str, object] = environment()
    assert found.keys() == {"python", "machine", "lock"}
    assert any(str(line).startswith("numpy==") for line in found["lock"])  # type: ignore[attr-defined]


def test_the_version_of_a_library_is_that_of_the_distribution_which_brings_it() -> None:
    brought = metadata.packages_distributions()
    assert "arro3" in brought  # its distribution has another name
    for package, distributions in brought.items():
        found = {one.name.lower(): one.version for one in metadata.distributions()}
        assert library_version(package) in {found.get(package.lower()), *(found[one.lower()] for one in distributions)}
    assert library_version("nobody_has_this") == "unknown"
