"""What a catalogue says of columns, and where it finds words."""

from typing import Any

import numpy as np
import pytest

import tidemill as tm
from tidemill import features
from tidemill.core import DataError
from tidemill.features import made_by, search, source_of, summarise

trips = tm.Dataset("trips", {"trips": tm.Source("trips.csv")}, event_time="ended")
driver = tm.Entity("driver", key="driver_id", description="who drives")
recent = tm.FeatureView(
    "recent",
    trips,
    driver,
    {"fare": tm.mean("fare", filter="paid").described("what a ride brings"), "rides": tm.count(), "tips": tm.last("tip", n=2)},
    windows=["1h"],
    owner="ann",
    tags=["money", "hourly"],
    description="what a driver did of late",
)
asked = tm.RequestView("asked", trips, {"zone": tm.category("pickup_zone"), "fare_guess": "distance * 2"}, owner="bob")
VIEWS = (recent, asked)


def names(text: str) -> list[str]:
    return [hit.name for hit in search(VIEWS, text)]


def test_numbers_are_summed_up_without_their_nulls() -> None:
    found = summarise(np.array([1.0, np.nan, 3.0, 5.0]))
    assert (found["count"], found["nulls"], found["null_share"]) == (4, 1, 0.25)
    assert (found["mean"], found["std"], found["min"], found["max"]) == (3, 2, 1, 5)
    assert found["quantiles"]["0.5"] == 3


@pytest.mark.parametrize("values", [np.empty(0), np.full(3, np.nan)], ids=["no row", "only nulls"])
def test_a_column_without_a_value_has_no_numbers(values: np.ndarray) -> None:
    found = summarise(values)
    assert found["nulls"] == len(values)
    assert found["null_share"] == (1.0 if len(values) else None)
    assert (found["mean"], found["max"], found["quantiles"]) == (None, None, {})
    assert summarise(values, ("a",))["top"] == []


def test_one_value_has_no_spread() -> None:
    assert summarise(np.array([2.0]))["std"] is None


def test_of_categories_the_most_frequent_are_told_with_their_share_of_all_rows() -> None:
    found = summarise(np.array([0.0, 1.0, 1.0, np.nan]), ("x", "y", "unused"))
    assert found["top"] == [{"value": "y", "count": 2, "share": 0.5}, {"value": "x", "count": 1, "share": 0.25}]
    assert found["distinct"] == 2


def test_features_are_spelled_as_they_are_made() -> None:
    assert made_by(recent) == {"fare": "mean(fare) where paid", "rides": "count()", "tips": "last(tip, n=2)"}
    assert made_by(asked) == {"zone": "category(pickup_zone)", "fare_guess": "distance * 2"}
    quantile = tm.FeatureView("v", trips, driver, {"high": features.approx_quantile("fare", 0.9)}, windows=["1h"])
    assert made_by(quantile) == {"high": "approx_quantile(fare, q=0.9)"}


def test_a_function_of_python_is_told_by_what_it_reads_and_its_source() -> None:
    @tm.request_view(trips, columns=["lat", "lon"], returns=["km"])
    def away(columns: Any) -> Any:
        return {"km": columns["lat"] - columns["lon"]}

    assert made_by(away) == {"km": "away(lat, lon), a function of Python"}
    assert source_of(away).endswith('return {"km": columns["lat"] - columns["lon"]}')
    assert source_of(asked) == ""
    assert [hit.name for hit in search([away], "km")] == ["away:km"]


def test_a_name_is_found_before_a_part_of_one() -> None:
    assert names("fare") == ["recent:fare", "asked:fare_guess"]
    assert names("FARE_G") == ["asked:fare_guess"]
    assert names("recent__fare_1h") == ["recent:fare"]


def test_words_are_found_in_descriptions_owners_tags_entities_and_expressions() -> None:
    places = {text: [(hit.name, hit.where) for hit in search(VIEWS, text)] for text in ("ann", "money", "brings", "pickup", "who drives")}
    assert places["ann"] == [("recent", (("owner", "ann"),))]
    assert places["money"] == [("recent", (("tag", "money"),))]
    assert places["brings"] == [("recent:fare", (("description", "what a ride brings"),))]
    assert places["pickup"] == [("asked:zone", (("expression", "category(pickup_zone)"),))]
    assert places["who drives"] == [("recent", (("entity", "who drives"),))]


def test_all_words_are_needed_and_a_view_lends_its_own_to_its_features() -> None:
    assert names("ann fare") == ["recent:fare"]
    assert names("ann guess") == []
    assert "recent:tips" in names("recent tip")


def test_a_search_without_a_word_is_refused() -> None:
    with pytest.raises(DataError, match="no word"):
        search(VIEWS, " ")
