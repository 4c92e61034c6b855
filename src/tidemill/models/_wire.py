"""What the gateway and the process of an isolated model say to each other: lengths first, then JSON once, then arrays. No pickle.

A greeting is its length (u32) and JSON, then the parts that it names, each as long as it says; a question is rows, columns and block, then
the numbers row by row; a reply is whether it went well, its length, and numbers or a text.
"""

import socket
import struct
import time
from collections.abc import Callable

QUESTION = struct.Struct("<III")
REPLY = struct.Struct("<?Q")
GREETING = struct.Struct("<I")
ALWAYS = float("inf")


def left_until(end: float) -> Callable[[], float | None]:
    """The seconds that are left until a time of the monotonic clock, None where there is none. Raises TimeoutError when none are."""

    def left() -> float | None:
        if end == ALWAYS:
            return None
        seconds = end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("no answer in time")
        return seconds

    return left


def send(line: socket.socket, *parts: bytes | memoryview, end: float = ALWAYS) -> None:
    """Send parts, one after the other. Raises TimeoutError and OSError."""
    left = left_until(end)
    for part in parts:
        line.settimeout(left())
        line.sendall(part)


def receive(line: socket.socket, size: int, *, end: float = ALWAYS) -> bytearray:
    """So many bytes. Raises TimeoutError, OSError, and EOFError where the other side has gone."""
    found, place, left = bytearray(size), 0, left_until(end)
    view = memoryview(found)
    while place < size:
        line.settimeout(left())
        got = line.recv_into(view[place:])
        if not got:
            raise EOFError("the other side has gone")
        place += got
    return found
