"""Each gate passes a clearly better and refuses a clearly worse candidate, and errs no more often than it says."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tidemill.core import Coded, DefinitionError, GateResult, UnknownName
from tidemill.evaluation import Evidence, Gate, daily_means, gates, judge, p_above_zero, quality

DAYS, ROWS = 28, 60


def world(
    seed: int, candidate_noise: float, champion_noise: float | None, *, base_rate: float = 0.3, shift: float = 0.0, rows: int = ROWS
) -> Evidence:
    """Days with their own share of positives; each model sees the true log-odds with its own noise, some of it common to a day."""
    rng = np.random.default_rng(seed)
    days = np.repeat(np.arange(DAYS), rows)
    odds = np.repeat(rng.normal(-1, 0.5, DAYS), rows) + rng.normal(0, 1, DAYS * rows)
    y = (rng.random(DAYS * rows) < 1 / (1 + np.exp(-odds))).astype(float)

    def model(noise: float, shift: float = 0.0) -> np.ndarray:
        wrong = np.repeat(rng.normal(0, noise / 2, DAYS), rows) + rng.normal(0, noise, DAYS * rows) + shift
        return 1 / (1 + np.exp(-(odds + wrong)))

    champion = None if champion_noise is None else model(champion_noise)
    words = Coded.of(np.array(["EWR", "JFK", "LGA"])[rng.integers(0, 3, DAYS * rows)].tolist())
    return Evidence(y, model(candidate_noise, shift), champion, base_rate, days, {"origin": words})


BETTER = [gates.better_than_champion(metric) for metric in ("log_loss", "roc_auc", "brier")]


@pytest.mark.parametrize("gate", BETTER, ids=lambda gate: gate.metric)
def test_clearly_better_passes_and_clearly_worse_does_not(gate: Gate) -> None:
    good, bad = gate.judge(world(1, 0.2, 1.5)), gate.judge(world(1, 1.5, 0.2))
    assert (good.passed, bad.passed) == (True, False)
    assert good.evidence["gain"] > good.evidence["bound"] > 0  # type: ignore[operator]
    assert bad.evidence["gain"] < 0  # type: ignore[operator]
    assert "surely better than the champion" in good.reason
    assert good.evidence["rows"] == DAYS * ROWS


def test_without_a_champion_the_base_rate_is_to_be_beaten() -> None:
    gate = gates.better_than_champion("log_loss")
    assert gate.judge(world(2, 0.2, None)).passed
    assert "base rate" in gate.judge(world(2, 0.2, None)).reason
    assert not gate.judge(world(2, 4.0, None)).passed


def test_a_copy_of_the_champion_is_not_better() -> None:
    evidence = world(3, 0.5, 0.5)
    same = Evidence(evidence.y, evidence.rival, evidence.rival, 0.3, evidence.days, evidence.slices)
    verdict = judge([*BETTER, gates.no_worse_slice("roc_auc", by=["origin"], margin=0.0), gates.calibration(max_ece=1e-9)], same, "m/2")
    assert [result.passed for result in verdict.results] == [False, False, False, True, True]


@pytest.mark.parametrize(("looks", "confidence"), [(1, 0.95), (1, 0.8), (3, 0.8)])
def test_a_candidate_that_is_no_better_passes_no_more_often_than_stated(looks: int, confidence: float) -> None:
    """Growing evidence is looked at `looks` times; passing at any of them counts."""
    gate, trials = gates.better_than_champion("log_loss", confidence=confidence), 250
    passed = 0
    for seed in range(trials):
        evidence = world(1000 + seed, 0.7, 0.7, rows=12)
        parts = [evidence.days < DAYS * (look + 1) // looks for look in range(looks)]
        cut = [Evidence(evidence.y[p], evidence.candidate[p], evidence.rival[p], 0.3, evidence.days[p]) for p in parts]
        passed += any(gate.judge(part, looks).passed for part in cut)
    stated = 1 - confidence
    assert passed <= trials * stated + 3 * (trials * stated * (1 - stated)) ** 0.5, f"{passed} of {trials}"


def test_a_bad_slice_is_found_and_named_though_the_whole_is_better() -> None:
    evidence = world(4, 0.3, 1.2)
    rng, there = np.random.default_rng(0), evidence.slices["origin"].codes == 1
    broken = np.where(there, rng.random(len(evidence.y)), evidence.candidate)
    spoilt = Evidence(evidence.y, broken, evidence.rival, 0.3, evidence.days, evidence.slices)
    gate = gates.no_worse_slice("roc_auc", by=["origin"], margin=0.03, min_rows=100)
    refused = gate.judge(spoilt)
    assert not refused.passed
    assert "origin=JFK" in refused.reason
    assert set(refused.evidence["change"]) == {"origin=EWR", "origin=JFK", "origin=LGA"}  # type: ignore[call-overload]
    assert gate.judge(evidence).passed
    assert gates.no_worse_slice("roc_auc", by=["origin"], margin=0.03, min_rows=10_000).judge(spoilt).passed, "too small to say"
    assert gates.no_worse_slice("roc_auc", by=["origin"], margin=0.9, min_rows=100).judge(spoilt).passed, "within the margin"


def test_slices_refuse_an_equal_candidate_no_more_often_than_stated() -> None:
    gate, trials = gates.no_worse_slice("log_loss", by=["origin"], margin=0.0, min_rows=50), 150
    refused = sum(not gate.judge(world(seed, 0.7, 0.7, rows=15)).passed for seed in range(trials))
    assert refused <= trials * 0.05 + 3 * (trials * 0.05 * 0.95) ** 0.5, f"{refused} of {trials}"


def test_a_slice_of_a_column_that_is_not_there_is_an_error_with_the_columns() -> None:
    with pytest.raises(UnknownName, match="'carrier'") as error:
        gates.no_worse_slice("roc_auc", by=["carrier"], margin=0.1).judge(world(5, 0.3, 0.5))
    assert error.value.available == ["origin"]
    assert "test_gates.py" in error.value.where


def test_calibration_passes_a_calibrated_and_refuses_a_shifted_model() -> None:
    gate = gates.calibration(max_ece=0.06)
    good, bad = gate.judge(world(6, 0.0, 0.0)), gate.judge(world(6, 0.0, 0.0, shift=2.0))
    assert (good.passed, bad.passed) == (True, False)
    assert bad.evidence["ece"] > 0.06 > good.evidence["ece"]  # type: ignore[operator]


def test_when_the_champion_is_off_by_more_the_weather_is_to_blame() -> None:
    gate, evidence = gates.calibration(max_ece=0.01), world(7, 0.0, 0.0, shift=0.8)
    worse = Evidence(evidence.y, evidence.candidate, np.minimum(evidence.candidate + 0.3, 0.999), 0.3, evidence.days)
    found = gate.judge(worse)
    assert found.passed
    assert "above 0.01 but no larger than" in found.reason
    assert not gate.judge(evidence).passed


def test_evidence_of_no_rows_passes_nobody() -> None:
    none = np.empty(0)
    empty = Evidence(none, none, none, 0.3, none.astype(np.int64), {"origin": Coded.of([])})
    verdict = judge([*BETTER, gates.calibration(max_ece=0.1)], empty, "m/2")
    assert not verdict.passed
    assert [result.passed for result in verdict.results[:3]] == [False] * 3


def test_evidence_of_one_day_is_not_sure() -> None:
    evidence = world(8, 0.1, 2.0)
    first = evidence.days == 0
    one = Evidence(evidence.y[first], evidence.candidate[first], evidence.rival[first], 0.3, evidence.days[first])
    found = gates.better_than_champion("log_loss").judge(one)
    assert not found.passed
    assert found.reason.endswith("how surely cannot be told (days with rows: 1)")


def test_every_gate_is_asked_so_that_the_record_is_whole() -> None:
    verdict = judge([gates.calibration(max_ece=1e-6), *BETTER], world(9, 1.5, 0.2), "m/7")
    assert (verdict.subject, len(verdict.results), verdict.passed) == ("m/7", 4, False)
    assert verdict.reason.startswith("calibration: calibration error")


@dataclass(frozen=True)
class EnoughRows(Gate):
    """A user's own gate."""

    rows: int

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        return GateResult(self.name, len(evidence.y) >= self.rows, f"{len(evidence.y)} rows", {"rows": len(evidence.y)})


