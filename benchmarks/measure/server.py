"""What the benchmarks over HTTP share: a server in a process of its own, and clients that keep their connections open."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

import psutil


class Load(NamedTuple):
    """What some requests cost: CPU seconds of the server for each, how many were answered in a second, and the seconds of each."""

    cpu: float
    rate: float
    times: list[float]


@contextmanager
def serving(command: Sequence[str], address: str = "url") -> Iterator[tuple[int, psutil.Process]]:
    """The port of a server that says its address as JSON, and its process; ended when the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if text.count("{") and text.count("{") == text.count("}"):
                break
        yield int(json.loads(text)[address].rpartition(":")[2]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def load(port: int, process: psutil.Process, path: str, bodies: Sequence[bytes], seconds: float, connections: int) -> Load:
    """Post bodies for a time over several connections, each of which waits for its answer. Raises SystemExit for an answer but 200."""

    def client(number: int) -> list[float]:
        times = []
        with _connected(port) as connection:
            for body in cycle([*bodies[number:], *bodies[:number]]):
                started = time.perf_counter()
                _ask(connection, path, body)
                times.append(time.perf_counter() - started)
                if started > end:
                    return times
        raise AssertionError

    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    end = began + seconds
    with ThreadPoolExecutor(connections) as pool:
        times = [one for several in pool.map(client, range(connections)) for one in several]
    return Load((sum(process.cpu_times()[:2]) - before) / len(times), len(times) / (time.perf_counter() - began), times)


def _connected(port: int) -> socket.socket:
    for _ in range(100):  # until it answers
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            time.sleep(0.1)
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise SystemExit(f"nobody answers at port {port}")


def _ask(connection: socket.socket, path: str, body: bytes) -> None:
    connection.sendall(b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1 << 16)
    head, _, content = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])  # type: ignore[index]
    while len(content) < length:
        content += connection.recv(1 << 16)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{path}: {head.decode()} {content.decode()}")
