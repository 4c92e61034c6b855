"""The status page: each thing where a person looks for it, and a page for any part of it."""

from typing import Any

import pytest

from tidemill.web.status import render_status
from web.pages import Page
from web.results import HOSTILE, status


def test_the_page_tells_all() -> None:
    page = Page(render_status(status()))
    assert not page.wrong
    assert list(page.addresses()) == ["data:,", "/report/late", "/docs"]
    for said in (
        "flights", "Warn passengers", "ops@example.org", "champion m/2 95 % 2013-04-25 04:00 2013-04-09 04:00 392b17d5bc63",
        "candidate (canary) m/3 5 %", "previous m/1 0 % –", "the previous version, then the constant 0.22",
        """-d '{"flight_id": "UA-1545"}'""", "1,500 (98.5 %)", "drift found m/1 temp (PSI 0.24, 20× its usual)",
        "m/5 on 2013-05-09 04:00: reason 5",
        "Last window: 2013-05-02 to 2013-05-09: log_loss 0.512 (0.498).", "replay branch 7c616cbb , finished",
        "served beside the same computed offline: answers from 2013-05-02 to 2013-05-09, 600 of 900 compared: 1 of 20 features differ.",
        "Held : nothing goes live while features are not served as they are learnt. wind differs in 12 of 600 answers.",
        "✓ passed", "✗ refused", "no verdict", "a slice is worse", "+0.045 (95 %: +0.012 to +0.060)",
    ):  # fmt: skip
        assert said in page.text


def test_the_curl_line_can_be_copied_whole() -> None:
    made = status()
    page = Page(render_status(made))
    assert [text for around, text in page.texts if around[-1] == "pre"] == [made["deployments"][0]["curl"]]


def test_lineage_is_a_tree() -> None:
    page = Page(render_status(status()))
    depth = {text: around.count("ul") for around, text in page.texts if text in ("version:m/2", "run:7", "dataset:arrivals")}
    assert depth == {"version:m/2": 1, "run:7": 2, "dataset:arrivals": 3}


def test_only_the_last_alerts_are_shown_newest_first() -> None:
    made = status()
    made["deployments"][0]["alerts"] = [
        {"at": f"2013-04-{at:02}T04:00:00Z", "kind": "drift found", "subject": "m/1", "why": f"n{at}."} for at in range(1, 21)
    ]
    text = Page(render_status(made)).text
    assert text.index("n20.") < text.index("n11.")
    assert "n10." not in text
    assert "10 older ones" in text


def test_times_are_shown_in_the_zone_of_the_project() -> None:
    made = status()
    made["project"]["timezone"] = "America/New_York"
    assert "since" in (text := Page(render_status(made)).text)
    assert "2013-04-25 2013-04-09" in text  # local midnights need no time of day


def test_an_empty_project_is_told_what_to_do() -> None:
    page = Page(render_status({}))
    assert not page.wrong
    assert "None yet. Declare one with" in page.text
    page = Page(render_status({"deployments": [{"name": "late"}]}))
    for said in ("No version yet", "No alert", "None since the first model.", "No champion yet, so no lineage."):
        assert said in page.text


def test_each_of_several_deployments_has_its_own_part() -> None:
    made = status()
    made["deployments"].append({**made["deployments"][0], "name": "cancelled", "alerts": []})
    page = Page(render_status(made))
    assert not page.wrong
    for said in ("Deployment late", "Deployment cancelled", "Versions of late", "Versions of cancelled", "Month by month of cancelled"):
        assert said in page.text


def keys_of(tree: Any) -> list[tuple[Any, ...]]:
    """The path of every part of a status."""
    pairs: list[tuple[Any, Any]] = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [(key, *rest) for key, value in pairs for rest in [(), *keys_of(value)]]


@pytest.mark.parametrize("path", keys_of(status()), ids=lambda path: ".".join(map(str, path)))
def test_any_part_may_be_none_or_missing(path: tuple[Any, ...]) -> None:
    for missing in (True, False):
        made = status()
        holder: Any = made
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder, list):
            continue  # a list without one of its parts is another list
        if missing:
            del holder[path[-1]]
        else:
            holder[path[-1]] = None
        page = Page(render_status(made))
        assert not page.wrong
        assert "None" not in page.text.replace("None yet", "").replace("None since", "")


def hostile(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: hostile(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [hostile(value) for value in tree]
    return HOSTILE if isinstance(tree, str) else tree


def test_hostile_text_stays_text() -> None:
    page = Page(render_status(hostile(status())))
    assert not page.wrong
    assert not page.named("script") + page.named("img")
    assert next(iter(page.addresses())) == "data:,"
    assert not [one for one in page.addresses() if one.startswith(("http", "//", "javascript"))]
