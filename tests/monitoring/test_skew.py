"""What is compared against a slow rule in plain Python; alarms at no more than their stated rate, and found when planted."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tidemill.core import DefinitionError, share_interval
from tidemill.monitoring import Compared, FeatureSkew, Skew, Skewed, compare, skew_alert, too_many

Cell = float | None
numbers = st.sampled_from([None, 0.0, -0.0, 1.0, 1.0 + 2**-52, -1.0, 3.5, 1e308, -1e308, math.inf, -math.inf, 5e-324])


def compared(
    served: list[Cell], today: list[Cell], then: list[Cell] | None = None, *, words: dict[str, list[str]] | None = None
) -> Compared:
    columns = [np.array([math.nan if v is None else v for v in one])[:, None] for one in (served, today, then or today)]
    names: list[dict[str, str]] = [{"key": str(row)} for row in range(len(served))]
    return Compared(("v__x",), *columns, np.ones((len(served), 1), dtype=bool), words or {}, names, [({}, {})] * len(served))


def off(one: float, other: float) -> float:
    """The relative error, told slowly."""
    if one == other:
        return 0.0
    if math.isinf(one) or math.isinf(other):
        return 2.0 if (one > 0) != (other > 0) and 0.0 not in (one, other) else 1.0
    larger = max(abs(one), abs(other))
    found = abs(one - other) / larger
    return 2.0 if math.isinf(found) else found


def rule(served: Cell, today: Cell, then: Cell, tolerance: float) -> str:
    def alike(other: Cell) -> bool:
        if served is None or other is None:
            return served is other
        return served == other or off(served, other) <= tolerance

    if alike(today):
        return "equal"
    if alike(then):
        return "known_later"
    return "missing" if served is None else "extra" if today is None else "mismatch"


@given(rows=st.lists(st.tuples(numbers, numbers, numbers), max_size=30), tolerance=st.sampled_from([0.0, 1e-12, 0.5]))
def test_each_row_is_what_a_slow_rule_says(rows: list[tuple[Cell, Cell, Cell]], tolerance: float) -> None:
    served, today, then = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    (found,) = compare(compared(served, today, then), tolerance)
    kinds = [rule(*row, tolerance) for row in rows]
    for kind in ("equal", "known_later", "mismatch", "missing", "extra"):
        assert getattr(found, kind) == kinds.count(kind)
    errors = [off(s, t) for (s, t, _), kind in zip(rows, kinds, strict=True) if s is not None and t is not None and kind != "known_later"]
    assert found.greatest == (max(errors) if errors else None)
    assert found.mean == (pytest.approx(sum(errors) / len(errors)) if errors else None)
    assert found.rows == len(rows)
    assert len(found.examples) == min(found.differing, 3)
    worst = sorted(off(*map(float, row[:2])) for row, kind in zip(rows, kinds, strict=True) if kind == "mismatch")  # type: ignore[arg-type]
    shown = [off(float(one.served or 0), float(one.offline or 0)) for one in found.examples if one.kind == "mismatch"]
    assert shown == worst[::-1][: len(shown)], "those furthest off"


def test_texts_have_no_tolerance_and_no_error() -> None:
    (found,) = compare(compared([0, 1, 1, None], [0, 1, 0, 1], words={"v__x": ["north", "south"]}), tolerance=0.9)
    assert (found.equal, found.mismatch, found.missing, found.greatest, found.mean) == (2, 1, 1, None, None)
    assert [(one.answer["key"], one.served, one.offline) for one in found.examples] == [("2", "south", "north"), ("3", None, "south")]


def test_a_feature_is_counted_over_the_rows_whose_model_has_it() -> None:
    values = np.array([[1.0, np.nan], [1.0, 2.0]])
    asked = np.array([[True, False], [True, True]])
    rows = Compared(("a", "b"), values, values, values, asked, {}, [{}, {}], [({}, {})] * 2)
    assert [(one.name, one.rows, one.equal) for one in compare(rows)] == [("a", 2, 2), ("b", 1, 1)]


@pytest.mark.parametrize(("found", "rows"), [(0, 1), (1, 1), (1, 3), (12, 1000), (500, 1000), (1000, 1000), (3, 10**6), (0, 50)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_the_interval_of_a_share_is_the_exact_one(found: int, rows: int, confidence: float) -> None:
    ours, theirs = share_interval(found, rows, confidence), binomtest(found, rows).proportion_ci(confidence)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))
    assert ours.estimate == found / rows


def test_of_no_rows_a_share_may_be_anything() -> None:
    found = share_interval(0, 0, 0.95)
    assert (math.isnan(found.estimate), found.low, found.high) == (True, 0.0, 1.0)
    with pytest.raises(DefinitionError):
        share_interval(1, 2, 1.0)


def feature(name: str, differing: int, rows: int) -> FeatureSkew:
    share = share_interval(differing, rows, 0.95)
    return FeatureSkew(name, rows, rows - differing, 0, differing, 0, 0, share, None, None, ())


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("rows", [20, 300, 1000])
@pytest.mark.parametrize("features", [1, 30])
def test_the_chance_of_an_alarm_is_at_most_as_stated_where_shares_are_at_the_limit(limit: float, rows: int, features: int) -> None:
    check = Skew(max_share=limit, false_alarm_rate=0.05)
    ok = [feature(str(i), 0, rows) for i in range(features - 1)]
    least = next((count for count in range(rows + 1) if too_many([feature("x", count, rows), *ok], check)), rows + 1)
    chance = float(binom.sf(least - 1, rows, limit))  # that one feature raises it
    assert 1 - (1 - chance) ** features <= 0.05


def test_what_surely_differs_too_often_is_named_and_nothing_else() -> None:
    check = Skew(max_share=0.01)
    features = (feature("a", 0, 1000), feature("b", 12, 1000), feature("c", 40, 1000), feature("d", 500, 1000))
    over = too_many(features, check)
    assert over == ("c", "d"), "1.2 % of 1,000 may be 1 % of all"
    found = Skewed(0, 1, 2000, 1500, 1000, {}, features, over)
    alert = skew_alert(found, check, at=9)
    assert alert is not None
    assert (alert.kind, alert.at, list(alert.evidence["features"])) == ("skew found", 9, ["d", "c"]), "the worst first"
    assert "d differs in 500 of 1,000 answers (50.00%, 95%: 46.85% to 53.15%): 500 mismatch" in alert.why
    assert "1,000 of 2,000 compared: 3 of 4 features differ" in found.why
    assert too_many(features[:1], Skew(max_share=0.0)) == too_many((), check) == ()
    assert skew_alert(Skewed(0, 1, 0, 0, 0, {}, (), ()), check, at=9) is None


def test_where_nothing_was_compared_it_says_so() -> None:
    empty: dict[str, Any] = {"features": (), "over": ()}
    assert Skewed(0, 1, 0, 0, 0, {}, **empty).why.endswith(": no answer")
    assert "none of 7 has its features in the log" in Skewed(0, 1, 7, 0, 0, {}, **empty).why
    assert Skewed(0, 1, 7, 7, 0, {"gone": 7}, **empty).why.endswith("nothing was compared; 7 left out: gone")


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"rows": 2.5}, {"max_share": 1.0}, {"max_share": -0.1}, {"tolerance": 1.0}, {"false_alarm_rate": 0}, {"hold": 1}]
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Skew(**wrong)
