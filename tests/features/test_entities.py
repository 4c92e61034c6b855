"""Entities with one and with several keys: what is matched, offline and online, and what of a declaration is its version."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from tidemill.core import Coded, DefinitionError, Where, definition, instant
from tidemill.data import engine, ingest
from tidemill.features import OnlineStore, Reader, build, build_requests, from_definition, load, load_requests
from tidemill.features.keys import joined, joined_sql
from tidemill.ledger import Artifact, Ledger
from tidemill.store import MemoryBlobs, Records

SALES = """id,driver,shop,happened,amount
a,1,11,2024-01-01T00:00:00Z,1
b,11,1,2024-01-02T00:00:00Z,2
c,1,,2024-01-03T00:00:00Z,3
d,11,1,2024-01-04T00:00:00Z,4
"""
UNTIL = instant("2024-01-03T12:00:00Z")


class Shops:
    """Sales by driver and shop, which are asked for as requests too."""

    def __init__(self, folder: Path) -> None:
        (folder / "sales.csv").write_text(SALES)
        self.where = Where(str(folder / "shops.py"), 1)
        self.ledger = Ledger(Records(None), MemoryBlobs(), lambda: 0)
        query = "SELECT * REPLACE (CAST(happened AS TIMESTAMPTZ) AS happened, CAST(amount AS DOUBLE) AS amount) FROM s"
        source = {"s": tm.Source("sales.csv", where=self.where)}
        self.sales = tm.Dataset("sales", source, event_time="happened", key="id", query=query, where=self.where)
        self.entity = tm.Entity("driver-shop", key=["driver", "shop"], where=self.where)
        self.view = tm.FeatureView("sold", self.sales, self.entity, features={"amount": tm.last("amount")}, where=self.where)

    def built(self) -> Artifact:
        return build(self.ledger, self.view, ingest(self.ledger, self.sales).output).output


@pytest.fixture
def shops(tmp_path: Path) -> Shops:
    return Shops(tmp_path)


def test_composite_keys_are_matched_part_by_part_offline_and_online(shops: Shops, online: OnlineStore) -> None:
    version, dataset = shops.built(), ingest(shops.ledger, shops.sales).output
    made = build_requests(shops.ledger, shops.sales, dataset, [], "happened + INTERVAL 1 HOUR", lookups=["driver", "shop"]).output
    requests = load_requests(shops.ledger, made)
    log = load(shops.ledger, shops.view, version)
    reader = Reader([shops.view], {"sold": log}, {"sold": version.ref.digest}, online)
    assert [key.decode() for key in requests.keys] == ["a", "b", "c", "d"]
    at = np.full(4, UNTIL)
    offline = reader.read(requests, at)
    reader.materialise(UNTIL)
    stored = reader.read(requests, at)
    assert stored.online.all()
    for matrix in (offline, stored):
        assert np.nan_to_num(matrix.values[:, 0], nan=-1).tolist() == [1, 2, -1, 2], "a null part matches nothing"
    assert log.entities == ("1\x1f11", "11\x1f1")


def test_a_view_from_its_definition_has_its_composite_key(shops: Shops) -> None:
    again = from_definition(definition(shops.view))
    assert isinstance(again, tm.FeatureView)
    assert again.entity.keys == ("driver", "shop")
    assert definition(again) == definition(shops.view)


def test_a_request_that_lacks_a_part_of_the_key_is_told(shops: Shops) -> None:
    dataset = ingest(shops.ledger, shops.sales).output
    requests = load_requests(shops.ledger, build_requests(shops.ledger, shops.sales, dataset, [], "happened", lookups=["driver"]).output)
    reader = Reader([shops.view], {"sold": load(shops.ledger, shops.view, shops.built())}, {})
    with pytest.raises(DefinitionError, match="'sold' is looked up by 'shop'"):
        reader.read(requests, requests.at)


def test_an_entity_is_found_under_other_columns() -> None:
    assert tm.Entity("airport", key="origin").on("dest").keys == ("dest",)
    assert tm.Entity("pair", key=["a", "b"]).on("x", "y").keys == ("x", "y")
    with pytest.raises(DefinitionError, match="1 columns are named for it"):
        tm.Entity("pair", key=["a", "b"]).on("x")


def test_one_column_is_one_definition_however_it_is_written(shops: Shops) -> None:
    listed = tm.FeatureView("v", shops.sales, tm.Entity("driver", key=["driver"]), features=["amount"])
    plain = tm.FeatureView("v", shops.sales, tm.Entity("driver", key="driver"), features=["amount"])
    assert definition(listed) == definition(plain)
    assert definition(plain)["entity"] == "driver"


def test_words_for_people_make_no_new_version(shops: Shops) -> None:
    told = tm.FeatureView(
        "sold",
        shops.sales,
        tm.Entity("driver-shop", key=["driver", "shop"], description="a driver at a shop", owner="ann"),
        features={"amount": tm.last("amount").described("Euro")},
        description="what was sold last",
        owner="bob",
        tags=["sales"],
    )
    assert definition(told) == definition(shops.view)
    assert shops.built().ref == build(shops.ledger, told, ingest(shops.ledger, shops.sales).output).output.ref
    assert len(shops.ledger.executions(kind="feature view")) == 1
    said = {"description": "what was sold last", "owner": "bob", "tags": ["sales"], "features": {"amount": "Euro"}}
    assert told.about() == said


parts = st.text(st.sampled_from(["1", "\x1e", "\x1f", "0", "ü"]), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(parts, parts), min_size=2, max_size=6, unique=True))
def test_no_two_composite_keys_have_one_text(keys: list[tuple[str, str]]) -> None:
    texts = joined([Coded.of(key[side] for key in keys) for side in (0, 1)]).texts()
    assert len(set(texts)) == len(keys)
    with engine() as connection:
        for key, text in zip(keys, texts, strict=True):
            assert connection.execute(f"SELECT {joined_sql(['?', '?'])}", list(key)).fetchone() == (text,)


def test_a_few_composite_keys_cost_long_vocabularies_nothing() -> None:
    class Counted(tuple[str, ...]):
        """Words that tell how many of them were looked at."""

        seen = 0

        def __getitem__(self, place: Any) -> Any:
            Counted.seen += 1
            return super().__getitem__(place)

        def __iter__(self) -> Any:
            Counted.seen += len(self)
            return super().__iter__()

    words = Counted(f"user{i:05}" for i in range(10_000))
    parts = [Coded(np.array(codes, dtype=np.int32), words) for codes in ([5, 5, -1], [7, 5, 7])]
    assert joined(parts).texts() == ["user00005\x1fuser00007", "user00005\x1fuser00005", None]
    assert Counted.seen < 10
