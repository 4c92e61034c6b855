"""The tracking server as a process: what it acknowledged survives SIGKILL, a batch is whole or not there, and writers take turns."""

import http.client
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from processes import served
from tidemill import project

API = "/api/2.0/mlflow"


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer; raises OSError and HTTPException when there is none."""
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found

    def run(self) -> str:
        return str(self.ask("POST", f"{API}/runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"])


def serve(home: Path) -> Any:
    return served("server", "--home", str(home), "--port", "0", "--json")


@pytest.fixture
def home(place: Path | str, tmp_path: Path) -> Path:
    """A project whose records lie in a file or in PostgreSQL."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tidemill.toml").write_text(f'[project]\nname = "home"\n[store]\nrecords = "{place}"\n')
    return tmp_path / "home"


def test_what_was_acknowledged_survives_a_kill_and_a_batch_is_whole(home: Path) -> None:
    kept: dict[str, int] = {}
    begun = threading.Barrier(4, timeout=300)  # nobody is killed before everybody has an answer
    with serve(home) as (process, url):

        def log(part: int) -> None:
            client = Client(url)
            run = client.run()
            for i in range(100_000):
                points = [{"key": f"m{j}", "value": i, "timestamp": i, "step": i} for j in range(50)]
                try:
                    client.ask("POST", f"{API}/runs/log-batch", {"run_id": run, "metrics": points, "tags": [{"key": "n", "value": str(i)}]})
                except (OSError, http.client.HTTPException):
                    return
                kept[run] = i
                if i == 0:
                    begun.wait()
                if part == 0 and i == 60:
                    process.kill()

        threads = [threading.Thread(target=log, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(kept) == 4
    with serve(home) as (_, url):
        client = Client(url)
        for run, last in kept.items():
            data = client.ask("GET", f"{API}/runs/get?run_id={run}")["run"]["data"]
            found = int(next(tag["value"] for tag in data["tags"] if tag["key"] == "n"))
            assert found in (last, last + 1), "what was under way may be there"
            for name in ("m0", "m49"):
                points = client.ask("GET", f"{API}/metrics/get-history?run_id={run}&metric_key={name}")["metrics"]
                assert [one["step"] for one in points] == list(range(found + 1)), "every batch is whole"


WRITE = """
import sys
from tidemill import project, tracking
from tidemill.tracking.runs import create_run, log_metric
from tidemill.tracking.values import Metric
ledger = project.find(sys.argv[1]).ledger()
tracking.prepare(ledger)
run = create_run(ledger, "0", name=sys.argv[2]).info.run_id
for i in range(200):
    log_metric(ledger, run, Metric("m", i, i, i))
"""


def test_several_processes_write_at_once_and_none_is_turned_away(home: Path) -> None:
    with serve(home) as (_, url):
        others = [subprocess.Popen([sys.executable, "-c", WRITE, str(home), f"other {i}"]) for i in range(3)]
        client = Client(url)
        run = client.run()
        for i in range(200):
            client.ask("POST", f"{API}/runs/log-metric", {"run_id": run, "key": "m", "value": i, "timestamp": i, "step": i})
        assert [one.wait(60) for one in others] == [0, 0, 0]
        client = Client(url)  # the server has closed the first by now, if the others took long
        found = client.ask("POST", f"{API}/runs/search", {"experiment_ids": ["0"], "filter": "run_name LIKE 'other %'"})["runs"]
        assert len(found) == 3
        for one in [*found, {"info": {"run_id": run}}]:
            history = client.ask("GET", f"{API}/metrics/get-history?run_id={one['info']['run_id']}&metric_key=m")["metrics"]
            assert len(history) == 200


def test_a_request_that_ends_before_its_end_does_nothing(tmp_path: Path) -> None:
    with serve(tmp_path / "home") as (_, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as line:
            head = f"POST {API}/runs/create HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
            line.sendall(head.encode() + b'{"experiment_id": "0"}')
            line.shutdown(socket.SHUT_WR)
            while line.recv(1000):
                pass
        for piece in (b"a" * 1000, b"a: b\r\n" * 200):  # a name, and headers, that have no end
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(b"GET /health HTTP/1.1\r\n")
                with pytest.raises(OSError, match=r"reset|pipe"):
                    line.sendall(piece * 64_000)
        assert "runs" not in Client(url).ask("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})


def test_how_a_request_came_is_not_for_the_client_to_say(tmp_path: Path) -> None:
    with serve(tmp_path / "home") as (_, url):
        client = Client(url)
        asked = json.dumps({"run_id": client.run(), "path": "model.onnx"})
        said = {"content-type": "application/json", "x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.1"}
        client.connection.request("POST", f"{API}/artifacts/presigned-upload-url", asked, said)
        assert json.loads(client.connection.getresponse().read())["presigned_url"].startswith(f"{url}/api/2.0/")


def test_a_folder_that_is_not_there_becomes_a_project_and_one_that_is_stays(tmp_path: Path) -> None:
    with serve(tmp_path / "new") as (_, url):
        Client(url).run()
    assert project.find(tmp_path / "new").name == "new"
    (tmp_path / "new" / "tidemill.toml").write_text('[project]\nname = "mine"\n')
    with serve(tmp_path / "new") as (_, url):
        assert len(Client(url).ask("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})["runs"]) == 1
    assert project.find(tmp_path / "new").name == "mine"


def test_an_address_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", "server", "--host", "0.0.0.0", "--home", str(tmp_path / "h")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6
    assert "binds to this machine only" in done.stderr


@pytest.mark.parametrize("folder", ["file/x"])
def test_a_home_that_cannot_be_made_is_said(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", "server", "--home", str(tmp_path / folder), "--port", "0"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert str(tmp_path / folder) in done.stderr