def test_users_write_gates_of_the_same_kind() -> None:
    verdict = judge([EnoughRows(10)], world(10, 0.3, 0.2), "m/1")
    assert verdict.passed
    assert verdict.reason == "enough rows: 1680 rows"
    assert not judge([EnoughRows(10_000)], world(10, 0.3, 0.2), "m/1").passed
    with pytest.raises(DefinitionError, match="has no judge method"):
        judge([Gate()], world(10, 0.3, 0.2), "m/1")


def test_metrics_that_do_not_exist_are_refused_where_the_gate_is_made() -> None:
    with pytest.raises(UnknownName, match="'accuracy'"):
        gates.better_than_champion("accuracy")
    with pytest.raises(UnknownName, match="'accuracy'"):
        gates.no_worse_slice("accuracy", by=[], margin=0.1)


numbers = st.floats(-10, 10).map(lambda x: round(x, 6))


@given(now=st.lists(numbers, min_size=1, max_size=10), usual=st.lists(numbers, min_size=3, max_size=30))
def test_p_above_zero_is_that_of_the_t_distribution(now: list[float], usual: list[float]) -> None:
    spread = np.std(usual, ddof=1) / len(now) ** 0.5
    if spread < 1e-6:
        return
    expected = stats.t.sf(np.mean(now) / spread, len(usual) - 1)
    assert p_above_zero(now, usual) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_p_above_zero_says_nothing_where_nothing_is_known() -> None:
    assert p_above_zero([], [0.1, 0.2, 0.3]) is None
    assert p_above_zero([5.0, 5.0], [0.1, 0.2]) is None, "neither has three days"
    assert p_above_zero([5.0, 5.1, 4.9], [0.1, 0.2]) < 0.001, "three days of its own tell"
    assert p_above_zero([0.0], [0.5, 0.5, 0.5]) == 1.0
    assert p_above_zero([0.1], [0.5, 0.5, 0.5]) == 0.0


