"""Features of any rows: whatever holds them, whatever is odd about them, in memory and in a file a part at a time."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tidemill as tm
from features.oracle import EXAMPLES, Row, floor_to, hop_of
from features.ours import write_table
from features.test_point_in_time import VIEWS, WIDTHS, asked, expected, log_of, rows_of
from tidemill.cli import tidemill as tidemill_
from tidemill.core import HOUR, DataError, DefinitionError, MissingFile, StoreError, UnknownName, instant, show
from tidemill.data import engine
from tidemill.features import Historical, Opened, Question, choose, historical
from tidemill.features.windows import Events, newest
from tidemill.session import Session

DECLARED = """import tidemill as tm

sales = tm.Dataset("sales", {"s": tm.Source("sales.parquet", format="parquet")}, event_time="sold", known_at="told")
shop = tm.Entity("shop", key="shop")
newest = tm.FeatureView("newest", sales, shop, {"amount": tm.last("amount"), "kind": tm.category("kind")}, ttl="1d")
counts = tm.FeatureView("counts", sales, shop, {"n": tm.count(), "sum": tm.sum("amount")}, windows=["1h", "2h"])
asked = tm.Dataset("asked", {"s": tm.Source("sales.parquet", format="parquet")}, event_time="sold", key=["shop", "sold"])
own = tm.RequestView("own", asked, {"hour": "hour(sold)"})
"""
SALES = [
    (7, "2024-03-10T10:00Z", "2024-03-10T10:00Z", 1.0, "x"),
    (7, "2024-03-10T10:30Z", "2024-03-10T12:00Z", 2.0, None),
    (8, "2024-03-10T10:00Z", "2024-03-10T10:00Z", None, None),
]
TYPES = {"shop": "BIGINT", "sold": "TIMESTAMPTZ", "told": "TIMESTAMPTZ", "amount": "DOUBLE", "kind": "VARCHAR"}
ELEVEN = datetime(2024, 3, 10, 11, tzinfo=UTC)
ROWS: dict[str, Any] = {"label": [1, 0, 1, 1], "shop": [8, 7, 9, 7], "event_timestamp": [ELEVEN, ELEVEN, ELEVEN, ELEVEN]}
AMOUNTS = [None, 1.0, None, 1.0]
KINDS = [None, "x", None, "x"]


@pytest.fixture
def shops(tmp_path: Path) -> Session:
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (tmp_path / "views.py").write_text(DECLARED)
    write_table(tmp_path / "sales.parquet", TYPES, SALES)
    return tm.open(tmp_path)


def plain(values: Any) -> list[Any]:
    """A column as a list, missing as None."""
    return [None if value is None or value != value else value for value in (values.tolist() if hasattr(values, "tolist") else values)]


# ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pandas_frame_comes_back_as_one_with_its_rows_and_columns(shops: Session) -> None:
    frame = pd.DataFrame(ROWS, index=[5, 5, 3, 1])
    found = shops.historical_features(frame, ["newest"])
    assert isinstance(found.frame, pd.DataFrame)
    assert list(found.frame.columns) == ["label", "shop", "event_timestamp", "newest__amount", "newest__kind"]
    pd.testing.assert_frame_equal(found.frame[list(ROWS)], frame)
    assert plain(found.frame["newest__amount"]) == AMOUNTS
    assert plain(found.frame["newest__kind"]) == KINDS
    assert list(frame.columns) == list(ROWS), "the frame that was given is as it was"


def test_rows_that_were_turned_round_are_read_as_they_stand(shops: Session) -> None:
    arrays = {"shop": np.array(ROWS["shop"]), "event_timestamp": np.array(["2024-03-10T11:00"] * 4, dtype="datetime64[us]")}
    for rows in (pd.DataFrame(ROWS).iloc[::-1], {name: column[::-1] for name, column in arrays.items()}):
        found = shops.historical_features(rows, ["newest"], timezone="UTC")
        assert plain(found.columns["newest__amount"]) == AMOUNTS[::-1]


def test_a_dict_of_arrays_comes_back_as_one(shops: Session) -> None:
    rows = {name: np.array(column) for name, column in ROWS.items() if name != "event_timestamp"}
    rows["event_timestamp"] = np.array(["2024-03-10T11:00"] * 4, dtype="datetime64[s]")
    found = shops.historical_features(rows, ["newest"], timezone="UTC")
    assert list(found.frame) == [*rows, "newest__amount", "newest__kind"]
    assert found.frame["label"] is rows["label"]
    assert plain(found.frame["newest__amount"]) == AMOUNTS
    assert plain(found.columns["newest__kind"]) == KINDS


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_frame_of_another_library_comes_back_as_one(shops: Session, library: str) -> None:
    module = pytest.importorskip(library, reason="with pyarrow beside it pandas is another pandas; pip install pyarrow")
    frame = module.DataFrame(ROWS) if library == "polars" else module.table(ROWS)
    found = shops.historical_features(frame, ["newest", "counts:n_1h"]).frame
    assert type(found) is type(frame)
    names = found.columns if library == "polars" else found.column_names
    assert names == [*ROWS, "newest__amount", "newest__kind", "counts__n_1h"]
    columns = {name: found[name].to_list() if library == "polars" else found[name].to_pylist() for name in names}
    assert columns["newest__amount"] == AMOUNTS, "null, not NaN"
    assert columns["newest__kind"] == KINDS


class Streamed:
    """Something that speaks Arrow and is no frame of a known library."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        self.connection = duckdb.connect()
        return self.connection.sql(self.sql).__arrow_c_stream__(requested_schema)


def test_a_list_of_dicts_comes_back_as_one(shops: Session) -> None:
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    found = shops.historical_features(rows, ["newest"])
    added = [{"newest__amount": amount, "newest__kind": kind} for amount, kind in zip(AMOUNTS, KINDS, strict=True)]
    assert found.frame == [{**row, **more} for row, more in zip(rows, added, strict=True)]
    with pytest.raises(DataError, match="the list has no column 'shop'"):
        shops.historical_features([{"event_timestamp": ELEVEN}], ["newest"])


LARGE = 2**53  # from which on a float is not every whole number
keys = st.sampled_from(
    [7, 7.0, "7", "8", 8, None, float("nan"), np.int64(7), np.float32(8), np.str_("8"), 7.5, 2**63, True, LARGE, LARGE + 1, np.uint64(7)]
)


