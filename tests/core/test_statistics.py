"""Intervals and tests against scipy and against brute force; their error rates, by simulation with fixed seeds."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as oracle

from tidemill.core import statistics as s
from tidemill.core.errors import DataError, DefinitionError, UnknownName
from tidemill.core.metrics import METRICS, brier, log_loss, roc_auc

EXACT = settings(derandomize=True, deadline=None)
FEW = settings(EXACT, max_examples=40)


def two_models(rows=600, clusters=30, seed=0, digits=9):
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 5, rows)
    y = rng.random(rows) < p
    worse = np.clip(p + rng.normal(0, 0.15, rows), 0, 1)
    return y, worse.round(digits), p.round(digits), rng.integers(0, clusters, rows)


# --- distributions


@EXACT
@given(st.floats(0.05, 500), st.floats(0.05, 500), st.floats(0, 1))
def test_incomplete_beta_is_scipys(a, b, x):
    assert s.incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@EXACT
@given(st.floats(-60, 60), st.floats(1, 5000))
def test_t_is_scipys(t, degrees):
    assert s.t_cdf(t, degrees) == pytest.approx(oracle.t.cdf(t, degrees), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize(("share", "degrees"), [*product([1e-6, 0.025, 0.3, 0.5, 0.975, 0.9995], [1, 2.5, 11, 274, 1e6])])
def test_t_quantile_is_scipys(share, degrees):
    assert s.t_quantile(share, degrees) == pytest.approx(oracle.t.ppf(share, degrees), rel=1e-7, abs=1e-12)


def test_distributions_refuse_what_lies_outside_them():
    with pytest.raises(ValueError, match="incomplete_beta"):
        s.incomplete_beta(0, 1, 0.5)
    with pytest.raises(ValueError, match="strictly between"):
        s.t_quantile(1, 3)
    assert (s.t_cdf(math.inf, 3), s.t_cdf(-math.inf, 3)) == (1, 0)


# --- the bootstrap


def weights_of(clusters, resamples=5, seed=3):
    return next(s._weights(clusters, resamples, np.random.default_rng(seed)))


def repeated(weights, codes):
    return np.repeat(np.arange(len(codes)), weights.astype(int)[codes])


@pytest.mark.parametrize("digits", [9, 1])
@pytest.mark.parametrize("wins", [s._wins_by_matrix, s._wins_by_rank])
def test_auc_of_a_resample_is_the_auc_of_its_rows(monkeypatch, wins, digits):
    monkeypatch.setattr(s, "PAIR_MATRIX_CLUSTERS", 10**9 if wins is s._wins_by_matrix else 0)
    y, _, p, codes = two_models(digits=digits)
    weights = weights_of(30)
    found = s._auc_of_weights(y, p, codes, 30)(weights)
    for value, row in zip(found, weights, strict=True):
        rows = repeated(row, codes)
        assert value == pytest.approx(roc_auc(y[rows], p[rows]), abs=1e-14)


@pytest.mark.parametrize(("name", "function"), [("log_loss", log_loss), ("brier", brier)])
def test_mean_loss_of_a_resample_is_the_loss_of_its_rows(name, function):
    y, _, p, codes = two_models()
    weights = weights_of(30)
    by_sums, by_rows = s._statistic(name, y, p, codes, 30)(weights), s._statistic(function, y, p, codes, 30)(weights)
    np.testing.assert_allclose(by_sums, by_rows, atol=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_a_name_and_its_function_give_nearly_the_same_interval(name):
    y, a, b, codes = two_models()
    fast, slow = (s.paired_bootstrap(metric, y, a, b, codes, 0.9, 1, 300) for metric in (name, METRICS[name].function))
    assert fast.estimate == slow.estimate
    slack = 0.35 * (slow.high - slow.low) if name == "ece" else 1e-12  # its bins are those of the whole sample
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=slack)


@FEW
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(sorted(METRICS)), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_interval_holds_its_estimate_and_grows_with_confidence(seed, clusters, name, confidence):
    y, a, b, codes = two_models(60, clusters, seed)
    interval = s.paired_bootstrap(name, y, a, b, codes, confidence, seed, 60)
    assert interval.low <= interval.estimate <= interval.high
    wider = s.paired_bootstrap(name, y, a, b, codes, confidence + 0.009, seed, 60)
    assert wider.low <= interval.low
    assert interval.high <= wider.high


@FEW
@given(st.integers(0, 10**6), st.sampled_from(sorted(METRICS)))
def test_a_model_is_no_better_than_itself_and_swapping_models_swaps_signs(seed, name):
    y, a, b, codes = two_models(80, 6, seed)
    same = s.paired_bootstrap(name, y, a, a, codes, 0.9, seed, 50)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    there, back = s.paired_bootstrap(name, y, a, b, codes, 0.9, seed, 50), s.paired_bootstrap(name, y, b, a, codes, 0.9, seed, 50)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)


def test_equal_arguments_give_equal_results_and_labels_may_be_anything():
    y, a, b, codes = two_models()
    named = np.array([f"2013-01-{code:02d}" for code in codes])
    first = s.paired_bootstrap("roc_auc", y, a, b, codes, 0.95, 7)
    assert first == s.paired_bootstrap("roc_auc", y, a, b, named, 0.95, 7)
    assert first != s.paired_bootstrap("roc_auc", y, a, b, codes, 0.95, 8)


def test_many_clusters_are_resampled_some_at_a_time(monkeypatch):
    y, a, b, codes = two_models()
    whole = s.paired_bootstrap("roc_auc", y, a, b, codes, 0.9, 0, 100)
    monkeypatch.setattr(s, "WEIGHTS_AT_ONCE", 100)
    assert s.paired_bootstrap("roc_auc", y, a, b, codes, 0.9, 0, 100) == whole


def test_one_cluster_says_nothing():
    y, a, b, _ = two_models()
    alone = np.zeros(len(y))
    for interval in (
        s.paired_bootstrap("roc_auc", y, a, b, alone, 0.95, 0),
        s.cluster_bootstrap_mean(a, alone, 0.95, 0),
        s.mean_of_monthly_auc_bootstrap(y, a, b, alone, alone, 0.95, 0),
    ):
        assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_no_rows_or_one_class_say_nothing():
    empty, one_class = ([], [], [], []), ([1, 1], [0.1, 0.2], [0.3, 0.4], [1, 2])
    for y, a, b, days in (empty, one_class):
        for interval in (
            s.paired_bootstrap("roc_auc", y, a, b, days, 0.95, 0),
            s.mean_of_monthly_auc_bootstrap(y, a, b, days, days, 0.95, 0),
        ):
            assert math.isnan(interval.estimate)
            assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert s.cluster_bootstrap_mean([], [], 0.95, 0).high == math.inf


def test_resamples_without_a_class_are_left_out_until_they_are_most():
    y, p, days = [1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], [1, 2, 3, 4]
    assert s.paired_bootstrap("roc_auc", y, [0.5] * 4, p, days, 0.9, 0).high == 0.5
    y, p, days = [1, 0], [0.9, 0.1], [1, 2]
    assert s.paired_bootstrap("roc_auc", y, [0.5] * 2, p, days, 0.9, 0).high in (0.5, math.inf)


def test_independent_rows_give_the_textbook_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = s.cluster_bootstrap_mean(values, np.arange(400), 0.95, 0, 20_000)
    low, high = oracle.t.interval(0.95, 399, values.mean(), oracle.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)


def test_monthly_auc_is_the_mean_over_months_whatever_their_rows():
    y, a, b, days = two_models(900, 90)
    months = np.where(days < 10, 0, np.where(days < 60, 1, 2))
    interval = s.mean_of_monthly_auc_bootstrap(y, a, b, days, months, 0.9, 0)
    each = [roc_auc(y[months == at], b[months == at]) - roc_auc(y[months == at], a[months == at]) for at in range(3)]
    assert interval.estimate == pytest.approx(np.mean(each))
    assert interval.low < interval.estimate < interval.high
    one = s.mean_of_monthly_auc_bootstrap(y, a, b, days, np.zeros(900), 0.9, 0, 4000)
    whole = s.paired_bootstrap("roc_auc", y, a, b, days, 0.9, 0, 4000)
    assert (one.low, one.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_a_month_of_one_day_counts_and_does_not_make_the_answer_surer():
    y, a, b, days = two_models(900, 60)
    months = days // 20
    whole = s.mean_of_monthly_auc_bootstrap(y, a, b, days, months, 0.9, 0)
    days = np.where(months == 2, 59, days)
    lonely = s.mean_of_monthly_auc_bootstrap(y, a, b, days, months, 0.9, 0)
    assert lonely.estimate == whole.estimate
    assert lonely.high - lonely.low == pytest.approx(whole.high - whole.low, rel=0.35)


def test_a_month_of_one_class_is_left_out():
    y, a, b, days = two_models(900, 60)
    months = days // 20
    rows = (months < 2) | ~y
    kept = s.mean_of_monthly_auc_bootstrap(y[rows], a[rows], b[rows], days[rows], months[rows], 0.9, 0)
    rows = months < 2
    without = s.mean_of_monthly_auc_bootstrap(y[rows], a[rows], b[rows], days[rows], months[rows], 0.9, 0)
    assert kept.estimate == without.estimate


def test_bootstrap_refuses_bad_input():
    y, a, b, codes = two_models()
    with pytest.raises(UnknownName, match="auroc"):
        s.paired_bootstrap("auroc", y, a, b, codes, 0.9, 0)
    with pytest.raises(DataError, match="one label"):
        s.paired_bootstrap("roc_auc", y, a, b, codes[1:], 0.9, 0)
    with pytest.raises(DataError, match="shape"):
        s.paired_bootstrap("roc_auc", y, a, b[1:], codes, 0.9, 0)
    with pytest.raises(DataError, match="1 of 2"):
        s.cluster_bootstrap_mean([1, math.nan], [1, 2], 0.9, 0)
    with pytest.raises(DefinitionError, match="confidence"):
        s.cluster_bootstrap_mean([1, 2], [1, 2], 95, 0)


# --- closed forms


def test_cluster_test_of_single_rows_is_the_t_test():
    values = np.random.default_rng(1).normal(0.3, 1, 25)
    found = s.paired_cluster_test(values, np.arange(25))
    assert found.p_greater == pytest.approx(oracle.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert found.p_less == pytest.approx(oracle.ttest_1samp(values, 0, alternative="less").pvalue)
    assert found.standard_error == pytest.approx(oracle.sem(values))


def test_cluster_test_is_the_jackknife_over_clusters():
    rng = np.random.default_rng(2)
    values, days = rng.normal(0, 1, 200), rng.integers(0, 9, 200)
    means = np.array([values[days != day].mean() for day in range(9)])
    assert s.paired_cluster_test(values, days).standard_error == pytest.approx(math.sqrt(8 / 9 * ((means - values.mean()) ** 2).sum()))


def test_cluster_test_without_evidence_has_p_one():
    assert s.paired_cluster_test([1.0, 2.0, 3.0], ["mon"] * 3) == s.ClusterTest(2.0, math.inf, 1.0, 1.0, 1)
    nothing = s.paired_cluster_test([0.0, 0.0], ["mon", "tue"])
    assert (nothing.p_greater, nothing.p_less) == (1, 1)
    assert s.paired_cluster_test([], []).p_less == 1
    assert s.paired_cluster_test([0.5, 0.5], ["mon", "tue"]).p_greater == 0


def test_the_bootstrap_of_independent_rows_is_delongs_interval():
    """DeLong, DeLong & Clarke-Pearson (1988): the variance of the AUC from each row's share of pairs won."""
    y, a, b, _ = two_models(3000)

    def won(p):
        pairs = p[y][:, None] - p[~y]
        return (pairs > 0) + (pairs == 0) / 2

    gained = won(b) - won(a)
    variance = gained.mean(axis=1).var(ddof=1) / y.sum() + gained.mean(axis=0).var(ddof=1) / (~y).sum()
    margin = oracle.norm.ppf(0.975) * math.sqrt(variance)
    found = s.paired_bootstrap("roc_auc", y, a, b, np.arange(3000), 0.95, 0, 1000)
    assert found.estimate == pytest.approx(gained.mean())
    assert (found.low, found.high) == pytest.approx((gained.mean() - margin, gained.mean() + margin), abs=0.3 * margin)


