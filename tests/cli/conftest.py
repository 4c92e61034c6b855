"""The command line as a person runs it: a process, its exit code, its two outputs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toy import copied as copied
from toy import kept as kept
from toy import parcels as parcels

Command = Callable[..., subprocess.CompletedProcess[str]]
TIDEMILL = Path(sys.executable).parent / "tidemill"


@pytest.fixture
def tidemill() -> Command:
    """Run a command to its end: `tidemill("status", "--json", folder=…)`; `prepare` is called in its process before."""

    def run(*arguments: str, folder: Path | None = None, prepare: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        call = [str(TIDEMILL), *(["-C", str(folder)] if folder else []), *arguments]
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
        options: dict[str, Any] = {"env": environment, "cwd": folder or "/", "preexec_fn": prepare}
        return subprocess.run(call, capture_output=True, text=True, timeout=300, check=False, **options)

    return run
