"""MLflow's own client against our server, and against one that answers from a table: what is left is the client and the wire.

    python benchmarks/floor.py --client ENV/bin/python          # a Python with mlflow; `make test` makes .venv-mlflow

Wall time of one call in milliseconds, the median of `--calls`; the two servers take turns call by call, so noise meets both. The floor
does nothing: it reads a request and writes what ours answers to such a call.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENT = """
import json, os, sys, time
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient
ours, floor, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
both = {"ours": MlflowClient(ours), "floor": MlflowClient(floor)}
run = {name: client.create_run("0").info.run_id for name, client in both.items()}
acts = {
    "create_run": lambda client, run, i: client.create_run("0"),
    "log_metric": lambda client, run, i: client.log_metric(run, "m", 0.5, step=i),
    "log_param": lambda client, run, i: client.log_param(run, f"p{i}", i),
    "set_tag": lambda client, run, i: client.set_tag(run, f"t{i % 7}", str(i)),
}
found = {}
for name, act in acts.items():
    times = {who: [] for who in both}
    for i in range(calls):
        for who, client in both.items():
            start = time.perf_counter()
            act(client, run[who], i)
            times[who].append(time.perf_counter() - start)
    found[name] = {who: sorted(values)[len(values) // 2] * 1e3 for who, values in times.items()}
print(json.dumps(found))
"""
RUN = {
    "run_id": "0" * 32,
    "run_uuid": "0" * 32,
    "run_name": "r",
    "experiment_id": "0",
    "user_id": "u",
    "status": "RUNNING",
    "start_time": 1,
}
RUN |= {"artifact_uri": "mlflow-artifacts:/0/0/artifacts", "lifecycle_stage": "active"}
CREATED = json.dumps({"run": {"info": RUN, "data": {"tags": [{"key": "mlflow.runName", "value": "r"}]}, "inputs": {}}}).encode()


class Floor(asyncio.Protocol):
    """Answers a request once its body is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, there, body = self.data.partition(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if there and len(body) >= size:
            self.data = b""
            text = CREATED if b"runs/create" in head else b"3.3.2" if b"/version" in head else b"{}"
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
            self.transport.write(head + text)  # type: ignore[attr-defined]


async def floor() -> None:
    """Serve on a free port, which is printed."""
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def started(*call: str) -> tuple[subprocess.Popen[str], str]:
    """A server, and the last word of its first line: its address."""
    process = subprocess.Popen([sys.executable, *call], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--client", default=str(Path(__file__).parents[1] / ".venv-mlflow" / "bin" / "python"))
    options.add_argument("--calls", type=int, default=500)
    given = options.parse_args()
    if not Path(given.client).exists():
        print(f"{given.client} is not there: `make test` makes it, or name a Python with mlflow by --client")
        return
    with tempfile.TemporaryDirectory() as home:
        serve = "from tidemill.cli import main; main()"
        servers = [started("-c", serve, "server", "--home", home, "--port", "0"), started(__file__, "floor")]
        try:
            call = [given.client, "-c", CLIENT, *(url for _, url in servers), str(given.calls)]
            text = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": ""}).stdout
        finally:
            for process, _ in servers:
                process.terminate()
                process.wait()
    print(f"{'':14}{'ours, ms':>10}{'floor, ms':>11}{'ours ÷ floor':>14}")
    for name, one in json.loads(text.splitlines()[-1]).items():
        print(f"{name:14}{one['ours']:10.2f}{one['floor']:11.2f}{one['ours'] / one['floor']:14.2f}")


if __name__ == "__main__":
    asyncio.run(floor()) if sys.argv[1:] == ["floor"] else main()
