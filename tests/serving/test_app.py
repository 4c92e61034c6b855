"""The server over a project folder: it finds what was promoted, and goes on when the ledger does not."""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
import redis
from starlette.testclient import TestClient

from redis_server import ADDRESS, Way, names_of, new_prefix
from tidemill import loop, project
from tidemill.core import DAY, StoreError, show
from tidemill.evaluation import gates
from tidemill.features import MemoryOnline
from tidemill.features.online import MARK, Change
from tidemill.loop import Every
from tidemill.session import Session
from tidemill.web import app
from tidemill.web.app import LOOK_AGAIN, make_app
from tidemill.web.tracking import only_local
from toy import DECLARATIONS, open_toy, with_deployment

ROW = {"rows": [{"parcel": "p100-003"}], "at": "2024-04-20T00:00:00Z"}


def client_of(folder: Path) -> TestClient:
    return TestClient(only_local(make_app(Session(folder), "http://127.0.0.1")), base_url="http://127.0.0.1")


def ask_until(client: TestClient, seconds: float) -> set[tuple[int, str]]:
    """Ask for so long; the codes and versions that came."""
    found, end = set(), time.monotonic() + seconds
    while not found or time.monotonic() < end:
        answer = client.post("/predict/late", json=ROW)
        found.add((answer.status_code, answer.json()["predictions"][0]["version"] if answer.status_code == 200 else answer.text))
    return found


def test_a_promotion_is_found_without_a_restart(copied: Path) -> None:
    client = client_of(copied)
    (before,) = ask_until(client, 0.1)
    declared = project.load(copied)
    with declared.writing("replay") as ledger:  # another history of the same project becomes the newest
        toy = open_toy(copied, loop.prepare(ledger))
        toy.replay(end="2024-03-05")
    assert before[1] != "trees/1"
    assert (200, "trees/1") in ask_until(client, LOOK_AGAIN + 0.5)


def test_a_rollback_is_found_without_a_restart(copied: Path) -> None:
    declared = project.load(copied)
    with declared.writing("run") as ledger:
        toy = open_toy(copied, loop.prepare(ledger))
        policy = replace(
            with_deployment(toy.policy, gates=[gates.calibration(max_ece=0.9)], rollout=None),
            on=(Every("1d"),),
            cooldown="1d",
            min_new_labels=1,
        )
        for day in ("2024-03-01", "2024-03-05"):
            loop.run_once(ledger, toy.built, policy, toy.at(day), declared.timezone)
        client = client_of(copied)
        assert ask_until(client, 0.1) == {(200, "trees/2")}
        loop.roll_back(ledger, "late", who="ann", user="ann", why="worse", at=toy.at("2024-03-06"))
        assert (200, "trees/1") in ask_until(client, LOOK_AGAIN + 0.5)


def test_answers_go_on_when_the_ledger_cannot_be_read(copied: Path) -> None:
    client = client_of(copied)
    (before,) = ask_until(client, 0.1)
    for name in ("records.db", "records.db-wal", "records.db-shm"):
        (copied / ".tidemill" / name).unlink(missing_ok=True)
    (copied / ".tidemill" / "records.db").write_bytes(b"this is no ledger" * 1000)
    assert ask_until(client, LOOK_AGAIN + 0.5) == {before}
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(("days", "own"), [(1, False), (10, True)])
def test_the_line_to_copy_asks_at_a_time_that_features_are_known_at(copied: Path, days: int, own: bool) -> None:
    declared = project.load(copied)
    with declared.writing("run") as ledger:
        toy = open_toy(copied, loop.prepare(ledger))
        newest = int(toy.built.examples.requests.at[-1])
        policy = with_deployment(toy.policy, gates=[gates.calibration(max_ece=0.9)])
        loop.run_once(ledger, toy.built, policy, newest + days * DAY, declared.timezone)
    (late,) = client_of(copied).get("/status.json").json()["deployments"]
    assert late["branch"]["kind"] == "live"
    assert f'"at": "{show(newest if own else newest + days * DAY)}"' in late["curl"]


