"""The tracking server beside MLflow's own, on the same requests: CPU of the server for each call, start, memory.

    python benchmarks/tracking.py                                # ours alone
    python benchmarks/tracking.py --peer ENV/bin/mlflow          # beside an MLflow that is installed in an environment of its own
    python benchmarks/tracking.py --runs 10000 --peer …          # searches over so many runs (the peer needs 26 ms of CPU for each)
    python benchmarks/tracking.py --records postgresql://…       # ours over PostgreSQL, in a schema that is not there yet

Both servers write to SQLite on the same disk and sync each commit; the peer runs one worker, its better setting for single calls. Requests
are raw HTTP on one kept-alive connection, so no client's own work is counted. `noise` is a pure spin: 1.0 is a free core.
Leave five minutes between two runs: ext4 looks at each file that was deleted lately before it makes one, which can double an upload's work.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

API = "/api/2.0/mlflow"
T0 = 1_700_000_000_000


@dataclass
class Server:
    """A running server and what was measured of it: section → (CPU ms, wall ms) a call."""

    name: str
    port: int
    process: psutil.Process
    start: float
    found: dict[str, tuple[float, float]] = field(default_factory=dict)
    connection: http.client.HTTPConnection | None = None

    def tree(self) -> list[psutil.Process]:
        """Its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.tree())

    def memory(self) -> float:
        """PSS in MiB."""
        return float(sum(one.memory_full_info().pss for one in self.tree()) / 2**20)

    def ask(self, method: str, path: str, body: Any = None, data: bytes | None = None) -> Any:
        """One request on the kept-alive connection."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = data if data is not None else None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data is None else {"content-type": "application/octet-stream"}
        self.connection.request(method, path, sent, headers)
        answer = self.connection.getresponse()
        found = answer.read()
        assert answer.status == 200, (self.name, method, path, answer.status, found[:300])
        return json.loads(found) if answer.getheader("content-type", "").startswith("application/json") else found

    def timed(self, section: str, act: Callable[[int], Any], calls: int, each: int = 1) -> None:
        """Make calls; `each` is what one call is worth."""
        act(-1)
        cpu, wall = self.cpu(), time.perf_counter()
        for i in range(calls):
            act(i)
        n = calls * each
        self.found[section] = ((self.cpu() - cpu) / n * 1e3, (time.perf_counter() - wall) / n * 1e3)


def spin() -> float:
    """Wall time of a pure spin for its CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.1:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - cpu)


