"""The source keeps the rules of the house, and each rule bites: planted violations prove that it can fail."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from architecture import house
from architecture.house import Module

Rule = Callable[[list[Module]], list[str]]

SOURCE_RULES: list[Rule] = [
    house.front_door,
    house.named_rooms,
    house.finished,
    house.no_pickle,
    house.pure_core,
    house.clock_at_the_edges,
    house.lazy_names,
    house.short_files,
    house.short_functions,
]

REGISTRY = {"tidemill/registry/__init__.py": "from tidemill.registry.versions import promote\n", "tidemill/registry/versions.py": ""}


def planted(files: dict[str, str]) -> list[Module]:
    return [Module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), path, text) for path, text in files.items()]


def assert_kept(rule: Rule, modules: list[Module]) -> None:
    complaints = rule(modules)
    assert not complaints, "\n".join([f"\n{rule.__doc__}", "", *complaints])


@pytest.mark.parametrize("rule", SOURCE_RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule: Rule) -> None:
    modules = house.modules_under(house.ROOT / "src")
    assert modules, "no source found: the rules looked at nothing"
    assert_kept(rule, modules)


def test_tests_use_the_adapters_that_we_ship() -> None:
    modules = house.modules_under(house.ROOT / "tests")
    # The planted mock below is text in this file, not a call.
    assert_kept(house.few_mocks, modules)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (house.front_door, "tidemill/loop/story.py", "from tidemill.registry.versions import promote"),
        (house.front_door, "tidemill/loop/story.py", "from tidemill.registry import versions"),
        (house.front_door, "tidemill/loop/story.py", "import tidemill.registry.versions"),
        (house.front_door, "tidemill/loop/story.py", "from ..registry.versions import promote"),
        (house.front_door, "tidemill/loop/story.py", "from ..registry import versions"),
        (house.front_door, "tidemill/loop/story.py", "def f():\n    from tidemill.registry.versions import promote"),
        (house.front_door, "tidemill/loop/story.py", "from tidemill import registry\nregistry.versions.promote()"),
        (house.front_door, "tidemill/loop/story.py", "from tidemill import Ref"),
        (house.front_door, "tidemill/loop/story.py", "import tidemill"),
        (house.front_door, "tidemill/loop/story.py", "from tidemill.registry import web"),
        (house.front_door, "tidemill/cli/main.py", "from tidemill.registry.web import routes"),
        (house.front_door, "tidemill/registry/cards.py", "from tidemill.registry.cli import commands"),
        (house.named_rooms, "tidemill/core/utils.py", ""),
        (house.named_rooms, "tidemill/common/__init__.py", ""),
        (house.finished, "tidemill/core/ref.py", "# TODO: later"),
        (house.finished, "tidemill/core/ref.py", "def f():\n    raise NotImplementedError"),
        (house.no_pickle, "tidemill/models/original.py", "import pickle\npickle.loads(b'')"),
        (house.no_pickle, "tidemill/serving/gateway.py", "from tidemill.models._apart import main"),
        (house.no_pickle, "tidemill/models/formats.py", "import pickle"),
        (house.no_pickle, "tidemill/models/formats.py", "from joblib import load"),
        (house.no_pickle, "tidemill/models/formats.py", "import numpy as np\nnp.load(path, allow_pickle=True)"),
        (house.no_pickle, "tidemill/models/formats.py", "import pandas as pd\npd.read_pickle(path)"),
        (house.pure_core, "tidemill/core/instants.py", "def f():\n    return datetime.now(UTC)"),
        (house.pure_core, "tidemill/core/instants.py", "def f(path):\n    return open(path)"),
        (house.pure_core, "tidemill/core/statistics.py", "x = np.random.default_rng()"),
        (house.pure_core, "tidemill/core/statistics.py", "x = np.random.normal(0, 1)"),
        (house.clock_at_the_edges, "tidemill/ledger/journal.py", "at = time.time_ns() // 1000"),
        (house.clock_at_the_edges, "tidemill/serving/gateway.py", "at = datetime.now(UTC)"),
        (house.lazy_names, "tidemill/web/__init__.py", "_LATER = {'app': 'app'}\ndef __getattr__(name):\n    return name"),
        (house.short_files, "tidemill/core/ref.py", "x = 1\n" * 401),
        (house.short_functions, "tidemill/core/ref.py", ("def f():\n" + "    x = 1\n" * 20 + "\n") * 3),
        (house.few_mocks, "tests/test_x.py", "from unittest.mock import Mock\nx = Mock()\n" + "y = 1\n" * 400),
        (house.few_mocks, "tests/test_x.py", "def test(monkeypatch):\n    monkeypatch.setattr(a, 'b', c)"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str) -> None:
    presenters = {"tidemill/registry/web.py": "", "tidemill/registry/cli.py": "", "tidemill/web/app.py": ""}
    assert rule(planted({**REGISTRY, **presenters, path: text}))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tidemill/loop/story.py", "from tidemill import registry\nregistry.promote()"),
        ("tidemill/loop/story.py", "from tidemill.registry import promote"),
        ("tidemill/loop/story.py", "import tidemill.registry"),
        ("tidemill/loop/story.py", "TABLE = {'promote': 'tidemill.registry.versions:promote'}"),
        ("tidemill/loop/story.py", '"""A docstring\n' + "of many lines\n" * 500 + '"""\n# and a comment\n'),
        ("tidemill/web/app.py", "from tidemill.registry.web import routes"),
        ("tidemill/cli/main.py", "from tidemill.registry import cli"),
        ("tidemill/registry/cards.py", "from tidemill.registry.versions import promote"),
        ("tidemill/ledger/ledger.py", "started = time.monotonic()"),
        ("tidemill/session/session.py", "now = time.time_ns() // 1000"),
        ("tidemill/core/statistics.py", "def f(seed):\n    return np.random.default_rng(seed)"),
    ],
)
def test_what_is_allowed_passes(path: str, text: str) -> None:
    presenters = {"tidemill/registry/web.py": "", "tidemill/registry/cli.py": ""}
    for rule in [*SOURCE_RULES, house.few_mocks]:
        assert_kept(rule, planted({**REGISTRY, **presenters, path: text}))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_import_contracts_hold() -> None:
    """Layers, circles, pure core: see `[tool.importlinter]` in pyproject.toml. The lower stage never asks the upper one; hand it the value
    or the function that it needs, or move what both need down to where it has a name."""
    result = lint_imports(house.ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("files", "broken"),
    [
        ({"core/__init__.py": "", "ledger/__init__.py": "", "core/planted.py": "from tidemill import ledger"}, "look down the house"),
        ({"data/__init__.py": "", "tracking/__init__.py": "from tidemill import data"}, "look down the house"),
        ({"attic/__init__.py": ""}, "look down the house"),
        ({"core/__init__.py": "", "core/planted.py": "import socket"}, "Core is values"),
        ({"cli/__init__.py": "from tidemill import web", "web/__init__.py": "from tidemill import cli"}, "No circle"),
    ],
)
def test_import_contracts_bite(tmp_path: Path, files: dict[str, str], broken: str) -> None:
    shutil.copy(house.ROOT / "pyproject.toml", tmp_path)
    for path, text in {"__init__.py": "", "core/__init__.py": "", **files}.items():
        file = tmp_path / "src/tidemill" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert any(broken in line and "BROKEN" in line for line in result.stdout.splitlines()), result.stdout
