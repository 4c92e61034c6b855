"""Weights over versions on a running server: changed while it is asked, told by the command, the status, the page and the metrics."""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from cli.conftest import Command
from cli.conftest import forks as forks
from cli.conftest import tidemill as tidemill
from loop.test_rollback import after_days
from processes import served
from serving.test_process import get, post
from tidemill import loop, project
from toy import open_toy, write_project


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that serves live, with three versions that passed their gates."""
    folder = write_project(tmp_path_factory.mktemp("live") / "parcels")
    with project.load(folder).writing("run") as ledger:
        after_days(open_toy(folder, loop.prepare(ledger)), "2024-03-01", "2024-03-05", "2024-03-09")
    return folder


def test_weights_change_on_a_running_server_and_no_request_is_dropped(live: Path, tidemill: Command) -> None:
    keys = [{"parcel": f"p{day:03}-{number:03}"} for day in (30, 40, 50) for number in range(20)]
    with served("-C", str(live), "up", "--port", "0", "--json") as (_, url):
        failed, asked, ended = list[str](), Counter[str](), threading.Event()

        def ask() -> None:
            while not ended.is_set():
                try:
                    (one,) = post(url, {"rows": keys[:1], "at": "2024-02-20T00:00:00Z"})["predictions"]
                    asked[one["version"]] += 1
                except OSError as error:
                    failed.append(repr(error))

        def versions() -> dict[str, str]:
            answers = post(url, {"rows": keys, "at": "2024-02-20T00:00:00Z"})["predictions"]
            assert all(one["rung"] == ("champion" if one["version"] == "trees/3" else "weighted") for one in answers)
            return {one["key"]: one["version"] for one in answers}

        def until(*wanted: str) -> dict[str, str]:
            while {*(found := versions()).values()} != {*wanted}:
                assert not failed
            return found

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            until("trees/3")
            assert tidemill("-C", str(live), "traffic", "late", "trees/2=0.3", "1=0.2", "--why", "to compare").returncode == 0
            first = until("trees/1", "trees/2", "trees/3")
            assert tidemill("-C", str(live), "traffic", "late", "trees/2=0.3", "--why", "enough").returncode == 0
            second = until("trees/2", "trees/3")
            assert all(first[key] in (version, "trees/1") for key, version in second.items()), "no other key moved"
            told = json.loads(get(f"{url}/status.json"))["deployments"][0]
            assert told["shares"] == {"trees/3": 0.7, "trees/2": 0.3}
            assert "30 %" in get(url)
            assert 'tidemill_version_share{deployment="late",version="trees/2"} 0.3' in get(f"{url}/metrics")
            answer = json.loads(get(f"{url}/v2/models/late"))
            assert answer["versions"] == ["trees/3", "trees/2"]
            assert tidemill("-C", str(live), "traffic", "late", "champion=1", "--why", "it is better").returncode == 0
            until("trees/3")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert asked.total() > 100


def test_the_command_tells_the_shares_and_what_is_wrong(live: Path, tidemill: Command) -> None:
    done = tidemill("-C", str(live), "traffic", "late", "2=0.25", "--why", "to compare", "--json")
    assert json.loads(done.stdout) == {
        "deployment": "late",
        "before": {"trees/3": 1.0},
        "now": {"trees/3": 0.75, "trees/2": 0.25},
    }
    assert "25.00%  trees/2" in tidemill("-C", str(live), "traffic", "late").stdout
    assert "trees/3 0.75, trees/2 0.25" in tidemill("-C", str(live), "status").stdout
    assert "weights set late: to compare" in tidemill("-C", str(live), "why", "late").stdout
    for words, what in (
        (["late", "trees/2=0.2"], "--why is missing"),
        (["late", "trees/2", "--why", "x"], "'trees/2' is no weight of a version"),
        (["late", "trees/9=0.2", "--why", "x"], "no version is named 'trees/9'"),
        (["nobody"], "no deployment 'nobody' serves"),
        (["nobody", "a=1", "--why", "x"], "no deployment 'nobody' serves"),
    ):
        found = tidemill("-C", str(live), "traffic", *words)
        assert found.returncode != 0
        assert what in found.stderr
