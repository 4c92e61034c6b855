"""The budgets of the package as a whole: what an import costs, what an installation weighs, what the tree may say."""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from architecture.house import ROOT
from tidemill.cli import tidemill as command_line

IMPORT_MODULES = 150
HELP_MODULES = 120
CORE_MEGABYTES = 450
HEAVY = {
    "numpy",
    "pandas",
    "polars",
    "sqlalchemy",
    "pyarrow",
    "duckdb",
    "starlette",
    "uvicorn",
    "ray",
    "onnxruntime",
    "sklearn",
    "lightgbm",
}

IMPORT = "import tidemill"
HELP = "import sys; sys.argv = ['tidemill', *{words}, '--help']; from tidemill.cli import main; main()"


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after `code`, less those that it starts with."""
    report = "import sys; held = set(sys.modules); import atexit; atexit.register(lambda: print('\\n', *(set(sys.modules) - held)))"
    command = [sys.executable, "-c", f"{report}\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    assert result.returncode == 0, f"`{code}` failed:\n{result.stdout}{result.stderr}"
    return set(result.stdout.splitlines()[-1].split())


def too_heavy(modules: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in modules} & HEAVY


def beyond_python(modules: Iterable[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names}


def test_import_is_light() -> None:
    modules = loaded_by(IMPORT)
    heavy = too_heavy(modules)
    assert not heavy, f"`import tidemill` loads {', '.join(sorted(heavy))}; look names up on first use (`__getattr__` in `__init__.py`)"
    assert len(modules) <= IMPORT_MODULES, f"`import tidemill` loads {len(modules)} modules, at most {IMPORT_MODULES}: {sorted(modules)}"


@pytest.mark.parametrize("command", ["", "policy compare", *command_line.commands])
def test_help_is_light(command: str) -> None:
    modules = loaded_by(HELP.format(words=command.split()))
    heavy = too_heavy(modules)
    assert not heavy, (
        f"`tidemill {command} --help` loads {', '.join(sorted(heavy))}; `cli/commands.py` imports what a command does when it runs"
    )
    own = beyond_python(modules)
    assert len(own) <= HELP_MODULES, (
        f"`tidemill {command} --help` loads {len(own)} modules beyond Python's own, at most {HELP_MODULES}: {sorted(own)}"
    )


def test_a_heavy_import_would_be_seen() -> None:
    modules = loaded_by("import tidemill, pandas")
    assert too_heavy(modules) == {"numpy", "pandas"}
    assert len(modules) > IMPORT_MODULES
    assert {"numpy", "tidemill"} <= beyond_python(modules)
    assert "json.decoder" not in beyond_python(["json.decoder"])


def core_distributions() -> dict[str, Distribution]:
    """All that `pip install tidemill` brings on this machine, by name."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found: dict[str, Distribution] = {}
    queue = [Requirement(line) for line in wanted]
    while queue:
        requirement = queue.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found:
            found[name] = distribution(name)
            for line in found[name].requires or ():
                further = Requirement(line)
                if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                    further.marker = None
                    queue.append(further)
    return found


def megabytes(installed: Distribution) -> float:
    files = [Path(str(installed.locate_file(file))) for file in installed.files or () if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def test_an_installation_of_the_core_weighs_little() -> None:
    weights = {name: megabytes(installed) for name, installed in core_distributions().items()}
    assert weights["numpy"] > 10, "numpy weighs nothing: the measure is broken"
    by_weight = ", ".join(f"{name} {weight:.0f}" for name, weight in sorted(weights.items(), key=lambda item: -item[1])[:8])
    total = sum(weights.values())
    assert total <= CORE_MEGABYTES, f"the core weighs {total:.0f} MB unpacked, at most {CORE_MEGABYTES} ({by_weight}); make it an extra"


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def machine_paths(text: str, places: Iterable[Path]) -> list[str]:
    """Paths that hold on one machine only: under one of `places`, or in anybody's home."""
    own = [re.escape(f"{place}/") for place in places]
    pattern = "|".join([*own, r"/(?:home|Users)/(?!you/|user/)\w+/", r"(?<![\w.])/ro{2}t/"])
    return [match.group() for match in re.finditer(pattern, text)]


def test_no_file_names_this_machine() -> None:
    """Write paths relative to the repository or to the project's folder; a path from one machine works on no other."""
    everywhere = {Path("/"), Path(tempfile.gettempdir())}
    places = {ROOT.parent, Path.home()} - everywhere
    complaints = []
    for file in tracked_files():
        text = file.read_bytes().decode("utf-8", errors="ignore")
        complaints += [f"{file.relative_to(ROOT)}: {path}" for path in machine_paths(text, places)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("parts", [("checkout", "tidemill", "src"), ("home", "jane", "data.csv"), ("root", "data.csv")])
def test_a_path_of_a_machine_would_be_seen(parts: tuple[str, ...]) -> None:
    assert machine_paths(f"open('/{'/'.join(parts)}')", [Path("/checkout")])


def test_the_lock_works_with_any_registry() -> None:
    """The lock pins versions and hashes, no hosts, so that a mirror serves as well; `make lock` writes it."""
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock)


def test_the_lock_has_all_that_is_declared() -> None:
    """After a change of dependencies, run `make lock`. PyTorch, as large as all the rest, has an environment of its own."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {name: lines for name, lines in declared["project"]["optional-dependencies"].items() if name != "torch"}
    groups = [*extras.values(), declared["dependency-groups"]["dev"]]
    wanted = [Requirement(line) for lines in [declared["project"]["dependencies"], *groups] for line in lines]
    pinned: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        pinned.setdefault(name, []).append(version)
    stale = [
        str(wish)
        for wish in wanted
        if wish.name != "tidemill" and not any(wish.specifier.contains(version) for version in pinned.get(wish.name.lower(), []))
    ]
    assert not stale, f"not in requirements.lock: {', '.join(stale)}; run `make lock`"
