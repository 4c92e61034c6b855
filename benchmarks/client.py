"""The native client: what a log call costs the training, how fast the ledger takes points in, and what a server that is away changes.

    python benchmarks/client.py                          # ours alone
    python benchmarks/client.py --peer ENV/bin/python    # beside MLflow's client, of an environment that has it, logging to our server

One process logs to a project, one to a server, one to a server that is not there. `µs/call` is the time of one `log_metric` in the
training's thread: the median, less what reading the clock costs, and the 99.99th percentile. The bound is a bare `os.write` of 32
bytes to a file. `points/s` is from the first call until the last point can be read through get-history. `noise` is a pure spin: 1.0 is
a free core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WRITE = """
import json, os, sys, time
clock, times = time.perf_counter_ns, []
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range(200_000):
    a = clock(); os.write(handle, b"x" * 32); times.append(clock() - a)
times.sort()
print(json.dumps({"call": times[len(times) // 2], "tail": times[int(len(times) * 0.9999)]}))
"""
OURS = """
import json, sys, time, tidemill
to, calls = sys.argv[1], int(sys.argv[2])
a = time.perf_counter()
run = tidemill.run("bench", to=to, captured=False, system_metrics=0, wait=600)
start = time.perf_counter() - a
clock, times, began = time.perf_counter_ns, [], time.perf_counter()
empty = sorted(-(clock() - clock()) for _ in range(10_000))[5_000]
for i in range(calls):
    a = clock(); run.log_metric("loss", 0.5, i); times.append(clock() - a)
logged = time.perf_counter() - began
run.end()
whole = time.perf_counter() - began
times.sort()
found = {"call": times[len(times) // 2] - empty, "tail": times[int(len(times) * 0.9999)], "start": start}
print(json.dumps(found | {"id": run.id, "worst": times[-1], "logged": logged, "whole": whole}))
"""
THEIRS = """
import json, sys, time, mlflow
mlflow.set_tracking_uri(sys.argv[1])
calls, synchronous = int(sys.argv[2]), sys.argv[3] == "waiting"
run = mlflow.start_run(log_system_metrics=False)
clock, times, began = time.perf_counter_ns, [], time.perf_counter()
for i in range(calls):
    a = clock(); mlflow.log_metric("loss", 0.5, step=i, synchronous=synchronous); times.append(clock() - a)
if not synchronous:
    mlflow.flush_async_logging()
whole = time.perf_counter() - began
times.sort()
print(json.dumps({"call": times[len(times) // 2], "tail": times[int(len(times) * 0.9999)], "whole": whole, "calls": calls}))
"""


def spin() -> float:
    """Wall time of a pure spin for its CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.5:
        pass
    return (time.perf_counter() - wall) / 0.5


def told(python: str, code: str, *arguments: object, spool: Path) -> dict[str, Any]:
    """What a process measured of itself."""
    environment = {**os.environ, "XDG_STATE_HOME": str(spool)}
    call = [python, "-c", code, *map(str, arguments)]
    text = subprocess.run(call, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return dict(json.loads(next(line for line in text.splitlines() if line.startswith("{"))))


def serve(home: Path) -> tuple[subprocess.Popen[str], str]:
    """A tracking server and its address."""
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", "server", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split(": ")[-1].strip()


def show(name: str, found: dict[str, Any], calls: int) -> None:
    rate = f"{calls / found['whole']:12,.0f}" if "whole" in found else " " * 12
    print(f"{name:44}{found['call'] / 1e3:12.2f}{found['tail'] / 1e3:14.1f}{rate}")


def main() -> None:
    """Run them one after the other, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--peer", default="", help="a Python with mlflow")
    options.add_argument("--calls", type=int, default=1_000_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"noise {spin():.2f}\n{'':44}{'µs/call':>12}{'99.99 %, µs':>14}{'points/s':>12}")
        show("os.write of 32 bytes (the bound)", told(sys.executable, WRITE, folder / "bare", spool=folder), 200_000)
        found = told(sys.executable, OURS, folder / "embedded", given.calls, spool=folder)
        show("tidemill, to a project", found, given.calls)
        found = told(sys.executable, OURS, "http://127.0.0.1:9", given.calls, spool=folder / "a")
        show("tidemill, to a server that is away", {"call": found["call"], "tail": found["tail"]}, given.calls)
        server, url = serve(folder / "home")
        try:
            show("tidemill, to a server", told(sys.executable, OURS, url, given.calls, spool=folder / "b"), given.calls)
            if given.peer:
                for kind, calls in (("waiting", 2_000), ("in the background", 20_000)):
                    show(f"mlflow's client, to our server, {kind}", told(given.peer, THEIRS, url, calls, kind, spool=folder), calls)
        finally:
            server.terminate()
            server.wait()
        print(f"noise {spin():.2f}")


if __name__ == "__main__":
    main()
