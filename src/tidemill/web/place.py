"""Where a process stands among those of a server: it is the only one, or it was given its sockets by the one that started it.

A parent tells by the environment variable TIDEMILL_PLACE, of which nothing is left when it was read.
"""

import math
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import cached_property
from mmap import mmap
from pathlib import Path
from threading import Thread

import msgspec

from tidemill.core import DefinitionError
from tidemill.serving import Counters

VARIABLE = "TIDEMILL_PLACE"
MOST = 256  # processes
GRACE = 10  # seconds that what is under way has when a server ends
_PACKAGES = str(Path(__file__).parents[2])
_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tidemill.cli import main; main()"


class Place(msgspec.Struct, frozen=True, dict=True):
    """The `number` of a process `of` several, its file descriptors (the socket that all listen to, what tells that the parent lives, the
    memory of what is counted, the model that is served), the port of gRPC, the `parent`, and whether it `tells` the addresses."""

    number: int = 0
    of: int = 1
    listener: int = -1
    life: int = -1
    memory: int = -1
    shelf: int = -1
    grpc: int | None = None
    parent: int | None = None
    tells: bool = True

    @classmethod
    def taken(cls) -> "Place":
        """That of this process; it ends with its parent from now on."""
        text = os.environ.pop(VARIABLE, "")
        place = msgspec.json.decode(text, type=cls) if text else cls()
        if text:
            Thread(target=place._follow, name="parent", daemon=True).start()
        return place

    @property
    def alone(self) -> bool:
        """Whether it is the only one."""
        return self.parent is None

    @cached_property
    def counters(self) -> Counters:
        """What is counted, by all of them."""
        if self.alone:
            return Counters()
        found = Counters(mmap(self.memory, 0), self.number)
        found.begin()
        return found

    def given(self) -> socket.socket:
        """The socket that all listen to."""
        listener = socket.socket(fileno=self.listener)
        listener.setblocking(False)
        return listener

    def share(self, most: int) -> int:
        """Of what the whole server may have at most, what this process may."""
        return -(-most // self.of)

    def ready(self) -> None:
        """It answers from now on."""
        self.counters.ready()
        if not self.alone:
            os.write(self.life, b"r")

    def _follow(self) -> None:
        with suppress(OSError):
            os.read(self.life, 1)  # until there is nobody at the other end
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)


def command(*words: str) -> list[str]:
    """What runs `tidemill` with these words in a process of its own: this very one, wherever it lies."""
    return [sys.executable, "-P", "-c", _MAIN, _PACKAGES, *words]


def number_of(workers: int | str) -> int:
    """How many processes a setting means. Raises DefinitionError for more than any machine could want."""
    found = cores() if workers == "cores" else int(workers)
    if found > MOST:
        raise DefinitionError(
            f"{found} processes are too many", hint=f"up to {MOST}; as many as there are cores answer the most: --workers cores"
        )
    return found


def cores() -> int:
    """The processors that this process may use: those that it may run on, or the share that its control group (Linux) has of them."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(own, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # there is none, or it is "max"
        return own
