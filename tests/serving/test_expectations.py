"""What a deployment expects of features and probabilities: counted, clipped, led to another rung, or rejected, and always told."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidemill as tm
from serving.conftest import Served
from tidemill.core import DataError, DefinitionError, instant
from tidemill.features import Matrix
from tidemill.models import Signature
from tidemill.serving import Ladder
from tidemill.serving.expectations import Expectations
from tidemill.serving.refusals import told

KEY, AT = {"parcel": "p118-003"}, "2024-04-30T00:00:00Z"
WEIGHT = "booking__weight"


def expecting(served: Served, *expect: tm.Expect, fallback: Sequence[Any] = (tm.Constant(0.3),)) -> Served:
    served.endpoint = replace(served.endpoint, expect=expect, fallback=fallback, ladder=Ladder("late"))
    return served


def sent(served: Served, **changes: Any) -> dict[str, Any]:
    """The answer to the features of a request, some of them changed."""
    (whole,) = served.endpoint.answer([KEY], [instant(AT)], explain=True)
    served.endpoint.ladder.counts.clear()
    (answer,) = served.endpoint.answer([{**(whole.inputs or {}), **changes}], [instant(AT)], explain=True, keep=1.0)
    assert answer.line().get("unexpected") == answer.plain(0).get("unexpected")
    return answer.plain(0)


def test_what_is_expected_is_not_spoken_of(served: Served) -> None:
    expecting(served, tm.Expect(WEIGHT, low=0, high=1e6, otherwise="reject"), tm.Expect("probability", low=0, high=1))
    assert "unexpected" not in sent(served)
    assert "unexpected" not in sent(served, **{WEIGHT: 1e6})
    assert "unexpected" not in sent(served, **{WEIGHT: None})
    assert set(served.endpoint.ladder.counts) == {"champion"}


def test_a_value_is_counted_and_the_answer_stays(served: Served) -> None:
    plain = sent(served, **{WEIGHT: 5_000.0})
    found = sent(expecting(served, tm.Expect(WEIGHT, high=50)), **{WEIGHT: 5_000.0})
    assert found["unexpected"] == {WEIGHT: "5000, not 50 or less, or null: counted"}
    assert found["probability"] == plain["probability"]
    assert served.endpoint.ladder.counts == {"champion": 1, f"unexpected {WEIGHT}: count": 1}


@pytest.mark.parametrize(("value", "as_if"), [(5_000.0, 50.0), (-3.0, 1.0), ("inf", 50.0), ("-inf", 1.0)])
def test_a_clipped_value_is_answered_as_the_bound_and_told_as_it_was(served: Served, value: Any, as_if: float) -> None:
    plain = sent(served, **{WEIGHT: as_if})
    found = sent(expecting(served, tm.Expect(WEIGHT, low=1, high=50, otherwise="clip")), **{WEIGHT: value})
    assert found["probability"] == plain["probability"]
    assert found["inputs"][WEIGHT] == value
    assert found["unexpected"][WEIGHT].endswith(": clipped")


def test_a_row_falls_back_to_what_asks_no_model_and_the_others_do_not(served: Served) -> None:
    expecting(served, tm.Expect(WEIGHT, null=False, otherwise="fall back"), fallback=[tm.PreviousVersion(), tm.Constant(0.3)])
    (whole,) = served.endpoint.answer([KEY], [instant(AT)], explain=True)
    inputs = whole.inputs or {}
    answers = served.endpoint.answer([inputs, inputs | {WEIGHT: None}, inputs], [instant(AT)] * 3)
    assert [one.rung for one in answers] == ["champion", "constant", "champion"]
    assert [one.unexpected for one in answers] == [{}, {WEIGHT: "null: fell back"}, {}]
    assert answers[0].probability == whole.probability


def test_a_request_is_rejected_with_the_place_of_the_fault_and_what_is_expected(served: Served) -> None:
    expecting(served, tm.Expect(WEIGHT, low=0, high=50, null=False, otherwise="reject"))
    (whole,) = served.endpoint.answer([KEY], [instant(AT)], explain=True)
    inputs = whole.inputs or {}
    with pytest.raises(DataError) as error:
        served.endpoint.answer([KEY, inputs, inputs | {WEIGHT: -1.0}], [instant(AT)] * 3)
    assert (error.value.what, error.value.hint) == (f"rows[2]: {WEIGHT} is -1, below 0", "0 to 50 is expected")
    with pytest.raises(DataError, match="is null"):
        served.endpoint.answer([inputs | {WEIGHT: None}], [instant(AT)])
    with pytest.raises(DataError, match="inf, not 0 to 50") as error:
        served.endpoint.answer([inputs | {WEIGHT: "inf"}], [instant(AT)])
    assert told(error.value)[0] == 400
    assert served.endpoint.ladder.counts == {"champion": 1}, "of the first, whole request"


def test_a_looked_up_value_is_held_against_it_too(served: Served) -> None:
    (whole,) = served.endpoint.answer([KEY], [instant(AT)], explain=True)
    weight = (whole.inputs or {})[WEIGHT]
    expecting(served, tm.Expect(WEIGHT, low=weight + 1, high=weight + 2, otherwise="fall back"))
    (answer,) = served.endpoint.answer([KEY], [instant(AT)])
    assert (answer.rung, answer.problems) == ("constant", whole.problems)


def test_a_probability_is_clipped_or_the_next_rung_answers(served: Served) -> None:
    (whole,) = served.endpoint.answer([KEY], [instant(AT)])
    low = whole.probability + 0.01
    (found,) = expecting(served, tm.Expect("probability", low=low, high=1, otherwise="clip")).endpoint.answer([KEY], [instant(AT)])
    assert (found.probability, found.rung) == (low, "champion")
    assert set(found.unexpected) == {"probability"}
    (found,) = expecting(served, tm.Expect("probability", low=low, otherwise="fall back")).endpoint.answer([KEY], [instant(AT)])
    assert (found.probability, found.rung) == (0.3, "constant")
    assert served.endpoint.ladder.counts == {"constant": 1, "unexpected probability: fall back": 1}


def test_what_no_model_has_is_refused_when_it_is_opened(served: Served) -> None:
    with pytest.raises(DefinitionError, match="'wind', which is no feature of the model"):
        expecting(served, tm.Expect("wind", low=0))
    with pytest.raises(DefinitionError, match="is a category, and has no range"):
        expecting(served, tm.Expect("booking__grade", low=0))
    expecting(served, tm.Expect("booking__grade", null=False))


WRONG = [
    ({"of": ""}, "the feature of an expectation is empty"),
    ({"low": "1"}, "low='1' is no number"),
    ({"low": 2, "high": 1}, "low=2 is above high=1"),
    ({"otherwise": "ignore"}, "otherwise='ignore' is not known"),
    ({"otherwise": "clip", "low": 1}, "this one is open"),
    ({"otherwise": "clip", "low": 1, "high": 2, "null": False}, "nothing cannot be clipped"),
    ({"of": "probability", "otherwise": "reject"}, "the request is not to blame"),
    ({"null": 1}, "null is 1"),
]


@pytest.mark.parametrize(("changes", "what"), WRONG, ids=lambda case: str(case)[:40])
def test_what_cannot_work_is_refused_where_it_is_declared(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(DefinitionError) as error:
        tm.Expect(**{"of": "wind", **changes})
    assert what in str(error.value)


numbers = st.one_of(st.floats(width=64), st.sampled_from([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]))
bounds = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1.0, 2.5]))


@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5),
    bounds,
    bounds,
    st.booleans(),
    st.sampled_from(["count", "fall back", "clip"]),
)
def test_each_value_is_judged_by_itself(
    rows: list[tuple[float, float]], low: float | None, high: float | None, null: bool, otherwise: str
) -> None:
    """Beside plain Python, value by value."""
    low, high = (high, low) if low is not None and high is not None and low > high else (low, high)
    if otherwise == "clip" and (low is None or high is None or not null):
        return
    expectations = Expectations([tm.Expect("a", low, high, null, otherwise)], Signature(("a", "b")))
    values = np.array(rows, dtype=np.float64)
    matrix = Matrix(("a", "b"), values.copy(), {}, (), np.empty((len(rows), 0), np.uint8), np.zeros(len(rows), dtype=bool))
    found, unexpected = expectations.held(matrix, range(len(rows)))
    odd = []
    for i, (value, _) in enumerate(rows):
        fits = null if np.isnan(value) else np.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        odd += [] if fits else [i]
        if not fits and otherwise == "clip" and low is not None and high is not None:
            values[i, 0] = low if value < low else high
    assert [one.row for one in unexpected] == odd
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(matrix.values, np.array(rows, dtype=np.float64))
