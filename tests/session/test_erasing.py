"""One entity erased from a project: no byte of its events is left in the project's state, and what was made of them says so."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidemill
from processes import run_python
from redis_server import ADDRESS, names_of, new_prefix
from tidemill.core import DataError, Erased, Event, Ref, UnknownName
from tidemill.features import open_online
from tidemill.session import Session

SALES = """shop,till,sold,amount,kind
1,a,2024-03-10T10:00:00Z,20.5,new
1,b,2024-03-10T10:30:00Z,35.5,old
2,a,2024-03-10T09:00:00Z,77123.25,QMARKERQ
2,a,2024-03-10T09:30:00Z,77123.75,new
3,b,2024-03-10T09:30:00Z,7.5,old
"""
CODE = """import tidemill as tm

query = "SELECT shop, till, CAST(sold AS TIMESTAMPTZ) AS sold, CAST(amount AS DOUBLE) AS amount, kind FROM s"
sales = tm.Dataset("sales", {"s": tm.Source("sales.csv")}, event_time="sold", query=query)
other = tm.Dataset("other", {"s": tm.Source("other.csv")}, event_time="at")
shop = tm.Entity("shop", key="shop")
till = tm.Entity("till", key=["shop", "till"])
newest = tm.FeatureView("newest", sales, shop, {"amount": tm.last("amount"), "kind": tm.category("kind")})
total = tm.FeatureView("total", sales, shop, {"n": tm.count(), "sum": tm.sum("amount")}, windows=["1d", "lifetime"])
tills = tm.FeatureView("tills", sales, till, {"amount": tm.last("amount")})
"""
VIEWS = ["newest", "total", "tills"]
MARKERS = [b"QMARKERQ", b"77123", b"PUSHEDQ", np.float64(77123.25).tobytes(), np.float64(77123.75).tobytes(), np.float64(88123.5).tobytes()]


def write_shops(folder: Path) -> Path:
    (folder / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (folder / "shops.py").write_text(CODE)
    (folder / "sales.csv").write_text(SALES)
    (folder / "other.csv").write_text("id,at\n2,2024-03-10T09:00:00Z\n")
    return folder


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[Session]:
    with closing(tidemill.open(write_shops(tmp_path))) as session:
        yield session


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions of each view, pushed rows, saved rows, and all of it online. Tests take a copy."""
    folder = write_shops(tmp_path_factory.mktemp("shops"))
    with closing(tidemill.open(folder)) as session:
        fill(session)
    return folder


@pytest.fixture
def full(filled: Path, tmp_path: Path) -> Iterator[Session]:
    with closing(tidemill.open(shutil.copytree(filled, tmp_path / "shops"))) as session:
        yield session


def ask(session: Session, shops: str = "123", **more: Any) -> dict[str, list[Any]]:
    """The features of shops after all that was pushed."""
    rows = {"shop": np.array([int(shop) for shop in shops]), "till": np.array(["a"] * len(shops), dtype=object)}
    rows["event_timestamp"] = np.array(["2044-03-10T12"] * len(shops), dtype="datetime64[us]")
    found = session.historical_features(rows, VIEWS, timezone="UTC", **more)
    return {name: [None if one != one else one for one in column.tolist()] for name, column in found.columns.items()}


def pushed(shop: int, amount: float, kind: str, till: str = "a") -> dict[str, Any]:
    return {"shop": shop, "till": till, "sold": "2024-03-10T11:00:00Z", "amount": amount, "kind": kind}


def holding(folder: Path) -> dict[str, list[bytes]]:
    """The files of a project's state that hold a marker."""
    found = {}
    for path in (folder / ".tidemill").rglob("*"):
        if path.is_file() and (there := [marker for marker in MARKERS if marker in path.read_bytes()]):
            found[path.relative_to(folder).as_posix()] = there
    return found


def fill(session: Session) -> None:
    ask(session)
    session.push("sales", [pushed(2, 88123.5, "PUSHEDQ"), pushed(1, 3.5, "new")], source="s", offsets=[7, 8])
    ask(session)
    rows = {"shop": [2, 1], "event_timestamp": np.array(["2024-03-10T12"] * 2, dtype="datetime64[us]")}
    session.historical_features({k: np.array(v) for k, v in rows.items()}, ["newest"], timezone="UTC", save="mine", until="2044-01-01")
    session.materialise()


def test_what_is_erased_leaves_no_byte_and_all_else_stays(full: Session) -> None:
    before, folder = ask(full), full.project.folder
    assert {name.split("/")[1].partition("-")[0] for name in holding(folder)} >= {"blobs", "records.db", "online"}
    plan = full.erase_entity("shop", 2, dry_run=True)
    assert not plan.done
    assert ask(full) == before, "a plan changes nothing"
    done = full.erase_entity("shop", 2, why="asked by mail")
    assert [one["what"] for one in done.plain()["found"]] == [one["what"] for one in plan.plain()["found"]]
    full.close()
    assert holding(folder) == {}
    after = ask(full)
    assert holding(folder) == {}, "neither does the next version bring it back"
    for name, values in before.items():
        if "__" in name:
            assert [after[name][0], after[name][2]] == [values[0], values[2]], name
            assert after[name][1] is None, name
    assert full.pushed_offset("sales", "s") == 8


