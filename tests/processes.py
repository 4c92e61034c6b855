"""Other processes for tests: start one, wait for what it says, kill it."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any


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


def run_python(code: str, *arguments: object, prepare: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a few lines in a process of their own, to the end; `prepare` is called there before."""
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=120, check=False, preexec_fn=prepare)


def heed_modes() -> None:
    """For a child: root, too, may then read and write only what the modes of files allow, here and in a program run next (Linux)."""
    if os.getuid() == 0:
        system, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
        system.capget(header, sets)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            system.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
            sets[0] &= ~(1 << capability)
        assert not system.capset(header, sets)


class Forks:
    """Commands of ours in processes of their own which have imported everything already (`forker.py`); one after the other."""

    def __init__(self) -> None:
        call = [sys.executable, Path(__file__).with_name("forker.py")]
        self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str, folder: Path, environment: Mapping[str, str], heeds_modes: bool) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with NamedTemporaryFile("r") as out, NamedTemporaryFile("r") as err:
            asked = {"arguments": arguments, "folder": str(folder), "environment": dict(environment), "heeds_modes": heeds_modes}
            self._process.stdin.write(json.dumps(asked | {"out": out.name, "err": err.name}) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())

    def close(self) -> None:
        """No more commands."""
        self._process.communicate()


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


@contextmanager
def several(code: str, *arguments: object, times: int) -> Iterator[list[Other]]:
    """The same lines in several processes; each is told its number after its arguments."""
    with ExitStack() as stack:
        yield [stack.enter_context(other(code, *arguments, number)) for number in range(times)]


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of ours (`tidemill` with these arguments and `--json`), and its address; killed at the end if it still runs."""
    with started(*arguments) as (process, said):
        yield process, said["url"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The same, and all that it says."""
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        with suppress(ValueError):
            json.loads(text)
            break
    try:
        yield process, json.loads(text)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
