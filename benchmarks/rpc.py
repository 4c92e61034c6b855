"""Inference requests to a bare model over gRPC, beside a method of grpcio written by hand that does nothing else (`measure/bound.py`).

A logistic regression over 30 columns, asked in turns by a closed loop of calls over one channel, raw tensors both ways; CPU is that of the
server's process.

    .venv/bin/python benchmarks/rpc.py [REQUESTS]
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from threading import Event, Lock
from typing import Any

import grpc
import numpy as np
from measure import BIN, ROOT, compared, heading, say_where
from measure.server import serving

from serving import cpu, models
from tidemill.serving.messages import MESSAGES

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
RUNS = 5


def asked(call: Any, bodies: Sequence[bytes], count: int, at_once: int) -> list[float]:
    """Ask so many times, so many at once; seconds of each."""
    left, open_, done, lock, times = iter(zip(range(count), cycle(bodies))), [at_once], Event(), Lock(), list[float]()

    def ask(before: Any = None, began: float = 0.0) -> None:
        if before is not None:
            before.result()
            times.append(time.perf_counter() - began)
        with lock:
            one = next(left, None)
            open_[0] -= one is None
        if one is not None:
            now = time.perf_counter()
            call.future(one[1]).add_done_callback(lambda future: ask(future, now))
        elif not open_[0]:
            done.set()

    for _ in range(at_once):
        ask()
    done.wait()
    return times


def measured(commands: Sequence[Sequence[str]], asks: dict[str, tuple[Sequence[bytes], int]]) -> list[dict[str, dict[str, list[float]]]]:
    """Of each server, asked in turns, by what is asked: CPU of a request, the 99th percentile, requests a second; and its memory."""
    found: list[dict[str, dict[str, list[float]]]] = [{name: {"CPU": [], "p99": [], "requests/s": []} for name in asks} for _ in commands]
    with ExitStack() as stack:
        servers = []
        for command in commands:
            port, process = stack.enter_context(serving(command, "grpc"))
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            servers.append((channel.unary_unary("/inference.GRPCInferenceService/ModelInfer"), process))
        for run in range(-1, RUNS):  # the first is to warm up
            for name, (bodies, at_once) in asks.items():
                for figures, (call, process) in zip(found, servers, strict=True):
                    before, began = cpu(process), time.perf_counter()
                    times = asked(call, bodies, REQUESTS, at_once)
                    if run >= 0:
                        figures[name]["CPU"].append((cpu(process) - before) / REQUESTS)
                        figures[name]["p99"].append(float(np.percentile(times, 99)))
                        figures[name]["requests/s"].append(REQUESTS / (time.perf_counter() - began))
        for figures, (_, process) in zip(found, servers, strict=True):
            figures[""] = {"memory": [process.memory_full_info().pss / 2**20]}
    return found


def request(rows: Any) -> bytes:
    """An inference request of rows as raw floats."""
    tensor = {"name": "X", "datatype": "FP32", "shape": rows.shape}
    asks = MESSAGES["ModelInferRequest"](model_name="lr", inputs=[tensor], raw_input_contents=[rows.astype("<f4").tobytes()])
    return asks.SerializeToString()  # type: ignore[no-any-return]


def main() -> None:
    """Compare with the bound."""
    say_where("grpcio", "onnxruntime", "protobuf")
    with tempfile.TemporaryDirectory() as scratch:
        rows, file = models(Path(scratch)), str(Path(scratch) / "lr.onnx")
        single, hundred = [request(rows[i : i + 1]) for i in range(64)], [request(rows[i : i + 100]) for i in range(0, 400, 100)]
        asks = {f"one row, {n} at once": (single, n) for n in (1, 16, 64)} | {"100 rows, 16 at once": (hundred, 16)}
        by_hand = [sys.executable, str(ROOT / "benchmarks" / "measure" / "bound.py"), "grpc", file]
        ours, bound = measured([[str(BIN / "tidemill"), "serve", file, "--port", "0", "--grpc-port", "0", "--json"], by_hand], asks)
        heading("bound: grpc")
        for what, figures in ours.items():
            for figure, values in figures.items():
                compared(f"{what or 'lr'}, {figure}", values, bound[what][figure], {"requests/s": "1/s", "memory": "MiB"}.get(figure, ""))
    print(f"\n{REQUESTS:,} requests; {RUNS} runs: median (lowest–highest); CPU of the server's process")


if __name__ == "__main__":
    main()
