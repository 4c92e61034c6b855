"""Which version answers a key: the same every time, and never back again while a rollout climbs."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import DefinitionError
from tidemill.serving import Canary, Constant, Deployment, Route, to_challenger
from tidemill.serving.routing import share, shares, weighed
from tidemill.training import Model

words = st.text(max_size=12)
weights = st.floats(0, 1)


def chosen(weight: float, keys: list[str], salt: str = "late/2") -> list[bool]:
    return to_challenger(Route("m/1", "m/2", weight, salt), keys).tolist()


@given(keys=st.lists(words, max_size=50), weight=weights, salt=words)
def test_a_key_goes_where_it_went_whatever_else_is_asked(keys: list[str], weight: float, salt: str) -> None:
    together = chosen(weight, keys, salt)
    assert together == [chosen(weight, [key], salt)[0] for key in keys]
    assert together[::-1] == chosen(weight, keys[::-1], salt)


@given(keys=st.lists(words, max_size=50), one=weights, two=weights)
def test_a_key_of_the_challenger_stays_when_the_weight_grows(keys: list[str], one: float, two: float) -> None:
    low, high = sorted([one, two])
    assert all(not before or after for before, after in zip(chosen(low, keys), chosen(high, keys), strict=True))


@given(keys=st.lists(words, min_size=1, max_size=20))
def test_nobody_at_zero_everybody_at_one(keys: list[str]) -> None:
    assert not any(chosen(0.0, keys))
    assert all(chosen(1.0, keys))
    assert not to_challenger(Route("m/1", "", 0.7), keys).any(), "without a challenger the champion answers all"


def test_the_share_of_keys_is_the_weight() -> None:
    keys = [f"N{i}" for i in range(20_000)]
    for weight in (0.05, 0.25, 0.5, 0.9):
        count = sum(chosen(weight, keys))
        sigma = (len(keys) * weight * (1 - weight)) ** 0.5
        assert abs(count - weight * len(keys)) < 4 * sigma


def test_each_rollout_draws_its_own_keys() -> None:
    keys = [f"N{i}" for i in range(20_000)]
    one, two = (np.array(chosen(0.25, keys, salt)) for salt in ("late/2", "late/3"))
    both = int((one & two).sum())
    assert abs(both - len(keys) / 16) < 4 * (len(keys) / 16) ** 0.5


@given(key=words, salt=words)
def test_a_share_is_a_share(key: str, salt: str) -> None:
    assert 0 <= share(key, salt) < 1


@pytest.mark.parametrize(
    ("declare", "what"),
    [
        (lambda: Canary(alpha=5), "alpha=5"),
        (lambda: Canary(alpha=0), "alpha=0"),
        (lambda: Canary(min_labels=-1), "min_labels=-1"),
        (lambda: Canary(steps=[0.5, 0.5, 1.0]), "must rise to 1.0"),
        (lambda: Canary(steps=[0.5, 0.2, 1.0]), "must rise to 1.0"),
        (lambda: Canary(steps=[]), "must rise to 1.0"),
        (lambda: Constant(1.5), "the constant 1.5 is no probability"),
        (lambda: Constant(float("nan")), "is no probability"),
        (lambda: Deployment("late", cast("Model", None), timeout="0ms"), "'0ms' is no time at all"),
    ],
)
def test_a_rollout_or_fallback_that_cannot_work_is_refused_where_it_is_declared(declare: Callable[[], object], what: str) -> None:
    with pytest.raises(DefinitionError, match=what) as error:
        declare()
    assert __file__ in error.value.where


SEVERAL = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), min_size=1).filter(lambda given: sum(given.values()) > 0)


@given(keys=st.lists(words, max_size=50), given=SEVERAL, salt=words)
def test_a_key_belongs_to_one_of_several_whatever_else_is_asked(keys: list[str], given: dict[str, float], salt: str) -> None:
    together = weighed(given, salt, keys)
    assert together == [weighed(given, salt, [key])[0] for key in keys]
    assert together == weighed(dict(reversed(given.items())), salt, keys), "whatever their order"
    assert all(given[name] > 0 for name in together)


@given(keys=st.lists(words, max_size=50), given=SEVERAL, more=st.floats(0, 1), data=st.data())
def test_keys_stay_where_a_weight_grows_and_where_another_is_taken_out(
    keys: list[str], given: dict[str, float], more: float, data: st.DataObject
) -> None:
    grown = data.draw(st.sampled_from(sorted(given)))
    before, rest = weighed(given, "late", keys), sum(given.values()) - given[grown]
    shrunk = {name: weight * (1 - more) for name, weight in given.items()} | {grown: given[grown] + rest * more}
    assert all(then == grown for now, then in zip(before, weighed(shrunk, "late", keys), strict=True) if now == grown)
    without = {name: weight for name, weight in given.items() if name != grown}
    if any(without.values()):
        assert all(now in (then, grown) for now, then in zip(before, weighed(without, "late", keys), strict=True))


def test_shares_of_several_are_their_weights() -> None:
    keys, given = [f"N{i}" for i in range(20_000)], {"a": 0.7, "b": 0.2, "c": 0.1}
    found = weighed(given, "late", keys)
    for name, weight in given.items():
        assert abs(found.count(name) - weight * len(keys)) < 4 * (len(keys) * weight * (1 - weight)) ** 0.5


def test_a_challenger_takes_its_share_before_the_weights() -> None:
    found = shares("m/3", "m/4", 0.5, {"m/2": 0.2, "m/1": 0.1})
    assert found == pytest.approx({"m/3": 0.35, "m/4": 0.5, "m/2": 0.1, "m/1": 0.05})
    assert shares("m/3", "", 0.5, {"m/2": 1.0}) == {"m/3": 0.0, "m/2": 1.0}
