"""A view that is a function of Python on arrays: the same for all requests and for one, with a version, and refused where it is not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from tidemill.core import DataError, DefinitionError, Where, definition
from tidemill.data import ingest
from tidemill.features import Function, OwnColumns, Requests, build_requests, from_definition, functions_of, load_requests
from tidemill.ledger import Ledger

TRIPS = """id,company,lat,seats,asked,price,paid
1,acme,52.5,4,2013-01-01T10:00:00Z,5.50,true
2,,48.1,,2013-01-01T11:30:00Z,7.25,false
3,ünï,,2,2013-01-02T10:00:00Z,,
"""
Columns = Mapping[str, Any]


class Trips:
    """A dataset of requests over one file."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        (folder / "trips.csv").write_text(TRIPS)
        self.ledger, self.where = ledger, Where(str(folder / "trips.py"), 3)
        query = "SELECT * REPLACE (CAST(asked AS TIMESTAMPTZ) AS asked, CAST(price AS DECIMAL(9,2)) AS price), asked::DATE AS day FROM s"
        source = {"s": tm.Source("trips.csv", where=self.where)}
        self.dataset = tm.Dataset("trips", source, key="id", event_time="asked", query=query, where=self.where)

    def requests(self, view: tm.RequestView) -> Requests:
        version = ingest(self.ledger, self.dataset).output
        return load_requests(self.ledger, build_requests(self.ledger, self.dataset, version, [view], "asked").output)

    def asked(self, view: tm.RequestView, **changed: Any) -> Requests:
        """The first request as a client sends it."""
        row = {"id": 1, "company": "acme", "lat": 52.5, "seats": 4, "asked": "2013-01-01T10:00:00Z", "price": 5.5, "paid": True}
        types = ingest(self.ledger, self.dataset).output.meta["types"]
        return OwnColumns.of(self.dataset, types, [view], "asked").requests([row | {"day": "2013-01-01"} | changed])


@pytest.fixture
def trips(tmp_path: Path, ledger: Ledger) -> Trips:
    return Trips(tmp_path, ledger)


def view(
    trips: Trips, call: Callable[[Columns], Any], columns: tuple[str, ...] = ("lat",), returns: tuple[str, ...] = ("x",)
) -> tm.RequestView:
    call.__name__ = "trip"
    return tm.request_view(trips.dataset, columns=columns, returns=returns)(call)


def test_a_function_is_given_arrays_and_gives_features(trips: Trips) -> None:
    seen: dict[str, Any] = {}

    @tm.request_view(trips.dataset, columns=["lat", "seats", "company", "asked", "day", "price", "paid"], returns=["price_of_seat", "late"])
    def trip(columns: Columns) -> Columns:
        """What a trip costs."""
        seen.update({name: column.tolist() for name, column in columns.items()} if len(columns["lat"]) == 3 else {})
        hours = (columns["asked"] - columns["day"]) / np.timedelta64(1, "h")
        return {"late": hours > 10, "price_of_seat": columns["price"] / columns["seats"]}

    requests = trips.requests(trip)
    assert trip.about()["description"] == "What a trip costs."
    assert trip.names == list(requests.names) == ["trip__price_of_seat", "trip__late"]
    np.testing.assert_array_equal(requests.values, [[1.375, 0.0], [np.nan, 1.0], [np.nan, 0.0]])
    assert seen["company"] == ["acme", None, "ünï"]
    assert [str(value) for value in seen["lat"] + seen["paid"]] == ["52.5", "48.1", "nan", "1.0", "0.0", "nan"]
    assert trips.asked(trip).values.tobytes() == requests.values[:1].tobytes()
    assert np.isnan(trips.asked(trip, price=None).values[0, 0])


def test_what_a_masked_array_hides_is_null(trips: Trips) -> None:
    requests = trips.requests(view(trips, lambda columns: {"x": np.ma.masked_greater(columns["lat"], 50)}))
    np.testing.assert_array_equal(requests.values[:, 0], [np.nan, 48.1, np.nan])


