"""Metrics against scikit-learn, against definitions written out, and against what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from tidemill.core import metrics as m
from tidemill.core.errors import DataError, DefinitionError

EXACT = settings(derandomize=True, deadline=None)


@st.composite
def predictions(draw, least=1):
    rows = draw(st.integers(least, 40))
    y = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    p = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0]) | st.floats(0, 1), min_size=rows, max_size=rows))
    return np.array(y), np.array(p)


def sample(rows=5000, digits=9, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 5, rows).round(digits)
    return rng.random(rows) < p, p


@pytest.mark.parametrize("digits", [9, 2, 1])
def test_agree_with_scikit_learn(digits):
    y, p = sample(digits=digits)
    assert m.roc_auc(y, p) == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-13)
    assert m.brier(y, p) == pytest.approx(oracle.brier_score_loss(y, p), abs=1e-13)
    assert m.log_loss(y, p) == pytest.approx(oracle.log_loss(y, np.clip(p, 1e-15, 1 - 1e-15)), abs=1e-12)


@EXACT
@given(predictions())
def test_auc_is_the_share_of_pairs_won(data):
    y, p = data
    pairs = p[y == 1][:, None] - p[y == 0]
    if pairs.size:
        assert m.roc_auc(y, p) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean(), abs=1e-15)
    else:
        assert math.isnan(m.roc_auc(y, p))


@EXACT
@given(predictions())
def test_auc_knows_only_the_order_of_scores(data):
    y, p = data
    if 0 < y.sum() < len(y):
        ranks = np.unique(p, return_inverse=True)[1]
        assert m.roc_auc(y, ranks**3 - 7.0) == m.roc_auc(y, p)
        assert m.roc_auc(y, -p) == pytest.approx(1 - m.roc_auc(y, p), abs=1e-15)
        assert m.roc_auc(1 - y, -p) == m.roc_auc(y, p)


@EXACT
@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(data, random):
    y, p = data
    shuffled = list(range(len(y)))
    random.shuffle(shuffled)
    for metric in m.METRICS.values():
        np.testing.assert_array_equal(metric.function(y, p), metric.function(y[shuffled], p[shuffled]))


@EXACT
@given(predictions(), st.integers(1, 30))
def test_calibration_bins_are_intervals_that_keep_ties_and_lose_no_row(data, bins):
    y, p = data
    in_bin = m.equal_mass_bins(p, bins)
    assert in_bin.min() >= 0
    assert in_bin.max() < bins
    order = np.argsort(p, kind="stable")
    assert (np.diff(in_bin[order]) >= 0).all()
    assert all(len(set(in_bin[p == value])) == 1 for value in p)
    mean_p, share, rows = m.calibration_curve(y, p, bins)
    assert rows.sum() == len(y)
    assert (mean_p * rows).sum() == pytest.approx(p.sum())
    assert (share * rows).sum() == pytest.approx(y.sum())
    assert 0 <= m.calibration_error(y, p, bins) <= 1


def test_equal_mass_bins_of_distinct_scores_are_equal():
    rows = np.bincount(m.equal_mass_bins(np.random.default_rng(0).random(1000), 20))
    assert (rows == 50).all()


def test_calibration_error_is_far_off_for_a_biased_model_and_as_documented_for_a_perfect_one():
    y, p = sample(rows=100_000)
    expected = np.sqrt(20 * 2 / np.pi / len(y)) * np.sqrt(p * (1 - p)).mean()
    assert m.calibration_error(y, p) == pytest.approx(expected, rel=0.5)
    assert m.calibration_error(y, np.clip(p + 0.1, 0, 1)) == pytest.approx(0.1, abs=0.01)


def test_one_score_for_all_has_the_calibration_error_of_its_mean():
    y = np.array([0, 0, 0, 1])
    assert m.calibration_error(y, np.full(4, 0.5)) == 0.25


def test_sure_and_wrong_is_finite():
    losses = m.row_log_loss([0, 1, 1], [1.0, 0.0, 1.0])
    np.testing.assert_allclose(losses, [34.54, 34.54, 0], atol=0.01)


@pytest.mark.parametrize("metric", m.METRICS.values(), ids=list(m.METRICS))
def test_no_rows_give_nan(metric):
    assert math.isnan(metric.function([], []))


@pytest.mark.parametrize("metric", m.METRICS.values(), ids=list(m.METRICS))
@pytest.mark.parametrize(
    ("y", "p", "says"),
    [
        ([0, 1], [0.5], "shape"),
        ([[0, 1]], [[0.5, 0.5]], "shape"),
        ([0, 2], [0.1, 0.2], "only 0 and 1"),
        ([0, math.nan], [0.1, 0.2], "only 0 and 1"),
        ([0, 1], [0.1, math.nan], "1 nan among 2 rows"),
    ],
)
def test_refuses_what_is_not_a_binary_prediction(metric, y, p, says):
    with pytest.raises(DataError, match=says):
        metric.function(y, p)


def test_scores_that_are_not_probabilities_have_an_auc_but_no_loss():
    y, p = [0, 1, 1], [-3.0, math.inf, 7.0]
    assert m.roc_auc(y, p) == 1
    for name in ("log_loss", "brier", "ece"):
        with pytest.raises(DataError, match="between 0 and 1"):
            m.METRICS[name].function(y, p)


def test_bins_must_be_positive():
    with pytest.raises(DefinitionError, match="at least 1"):
        m.calibration_error([0, 1], [0.1, 0.2], bins=0)


@pytest.mark.parametrize("metric", m.METRICS.values(), ids=list(m.METRICS))
def test_the_table_tells_the_truth(metric):
    y, p = sample()
    better, worse = metric.function(y, p), metric.function(y, 1 - p)
    assert (better > worse) == metric.higher_is_better
    if metric.row_losses:
        assert metric.row_losses(y, p).mean() == pytest.approx(better)
