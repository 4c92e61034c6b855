"""Request features of rows that somebody brings: the numbers of serving, or a refusal that says which column is to be converted."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from features.oracle import EXAMPLES
from features.ours import write_table
from features.test_historical import plain
from tidemill.core import DataError, DefinitionError, TidemillError, UnknownName
from tidemill.features import Computed, Getter, OwnColumns, Question, choose, historical
from tidemill.features.frames import Stored

TYPES = {"id": "BIGINT", "whole": "INTEGER", "number": "DOUBLE", "single": "FLOAT", "money": "DECIMAL(10,2)", "word": "VARCHAR"}
TYPES |= {"flag": "BOOLEAN", "day": "DATE", "moment": "TIMESTAMPTZ", "local": "TIMESTAMP"}
NAMES = {name: "TIMESTAMP WITH TIME ZONE" if kind == "TIMESTAMPTZ" else kind for name, kind in TYPES.items()}
EXPRESSIONS: dict[str, Any] = {
    "whole": "whole * 2",
    "number": "number / 3",
    "single": "single + 1",
    "money": "money * 3",
    "word": tm.category("lower(word)"),
    "flag": "CASE WHEN flag THEN 1 ELSE 0 END",
    "day": "day(day) + 40 * month(day)",
    "moment": "hour(timezone('Europe/Berlin', moment)) + minute(moment)",
    "local": "minute(local) + 60 * hour(local)",
}
NOON = datetime(2024, 3, 10, 12, 30, tzinfo=UTC)
REQUESTS = tm.Dataset.recorded("requests", "moment", key="id", timezone="Europe/Berlin")


@cache
def computed(name: str, zone: str = "Europe/Berlin") -> dict[str, Computed]:
    requests = tm.Dataset.recorded("requests", "moment", key="id", timezone=zone)
    return {"own": Computed.of(tm.RequestView("own", requests, {name: EXPRESSIONS[name]}), NAMES)}


def question(name: str, timezone: str = "", zone: str = "Europe/Berlin") -> Question:
    views = computed(name, zone)
    return Question(choose([views["own"].view], {}), {}, "at", views, timezone=timezone)


def served(name: str, value: Any) -> Any:
    """The feature of one request, as a client sends it; an error where it is refused."""
    own: OwnColumns = computed(name)["own"].own
    column = own.computed([[own.taken(name, value)]])[f"x:own__{name}"]
    return plain(column.texts() if hasattr(column, "texts") else column)[0]


def retrieved(name: str, rows: Any, **more: Any) -> list[Any]:
    return plain(historical(rows, question(name, **more)).columns[f"own__{name}"])


values: Mapping[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-(2**30), 2**30),
    "number": st.floats(allow_nan=False, allow_infinity=False, width=64) | st.integers(-(2**40), 2**40),
    "single": st.floats(allow_nan=False, allow_infinity=False, width=32) | st.floats(-1e6, 1e6),
    "money": st.decimals(-1_000_000, 1_000_000, places=2) | st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
    "word": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5) | st.integers(0, 99),
    "flag": st.booleans(),
    "day": st.dates(date(1800, 1, 1), date(2200, 1, 1)),
    "moment": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 – with `timezones`
    "local": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 – the clock of its place
}
HELD = {int: "BIGINT", float: "DOUBLE", Decimal: "DECIMAL(18,2)", str: "VARCHAR", bool: "BOOLEAN", date: "DATE", datetime: ""}


@pytest.mark.parametrize("name", EXPRESSIONS)
@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(data=st.data())
def test_each_row_gets_what_serving_gives(name: str, data: st.DataObject) -> None:
    kind = type(data.draw(values[name]))
    sent = data.draw(st.lists(st.none() | values[name].filter(lambda value: type(value) is kind), max_size=8))
    held = HELD[kind] or ("TIMESTAMPTZ" if name == "moment" else "TIMESTAMP")
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; CREATE TABLE rows (place INT, {name} {held})")
        for place, value in enumerate(sent):
            connection.execute("INSERT INTO rows VALUES (?, ?)", [place, value])
        rows = connection.sql(f"SELECT {name} FROM rows ORDER BY place")
        asked = [float(value) if isinstance(value, Decimal) else value for value in sent]
        try:
            told = [served(name, value) for value in asked]
        except TidemillError:
            with pytest.raises(TidemillError):
                retrieved(name, rows)
        else:
            assert retrieved(name, rows) == told


ONE = np.array([1.0])


@pytest.mark.parametrize(
    ("name", "column", "more", "value"),
    [
        ("whole", np.array([7.0, np.nan]), {}, [14, None]),
        ("whole", np.array([7], dtype="uint8"), {}, [14]),
        ("number", np.array([3]), {}, [1]),
        ("number", np.array([None, None], dtype=object), {}, [None, None]),
        ("day", np.array([None], dtype=object), {}, [None]),
        ("word", pd.Categorical(["A", None]), {}, ["a", None]),
        ("word", np.array([7]), {}, ["7"]),
        ("moment", np.array(["2024-03-10T12:30:00Z", None], dtype=object), {}, [43, None]),
        ("moment", np.array(["2024-03-10T12:30"], dtype="datetime64[s]"), {"timezone": "UTC"}, [43]),
        ("local", np.array(["2024-03-10T12:30"], dtype="datetime64[s]"), {}, [750]),
        ("local", np.array(["2024-03-10 12:30:00"], dtype=object), {}, [750]),
        ("local", pd.array([NOON]), {"zone": "UTC"}, [750]),
        ("day", np.array(["2024-03-10"], dtype="datetime64[D]"), {}, [130]),
        ("day", np.array(["2024-03-10"], dtype=object), {}, [130]),
    ],
)
def test_a_column_may_be_of_another_type_that_loses_nothing(name: str, column: Any, more: dict[str, Any], value: list[Any]) -> None:
    assert retrieved(name, pd.DataFrame({name: column}), **more) == value


@pytest.mark.parametrize(
    ("name", "column", "more", "what"),
    [
        ("whole", [7.5], {}, "'whole' of the frame is a number, the request's is a whole number: no such is 7.5"),
        ("whole", ["7"], {}, "'whole' of the frame is a text, the request's is a whole number: convert it"),
        ("whole", [2**40], {}, "no such is 1099511627776"),
        ("number", ["7"], {}, "is a text, the request's is a number: convert it"),
        ("flag", [1], {}, "is a whole number, the request's is true or false"),
        ("word", [1.5], {}, "is a number, the request's is a text"),
        ("moment", [datetime(2024, 3, 10)], {}, "have no time zone"),  # noqa: DTZ001 – that is the point
        ("moment", ["tomorrow"], {}, "is no time with its zone: tomorrow"),
        ("moment", ["2024-03-10 12:00"], {}, "is no time with its zone: 2024-03-10 12:00"),
        ("local", [NOON], {}, "is a time, the request's is a time"),
        ("local", ["2024-03-10T12:00:00Z"], {}, "without a zone"),
        ("day", [datetime(2024, 3, 10, 1)], {}, "no such is 2024-03-10 01:00:00"),  # noqa: DTZ001
    ],
)
def test_a_column_that_would_lose_something_is_refused(name: str, column: list[Any], more: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        retrieved(name, pd.DataFrame({name: column}), **more)
    assert error.value.hint


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="the frame has no column 'whole'"):
        retrieved("whole", pd.DataFrame({"number": [1.0]}))


def test_a_constant_needs_no_column() -> None:
    view = tm.RequestView("own", REQUESTS, {"one": "1 + 1"})
    asked = Question(choose([view], {}), {}, "at", {"own": Computed.of(view, NAMES)})
    assert historical({"x": ONE}, asked).columns["own__one"].tolist() == [2.0]
    getter = Getter(asked.chosen, {}, asked.computed, None, lambda: 0)
    for rows in ([{}, {"id": 1}], {"id": [1, 2]}, pd.DataFrame({"id": [1, 2]})):
        assert getter.get_many(rows) == [{"own__one": 2.0}] * 2, rows


def test_what_cannot_be_computed_for_one_request_is_refused_with_its_line() -> None:
    with pytest.raises(DefinitionError, match="cannot be computed for one request") as error:
        Computed.of(tm.RequestView("own", REQUESTS, {"x": "regexp_extract(word, 'a+')"}), NAMES)
    assert str(error.value.where).startswith(__file__)


@pytest.mark.parametrize("wrong", ["word", "word + 1"])
def test_a_text_in_a_number_says_what_helps(wrong: str) -> None:
    with pytest.raises((DataError, DefinitionError), match=r"is no number|does not take text") as error:
        Computed.of(tm.RequestView("own", REQUESTS, {"n": wrong}), NAMES).values([{"word": "a"}])
    assert "tm.category" in error.value.hint


def test_a_function_that_looks_at_other_rows_is_refused() -> None:
    @tm.request_view(REQUESTS, columns=["number"], returns=["share"])
    def share(columns: Any) -> Any:
        return {"share": columns["number"] / columns["number"].sum()}

    asked = Question(choose([share], {}), {}, "at", {"share": Computed.of(share, NAMES)})
    with pytest.raises(DefinitionError, match=r"gives 1\.0 for one request, and 0\.25 among all rows"):
        historical({"number": np.array([1.0, 3.0])}, asked)


def test_rows_of_a_file_are_computed_a_part_at_a_time(tmp_path: Path) -> None:
    rows = [(i, None if i < 50 else f"W{i % 3}") for i in range(100)]
    write_table(tmp_path / "rows.parquet", {"whole": "INTEGER", "word": "VARCHAR"}, rows)
    views = {name: Computed.of(tm.RequestView(name, REQUESTS, {"x": EXPRESSIONS[name]}), NAMES) for name in ("whole", "word")}
    asked = Question(choose([one.view for one in views.values()], {}), {}, "at", views)
    for chunk in (1, 7, 100):
        historical(tmp_path / "rows.parquet", asked, tmp_path / "out.parquet", chunk=chunk)
        found = duckdb.connect().execute(f"SELECT whole__x, word__x FROM '{tmp_path / 'out.parquet'}'").fetchall()
        assert found == [(2 * i, None if i < 50 else f"w{i % 3}") for i in range(100)]
    stored = historical(Stored("them", f"SELECT * FROM '{tmp_path / 'rows.parquet'}'"), asked)
    assert stored.columns["whole__x"].tolist() == [2 * i for i in range(100)]


def test_a_feature_of_a_request_view_is_asked_for_by_its_name() -> None:
    view = tm.RequestView("own", REQUESTS, {"whole": "whole", "word": tm.category("word")})
    assert [one.names for one in choose(["own:word"], {"own": view})] == [("own__word",)]
    with pytest.raises(UnknownName, match="view 'own' has no feature 'wort'") as error:
        choose(["own:wort"], {"own": view})
    assert error.value.available == ["whole", "word"]