def test_the_report_says_what_and_where(full: Session) -> None:
    found = full.erase_entity("shop", 2).plain()
    by = {(one["place"], one["what"].partition("@")[0]) for one in found["found"]}
    assert by >= {
        ("offline", "dataset:sales"),
        ("offline", "feature view:newest"),
        ("offline", "training rows:mine"),
        ("offline", "rows:mine"),
    }
    assert by >= {("pushed", "dataset:sales"), ("online", "view:total"), ("files", "sales.csv (dataset:sales)")}
    rows = {one["what"]: one["rows"] for one in found["found"]}
    assert rows["sales.csv (dataset:sales)"] == 2
    assert rows["dataset:sales"] == 1
    assert len([one for one in found["found"] if one["what"].startswith("dataset:sales@")]) == 2, "both versions"
    assert found["done"]
    assert "predictions" in {one["what"] for one in found["stays"]}
    assert json.loads(json.dumps(found)) == found
    decided = full.ledger.decisions("")
    assert [(one.kind, one.subject) for one in decided] == [(Event.ERASED, "entity:shop")]
    assert full.ledger.verify_decisions() == 1
    assert full.erase_entity("shop", 2, dry_run=True).plain()["found"] == [
        {"place": "files", "what": "sales.csv (dataset:sales)", "rows": 2, "outcome": found["found"][-1]["outcome"]}
    ]


def test_who_has_the_version_open_gets_nothing_of_it_and_all_of_the_others(full: Session) -> None:
    reader = full.online(["total"])
    before = reader.read([{"shop": 1}, {"shop": 2}])
    assert (before.rows[1][0] is None, before.offline) == (False, {})
    with closing(tidemill.open(full.project.folder)) as other:
        other.erase_entity("shop", 2)
    after = reader.read([{"shop": 1}, {"shop": 2}])
    assert (after.rows, after.status, after.offline) == ([before.rows[0], [None] * 4], {"total": ["present", "unknown"]}, {})


def test_what_was_erased_says_so_when_it_is_opened(full: Session) -> None:
    full.erase_entity("shop", 2, why="asked by mail")
    with pytest.raises(Erased, match=r"training rows:mine@.* was erased on .*: asked by mail"):
        full.saved_rows("mine")
    assert {one["name"]: one["newest"]["bytes"] for one in full.features.list()} == dict.fromkeys(VIEWS, "erased")
    ask(full)
    assert {one["name"]: one["newest"]["bytes"] for one in full.features.list()} == dict.fromkeys(VIEWS, "kept")


def test_what_is_pushed_afterwards_is_new(full: Session) -> None:
    full.erase_entity("shop", 2)
    ask(full)
    full.push("sales", pushed(2, 5.0, "new"))
    found = ask(full)
    assert (found["newest__amount"][1], found["total__n_lifetime"][1]) == (5.0, 1)


def test_one_key_of_several_parts_goes_and_its_neighbours_stay(shops: Session) -> None:
    csv = shops.project.folder / "sales.csv"
    csv.write_text(csv.read_text() + "4,a\x1fb,2024-03-10T09:00:00Z,1.5,old\n4,a,2024-03-10T09:10:00Z,2.5,old\n")
    ask(shops)
    found = shops.erase_entity("till", 4, "a\x1fb")
    assert {one["rows"] for one in found.plain()["found"]} == {1, None}, "of views of shops it is not told"
    rows = {"shop": np.array([4, 4]), "till": np.array(["a\x1fb", "a"], dtype=object)}
    rows["event_timestamp"] = np.array(["2044-03-10T12"] * 2, dtype="datetime64[us]")
    values = shops.historical_features(rows, ["tills", "total"], timezone="UTC").columns
    assert values["tills__amount"].tolist()[1] == 2.5
    assert np.isnan(values["tills__amount"][0])
    assert values["total__n_lifetime"].tolist() == [1, 1], "the shop itself is not erased, only what its till sold"


@pytest.mark.parametrize("key", [(99,), ("no such",), ("x' OR '1'='1",)])
def test_of_an_unknown_key_nothing_is_found_and_nothing_happens(full: Session, key: tuple[object, ...]) -> None:
    found = full.erase_entity("shop", *key)
    assert (found.found, found.done, found.plain()["found"]) == (False, False, [])
    assert repr(found).endswith("nothing found")
    assert full.ledger.decisions("") == []


