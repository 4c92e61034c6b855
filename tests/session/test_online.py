"""The newest features by entity keys, of a project on disk, from its online store and without it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from processes import other
from redis_server import ADDRESS, new_prefix
from tidemill import cli
from tidemill.core import DataError, MissingFile, StoreError, UnknownName
from tidemill.session import Session
from toy import write_project

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
ROWS = [{"driver_id": 1, "shop_id": 11}, {"driver_id": 11, "shop_id": 1}, {"driver_id": 7, "shop_id": 7}, {"driver_id": None, "shop_id": 1}]
NOON = "2024-03-10T12:00:00Z"


@pytest.fixture(params=["lmdb", "redis"])
def shops(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    settings = '[project]\nname = "shops"\n'
    if request.param == "redis":
        prefix = request.getfixturevalue("prefix")
        settings += f'[store]\nonline = "{ADDRESS}?prefix={prefix}"\n'
    (tmp_path / "tidemill.toml").write_text(settings)
    (tmp_path / "views.py").write_text(VIEWS)
    (tmp_path / "sales.csv").write_text(SALES)
    return tmp_path


@pytest.fixture
def prefix() -> object:
    with new_prefix() as found:
        yield found


def test_features_by_keys_are_those_of_rows_at_that_time(shops: Path) -> None:
    session = Session(shops)
    asked = ["day:sum", "last_sale"]
    first = session.online_features(ROWS, asked, at=NOON)
    assert set(first.offline) == {"last_sale", "day"}
    assert session.materialise() == {"last_sale": 2, "day": 2}
    assert session.materialise() == {"last_sale": 0, "day": 0}
    found = session.online_features(ROWS, asked, at=NOON)
    assert (found.offline, found.rows, found.status) == ({}, first.rows, first.status)
    assert found.names == ("day__sum_24h", "last_sale__amount", "last_sale__kind")
    assert found.rows == [[55.0, 35.0, "card"], [7.0, 7.0, None], [None] * 3, [None] * 3]
    assert found.status == {view: ["present", "present", "unknown", "unknown"] for view in ("day", "last_sale")}
    assert found.columns["last_sale__kind"] == ["card", None, None, None]
    offline = session.historical_features(
        {**{n: [row[n] for row in ROWS[:3]] for n in ROWS[0]}, "at": [NOON] * 3}, asked, at="at", status=True
    )
    assert offline.columns["day__sum_24h"].tolist()[:2] == [55.0, 7.0]
    assert offline.columns["last_sale__status"].tolist() == found.status["last_sale"][:3]


def test_a_getter_is_prepared_once(shops: Path) -> None:
    session = Session(shops)
    session.materialise(["day", "last_sale"])
    getter = session.online(["last_sale:kind", "day", "own"])
    row = {"driver_id": "1", "shop_id": 11.0, "amount": 12}
    assert getter.get(row, at=NOON) == {"last_sale__kind": "card", "day__n_24h": 2.0, "day__sum_24h": 55.0, "own__big": 1.0}
    assert getter.get(row) == {"last_sale__kind": None, "day__n_24h": 0.0, "day__sum_24h": None, "own__big": 1.0}  # long ago by now
    assert getter.read(row).status == {"last_sale": ["expired"], "day": ["expired"]}
    assert getter.needed == ("driver_id", "shop_id", "amount")
    with pytest.raises(DataError, match="row 0 is"):
        getter.get([row])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'amount'"):
        getter.get({"driver_id": "1", "shop_id": "11"})
    assert session.materialise(["own"]) == {}, "it is computed from the request"
    with pytest.raises(UnknownName, match="no view 'nothing'"):
        session.online(["nothing"])


def test_what_is_materialised_until_a_time_answers_from_then_on(shops: Path) -> None:
    session = Session(shops)
    assert session.materialise(["day"], until="2024-03-10T11:00Z") == {"day": 2}
    getter = session.online(["day"])
    at_eleven, at_noon = (getter.read(ROWS[:1], at=f"2024-03-10T{hour}:00:00Z") for hour in (11, 12))
    assert (at_eleven.rows, at_eleven.offline) == ([[1.0, 20.0]], {})
    assert (at_noon.rows, list(at_noon.offline)) == ([[2.0, 55.0]], ["day"])
    assert session.materialise(["day"]) == {"day": 1}
    assert getter.read(ROWS[:1], at=NOON).offline == {}


def test_what_the_files_no_longer_give_is_gone_from_the_store(shops: Path) -> None:
    session, asked = Session(shops), ["last_sale", "day"]
    session.materialise()
    for gone in (2, 1):  # the newest row, at which the store is, and then one more
        rows = (shops / "sales.csv").read_text().splitlines(keepends=True)
        (shops / "sales.csv").write_text("".join(rows[:gone] + rows[gone + 1 :]))
        session.materialise()
        found = session.online_features(ROWS, asked, at=NOON)
        assert found.offline == {}
        assert found.dicts() == _offline(session, asked)


def _offline(session: Session, views: list[str]) -> list[dict[str, object]]:
    """The same features, of rows that are asked at noon."""
    found = session.historical_features([row | {"event_timestamp": NOON} for row in ROWS], views)
    return [{name: row[name] for name in found.columns} for row in found.frame]


def test_what_the_store_has_is_asked_without_the_files(shops: Path) -> None:
    session = Session(shops)
    session.materialise(["day"])
    session.push("sales", {"driver_id": 1, "shop_id": 11, "sold": NOON, "reported": NOON, "amount": 5, "kind": "card"})
    (shops / "sales.csv").unlink()
    found = session.online_features(ROWS[:1], ["day"])
    assert (found.rows, found.offline) == ([[0.0, None]], {})
    with pytest.raises(MissingFile, match=r"sales\.csv"):
        session.online(["last_sale"])


def test_a_session_that_is_closed_leaves_the_store_with_its_sum(tmp_path: Path) -> None:
    for name, text in {"tidemill.toml": '[project]\nname = "shops"\n', "views.py": VIEWS, "sales.csv": SALES}.items():
        (tmp_path / name).write_text(text)
    session, place = Session(tmp_path), tmp_path / ".tidemill" / "online" / "data.sum"
    session.materialise()
    pushed = {"driver_id": 1, "shop_id": 11, "sold": NOON, "reported": NOON, "amount": 5, "kind": "card"}
    session.push("sales", pushed)
    getter = session.online(["day"])
    found = session.online_features(ROWS[:1], ["day"])
    assert place.read_bytes().startswith(b"open ")
    session.close()
    assert getter.read(ROWS[:1]).offline == {}, "what was prepared has the store for itself"
    del getter
    assert not place.read_bytes().startswith(b"open ")
    session.push("sales", pushed)
    assert session.online_features(ROWS[:1], ["day"]).names == found.names
    session.close()
    session.close()
    assert not place.read_bytes().startswith(b"open ")


def test_the_store_becomes_as_large_as_is_set(tmp_path: Path) -> None:
    text = "driver_id,shop_id,sold,reported,amount,kind\n" + "".join(f"{i},1,{NOON},{NOON},{i},cash\n" for i in range(2_000))
    for name, content in {"views.py": VIEWS, "sales.csv": text}.items():
        (tmp_path / name).write_text(content)
    for size, fits in (("0.0001", False), ("1", True)):
        (tmp_path / "tidemill.toml").write_text(f'[project]\nname = "shops"\n[store]\nonline_gigabytes = {size}\n')
        session = Session(tmp_path)
        if fits:
            assert session.materialise(["day"]) == {"day": 2_000}
        else:
            with pytest.raises(StoreError, match="MDB_MAP_FULL") as error:
                session.materialise(["day"])
            assert "raise store.online_gigabytes" in error.value.hint
        session.close()


def test_the_features_of_a_model_come_in_its_order(copied: Path) -> None:
    session = Session(copied)
    getter = session.online(model="trees@champion")
    row = {"depot": "N", "courier": "a", "grade": "x", "weight": 2.0, "sent": "2024-04-30T12:00:00Z"}
    found = getter.read(row, at="2024-05-01T00:00:00Z")
    assert found.names[:3] == ("booking__grade", "booking__weight", "booking__hour")
    assert (found.rows[0][:3], len(found.names)) == (["x", 2.0, 8.0], 8)
    assert set(found.status) == {"depot_recent", "courier_last"}
    session.materialise()
    again = session.online(model="trees@champion").read(row, at="2024-05-01T00:00:00Z")
    assert again.rows == found.rows


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (tmp_path / "views.py").write_text(VIEWS)
    (tmp_path / "sales.csv").write_text(SALES)
    run = CliRunner().invoke
    first = run(cli.tidemill, ["-C", str(tmp_path), "features", "materialise", "day", "--until", "2024-03-10T11:00Z", "--json"])
    assert json.loads(first.output) == {"written": {"day": 2}}
    again = run(cli.tidemill, ["-C", str(tmp_path), "features", "materialise"])
    assert again.output.splitlines() == ["last_sale: 2 entities written", "day: 1 entities written"]
    assert "day: nothing new" in run(cli.tidemill, ["-C", str(tmp_path), "features", "materialise"]).output


KILLED = """
import sys
from tidemill.features import materialising
from tidemill.session import Session
materialising.PART = 1
def listen(view, done, entities):
    if done == 1:
        print("one", flush=True)
        input()
Session(sys.argv[1]).materialise(["day"], listen=listen)
"""


def test_a_killed_one_goes_on_where_it_ended(shops: Path) -> None:
    with other(KILLED, shops) as process:
        assert process.says() == "one"
        process.kill()
    told = list[tuple[str, int, int]]()
    assert Session(shops).materialise(["day"], listen=lambda *one: told.append(one)) == {"day": 1}
    assert told[0] == ("day", 1, 2)
    assert Session(shops).online_features(ROWS[:2], ["day"], at=NOON).offline == {}


def test_sessions_of_one_process_share_the_store(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "parcels")
    one, two = Session(folder), Session(folder)
    one.materialise(["courier_last"])
    getter = one.online(["courier_last"])
    assert two.online_features({"courier": "a"}, ["courier_last"]).until == getter.read({"courier": "a"}).until
