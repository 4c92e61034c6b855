"""Instants and durations are whole microseconds, whatever zone they were written in."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import DAY, HOUR, MINUTE, SECOND, DefinitionError, duration, instant, midnights, moment, show, show_duration


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("50ms", 50_000),
        ("90s", 90 * SECOND),
        ("15min", 15 * MINUTE),
        ("1h", HOUR),
        ("1.5h", 90 * MINUTE),
        ("28d", 28 * DAY),
        ("2w", 14 * DAY),
    ],
)
def test_durations(text: str, us: int) -> None:
    assert duration(text) == us
    assert duration(show_duration(us)) == us


@given(st.integers(0, 10**16))
def test_a_shown_duration_reads_back(us: int) -> None:
    assert duration(show_duration(us)) == us


@pytest.mark.parametrize("text", ["", "1", "h", "1 month", "-1h", "1h30min", "1e3s"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="not a duration"):
        duration(text)


def test_an_instant_does_not_depend_on_how_it_is_written() -> None:
    wanted = instant("2013-05-01T12:00:00Z")
    assert wanted == instant("2013-05-01T08:00:00-04:00")
    assert wanted == instant(datetime(2013, 5, 1, 12, tzinfo=UTC))
    assert instant(date(2013, 5, 1), "America/New_York") == instant("2013-05-01T04:00:00Z") == instant("2013-05-01", "America/New_York")
    assert instant("1969-12-31T23:59:59.999999Z") == -1


def test_what_is_not_a_time_is_refused() -> None:
    for odd in ("yesterday", 1367409600, None, np.datetime64("2013-05-01T12:00")):
        with pytest.raises(DefinitionError, match="is not a time"):
            instant(odd)  # type: ignore[arg-type]


@pytest.mark.parametrize("time", ["2013-05-01T12:00", "2013-05-01 00:00:00", datetime(2013, 5, 1)])  # noqa: DTZ001 – without a zone on purpose
def test_a_time_of_day_without_a_zone_is_refused(time: str | datetime) -> None:
    with pytest.raises(DefinitionError, match=r"2013-05-01.* has no time zone") as error:
        instant(time, "America/New_York")
    assert 'Z" for UTC' in error.value.hint
    assert "ZoneInfo('America/New_York')" in error.value.hint


@given(st.integers(-2 * 10**15, 7 * 10**15), st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]))
def test_an_instant_survives_the_way_to_people_and_back(us: int, zone: str) -> None:
    assert instant(moment(us, zone)) == us
    assert instant(show(us, zone)) == us
    assert moment(us, zone) - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=us)


def test_days_between_midnights_are_23_and_25_hours_long_when_clocks_change() -> None:
    start, end = instant("2013-03-09", "America/New_York"), instant("2013-03-12", "America/New_York")
    ends = [start, *midnights(start, end, "America/New_York")]
    assert [(b - a) // HOUR for a, b in pairwise(ends)] == [24, 23, 24]
    start, end = instant("2013-11-02T12:00-04:00"), instant("2013-11-04T06:00-05:00")
    ends = [start, *midnights(start, end, "America/New_York")]
    assert [(b - a) // HOUR for a, b in pairwise(ends)] == [12, 25, 6]
    assert midnights(end, start) == []
