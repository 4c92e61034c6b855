"""One process against several at one port: inference requests for one row of a bare model over 16 connections, in a closed loop.

Asked in turns; CPU is that of all processes of the server. The client takes a core too: with two cores there is nothing to win but where
a model takes longer than its client.

    .venv/bin/python benchmarks/workers.py [REQUESTS [WORKERS]]
"""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from measure import BIN, compared, heading, say_where
from measure.server import serving

from serving import asked, cpu, models, request

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
WORKERS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
CONNECTIONS, RUNS = 16, 5


def main() -> None:
    """Compare."""
    say_where("onnxruntime", "uvicorn", "uvloop")
    with tempfile.TemporaryDirectory() as scratch:
        rows = models(Path(scratch))
        for name in ("lr", "rf"):
            file, bodies = str(Path(scratch) / f"{name}.onnx"), [request(name, rows[i : i + 1], raw=False) for i in range(64)]
            found = {many: dict[str, list[float]](CPU=[], rate=[]) for many in (1, WORKERS)}
            with ExitStack() as stack:
                call = [str(BIN / "tidemill"), "serve", file, "--port", "0", "--json"]
                servers = {many: stack.enter_context(serving([*call, "--workers", str(many)])) for many in found}
                for port, _ in servers.values():
                    uvloop.run(asked(port, bodies, 2_000, CONNECTIONS))
                for _ in range(RUNS):
                    for many, (port, process) in servers.items():
                        before, began = cpu(process), time.perf_counter()
                        uvloop.run(asked(port, bodies, REQUESTS, CONNECTIONS))
                        found[many]["rate"].append(REQUESTS / (time.perf_counter() - began))
                        found[many]["CPU"].append((cpu(process) - before) / REQUESTS)
            heading(f"{name}: {WORKERS} processes, beside one")
            compared("CPU of a request", found[WORKERS]["CPU"], found[1]["CPU"])
            compared("requests/s", found[WORKERS]["rate"], found[1]["rate"], "1/s")


if __name__ == "__main__":
    main()
