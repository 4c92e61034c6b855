"""Profiles keep every row; the drift test alarms at its rate, and sees what it should."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core import drift as d
from tidemill.core.errors import DataError, DefinitionError

EXACT = settings(derandomize=True, deadline=None)
VALUES = st.lists(st.sampled_from([0.0, 1.0, 2.5, -math.inf, math.inf, math.nan, 1e300]) | st.floats(allow_nan=True), max_size=60)
DECILES = np.array([NormalDist().inv_cdf(tenth / 10) for tenth in range(1, 10)])
GRID = np.linspace(-8, 8, 4001)
NORMAL = np.array([NormalDist().cdf(at) for at in GRID])


def profile(rows=900, days=90, features=3, seed=0, first=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features))
    X[:, -1] = rng.integers(0, 5, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, [f"f{at}" for at in range(features)], np.arange(features) == features - 1, first + np.sort(rng.integers(0, days, rows))


def counts_of(values, edges, kind="numeric"):
    """Values of one feature, counted into given bins."""
    bins = d.Profile(("x",), (kind,), (np.asarray(edges, dtype=np.float64),), np.zeros(0, dtype=np.int64), ())
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return d.profile_like(bins, column, np.zeros(len(column))).counts[0].sum(axis=0)


def between(profile, first, last):
    """The profile of the days first to last, both included."""
    keep = (profile.blocks >= first) & (profile.blocks <= last)
    return replace(profile, blocks=profile.blocks[keep], counts=tuple(table[keep] for table in profile.counts))


# --- bins


@EXACT
@given(VALUES, VALUES, st.integers(2, 12))
def test_no_value_is_dropped(reference, values, bins):
    edges = d.bin_edges(reference, bins)
    assert len(edges) <= 2 * bins - 2
    assert (np.diff(edges) > 0).all()
    assert np.isfinite(edges).all()
    counts = counts_of(values, edges)
    assert len(counts) == len(edges) + 4
    assert counts.sum() == len(values)
    assert counts[-1] == np.isnan(values).sum()
    assert (counts[-2], counts[-3]) == (values.count(math.inf), values.count(-math.inf))


@EXACT
@given(VALUES, st.integers(2, 12))
def test_bins_are_closed_above(values, bins):
    edges = d.bin_edges(values, bins)
    finite = np.array([value for value in values if math.isfinite(value)])
    bounds = [-math.inf, *edges, math.inf]
    by_hand = [((finite > low) & (finite <= high)).sum() for low, high in pairwise(bounds)]
    assert counts_of(values, edges)[:-3].tolist() == by_hand


def test_distinct_values_fall_into_bins_of_equal_mass():
    values = np.random.default_rng(0).normal(size=1000)
    assert (counts_of(values, d.bin_edges(values))[:10] == 100).all()


def test_an_outlier_squeezes_nobody():
    values = np.append(np.random.default_rng(0).normal(size=999), 1e12)
    assert (counts_of(values, d.bin_edges(values))[:10] == 100).all()


@pytest.mark.parametrize("atom", [-5.0, 0.0, 5.0])
def test_a_value_of_most_rows_has_a_bin_of_its_own(atom):
    values = np.where(np.arange(1000) % 10 < 8, atom, np.random.default_rng(0).normal(size=1000))
    assert 800 in counts_of(values, d.bin_edges(values))


def test_few_values_have_a_bin_each():
    values = [0] * 990 + [1] * 9 + [2]
    assert counts_of(values, d.bin_edges(values)).tolist() == [990, 9, 1, 0, 0, 0, 0]


def test_bins_need_two():
    with pytest.raises(DefinitionError, match="at least 2"):
        d.bin_edges([1.0], 1)


def test_codes_have_bins_and_the_rest_share_one():
    codes = d.known_codes([3, 3, 1, 1, 1, 8, math.nan, math.inf], limit=2)
    assert codes.tolist() == [1, 3]
    assert counts_of([1, 3, 3, 8, 2, math.inf, 99, math.nan], codes, "category").tolist() == [1, 2, 4, 1]
    assert counts_of([1, math.nan], [], "category").tolist() == [1, 1]


# --- distances


COUNTS = st.lists(st.integers(0, 500), min_size=4, max_size=4).filter(any)


@EXACT
@given(COUNTS, COUNTS)
def test_psi_is_symmetric_and_zero_only_for_equal_shares(p, q):
    assert d.psi(p, q) == pytest.approx(d.psi(q, p))
    assert d.psi(p, q) >= 0
    assert d.psi(p, [3 * count for count in p]) == pytest.approx(0, abs=1e-12)
    assert (d.psi(p, q) < 1e-12) == np.allclose(np.array(p) * sum(q), np.array(q) * sum(p), rtol=1e-9, atol=0)


def test_psi_of_equally_many_rows_adds_half_a_row():
    p, q = np.array([10.5, 30.5]) / 41, np.array([0.5, 40.5]) / 41
    assert d.psi([10, 30], [0, 40]) == pytest.approx(((q - p) * np.log(q / p)).sum())


def test_one_stray_row_weighs_about_one_row_of_sampling():
    noise = 1 / 20_000 + 1 / 240_000
    assert d.psi([240_000, 0], [19_999, 1]) < 1.5 * noise
    assert d.psi([240_000, 0], [19_900, 100]) > 100 * noise


def test_psi_without_change_is_about_its_noise():
    rng = np.random.default_rng(0)
    found = [d.psi(rng.multinomial(5000, [0.1] * 10), rng.multinomial(700, [0.1] * 10)) for _ in range(500)]
    assert np.mean(found) == pytest.approx(9 * (1 / 5000 + 1 / 700), rel=0.1)


def test_an_empty_histogram_cannot_be_compared():
    with pytest.raises(DataError, match="without rows"):
        d.psi([0, 0], [1, 2])


# --- profiles


def test_each_day_has_the_histogram_of_its_rows():
    X, names, categorical, days = profile()
    found = d.build_profile(X, names, categorical, days)
    assert found.rows.sum() == len(X)
    for at in range(3):
        for day, counts in zip(found.blocks, found.counts[at], strict=True):
            assert counts.tolist() == counts_of(X[days == day, at], found.edges[at], found.kinds[at]).tolist()


def test_a_profile_survives_json():
    X, names, categorical, days = profile()
    found = d.build_profile(X, names, categorical, days)
    for each in (found, between(found, -9, -1)):
        again = d.Profile.from_dict(json.loads(json.dumps(each.to_dict(), allow_nan=False)))
        assert again.to_dict() == each.to_dict()
        assert [table.shape for table in again.counts] == [table.shape for table in each.counts]
    with pytest.raises(DataError, match="format 2"):
        d.Profile.from_dict(found.to_dict() | {"format": 2})


def test_profiles_of_other_bins_do_not_mix():
    X, names, categorical, days = profile()
    found = d.build_profile(X, names, categorical, days)
    with pytest.raises(DataError, match="'f0' has other bins"):
        d.DriftTest(found, 7).run(d.build_profile(X + 1, names, categorical, days))
    with pytest.raises(DataError, match="different features"):
        d.DriftTest(found, 7).run(d.build_profile(X, ["a", "f1", "f2"], categorical, days))
    with pytest.raises(DataError, match="do not fit"):
        d.profile_like(found, X[:, :2], days)
    with pytest.raises(DataError, match="do not fit"):
        d.build_profile(X, names[:2], categorical, days)


# --- the test


def drift_of(reference, window, reference_days=90, days=7, alpha=0.05, categorical=(False, False)):
    """Test rows (days, rows a day, features) against rows of the days before."""
    names = [f"f{at}" for at in range(reference.shape[2])]
    base = d.build_profile(reference.reshape(-1, len(names)), names, categorical, np.repeat(np.arange(reference_days), reference.shape[1]))
    when = np.repeat(np.arange(len(window)) + reference_days, window.shape[1])
    return d.DriftTest(base, days, alpha).run(d.profile_like(base, window.reshape(-1, len(names)), when))


def normal(days, rows=200, features=2, seed=0):
    return np.random.default_rng(seed).normal(size=(days, rows, features))


def test_no_change_is_no_drift():
    found = drift_of(normal(90), normal(7, seed=1))
    assert (found.drifted, found.testable, found.reason, found.reference_blocks) == (False, True, "", 12)
    assert found.p_value > 0.05


def test_missing_values_are_drift():
    window = normal(7, seed=1)
    window[:, ::10, 1] = np.nan
    found = drift_of(normal(90), window)
    assert found.drifted
    assert [one.name for one in found.features] == ["f1", "f0"]
    assert found.features[0].psi > found.features[1].psi


@pytest.mark.parametrize("odd", [math.inf, -math.inf, 1e9])
def test_infinite_and_huge_values_are_drift(odd):
    window = normal(7, seed=1)
    window[:, ::5, 0] = odd
    assert drift_of(normal(90), window).features[0].name == "f0"
    assert drift_of(normal(90), window).drifted


def test_an_unseen_category_is_drift():
    rng = np.random.default_rng(0)
    reference, window = (rng.integers(0, 4, (days, 200, 2)).astype(float) for days in (90, 7))
    assert not drift_of(reference, window, categorical=(True, True)).drifted
    window[:, ::10, 0] = 7
    assert drift_of(reference, window, categorical=(True, True)).drifted


def test_an_outlier_in_the_reference_does_not_blind_the_test():
    reference = normal(90)
    reference[3, 5, 0] = 1e15
    assert drift_of(reference, normal(7, seed=1) + 0.5).drifted


def test_a_constant_feature_harms_nothing_and_its_change_is_seen():
    reference, window = normal(90), normal(7, seed=1)
    reference[..., 1] = window[..., 1] = 4
    assert not drift_of(reference, window).drifted
    window[:, ::20, 1] = 5
    assert drift_of(reference, window).features[0].name == "f1"
    assert drift_of(reference, window).drifted


def test_too_short_a_reference_says_so_instead_of_alarming():
    found = drift_of(normal(69), normal(7, seed=1) + 3, reference_days=69)
    assert (found.drifted, found.testable, found.p_value) == (False, False, None)
    assert found.reason == "the reference holds 9 blocks of 7 days; 10 are needed (70 days)"
    assert found.features[0].psi > 1


def test_a_window_of_fewer_days_than_the_blocks_is_not_compared_with_them():
    found = drift_of(normal(90), normal(2, seed=1) + 3)
    assert not found.testable
    assert found.reason == "the window holds 2 days with rows; every block of the reference holds at least 7"


def test_days_without_rows_are_on_the_calendar_but_not_in_the_way():
    work = np.flatnonzero(np.arange(97) % 7 < 5)
    X = np.random.default_rng(0).normal(size=(len(work) * 50, 2))
    whole = d.build_profile(X, ["a", "b"], [False, False], np.repeat(work, 50))
    found = d.DriftTest(between(whole, 0, 89), 7).run(between(whole, 91, 97))
    assert (found.testable, found.drifted, found.reference_blocks) == (True, False, 12)


def test_a_wrong_window_is_refused():
    X, names, categorical, days = profile()
    reference = d.build_profile(X, names, categorical, days)
    test = d.DriftTest(reference, 7)
    with pytest.raises(DataError, match="spans 90 days"):
        test.run(reference)
    with pytest.raises(DataError, match="needs rows"):
        test.run(between(reference, 500, 600))
    with pytest.raises(DataError, match="other bins"):
        test.run(d.build_profile(X + 1, names, categorical, days))
    for wrong in ({"days": 0}, {"days": 7, "alpha": 1.0}):
        with pytest.raises(DefinitionError, match="days >= 1"):
            d.DriftTest(reference, **wrong)


# --- its rate of false alarms


def simulated(rng, days, rows, features, sd, rho, change=0.0, thin=None):
    """Profiles of reference and last week: normal features in deciles, whose means move from day to day (AR(1)), 5 % missing."""
    shift = np.zeros((days, features))
    noise = rng.normal(size=(days + 60, features))
    level = noise[0]
    for day in range(days + 60):
        level = rho * level + math.sqrt(1 - rho**2) * noise[day]
        shift[max(day - 60, 0)] = sd * level
    shift[-7:, 0] += change
    below = np.interp(DECILES - shift[..., None], GRID, NORMAL)
    shares = np.diff(below, axis=2, prepend=0, append=1)
    missing = 0.05 * np.exp(0.3 * rng.normal(size=(days, features, 1)))
    shares = np.concatenate([shares * (1 - missing), np.zeros((days, features, 2)), missing], axis=2)
    counts = rng.multinomial(rows, shares / shares.sum(axis=2, keepdims=True))
    if thin:
        counts[thin[0]] = rng.binomial(counts[thin[0]], thin[1])
    names = tuple(f"f{at}" for at in range(features))
    whole = d.Profile(names, ("numeric",) * features, (DECILES,) * features, np.arange(days), tuple(counts.transpose(1, 0, 2)))
    return between(whole, 0, days - 8), between(whole, days - 7, days)


def share_of_alarms(times, alpha=0.05, days=97, rows=300, features=10, sd=0.1, rho=0.0, seed=0, **more):
    rng, alarms = np.random.default_rng(seed), 0
    for _ in range(times):
        reference, window = simulated(rng, days, rows, features, sd, rho, **more)
        alarms += d.DriftTest(reference, 7, alpha).run(window).drifted
    return alarms / times


@pytest.mark.parametrize(
    "scene",
    [
        {"sd": 0.0},
        {},
        {"rho": 0.8},
        {"sd": 0.5, "rho": 0.5},
        {"features": 1, "rho": 0.5},
        {"features": 20, "rho": 0.5},
        {"days": 77, "rho": 0.5},
        {"thin": (slice(90, None), 0.1)},
        {"thin": (slice(None, 90), 0.1)},
    ],
    ids=lambda scene: ",".join(f"{name}={value}" for name, value in scene.items()) or "days differ",
)
def test_alarms_without_drift_come_at_most_at_the_stated_rate(scene):
    """alpha = 5 %: two standard errors of 150 simulations are 3.5 %. The rates in the docstring are from 3000."""
    assert share_of_alarms(150, **scene) <= 0.085


def test_a_smaller_alpha_alarms_less():
    assert share_of_alarms(200, alpha=0.01, rho=0.5) <= 0.02


def test_drift_beyond_what_days_do_by_themselves_is_seen():
    assert share_of_alarms(80, change=0.5, rho=0.5) >= 0.9
    assert share_of_alarms(80, change=0.5, rho=0.5, sd=0.5) <= 0.3, "half a standard deviation is nothing new where days differ as much"
