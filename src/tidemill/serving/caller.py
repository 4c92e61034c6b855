"""Who waits for an answer: under which name, for how long, and whether still.

One value for each request, in a context variable: it is looked at only where something takes long, or is written to the server's log.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tidemill.core import ClientGone, DataError, DeadlineExceeded

if TYPE_CHECKING:
    from tidemill.serving._opentelemetry import Watch

REQUEST, PARENT = b"x-request-id", b"traceparent"
TIMEOUT, EXPECTED = b"grpc-timeout", b"x-envoy-expected-rq-timeout-ms"
LONGEST = 200  # letters of a request's id that are kept
SHARE = 0.8  # of the time that is left, what one rung of a ladder gets: another can answer in the rest
_TIMEOUT, _UNITS = re.compile(rb"(\d{1,8})([HMSmun])"), {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
ENDLESS = float("inf")


def _never() -> bool:
    return False


class Caller:
    """Who sent `headers` (names in lower case), `begun` by `time.monotonic`, to be answered within so many seconds at the `most`. `gone`
    tells whether it went away. `short` is set when a rung got less than its timeout; what the request turned out to ask, and the ids of its
    answers, by who answers it."""

    deployment, version, rung, prediction, short, until = "", "", "", "", False, ENDLESS
    watch: "Watch | None" = None  # the span of the request

    def __init__(
        self,
        headers: Mapping[bytes, bytes],
        most: float = ENDLESS,
        begun: float = 0.0,
        gone: Callable[[], bool] = _never,
    ) -> None:
        self.headers, self.begun, self.gone = headers, begun, gone
        if most < ENDLESS:
            self.until = (begun or time.monotonic()) + most

    def heed(self) -> None:
        """Wait no longer than the headers say. Raises DataError for what is no time."""
        self.within(stated(self.headers))

    def within(self, seconds: float) -> None:
        """Wait no longer than so many seconds from when the request came."""
        if seconds < ENDLESS:
            self.until = min(self.until, (self.begun or time.monotonic()) + seconds)

    @property
    def left(self) -> float:
        """Seconds; negative when it is too late."""
        return self.until - time.monotonic() if self.until < ENDLESS else ENDLESS

    def check(self) -> None:
        """Raise DeadlineExceeded where nobody waits any more: ClientGone where the client went away."""
        if self.gone is not _never and self.gone():
            raise ClientGone("the client went away before it was answered")
        if self.until < ENDLESS and self.left <= 0:
            raise exceeded()

    @property
    def about(self) -> dict[str, str]:
        """What is known by now of what it asks, and of the answer."""
        found = {"deployment": self.deployment, "version": self.version, "rung": self.rung, "prediction": self.prediction}
        return {name: text for name, text in found.items() if text}

    @property
    def trace(self) -> str:
        """The id of the trace that it belongs to; empty where it says none."""
        return self.watch.trace if self.watch else trace_of(self.headers)

    @cached_property
    def name(self) -> str:
        """By what the client, or a proxy before it, names the request: its own id, else that of its trace, else one that is made here."""
        return request_of(self.headers) or trace_of(self.headers) or secrets.token_hex(8)


NOBODY = Caller({})
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY)
caller = CALLER.get


def exceeded() -> DeadlineExceeded:
    """The error of an answer that comes too late."""
    return DeadlineExceeded(
        "the answer was not there in time", hint="wait longer, send fewer rows at once, or raise the deadline of the server"
    )


def request_of(headers: Mapping[bytes, bytes]) -> str:
    """By what a client, or a proxy before it, names a request; empty where neither does."""
    return headers.get(REQUEST, b"").decode("latin-1")[:LONGEST]


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """The id of the trace that a request belongs to (W3C Trace Context), empty where it says none.

    >>> trace_of({b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    '0af7651916cd43dd8448eb211c80319c'
    """
    found = _PARENT.fullmatch(headers[PARENT]) if PARENT in headers else None
    return found[1].decode() if found and found[1].strip(b"0") else ""


def stated(headers: Mapping[bytes, bytes]) -> float:
    """For how many seconds a client says that it waits: as gRPC does, and as Envoy tells it to servers behind it; the least of both.
    Endless where it says nothing. Raises DataError.

    >>> stated({b"grpc-timeout": b"250m"}), stated({b"x-envoy-expected-rq-timeout-ms": b"80", b"grpc-timeout": b"1S"}), stated({})
    (0.25, 0.08, inf)
    """
    seconds = ENDLESS
    if TIMEOUT in headers:
        found = _TIMEOUT.fullmatch(headers[TIMEOUT])
        if not found:
            raise _no_time(TIMEOUT, headers, "send up to eight digits and a unit, H, M, S, m, u or n: 250m is a quarter of a second")
        seconds = int(found[1]) * _UNITS[found[2]]
    if EXPECTED in headers:
        if not headers[EXPECTED].isdigit() or len(headers[EXPECTED]) > 15:
            raise _no_time(EXPECTED, headers, "send a whole number of milliseconds")
        seconds = min(seconds, int(headers[EXPECTED]) / 1e3 or ENDLESS)
    return seconds


def heed_parameters(parameters: Mapping[str, Any]) -> None:
    """Wait no longer than a request of the inference protocol says in its parameters: `timeout`, microseconds, as Triton has it; 0 says
    nothing. Raises DataError."""
    if "timeout" in parameters:
        found = parameters["timeout"]
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise DataError(f"timeout is {found!r:.100}", where="parameters.timeout", hint="send a whole number of microseconds")
        caller().within(found / 1e6 or ENDLESS)


def _no_time(name: bytes, headers: Mapping[bytes, bytes], hint: str) -> DataError:
    return DataError(f"{headers[name].decode('latin-1')[:100]!r} is no time", where=name.decode(), hint=hint)
