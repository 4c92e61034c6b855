"""Requests that come at the same time are asked of a model together: many answer 64 rows in hardly more time than one.

Comes in: the rows of each request, from any thread. Goes out: a future for each, with the answers to its own rows.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tidemill.core import Floats, Unavailable

T = TypeVar("T")
ROWS, WITHIN = 64, 0.005  # rows of a call; seconds that a request waits for others


class _Waiting(NamedTuple):
    """A request: its rows, what is made of their answers, the future for that, and when it came."""

    features: Floats
    then: Callable[[Floats], Any]
    future: Future[Any]
    came: float


class Gatherer:
    """Asks a model for several requests at once: up to `rows`, and a request waits at most `within` seconds for others to come.

    While one call runs, what comes is gathered for the next. It is waited for others only where more requests than are there were under
    way together just before; so who asks alone never waits. A call that fails is asked again by halves: a wrong request fails alone.
    """

    def __init__(self, ask: Callable[[Floats], Floats], rows: int = ROWS, within: float = WITHIN) -> None:
        """`ask` answers a matrix (n, f) with an array whose first dimension is n."""
        self._ask, self._rows, self._within = ask, rows, within
        self._queue, self._changed = deque[_Waiting](), Condition()
        self._runs, self._company, self._ended = False, 1, 0.0  # how many were under way together, and until when
        self._pool = ThreadPoolExecutor(1, "gather")  # its thread ends with it

    def ask(self, features: Floats) -> Floats:
        """The answers to some rows. Raises what the model raises."""
        return self.begin(features, _as_it_is).result()

    def begin(self, features: Floats, then: Callable[[Floats], T]) -> "Future[T]":
        """What `then` makes of the answers to some rows; one that is cancelled in time is not asked."""
        future = Future[T]()
        with self._changed:
            self._queue.append(_Waiting(features, then, future, time.monotonic()))
            self._changed.notify()
            if not self._runs:
                self._runs = True
                self._pool.submit(self._work)
        return future

    def _work(self) -> None:
        while some := self._next():
            _answer(self._ask, [one for one in some if one.future.set_running_or_notify_cancel()])
            with self._changed:
                self._company, self._ended = len(some) + len(self._queue), time.monotonic()

    def _next(self) -> list[_Waiting]:
        """The requests of the next call; none where nobody waits."""
        with self._changed:
            if not self._queue:
                self._runs = False
                return []
            now, first = time.monotonic(), self._queue[0].came
            company = self._company if now - self._ended < self._within else 1
            self._changed.wait_for(lambda: len(self._queue) >= company or self._enough(), max(0.0, first + self._within - now))
            some, rows = [self._queue.popleft()], 0
            rows = len(some[0].features)
            while self._queue and rows + len(self._queue[0].features) <= self._rows:
                some.append(self._queue.popleft())
                rows += len(some[-1].features)
            return some

    def _enough(self) -> bool:
        return sum(len(one.features) for one in self._queue) >= self._rows


def _as_it_is(found: Floats) -> Floats:
    return found


def _answer(ask: Callable[[Floats], Floats], some: Sequence[_Waiting]) -> None:
    """Ask for all at once, and where the model fails by halves."""
    if not some:
        return
    try:
        found = ask(some[0].features if len(some) == 1 else np.concatenate([one.features for one in some]))
    except Exception as error:  # noqa: BLE001 – whatever a model does, who asked is told
        if len(some) > 1 and not isinstance(error, Unavailable):  # where nothing answers, halves do not either
            middle = len(some) // 2
            _answer(ask, some[:middle])
            _answer(ask, some[middle:])
            return
        for one in some:
            one.future.set_exception(error)
        return
    start = 0
    for one in some:
        end = start + len(one.features)
        try:
            one.future.set_result(one.then(found[start:end]))
        except Exception as error:  # noqa: BLE001 – as above: of this one alone
            one.future.set_exception(error)
        start = end