def test_what_is_no_entity_or_no_key_of_it_is_refused(full: Session) -> None:
    with pytest.raises(UnknownName, match="no entity 'shops' is declared"):
        full.erase_entity("shops", 2)
    for parts in ([2, "a"], [], [None], [""]):
        with pytest.raises(DataError, match="the key of entity 'shop' is shop"):
            full.erase_entity("shop", *parts)


KILLED = """
import os, sys, tidemill
from tidemill.store.blobs import FolderBlobs
from tidemill.features import _lmdb
from tidemill.store.records import Records
where, session = {"blobs": (FolderBlobs, "delete"), "online": (_lmdb.LmdbOnline, "update"), "purge": (Records, "purge")}[sys.argv[2]], None
def die(*_): os.kill(os.getpid(), 9)
setattr(*where, die)
tidemill.open(sys.argv[1]).erase_entity("shop", 2)
"""


@pytest.mark.parametrize("at", ["blobs", "online", "purge"])
def test_an_erasure_that_is_killed_is_ended_by_the_next(full: Session, at: str) -> None:
    folder = full.project.folder
    full.close()
    assert run_python(KILLED, folder, at).returncode == -9
    assert full.erase_entity("shop", 2).done
    full.close()
    assert holding(folder) == {}
    assert ask(full)["total__n_lifetime"][::2] == [3, 1]


def test_who_has_the_online_store_open_is_told_of_and_the_next_call_sees_to_it(full: Session) -> None:
    folder = full.project.folder
    other = open_online(folder / ".tidemill" / "online")
    assert "online store" in {one.what for one in full.erase_entity("shop", 2).stays}
    full.close()
    assert set(holding(folder)) == {".tidemill/online/data.mdb"}
    other.close()
    again = full.erase_entity("shop", 2)
    assert "online store" not in {one.what for one in again.stays}
    assert holding(folder) == {}


def test_in_redis_the_state_goes_and_those_of_others_stay(shops: Session) -> None:
    with new_prefix() as prefix:
        settings = shops.project.folder / "tidemill.toml"
        settings.write_text(f'{settings.read_text()}[store]\nonline = "{ADDRESS}?prefix={prefix}"\n')
        session = tidemill.open(settings.parent)
        ask(session)
        session.materialise(["total"])
        names = names_of(prefix)
        assert len(names) == 5, "a mark, the set of spaces and three shops"
        assert session.erase_entity("shop", 2).done
        gone = set(names) - set(names_of(prefix))
        assert [name.rpartition(b"/")[2] for name in gone] == [b"2"]
        session.close()


@pytest.fixture(scope="module")
def spelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets whose key is of different types, as files have it."""
    folder = tmp_path_factory.mktemp("spelled")
    (folder / "tidemill.toml").write_text('[project]\nname = "spelled"\n')
    kinds = {
        "BIGINT": "2",
        "DOUBLE": "2.0",
        "VARCHAR": "02",
        "UUID": "6ccd780c-baba-1026-9564-5b8c656024db",
        "DATE": "2024-01-01",
    }
    code = ["import tidemill as tm", 'key = tm.Entity("key", key="k")']
    for kind, value in kinds.items():
        (folder / f"{kind}.csv").write_text("since,x\n2024-03-10T10:00:00Z,7\n")
        query = f"SELECT CAST('{value}' AS {kind}) AS k, since, x FROM s"
        code.append(f'{kind} = tm.Dataset("{kind}", {{"s": tm.Source("{kind}.csv")}}, event_time="since", query="{query}")')
        code.append(f'v{kind} = tm.FeatureView("v{kind}", {kind}, key, {{"x": tm.last("x")}})')
    (folder / "views.py").write_text("\n".join(code))
    with closing(tidemill.open(folder)) as session:
        session.materialise()
    return folder


@pytest.mark.parametrize(
    ("key", "hit"),
    [
        (2, {"BIGINT", "DOUBLE"}),
        (2.0, {"BIGINT", "DOUBLE"}),
        ("2", {"BIGINT", "DOUBLE"}),
        ("02", {"BIGINT", "DOUBLE", "VARCHAR"}),
        ("1.7", set()),
        ("6CCD780C-BABA-1026-9564-5B8C656024DB", {"UUID"}),
        (date(2024, 1, 1), {"DATE"}),
        ("2024-1-1", {"DATE"}),
    ],
)
def test_a_key_is_found_however_it_is_spelled(spelled: Path, tmp_path: Path, key: object, hit: set[str]) -> None:
    folder = shutil.copytree(spelled, tmp_path / "copy")
    with closing(tidemill.open(folder)) as session:
        done = session.erase_entity("key", key)
        assert {one["what"].split(":")[1].split("@")[0].strip("v") for one in done.plain()["found"] if "view:" in one["what"]} == hit
    with closing(tidemill.open(folder)) as session:
        session.materialise()
        rows = {path.stem: session.ledger.artifact(Ref("dataset", path.stem)).meta["rows"] for path in folder.glob("*.csv")}
    assert {kind for kind, many in rows.items() if not many} == hit, "no later version has its rows"
