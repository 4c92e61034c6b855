"""The plots: well-formed pictures of the right numbers, whatever is missing, and whatever text the data holds."""

import math
from datetime import date
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.web.templates import better, figure, percent, plots, signed

DAY = date(2013, 4, 1).toordinal()
ZONE = "America/New_York"


def event(kind: str, subject: str, at: str, why: str = "because") -> dict[str, Any]:
    return {"at": at, "kind": kind, "subject": subject, "why": why}


def month(name: str, frozen: float | None, loop: float | None) -> dict[str, Any]:
    return {"month": name, "rows": 100, "frozen": {"roc_auc": frozen}, "loop": {"roc_auc": loop}}


def marks(svg: str, class_: str) -> list[ET.Element]:
    return [path for path in ET.fromstring(svg).iter("path") if path.get("class") == class_]


def test_a_point_for_each_month_with_its_figures_on_hover() -> None:
    result = {"months": [month("2013-04", 0.7, 0.71), month("2013-05", 0.68, 0.75)]}
    svg = plots.auc_plot(result, (DAY, DAY + 61), ZONE, 900)
    assert len(marks(svg, "mark frozen")) == len(marks(svg, "mark loop")) == 2
    assert "2013-05 model in the loop: ROC AUC 0.750 on 100 rows" in svg
    assert "The loop is higher in 2 of 2 months." in ET.fromstring(svg).get("aria-label", "")


def test_higher_is_drawn_higher() -> None:
    svg = plots.auc_plot({"months": [month("2013-04", 0.6, 0.8)]}, (DAY, DAY + 30), ZONE, 900)
    (frozen,), (loop,) = marks(svg, "mark frozen"), marks(svg, "mark loop")
    heights = [float(str(one.get("transform")).rstrip(")").split()[1]) for one in (frozen, loop)]
    assert heights[1] < heights[0]  # y grows downwards


def test_a_month_without_a_figure_is_a_gap_and_not_a_zero() -> None:
    result = {"months": [month("2013-04", 0.7, 0.7), month("2013-05", None, math.nan), month("2013-06", 0.7, 0.72)]}
    svg = plots.auc_plot(result, (DAY, DAY + 91), ZONE, 900)
    (line,) = marks(svg, "line loop")
    assert str(line.get("d")).count("M") == 2
    assert "L" not in str(line.get("d"))
    assert "The loop is higher in 1 of 2 months." in svg


def test_only_moves_of_the_champion_are_marked_on_the_months() -> None:
    events = [event("promoted", "m/2", "2013-04-10T04:00:00Z"), event("drift found", "m/1", "2013-04-05T04:00:00Z")]
    svg = plots.auc_plot({"months": [month("2013-04", 0.7, 0.8)], "events": events}, (DAY, DAY + 30), ZONE, 900)
    assert "2013-04-10 promoted m/2: because" in svg
    assert "drift" not in svg


def test_the_smoothed_line_is_a_mean_of_seven_days() -> None:
    days = [(DAY + index, float(index % 7)) for index in range(21)]
    assert [value for _, value in plots.smooth(days)[3:-3]] == pytest.approx([3.0] * 15)


def test_no_line_is_drawn_over_days_without_rows() -> None:
    daily = [{"day": DAY + at, "frozen": 0.5, "loop": 0.4, "share_positive": 0.2} for at in (0, 1, 20, 21)]
    svg = plots.loss_plot(daily, (DAY, DAY + 22), "late", 900)
    (line,) = marks(svg, "line loop")
    assert str(line.get("d")).count("M") == 2
    assert "The loop is lower on 4 of 4 days." in svg


def test_log_loss_without_shares_has_no_bars() -> None:
    daily = [{"day": DAY, "frozen": 0.5, "loop": 0.4, "share_positive": None}]
    assert not marks(plots.loss_plot(daily, (DAY, DAY + 1), "late", 900), "shade")


