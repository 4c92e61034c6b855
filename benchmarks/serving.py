"""Inference requests to a bare model, beside two servers written by hand that do nothing else (`measure/bound.py`), in one run.

The same ONNX files for all three: standard scaling with a logistic regression, a forest of 100 trees, gradient boosting; 30 columns of
numbers. A closed loop over keep-alive connections asks from this process; CPU and memory are of its process and its children.
Ours is asked with its log of requests and without; its checks are always on.

    .venv/bin/python benchmarks/serving.py [REQUESTS] [--model lr|rf|hgb] [--peer NAME=PYTHON]…

NAME is mlserver, litserve, bentoml or mlflow, PYTHON an interpreter that has it (mlserver-sklearn; litserve or bentoml with onnxruntime;
mlflow with scikit-learn). A peer gets a twentieth of the requests (`measure/peer.py`).
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
from measure import BIN, ROOT, compared, heading, say_where
from measure.server import serving

RUNS = 5
PEER = ROOT / "benchmarks" / "measure" / "peer.py"
BOUND = ROOT / "benchmarks" / "measure" / "bound.py"
HEAD = "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:1\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n{more}\r\n"


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, load: "Load") -> None:
        self.load, self.got, self.needed = load, b"", 0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the next request, if there is one left."""
        request = self.load.next()
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self.got += data
        if not self.needed:
            head = self.got.find(b"\r\n\r\n")
            if head < 0:
                return
            if not self.got.startswith(b"HTTP/1.1 200"):
                raise SystemExit(self.got.decode("latin-1"))
            place = self.got[:head].lower().index(b"\r\ncontent-length: ") + 18
            self.needed = head + 4 + int(self.got[place : self.got.index(b"\r\n", place)])
        if len(self.got) >= self.needed:
            self.load.times.append(time.perf_counter() - self.began)
            self.got, self.needed = b"", 0
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        """The end of this connection."""
        self.load.over(error)


class Load:
    """So many requests over so many connections."""

    def __init__(self, requests: Sequence[bytes], count: int, connections: int) -> None:
        self.requests, self.left, self.open = requests, count, connections
        self.times: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def next(self) -> bytes | None:
        """The next request."""
        self.left -= 1
        return self.requests[self.left % len(self.requests)] if self.left >= 0 else None

    def over(self, error: Exception | None) -> None:
        """A connection ended."""
        self.open -= 1
        if (error or not self.open) and not self.done.done():
            self.done.set_result(None)


async def asked(port: int, requests: Sequence[bytes], count: int, connections: int) -> list[float]:
    """Seconds of each request."""
    load, loop = Load(requests, count, connections), asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(load), "127.0.0.1", port)
    await load.done
    return load.times


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and its children so far; where the system tells them, in nanoseconds and not in ticks."""
    return sum(_of_threads(one) or sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def _of_threads(process: psutil.Process) -> float:
    """What Linux says of the threads of a process that live."""
    return sum(int(one.read_text().split()[0]) for one in Path(f"/proc/{process.pid}/task").glob("*/schedstat")) / 1e9


@contextmanager
def peer(name: str, python: str, model: str, file: str) -> Iterator[tuple[int, psutil.Process]]:
    """The port of another server when it answers, and its process."""
    port = free_ports()
    command, quiet = [python, str(PEER), name, model, file, str(port)], subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not _answers(port, "/v2/health/ready" if name == "mlserver" else "/"):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.05)
        yield port, psutil.Process(process.pid)
    finally:
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(process.pid).children(recursive=True):  # those of BentoML have a group of their own
                worker.kill()
        process.kill()
        process.wait()


def free_ports(many: int = 3) -> int:
    """The first of so many free ports, below those that a system gives away: MLServer takes the two behind its own."""
    for first in random.sample(range(20_000, 30_000, many), 100):
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + many):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise SystemExit("there are no free ports")


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            return b" 50" not in connection.recv(100)[:12]
    except OSError:
        return False


Asks = Mapping[str, tuple[Sequence[bytes], int, int]]
Figures = dict[str, dict[str, list[float]]]


@contextmanager
def on_core(place: int) -> Iterator[None]:
    """Stay on one core, as do processes that are begun meanwhile, where the system can tell them to."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if cores:
        os.sched_setaffinity(0, {cores[place % len(cores)]})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def measured(servers: Mapping[str, tuple[Callable[[], Any], Asks]]) -> dict[str, Figures]:
    """By server and by what it is asked: CPU of a request, its percentiles, and requests a second; and its start and its memory. Each run
    starts all servers anew, since one process is quicker than the next of the same program (where its memory lies), and asks them in turns,
    since a machine is not always as fast; they are on one core, who asks on another."""
    found: dict[str, Figures] = {}
    for name, (_, asks) in servers.items():
        found[name] = {what: {"CPU": [], "p50": [], "p99": [], "requests/s": []} for what in asks} | {"": {"start": [], "memory": []}}
    for _ in range(RUNS):
        with ExitStack() as last:
            open_: dict[str, tuple[int, psutil.Process]] = {}
            for name, (server, _) in servers.items():
                began = time.perf_counter()
                with on_core(0):
                    open_[name] = last.enter_context(server())
                found[name][""]["start"].append(time.perf_counter() - began)
            last.enter_context(on_core(1))
            for warm in (True, False):
                for name, (_, asks) in servers.items():
                    port, process = open_[name]
                    for what, (requests, count, connections) in asks.items():
                        count = min(count, 200) if warm else count
                        before, began = cpu(process), time.perf_counter()
                        times = uvloop.run(asked(port, requests, count, connections))
                        figures = {"CPU": (cpu(process) - before) / count, "requests/s": count / (time.perf_counter() - began)}
                        figures |= {f"p{q}": float(np.percentile(times, q)) for q in (50, 99)}
                        for figure, value in () if warm else figures.items():
                            found[name][what][figure].append(value)
            for name, (_, process) in open_.items():
                every = [process, *process.children(recursive=True)]
                found[name][""]["memory"].append(sum(one.memory_full_info().pss for one in every) / 2**20)
    return found


