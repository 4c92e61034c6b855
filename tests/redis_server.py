"""A Redis for tests: the one that TIDEMILL_TEST_REDIS names, or one on this machine; a prefix of its own for each test."""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import Thread
from urllib.parse import urlsplit

import pytest
import redis

ADDRESS = os.environ.get("TIDEMILL_TEST_REDIS", "redis://127.0.0.1:6379/9")


@cache
def _missing() -> str:
    """Why there is no server; empty when there is one."""
    try:
        redis.Redis.from_url(ADDRESS, socket_timeout=5).ping()
    except redis.RedisError as error:
        return str(error)
    return ""


@contextmanager
def new_prefix() -> Iterator[str]:
    """A prefix that nothing has yet; what has it is deleted at the end."""
    missing = _missing()
    if missing:
        assert not os.environ.get("CI"), f"no Redis: {missing}"
        pytest.skip(f"no Redis (TIDEMILL_TEST_REDIS names one): {missing}")
    prefix = f"tidemill-test-{uuid.uuid4().hex[:12]}"
    yield prefix
    names_of(prefix, delete=True)


def names_of(prefix: str, *, delete: bool = False) -> list[bytes]:
    """What a server holds of a prefix."""
    db = redis.Redis.from_url(ADDRESS)
    found = sorted(db.scan_iter(f"{prefix}*", count=1_000))
    if found and delete:
        db.delete(*found)
    return found


class Way:
    """A port of this machine that leads to the server of an address while it is open."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._to = (parts.hostname, parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._is_open, self._ends = True, list[socket.socket]()
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if not self._is_open:
                here.close()
                continue
            there = socket.create_connection(self._to)
            self._ends += [here, there]
            for one, two in ((here, there), (there, here)):
                Thread(target=self._pass, args=(one, two), daemon=True).start()

    def _pass(self, one: socket.socket, two: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(2**16):
                two.sendall(data)
        one.close()
        two.close()

    def close(self) -> None:
        """Let nobody through."""
        self._is_open = False
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Let everybody through again."""
        self._is_open = True

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._listener.close()
