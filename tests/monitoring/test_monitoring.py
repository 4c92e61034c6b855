"""Days, cohorts and their maturity against brute force; alarms at no more than their stated rate, and found when planted."""

from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import project
from tidemill.core import DefinitionError, Profile, build_profile, instant
from tidemill.monitoring import (
    Alert,
    Drift,
    Monitor,
    cohorts,
    drift_alert,
    drift_said,
    drift_test,
    local_days,
    mature_rows,
    months_of,
    quality_alert,
)
from tidemill.serving import Deployment
from toy import write_project

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana"]
times = st.datetimes(datetime(2012, 12, 25), datetime(2014, 1, 5)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@given(zone=st.sampled_from(ZONES), found=st.lists(times, min_size=1, max_size=30))
def test_local_days_are_those_of_the_zone(zone: str, found: list[datetime]) -> None:
    at = np.array([instant(one) for one in found], dtype=np.int64)
    expected = [one.astimezone(ZoneInfo(zone)).date().toordinal() for one in found]
    assert local_days(at, zone).tolist() == expected


@pytest.mark.parametrize("zone", ZONES)
def test_local_days_turn_at_midnight_on_every_day_of_a_year(zone: str) -> None:
    """Days of 23, 24.5 and 25 hours, and a midnight that does not exist (Havana), a microsecond before and after."""
    for ordinal in range(date(2013, 1, 1).toordinal(), date(2014, 1, 1).toordinal()):
        midnight = instant(date.fromordinal(ordinal), zone)
        at = np.array([midnight - 1, midnight, midnight + 1], dtype=np.int64)
        expected = [datetime.fromtimestamp(us // 1_000_000, ZoneInfo(zone)).date().toordinal() for us in at.tolist()]
        assert local_days(at, zone).tolist() == expected


def test_no_times_have_no_days() -> None:
    assert local_days(np.empty(0, dtype=np.int64), "UTC").tolist() == []
    assert months_of(np.array([date(2013, 2, 28).toordinal(), date(2013, 3, 1).toordinal()])) == ["2013-02", "2013-03"]


rows = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 20)), max_size=60)


