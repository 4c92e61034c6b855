"""Copies of requests for a version that answers nobody: off the path of the answer, and written to a log of their own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any

from tidemill.core import StoreError, canonical
from tidemill.serving.appending import Lines
from tidemill.serving.counters import Counters

log = logging.getLogger(__name__)
MOST = 1_000  # requests that wait for the shadow
COUNTED = ("copied", "dropped", "failed", "other_label")  # rows


@dataclass(frozen=True)
class Copied:
    """What a shadow says to a row, beside what was answered."""

    branch: str
    key: str
    at_us: int
    version: str
    probability: float
    answered: str
    answered_probability: float
    rung: str


class Shadows:
    """One thread that asks the shadow of a deployment. A request that finds too many waiting is not copied: it is counted as dropped."""

    def __init__(self, path: Path, counters: Counters | None = None, *, most: int = MOST) -> None:
        self._log, self._lock, self._counters = Lines(path), Lock(), counters or Counters()
        self._name = ("shadow", path.stem)
        self._own = self._counters.row(*self._name, width=len(COUNTED) + 1)
        self._waiting: Queue[tuple[Callable[[], Sequence[Copied]], int] | None] = Queue(most)
        self._thread = Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def copy(self, ask: Callable[[], Sequence[Copied]], rows: int) -> None:
        """Have something asked, later."""
        try:
            self._waiting.put_nowait((ask, rows))
        except Full:
            self._count("dropped", rows)

    def plain(self) -> dict[str, Any]:
        """How many rows were copied since the start, and how far apart the answers are: the mean absolute difference of probabilities, and
        how many lie on different sides of a half."""
        with self._lock:
            *sums, apart = map(fsum, zip(*self._counters.rows(*self._name), strict=True))
        counts = dict(zip(COUNTED, map(int, sums), strict=True))
        return counts | {"mean_difference": apart / counts["copied"] if counts["copied"] else None}

    def wait(self) -> None:
        """Until all that was copied is written."""
        self._waiting.join()

    def close(self) -> None:
        """End, after what is waiting."""
        self._waiting.put(None)
        self._thread.join()
        self._log.close()

    def _count(self, what: str, rows: int) -> None:
        with self._lock:
            self._own[COUNTED.index(what)] += rows

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            ask, rows = waiting
            try:
                self._copied(ask())
            except StoreError as error:
                self._count("failed", rows)
                log.warning("shadow=unwritten error=%s", error.what)
            except Exception as error:  # noqa: BLE001 – whatever a shadow does, it is nobody's answer
                self._count("failed", rows)
                log.warning("shadow=failed error=%r", error)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _copied(self, rows: Sequence[Copied]) -> None:
        self._log.write([canonical(asdict(one)) for one in rows])
        with self._lock:
            self._own[COUNTED.index("copied")] += len(rows)
            self._own[COUNTED.index("other_label")] += sum((one.probability > 0.5) != (one.answered_probability > 0.5) for one in rows)
            self._own[-1] += sum(abs(one.probability - one.answered_probability) for one in rows)