def held(shop: list[Any], holder: str) -> Any:
    """Rows with keys as something holds them."""
    at = ["2024-03-10T11:00Z"] * len(shop)
    column: Any = np.empty(len(shop), dtype=object)
    column[:] = shop
    if holder == "list":
        return [{"shop": one, "at": "2024-03-10T11:00Z"} for one in shop]
    if holder in ("pandas", "category"):
        series = pd.Series(shop, dtype=object)
        return pd.DataFrame({"shop": series.astype("category") if holder == "category" else series, "at": at})
    if holder == "masked":
        nothing = [one is None for one in shop]
        column = np.ma.MaskedArray(np.where(nothing, 7, column), nothing)
    elif holder == "polars":
        column = pytest.importorskip("polars").Series(shop)
    return {"shop": shop if holder == "dict" else column, "at": at}


@pytest.fixture
def large(shops: Session) -> Session:
    """With a shop of the number that floats give to two."""
    write_table(shops.project.folder / "sales.parquet", TYPES, [*SALES, (LARGE, *SALES[0][1:])])
    shops.materialise()
    return shops


@settings(max_examples=3 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shop=st.lists(keys, min_size=1, max_size=4),
    often=st.sampled_from([1, 700]),
    holder=st.sampled_from(["dict", "array", "list", "pandas", "category", "masked"]),
)
@example(shop=[7, 7.5], often=5_000, holder="list")
def test_keys_of_several_kinds_find_what_each_finds_online_or_are_refused(large: Session, shop: list[Any], often: int, holder: str) -> None:
    """Of many rows the engine would tell the type of a column by some."""
    shop = [*shop[:1] * often, *shop[1:]]
    try:
        found = ask(large, held(shop, holder), at="at", status=True).columns["newest__status"].tolist()
    except DataError:
        floats = any(isinstance(one, (float, np.floating)) and one == one for one in shop)
        texts, wide = any(isinstance(one, str) for one in shop), any(isinstance(one, int) and one >= LARGE for one in shop)
        assert True in shop or (floats and (texts or wide))
        return
    for one, status in {(type(one), str(one)): (one, status) for one, status in zip(shop, found, strict=True)}.values():
        assert status == large.online_features({"shop": one}, ["newest"], at="2024-03-10T11:00Z").status["newest"][0], one


@pytest.mark.parametrize("holder", ["dict", "array", "list", "pandas", "category", "masked", "polars"])
def test_large_numbers_with_gaps_are_not_rounded(large: Session, holder: str) -> None:
    found = ask(large, held([LARGE, LARGE + 1, None], holder), at="at", status=True)
    assert found.columns["newest__status"].tolist() == ["present", "unknown", "unknown"]
    for column in (np.array([float(LARGE)]), pd.array([float(LARGE), None], dtype="Float64")):
        with pytest.raises(
            DataError, match=r"^the key 'shop' of the dict is DOUBLE, in which several whole numbers are one from 9007199254740992"
        ) as refused:
            ask(large, {"shop": column, "at": ["2024-03-10T11:00Z"] * len(column)}, at="at")
        assert (refused.value.where, refused.value.hint) == ("the dict", "give it as whole numbers, or as texts")
    (large.project.folder / "rows.csv").write_text(f"shop,at\n{LARGE + 1},2024-03-10T11:00:00Z\n7.0,2024-03-10T11:00:00Z\n")
    with pytest.raises(DataError, match=r"the key 'shop' of rows.csv is DOUBLE"):
        ask(large, large.project.folder / "rows.csv", at="at")
    with pytest.raises(DataError, match=r"the key 'shop' is 9007199254740992.0, a float that stands for several whole numbers"):
        large.online_features({"shop": float(LARGE)}, ["newest"])


def test_a_dataset_whose_keys_are_floats_that_stand_for_several_is_refused(shops: Session) -> None:
    write_table(shops.project.folder / "sales.parquet", TYPES | {"shop": "DOUBLE"}, [*SALES, (float(LARGE), *SALES[0][1:])])
    with pytest.raises(DataError, match=r"the key 'shop' of dataset 'sales' is DOUBLE, in which several whole"):
        ask(shops, held([7], "dict"), at="at")


