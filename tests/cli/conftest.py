"""The command line as a person runs it: a process, its exit code, its two outputs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import Forks
from toy import copied as copied
from toy import kept as kept
from toy import parcels as parcels

Command = Callable[..., subprocess.CompletedProcess[str]]
TIDEMILL = Path(sys.executable).parent / "tidemill"


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where commands are run."""
    found = Forks()
    yield found
    found.close()


@pytest.fixture
def tidemill(forks: Forks) -> Command:
    """Run a command to its end: `tidemill("status", "--json", folder=…)`. With `heeds_modes`, root is refused like anybody."""

    def run(*arguments: str, folder: Path | None = None, heeds_modes: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1", **more}
        call = [*(["-C", str(folder)] if folder else []), *arguments]
        return forks.run(*call, folder=folder or Path("/"), environment=environment, heeds_modes=heeds_modes)

    return run
