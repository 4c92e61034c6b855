"""Rows that bring the features themselves: the model answers the same, checked and logged, and the answer says where they came from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serving.conftest import Served
from serving.test_gateway import LAST_DAYS, Replayed, batch_of
from tidemill.core import show
from tidemill.data import Dataset
from tidemill.features import Reader, Requests
from tidemill.models import Signature
from tidemill.serving import sample_answers
from tidemill.serving.given import Given
from tidemill.serving.rows import Rows


@pytest.fixture
def values(replayed: Replayed) -> dict[str, Any]:
    """The features of one request, as `explain` tells them."""
    return batch_of(replayed, *LAST_DAYS)[7][3]


def test_what_explain_tells_can_be_sent_back(replayed: Replayed, served: Served) -> None:
    for key, at, probability, values, _ in batch_of(replayed, *LAST_DAYS):
        answer = served.one(rows=[dict(sorted(values.items()))], at=show(at), explain=True)
        assert (answer["probability"], answer["inputs"], answer["rung"], answer["key"]) == (probability, values, "champion", "")
        assert (answer["features_from"], answer["features_missing"]) == ("request", {})
        assert not answer.keys() & {"note", "note_features"}
        assert served.one(rows=[{"parcel": key, **values}], at=show(at))["key"] == key


def test_forms_may_be_mixed_and_answers_keep_the_order(replayed: Replayed, served: Served) -> None:
    rows = batch_of(replayed, *LAST_DAYS)[:6]
    at = [show(one[1]) for one in rows]
    status, answer = served.ask(rows=[{"parcel": one[0]} if i % 2 else one[3] for i, one in enumerate(rows)], at=at)
    assert status == 200
    assert [one["probability"] for one in answer["predictions"]] == [one[2] for one in rows]
    assert [one["features_from"] for one in answer["predictions"]] == ["request", "offline"] * 3


def test_the_log_has_what_was_sent_and_skew_does_not_ask_where_it_came_from(served: Served, values: dict[str, Any]) -> None:
    served.one(rows=[values | {"parcel": "p1"}])
    (line,) = served.logged
    assert (line["inputs"], line["versions"], line["key"], line["features_from"]) == (values, {}, "p1", "request")
    sample = sample_answers(served.log, line["branch"], 0, 2**62, 10)
    assert (sample.answers, sample.kept) == (1, 0)


def test_an_infinite_number_is_sent_as_text_and_an_unknown_category_counts_as_none(served: Served, values: dict[str, Any]) -> None:
    found = served.one(rows=[values | {"booking__weight": "inf", "booking__grade": "a new grade"}], explain=True)["inputs"]
    assert (found["booking__weight"], found["booking__grade"]) == ("inf", None)
    model = served.endpoint.predictors[served.endpoint.standing.champion[1]]
    row = [
        np.inf if name == "booking__weight" else np.nan if name == "booking__grade" else values[name] for name in model.signature.features
    ]
    codes = [
        model.signature.categories[name].index(one) if isinstance(one, str) else one
        for name, one in zip(model.signature.features, row, strict=True)
    ]
    (expected,) = model.predict(np.array([codes], dtype=np.float64))
    assert served.one(rows=[values | {"booking__weight": "inf", "booking__grade": "a new grade"}])["probability"] == expected


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [
        ("BIGINT", 7.0, "7"),
        ("BIGINT", 7, "7"),
        ("BOOLEAN", True, "true"),
        ("DOUBLE", 7, "7.0"),
        ("DECIMAL(3,1)", 7.5, "7.5"),
        ("FLOAT", 7.1, "7.1"),
    ],
)
def test_a_key_is_spelled_as_the_requests_spell_theirs(kind: str, key: object, text: str) -> None:
    """JSON of other languages has 7.0 for 7; its answer is logged under the key by which feedback comes."""
    at = np.array([0])
    known = replace(Requests.bare([text], at), order=np.array([0]))
    rows = Rows(known, Dataset.recorded("asked", "at", key=("id",)), {"id": kind}, "at", Reader([], {}, {}))
    given = Given(Signature(("size",)), ("id",), ("id",))
    (part,) = rows.parts([{"id": key}], at, given)
    assert part.requests.keys.tolist() == [text.encode()]
    (part,) = rows.parts([{"id": key, "size": 1.0}], at, given)
    assert part.requests.keys.tolist() == [text.encode()]


WRONG = [
    ({"booking__weight": "heavy"}, "rows[0].booking__weight is 'heavy', and not a number"),
    ({"booking__weight": True}, "rows[0].booking__weight is True"),
    ({"booking__weight": 10**400}, "rows[0].booking__weight is 1000"),
    ({"booking__weight": [1.0]}, "rows[0].booking__weight is [1.0]"),
    ({"booking__grade": 1}, "rows[0].booking__grade is 1, and not a text"),
    ({"booking__size": 1}, "rows[0] has a field 'booking__size' that the model does not know"),
    ({"depot": "N"}, "rows[0] has a field 'depot'"),
    ({"parcel": None}, "rows[0] has a null key 'parcel'"),
    ({"parcel": 1.5}, "the request's parcel = 1.5 is not VARCHAR"),
    ({"parcel": "x" * 1_001}, "a key of the request has 1,001 bytes"),
]


@pytest.mark.parametrize(("change", "what"), WRONG, ids=lambda case: str(case)[:40])
def test_a_wrong_feature_is_named_with_its_place(served: Served, values: dict[str, Any], change: dict[str, Any], what: str) -> None:
    status, answer = served.ask(rows=[values | change])
    assert (status, what in answer["error"]) == (400, True), answer
    assert served.logged == []


def test_all_features_are_sent_and_the_error_lists_them(served: Served, values: dict[str, Any]) -> None:
    status, answer = served.ask(rows=[values, {name: value for name, value in values.items() if name != "booking__weight"}])
    assert (status, answer["detail"]["what"]) == (400, "rows[1] lacks the feature 'booking__weight'")
    assert answer["detail"]["available"] == [*values]
