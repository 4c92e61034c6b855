"""Other processes for tests: start one, wait for what it says, kill it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Other:
    """A Python process that runs a few lines and tells by its output how far it is."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self) -> str:
        """Its next line of output, waited for; the end of its output is an empty text."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let a process that reads a line of input go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a few lines in a process of their own, to the end."""
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def other(code: str, *arguments: object) -> Iterator[Other]:
    """A process that runs a few lines beside the test; killed at the end if it still runs."""
    call = [sys.executable, "-uc", code, *map(str, arguments)]
    process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Other(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