def models(folder: Path) -> Any:
    """Write the ONNX files; returns the rows that are asked about."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, label = load_breast_cancer(return_X_y=True)
    for name, model in {
        "lr": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "rf": RandomForestClassifier(n_estimators=100, random_state=0),
        "hgb": HistGradientBoostingClassifier(random_state=0),
    }.items():
        made = to_onnx(model.fit(rows, label), rows[:1].astype(np.float32), options={"zipmap": False})
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
    return rows


def request(name: str, rows: Any, *, raw: bool) -> bytes:
    """An inference request of rows, as JSON or as raw floats."""
    tensor: dict[str, Any] = {"name": "X", "shape": list(rows.shape), "datatype": "FP32"}
    path, more = f"/v2/models/{name}/infer", rows.astype("<f4").tobytes() if raw else b""
    tensor |= {"parameters": {"binary_data_size": len(more)}} if raw else {"data": rows.ravel().tolist()}
    head = json.dumps({"inputs": [tensor], **({"parameters": {"binary_data_output": True}} if raw else {})}).encode()
    length = f"inference-header-content-length: {len(head)}\r\n" if raw else ""
    return HEAD.format(path=path, size=len(head + more), more=length).encode() + head + more


def plain(name: str, rows: Any) -> bytes:
    """A request for labels of rows as a peer has it."""
    if name == "mlserver":
        return request("lr", rows, raw=False)
    body = json.dumps({"inputs" if name == "mlflow" else "x": rows.tolist()}).encode()
    return HEAD.format(path="/invocations" if name == "mlflow" else "/predict", size=len(body), more="").encode() + body


def tell(title: str, name: str, ours: Figures, reference: Figures) -> None:
    """A table beside a reference."""
    heading(title)
    for what, figures in ours.items():
        for figure, values in figures.items():
            if what in reference:
                unit = {"requests/s": "1/s", "memory": "MiB"}.get(figure, "")
                compared(f"{what or name}, {figure}", values, reference[what][figure], unit)


def main() -> None:
    """Compare with both bounds, and with peers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=int, nargs="?", default=10_000)
    parser.add_argument("--model", choices=["lr", "rf", "hgb"], action="append")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    given = parser.parse_args()
    say_where("onnxruntime", "uvicorn", "httptools", "msgspec")
    with tempfile.TemporaryDirectory() as scratch:
        rows = models(Path(scratch))
        for name in given.model or ("lr", "rf", "hgb"):
            file, single = str(Path(scratch) / f"{name}.onnx"), [request(name, rows[i : i + 1], raw=False) for i in range(64)]
            asks = {f"{name}, one row, {n} at once": (single, given.requests, n) for n in (1, 16, 64)}
            logged = dict(asks)
            for raw in (False, True):
                hundred = [request(name, rows[i : i + 100], raw=raw) for i in range(0, 400, 100)]
                asks[f"{name}, 100 rows, {'raw' if raw else 'JSON'}"] = (hundred, given.requests // 5, 1)
            command = [str(BIN / "tidemill"), "serve", file, "--port", "0", "--json"]
            servers: dict[str, tuple[Callable[[], Any], Asks]] = {
                "ours": (partial(serving, command), asks),
                "our log on": (partial(serving, [*command, "--log", f"{scratch}/log"]), logged),
            }
            servers |= {kind: (partial(serving, [sys.executable, str(BOUND), kind, file]), asks) for kind in ("raw", "uvicorn")}
            for one, python in (text.split("=", 1) for text in given.peer):
                theirs = [plain(one, rows[i : i + 1]).replace(b"/models/lr/", f"/models/{name}/".encode()) for i in range(64)]
                few: Asks = {what: (theirs, max(given.requests // 20, 50), n) for what, (_, _, n) in logged.items()}
                servers[one] = (partial(peer, one, python, name, file), few)
            found = measured(servers)
            for kind in ("raw", "uvicorn"):
                tell(f"bound: {kind}", name, found["ours"], found[kind])
                tell(f"bound: {kind}, our log on", name, found["our log on"], found[kind])
            tell("ours without the log, beside it on", name, found["our log on"], found["ours"])
            for one in [*servers][4:]:
                tell(f"{one}, our log on", name, found["our log on"], found[one])
    print(f"\n{given.requests:,} requests, of 100 rows a fifth; {RUNS} runs: median (lowest–highest); CPU of the server's process")


if __name__ == "__main__":
    main()