def test_what_only_passes_through_may_be_anything_a_column_holds(shops: Session, tmp_path: Path) -> None:
    more = {
        "embedding": [np.array([0.5, 1.5]), np.array([2.5, 3.5])],
        "pair": [(1, 2), [3, 4]],
        "sums": [[2**70], [1]],
        "bytes": [b"a", "b"],
    }
    rows = pd.DataFrame(
        {"shop": [7, 8], "event_timestamp": [ELEVEN] * 2} | {name: pd.Series(one, dtype=object) for name, one in more.items()}
    )
    kept = rows.copy(deep=True)
    ask(shops, rows, to=tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(rows, kept)
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT embedding, pair, newest__amount FROM '{tmp_path / 'out.parquet'}'").fetchall()
    assert found == [([0.5, 1.5], [1, 2], 1.0), ([2.5, 3.5], [3, 4], None)]


def test_texts_and_lists_in_plain_lists_are_what_they_are(shops: Session, tmp_path: Path) -> None:
    write_table(tmp_path / "sales.parquet", TYPES | {"shop": "VARCHAR"}, [("7", *SALES[0][1:]), ("7\0", *SALES[1][1:])])
    rows = {"shop": ["7", "7\0", "7\0\0"], "event_timestamp": ["2024-03-10T13:00Z"] * 3, "tags": [["a"], ["b"], ["c"]]}
    found = ask(shops, rows, to=None, status=True)
    assert plain(found.columns["newest__status"]) == ["present", "present", "unknown"]
    assert plain(found.columns["newest__amount"]) == [1.0, 2.0, None]
    assert found.frame["tags"] is rows["tags"]
    nothing = pd.DataFrame({"shop": [np.nan] * 2, "event_timestamp": [ELEVEN] * 2})
    assert plain(ask(shops, nothing, status=True).columns["newest__status"]) == ["unknown"] * 2


def test_a_polars_frame_with_nothing_and_one_with_objects(shops: Session, tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"shop": [7, 8], "event_timestamp": [ELEVEN] * 2, "x": [None, None]})
    ask(shops, frame, to=tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet")["x"].to_list() == [None, None]
    with pytest.raises(DataError, match="the column 'o' of the frame holds Python's objects"):
        ask(shops, frame.with_columns(o=pl.Series([object(), object()], dtype=pl.Object)), to=tmp_path / "out.parquet")


def test_a_mask_and_the_types_of_no_rows_are_kept(shops: Session, tmp_path: Path) -> None:
    at = np.ma.MaskedArray(np.array(["2024-03-10T11:00"] * 2, dtype="datetime64[ns]"), [False, False])
    shop = np.ma.MaskedArray(np.array([7, 7]), [False, True])
    assert plain(ask(shops, {"shop": shop, "event_timestamp": at}, timezone="UTC").columns["newest__amount"]) == [1.0, None]
    typed = pd.DataFrame(
        {"shop": np.array([], np.int64), "event_timestamp": np.array([], dtype="datetime64[us]"), "x": np.array([], np.float64)}
    )
    ask(shops, typed, timezone="UTC", to=tmp_path / "none.parquet")
    with duckdb.connect() as connection:
        kinds = [str(column[1]) for column in connection.sql(f"SELECT * FROM '{tmp_path / 'none.parquet'}'").description]
    assert kinds[:3] == ["BIGINT", "TIMESTAMP", "DOUBLE"]


@pytest.mark.parametrize(
    "rows", [{"shop": [], "event_timestamp": []}, [], pd.DataFrame({"shop": [], "event_timestamp": []})], ids=["dict", "list", "pandas"]
)
def test_no_rows_have_no_features(shops: Session, rows: Any) -> None:
    found = ask(shops, rows)
    assert (type(found.frame), len(found.columns["newest__amount"])) == (type(rows), 0)


def test_a_column_that_is_none_of_a_feature_is_written_as_it_came(shops: Session, tmp_path: Path) -> None:
    """Of objects the engine would make whole numbers what is mostly such."""
    rows = pd.DataFrame({"shop": [7] * 5_000, "event_timestamp": [ELEVEN] * 5_000, "label": pd.Series([1] * 4_999 + [1.5], dtype=object)})
    ask(shops, rows.assign(wide=2**80 + 1), to=tmp_path / "out.parquet")
    with duckdb.connect() as connection:
        rows_ = f"SELECT sum(label), any_value(wide)::VARCHAR FROM '{tmp_path / 'out.parquet'}'"
        assert connection.sql(rows_).fetchall() == [(5_000.5, str(2**80 + 1))]


SQL = "SELECT 1 AS label, unnest([8, 7, 9, 7]) AS shop, TIMESTAMPTZ '2024-03-10 11:00:00+00' AS event_timestamp"


def rows_of_stream(stream: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.register("stream", stream)
        return connection.execute("SELECT * EXCLUDE (event_timestamp) FROM stream").fetchall()


def test_what_else_speaks_arrow_comes_back_speaking_arrow(shops: Session) -> None:
    found = shops.historical_features(Streamed(SQL), ["newest"]).frame
    told = [(1, shop, amount, kind) for shop, amount, kind in zip(ROWS["shop"], AMOUNTS, KINDS, strict=True)]
    assert rows_of_stream(found) == told
    assert rows_of_stream(found) == told, "as often as it is asked"


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.csv.gz", "rows[1]*?.csv", "rows[1]*?.parquet"])
def test_a_file_is_read_and_written(shops: Session, tmp_path: Path, name: str) -> None:
    file, out = tmp_path / name, tmp_path / "out.parquet"
    (tmp_path / name.replace("[1]*?", "1xy")).write_text("its name fits, were the other a pattern")
    duckdb.connect().execute(f"SET TimeZone = 'UTC'; COPY ({SQL}) TO '{file}'")
    found = shops.historical_features(file, ["newest"])
    told = [(1, shop, amount, kind) for shop, amount, kind in zip(ROWS["shop"], AMOUNTS, KINDS, strict=True)]
    assert rows_of_stream(found.frame) == told
    written = shops.historical_features(str(file), ["newest"], to=out)
    assert written.frame is None
    assert written.report == found.report
    assert duckdb.connect().execute(f"SELECT * EXCLUDE (event_timestamp) FROM '{out}'").fetchall() == told
    assert not list(tmp_path.glob(".*.part"))


def test_a_file_is_written_a_part_at_a_time(shops: Session, tmp_path: Path) -> None:
    count = 150_000  # three parts: a part has at least 65,536 rows
    random = np.random.default_rng(1)
    times = np.datetime64("2024-03-10T09:00") + random.integers(0, 300, count).astype("timedelta64[m]")
    rows = {"row": np.arange(count), "shop": random.choice([7, 8, 9], count), "event_timestamp": times}
    whole = shops.historical_features(rows, ["newest", "counts"], timezone="UTC", status=True)
    parts = shops.historical_features(rows, ["newest", "counts"], timezone="UTC", status=True, to=tmp_path / "out.parquet")
    names = [*rows, *whole.columns]
    read = duckdb.connect().execute(f"SELECT * FROM '{tmp_path / 'out.parquet'}'").fetchnumpy()
    assert list(read) == names
    assert parts.report == whole.report
    assert (read["row"] == rows["row"]).all()
    for name, column in whole.columns.items():
        assert plain(read[name].tolist()) == plain(column), name


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_features_come_in_the_order_asked(shops: Session) -> None:
    frame = pd.DataFrame(ROWS)
    views = ["counts:sum", "newest:kind", "counts:n_2h", shops.project.get(tm.FeatureView, "newest")][:3]
    found = shops.historical_features(frame, views)
    assert list(found.columns) == ["counts__sum_1h", "counts__sum_2h", "newest__kind", "counts__n_2h"]
    assert next(iter(shops.historical_features(frame, [shops.project.get(tm.FeatureView, "counts")]).columns)) == "counts__n_1h"
    assert plain(found.columns["counts__n_2h"]) == [1, 1, None, 1]


def test_two_views_of_one_name_are_told_apart(shops: Session) -> None:
    declared = shops.project.get(tm.FeatureView, "newest")
    other = tm.FeatureView("newest", declared.dataset, declared.entity, {"kind": tm.category("kind")})
    with pytest.raises(DefinitionError, match="two views named 'newest' are asked for"):
        shops.historical_features(pd.DataFrame(ROWS), ["newest:amount", other])
    same = shops.historical_features(pd.DataFrame(ROWS), ["newest:amount", "newest:kind"]).columns
    assert list(same) == ["newest__amount", "newest__kind"]


def test_statuses_and_leaks_are_told(shops: Session) -> None:
    frame = pd.DataFrame({"shop": [7, 8, 9, 7], "at": [ELEVEN, ELEVEN, ELEVEN, datetime(2024, 3, 20, tzinfo=UTC)]})
    found = shops.historical_features(frame, ["newest"], at="at", status=True)
    assert found.columns["newest__status"].tolist() == ["present", "null", "unknown", "expired"]
    plainly = {"present": 1, "null": 1, "unknown": 1, "expired": 1, "leaks": 1}
    assert found.report.plain() == {"rows": 4, "as_known": True, "views": {"newest": plainly}}
    assert "1 would have been answered by what was not known yet" in repr(found)
    leaky = shops.historical_features(frame, ["newest", "counts"], at="at", as_known=False)
    assert plain(leaky.columns["newest__amount"]) == [2.0, None, None, None]
    assert plain(leaky.columns["counts__n_1h"]) == [2, 1, None, 0]
    assert leaky.report.leaks == {"newest": 1, "counts": 1}
    assert "1 are answered by what was not known yet" in repr(leaky)


def test_no_rows_and_no_matches(shops: Session) -> None:
    nothing = pd.DataFrame({"shop": pd.Series([], dtype="int64"), "event_timestamp": pd.Series([], dtype="datetime64[us, UTC]")})
    found = shops.historical_features(nothing, ["newest", "counts"])
    assert len(found.frame) == 0
    assert list(found.frame.columns) == [
        "shop",
        "event_timestamp",
        "newest__amount",
        "newest__kind",
        *(f"counts__{n}" for n in ("n_1h", "sum_1h", "n_2h", "sum_2h")),
    ]
    none = shops.historical_features(pd.DataFrame({"shop": [1], "event_timestamp": [ELEVEN]}), ["newest", "counts"])
    assert plain(none.columns["newest__amount"]) == plain(none.columns["counts__n_1h"]) == [None]
    assert none.report.statuses["counts"]["unknown"] == 1


def test_versions_are_found_in_the_cache(shops: Session) -> None:
    for _ in range(2):
        shops.historical_features(pd.DataFrame(ROWS), ["newest"])
    assert len(shops.ledger.executions(kind="feature view")) == 1


@pytest.mark.parametrize(
    ("shop", "matched"),
    [
        ([7, None], [True, False]),  # pandas holds it as 7.0 and NaN
        (np.array([7.0, 7.5]), [True, False]),
        (np.array([7, 9], dtype="uint8"), [True, False]),
        (["7", "07"], [True, False]),
        (pd.Categorical(["7", None]), [True, False]),
        (pd.array([7, None], dtype="Int64"), [True, False]),
    ],
)
def test_keys_are_matched_by_value(shops: Session, shop: Any, matched: list[bool]) -> None:
    frame = pd.DataFrame({"shop": shop, "event_timestamp": [ELEVEN, ELEVEN]})
    assert [value is not None for value in plain(shops.historical_features(frame, ["newest"]).columns["newest__amount"])] == matched


@pytest.mark.parametrize(
    ("kind", "key", "other"),
    [
        ("UUID", UUID(int=7), UUID(int=8)),
        ("UUID", str(UUID(int=7)), "7"),
        ("DATE", date(2024, 3, 9), date(2024, 3, 8)),
        ("DATE", datetime(2024, 3, 9), datetime(2024, 3, 9, 1)),  # noqa: DTZ001 – a date, as pandas holds it
        ("DATE", "2024-03-09", "09.03.2024"),
        ("VARCHAR", 7, 70),
    ],
)
def test_keys_of_every_type(shops: Session, tmp_path: Path, kind: str, key: Any, other: Any) -> None:
    held = key.date() if isinstance(key, datetime) else str(key) if kind == "VARCHAR" else key
    write_table(tmp_path / "sales.parquet", TYPES | {"shop": kind}, [(held, *SALES[0][1:])])
    frame = pd.DataFrame({"shop": [key, other, None], "event_timestamp": [ELEVEN] * 3}, dtype=object if kind == "VARCHAR" else None)
    assert plain(shops.historical_features(frame, ["newest"]).columns["newest__amount"]) == [1.0, None, None]


@pytest.mark.parametrize(
    ("at", "timezone", "amount"),
    [
        ("2024-03-10T11:00:00Z", "", 1.0),
        ("2024-03-10T15:29:59+05:30", "", None),
        ("2024-03-10 12:00:00 Europe/Berlin", "", 1.0),
        ("2024-03-10 10:59:59 UTC", "Europe/Berlin", 1.0),
        ("2024-03-10 11:00:00", "Europe/Berlin", 1.0),
        ("2024-03-10 10:59:59", "Europe/Berlin", None),
        ("2024-03-11", "UTC", 2.0),
    ],
)
def test_texts_are_times(shops: Session, at: str, timezone: str, amount: float | None) -> None:
    found = shops.historical_features({"shop": np.array([7]), "at": np.array([at])}, ["newest:amount"], at="at", timezone=timezone)
    assert plain(found.columns["newest__amount"]) == [amount]


@pytest.mark.parametrize(
    ("zone", "local", "instant_"),
    [
        ("Europe/Berlin", "2024-10-27T02:50:00", "2024-10-27T00:50Z"),  # again at 01:50Z
        ("Europe/Berlin", "2024-10-27T03:00:00", "2024-10-27T02:00Z"),
        ("Europe/Berlin", "2024-03-31T01:59:59", "2024-03-31T00:59:59Z"),
        ("Australia/Lord_Howe", "2024-04-07T01:45:00", "2024-04-06T14:45Z"),  # half an hour
        ("Antarctica/Troll", "2024-10-27T01:30:00", "2024-10-26T23:30Z"),  # two hours
        ("America/New_York", "2013-11-03T01:30:00", "2013-11-03T05:30Z"),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_local_time_that_comes_twice_is_the_first(tmp_path: Path, zone: str, local: str, instant_: str, as_text: bool) -> None:
    at, second = instant(instant_), 1_000_000
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "shops"\n')
    (tmp_path / "views.py").write_text(DECLARED)
    write_table(
        tmp_path / "sales.parquet", TYPES, [(7, show(at + ago), show(at + ago), amount, "x") for ago, amount in ((0, 1.0), (second, 2.0))]
    )
    when = np.array([local]) if as_text else np.array([local], dtype="datetime64[us]")
    found = tm.open(tmp_path).historical_features({"shop": np.array([7]), "at": when}, ["newest:amount"], at="at", timezone=zone)
    assert plain(found.columns["newest__amount"]) == [1.0]


def ask(shops: Session, rows: object, views: Any = ("newest",), **more: Any) -> Historical:
    return shops.historical_features(rows, views if isinstance(views, str) else list(views), **more)


GOOD = {"shop": np.array([7]), "event_timestamp": np.array(["2024-03-10T11:00"], dtype="datetime64[us]")}


@pytest.mark.parametrize(
    ("rows", "more", "kind", "what"),
    [
        (GOOD, {}, DataError, "times of 'event_timestamp' in the dict have no time zone"),
        (GOOD | {"event_timestamp": ["2024-03-10 11:00"]}, {}, DataError, "'2024-03-10 11:00' in row 0 of the dict has no time zone"),
        (GOOD | {"event_timestamp": ["soon"]}, {}, DataError, "'soon' in row 0 of the dict is no time"),
        (GOOD | {"event_timestamp": ["soon"]}, {"timezone": "UTC"}, DataError, "'soon' in row 0 of the dict is no time"),
        (GOOD | {"event_timestamp": ["infinity"]}, {}, DataError, "'infinity' in row 0 of the dict is no time"),
        (GOOD | {"event_timestamp": ["2024-13-10 11:00Z"]}, {}, DataError, "'2024-13-10 11:00Z' in row 0 of the dict is no time"),
        (GOOD | {"event_timestamp": np.array([5])}, {}, DataError, "'event_timestamp' of the dict is a whole number, not a time"),
        (
            GOOD | {"event_timestamp": np.array(["NaT"], dtype="datetime64[us]")},
            {"timezone": "UTC"},
            DataError,
            "row 0 of the dict has no time",
        ),
        (GOOD, {"timezone": "Berlin"}, DefinitionError, "timezone='Berlin' is not a time zone"),
        (GOOD, {"timezone": 1}, DefinitionError, "timezone=1 is not a time zone"),
        (GOOD, {"at": "when"}, DataError, "the dict has no column 'when'"),
        (pd.DataFrame(ROWS), {"at": None}, DataError, "the frame has no column None"),
        (pd.DataFrame(ROWS)["shop"], {}, DataError, "rows is a Series, which holds no table"),
        (
            pd.DataFrame(ROWS | {"shop": [1j, 2j, 3j, 4j]}),
            {},
            DataError,
            "the column 'shop' of the frame cannot be read: it has the type complex128",
        ),
        ({"event_timestamp": GOOD["event_timestamp"]}, {}, DataError, "the dict has no column 'shop'"),
        (GOOD | {"newest__amount": np.array([1])}, {"timezone": "UTC"}, DataError, "has a column 'newest__amount' already"),
        (GOOD | {"Newest__Amount": np.array([1])}, {"timezone": "UTC"}, DataError, "has a column 'newest__amount' already"),
        (GOOD | {"SHOP": np.array([1])}, {"timezone": "UTC"}, DataError, "the columns 'shop' and 'SHOP', which differ by case alone"),
        (GOOD | {"x": np.array([1, 2])}, {"timezone": "UTC"}, DataError, "the columns of the dict have different lengths: .*'x': 2"),
        (GOOD | {"shop": np.array(["2024-03-10"], dtype="datetime64[D]")}, {"timezone": "UTC"}, DataError, "no two of them are equal"),
        (pd.DataFrame([[1, 2]], columns=["shop", "shop"]), {}, DataError, "the frame has two columns 'shop'"),
        (
            {"shop": [7, "7", 7.0], "event_timestamp": [ELEVEN] * 3},
            {},
            DataError,
            "the column 'shop' of the dict holds '7' in row 1 and 7.0 in row 2",
        ),
        (
            pd.DataFrame(ROWS | {"shop": ["7", True, 8, None]}),
            {},
            DataError,
            "the column 'shop' of the frame holds '7' in row 0 and True in row 1",
        ),
        (
            {"shop": [7, LARGE + 1, 1.5], "event_timestamp": [ELEVEN] * 3},
            {},
            DataError,
            r"the dict holds 9007199254740993 in row 1 and 1.5 in",
        ),
        ({"shop": [2**127], "event_timestamp": [ELEVEN]}, {}, DataError, r"'shop' of the dict holds 1701\d+ in row 0, which is too large"),
        ({"shop": [7, 8], "event_timestamp": [date(2024, 3, 1), ELEVEN]}, {}, DataError, r"holds datetime.date\(2024, 3, 1\) in row 0 and"),
        ({"shop": [7, 8], "event_timestamp": [None, None]}, {}, DataError, "row 0 of the dict has no time in 'event_timestamp'"),
        ({"shop": [7, [8]], "event_timestamp": [ELEVEN] * 2}, {}, DataError, r"'shop' of the dict holds 7 in row 0 and \[8\] in row 1"),
        ([{"shop": [7]}, {"shop": [7, 8]}], {"at": "shop"}, DataError, "'shop' of the list is .*, not a time"),
        (pd.DataFrame({"shop": ["7"], "event_timestamp": [7.5]}), {}, DataError, "'event_timestamp' of the frame is a number, not a time"),
        ([1, 2], {}, DataError, "row 0 is 1, and no dict by column"),
        ([{"shop": 7}, [8]], {}, DataError, r"row 1 is \[8\], and no dict by column"),
        ("nowhere.parquet", {}, MissingFile, "there is no file 'nowhere.parquet'"),
        (".", {}, MissingFile, "'.+' is a folder"),
        (GOOD, {"timezone": "UTC", "to": "."}, DataError, ".+ is a folder"),
        (GOOD, {"timezone": "UTC", "to": "out.csv"}, DataError, "out.csv is not the name of a Parquet file"),
        (GOOD, {"timezone": "UTC", "to": "out.parquet", "chunk": -1}, DefinitionError, "chunk=-1 is"),
        (GOOD, {"timezone": "UTC", "to": "out.parquet", "chunk": "5"}, DefinitionError, "chunk='5' is no whole number"),
        (GOOD, {"views": ["newst"]}, UnknownName, "no view 'newst' is declared"),
        (GOOD, {"views": ["newest:amont"]}, UnknownName, "view 'newest' has no feature 'amont'"),
        (GOOD, {"views": ["newest", "newest:kind"]}, DefinitionError, "'newest__kind' is asked for twice"),
        (GOOD, {"views": []}, DefinitionError, "is no list of views"),
        (GOOD, {"views": "newest"}, DefinitionError, "is no list of views"),
        (GOOD, {"views": [7]}, DefinitionError, "7 is no view"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_to_do(
    shops: Session, rows: Any, more: dict[str, Any], kind: type[Exception], what: str
) -> None:
    with pytest.raises(kind, match=what) as error:
        ask(shops, rows, **more)
    assert error.value.hint  # type: ignore[attr-defined]


def test_a_float_is_no_text_key(shops: Session, tmp_path: Path) -> None:
    write_table(tmp_path / "sales.parquet", TYPES | {"shop": "VARCHAR"}, [("7", *SALES[0][1:])])
    with pytest.raises(DataError, match="the key 'shop' of the frame is a number, the view's is a text"):
        ask(shops, pd.DataFrame({"shop": [7.0, None], "event_timestamp": [ELEVEN] * 2}))


def test_a_feature_named_status_and_the_status_of_its_view_are_two_columns(shops: Session, tmp_path: Path) -> None:
    (tmp_path / "views.py").write_text(DECLARED.replace('"kind": tm.category("kind")', '"status": tm.category("kind")'))
    session = tm.open(tmp_path)
    assert plain(ask(session, pd.DataFrame(ROWS)).columns["newest__status"]) == KINDS
    with pytest.raises(DefinitionError, match="two columns would be named 'newest__status'"):
        ask(session, pd.DataFrame(ROWS), status=True)


def test_a_file_with_two_columns_of_one_name_is_refused(shops: Session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("shop,event_timestamp,Shop\n7,2024-03-10T11:00:00Z,8\n")
    with pytest.raises(DataError, match="the columns 'shop' and 'Shop', which differ by case alone"):
        ask(shops, tmp_path / "rows.csv")


def test_how_the_ending_of_a_file_is_spelt_does_not_matter(shops: Session, tmp_path: Path) -> None:
    (tmp_path / "ROWS.CSV").write_text("shop,event_timestamp\n7,2024-03-10T11:00:00Z\n")
    assert plain(ask(shops, tmp_path / "ROWS.CSV").columns["newest__amount"]) == [1.0]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_computed(shops: Session, tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match=r"folder\.parquet is a folder"):
        ask(shops, {}, to=tmp_path / "folder.parquet")
    with pytest.raises(StoreError, match=r"cannot write out\.parquet: No such file or directory") as error:
        ask(shops, {}, to=tmp_path / "nowhere" / "out.parquet")
    assert "folder above" in error.value.hint
    assert not list(tmp_path.rglob(".out*"))


# ── by the oracle ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", VIEWS)
@settings(max_examples=5 * EXAMPLES, deadline=None)
@given(rows=st.lists(rows_of, max_size=25), requests=asked, as_known=st.booleans())
def test_rows_get_what_the_oracle_gives(name: str, rows: list[Row], requests: Sequence[tuple[str | None, int]], as_known: bool) -> None:
    view = VIEWS[name]
    log = log_of(view, rows)
    chosen = choose([view], {})
    question = Question(chosen, {name: Opened(log, {"entity": "VARCHAR"})}, "at", as_known=as_known, timezone="UTC", status=True)
    given_ = {
        "entity": np.array([entity for entity, _ in requests], dtype=object),
        "at": np.array([at for _, at in requests], dtype="datetime64[us]"),
    }
    found = historical(given_, question)
    seen = rows if as_known else sorted_plain(rows)
    told = [expected(view, seen, entity, at) for entity, at in requests]
    assert [list(row) for row in zip(*(plain(found.columns[full]) for full in view.names), strict=True)] == [values for values, _ in told]
    assert found.columns[f"{name}__status"].tolist() == [status for _, status in told]
    assert found.report.leaks[name] == sum(leaks(view, rows, *one) for one in requests)


def leaks(view: tm.FeatureView, rows: Sequence[Row], entity: str | None, at: int) -> bool:
    """Whether a row that was not known yet would have been used: as the answer, or in the longest window."""
    found = [row for row in rows if entity is not None and row.entity == entity and row.event <= at]
    if view.windows:
        begins = [None if width is None else floor_to(at - width, hop_of(width)) for width in WIDTHS[view.name]]
        return any(row.known > at and (begin is None or row.event >= begin) for row in found for begin in begins)
    best = max(found, key=lambda row: (row.event, row.known), default=None)
    return best is not None and best.known > at and not (view.ttl and at - best.event > HOUR)


def sorted_plain(rows: Sequence[Row]) -> list[Row]:
    """The same rows, each known when it happened: of one event time those known last still come last."""
    ordered = sorted(rows, key=lambda row: (row.event, row.known))
    return [Row(row.entity, row.event, row.event, row.number, row.word) for row in ordered]


def test_the_command_writes_a_file_and_tells(shops: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb.connect().execute(f"SET TimeZone = 'UTC'; COPY ({SQL}) TO '{tmp_path / 'rows.csv'}'")
    words = ["-C", str(tmp_path), "features", "get", str(tmp_path / "rows.csv"), "--views", "newest:amount, counts:n_1h", "--to"]
    tidemill_(args=[*words, str(tmp_path / "out.parquet"), "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["views"]["newest"] == {"present": 2, "null": 1, "unknown": 1, "expired": 0, "leaks": 2}
    read = duckdb.connect().execute(f"SELECT * FROM '{tmp_path / 'out.parquet'}'").fetchnumpy()
    assert list(read) == ["label", "shop", "event_timestamp", "newest__amount", "counts__n_1h"]
    tidemill_(args=[*words, str(tmp_path / "plain.parquet"), "--plain"], standalone_mode=False)
    assert "2 are answered by what was not known yet" in " ".join(capsys.readouterr().out.split())


long_histories = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.sampled_from([0, 0, 5, 1_000])), max_size=200)


@settings(max_examples=80, deadline=None)
@given(rows=long_histories, requests=st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 1_100)), min_size=1, max_size=20))
@example(rows=[(0, i, 1_000) for i in range(130)], requests=[(0, 900), (0, 1_064), (0, 1_100)])
@example(rows=[(0, 0, 0), *((1, i, 1_000) for i in range(130))], requests=[(1, 900), (1, 1_000), (0, 0)])
def test_many_rows_that_are_not_known_are_passed_over(rows: list[tuple[int, int, int]], requests: list[tuple[int, int]]) -> None:
    ordered = sorted((entity, event, event + delay) for entity, event, delay in rows)
    entities, event, known = (np.array([row[i] for row in ordered], dtype=np.int64) for i in range(3))
    entity, at = (np.array(column, dtype=np.int64) for column in zip(*requests, strict=True))
    found = newest(Events.of(entities, event, known, 3), entity, at).tolist()
    told = [max((i for i, (e, t, k) in enumerate(ordered) if e == one and t <= when and k <= when), default=-1) for one, when in requests]
    assert found == told


def test_a_query_of_duckdb_may_bring_the_rows(shops: Session) -> None:
    with duckdb.connect() as connection:
        found = shops.historical_features(connection.sql(SQL), ["newest:amount"])
    assert plain(found.columns["newest__amount"]) == AMOUNTS


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (np.array([11, 12], dtype=">i8"), ">i8"),
        (pd.arrays.SparseArray([11, 12]), "Sparse"),
        (pd.IntervalIndex.from_breaks([0, 1, 2]), "interval"),
        (np.array([1j, 2j]), "complex128"),
    ],
)
def test_a_key_of_an_odd_type_is_refused_with_what_to_do(shops: Session, column: Any, kind: str) -> None:
    with pytest.raises(DataError, match=rf"the column 'shop' of the frame cannot be read: it has the type {kind}") as refused:
        ask(shops, pd.DataFrame({"shop": column, "at": pd.to_datetime(["2024-03-10T11:00Z"] * 2)}), at="at")
    assert refused.value.hint.startswith("cast it to a plain type")


def keyed(folder: Path, kind: str, values: Sequence[str]) -> Session:
    """A project whose keys are of a type: of each there is one row, with its number."""
    rows = ", ".join(f"(CAST({value} AS {kind}), {i})" for i, value in enumerate(values))
    query = f"SELECT k, TIMESTAMPTZ '2024-03-10T10:00:00Z' AS sold, CAST(v AS DOUBLE) AS v FROM (VALUES {rows}) AS t(k, v)"
    with engine() as connection:
        connection.execute(f"COPY ({query}) TO '{folder}/keyed.parquet' (FORMAT parquet)")
    (folder / "tidemill.toml").write_text('[project]\nname = "keyed"\n')
    source = 'tm.Dataset("keyed", {"s": tm.Source("keyed.parquet", format="parquet")}, event_time="sold")'
    view = f'tm.FeatureView("newest", {source}, tm.Entity("one", key="k"), features=["v"])'
    (folder / "views.py").write_text(f"import tidemill as tm\nview = {view}\n")
    session = tm.open(folder)
    session.materialise()
    return session


@pytest.mark.parametrize("key", [np.float32(0.1), float(np.float32(0.1)), 0.1, 0.1 + 1e-12, 0, "0.1", 7.25])
def test_a_float_is_the_key_that_it_is_or_that_is_written_so_offline_and_online(tmp_path: Path, key: object) -> None:
    session = keyed(tmp_path, "FLOAT", ["0.0", "0.1", "7.25"])
    expected = {"0": 0.0, "7.25": 2.0, str(0.1 + 1e-12): None}.get(str(key), 1.0)
    for rows in ([{"k": key, "at": "2024-03-10T11:00Z"}], pd.DataFrame({"k": [key], "at": ["2024-03-10T11:00Z"]})):
        [found] = ask(session, rows, at="at").columns["newest__v"].tolist()
        assert (None if found != found else found) == expected
    assert session.online_features([{"k": key}], ["newest"]).rows == [[expected]]


@pytest.mark.parametrize(
    ("key", "at_all"),
    [
        (datetime(2024, 3, 10), False),  # noqa: DTZ001 – that is the point
        (date(2024, 3, 10), False),
        (datetime(2024, 3, 10, 1, tzinfo=timezone(timedelta(hours=1))), True),
        (pd.Timestamp("2024-03-10", tz="UTC"), True),
    ],
)
def test_a_time_without_its_zone_is_no_key_that_has_one(tmp_path: Path, key: object, *, at_all: bool) -> None:
    session = keyed(tmp_path, "TIMESTAMPTZ", ["'2024-03-10T00:00:00Z'", "'2024-03-10T00:00:01Z'"])
    if at_all:
        assert ask(session, [{"k": key, "at": "2024-03-10T11:00Z"}], at="at").columns["newest__v"].tolist() == [0]
        assert session.online_features([{"k": key}], ["newest"]).rows == [[0]]
        return
    with pytest.raises(DataError, match=r"the key 'k' of the list is a (time|date), the view's is a time with its zone"):
        ask(session, [{"k": key, "at": "2024-03-10T11:00Z"}], at="at")
    with pytest.raises(DataError, match="the key 'k' is"):
        session.online_features([{"k": key}], ["newest"])


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMP"])
def test_what_is_finer_than_a_microsecond_is_cut_off_everywhere(tmp_path: Path, kind: str) -> None:
    session, zone = keyed(tmp_path, kind, ["'2024-03-10T00:00:00'"]), "UTC" if kind == "TIMESTAMPTZ" else None
    fine = pd.Timestamp("2024-03-10T00:00:00.000000005", tz=zone)
    rows = {"k": [fine], "at": ["2024-03-10T11:00Z"]}
    fines = pl.Series([fine.value]).cast(pl.Datetime("ns"))
    frame = pl.DataFrame({"k": fines.dt.replace_time_zone(zone), "at": rows["at"]})
    for some in (rows, [{name: value for name, [value] in rows.items()}], pd.DataFrame(rows), frame):
        assert ask(session, some, at="at").columns["newest__v"].tolist() == [0]
        assert session.online_features(some, ["newest"]).rows == [[0]]


def test_times_with_a_zone_may_have_nanoseconds(tmp_path: Path) -> None:
    """As pyarrow writes those of pandas."""
    session = keyed(tmp_path, "TIMESTAMPTZ", ["'2024-03-10T10:00:00Z'"])
    times = pl.Series([datetime(2024, 3, 10, 10), datetime(2024, 3, 10, 9)]).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")  # noqa: DTZ001
    frame = pl.DataFrame({"k": times.gather([0, 0]), "at": times})
    assert ask(session, frame, at="at", status=True).columns["newest__status"].tolist() == ["present", "unknown"]
    frame.write_parquet(tmp_path / "rows.parquet")
    assert ask(session, tmp_path / "rows.parquet", at="at", status=True).columns["newest__status"].tolist() == ["present", "unknown"]
    pl.DataFrame({"k": times, "sold": times, "v": [1.0, 2.0]}).write_parquet(tmp_path / "keyed.parquet")
    found = ask(tm.open(tmp_path), frame.with_columns(k=times.gather([1, 1])), at="at")
    assert found.columns["newest__v"].tolist() == [2, 2]


@pytest.mark.parametrize("column", ["k", "at"])
def test_a_column_of_gaps_of_pandas_is_of_no_type(tmp_path: Path, column: str) -> None:
    session = keyed(tmp_path, "BIGINT", ["7"])
    frame = pd.DataFrame({"k": [7], "at": ["2024-03-10T11:00Z"]} | {column: [pd.NaT]})
    if column == "k":
        assert ask(session, frame, at="at", status=True).columns["newest__status"].tolist() == ["unknown"]
        return
    with pytest.raises(DataError, match="row 0 of the frame has no time in 'at'"):
        ask(session, frame, at="at")


@pytest.mark.parametrize("holder", [pl.DataFrame, dict], ids=["frame", "dict"])
def test_nan_of_polars_is_a_number_in_a_frame_and_a_gap_in_a_dict(tmp_path: Path, holder: Any) -> None:
    session = keyed(tmp_path, "BIGINT", ["7"])
    source = 'tm.Dataset("asked", {"s": tm.Source("keyed.parquet", format="parquet")}, key="k", event_time="sold")'
    (tmp_path / "more.py").write_text(f'import tidemill as tm\nview = tm.RequestView("gap", {source}, features={{"gap": "v IS NULL"}})\n')
    session = tm.open(tmp_path)
    rows = holder({"k": pl.Series([1, 2, 3]), "sold": ["2024-03-10T10:00:00Z"] * 3, "v": pl.Series([1.5, float("nan"), None])})
    expected = [0, 0, 1] if holder is pl.DataFrame else [0, 1, 1]
    assert ask(session, rows, ["gap"], at="sold").columns["gap__gap"].tolist() == expected
    assert [row for [row] in session.online_features(rows, ["gap"]).rows] == expected


def test_times_in_nanoseconds_are_pushed_and_found_as_others(tmp_path: Path) -> None:
    session = keyed(tmp_path, "TIMESTAMP_NS", ["'2024-03-10T00:00:00'"])
    with engine() as connection:
        query = f"SELECT k, CAST(timezone('UTC', sold) AS TIMESTAMP_NS) AS sold, v FROM '{tmp_path}/keyed.parquet'"
        connection.execute(f"COPY ({query}) TO '{tmp_path}/fine.parquet' (FORMAT parquet)")
    (tmp_path / "fine.parquet").replace(tmp_path / "keyed.parquet")
    text = (tmp_path / "views.py").read_text()
    (tmp_path / "views.py").write_text(text.replace('event_time="sold"', 'event_time="sold", timezone="UTC"'))
    session = tm.open(tmp_path)
    session.materialise()
    key = datetime(2024, 3, 10)  # noqa: DTZ001 – as its column has none
    assert session.online_features([{"k": key}], ["newest"]).rows == [[0]]
    session.push("keyed", {"k": key, "sold": "2024-03-11T00:00:00", "v": 5.0})
    assert session.online_features([{"k": key}], ["newest"]).rows == [[5]]
    assert ask(session, [{"k": key, "at": "2024-03-10T11:00Z"}], at="at").columns["newest__v"].tolist() == [0]


@pytest.mark.parametrize("name", ["true", "NULL", "1", "1e3", "2nd"])
def test_a_name_that_is_a_value_in_sql_is_no_column(name: str) -> None:
    source = tm.Dataset("d", {"s": tm.Source("x.csv")}, event_time="t")
    with pytest.raises(DefinitionError, match=rf"{name}.*is a value in SQL, and no column|'{name}'") as refused:
        tm.FeatureView("v", source, entity=tm.Entity("e", key="k"), features=[name])
    assert f"tm.last('\"{name}\"')" in refused.value.hint


@pytest.mark.parametrize("gap", [float("nan"), np.float32("nan"), pd.NA, pd.NaT, None], ids=str)
@pytest.mark.parametrize("column", ["amount", "n", "word", "flag", "day", "moment"])
@pytest.mark.parametrize("holder", ["list", "dict", "pandas", "one"])
def test_gaps_of_a_request_are_null_offline_and_online(tmp_path: Path, holder: str, column: str, gap: object) -> None:
    with engine() as connection:
        columns = "1 AS id, TIMESTAMPTZ '2024-03-10T10:00:00Z' AS asked, 1.5::DOUBLE AS amount, 3::BIGINT AS n"
        columns += ", 'a' AS word, true AS flag, DATE '2024-03-10' AS day, TIMESTAMPTZ '2024-03-10T10:00:00Z' AS moment"
        connection.execute(f"COPY (SELECT {columns}) TO '{tmp_path}/asked.parquet' (FORMAT parquet)")
    (tmp_path / "tidemill.toml").write_text('[project]\nname = "gaps"\n')
    names = ["amount", "n", "word", "flag", "day", "moment"]
    features = {name: f"CAST({name} IS NULL AS DOUBLE)" for name in names} | {"more": "CAST(amount > 1 AS DOUBLE)"}
    source = 'tm.Dataset("asked", {"s": tm.Source("asked.parquet", format="parquet")}, key="id", event_time="asked")'
    (tmp_path / "views.py").write_text(f'import tidemill as tm\nview = tm.RequestView("gap", {source}, features={features!r})\n')
    row = {"id": 1, "asked": "2024-03-10T10:00:00Z", "amount": 1.5, "n": 3, "word": "a", "flag": True, "day": "2024-03-10"}
    row |= {"moment": "2024-03-10T10:00:00Z", column: gap}
    rows: Any = {"list": [row], "dict": {name: [value] for name, value in row.items()}, "pandas": pd.DataFrame([row]), "one": row}[holder]
    expected = [float(name == column) for name in names] + [None if column == "amount" else 1.0]
    session = tm.open(tmp_path)
    assert session.online_features(rows, ["gap"]).rows == [expected]
    assert [*session.online(["gap"]).get(row).values()] == expected
    if holder != "one":
        found = [column.tolist()[0] for column in ask(session, rows, ["gap"], at="asked").columns.values()]
        assert [None if value != value else value for value in found] == expected
