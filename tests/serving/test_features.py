"""Features over HTTP, by entity keys: what a session gives, from a server with deployments, and from one with views alone."""

import asyncio
import json
import signal
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient

import tidemill as tm
from processes import other
from redis_server import ADDRESS, Way, names_of, new_prefix
from serving.test_bare import Line, request
from tidemill.core import instant
from tidemill.features import Computed, Getter, choose
from tidemill.features.online import BESIDE, MARK
from tidemill.serving.features import AT_ONCE, MOST_ROWS, MOST_VIEWS, Features
from tidemill.serving.inference import Reply
from tidemill.serving.refusals import MAX_BODY
from tidemill.session import Session
from tidemill.web.app import make_app

VIEWS = """
import tidemill as tm

sales = tm.Dataset("sales", {"s": tm.Source("sales.csv")}, event_time="sold", known_at="reported", timezone="UTC")
pair = tm.Entity("driver-shop", key=["driver_id", "shop_id"])
last_sale = tm.FeatureView("last_sale", sales, pair, features={"amount": tm.last("amount"), "kind": tm.category("kind")}, ttl="1d")
day = tm.FeatureView("day", sales, pair, features={"n": tm.count(), "sum": tm.sum("amount")}, windows=["24h"])
own = tm.RequestView("own", sales, features={"big": "amount > 10"})
"""
SALES = """driver_id,shop_id,sold,reported,amount,kind
1,11,2024-03-10T10:00:00Z,2024-03-10T10:00:00Z,20,cash
1,11,2024-03-10T10:30:00Z,2024-03-10T12:00:00Z,35,card
11,1,2024-03-10T09:00:00Z,2024-03-10T09:00:00Z,7,
"""
NOON = instant("2024-03-10T12:00:00Z")
BODY = {"views": ["day:sum", "last_sale"], "rows": [{"driver_id": 1, "shop_id": 11}, {"driver_id": 7, "shop_id": None}]}


def shops_in(folder: Path, settings: str = "[serve]\nclient_time = true\n") -> Path:
    (folder / "tidemill.toml").write_text(f'[project]\nname = "shops"\n{settings}')
    (folder / "views.py").write_text(VIEWS)
    (folder / "sales.csv").write_text(SALES)
    return folder


@pytest.fixture
def shops(tmp_path: Path) -> Path:
    """Views alone: nothing is deployed."""
    folder = shops_in(tmp_path)
    Session(folder).materialise()
    return folder


def client_of(folder: Path, clock: int = NOON) -> TestClient:
    return TestClient(make_app(Session(folder), "http://127.0.0.1", clock=lambda: clock), base_url="http://127.0.0.1")