def test_a_canary_that_is_no_worse_is_rolled_back_no_more_often_than_alpha() -> None:
    """Days differ by chance with the spread that the gates saw; two looks share alpha."""
    rng, trials, wrong = np.random.default_rng(11), 4000, 0
    for _ in range(trials):
        usual, days = rng.normal(0, 1, 14), rng.normal(0, 1, 4)
        wrong += any(p_above_zero(days[:end].tolist(), usual.tolist()) < 0.05 / 2 for end in (2, 4))
    assert wrong <= trials * 0.05 + 3 * (trials * 0.05 * 0.95) ** 0.5


@given(st.lists(st.tuples(numbers, st.integers(0, 5)), max_size=40))
def test_daily_means_are_the_means_of_the_days_in_order(rows: list[tuple[float, int]]) -> None:
    values, days = np.array([value for value, _ in rows]), np.array([day for _, day in rows], dtype=np.int64)
    expected = [np.mean([value for value, day in rows if day == one]) for one in sorted({day for _, day in rows})]
    assert list(daily_means(values, days)) == pytest.approx(expected)


def test_quality_is_none_where_it_is_not_defined() -> None:
    none = np.empty(0)
    assert quality(none, none) == {"roc_auc": None, "log_loss": None, "calibration_error": None}
    one_class = quality(np.zeros(3), np.full(3, 0.2))
    assert one_class["roc_auc"] is None
    assert one_class["log_loss"] == pytest.approx(-np.log(0.8))


@pytest.mark.parametrize(
    ("declare", "what"),
    [
        (lambda: gates.calibration(max_ece=0.1, bins=0), "bins=0"),
        (lambda: gates.calibration(max_ece=0), "max_ece=0"),
        (lambda: gates.calibration(max_ece=float("nan")), "max_ece=nan"),
        (lambda: gates.better_than_champion("log_loss", confidence=0.5), "confidence=0.5"),
        (lambda: gates.better_than_champion("log_loss", holdout="a while"), "'a while' is not a duration"),
        (lambda: gates.no_worse_slice("log_loss", by="origin", margin=0.1), "by='origin' is no list"),
        (lambda: gates.no_worse_slice("log_loss", by=[], margin=0.1), "by is an empty list"),
        (lambda: gates.no_worse_slice("log_loss", by=["origin"], margin=-0.1), "margin=-0.1"),
        (lambda: gates.no_worse_slice("log_loss", by=["origin"], margin=0.1, min_rows=0), "min_rows=0"),
    ],
)
def test_a_gate_that_cannot_judge_is_refused_where_it_is_declared(declare: Callable[[], Gate], what: str) -> None:
    with pytest.raises(DefinitionError, match=what) as error:
        declare()
    assert __file__ in error.value.where or "duration" in what
