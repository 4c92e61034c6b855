"""Single-row requests by entity key over loopback HTTP, beside a bare uvicorn + starlette route as the bound.

One client with one open connection asks one request after the other, so that a time is the server's and not that of a queue. CPU is
that of the server process alone. The project is a copy of `examples/flights` with its finished replay (`make demo` makes it).

    .venv/bin/python benchmarks/gateway.py [REQUESTS]
"""

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from measure import BIN, ROOT, compared, heading, say_where

import tidemill as tm

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 500
RUNS = 3
FLIGHTS = ROOT / "examples" / "flights"
HELLO = """
import socket, uvicorn, uvloop
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def hello(request):
    await request.body()
    return Response(b'{"hello": "world"}', media_type="application/json")

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle on: 40 ms
listener.bind(("127.0.0.1", 0))
print(f'{{"url": "http://127.0.0.1:{listener.getsockname()[1]}"}}', flush=True)
app = Starlette(routes=[Route("/hello", hello, methods=["POST"])])
uvloop.run(uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")).serve([listener]))
"""


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server that says its URL as JSON; ended when the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if text.count("{") and text.count("{") == text.count("}"):
                break
        yield json.loads(text)["url"].removeprefix("http://"), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(address: str, process: psutil.Process, path: str, bodies: Sequence[bytes]) -> tuple[list[float], float]:
    """Seconds of each request, and CPU seconds of the server for each."""
    connection = http.client.HTTPConnection(address, timeout=10)
    for _ in range(100):  # until it answers
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    for body in bodies[:100]:
        _ask(connection, path, body)
    before, found = process.cpu_times(), []
    for body in bodies:
        started = time.perf_counter()
        _ask(connection, path, body)
        found.append(time.perf_counter() - started)
    after = process.cpu_times()
    connection.close()
    return found, (after.user + after.system - before.user - before.system) / len(bodies)


def _ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", path, body)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {said.decode()}")


def bodies_of(folder: Path) -> dict[str, list[bytes]]:
    """Requests by key: at their own time (offline path), and at the end of the replay (online store)."""
    session = tm.open(folder)
    endpoint = session.deployments["late"].endpoint()
    rows = np.random.default_rng(1).integers(0, len(endpoint.requests), REQUESTS)
    keys = [key.decode() for key in endpoint.requests.keys[rows].tolist()]
    times = (np.datetime64(0, "us") + endpoint.requests.at[rows]).astype("datetime64[s]").astype(str).tolist()
    end = session.status()["deployments"][0]["branch"]["now"]
    session.close()
    online = [{"rows": [{"flight_id": key}], "at": end} for key in keys]
    offline = [{"rows": [{"flight_id": key}], "at": f"{at}Z"} for key, at in zip(keys, times, strict=True)]
    return {"online": [json.dumps(one).encode() for one in online], "offline": [json.dumps(one).encode() for one in offline]}


def measured(command: Sequence[str], asked: dict[str, tuple[str, list[bytes]]]) -> dict[str, dict[str, list[float]]]:
    """p50, p99 and CPU of several runs of each kind of request at one server."""
    found: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": [], "CPU": []} for name in asked}
    with serving(command) as (address, process):
        for _ in range(RUNS):
            for name, (path, bodies) in asked.items():
                times, cpu = ask(address, process, path, bodies)
                for figure, value in (("p50", np.percentile(times, 50)), ("p99", np.percentile(times, 99)), ("CPU", cpu)):
                    found[name][figure].append(float(value))
    return found


def main() -> None:
    """Compare each path with the bound."""
    if not (FLIGHTS / ".tidemill" / "records.db").exists():
        raise SystemExit("there is no finished replay: run `make demo` first")
    say_where("starlette", "uvicorn", "onnxruntime", "lmdb")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "flights"
        shutil.copytree(FLIGHTS, folder)
        bodies = bodies_of(folder)
        ours = measured(
            [str(BIN / "tidemill"), "-C", str(folder), "up", "--port", "0", "--json"],
            {name: ("/predict/late", each) for name, each in bodies.items()},
        )
    bound = measured([sys.executable, "-c", HELLO], {"hello": ("/hello", bodies["online"])})["hello"]
    heading("bare route")
    for name, figures in ours.items():
        for figure, values in figures.items():
            compared(f"one row by key, {name}, {figure}", values, bound[figure])
    print(f"\n{REQUESTS:,} requests one after the other, {RUNS} runs: median (lowest–highest); CPU of the server process")


if __name__ == "__main__":
    main()
