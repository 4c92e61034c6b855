"""Several processes on one port: one that answers nothing binds the sockets, starts the others with them, watches them, and ends them.

Each of the others is started anew, by the command line of this one: a fork would take along threads, SQLite's connections and LMDB's
environments, none of which live on in a child. They listen to one socket, so that who ends leaves nobody in a queue of its own; that each
has as many connections as the others they see to themselves (`sharing`).
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from mmap import mmap
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from typing import IO

import msgspec

from tidemill.core import Busy, Unavailable
from tidemill.serving import SIZE, Counters
from tidemill.web.place import GRACE, VARIABLE, Place, command
from tidemill.web.server import bound

log = logging.getLogger(__name__)
AT_ONCE = 1.0  # seconds after it was ready within which the end of a process is one at once
IN_A_ROW = 6  # ends at once of each process after which the server ends, where none answers
LONGEST = 10.0  # seconds until a process is started again at the latest
HUNG = 2 * GRACE  # seconds after which a process that was asked to end is ended: something in it does not come to its end
Start = Callable[[int, bool], tuple["subprocess.Popen[bytes]", socket.socket]]
Event = tuple[str, int, int]  # what happened, to which process or by which signal, and the exit code


@dataclass
class Worker:
    """A process: when it was ready, by a clock that only goes forward (None: not yet), and how often in a row it ended at once."""

    process: "subprocess.Popen[bytes] | None" = None
    ready: float | None = None
    row: int = 0

    def ended(self, now: float) -> float:
        """It ended; after how many seconds it is to be started again.

        >>> worker = Worker(ready=0.0)
        >>> [worker.ended(60.0), worker.ended(61.0), worker.ended(62.0), worker.ended(63.0)]
        [0.0, 0.2, 0.4, 0.8]
        """
        at_once = self.ready is None or now - self.ready < AT_ONCE
        self.process, self.ready, self.row = None, None, self.row + 1 if at_once else 0
        return min(0.1 * 2**self.row, LONGEST) if self.row else 0.0


@dataclass
class Supervisor:
    """Keeps so many processes going. `start` starts one by its number, which is to tell the addresses or not, and gives what it says by:
    a byte when it is ready. `forget` is told of each that ended."""

    start: Start
    many: int
    forget: Callable[[int], None]
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue)
    workers: list[Worker] = field(default_factory=list)
    due: dict[int, float] = field(default_factory=dict)  # when which is to be started again
    begun: bool = False  # whether one was ready

    def run(self) -> None:
        """Until asked to end (SIGTERM, or Ctrl-C, which raises KeyboardInterrupt): then what is under way is answered first. Raises
        SystemExit with the code of the first one where that does not become ready, which says why, and Unavailable where none does any
        more."""
        asked = [signal.SIGINT, signal.SIGTERM]
        before = [signal.signal(number, lambda number, _: self.events.put(("asked", number, 0))) for number in asked]
        self.workers = [Worker() for _ in range(self.many)]
        try:
            self._start(0, tells=True)  # alone: what it has to say of a start that fails, the others would say too
            while not (ended_by := self._step()):
                pass
            self._drain()
            if ended_by == signal.SIGINT:
                raise KeyboardInterrupt
        finally:
            for worker in self.workers:
                if worker.process:
                    worker.process.kill()
            for number, handler in zip(asked, before, strict=True):
                signal.signal(number, handler)

    def _step(self) -> int:
        """Wait for what happens next, and do what it asks for; the signal that asks to end."""
        try:
            what, number, code = self.events.get(timeout=max(min(self.due.values()) - time.monotonic(), 0) if self.due else None)
        except Empty:
            number = min(self.due, key=lambda one: self.due[one])
            self._start(number)
            return 0
        if what == "asked":
            return number
        if what == "ready":
            self._ready(number)
        else:
            self._ended(number, code)
        return 0

    def _start(self, number: int, *, tells: bool = False) -> None:
        self.due.pop(number, None)
        try:
            self.workers[number].process, life = self.start(number, tells)
        except OSError as error:
            log.warning("worker=%d cannot be started error=%s", number, error)
            self.events.put(("ended", number, 1))
            return
        Thread(target=self._follow, args=(number, self.workers[number].process, life), daemon=True).start()

    def _follow(self, number: int, process: "subprocess.Popen[bytes]", life: socket.socket) -> None:
        with life:  # as long as it is open the process knows that this one lives
            if life.recv(1):
                self.events.put(("ready", number, 0))
            self.events.put(("ended", number, process.wait()))

    def _ready(self, number: int) -> None:
        self.workers[number].ready = time.monotonic()
        for other in range(1, 0 if self.begun else self.many):
            self._start(other)
        self.begun = True

    def _ended(self, number: int, code: int) -> None:
        self.forget(number)
        if not self.begun:
            raise SystemExit(code if code > 0 else 128 - code)
        pause = self.workers[number].ended(time.monotonic())
        if not any(one.ready for one in self.workers) and all(one.row >= IN_A_ROW for one in self.workers):
            what = f"each of the {self.many} processes ended at once {IN_A_ROW} times in a row"
            raise Unavailable(what, hint="what they said above tells why; `--workers 1` serves in this process alone")
        log.warning("worker=%d ended=%s started_again_in=%s", number, _shown(code), f"{pause:g}s")
        self.due[number] = time.monotonic() + pause

    def _drain(self) -> None:
        left = {number: worker.process for number, worker in enumerate(self.workers) if worker.process}
        for process in left.values():
            process.terminate()
        until = time.monotonic() + HUNG
        while left:
            try:
                what, number, _ = self.events.get(timeout=max(until - time.monotonic(), 0) if until else None)
            except Empty:
                what, number, until = "asked", signal.SIGINT, 0.0
                log.warning("workers=%s end=killed they did not end in %gs", ",".join(map(str, left)), HUNG)
            if what == "ended":
                left.pop(number, None)
            elif what == "asked" and number == signal.SIGINT:  # by somebody who does not want to wait
                for process in left.values():
                    process.kill()


def _shown(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"with code {code}"


def supervise(many: int, host: str, port: int, grpc_port: int | None, words: Sequence[str]) -> None:
    """Serve by so many processes, each of which runs `tidemill` with these words. Raises what `bound` does, and what
    `Supervisor.run` does."""
    with ExitStack() as stack:
        listener = stack.enter_context(bound(host, port))
        listener.setblocking(False)
        remote = None if grpc_port is None else stack.enter_context(held(host, grpc_port))
        memory, shelf = (stack.enter_context(_file(size)) for size in (many * SIZE, SIZE))
        counters = Counters(mmap(memory.fileno(), 0))
        place = Place(0, many, listener.fileno(), -1, memory.fileno(), shelf.fileno(), remote, os.getpid())
        Supervisor(partial(_started, place, words), many, counters.forget).run()


def _started(place: Place, words: Sequence[str], number: int, tells: bool) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        place = msgspec.structs.replace(place, number=number, life=theirs.fileno(), tells=tells)
        process = subprocess.Popen(
            command(*words),
            stdin=subprocess.DEVNULL,
            env=os.environ | {VARIABLE: msgspec.json.encode(place).decode()},
            pass_fds=(place.listener, place.life, place.memory, place.shelf),
            process_group=0,  # Ctrl-C is for the parent: it asks them to end
        )
    return process, ours


@contextmanager
def held(host: str, port: int) -> Iterator[int]:
    """A port of gRPC that the processes may listen to, each by a socket of its own: gRPC takes none that is there. Raises what `bound`
    does."""
    with bound(host, port, "--grpc-port") as tried:  # one that shares would be let onto the port of another server that shares
        family, address = tried.family, tried.getsockname()
    with socket.socket(family, socket.SOCK_STREAM) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            kept.bind(address)
        except OSError as error:
            raise Busy(f"port {port} is taken", where=host, hint="choose another: --grpc-port 0 takes a free one") from error
        yield address[1]


@contextmanager
def _file(size: int) -> Iterator[IO[bytes]]:
    """A file without a name, in memory where the system has such."""
    with os.fdopen(os.memfd_create("tidemill"), "r+b") if hasattr(os, "memfd_create") else TemporaryFile() as file:
        os.ftruncate(file.fileno(), size)
        yield file