def test_its_version_is_its_code_and_words_are_none(trips: Trips) -> None:
    def named(number: int) -> tm.RequestView:
        def x(columns: Columns) -> Columns:
            return {"x": columns["lat"] * number}

        return view(trips, x)

    assert definition(named(2)) == definition(named(2)) != definition(named(3))
    assert trips.requests(named(2)).values[0, 0] == 105.0
    assert trips.requests(named(3)).values[0, 0] == 157.5


def test_a_record_of_it_takes_the_function_that_is_still_the_same(trips: Trips) -> None:
    one, other = (view(trips, eval(f"lambda columns: {{'x': columns['lat'] + {number}}}", {})) for number in (1, 2))
    again = from_definition(definition(one), functions_of([other, one]))
    assert trips.asked(again).values.tolist() == [[53.5]]  # type: ignore[arg-type]
    gone = from_definition(definition(one), functions_of([other]))
    assert isinstance(gone.features, Function)
    with pytest.raises(DefinitionError, match="is not here as it was when its model was trained") as error:
        trips.asked(gone)  # type: ignore[arg-type]
    assert "known key" in error.value.hint


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda columns: {"x": columns["lat"] - np.nanmean(columns["lat"])}, r"'x' of the function .* gives 0.0 for one request, and"),
        (lambda columns: {"x": columns["lat"][:1]}, r"'x' of the function of view .* has the shape \(1,\) for 3 rows"),
        (lambda columns: {"x": 1.0}, r"has the shape \(\)"),
        (lambda columns: {"x": columns["lat"].astype(str)}, "holds <U32"),
        (lambda columns: {"y": columns["lat"]}, "gives y"),
        (lambda columns: columns["lat"], "gives a ndarray"),
        (lambda columns: columns["nothing"], "fails: KeyError: 'nothing'"),
        (lambda columns: {"x": np.add(columns["lat"], 1, out=columns["lat"])}, "fails: ValueError: .*read-only"),
    ],
)
def test_a_function_that_cannot_work_is_refused_with_its_place(trips: Trips, call: Callable[[Columns], Any], what: str) -> None:
    with pytest.raises((DataError, DefinitionError), match=what) as error:
        trips.requests(view(trips, call))
    assert "test_functions.py:" in error.value.where


@pytest.mark.parametrize(("column", "what"), [("nowhere", "is not there"), ("list", r"is INTEGER\[\], which is no array")])
def test_a_column_that_is_no_array_is_refused(trips: Trips, column: str, what: str) -> None:
    types = {"id": "BIGINT", "asked": "TIMESTAMP WITH TIME ZONE", "list": "INTEGER[]"}
    with pytest.raises(DefinitionError, match=f"the column '{column}' that the function reads {what}") as error:
        OwnColumns.of(trips.dataset, types, [view(trips, lambda columns: columns, (column,))], "asked")
    assert error.value.available == ["asked", "id"]


@pytest.mark.parametrize("more", [{"columns": []}, {"columns": "lat"}, {"returns": []}, {"returns": ["a b"]}, {"returns": ["x", "X"]}])
def test_what_a_function_reads_and_gives_is_said(trips: Trips, more: dict[str, Any]) -> None:
    def call(columns: Columns) -> Columns:
        return columns

    with pytest.raises(DefinitionError, match=r"'lat' is no list|is an empty list|has ' '|differ by case alone"):
        tm.request_view(trips.dataset, **{"columns": ["lat"], "returns": ["x"], **more})(call)


def test_a_filter_of_events_is_refused_for_a_request(trips: Trips) -> None:
    for feature in (tm.last("lat", filter="lat > 0"), tm.last("lat", n=2)):
        with pytest.raises(DefinitionError, match="a request is one row"):
            tm.RequestView("v", trips.dataset, features={"x": feature})
