"""A socket of this machine, and an application behind it."""

import asyncio
import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from errno import EADDRINUSE
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill.core import Busy, Refused, StoreError
from tidemill.web.place import GRACE, Place

if TYPE_CHECKING:
    from tidemill.web.turn import Turn
    from tidemill.web.wire import Quick


class Beside(NamedTuple):
    """A server beside that of HTTP: its address, and what ends it, when what is under way is answered."""

    address: str
    end: Callable[[], None]


ALONE = Beside("", lambda: None)
Ready = Callable[[str, str], None]  # told the address, and that of the server beside


@contextmanager
def bound(host: str, port: int, option: str = "--port") -> Iterator[socket.socket]:
    """A listening socket; raises Refused for an address that others can reach, Busy for a port that is taken, StoreError for one
    that the system does not give. `option` names the port on the command line."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise Refused(
            f"without users, the server binds to this machine only, not to {host}", hint="let it be 127.0.0.1 (--host, or serve.host)"
        )
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # with the protocol named, answers leave without delay
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)  # before the address is told: who is quick waits, and is not turned away
    except OSError as error:
        listener.close()
        kind, why = (Busy, "is taken") if error.errno == EADDRINUSE else (StoreError, "cannot be listened to")
        raise kind(f"port {port} {why}: {error.strerror}", where=host, hint=f"choose another: {option} 0 takes a free one") from error
    with listener:
        yield listener


def not_from_here(host: bytes) -> Refused:
    """The error for a request that another name than this machine's led here."""
    what = f"this server answers to this machine only, not as {host.decode('latin-1')[:100]!r} (the header Host)"
    return Refused(what, hint="ask it as 127.0.0.1; let a proxy send that name too (nginx: proxy_set_header Host 127.0.0.1)")


def run_server(
    make: Callable[[str], Any],
    host: str,
    port: int,
    ready: Ready,
    quick: "Callable[[Turn], Quick] | None" = None,
    beside: Callable[[], AbstractContextManager[Beside]] = lambda: nullcontext(ALONE),
    place: Place | None = None,
) -> None:
    """Serve an application, made for its address, until interrupted or asked to end; `ready` is told the address. What `quick` finds goes
    past it. What serves `beside` it begins and ends together with it. At a `place` among several processes the socket is theirs too."""
    import uvicorn
    import uvloop

    from tidemill.web.sharing import Counted, Taker
    from tidemill.web.turn import Turn
    from tidemill.web.wire import Heads, Wire

    here = place or Place()

    class Server(uvicorn.Server):
        """One that ends together with what is served beside it, and leaves connections to the processes beside it."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Begin."""
            await super().startup(sockets if here.alone else [])
            if not here.alone:
                spoken: Any = config.http_protocol_class
                made = partial(spoken, config=config, server_state=self.server_state, app_state=self.lifespan.state)
                self.taker = Taker(listener, made, here.counters)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Answer what is under way."""
            if not here.alone:
                here.counters.begin()  # no more: who ends is not waited for by those that step back
                await self.taker.end()
            for server in self.servers:
                server.close()
            await asyncio.sleep(0)  # until what was taken has somebody who speaks to it
            await asyncio.gather(super().shutdown(sockets), asyncio.to_thread(other.end))

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # what is open is closed: otherwise the process would end where it stands
    with bound(host, port) if here.alone else here.given() as listener:
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        turn = Turn()
        speaks: Any = {"quick": quick(turn) if quick else None, "heads": Heads(), "turn": turn}
        config = uvicorn.Config(
            make(url),
            http=partial(Wire, **speaks) if here.alone else partial(Counted, counters=here.counters, **speaks),  # type: ignore[arg-type]
            ws="none",
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,  # how a request came is not for the client to say
            server_header=False,
            log_config=None,  # its lines are among our own
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE,
        )
        with beside() as other:
            gc.freeze()  # what is there stays: to look through it again and again for garbage would hold answers up
            if here.tells:
                ready(url, other.address)
            here.ready()
            uvloop.run(Server(config).serve(sockets=[listener]))
