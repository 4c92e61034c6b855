"""`tidemill up` as a process: what it acknowledged survives SIGKILL, it binds to this machine only, and a busy port is said."""

import errno
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from processes import other, served
from tidemill.core import Busy, Refused, StoreError
from tidemill.serving import read_feedback, read_log
from tidemill.session import Session
from tidemill.web.server import bound

TIDEMILL = str(Path(sys.executable).parent / "tidemill")


def up(folder: Path, *options: str) -> AbstractContextManager[tuple[subprocess.Popen[str], str]]:
    """`tidemill up` on a free port."""
    return served("-C", str(folder), "up", "--port", "0", "--json", *options)


def post(url: str, body: Any, route: str = "predict") -> Any:
    request = urllib.request.Request(f"{url}/{route}/late", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def test_every_acknowledged_answer_survives_a_kill(copied: Path) -> None:
    acknowledged, labelled = list[str](), list[str]()
    with up(copied) as (process, url):

        def ask(part: int) -> None:
            for place in range(10_000):
                key = f"p{100 + (place + part) % 10}-{place % 60:03}"
                try:
                    answer = post(url, {"rows": [{"parcel": key}], "at": "2024-04-20T00:00:00Z"})
                    acknowledged.append(answer["predictions"][0]["id"])
                    post(url, {"rows": [{"id": acknowledged[-1], "label": 1}]}, "feedback")
                except OSError:
                    return
                labelled.append(answer["predictions"][0]["id"])
                if len(labelled) == 100:
                    process.kill()

        threads = [threading.Thread(target=ask, args=(part,)) for part in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log = copied / ".tidemill" / "log" / "late.jsonl"
    logged, told = [one["id"] for one in read_log(log)], [one.id for one in read_feedback(log)]
    assert len(acknowledged) >= len(labelled) >= 100
    assert ({*acknowledged} <= {*logged}, {*labelled} <= {*told}) == (True, True)
    assert len(logged) <= len(acknowledged) + 3, "at most what was under way"
    assert len(told) <= len(labelled) + 3
    with up(copied) as (_, again):
        assert post(again, {"rows": [{"parcel": "p100-003"}]})["predictions"][0]["rung"] == "champion"


def test_the_pages_and_the_line_to_copy(copied: Path) -> None:
    with up(copied) as (_, url):
        assert url.startswith("http://127.0.0.1:")
        status = json.loads(get(f"{url}/status.json"))
        (deployment,) = status["deployments"]
        assert deployment["champion"]["label"] in get(url)
        assert "2024-04" in get(f"{url}/report")
        done = subprocess.run(deployment["curl"], shell=True, capture_output=True, text=True, check=True, timeout=60)
        (answer,) = json.loads(done.stdout)["predictions"]
        assert answer["version"] == deployment["champion"]["label"]
        counted = json.loads(get(f"{url}/status.json"))["served"]
        assert counted["requests"] == 1
        request = urllib.request.Request(url, method="DELETE")
        with pytest.raises(OSError, match="405"):
            urllib.request.urlopen(request, timeout=30)


def test_ctrl_c_ends_the_server_in_peace(copied: Path) -> None:
    import signal

    with up(copied) as (process, url):
        assert get(f"{url}/v2/health/ready")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert process.returncode in (0, 130)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", ""])
def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="binds to this machine only"), bound(host, 0):
        pass


def test_the_other_address_of_this_machine_is_served_too(copied: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with bound("::1", 0):
            pass
    except StoreError:
        pytest.skip("no IPv6")
    settings = copied / "tidemill.toml"
    settings.write_text(settings.read_text().replace("[serve]", '[serve]\nhost = "::1"'))
    process = subprocess.Popen([TIDEMILL, "-C", str(copied), "up", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        url = said[1].split()[-1]
        assert url.startswith("http://[::1]:")
        assert post(url, {"rows": [{"parcel": "p100-003"}]})["predictions"][0]["key"] == "p100-003"
    finally:
        process.kill()
        process.communicate()


def test_a_busy_port_is_said(copied: Path) -> None:
    with bound("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        held.listen()
        with pytest.raises(Busy, match=f"port {port} is taken") as error, bound("127.0.0.1", port):
            pass
        assert "--port 0" in error.value.hint
        found = subprocess.run(
            [TIDEMILL, "-C", str(copied), "up", "--port", str(port)], capture_output=True, text=True, check=False, timeout=120
        )
        assert (found.returncode, f"port {port} is taken" in found.stderr) == (5, True), found.stderr


def test_an_address_that_the_system_does_not_give_is_not_said_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSuchAddress(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket, "socket", NoSuchAddress)
    with pytest.raises(StoreError, match="port 5 cannot be listened to: Cannot assign requested address") as error, bound("::1", 5):
        pass
    assert not isinstance(error.value, Busy)


def test_a_settings_file_cannot_open_it_to_others(copied: Path) -> None:
    settings = copied / "tidemill.toml"
    settings.write_text(settings.read_text().replace("[serve]", '[serve]\nhost = "0.0.0.0"'))
    found = subprocess.run([TIDEMILL, "-C", str(copied), "up"], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 6
    assert "binds to this machine only" in found.stderr


READ = """
import sys
from tidemill.session import Session
session = Session(sys.argv[1])
print(session.deployments["late"].predict({"parcel": "p100-003"}, at="2024-04-20T00:00:00Z")["probability"])
input()
"""


def test_a_notebook_reads_beside_the_server(copied: Path) -> None:
    with up(copied) as (_, url), other(READ, copied) as notebook:
        there = post(url, {"rows": [{"parcel": "p100-003"}], "at": "2024-04-20T00:00:00Z"})["predictions"][0]["probability"]
        assert float(notebook.says()) == there
    session = Session(copied)
    assert session.deployments["late"].predict({"parcel": "p100-003"}, at="2024-04-20T00:00:00Z")["probability"] == there
    session.close()
