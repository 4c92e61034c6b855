"""Threads beside an event loop, for what would keep others waiting.

What nobody waits for any more is not begun: a request leaves the queue when its client went away or its time is over. What has begun goes
on in its thread, which is taken until it ends; so there are never more than so many, and a queue is no longer than the requests under way.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from tidemill.serving.caller import caller

THREADS = 40
T = TypeVar("T")
_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, "_Threads"] = WeakKeyDictionary()


async def beside(work: Callable[..., T], *given: object) -> T:
    """What `work` gives, done in a thread. Raises what it raises, and DeadlineExceeded where nobody waited for it when its turn came."""
    loop = asyncio.get_running_loop()
    threads = _of_loops.get(loop)
    if threads is None:
        threads = _of_loops[loop] = _Threads()
    return await threads.run(loop, partial(work, *given))


class _Threads:
    """Those of one loop."""

    def __init__(self) -> None:
        self._pool, self._free = ThreadPoolExecutor(THREADS, "beside"), asyncio.Semaphore(THREADS)

    async def run(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> T:
        await self._free.acquire()
        future = self._pool.submit(copy_context().run, _waited_for, work)
        future.add_done_callback(partial(self._ended, loop))
        return await asyncio.wrap_future(future)

    def _ended(self, loop: asyncio.AbstractEventLoop, _: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._free.release)


def _waited_for(work: Callable[[], T]) -> T:
    caller().check()
    return work()
