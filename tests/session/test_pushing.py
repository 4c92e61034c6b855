"""Rows pushed to a project's datasets, as a user has them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tidemill.core import DataError, UnknownName
from tidemill.session import Session

VIEWS = """
import tidemill as tm

sales = tm.Dataset("sales", {"s": tm.Source("sales.csv")}, event_time="sold")
shop = tm.Entity("shop", key="shop")
newest = tm.FeatureView("newest", sales, shop, features={"amount": tm.last("amount"), "kind": tm.category("kind")})
"""
TIMES = ["2026-03-10T10:00:00+00:00", "2026-03-10T11:00:00+00:00"]
COLUMNS: dict[str, Any] = {"shop": [1, 2], "sold": TIMES, "amount": [7.5, None], "kind": ["a", None]}
ROW = {name: values[0] for name, values in COLUMNS.items()}


@pytest.fixture
def shops(tmp_path: Path) -> Session:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (tmp_path / "views.py").write_text(VIEWS)
    (tmp_path / "sales.csv").write_text("shop,sold,amount,kind\n9,2024-03-10T10:00:00Z,1.5,x\n")
    session = Session(tmp_path)
    session.materialise()
    return session


def zoned(columns: dict[str, Any]) -> dict[str, Any]:
    return columns | {"sold": [datetime.fromisoformat(time) for time in columns["sold"]]}


FRAMES = {
    "list of dicts": [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
    "dict of lists": COLUMNS,
    "arrays": {**COLUMNS, "shop": np.array([1, 2]), "amount": np.array([7.5, np.nan])},
    "pandas": pd.DataFrame(zoned(COLUMNS)),
    "pandas with gaps": pd.DataFrame(zoned(COLUMNS)).convert_dtypes(),
    "polars": pl.DataFrame(zoned(COLUMNS)),
    "arrow": pl.DataFrame(zoned(COLUMNS)),
}


@pytest.mark.parametrize("rows", FRAMES)
def test_rows_are_pushed_from_whatever_holds_them(shops: Session, rows: str) -> None:
    given = FRAMES[rows] if rows != "arrow" else pytest.importorskip("pyarrow").table(FRAMES[rows])
    assert shops.push("sales", given)["rows"] == 2
    found = shops.online_features([{"shop": 1}, {"shop": 2}], ["newest"])
    assert (found.rows, found.offline) == ([[7.5, "a"], [None, None]], {})


def test_after_historical_features_have_read_what_was_pushed_the_store_answers_still(shops: Session) -> None:
    shops.push("sales", COLUMNS)
    shops.historical_features({"shop": [1], "at": ["2036-03-10T10:00:00Z"]}, ["newest"], at="at")
    found = Session(shops.project.folder).online_features([{"shop": 1}, {"shop": 2}], ["newest"])
    assert (found.rows, found.offline) == ([[7.5, "a"], [None, None]], {})


@pytest.mark.parametrize("time", [pd.Timestamp(TIMES[0]), datetime(2026, 3, 10, 10, tzinfo=UTC)])
def test_a_time_is_any_datetime(shops: Session, time: object) -> None:
    shops.push("sales", ROW | {"sold": time, "amount": pd.NA, "shop": np.int64(1)})
    assert shops.online_features({"shop": 1}, ["newest"], at="2036-03-10T10:00:00Z").rows == [[None, "a"]]
    with pytest.raises(DataError, match="row 0: sold is null"):
        shops.push("sales", ROW | {"sold": pd.NaT})


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (pd.DataFrame([[1, 2]], columns=["shop", "shop"]), "the rows have two columns 'shop'"),
        (pd.DataFrame({"shop": [1]}), "row 0: it lacks 'amount'"),
        (pd.DataFrame(COLUMNS).assign(more=1), "row 0: there is no column 'more'"),
        (COLUMNS | {"shop": [1]}, "the columns have different lengths"),
        ({}, "row 0: it lacks"),
        ("shop", "row 0: 's' is no row"),
    ],
)
def test_rows_that_do_not_fit_are_refused(shops: Session, rows: object, what: str) -> None:
    with pytest.raises(DataError, match=what):
        shops.push("sales", rows)


def test_times_of_nanoseconds_are_times_and_what_python_cannot_hold_is_refused(shops: Session) -> None:
    sold = np.array([time.removesuffix("+00:00") for time in TIMES], dtype="datetime64[ns]")
    with pytest.raises(DataError, match=r"row 0: .*amount"):
        shops.push("sales", COLUMNS | {"amount": sold})
    with pytest.raises(DataError, match=r"the rows cannot be written: .*longdouble"):
        shops.push("sales", ROW | {"amount": np.longdouble(7)})
    shops.push("sales", COLUMNS | {"kind": sold})
    assert shops.online_features({"shop": 1}, ["newest"]).rows == [[7.5, "2026-03-10T10:00:00"]]


def test_a_source_goes_with_offsets_and_a_dataset_that_is_declared(shops: Session) -> None:
    with pytest.raises(DataError, match="the offsets of a push do not fit") as error:
        shops.push("sales", ROW, source="kafka:x")
    assert "one ascending whole number for each row" in error.value.hint
    shops.push("sales", ROW, source="kafka:x", offsets=0)
    assert (shops.pushed_offset("sales", "kafka:x"), shops.pushed_offset("sales", "kafka:y")) == (0, None)
    with pytest.raises(UnknownName, match="'salles'"):
        shops.pushed_offset("salles", "kafka:x")
