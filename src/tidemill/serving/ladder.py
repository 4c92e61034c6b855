"""How the rungs of a ladder are tried: each in its time, in threads of its own, and left out for a while where it keeps failing."""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, overload

from tidemill.core import SECOND, Floats, Unavailable
from tidemill.serving.caller import ENDLESS, SHARE, caller
from tidemill.serving.counters import BOUNDS, NOW, Counted, Counters, Row
from tidemill.serving.declarations import Breaker
from tidemill.serving.spans import OFF, Off, span

if TYPE_CHECKING:
    from tidemill.serving._opentelemetry import Child

log = logging.getLogger(__name__)
TIMED_ROWS = 100  # a timeout is for this many rows


class Score(NamedTuple):
    """What a rung says to a row: the probability, the version that gave it, the rung's name, for an answer that is given again when it
    was first given (microseconds UTC), and whether it was known what the version says."""

    probability: float
    version: str
    rung: str
    given: int | None = None
    cached: bool = False


class Alike(Sequence[Score]):
    """What one version says to many rows: their probabilities (n,) as they are; a score is made for who asks for one."""

    def __init__(self, values: Floats, version: str, rung: str) -> None:
        self.values, self.version, self.rung = values, version, rung

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, place: int) -> Score: ...
    @overload
    def __getitem__(self, place: slice) -> "Alike": ...
    def __getitem__(self, place: int | slice) -> "Score | Alike":
        if isinstance(place, slice):
            return Alike(self.values[place], self.version, self.rung)
        return Score(float(self.values[place]), self.version, self.rung)

    def __iter__(self) -> Iterator[Score]:
        return (Score(value, self.version, self.rung) for value in self.values.tolist())


Scored = Sequence[Score | None]  # of each row; None where a rung has nothing to say


class Rung(NamedTuple):
    """A step of the ladder: its name, for how many rows, what gives their answers, and whether it is done before somebody else could be
    asked to do it. A `sure` one has nothing that could break; of one that is `spared` it is known what it says, and not how it is doing.
    `version` is that of its model; `begin` promises the answers of one that is asked with others."""

    name: str
    rows: int
    give: Callable[[], Scored]
    at_once: bool = False
    sure: bool = False
    spared: bool = False
    version: str = ""
    begin: Callable[[], Future[Scored]] | None = None


class Circuit:
    """A circuit breaker (Nygard, Release It!): after some failures in a row a rung is left out for a while, and then tried once; when that
    fails too it is left out for as long again. Times are microseconds of a clock that only goes forward.

    >>> circuit = Circuit(Breaker(failures=2, pause="1s"))
    >>> [circuit.failed(0), circuit.closed(1), circuit.failed(1)]
    [False, True, True]
    >>> [circuit.closed(1_000_000), circuit.closed(1_000_001), circuit.closed(1_000_002)]
    [False, True, False]
    >>> circuit.succeeded()
    True
    >>> circuit.closed(1_000_003)
    True
    """

    def __init__(self, breaker: Breaker) -> None:
        self._most, self._pause = breaker.failures, breaker.microseconds
        self._row, self._until = 0, 0  # failures in a row; when it may be tried again
        self._lock = Lock()

    @property
    def open(self) -> bool:
        """Whether it was left out when it was last asked for."""
        return self._row >= self._most

    def closed(self, now: int) -> bool:
        """Whether it may be tried."""
        if self._row < self._most:
            return True
        with self._lock:
            if now < self._until:
                return False
            self._until = now + self._pause  # this one tries; the others wait for what it finds
            return True

    def failed(self, now: int) -> bool:
        """It failed; whether that opens it."""
        with self._lock:
            self._row += 1
            self._until = now + self._pause
            return self._row == self._most

    def succeeded(self) -> bool:
        """It gave answers; whether it was open until now."""
        was, self._row = self.open, 0
        return was


