"""Several processes at one port, as clients and operators meet them: what is counted, loaded, killed and ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from cli.conftest import Command
from cli.conftest import forks as forks
from cli.conftest import tidemill as tidemill
from processes import started
from serving.test_bare import Line, difference, request
from serving.test_oip import sums
from serving.test_rpc import Client
from tidemill.web.server import bound
from web.test_metrics import read, total

STATS, LOAD = "/v2/models/sums/stats", "/v2/repository/models/sums/{}"
ANSWER = [9.0, 18.0]


@dataclass
class Served:
    """A server of a bare model by two processes."""

    process: "subprocess.Popen[str]"
    said: dict[str, Any]
    file: Path

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def line(self) -> Line:
        host, _, port = self.said["url"].removeprefix("http://").partition(":")
        return Line((host, int(port)))

    def metrics(self) -> dict[Any, float]:
        """Read over a connection of its own."""
        line = self.line()
        line.send(request(b"", "/metrics", "GET", connection="close"))
        _, body = line.file.read().split(b"\r\n\r\n", 1)
        return read(body.decode())

    def by_worker(self, lines: list[Line]) -> dict[int, list[Line]]:
        """The connections, by the process that has them."""
        ports, found = {line.socket.getsockname()[1]: line for line in lines}, dict[int, list[Line]]()
        for one in self.workers:
            with suppress(psutil.Error):  # it ended
                its = [end.raddr.port for end in one.net_connections("tcp") if end.raddr]
                found[one.pid] = [ports[port] for port in its if port in ports]
        return found

    def until(self, workers: int) -> None:
        wait(lambda: total(self.metrics(), "tidemill_workers") == workers)


def wait(what: Callable[[], bool]) -> None:
    """Ask again and again."""
    end = monotonic() + 60
    while not what():
        assert monotonic() < end


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Served]:
    file = folder / "sums.onnx"
    file.write_bytes(sums())
    with started("serve", str(file), "--port", "0", "--workers", "2", "--json", *options) as (process, said):
        yield Served(process, said, file)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("two"), "--grpc-port", "0") as found:
        found.until(2)
        yield found


def test_connections_are_spread_over_the_processes(served: Served) -> None:
    assert served.said["workers"] == 2
    lines = [served.line() for _ in range(10)]
    for line in lines:
        assert difference(line.send(request()).answer()) == ANSWER
    counts = sorted(map(len, served.by_worker(lines).values()))
    assert (len(counts), sum(counts)) == (2, 10)
    assert counts[0] >= 3, "each steps back for one that has fewer; on a busy machine it may wake too late once or twice"


def test_what_is_counted_is_told_whole_by_whomever_is_asked(served: Served) -> None:
    def counted() -> tuple[float, float, Any]:
        found = served.metrics()
        (stats,) = served.line().send(request(b"", STATS, "GET")).answer()[2]["model_stats"]
        grpc = total(found, "tidemill_grpc_requests_total", status="OK")
        return total(found, "tidemill_inference_requests_total"), grpc, stats["inference_stats"]["success"]["count"]

    before = counted()
    lines = [served.line() for _ in range(6)]
    for line in lines * 5:
        assert difference(line.send(request()).answer()) == ANSWER
    for _ in range(4):
        client = Client(served.said["grpc"])
        assert client.call("ServerLive").live
        client.close()
    for _ in range(4):  # over new connections: both processes
        assert counted() == (before[0] + 30, before[1] + 4, before[2] + 30)
    found = served.metrics()
    own = psutil.Process(served.process.pid)
    assert total(found, "process_resident_memory_bytes") > max(one.memory_info().rss for one in served.workers) * 1.5
    assert total(found, "process_start_time_seconds") == own.create_time()
    assert total(served.metrics(), "process_cpu_seconds_total") >= total(found, "process_cpu_seconds_total") > 0


def test_what_one_process_loads_or_unloads_they_all_do(served: Served) -> None:
    lines = [served.line() for _ in range(6)]

    def statuses() -> set[int]:
        return {line.send(request()).answer()[0] for line in lines}

    assert statuses() == {200}
    for line in lines[:3]:
        assert line.send(request(b"", LOAD.format("unload"))).answer()[0] == 200
        assert statuses() == {404}
        assert served.line().send(request(b"", "/v2/health/ready", "GET")).answer()[0] == 503
        assert line.send(request(b"", LOAD.format("load"))).answer()[0] == 200
        assert statuses() == {200}
    served.file.write_bytes(b"no model any more")
    assert lines[0].send(request(b"", LOAD.format("load"))).answer()[0] == 400
    assert statuses() == {200}, "the one before stays"


def test_a_killed_process_takes_its_connections_alone_and_another_comes_and_serves_the_same(served: Served) -> None:
    served.file.write_bytes(b"no model any more")
    for _ in range(2):
        lines = [served.line() for _ in range(6)]
        for line in lines:
            assert difference(line.send(request()).answer()) == ANSWER
        before = served.metrics()
        (pid, its), (_, others) = served.by_worker(lines).items()
        os.kill(pid, signal.SIGKILL)
        for line in others:
            assert difference(line.send(request()).answer()) == ANSWER
        for line in its:
            with suppress(ConnectionError):
                assert line.closed
        assert difference(served.line().send(request()).answer()) == ANSWER, "whom nobody has taken yet waits for nobody"
        served.until(2)
        assert pid not in {one.pid for one in served.workers}
        after = served.metrics()
        for name in ("tidemill_inference_requests_total", "tidemill_request_seconds_sum", "process_cpu_seconds_total"):
            assert total(after, name) >= total(before, name)
        assert total(after, "tidemill_inference_requests_total") == total(before, "tidemill_inference_requests_total") + len(others) + 1
        lines = [served.line() for _ in range(6)]
        assert [difference(line.send(request()).answer()) for line in lines] == [ANSWER] * 6, "the new one has the bytes of the last load"


def test_each_process_logs_to_a_file_of_its_own_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    told = list[str]()
    with serve(tmp_path, "--log", str(tmp_path / "log")) as served:
        served.until(2)
        assert served.said["log"] == str(tmp_path / "log" / "sums.jsonl")
        for _ in range(2):
            lines = [served.line() for _ in range(6)]
            for line in lines * 5:
                status, _, found = line.send(request()).answer()
                assert status == 200
                told.append(found["parameters"]["prediction_id"])
            os.kill(served.workers[0].pid, signal.SIGKILL)
            served.until(2)
    files = sorted((tmp_path / "log").iterdir())
    assert [file.name for file in files] == ["sums+2.jsonl", "sums.jsonl"]
    assert sorted(json.loads(line)["id"] for file in files for line in file.read_text().splitlines()) == sorted(told)


def test_one_that_is_asked_to_end_answers_first_and_is_replaced(served: Served) -> None:
    pids = {one.pid for one in served.workers}
    body = request().partition(b"\r\n\r\n")[2]
    line = served.line()
    line.send(request(b"", length=False, transfer_encoding="chunked") + b"%x\r\n%b\r\n" % (len(body), body))
    wait(lambda: any(served.by_worker([line]).values()))
    (pid,) = [pid for pid, its in served.by_worker([line]).items() if its]
    os.kill(pid, signal.SIGTERM)
    wait(lambda: total(served.metrics(), "tidemill_workers") == 1 or pid not in {one.pid for one in served.workers})
    assert difference(line.send(b"0\r\n\r\n").answer()) == ANSWER
    served.until(2)
    wait(lambda: pid not in {one.pid for one in served.workers})
    assert pids != {one.pid for one in served.workers}


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_is_answered_before_all_end(tmp_path: Path, asked: int) -> None:
    with serve(tmp_path) as served:
        served.until(2)
        lines, idle, workers = [served.line() for _ in range(4)], served.line(), served.workers
        body = request().partition(b"\r\n\r\n")[2]
        for line in lines:
            line.send(request(b"", length=False, transfer_encoding="chunked") + b"%x\r\n%b\r\n" % (len(body), body))
        assert difference(idle.send(request()).answer()) == ANSWER
        wait(lambda: sum(map(len, served.by_worker([*lines, idle]).values())) == 5)
        served.process.send_signal(asked)
        assert idle.closed
        for line in lines:
            assert difference(line.send(b"0\r\n\r\n").answer()) == ANSWER
        _, said = served.process.communicate(timeout=60)
        assert served.process.returncode == (0 if asked == signal.SIGTERM else 130)
        assert ("Traceback" in said, said.count("stopped")) == (False, int(asked == signal.SIGINT))
        assert not any(one.is_running() for one in workers)


def test_when_the_parent_is_killed_nobody_stays(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        served.until(2)
        workers, port = served.workers, int(served.said["url"].rpartition(":")[2])
        served.process.kill()
        assert psutil.wait_procs(workers, 60)[1] == []
        with bound("127.0.0.1", port):
            pass


def test_what_is_wrong_is_told_once(tidemill: Command, tmp_path: Path) -> None:
    missing = tidemill("serve", str(tmp_path / "none.onnx"), "--port", "0", "--workers", "3")
    assert (missing.returncode, missing.stderr.count("there is no file"), missing.stderr.count("error")) == (3, 1, 1), missing.stderr
    (tmp_path / "sums.onnx").write_bytes(sums())
    for workers in ("0", "-1", "many", "1.5", ""):
        found = tidemill("serve", str(tmp_path / "sums.onnx"), "--workers", workers)
        assert (found.returncode, "is neither a number from 1 nor 'cores'" in found.stderr) == (2, True), found.stderr
    found = tidemill("serve", str(tmp_path / "sums.onnx"), "--workers", "10000")
    assert (found.returncode, "10000 processes are too many" in found.stderr) == (2, True)
    with bound("127.0.0.1", 0) as held:
        taken = tidemill("serve", str(tmp_path / "sums.onnx"), "--workers", "2", "--port", str(held.getsockname()[1]))
        assert (taken.returncode, taken.stderr.count("is taken")) == (5, 1)
        grpc = tidemill("serve", str(tmp_path / "sums.onnx"), "--workers", "2", "--port", "0", "--grpc-port", str(held.getsockname()[1]))
        assert (grpc.returncode, grpc.stderr.count("is taken"), "--grpc-port" in grpc.stderr) == (5, 1, True)


def test_a_port_of_grpc_that_another_server_shares_is_taken(served: Served, tidemill: Command) -> None:
    port = served.said["grpc"].rpartition(":")[2]
    found = tidemill("serve", str(served.file), "--workers", "2", "--port", "0", "--grpc-port", port)
    assert (found.returncode, f"port {port} is taken" in found.stderr) == (5, True), found.stderr


@pytest.mark.parametrize("value", ["0", '"all"', "true", "1.5", "-3", '""'])
def test_settings_that_are_no_number_of_processes_are_refused(copied: Path, tidemill: Command, value: str) -> None:
    settings = copied / "tidemill.toml"
    settings.write_text(settings.read_text().replace("[serve]", f"[serve]\nworkers = {value}"))
    found = tidemill("up", folder=copied)
    assert (found.returncode, "serve.workers" in found.stderr, "Traceback" in found.stderr) == (2, True, False), found.stderr


def test_a_parent_imports_little(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    code = """
import sys
import tidemill.web.workers as workers
workers.Supervisor.run = lambda self: print(*sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[2:])))
from tidemill.cli.bare import serve_model
serve_model(".", sys.argv[1], "", "127.0.0.1", 0, workers=2, as_json=True)
"""
    heavy = ["uvicorn", "starlette", "sklearn", "pandas", "duckdb", "sqlalchemy", "lmdb"]
    call = [sys.executable, "-c", code, str(tmp_path / "sums.onnx"), *heavy]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.split() == []


def test_a_project_is_served_by_two(copied: Path) -> None:
    """One log, one count, one status."""
    settings = copied / "tidemill.toml"
    settings.write_text(settings.read_text().replace("[serve]", "[serve]\nworkers = 2"))
    with started("-C", str(copied), "up", "--port", "0", "--json") as (process, said), ExitStack() as last:
        served = Served(process, said, copied)
        assert (said["workers"], said["deployments"]) == (2, ["late"])
        served.until(2)
        lines = [served.line() for _ in range(6)]
        last.callback(lambda: [line.socket.close() for line in lines])
        body = json.dumps({"rows": [{"parcel": "p100-003"}], "at": "2024-04-20T00:00:00Z"}).encode()
        found = [line.send(request(body, "/predict/late")).answer() for line in lines * 3]
        assert [status for status, _, _ in found] == [200] * 18
        assert len({one["predictions"][0]["probability"] for _, _, one in found}) == 1
        assert min(map(len, served.by_worker(lines).values())) > 0
        for line in lines:
            told = line.send(request(b"", "/status.json", "GET")).answer()[2]
            assert told["served"]["by_rung"] == {"champion": 18}
        assert total(served.metrics(), "tidemill_answers_total") == 18
        logged = (copied / ".tidemill" / "log" / "late.jsonl").read_text().splitlines()
        ids = {json.loads(line)["id"] for line in logged}
        assert (len(logged), {one["predictions"][0]["id"] for _, _, one in found}) == (18, ids)
