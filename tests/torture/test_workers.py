"""Several processes under steady load: versions swapped, processes killed, the online store killed and brought back.

Every answer is compared with what the version that it names says in a process of its own. Waiting is the point here, so this takes a minute
or two for each test.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event, Thread
from time import sleep
from typing import Any

import pytest
import redis

from processes import started
from serving.test_bare import Line, request
from serving.test_workers import Served, wait
from tidemill import loop, project
from tidemill.core import SECOND
from tidemill.evaluation import gates
from tidemill.loop import Every
from tidemill.serving import read_log
from tidemill.session import Session
from toy import copied as copied
from toy import kept as kept
from toy import open_toy, with_deployment
from web.test_metrics import total

pytestmark = pytest.mark.torture
AT = "2024-04-20T00:00:00Z"
KEYS = [f"p{100 + place % 10}-{place % 60:03}" for place in range(60)]
CLIENTS, PAUSE = 6, 0.01  # seconds between an answer and the next request
Known = dict[str, dict[str, float]]  # by version and key, the probability


@pytest.fixture
def live(copied: Path) -> Path:
    """A project that goes on, with two versions that passed their gates; the second serves."""
    declared = project.load(copied)
    with declared.writing("run") as ledger:
        toy = open_toy(copied, loop.prepare(ledger))
        deployed = with_deployment(toy.policy, gates=[gates.calibration(max_ece=0.9)], rollout=None)
        policy = replace(deployed, on=(Every("1d"),), cooldown="1d", min_new_labels=1)
        for day in ("2024-03-01", "2024-03-05"):
            loop.run_once(ledger, toy.built, policy, toy.at(day), declared.timezone)
    return copied


class Swaps:
    """Moves a deployment between its two versions."""

    def __init__(self, folder: Path) -> None:
        self._ledger = project.find(folder).ledger()
        self.at, self.now = open_toy(folder, self._ledger).at("2024-03-06"), "trees/2"

    def swap(self) -> str:
        self.at += SECOND
        self.now = {"trees/1": "trees/2", "trees/2": "trees/1"}[self.now]
        loop.roll_back(self._ledger, "late", to=self.now, who="ann", user="ann", why="worse", at=self.at)
        return self.now


def told(folder: Path, at: str | None = AT) -> dict[str, float]:
    """What the champion says to each key, in this process."""
    session = Session(folder)
    deployed = session.deployments["late"]
    found = {key: float(deployed.predict({"parcel": key}, at=at)["probability"]) for key in {*KEYS}}
    session.close()
    return found


@dataclass
class Asking:
    """Clients with a connection each that ask all the time."""

    served: Served
    known: Known
    at: str | None
    answers: list[list[dict[str, Any]]] = field(default_factory=lambda: [[] for _ in range(CLIENTS)])
    lost: list[int] = field(default_factory=lambda: [0] * CLIENTS)  # requests that got no answer
    wrong: list[Any] = field(default_factory=list)
    lines: list[Line | None] = field(default_factory=lambda: [None] * CLIENTS)
    ended: Event = field(default_factory=Event)
    anew: Barrier = field(default_factory=lambda: Barrier(CLIENTS + 1))
    asked_anew: Event = field(default_factory=Event)

    def ask(self, client: int) -> None:
        place = client
        while not self.ended.is_set():
            if self.asked_anew.is_set():  # connections are spread anew: all are closed, and then opened
                if line := self.lines[client]:
                    line.file.close()
                    line.socket.close()
                    self.lines[client] = None
                self.anew.wait(60)
                self.lines[client] = self.served.line()
                self.anew.wait(60)
                continue
            place += 1
            sleep(PAUSE)
            key = KEYS[place % len(KEYS)]
            line = self.lines[client] or self.served.line()
            self.lines[client] = line
            try:
                asked = {"rows": [{"parcel": key}]} | ({"at": self.at} if self.at else {})
                status, _, body = line.send(request(json.dumps(asked).encode(), "/predict/late")).answer()
            except (OSError, IndexError):  # reset, or nothing came any more
                self.lost[client] += 1
                line.file.close()
                line.socket.close()
                self.lines[client] = None
                continue
            self._judge(client, key, status, body)

    def _judge(self, client: int, key: str, status: int, body: Any) -> None:
        if status != 200:
            self.wrong.append((status, body))
            return
        (one,) = body["predictions"]
        if one["rung"] != "champion" or one["probability"] != self.known[one["version"]][key]:
            self.wrong.append(one)
        self.answers[client].append({name: one[name] for name in ("id", "version", "features_from")})

    def all_since(self, what: Callable[[dict[str, Any]], bool]) -> None:
        """Until each client got such an answer after now."""
        before = [len(one) for one in self.answers]
        wait(lambda: all(any(map(what, one[start:])) for one, start in zip(self.answers, before, strict=True)) or bool(self.wrong))
        assert self.wrong == []

    def spread(self) -> None:
        """Have all connections opened anew."""
        self.asked_anew.set()
        self.anew.wait(60)
        self.asked_anew.clear()
        self.anew.wait(60)


@contextmanager
def asking(folder: Path, known: Known, at: str | None = AT) -> Iterator[Asking]:
    with started("-C", str(folder), "up", "--port", "0", "--workers", "2", "--json") as (process, said):
        served = Served(process, said, folder)
        served.until(2)
        found = Asking(served, known, at)
        threads = [Thread(target=found.ask, args=(client,)) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            found.all_since(lambda one: True)
            yield found
        finally:
            found.ended.set()
            for thread in threads:
                thread.join(60)
        assert not found.wrong
        logged = {one["id"] for one in read_log(folder / ".tidemill" / "log" / "late.jsonl")}
        acknowledged = [one["id"] for answers in found.answers for one in answers]
        assert len({*acknowledged}) == len(acknowledged)
        assert {*acknowledged} <= logged
        assert len(logged) <= len(acknowledged) + sum(found.lost), "and nothing that was not asked"
        counted = total(served.metrics(), "tidemill_answers_total", rung="champion")
        assert len(acknowledged) <= counted <= len(acknowledged) + sum(found.lost)
        print(f"{len(acknowledged)} answers, {sum(found.lost)} lost")


def test_fifty_swaps_lose_nothing_and_answer_nothing_wrong(live: Path) -> None:
    swaps, known = Swaps(live), Known()
    for _ in range(2):
        known[swaps.now] = told(live)
        swaps.swap()
    assert sum(known["trees/1"][key] != known["trees/2"][key] for key in KEYS) > len(KEYS) / 2, "or one could be taken for the other"
    with asking(live, known) as load:
        for _ in range(50):
            now = swaps.swap()
            load.all_since(lambda one, now=now: one["version"] == now)  # type: ignore[misc]
    assert sum(load.lost) == 0
    for answers in load.answers:
        versions = [one["version"] for one in answers]
        assert sum(one != two for one, two in pairwise(versions)) == 50, "none goes back"


def test_twenty_kills_cost_the_requests_inside_and_nothing_else(live: Path) -> None:
    """The parent starts another each time. What is counted never goes back."""
    with asking(live, {"trees/2": told(live)}) as load:
        lay, counted = 0, 0.0
        for kill in range(20):
            load.spread()
            load.all_since(lambda one: True)
            its = load.served.by_worker([line for line in load.lines if line])
            pid = sorted(its, key=lambda one: len(its[one]))[kill % len(its)]  # the one with fewer, the one with more, if both have some
            lost = sum(load.lost)
            os.kill(pid, signal.SIGKILL)
            load.all_since(lambda one: True)
            load.served.until(2)
            assert sum(load.lost) - lost <= len(its[pid]), "those whose connection lay with it"
            lay += len(its[pid])
            now = total(load.served.metrics(), "tidemill_answers_total")
            assert now >= counted + sum(map(len, its.values()))
            counted = now
            load.all_since(lambda one: True)
    assert 0 < sum(load.lost) <= lay
    print(f"{lay} connections lay with the killed")


class Redis:
    """A server of its own, which keeps what it has on disk."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.start()

    def start(self) -> None:
        call = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--appendonly", "yes"]
        self.process = subprocess.Popen([*call, "--save", ""], stdout=subprocess.DEVNULL)
        wait(self._answers)

    def _answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(redis.Redis(port=self.port, socket_timeout=5).ping())
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server")
    (tmp_path / "redis").mkdir()
    found = Redis(tmp_path / "redis")
    yield found
    found.kill()


def test_every_answer_comes_while_the_online_store_is_killed_and_comes_back(copied: Path, own_redis: Redis) -> None:
    """Once with nothing of what it held. Asked about this moment, as the store knows the newest features alone."""
    session = Session(copied)
    label, settings = session.deployments["late"].predict({"parcel": KEYS[0]})["version"], copied / "tidemill.toml"
    session.close()
    known = {label: told(copied, None)}
    settings.write_text(f'{settings.read_text()}\n[store]\nonline = "redis://127.0.0.1:{own_redis.port}/0"\n')
    with asking(copied, known, None) as load:
        load.all_since(lambda one: one["features_from"] == "online")
        for keeps in (True, True, False, True):
            own_redis.kill()
            for _ in range(20):
                load.all_since(lambda one: one["features_from"] == "offline")
            if not keeps:
                shutil.rmtree(own_redis.folder / "appendonlydir")
            own_redis.start()
            for _ in range(20):
                load.all_since(lambda one: one["features_from"] == "online")
    assert sum(load.lost) == 0
