"""The report of a replay: right figures, honest words, whole without what is missing, and only text where text was given."""

from typing import Any

import pytest

from tidemill.web.report import headline, render_report, tiles
from web.pages import Page
from web.results import HOSTILE, result


def report(made: dict[str, Any], **changes: Any) -> Page:
    settings = {"project": {"name": "flights", "objective": "Warn passengers"}, "policy": "on drift", "model": "boosted"}
    return Page(render_report(made, **{"timezone": "America/New_York", **settings, **changes}))


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = report(result())
    assert not page.wrong
    assert list(page.addresses()) == ["data:,"]
    assert not page.named("script")
    assert len(page.named("h1")) == 1
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.named("svg"))


def test_every_plot_is_there_for_a_desk_and_for_a_telephone() -> None:
    kinds = [svg.get("class") for svg in report(result()).named("svg")]
    assert kinds.count("wide") == kinds.count("narrow") == 4


def test_figures_of_the_headline_carry_their_intervals() -> None:
    auc, loss, calibration, price = tiles(result())
    assert (auc["before"], auc["now"], auc["gain"], auc["interval"]) == ("0.713", "0.758", "+0.045", "+0.012 to +0.060")
    assert (loss["gain"], loss["interval"]) == ("−0.019", "−0.030 to +0.002")  # loop − frozen: a gain is below 0
    assert "No interval" in calibration["means"]
    assert price["means"] == "1 promoted, 0 refused by a gate, 0 rolled back."


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.02, "The model in the loop beats"), (-0.02, -0.01, "The model left alone beats"), (-0.01, 0.01, "No sure difference")],
)
def test_the_headline_claims_what_the_interval_allows(low: float, high: float, said: str) -> None:
    made = result()
    made["gain"]["roc_auc"] = {"estimate": (low + high) / 2, "low": low, "high": high}
    assert headline(made).startswith(said)


def test_a_gain_without_interval_is_not_claimed() -> None:
    assert headline({**result(), "gain": {}}).startswith("No sure difference")
    assert headline({}).startswith("Nothing to compare yet")


def test_the_better_one_is_marked_in_each_pair() -> None:
    page = report(result())
    best = [attributes.get("class") for attributes in page.named("td") if "best" in (attributes.get("class") or "")]
    assert len(best) == 9  # three pairs in two months and the mean
    assert sum("pair" in (found or "") for found in best) == 3  # the frozen model's calibration, in each row


def test_maturity_and_cost_are_told() -> None:
    text = report(result()).text
    assert "60 of 61 days are mature (98.4 %)" in text
    assert ">99.9 %" in text  # resolved, not quite all
    assert "268,694,850 row-rounds (26,869,485 each, on average)" in text


def test_days_of_events_are_local() -> None:
    made = result()
    made["events"][0]["at"] = "2013-04-09T02:00:00Z"
    assert "2013-04-08 22:00" in report(made).text


def test_hostile_text_stays_text() -> None:
    made = result()
    made["champion"] = HOSTILE
    for event in made["events"]:
        event["why"] = event["subject"] = HOSTILE
    page = report(made, project={"name": HOSTILE, "objective": HOSTILE, "positive": HOSTILE}, policy=HOSTILE, model=HOSTILE)
    assert not page.wrong
    assert not page.named("script") + page.named("img")
    assert list(page.addresses()) == ["data:,"]
    assert page.text.count("onerror=alert(1)") > 10
    assert "{{ 7 * 7 }}" in page.text


@pytest.mark.parametrize("gone", sorted(result()))
@pytest.mark.parametrize("instead", [None, "absent"])
def test_a_result_without_a_part_is_still_a_page(gone: str, instead: str | None) -> None:
    made = result()
    made.pop(gone)
    if instead is None:
        made[gone] = None
    assert not report(made).wrong


def test_an_empty_result_says_that_there_is_nothing() -> None:
    page = report({}, project={}, policy="", model="")
    assert not page.wrong
    assert "Nothing to compare yet" in page.text
    assert "No month has a labelled row yet." in page.text
    assert "no drift was found" in page.text


def test_one_month_without_labels() -> None:
    nothing = dict.fromkeys(("roc_auc", "log_loss", "calibration_error"))
    row = {"month": "2013-04", "rows": 0, "requests": 12, "resolved": 0.0, "share_positive": None, "frozen": nothing, "loop": nothing}
    page = report({"months": [row], "mean": {"frozen": nothing, "loop": nothing}, "gain": {}, "events": [], "daily": []})
    assert not page.wrong
    assert "No month has a ROC AUC" in page.text
    assert "nan" not in page.text.lower().replace("nanosecond", "").split()


def test_another_word_for_the_positive_class() -> None:
    text = report(result(), project={"name": "shop", "positive": "returned"}).text
    assert "share returned" in text
    assert "share late" not in text
    assert "share true" in report(result(), project={"name": "shop"}).text
