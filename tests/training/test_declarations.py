"""Tasks that cannot work are refused when they are declared, with file and line."""

import pytest

import tidemill as tm
from tidemill.core import DefinitionError

SOURCE = {"s": tm.Source("x.csv")}


def task(key: str | list[str], label_key: str | list[str]) -> tm.Task:
    request = tm.Dataset("asked", SOURCE, event_time="t", key=key)
    outcome = tm.Dataset("outcome", SOURCE, event_time="t", key=label_key)
    return tm.Task("late", request, "t", [tm.RequestView("own", request, features={"x": "x"})], tm.Label(outcome, "late"))


@pytest.mark.parametrize(("key", "label_key"), [("id", []), ("id", ["id", "part"]), (["id", "part"], ["part", "id"]), ("id", "other")])
def test_a_label_whose_dataset_has_another_key_is_refused(key: str | list[str], label_key: str | list[str]) -> None:
    """Its labels would be found for no request, and every request would count as one without an outcome."""
    with pytest.raises(DefinitionError, match="the label's dataset 'outcome' has the key") as error:
        task(key, label_key)
    assert __file__ in error.value.where


def test_one_key_written_in_two_ways_is_one() -> None:
    assert task("id", ["id"]).label.dataset.keys == ("id",)
