"""What a run is made of, captured without a call: code with what is not committed, environment, seeds, command, host, user."""

import hashlib
import os
import platform
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tidemill.ledger import environment, user
from tidemill.tracking.limits import clean
from tidemill.tracking.segment import Captured

LARGEST, MOST = 1 << 20, 500  # bytes of a source file, and how many of them
DIFF = 8 << 20  # bytes of a diff
_OF_ARRAY = 0x8000_0000  # the first word where the seed was several numbers


def capture() -> Captured:
    """Tags, environment, seeds and the uncommitted diff, at this moment."""
    git = git_state(Path.cwd())
    tags = {
        "mlflow.user": user(),
        "mlflow.source.name": _script(),
        "mlflow.source.type": "NOTEBOOK" if _notebook() else "LOCAL",
        "tidemill.command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]])[:8000],
        "tidemill.folder": str(Path.cwd()),
        "tidemill.host": socket.gethostname(),
        "tidemill.machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "tidemill.python": platform.python_version(),
    }
    if git:
        tags |= {"mlflow.source.git.commit": git["commit"], "mlflow.source.git.branch": git["branch"]}
        tags["mlflow.source.git.repoURL"] = git["url"]
        tags["tidemill.git.dirty"] = str(bool(git["diff"])).lower()
    return Captured({key: clean(value) for key, value in tags.items() if value}, environment(), seeds(), clean(git.get("diff", "")))


def git_state(folder: Path) -> dict[str, str]:
    """Commit, branch, address and uncommitted diff of the repository around a folder; empty where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    url = _git(folder, "config", "--get", "remote.origin.url").strip()
    if "@" in url and "://" in url:  # a token may stand there
        url = url.partition("://")[0] + "://" + url.rpartition("@")[2]
    return {
        "commit": commit.strip(),
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD").strip(),
        "url": url,
        "diff": _git(folder, "diff", "HEAD")[:DIFF],
    }


def _git(folder: Path, *words: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "--no-optional-locks", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=20, check=True).stdout
    return ""


def seeds() -> dict[str, str]:
    """What random numbers begin from: the states of `random` and, where they are loaded, numpy's and torch's generators."""
    found = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random"), "python": f"state {_short(random.getstate())}"}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    with suppress(Exception):  # another generator may stand in the place of numpy's own
        if numpy is not None:
            kind, keys, position, *_ = numpy.random.get_state()
            fresh = position == len(keys) and keys[0] != _OF_ARRAY  # nothing was drawn yet: the first word is the seed itself
            found["numpy"] = str(keys[0]) if fresh else f"state {_short((kind, keys.tolist(), position))}"
    with suppress(Exception):
        if torch is not None:
            found["torch"] = str(torch.initial_seed())
    return found


def _short(state: object) -> str:
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def digest_of(path: Path) -> str:
    """Digest of the content of a file, or of a folder with the names in it."""
    found = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        if file != path:
            found.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()


def _script() -> str:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(main or (sys.argv[0] if sys.argv else "") or "interactive")


def _notebook() -> Any:
    """IPython's shell, where there is one."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


class Sources:
    """The source files of the user's own that this process has loaded: the script, and the modules beside or below it or the working
    folder; in a notebook, the cells that were run."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        script = Path(_script())
        self._roots = [Path.cwd(), *([script.resolve().parent] if script.exists() else [])]

    def new(self) -> Iterator[tuple[str, bytes]]:
        """(path, content) of what was not seen as it is now."""
        shell = _notebook()
        cells = "\n\n".join(shell.user_ns.get("In", [])[1:]).encode() if shell is not None else b""
        found = [("notebook.py", cells)] if cells else []
        for path, content in [*found, *self._files()]:
            digest = hashlib.sha256(content).hexdigest()
            if self._seen.get(path) != digest and (path in self._seen or len(self._seen) < MOST):
                self._seen[path] = digest
                yield path, content

    def _files(self) -> Iterator[tuple[str, bytes]]:
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        for text in dict.fromkeys(file for file in files if file and file.endswith(".py")):
            name = self._name(Path(text))
            if name and name not in self._seen:  # a module's file is kept as it was when it was first seen
                with suppress(OSError):
                    if Path(text).stat().st_size <= LARGEST:
                        yield name, Path(text).read_bytes()

    def _name(self, file: Path) -> str:
        if {"site-packages", "dist-packages"} & set(file.parts) or file.is_relative_to(sys.base_prefix) or file.is_relative_to(_own()):
            return ""
        return next((file.relative_to(root).as_posix() for root in self._roots if file.is_relative_to(root)), "")


@cache
def _own() -> Path:
    return Path(__file__).parent.parent
