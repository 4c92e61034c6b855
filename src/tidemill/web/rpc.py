"""gRPC on a port of its own: the inference protocol and gRPC's health for whoever speaks it, in threads beside the event loop of HTTP.

A browser cannot speak it to an address that a page names, so there is no origin to check.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

from tidemill.core import Busy, MissingExtra, TidemillError
from tidemill.serving import CALLER, MOST, Caller, Inference, status_of, tracer
from tidemill.web.direct import MOST_SECONDS, MOST_UNDER_WAY
from tidemill.web.logs import note_access
from tidemill.web.metrics import Calls
from tidemill.web.place import GRACE, Place
from tidemill.web.server import ALONE, Beside, bound

if TYPE_CHECKING:
    from tidemill.serving import Procedures

log = logging.getLogger(__name__)
WORKERS = 32  # requests that are answered at once
STREAMS = 128  # streams that are open at once, each with a thread of its own
LOOK_AGAIN = 0.5  # seconds after which who watches health is told of a change
MOST_TOLD = 1 << 10  # bytes of an error: it leaves in a header
STREAM, WATCH = "/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.health.v1.Health/Watch"


class Remote:
    """A server of gRPC at an `address`. `end` may be called from any thread."""

    def __init__(
        self,
        procedures: "Procedures",
        host: str,
        port: int,
        look: Callable[[], None],
        calls: Calls,
        most: int,
        workers: int = WORKERS,
        seconds: float = MOST_SECONDS,
        *,
        shared: bool = False,
    ) -> None:
        """A `shared` port is one that other processes of this server listen to as well. Raises what `bound` does, and MissingExtra."""
        from tidemill.serving import REQUIRES

        try:
            import grpc
        except ImportError as error:
            raise MissingExtra("gRPC is not installed", hint="pip install 'tidemill[grpc]'") from error
        self._codes, self._procedures, self._look, self._calls = grpc.StatusCode, procedures, look, calls
        self._seconds = seconds
        self._ended, self._idle, self._open = Event(), set[Any](), set[Any]()
        self._threads, self._streams = ThreadPoolExecutor(workers, "grpc"), ThreadPoolExecutor(STREAMS + 8, "grpc-stream")
        unary, streams = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers = {path: unary(self._answering(path, method)) for path, method in procedures.methods.items()}
        handlers[STREAM] = streams(self._beside(self._stream))
        handlers[WATCH] = grpc.unary_stream_rpc_method_handler(self._beside(self._watch))

        class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
            """By path; what is none of them is UNIMPLEMENTED."""

            def service(self, details: Any) -> Any:
                return handlers.get(details.method) if details.method in REQUIRES else None

        options = {"grpc.max_receive_message_length": MOST, "grpc.so_reuseport": int(shared)}
        self._server = grpc.server(self._threads, [Methods()], options=[*options.items()], maximum_concurrent_rpcs=most)
        named = f"[{host}]" if ":" in host else host
        if not shared:  # else whoever holds the port has tried it
            with bound(host, port, "--grpc-port"):  # whether it may be: gRPC binds to any address, and says less of what is wrong
                pass
        try:
            found = self._server.add_insecure_port(f"{named}:{port}")
        except RuntimeError as error:
            raise Busy(f"port {port} is taken", where=host, hint="choose another: --grpc-port 0 takes a free one") from error
        self.address = f"{named}:{found}"
        self._server.start()

    def end(self) -> None:
        """Take no more requests, and answer those that are under way; return when that is done."""
        self._ended.set()
        stopped = self._server.stop(GRACE)
        for context in [*self._idle]:
            context.cancel()
        stopped.wait()
        for pool in (self._threads, self._streams):
            pool.shutdown(wait=False)

    def _answering(self, path: str, method: Callable[[bytes], bytes]) -> Callable[[bytes, Any], bytes]:
        def answer(body: bytes, context: Any) -> bytes:
            if not context.time_remaining():  # nobody waits for it any more
                return b""
            return self._checked(path, method, body, context)

        return answer

    def _checked(self, path: str, method: Callable[[bytes], bytes], body: bytes, context: Any) -> bytes:
        begun, name = time.perf_counter(), path.rpartition("/")[2]
        sent = {key.encode(): value.encode() if isinstance(value, str) else value for key, value in context.invocation_metadata()}
        caller = Caller(sent, min(self._seconds, context.time_remaining()), gone=lambda: not context.is_active())
        CALLER.set(caller)
        if (watching := tracer()) is not None:
            caller.watch = watching.rpc(path, sent)
        self._calls.under_way(1)
        try:
            self._look()
            caller.check()
            answer = method(body)
            self._calls.called(name, "OK", seconds := time.perf_counter() - begun)
            note_access("gRPC", path, "OK", seconds)
            if caller.watch:
                caller.watch.end("OK", caller.about)
            return answer
        except TidemillError as error:
            code, said = self._codes[status_of(error)], str(error)
        except Exception as error:
            if caller.watch:
                caller.watch.fail(error)
            log.exception("route=%s a request could not be answered", path)
            code, said = self._codes.INTERNAL, "the server failed; its log says why"
        finally:
            self._calls.under_way(-1)
        self._calls.called(name, code.name, seconds := time.perf_counter() - begun)
        note_access("gRPC", path, code.name, seconds)
        if caller.watch:
            caller.watch.end(code.name, caller.about)
        context.abort(code, said.encode()[:MOST_TOLD].decode(errors="ignore"))
        raise AssertionError

    def _beside(self, answers: Callable[[Any, Any], Iterator[bytes]]) -> Callable[[Any, Any], Iterator[bytes]]:
        """In threads for what stays open, of which there may be so many."""

        def stream(asked: Any, context: Any) -> Iterator[bytes]:
            self._open.add(context)
            try:
                if len(self._open) > STREAMS:
                    context.abort(self._codes.RESOURCE_EXHAUSTED, f"{STREAMS} streams are open; close one, or ask without a stream")
                yield from answers(asked, context)
            finally:
                self._open.discard(context)
                self._idle.discard(context)

        stream.experimental_thread_pool = self._streams  # type: ignore[attr-defined]
        return stream

    def _stream(self, bodies: Iterator[bytes], context: Any) -> Iterator[bytes]:
        while True:
            self._idle.add(context)  # before the look whether this ends
            if self._ended.is_set():
                context.abort(self._codes.UNAVAILABLE, "the server ends")
            body = next(bodies, None)
            self._idle.discard(context)
            if body is None:
                return
            yield self._checked(STREAM, self._procedures.stream, body, context)

    def _watch(self, body: bytes, context: Any) -> Iterator[bytes]:
        told = None
        while context.is_active() and not self._ended.is_set():
            answer = self._checked(WATCH, self._procedures.watch, body, context)
            if answer != told:
                yield answer
            told = answer
            self._ended.wait(LOOK_AGAIN)
        yield self._procedures.gone


@contextmanager
def remote(
    inference: Inference,
    host: str,
    port: int | None,
    look: Callable[[], None] = lambda: None,
    calls: Calls | None = None,
    most: int = MOST_UNDER_WAY,
    seconds: float = MOST_SECONDS,
    place: Place | None = None,
) -> Iterator[Beside]:
    """A server that ends with the block at the latest; none where no port is given. `look` is called before each answer, `calls` counts,
    what comes while so many (`most`) are under way is turned away, and what takes longer than so many `seconds` is given up. At a
    `place` among several processes the port is theirs too, and the socket is not."""
    here = place or Place()
    port = port if here.alone else here.grpc
    if port is None:
        yield ALONE
        return
    from tidemill.serving import Procedures

    server = Remote(Procedures(inference), host, port, look, calls or Calls(here.counters), most, seconds=seconds, shared=not here.alone)
    try:
        yield Beside(server.address, server.end)
    finally:
        server.end()
