"""Sums of stretches against `math.fsum`, which is exactly rounded too; counting in stretches against brute force."""

import math
from fractions import Fraction
from itertools import chain

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.oracle import EXAMPLES
from tidemill.core import Ranges, Sums, partials, total

powers = st.builds(lambda sign, k: sign * 2.0**k, st.sampled_from([-1.0, 1.0]), st.integers(-60, 60))
hard = st.sampled_from([0.1, 1e16, -1e16, 1.0, 2**-53, 2**-54, -(2**-53), 5e-324, -5e-324, 1 + 2**-52, -0.0])
numbers = st.floats(-1e300, 1e300, allow_nan=False) | powers | hard


def stretches(n: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(i, j) for i in range(n + 1) for j in range(i, n + 1)]
    low, high = np.array(pairs, dtype=np.int64).T
    return low, high


@settings(max_examples=100 * EXAMPLES, deadline=None)
@given(st.lists(numbers, max_size=12))
@example([1.0, 2**-53, 2**-106])
@example([1e300, -1e300, 5e-324])
def test_every_stretch_is_rounded_once(values: list[float]) -> None:
    low, high = stretches(len(values))
    sums = Sums.of(np.array(values))
    near, rest = sums.pair(low, high)
    expected = [math.fsum(values[i:j]) for i, j in zip(low, high, strict=True)]
    assert sums.between(low, high).tolist() == near.tolist() == expected
    assert rest.tolist() == [math.fsum([*values[i:j], -sum_]) for i, j, sum_ in zip(low, high, expected, strict=True)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.data())
def test_columns_are_added_and_stretches_of_a_row_too(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    one, two = np.array(pairs).T
    low, high = stretches(len(pairs))
    sums = Sums.of(one, two)
    assert sums.between(low, high).tolist() == [math.fsum([*one[i:j], *two[i:j]]) for i, j in zip(low, high, strict=True)]
    starts = np.array(sorted({0, *data.draw(st.lists(st.integers(0, len(low) - 1)))}))
    parts = [[*one[i:j], *two[i:j]] for i, j in zip(low, high, strict=True)]
    expected = [math.fsum(chain.from_iterable(parts[a:b])) for a, b in zip(starts, [*starts[1:], len(low)], strict=True)]
    assert sums.between(low, high, starts).tolist() == expected


def test_infinities_and_sums_beyond_all_numbers() -> None:
    low, high = np.array([0, 0, 1, 3, 3]), np.array([1, 3, 3, 4, 5])
    found = Sums.of(np.array([1.0, np.inf, -np.inf, 1.5e308, 1.5e308])).between(low, high)
    assert np.array_equal(found, [1.0, np.nan, np.nan, 1.5e308, np.inf], equal_nan=True)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([1e308, 1.7e308, -1e308, -1.7e308, 1.0, 5e-324, 2.0**970]), max_size=9))
@example([1e308, 1e308, -1e308])
def test_a_sum_that_leaves_all_numbers_on_the_way_alone_is_that_sum(values: list[float]) -> None:
    exact = sum(map(Fraction, values))
    expected = float(exact) if abs(exact) < 2**1024 - 2**970 else math.inf if exact > 0 else -math.inf
    assert total(values) == Sums.of(np.array(values)).between(np.array([0]), np.array([len(values)]))[0] == expected
    few = partials(values)
    assert sum(map(Fraction, few)) == exact
    assert len(few) <= 4 or math.isinf(expected)


def test_infinite_numbers_among_those_whose_sum_is_beyond_all() -> None:
    assert total([1e308, 1e308, -math.inf]) == -math.inf
    assert math.isnan(total([1e308, 1e308, -math.inf, math.inf]))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(0, 9) | st.integers(0, 300), max_size=14), st.integers(0, 600), st.data())
def test_counts_and_ranks_are_what_sorting_gives(values: list[int], bound: int, data: st.DataObject) -> None:
    low, high = stretches(len(values))
    ranges = Ranges.of(np.array(values, dtype=np.int64))
    below = ranges.below(low, high, np.full(len(low), bound))
    assert below.tolist() == [sum(value < bound for value in values[i:j]) for i, j in zip(low, high, strict=True)]
    starts = np.array(sorted({0, *data.draw(st.lists(st.integers(0, len(low) - 1)))}))
    rows = [
        [v for i, j in zip(low[a:b], high[a:b], strict=True) for v in values[i:j]]
        for a, b in zip(starts, [*starts[1:], len(low)], strict=True)
    ]
    ranks = np.array([data.draw(st.integers(0, max(0, len(row) - 1))) for row in rows])
    found = ranges.smallest(low, high, starts, ranks)
    assert [f for f, row in zip(found.tolist(), rows, strict=True) if row] == [
        sorted(row)[rank] for row, rank in zip(rows, ranks.tolist(), strict=True) if row
    ]
