"""A process that listens to a socket beside others, and takes its share of the connections.

A connection stays with who took it, and who is woken first could take all of many that come at once. So who has more of them than another
one steps back for a moment, and takes what is there only if nobody else did: of processes that hang, none is waited for.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from tidemill.serving import Counters
from tidemill.web.wire import Wire

log = logging.getLogger(__name__)
MOMENT = 0.001  # seconds
FULL = 1.0  # seconds until it is tried again when the system gives no more connections


class Counted(Wire):
    """A connection that is counted while it is open."""

    def __init__(self, *, counters: Counters, **config: Any) -> None:
        super().__init__(**config)
        self._counters = counters

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._counters.open -= 1
        super().connection_lost(exc)


class Taker:
    """Takes connections from a socket, on the running loop, and counts them; `made` makes what speaks to one."""

    def __init__(self, listener: socket.socket, made: Callable[[], asyncio.Protocol], counters: Counters) -> None:
        self._listener, self._made, self._counters = listener, made, counters
        self._loop = asyncio.get_running_loop()
        self._tasks, self._later = set[asyncio.Task[None]](), None
        self._watch()

    _later: asyncio.TimerHandle | None

    def _watch(self) -> None:
        self._loop.add_reader(self._listener, self._look)

    def _look(self) -> None:
        if self._counters.open > self._counters.fewest:
            self._step_back(MOMENT)
        else:
            self._take()

    def _step_back(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._later = self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        self._watch()
        self._take()

    def _take(self) -> None:
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another process was faster, or the client left
            return
        except OSError as error:
            log.warning("connections=refused error=%s tried_again_in=%s", error, f"{FULL:g}s")
            self._step_back(FULL)
            return
        taken.setblocking(False)
        self._counters.open += 1
        task = self._loop.create_task(self._speak(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _speak(self, taken: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._made, taken)
        except OSError as error:  # the client left in between
            self._counters.open -= 1
            taken.close()
            log.debug("connection=lost error=%s", error)

    async def end(self) -> None:
        """Take no more; return when what was taken has somebody who speaks to it."""
        self._loop.remove_reader(self._listener)
        if self._later:
            self._later.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
