"""Requests that come together are asked together: each gets its own answers, a wrong one fails alone, and who is alone never waits."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late

import numpy as np
import pytest

from tidemill.core import DataError, Floats, Unavailable
from tidemill.models import Gatherer

LONG = 60.0  # seconds: a test that waits for this fails by its timeouts


class Model:
    """Doubles the first column; a call waits until it is let. A row below zero is refused, and so is all that is with it."""

    def __init__(self, *, let: bool = True) -> None:
        self.sizes, self.let, self.begun = list[int](), threading.Event(), threading.Event()
        if let:
            self.let.set()

    def __call__(self, features: Floats) -> Floats:
        self.sizes.append(len(features))
        self.begun.set()
        assert self.let.wait(LONG)
        if (features < 0).any():
            raise DataError("a row is below zero")
        return features[:, 0] * 2


def rows(*values: float) -> Floats:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def begun(gatherer: Gatherer, *values: float) -> "Future[list[float]]":
    return gatherer.begin(rows(*values), lambda found: found.tolist())


def busy(gatherer: Gatherer, model: Model) -> "Future[list[float]]":
    """A call that is under way."""
    first = begun(gatherer, 100)
    assert model.begun.wait(10)
    return first


def test_what_comes_while_a_call_runs_is_asked_together_next() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=0)
    first = busy(gatherer, model)
    others = [begun(gatherer, value, value + 0.5) for value in range(5)]
    model.let.set()
    assert [one.result(10) for one in others] == [[2.0 * value, 2.0 * value + 1] for value in range(5)]
    assert first.result(10) == [200.0]
    assert model.sizes == [1, 10]


def test_a_wrong_request_fails_alone() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=0)
    busy(gatherer, model)
    others = [begun(gatherer, -1 if value == 3 else value) for value in range(7)]
    model.let.set()
    with pytest.raises(DataError, match="below zero"):
        others[3].result(10)
    assert [others[value].result(10) for value in range(7) if value != 3] == [[2.0 * value] for value in range(7) if value != 3]


def test_what_is_made_of_the_answers_fails_alone() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=0)
    busy(gatherer, model)
    wrong, right = gatherer.begin(rows(1), lambda found: 1 / 0), begun(gatherer, 2)
    model.let.set()
    with pytest.raises(ZeroDivisionError):
        wrong.result(10)
    assert right.result(10) == [4.0]


def test_where_nothing_answers_nobody_is_asked_twice() -> None:
    asked = list[int]()

    def away(features: Floats) -> Floats:
        asked.append(len(features))
        raise Unavailable("it is away")

    gatherer = Gatherer(away)
    with pytest.raises(Unavailable):
        gatherer.ask(rows(1, 2, 3))
    assert asked == [3]


def test_who_asks_alone_never_waits() -> None:
    gatherer = Gatherer(Model(), within=LONG)
    assert [begun(gatherer, value).result(10) for value in range(20)] == [[2.0 * value] for value in range(20)]


def test_those_who_were_there_together_just_before_are_waited_for() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=LONG)
    first = busy(gatherer, model)
    second = begun(gatherer, 1)
    model.let.set()
    assert first.result(10) == [200.0]
    with pytest.raises(Late):  # another one was under way with it
        second.result(0)
    third = begun(gatherer, 2)
    assert (second.result(10), third.result(10)) == ([2.0], [4.0])
    assert model.sizes == [1, 2]


def test_nobody_waits_longer_than_declared() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=0.02)
    busy(gatherer, model)
    alone = begun(gatherer, 1)
    model.let.set()
    assert alone.result(10) == [2.0]  # nobody else ever comes


def test_a_call_has_no_more_rows_than_declared_and_a_larger_request_its_own() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, rows=64, within=0)
    busy(gatherer, model)
    others = [begun(gatherer, *range(size)) for size in (40, 20, 10, 100, 1)]
    model.let.set()
    assert [len(one.result(10)) for one in others] == [40, 20, 10, 100, 1]
    assert model.sizes == [1, 60, 10, 100, 1]


def test_who_has_gone_is_not_asked() -> None:
    model = Model(let=False)
    gatherer = Gatherer(model, within=0)
    busy(gatherer, model)
    gone, there = begun(gatherer, -1), begun(gatherer, 1)
    assert gone.cancel()
    model.let.set()
    assert there.result(10) == [2.0]
    assert model.sizes == [1, 1]


def test_from_many_threads_each_gets_its_own_answers() -> None:
    model = Model()
    gatherer = Gatherer(model, rows=16, within=0.001)
    random = np.random.default_rng(3)
    asked = [random.normal(5, 4, (random.integers(1, 9), 1)) for _ in range(600)]

    def ask(features: Floats) -> Floats | None:
        try:
            return gatherer.ask(features)
        except DataError:
            return None

    with ThreadPoolExecutor(16) as pool:
        for features, found in zip(asked, pool.map(ask, asked), strict=True):
            if (features < 0).any():
                assert found is None
            else:
                np.testing.assert_array_equal(found, features[:, 0] * 2)
    assert max(model.sizes) > 8  # several were asked together