class Ladder:
    """How the rungs of one deployment are tried; `timeout` in microseconds, for each started 100 rows of a request."""

    def __init__(
        self, name: str, timeout: int = SECOND, breaker: Breaker | None = None, ticks: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`ticks` are nanoseconds of a clock that only goes forward."""
        self.name, self.timeout = name, timeout
        self._breaker, self.ticks = breaker or Breaker(), ticks
        self._circuits, self._pools, self._lock = dict[str, Circuit](), dict[str, ThreadPoolExecutor](), Lock()
        self.count_in(Counters())

    def count_in(self, counters: Counters) -> None:
        """Count there from now on."""
        self.counters, self.counts, self._times = counters, counters.of("answers", self.name), dict[str, Row]()
        for rung in counters.of(NOW, "left out", self.name):
            self._tell(rung, left_out=False)  # of a ladder before this one

    @property
    def left_out(self) -> Counted:
        """The rungs that are left out, and by how many processes."""
        return self.counters.of(NOW, "left out", self.name)

    def _tell(self, rung: str, *, left_out: bool) -> None:
        self.counters.row(NOW, "left out", self.name, rung)[0] = left_out

    def count(self, what: str, rows: int) -> None:
        """Something happened to so many rows."""
        with self._lock:
            self.counts.add(what, rows)

    def tried(self, rung: Rung) -> Scored | None:
        """What a rung gives within the timeout; None where it fails, is too late, or is left out. Raises DeadlineExceeded where nobody
        waits any more."""
        if rung.spared:
            return rung.give()
        found = None
        with _Try(self, rung) as seconds:
            if rung.at_once or not seconds:
                return rung.give() if seconds else None
            future = self._begun(rung)
            try:
                found = future.result(seconds)
            finally:
                future.cancel()
        return found

    async def awaited(self, rung: Rung) -> Scored | None:
        """The same on an event loop."""
        if rung.spared:
            return rung.give()
        found = None
        with _Try(self, rung) as seconds:
            if rung.at_once or not seconds:
                return rung.give() if seconds else None
            found = await asyncio.wait_for(asyncio.wrap_future(self._begun(rung)), seconds)
        return found  # noqa: RET504 – None where that failed

    def _begun(self, rung: Rung) -> Future[Scored]:
        """Each rung has threads of its own: one that hangs does not take the next one's. Asked with others it needs none."""
        if rung.begin:
            return rung.begin()
        pool = self._pools.get(rung.name)
        if pool is None:
            with self._lock:
                pool = self._pools.setdefault(rung.name, ThreadPoolExecutor(2))
        return pool.submit(rung.give)

    def circuit(self, rung: str) -> Circuit:
        """The breaker of a rung."""
        return self._circuits.get(rung) or self._circuits.setdefault(rung, Circuit(self._breaker))

    def note_time(self, rung: str, seconds: float) -> None:
        """A rung took so long."""
        row = self._times.get(rung)
        if row is None:
            row = self._times[rung] = self.counters.row("took", self.name, rung, width=len(BOUNDS) + 2)
        with self._lock:
            row[bisect_left(BOUNDS, seconds)] += 1
            row[-1] += seconds

    def times(self) -> Iterator[tuple[str, list[float]]]:
        """How long each rung took, of all processes: how often within each of BOUNDS and above them, and the sum of seconds."""
        for name in sorted(self.counters.names("took", self.name)):
            yield name[-1], [*map(sum, zip(*self.counters.rows(*name), strict=True))]

    def note_success(self, rung: str, circuit: Circuit) -> None:
        """A rung gave answers."""
        if circuit.succeeded():
            self._tell(rung, left_out=False)
            log.warning("deployment=%s rung=%s circuit=closed", self.name, rung)

    def note_failure(self, rung: str, circuit: Circuit) -> None:
        """A rung failed, or was too late."""
        if circuit.failed(self.ticks() // 1_000):
            self._tell(rung, left_out=True)
            log.warning("deployment=%s rung=%s circuit=open tried_again_in=%s", self.name, rung, self._breaker.pause)


class _Try:
    """One try of a rung: for how long, and what becomes of it is counted where it is left out (0 seconds), fails or is too late. It is no
    failure of its own where it got less than its timeout, since whoever asks does not wait so long."""

    __slots__ = ("begun", "circuit", "ladder", "part", "rung", "short")

    def __init__(self, ladder: Ladder, rung: Rung) -> None:
        self.ladder, self.rung, self.circuit, self.short = ladder, rung, ladder.circuit(rung.name), False
        self.begun = 0.0
        self.part: Child | Off = OFF

    def __enter__(self) -> float:
        ladder, rung = self.ladder, self.rung
        seconds = whole = ladder.timeout / SECOND * -(-rung.rows // TIMED_ROWS)
        if not rung.at_once and caller().until < ENDLESS:  # before a circuit lets it try: who does not wait would try nothing
            seconds = min(whole, _rest())
            self.short = seconds < whole
        if not rung.sure and not self.circuit.closed(ladder.ticks() // 1_000):
            ladder.count(f"{rung.name}: left out", rung.rows)
            return 0.0
        self.begun, self.part = time.perf_counter(), span("rung", rung=rung.name, rows=rung.rows, version=rung.version)
        self.part.__enter__()
        return seconds

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not self.begun:  # left out
            return False
        ladder, name, goes_on = self.ladder, self.rung.name, isinstance(error, Exception)
        if error is None:
            ladder.note_success(name, self.circuit)
        elif isinstance(error, Late):
            why = "deadline" if self.short else "too late"
            self.part.fail(why)
            ladder.count(f"{name}: {why}", self.rung.rows)
            if self.short:
                caller().short = True
            else:
                ladder.note_failure(name, self.circuit)
        elif goes_on:  # whatever a rung does, the next one answers; the count, the log and the rung tell
            self.part.fail(error)
            ladder.count(f"{name}: failed", self.rung.rows)
            log.warning("deployment=%s rung=%s rows=%d error=%r", ladder.name, name, self.rung.rows, error)
            ladder.note_failure(name, self.circuit)
        self.part.__exit__(*((None, None, None) if goes_on else (kind, error, trace)))
        ladder.note_time(name, time.perf_counter() - self.begun)
        return goes_on


def _rest() -> float:
    """Seconds that a rung gets of those that the caller waits. Raises DeadlineExceeded."""
    caller().check()
    return SHARE * caller().left


def nobody(name: str, only: str) -> Unavailable:
    """The error where no rung answers, or not the `only` version that was asked."""
    if only:
        what = f"version {only} of deployment {name!r} could not answer, or not as expected"
        return Unavailable(what, hint="ask without a version: the deployment's fallback may answer")
    return Unavailable(f"no rung of deployment {name!r} could answer", hint="declare a Constant fallback, and look at the server's log")
