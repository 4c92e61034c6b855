"""One turn of the event loop: what its requests ask of a model is asked and logged at once, and their answers leave together.

Comes in: requests in the order in which connections read them. Goes out: their answers, in that order, when the turn is over; where
requests come one by one, each as soon as its connection has read it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from tidemill.serving import Begun, Reply, finished

log = logging.getLogger(__name__)
LONE, AGAIN = 4, 128  # after so many turns with one request, nobody is waited for; after so many more, it is looked whether somebody comes
UNTOLD = "an answer could not be told"
Told = Callable[[Reply], None]


class Turn:
    """That of one event loop, the running one unless `soon` calls what is to be called when it is over; nothing here is asked by another
    thread. `alone`: requests come one by one, and are answered at once; `reads`: a connection reads what came."""

    def __init__(self, soon: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._soon, self._called = soon, False
        self._waiting, self._written = list[tuple[Reply | Begun, Told]](), list[Gathered]()
        self.alone = self.reads = False
        self._came = 0  # requests in this turn
        self._lone = 0  # turns in a row that had one; then reads since nobody is waited for

    def answer(self, answer: Reply | Begun, told: Told) -> None:
        """Tell who asked the answer when the turn is over, or finish then with others what was begun."""
        self._waiting.append((answer, told))

    def send(self, transport: "Gathered") -> None:
        """Send what a transport has when the turn is over, or what comes to a connection now is read."""
        self._written.append(transport)
        if not self.reads and not self._called:
            self._call_soon()

    def end_to_read(self) -> None:
        """A connection has read what came."""
        self.reads = False
        if self.alone:
            self._lone += 1
            if self._lone >= AGAIN:
                self.alone, self._lone = False, LONE - 1
            if self._waiting:
                self.settle()
            self._flush()
        elif not self._called and (self._waiting or self._written):
            self._call_soon()

    def settle(self) -> None:
        """Answer now what came so far: what is said next must not come before it."""
        waiting, self._waiting = self._waiting, []
        self._came += len(waiting)
        replies = iter(finished([answer for answer, _ in waiting if isinstance(answer, Begun)]))
        for answer, told in waiting:
            try:
                told(next(replies) if isinstance(answer, Begun) else answer)
            except Exception:  # others of the turn wait for theirs
                log.exception(UNTOLD)

    def _call_soon(self) -> None:
        self._called = True
        self._soon = self._soon or asyncio.get_running_loop().call_soon
        self._soon(self._be_over)

    def _be_over(self) -> None:
        self.settle()
        if self._came:
            self._lone = self._lone + 1 if self._came == 1 else 0
            self.alone, self._came = self._lone >= LONE, 0
        self._flush()
        self._called = False

    def _flush(self) -> None:
        written, self._written = self._written, []
        for transport in written:
            transport.flush()


class Gathered:
    """A transport that sends what is written in one turn of the loop at once, at its end: an answer's head and body leave in one packet,
    and answers to several connections leave together. A client that sleeps between two of them is woken for each, which costs the
    server as much as an answer."""

    def __init__(self, transport: Any, turn: Turn) -> None:
        self._transport, self._turn, self._pieces = transport, turn, list[bytes]()
        self.leave: Callable[[], None] | None = None  # what is done once in place of closing
        self.is_closing = transport.is_closing  # asked for each answer

    def write(self, data: bytes) -> None:
        """Send, with what else this turn of the loop has to say."""
        if not self._pieces:
            self._turn.send(self)
        self._pieces.append(data)

    def say(self, answer: bytes) -> None:
        """Send an answer that is whole: at once where requests come one by one."""
        if self._pieces:
            self._pieces.append(answer)
        elif not self._turn.alone:
            self._turn.send(self)
            self._pieces.append(answer)
        else:
            self._send(self._transport.write, answer)

    def flush(self) -> None:
        """Send what was written."""
        pieces = self._pieces
        if pieces:
            self._pieces = []
            if len(pieces) == 1:
                self._send(self._transport.write, pieces[0])
            else:
                self._send(self._transport.writelines, pieces)

    def _send(self, how: Callable[[Any], object], data: bytes | list[bytes]) -> None:
        if self.is_closing():  # the client may have gone away in this very turn
            return
        try:
            how(data)
        except Exception:  # others wait for what is sent to them
            log.exception("an answer could not be sent")
            self._transport.abort()

    def close(self) -> None:
        """Close, after what was written."""
        self._turn.settle()
        self.flush()
        close, self.leave = self.leave or self._transport.close, None
        close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