def test_several_views_and_rows_in_one_request(shops: Path) -> None:
    client = client_of(shops)
    answer = client.post("/features", json=BODY)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "at": "2024-03-10T12:00:00Z",
        "features": ["day__sum_24h", "last_sale__amount", "last_sale__kind"],
        "rows": [[55.0, 35.0, "card"], [None, None, None]],
        "views": {
            "day": {"status": ["present", "unknown"], "from": "online", "until": "2024-03-10T12:00:00Z"},
            "last_sale": {"status": ["present", "unknown"], "from": "online", "until": "2024-03-10T12:00:00Z"},
        },
    }
    plain = Session(shops).online_features(BODY["rows"], BODY["views"], at="2024-03-10T12:00Z").plain()
    assert json.loads(json.dumps(plain)) == answer.json()


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("view=day&driver_id=1&shop_id=11", [[2.0, 55.0]]),
        ("view=day:sum,last_sale:kind&driver_id=1&shop_id=11", [[55.0, "card"]]),
        ("view=last_sale:kind&view=day:sum&driver_id=1&shop_id=11&driver_id=11&shop_id=1", [["card", 55.0], [None, 7.0]]),
        ("view=day&driver_id=1&shop_id=11&at=2024-03-10T10:15:00Z", [[1.0, 20.0]]),
        ("view=day&driver_id=%31&shop_id=11&at=2024-03-10T12:15:00%2B02:00", [[1.0, 20.0]]),
        ("view=own&amount=11", [[1.0]]),
    ],
)
def test_a_query_asks_the_same(shops: Path, query: str, rows: list[Any]) -> None:
    answer = client_of(shops).get(f"/features?{query}")
    assert (answer.status_code, answer.json()["rows"]) == (200, rows), answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "what"),
    [
        ("GET", "/features", None, 400, "0 views are asked for"),
        ("GET", "/features?view=day", None, 400, "0 rows were sent"),
        ("GET", "/features?view=never&driver_id=1", None, 404, "no view 'never' is declared"),
        ("GET", "/features?view=day:never&driver_id=1", None, 404, "no feature 'never'"),
        ("GET", "/features?view=day&driver_id=1", None, 400, "lacks the key 'shop_id'"),
        ("GET", "/features?view=day&driver_id=1&shop_id=2&shop_id=3", None, 400, "differently often"),
        ("GET", "/features?view=day&driver_id=1&shop_id=2&colour=red", None, 400, "'colour' is no key of these views"),
        ("GET", "/features?view=day&driver_id=%ff&shop_id=2", None, 400, "cannot be read"),
        ("GET", "/features?view=day,day&driver_id=1&shop_id=2", None, 400, "is asked for twice"),
        ("GET", "/features?view=day&driver_id=1&shop_id=2&at=noon", None, 400, "is not a time with its zone"),
        ("GET", "/features?view=day&driver_id=1&shop_id=2&at=2024-01-01T00:00:00", None, 400, "is not a time with its zone"),
        ("GET", f"/features?view={'day:sum,' * (MOST_VIEWS + 1)}&driver_id=1", None, 400, "101 views are asked for"),
        ("POST", "/features", b"", 400, "the body is not what is expected"),
        ("POST", "/features", b"{", 400, "the body is not what is expected"),
        ("POST", "/features", b'{"views": ["day"], "rows": [], "more": 1}', 400, "unknown field `more`"),
        ("POST", "/features", b'{"views": ["day"], "rows": [7]}', 400, "`$.rows[0]`"),
        ("POST", "/features", b'{"views": ["day"], "rows": []}', 400, "0 rows were sent"),
        ("POST", "/features", b'{"views": ["day"], "rows": [{"driver_id": [1], "shop_id": 2}]}', 400, "the key 'driver_id' is [1]"),
        ("POST", "/features", b'{"views": ["day"], "rows": [%s{}]}' % (b"{}," * MOST_ROWS), 400, "10001 rows were sent"),
        ("POST", "/features", b" " * (MAX_BODY + 1), 400, "the body is larger than"),
        ("POST", "/features", b'{"views": ["own"], "rows": [{"amount": "many"}]}', 400, "amount"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(shops: Path, method: str, path: str, body: bytes | None, code: int, what: str) -> None:
    answer = client_of(shops).request(method, path, content=body)
    assert (answer.status_code, what in answer.json()["error"]) == (code, True), answer.text
    assert answer.json()["detail"]["next"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_of_another_site_gets_nothing(shops: Path) -> None:
    client = client_of(shops)
    for method in ("GET", "POST"):
        answer = client.request(method, "/features?view=day&driver_id=1&shop_id=11", headers={"origin": "http://evil.example"})
        assert (answer.status_code, "evil.example" in answer.text) == (403, True)


def test_a_client_may_not_state_a_time_unless_that_is_granted(tmp_path: Path) -> None:
    folder = shops_in(tmp_path, "")
    Session(folder).materialise()
    answer = client_of(folder).post("/features", json={**BODY, "at": "2024-03-10T12:00:00Z"})
    assert (answer.status_code, "serve.client_time" in answer.json()["error"]) == (403, True)


def test_a_view_that_was_never_built_says_how_it_is(tmp_path: Path) -> None:
    folder = shops_in(tmp_path)
    Session(folder).materialise(["day"])
    client = client_of(folder)
    answer = client.post("/features", json=BODY)
    assert (answer.status_code, "tidemill features materialise last_sale" in answer.json()["error"]) == (503, True)
    Session(folder).materialise(["last_sale"])  # and without a restart it is there
    assert client.post("/features", json=BODY).json()["rows"][0] == [55.0, 35.0, "card"]


def test_a_request_view_that_was_never_built_says_so_too(tmp_path: Path) -> None:
    folder = shops_in(tmp_path)
    (folder / "more.py").write_text("""import tidemill as tm
orders = tm.Dataset("orders", {"s": tm.Source("sales.csv")}, event_time="sold", timezone="UTC")
big = tm.RequestView("big", orders, features={"big": "amount > 10"})
""")
    Session(folder).materialise(["day"])
    client, body = client_of(folder), {"views": ["big"], "rows": [{"amount": 20}]}
    answer = client.post("/features", json=body)
    assert (answer.status_code, "tidemill features materialise big" in answer.json()["error"]) == (503, True)
    assert Session(folder).materialise(["big"]) == {}
    assert client.post("/features", json=body).json()["rows"] == [[1.0]]


def test_a_server_of_views_alone_has_a_page_that_lists_them(shops: Path) -> None:
    client = client_of(shops)
    page = client.get("/")
    assert page.status_code == 200
    for said in ("last_sale", "driver_id, shop_id", "amount, kind", "GET http://127.0.0.1/features?view=day&amp;driver_id=…", "POST"):
        assert said in page.text, said
    assert [view["name"] for view in client.get("/status.json").json()["views"]] == ["last_sale", "day", "own"]


def test_another_method_is_told_all_that_there_are(shops: Path) -> None:
    answer = client_of(shops).put("/features", json=BODY)
    assert (answer.status_code, answer.headers["allow"], answer.json()["detail"]["available"]) == (
        405,
        "GET, HEAD, POST",
        ["GET", "HEAD", "POST"],
    )


def test_what_is_not_served_stays_in_the_store_and_pushes_are_seen(shops: Path) -> None:
    client_of(shops)
    client, session = client_of(shops, instant("2100-01-01T12:00:00Z")), Session(shops)
    assert client.post("/features", json=BODY).json()["rows"][0] == [None, None, None]
    assert session.materialise() == {"last_sale": 0, "day": 0}
    sold = {"sold": "2100-01-01T11:30:00Z", "reported": "2100-01-01T11:30:00Z", "amount": 9, "kind": "gift"}
    session.push("sales", [{"driver_id": 1, "shop_id": 11, **sold}])
    answer = client.post("/features", json=BODY).json()
    assert (answer["rows"][0], {view["from"] for view in answer["views"].values()}) == ([9.0, 9.0, "gift"], {"online"})


def test_what_is_materialised_while_a_server_runs_is_what_it_gives(shops: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also what was known before, and of an entity that the newer version lacks."""
    client, rows = client_of(shops), [{"driver_id": 1, "shop_id": 11}, {"driver_id": 11, "shop_id": 1}]
    body = {"views": ["last_sale:amount"], "rows": rows}
    assert client.post("/features", json=body).json()["rows"] == [[35.0], [7.0]]
    (shops / "sales.csv").write_text("\n".join(SALES.splitlines()[:3]).replace(",20,", ",21,") + "\n")
    Session(shops).materialise()
    answer = client.post("/features", json=body).json()
    assert (answer["rows"], answer["views"]["last_sale"]["from"]) == ([[35.0], [None]], "online")
    answer = client.post("/features", json={**body, "at": "2024-03-10T10:15:00Z"}).json()
    assert (answer["rows"], answer["views"]["last_sale"]["from"]) == ([[21.0], [None]], "offline")
    assert "online_store=" not in caplog.text


def test_what_may_take_its_time_is_computed_beside_the_event_loop() -> None:
    """A function of the user's, and many rows, also where nothing is looked up."""
    seen = list[tuple[int, bool]]()
    asked = tm.Dataset.recorded("asked", "at")

    @tm.request_view(asked, columns=["x"], returns=["double"])
    def own(columns: Any) -> Any:
        seen.append((len(columns["x"]), threading.current_thread() is threading.main_thread()))
        return {"double": columns["x"] * 2.0}

    getter = Getter(choose([own], {}), {}, {"own": Computed.of(own, {"x": "DOUBLE"})}, None, lambda: NOON)
    plain = tm.RequestView("plain", asked, features={"twice": "x * 2"})
    quick = replace(getter, chosen=choose([plain], {}), computed={"plain": Computed.of(plain, {"x": "DOUBLE"})})
    prepared = {("own",): getter, ("plain",): quick}
    app = Features(prepared.get, lambda views: getter)

    def at_once(view: str, rows: int) -> Reply | None:
        body = json.dumps({"views": [view], "rows": [{"x": 1}] * rows}).encode()
        call = app.quick(b"POST", b"/features", len(body))
        assert call
        found = call({}, body, True)
        assert found is None or isinstance(found, Reply)
        return found

    assert [at_once("own", 1), at_once("plain", AT_ONCE + 1)] == [None, None]
    assert at_once("plain", 1) is not None

    async def ask(rows: int) -> bytes:
        sent = list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps({"views": ["own"], "rows": [{"x": 1}] * rows}).encode()}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"headers": [], "method": "POST", "path": "/features", "query_string": b""}, receive, send)
        return bytes(sent[1]["body"])

    assert json.loads(asyncio.run(ask(AT_ONCE + 1)))["rows"][-1] == [2.0]
    assert json.loads(asyncio.run(ask(1)))["rows"] == [[2.0]]
    assert seen[-2:] == [(AT_ONCE + 1, False), (1, False)]


def test_views_of_a_deployment_are_given_too(copied: Path) -> None:
    client = TestClient(make_app(Session(copied), "http://127.0.0.1"), base_url="http://127.0.0.1")
    answer = client.get("/features?view=courier_last,depot_recent:delivered&courier=a&depot=N").json()
    assert answer["features"] == ["courier_last__late", "depot_recent__delivered_12h", "depot_recent__delivered_3d"]
    assert {view["from"] for view in answer["views"].values()} == {"online"}


def test_without_its_redis_the_offline_path_answers_and_says_so(tmp_path: Path) -> None:
    with new_prefix() as prefix, Way(ADDRESS) as way:
        online = f'[store]\nonline = "redis://127.0.0.1:{way.port}/9?prefix={prefix}"\n'
        folder = shops_in(tmp_path, f"[serve]\nclient_time = true\n{online}")
        Session(folder).materialise()
        client = client_of(folder)
        first = client.post("/features", json=BODY).json()
        assert {view["from"] for view in first["views"].values()} == {"online"}
        name = next(name for name in names_of(prefix) if MARK not in name and BESIDE not in name and not name.endswith(b"/spaces"))
        db = redis.Redis.from_url(ADDRESS)
        sound = db.get(name)
        for how in (lambda: db.set(name, b"damaged"), lambda: db.set(name, sound or b""), way.close):
            how()
            again = client.post(
                "/features", json={**BODY, "rows": [{"driver_id": 1, "shop_id": 11}, {"driver_id": 11, "shop_id": 1}]}
            ).json()
            assert again["rows"] == [[55.0, 35.0, "card"], [7.0, 7.0, None]]
        assert all("the online store cannot be read" in view["why"] for view in again["views"].values())


UP = """
import sys
from tidemill.session import Session
from tidemill.web import serve
serve(Session(sys.argv[1]), "127.0.0.1", 0, ready=lambda url, _: print(url, flush=True))
"""


def test_a_real_client_asks_a_real_server(shops: Path) -> None:
    with other(UP, shops) as process:
        url = process.says()
        found = urllib.request.urlopen(f"{url}/features?view=day&driver_id=1&shop_id=11&at=2024-03-10T12:00:00Z").read()
        assert json.loads(found)["rows"] == [[2.0, 55.0]]
        sent = urllib.request.Request(f"{url}/features", json.dumps(BODY | {"at": "2024-03-10T12:00:00Z"}).encode())
        assert json.loads(urllib.request.urlopen(sent).read())["rows"][0] == [55.0, 35.0, "card"]
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/features?view=never")
        assert "no view 'never'" in json.loads(error.value.read())["error"]


def test_what_must_be_opened_first_and_what_is_there_are_answered_in_their_turn(shops: Path) -> None:
    """Views that nobody asked for yet are opened beside the event loop; those that are open are answered at once: on one connection too."""
    day, both = (
        "/features?view=day&driver_id=1&shop_id=11&at=2024-03-10T12:00:00Z",
        json.dumps(BODY | {"at": "2024-03-10T12:00:00Z"}).encode(),
    )
    expected = {day: [[2.0, 55.0]], both: [[55.0, 35.0, "card"], [None, None, None]]}
    with other(UP, shops) as process:
        host, _, port = process.says().removeprefix("http://").partition(":")
        line = Line((host, int(port)))
        get, post = request(b"", day, "GET", length=False), request(both, "/features")
        for asked in ([get, get, post, get], [post, post, get], [request(both, "/features", expect="100-continue")]):
            line.send(b"".join(asked))
            for one in asked:
                status, headers, found = line.answer()
                if status == 100:
                    status, headers, found = line.answer()
                assert (status, headers["content-type"], headers["x-content-type-options"]) == (200, "application/json", "nosniff")
                assert found["rows"] == expected[day if one == get else both]
        line.send(request(b"", "/features?view=last_sale&view=day&driver_id=1", "GET", length=False, origin="https://evil.example"))
        assert line.answer()[0] == 403
        line.send(request(b"", "/features?view=never", "GET", length=False) + get)
        assert [line.answer()[0] for _ in range(2)] == [404, 200]
        pieces = request(both, "/features", length=False, transfer_encoding="chunked").removesuffix(both)
        line.send(pieces + b"%x\r\n%s\r\n0\r\n\r\n" % (len(both), both))
        assert line.answer()[2]["rows"] == expected[both]


def test_a_server_that_is_asked_to_end_leaves_the_online_store_with_its_sum(shops: Path) -> None:
    known = shops / ".tidemill" / "online" / "data.sum"
    with other(UP, shops) as process:
        assert process.says()
        session = Session(shops)
        session.push(
            "sales",
            {
                "driver_id": 1,
                "shop_id": 11,
                "sold": "2024-03-10T12:00:00Z",
                "reported": "2024-03-10T12:00:00Z",
                "amount": 5,
                "kind": "card",
            },
        )
        session.close()
        assert known.read_bytes().startswith(b"open ")
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(20) == 0
    assert not known.read_bytes().startswith(b"open ")