def test_levels_for_many_looks():
    assert s.spend(0.05, 1) == 0.05
    assert s.bonferroni(0.05, 20) == pytest.approx(0.0025)
    with pytest.raises(DefinitionError, match="at least one"):
        s.spend(0.05, 0)


# --- error rates


def clustered(rng, clusters, sizes=(1, 40)):
    rows = rng.integers(*sizes, clusters)
    days = np.repeat(np.arange(clusters), rows)
    return rng.normal(0, 1, clusters)[days] + rng.normal(0, 1, len(days)), days


@pytest.mark.parametrize(("clusters", "most"), [(3, 0.075), (5, 0.075), (12, 0.07), (40, 0.065)])
def test_cluster_test_alarms_at_its_rate(clusters, most):
    """5 % one-sided on days of 1 to 39 rows, half of the variance between days; 3 standard errors of the simulation are 1.5 %."""
    rng = np.random.default_rng(clusters)
    alarms = [s.paired_cluster_test(*clustered(rng, clusters)).p_greater <= 0.05 for _ in range(2000)]
    assert 0.03 <= np.mean(alarms) <= most
    naive = [oracle.ttest_1samp(clustered(rng, clusters)[0], 0, alternative="greater").pvalue <= 0.05 for _ in range(300)]
    assert np.mean(naive) > 0.2, "rows of a day taken for independent would alarm far too often"


@pytest.mark.parametrize(("clusters", "least"), [(3, 0.82), (6, 0.84), (30, 0.86)])
def test_cluster_bootstrap_covers(clusters, least):
    """90 % intervals of a mean of days of unequal size; 3 standard errors of the simulation are 4 %."""
    rng = np.random.default_rng(clusters)
    found = [s.cluster_bootstrap_mean(*clustered(rng, clusters), 0.9, seed, 300) for seed in range(500)]
    assert least <= np.mean([interval.low <= 0 <= interval.high for interval in found]) <= 0.94


def test_paired_bootstrap_covers_when_models_are_equally_good():
    """90 % intervals; both models err by a shift of each day, so rows of a day go together."""
    rng, held = np.random.default_rng(5), []
    for seed in range(250):
        days = np.repeat(np.arange(25), 20)
        y = rng.random(500) < 0.3
        a, b = (y + rng.normal(0, 1, 500) + rng.normal(0, 0.7, 25)[days] for _ in range(2))
        interval = s.paired_bootstrap("roc_auc", y, a, b, days, 0.9, seed, 200)
        held.append(interval.low <= 0 <= interval.high)
    assert 0.84 <= np.mean(held) <= 0.96