@given(rows=rows, now=st.integers(-1, 21), maturity=st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_cohorts_count_what_is_resolved_with_a_label_or_without(rows: list[tuple[int, float, int]], now: int, maturity: float) -> None:
    days, resolved = np.array([row[0] for row in rows], dtype=np.int64), np.array([row[2] for row in rows], dtype=np.int64)
    label = np.array([row[1] for row in rows])
    seen = cohorts(days, resolved, now, maturity)
    by_day = {day: [row for row in rows if row[0] == day] for day in sorted({row[0] for row in rows})}
    done = {day: sum(row[2] <= now for row in found) for day, found in by_day.items()}
    assert seen.days.tolist() == list(by_day)
    assert seen.rows.tolist() == [len(found) for found in by_day.values()]
    assert seen.resolved.tolist() == list(done.values())
    whole = {day for day in by_day if done[day] >= maturity * len(by_day[day])}
    assert {day for day, mature in zip(seen.days.tolist(), seen.mature.tolist(), strict=True) if mature} == whole
    expected = [day in whole and at <= now and value == value for day, value, at in rows]
    assert mature_rows(days, label, resolved, now, maturity).tolist() == expected


# ── quality ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def window(seed: int, wrong: float, *, days: int = 14, per_day: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and days; the probabilities are off by `wrong` in log-odds, and days differ by chance."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), per_day)
    odds = rng.normal(-1, 1, days * per_day)
    y = (rng.random(len(odds)) < 1 / (1 + np.exp(-(odds + np.repeat(rng.normal(0, 0.3, days), per_day))))).astype(float)
    return y, 1 / (1 + np.exp(-(odds + wrong))), day


REFERENCE = float(np.mean([-np.log(np.where(y > 0, p, 1 - p)).mean() for y, p, _ in (window(seed, 0.0) for seed in range(900, 960))]))


def test_a_quality_that_stays_alarms_no_more_often_than_stated() -> None:
    trials = 400
    for doubt in (0.05, 0.2):
        alarms = sum(
            quality_alert("log_loss", *window(seed, 0.0), reference=REFERENCE, by=0.0, at=0, doubt=doubt) is not None
            for seed in range(trials)
        )
        assert alarms <= trials * doubt + 3 * (trials * doubt * (1 - doubt)) ** 0.5, f"{alarms} of {trials}"


def test_a_drop_of_quality_is_found_and_told() -> None:
    alert = quality_alert("log_loss", *window(1, 2.0), reference=REFERENCE, by=0.02, at=77)
    assert alert is not None
    assert (alert.kind, alert.metric, alert.at) == ("quality drop", "log_loss", 77)
    assert alert.evidence["now"] > alert.evidence["reference"] + 0.02 == REFERENCE + 0.02
    assert "worse by more than 0.02" in alert.why


def test_a_drop_within_the_allowance_is_no_alarm() -> None:
    assert quality_alert("log_loss", *window(1, 2.0), reference=REFERENCE, by=5.0, at=0) is None
    assert quality_alert("log_loss", *window(1, 2.0, days=1), reference=REFERENCE, by=0.02, at=0) is None, "one day says nothing"
    empty = np.empty(0)
    assert quality_alert("log_loss", empty, empty, empty, reference=REFERENCE, by=0.02, at=0) is None


def test_a_metric_that_is_no_mean_over_rows_has_no_test() -> None:
    with pytest.raises(DefinitionError, match="a drop of 'roc_auc' has no test") as error:
        quality_alert("roc_auc", *window(1, 0.0), reference=0.7, by=0.02, at=0)
    assert "log_loss" in error.value.available


# ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def alert_of(profile: Profile, table: np.ndarray, day: np.ndarray, *, window: int, false_alarm_rate: float, at: int) -> Alert | None:
    return drift_alert(drift_test(profile, table, day, window=window, false_alarm_rate=false_alarm_rate), window=window, at=at)


def features(rng: np.random.Generator, days: int, per_day: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers (one of them with a level of its own each day), a category, and some missing values."""
    day = np.repeat(np.arange(days), per_day)
    level = np.repeat(rng.normal(0, 0.3, days), per_day)
    columns = [rng.normal(0, 1, len(day)), rng.normal(0, 1, len(day)) + level, rng.integers(0, 5, len(day)).astype(float)]
    table = np.stack(columns, axis=1)
    table[rng.random(len(day)) < 0.1, 0] = np.nan
    return table, day


NAMES, KINDS = ["calm", "restless", "kind"], [False, False, True]


def test_days_that_differ_as_usual_alarm_no_more_often_than_stated() -> None:
    trials, rate, alarms = 150, 0.1, 0
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        table, day = features(rng, 67)
        profile = build_profile(table[day < 60], NAMES, KINDS, day[day < 60])
        new = day >= 60
        alarms += alert_of(profile, table[new], day[new], window=7, false_alarm_rate=rate, at=0) is not None
    assert alarms <= trials * rate + 3 * (trials * rate * (1 - rate)) ** 0.5, f"{alarms} of {trials}"


@pytest.mark.parametrize(("column", "name"), [(0, "calm"), (1, "restless"), (2, "kind")])
def test_a_planted_change_is_found_and_the_feature_named(column: int, name: str) -> None:
    rng = np.random.default_rng(3)
    table, day = features(rng, 77)
    profile = build_profile(table[day < 70], NAMES, KINDS, day[day < 70])
    new = table[day >= 70].copy()
    new[:, column] = 0.0 if column == 2 else new[:, column] + 3.0
    alert = alert_of(profile, new, day[day >= 70], window=7, false_alarm_rate=0.05, at=9)
    assert alert is not None
    assert (alert.kind, alert.at) == ("drift found", 9)
    assert alert.why.startswith(name)
    assert next(iter(alert.evidence["features"])) == name
    assert alert.evidence["p"] < 0.05


def test_values_that_go_missing_are_drift() -> None:
    table, day = features(np.random.default_rng(4), 77)
    profile = build_profile(table[day < 70], NAMES, KINDS, day[day < 70])
    gone = np.full((280, 3), np.nan)
    assert alert_of(profile, gone, day[day >= 70], window=7, false_alarm_rate=0.05, at=0) is not None


def test_no_rows_or_a_short_reference_are_no_alarm_and_said() -> None:
    table, day = features(np.random.default_rng(5), 70)
    profile = build_profile(table, NAMES, KINDS, day)
    assert drift_said(drift_test(profile, table[:0], day[:0], window=7, false_alarm_rate=0.05)) == "not testable: no rows"
    short = build_profile(table[day < 14], NAMES, KINDS, day[day < 14])
    said = drift_said(drift_test(short, table[day >= 63], day[day >= 63], window=7, false_alarm_rate=0.05))
    assert said.startswith("not testable: ")
    whole = drift_said(drift_test(profile, table[day >= 63], day[day >= 63], window=7, false_alarm_rate=0.05))
    assert whole.startswith("p = ")
    assert alert_of(profile, table[:0], day[:0], window=7, false_alarm_rate=0.05, at=0) is None


# ── declarations ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_monitors_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    deployment = project.load(write_project(tmp_path / "p", [])).only(Deployment)
    with pytest.raises(DefinitionError, match="no metric is named 'accuracy'"):
        Monitor(deployment, quality=["accuracy"])
    with pytest.raises(DefinitionError, match="windows are whole days"):
        Monitor(deployment, every="6h")
    with pytest.raises(DefinitionError, match="windows are whole days"):
        Monitor(deployment, every="36h")
    for share in (0.0, 95, -0.1, float("nan")):
        with pytest.raises(DefinitionError, match=r"maturity=.* is not in"):
            Monitor(deployment, maturity=share)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(DefinitionError, match="false_alarm_rate"):
            Drift(false_alarm_rate=rate)
    assert Monitor(deployment).definition()["deployment"] == "late"