def test_another_host_name_is_refused(copied: Path) -> None:
    """A page elsewhere that makes a browser ask this server by another name gets nothing."""
    client = client_of(copied)
    assert client.post("/predict/late", json=ROW, headers={"host": "evil.example"}).status_code == 403
    for name in ("127.0.0.1:8642", "localhost", "[::1]:8642"):
        assert client.get("/v2/health/live", headers={"host": name}).status_code == 200, name


class Halting(MemoryOnline):
    """An online store that can fill up."""

    full = False

    def update(self, space: str, entities: Sequence[str], change: Change) -> None:
        if self.full:
            raise StoreError("the online store cannot be used: MDB_MAP_FULL")
        super().update(space, entities, change)


def promote_another(folder: Path, declarations: str = "") -> None:
    """Another history of the same project becomes the newest."""
    if declarations:
        (folder / "parcels.py").write_text(declarations)
    declared = project.load(folder)
    with declared.writing("replay") as ledger:
        open_toy(folder, loop.prepare(ledger)).replay(end="2024-03-05")


def test_what_cannot_be_opened_hits_no_request(copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A full online store after a promotion: what serves goes on, and the promoted version is taken once there is room."""
    store = Halting()
    monkeypatch.setattr(app, "online_store", lambda declared: store)
    monkeypatch.setattr(app, "LOOK_AGAIN", 0.0)
    client = client_of(copied)
    (before,) = ask_until(client, 0.0)
    store.full = True
    promote_another(copied, DECLARATIONS.replace('"3d"]', '"5d"]'))
    assert ask_until(client, 0.0) == {before}
    assert "MDB_MAP_FULL" in caplog.text
    store.full = False
    assert ask_until(client, 0.0) == {(200, "trees/1")}


def test_the_store_drops_versions_that_served_before_the_last(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryOnline()
    monkeypatch.setattr(app, "online_store", lambda declared: store)
    current = app.Current(Session(copied))
    monkeypatch.setattr(app, "LOOK_AGAIN", 0.0)
    seen = [{one.space for one in current.endpoints["late"].reader.looked.values()}]
    for days in (4, 5, 6):
        promote_another(copied, DECLARATIONS.replace('"3d"]', f'"{days}d"]'))
        current.refresh()
        seen.append({one.space for one in current.endpoints["late"].reader.looked.values()})
        held = set(store.spaces())
        assert held == seen[-1] | seen[-2] | seen[0], "a request that is under way may read what served before; the files declare the first"
    assert len(set().union(*seen)) > len(seen[-1] | seen[-2])


def test_one_thread_looks_and_the_others_go_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LOOK_AGAIN", 0.0)
    current = app.Current(Session(copied))
    inside, go_on = Event(), Event()

    class Slow(MemoryOnline):
        def update(self, space: str, entities: Sequence[str], change: Change) -> None:
            inside.set()
            assert go_on.wait(60)
            super().update(space, entities, change)

    current.store = Slow()  # type: ignore[assignment]
    promote_another(copied, DECLARATIONS.replace('"3d"]', '"5d"]'))
    looking = Thread(target=current.refresh)
    looking.start()
    assert inside.wait(60)
    current.refresh()  # returns at once
    assert current.endpoints["late"].standing.champion[0] != "trees/1"
    go_on.set()
    looking.join(60)
    assert current.endpoints["late"].standing.champion[0] == "trees/1"


@pytest.mark.parametrize(
    ("method", "path", "code", "available"),
    [
        ("GET", "/nowhere", 404, "GET /status.json"),
        ("POST", "/predict", 404, "POST /predict/{name}"),
        ("GET", "/predict/late", 405, "POST"),
        ("DELETE", "/status.json", 405, "HEAD"),
    ],
)
def test_where_no_route_leads_the_error_has_the_form_of_all(copied: Path, method: str, path: str, code: int, available: str) -> None:
    answer = client_of(copied).request(method, path)
    assert answer.status_code == code
    assert answer.json()["error"].startswith(f"{method} {path}: ")
    assert available in answer.json()["detail"]["available"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("allow" in answer.headers) == (code == 405)


def test_a_redis_for_the_online_store_is_a_setting_and_answers_go_on_offline_without_it(copied: Path) -> None:
    newest = {"rows": ROW["rows"]}
    first = client_of(copied).post("/predict/late", json=newest).json()["predictions"][0]
    settings = copied / "tidemill.toml"
    plain = settings.read_text()
    with new_prefix() as prefix:
        settings.write_text(f'{plain}\n[store]\nonline = "{ADDRESS}?prefix={prefix}"\n')
        client = client_of(copied)
        again = client.post("/predict/late", json=newest).json()["predictions"][0]
        assert {**again, "at": "", "id": ""} == {**first, "at": "", "id": ""}
        assert (again["features_from"], len(names_of(prefix)) > 10) == ("online", True)
        redis.Redis.from_url(ADDRESS).set(names_of(prefix)[0], b"another's")
        names = [name for name in names_of(prefix) if MARK in name]
        redis.Redis.from_url(ADDRESS).mset(dict.fromkeys(names, b"no longer what was written"))
        last = client.post("/predict/late", json=newest).json()["predictions"][0]
        assert (last["probability"], last["features_from"]) == (first["probability"], "offline")


def test_a_redis_that_is_away_at_the_start_is_found_when_it_is_back(
    copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A small server between stands for the way to Redis: it can be closed and opened."""
    monkeypatch.setattr(app, "LOOK_AGAIN", 0.0)
    newest = {"rows": ROW["rows"]}
    with new_prefix() as prefix, Way(ADDRESS) as way:
        settings = copied / "tidemill.toml"
        settings.write_text(f'{settings.read_text()}\n[store]\nonline = "redis://127.0.0.1:{way.port}/9?prefix={prefix}"\n')
        way.close()
        client = client_of(copied)
        found = [client.post("/predict/late", json=newest).json()["predictions"][0] for _ in range(2)]
        assert [one["features_from"] for one in found] == ["offline"] * 2
        assert "online_store=away" in caplog.text
        way.open()
        last = [client.post("/predict/late", json=newest).json()["predictions"][0] for _ in range(2)][-1]
        assert (last["probability"], last["features_from"]) == (found[0]["probability"], "online")


def test_a_redis_that_lost_what_it_held_is_filled_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one without a disk does that is started anew."""
    monkeypatch.setattr(app, "LOOK_AGAIN", 0.0)
    newest = {"rows": ROW["rows"]}
    with new_prefix() as prefix:
        settings = copied / "tidemill.toml"
        settings.write_text(f'{settings.read_text()}\n[store]\nonline = "{ADDRESS}?prefix={prefix}"\n')
        client = client_of(copied)
        first = client.post("/predict/late", json=newest).json()["predictions"][0]
        names_of(prefix, delete=True)
        found = [client.post("/predict/late", json=newest).json()["predictions"][0] for _ in range(3)]
        assert [one["features_from"] for one in (first, *found)] == ["online", "offline", "online", "online"]
        assert {one["probability"] for one in found} == {first["probability"]}


def test_a_damaged_online_store_is_made_anew_at_the_start_and_answers_go_on_before(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest = {"rows": ROW["rows"]}
    first = client_of(copied).post("/predict/late", json=newest).json()["predictions"][0]
    assert first["features_from"] == "online"
    file = copied / ".tidemill" / "online" / "data.mdb"
    data = bytearray(file.read_bytes())
    data[8392::997] = bytes(byte ^ 0xFF for byte in data[8392::997])
    other = file.with_suffix(".new")  # the server of before has its own file mapped
    other.write_bytes(data)
    other.replace(file)
    gc.collect()
    again = client_of(copied).post("/predict/late", json=newest).json()["predictions"][0]
    assert {**again, "at": "", "id": ""} == {**first, "at": "", "id": ""}
    assert caplog.text.count("begun_anew=true") == 1