def test_calibration_lies_on_the_diagonal_when_it_is_perfect() -> None:
    svg = plots.calibration_plot({"frozen": [(0.2, 0.2, 10)], "loop": [(0.4, 0.4, 10)]}, "late", 340)
    (ideal,), (loop,) = marks(svg, "line ideal"), marks(svg, "mark loop")
    (x0, y0), (x1, y1) = ([float(number) for number in pair.split()] for pair in str(ideal.get("d")).strip("M").split("L"))
    x, y = (float(number) for number in str(loop.get("transform"))[10:-1].split())
    assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.01)


def test_what_has_no_numbers_has_no_picture() -> None:
    assert plots.auc_plot({"months": [month("2013-04", None, None)]}, (DAY, DAY + 30), ZONE, 900) == ""
    assert plots.loss_plot([], (DAY, DAY + 1), "late", 900) == ""
    assert plots.calibration_plot({"frozen": [], "loop": []}, "late", 340) == ""
    assert plots.timeline([event("promoted", "m/1", "no time")], (DAY, DAY + 1), ZONE, 900) == ""
    assert plots.span_of({}) is None


def test_the_champions_follow_from_promotions_and_rollbacks() -> None:
    told = [
        event("promoted", "m/1", "2013-04-01T04:00:00Z"),
        event("promoted", "m/2", "2013-04-03T04:00:00Z"),
        event("rolled back", "m/3", "2013-04-04T04:00:00Z"),  # a canary: the champion stays
        event("rolled back", "m/2", "2013-04-06T04:00:00Z"),  # the champion: the one before comes back
    ]
    assert plots.reigns(told, DAY + 10, ZONE) == [("m/1", DAY, DAY + 2), ("m/2", DAY + 2, DAY + 5), ("m/1", DAY + 5, DAY + 10)]


def test_events_of_an_unknown_kind_and_out_of_the_span_do_no_harm() -> None:
    events = [event("eclipse", "m/1", "2013-04-02T04:00:00Z"), event("retrained", "m/1", "2014-01-02T04:00:00Z")]
    ET.fromstring(plots.timeline(events, (DAY, DAY + 1), ZONE, 900))


@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_text_is_only_ever_text(why: str) -> None:
    found = ET.fromstring(plots.timeline([event("promoted", why, "2013-04-02T04:00:00Z", why)], (DAY, DAY + 9), ZONE, 900))
    assert {one.tag for one in found.iter()} <= {"svg", "line", "text", "path", "title", "rect"}
    assert f"2013-04-02 promoted {why}: {why}" in [one.text for one in found.iter("title")]


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_steps_are_few_and_cover_the_values(low: float, wide: float) -> None:
    found = plots.steps(low, low + wide)
    assert 2 <= len(found) <= 9
    assert found[0] <= low + 1e-6 * max(1, abs(low), wide)
    assert found[-1] >= low + wide - 1e-6 * max(1, abs(low), wide)


@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.none() | st.floats(0, 1)), min_size=1, max_size=30), st.sampled_from([340, 900]))
def test_any_months_make_a_picture_within_its_frame(values: list[tuple[float | None, float | None]], width: int) -> None:
    result = {"months": [month(f"{2013 + at // 12}-{at % 12 + 1:02}", *pair) for at, pair in enumerate(values)]}
    span = plots.span_of(result)
    assert span
    svg = plots.auc_plot(result, span, ZONE, width)
    for one in marks(svg, "mark loop") if svg else []:
        x, y = (float(number) for number in str(one.get("transform"))[10:-1].split())
        assert 0 < x < width
        assert 0 < y < 300


def test_figures_read_as_people_write_them() -> None:
    assert [figure(0.7234), figure(255987, 0), figure(None), figure(math.inf), figure("0.7")] == ["0.723", "255,987", "–", "–", "–"]
    assert [signed(0.016), signed(-0.016), signed(-0.0001), signed(None)] == ["+0.016", "−0.016", "0.000", "–"]
    assert [percent(0.9999, 1), percent(1.0, 1), percent(0.0), percent(None)] == [">99.9 %", "100.0 %", "0 %", "–"]


def test_better_is_what_a_reader_of_the_figures_sees() -> None:
    assert better(0.7, 0.71, True) == "loop"
    assert better(0.4, 0.41, False) == "frozen"
    assert better(0.70001, 0.70002, True) == ""  # both read 0.700
    assert better(None, 0.7, True) == ""