@contextmanager
def running(name: str, call: list[str]) -> Iterator[Server]:
    """A server until the block ends; `{port}` in its arguments is a free one."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen([part.replace("{port}", str(port)) for part in call], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(name, port, psutil.Process(process.pid), 0.0)
    try:
        while time.perf_counter() - began < 180 and process.poll() is None:
            try:
                server.ask("POST", f"{API}/experiments/search", {"max_results": 1})
                break
            except OSError:
                server.connection = None
                time.sleep(0.01)
        server.start = time.perf_counter() - began
        yield server
    finally:
        for one in server.tree():
            one.kill()
        process.wait()


def new_run(server: Server, experiment: str) -> str:
    """The id of a new run."""
    return str(server.ask("POST", f"{API}/runs/create", {"experiment_id": experiment, "start_time": T0})["run"]["info"]["run_id"])


def experiment(server: Server, name: str) -> str:
    """The id of a new experiment."""
    return str(server.ask("POST", f"{API}/experiments/create", {"name": name})["experiment_id"])


def calls(server: Server) -> None:
    """Single calls and batches."""
    own = experiment(server, "calls")
    run = new_run(server, own)
    point = {"run_id": run, "run_uuid": run, "key": "loss", "value": 0.5}
    server.timed("create_run", lambda i: new_run(server, own), 500)
    server.timed("log_metric", lambda i: server.ask("POST", f"{API}/runs/log-metric", {**point, "timestamp": T0 + i, "step": i + 1}), 500)
    server.timed("log_param", lambda i: server.ask("POST", f"{API}/runs/log-parameter", {"run_id": run, "key": f"p{i}", "value": "v"}), 200)
    server.timed("set_tag", lambda i: server.ask("POST", f"{API}/runs/set-tag", {"run_id": run, "key": "t", "value": str(i)}), 200)

    def batch(i: int) -> None:
        found = [{"key": f"m{j % 10}", "value": j * 0.1, "timestamp": T0 + i, "step": i * 100 + j // 10} for j in range(1000)]
        server.ask("POST", f"{API}/runs/log-batch", {"run_id": run, "metrics": found})

    server.timed("log_batch, 1000 metrics", batch, 15)


def history(server: Server) -> None:
    """A curve of 100,000 points, written and read back."""
    run = new_run(server, experiment(server, "history"))

    def write(i: int) -> None:
        found = [{"key": "m", "value": j * 0.1, "timestamp": T0 + j, "step": j} for j in range(i * 1000, i * 1000 + 1000)]
        server.ask("POST", f"{API}/runs/log-batch", {"run_id": run, "metrics": found})

    for i in range(100):
        write(i)

    def read(_: int) -> None:
        token, points = "", 0
        while True:
            query = f"run_id={run}&metric_key=m&max_results=25000" + (f"&page_token={token}" if token else "")
            found = server.ask("GET", f"{API}/metrics/get-history?{query}")
            points += len(found["metrics"])
            token = found.get("next_page_token", "")
            if not token:
                break
        assert points == 100_000, points

    server.timed("history of 100,000 points", read, 3)


def search(server: Server, runs: int) -> None:
    """Searches over runs with 20 metrics and 20 parameters."""
    own = experiment(server, "search")
    for i in range(runs):
        run = new_run(server, own)
        metrics = [{"key": f"m{j}", "value": (i * (j + 7) * 7919 % 10_007) / 10_007, "timestamp": T0, "step": 0} for j in range(20)]
        params = [{"key": f"p{j}", "value": f"v{i % (j + 2)}"} for j in range(20)]
        server.ask("POST", f"{API}/runs/log-batch", {"run_id": run, "metrics": metrics, "params": params})
    asked = {"experiment_ids": [own], "max_results": 100}
    ordered = {**asked, "filter": "metrics.m1 > 0.5", "order_by": ["metrics.m2 DESC"]}
    sizes = []
    server.timed(f"search {runs} runs, newest 100", lambda i: sizes.append(len(server.ask("POST", f"{API}/runs/search", asked)["runs"])), 5)
    server.timed(f"search {runs} runs, metric and order, 100", lambda i: server.ask("POST", f"{API}/runs/search", ordered), 5)
    assert set(sizes) == {min(100, runs)}


def _log(port: int, run: str, who: int, ready: Any, calls: int) -> None:
    """One of several clients: log values of a metric of its own."""
    own = Server(f"client {who}", port, psutil.Process(), 0.0)
    own.ask("GET", f"{API}/runs/get?run_id={run}")
    ready.wait()
    for i in range(calls):
        own.ask("POST", f"{API}/runs/log-metric", {"run_id": run, "key": f"m{who}", "value": 0.5, "timestamp": T0 + i, "step": i})


def several(server: Server, clients: int = 8, calls: int = 100) -> None:
    """Clients at the same time, each a process; every value must be there afterwards."""
    run, make = new_run(server, experiment(server, "several")), multiprocessing.get_context("spawn")
    ready = make.Barrier(clients + 1)
    others = [make.Process(target=_log, args=(server.port, run, who, ready, calls)) for who in range(clients)]
    for one in others:
        one.start()
    ready.wait()
    cpu, wall = server.cpu(), time.perf_counter()
    for one in others:
        one.join()
    n = clients * calls
    server.found[f"log_metric by {clients} clients at once"] = ((server.cpu() - cpu) / n * 1e3, (time.perf_counter() - wall) / n * 1e3)
    assert not any(one.exitcode for one in others), "a client met an error"
    server.connection = None  # it was idle: the peer has closed it
    for who in range(clients):
        found = server.ask("GET", f"{API}/metrics/get-history?run_id={run}&metric_key=m{who}&max_results=1000")
        assert len(found["metrics"]) == calls


def artifacts(server: Server) -> None:
    """A thousand small files."""
    run = new_run(server, experiment(server, "files"))
    found = server.ask("GET", f"{API}/runs/get?run_id={run}")["run"]["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/").lstrip("/")
    base = f"/api/2.0/mlflow-artifacts/artifacts/{found}"
    server.timed("upload a file of 2 KiB", lambda i: server.ask("PUT", f"{base}/d/f{i}", data=os.urandom(2048)), 1000)
    server.timed("list 1,000 files", lambda i: server.ask("GET", f"{API}/artifacts/list?run_id={run}&path=d"), 100)
    server.timed("download a file of 2 KiB", lambda i: server.ask("GET", f"{base}/d/f{abs(i)}"), 1000)


def measure(server: Server, runs: int) -> None:
    """All sections."""
    time.sleep(3)  # until it is quiet
    server.found["idle memory (MiB)"] = (server.memory(), 0.0)
    server.found["start (s)"] = (server.start, 0.0)
    for section in (calls, several, history, lambda one: search(one, runs), artifacts):
        section(server)


def main() -> None:
    """Measure ours, and the peer where one is given; print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="the peer's `mlflow` command")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--records", default="", help="where our records lie, instead of in a file")
    given = parser.parse_args()
    noise, servers = spin(), []
    with tempfile.TemporaryDirectory() as folder:
        if given.records:
            Path(folder, "tidemill.toml").write_text(f'[project]\nname = "measured"\n[store]\nrecords = "{given.records}"\n')
        own = [sys.executable, "-c", "from tidemill.cli import main; main()", "server", "--home", folder, "--port", "{port}", "--json"]
        with running("tidemill", own) as server:
            measure(server, given.runs)
            servers.append(server)
        if given.peer:
            store = ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", f"{folder}/artifacts", "--workers", "1"]
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
            with running("mlflow", [given.peer, "server", "--host", "127.0.0.1", "--port", "{port}", *store]) as server:
                measure(server, given.runs)
                servers.append(server)
    print(f"noise {noise:.2f} before, {spin():.2f} after; {Path(sys.executable).name}; CPU ms of the server a call (wall ms)")
    for section, (cpu, wall) in servers[0].found.items():
        line = f"{section:45} {cpu:9.3f} ({wall:8.2f})"
        if len(servers) > 1:
            peer = servers[1].found[section]
            line += f"   {peer[0]:9.3f} ({peer[1]:8.2f})   {peer[0] / max(cpu, 1e-9):6.1f} ×"
        print(line)


if __name__ == "__main__":
    main()
