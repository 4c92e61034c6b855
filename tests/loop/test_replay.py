"""The loop over a past in which the world changes: what it finds, what it does, and what it reports."""

import json
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tidemill import loop, registry
from tidemill.core import DAY, HOUR, DefinitionError, Refused, instant
from tidemill.data import segments
from tidemill.evaluation import gates
from tidemill.ledger import Branch
from tidemill.loop import Age, Every, Never, Progress, QualityDrop, State
from toy import CHANGE, Toy, make_rows, open_toy, with_deployment, write_project

Replayed = tuple[Toy, Branch]


def test_a_change_of_the_world_is_found_learnt_and_served(replayed: Replayed) -> None:
    toy, branch = replayed
    kinds = toy.kinds(branch)
    assert kinds[:2] == ["gates passed", "promoted"]
    alarm = kinds.index("drift found")
    for later in ("retrained", "canary", "promoted"):
        assert later in kinds[alarm:], kinds
    assert "quality drop" in kinds
    found = toy.decisions(branch, "drift found", "quality drop", "retrained")
    assert all(CHANGE.timestamp() <= one.at / 1e6 for one in found), "nothing is found before the change"
    assert found[0].at / 1e6 < CHANGE.timestamp() + 8 * 86_400
    assert State.of(branch.state).champion.number > 1


def test_frozen_and_loop_are_equal_until_the_first_promotion(replayed: Replayed) -> None:
    toy, branch = replayed
    first = toy.decisions(branch, "canary")[0].at
    differ = 0
    for _, segment in segments(toy.ledger, branch.id, "late"):
        frozen, champion = (segment.shadows[role][1] for role in ("frozen", "champion"))
        before = segment.at < first
        assert segment.probability[before].tobytes() == frozen[before].tobytes() == champion[before].tobytes()
        differ += int(np.sum(segment.probability != frozen))
    assert differ > 0
    promoted = toy.decisions(branch, "promoted")[1].at
    ended = {one["day"]: toy.at(date.fromordinal(one["day"] + 1).isoformat()) for one in branch.result["daily"]}
    equal = {ended[one["day"]]: one["frozen"] == one["loop"] for one in branch.result["daily"]}
    before = [same for end, same in equal.items() if end <= promoted]
    assert any(first + DAY <= end < promoted for end in ended.values()), "the canary answered some of those days"
    assert len(before) > 30
    assert all(before), "figures are the champion's"
    assert not any(same for end, same in equal.items() if end - DAY - HOUR >= promoted), "asked an hour before it is sent"
    march, april = branch.result["months"][:2]
    assert march["frozen"] == march["loop"]
    assert april["frozen"] != april["loop"]


def test_in_a_canary_keys_keep_their_version(replayed: Replayed) -> None:
    toy, branch = replayed
    climbs = [(one.at, one.subject, one.evidence["weight"]) for one in toy.decisions(branch, "canary")]
    begin, subject, _ = climbs[0]
    end = toy.decisions(branch, "promoted")[1].at
    requests = toy.built.examples.requests
    courier = dict(zip(requests.keys.tolist(), requests.texts["courier"].texts(), strict=True))
    versions: dict[tuple[int, str], set[str]] = {}
    for _, segment in segments(toy.ledger, branch.id, "late"):
        for i in np.flatnonzero((segment.at >= begin) & (segment.at < end)).tolist():
            step = max(s for at, who, s in climbs if who == subject and at <= segment.at[i])
            key = courier[segment.keys[i]]
            if key is not None:
                versions.setdefault((step, key), set()).add(segment.versions[segment.version[i]])
    assert all(len(found) == 1 for found in versions.values())
    challenger = {step: {key for (s, key), found in versions.items() if s == step and found == {subject}} for step in (0.1, 0.5)}
    assert challenger[0.1] <= challenger[0.5], "a key that went to the challenger stays there when its weight grows"


def test_the_result_has_its_shape_and_is_json(replayed: Replayed) -> None:
    toy, branch = replayed
    result = json.loads(json.dumps(branch.result, allow_nan=False))
    assert [month["month"] for month in result["months"]][:2] == ["2024-03", "2024-04"]
    for month in result["months"]:
        assert {"month", "rows", "frozen", "loop"} <= set(month)
        for who in ("frozen", "loop"):
            assert set(month[who]) == {"roc_auc", "log_loss", "calibration_error"}
    assert set(result["mean"]) == {"frozen", "loop"}
    full = [month for month in result["months"] if month["rows"]]
    for name in ("roc_auc", "log_loss", "calibration_error"):
        assert result["mean"]["loop"][name] == pytest.approx(np.mean([month["loop"][name] for month in full]))
    assert result["mean"]["loop"]["log_loss"] < result["mean"]["frozen"]["log_loss"]
    assert result["gain"]["roc_auc"]["low"] > 0
    assert {event["kind"] for event in result["events"]} >= {"drift found", "quality drop", "retrained", "canary", "promoted"}
    assert all(set(event) == {"at", "kind", "subject", "why"} for event in result["events"])
    retrained = len(toy.decisions(branch, "retrained"))
    assert 2 + retrained <= result["cost"]["trainings"] <= 2 + 2 * retrained
    assert result["cost"]["row_rounds"] > 0
    asked = toy.built.examples.at
    assert result["cost"]["predictions"] == int(np.sum((asked >= toy.at("2024-03-01")) & (asked < toy.at("2024-05-01"))))


def test_every_request_is_answered_once_in_the_log(replayed: Replayed) -> None:
    toy, branch = replayed
    keys = [key for _, segment in segments(toy.ledger, branch.id, "late") for key in segment.keys.tolist()]
    asked = toy.built.examples.at
    wanted = toy.built.examples.requests.keys[(asked >= toy.at("2024-03-01")) & (asked < toy.at("2024-05-01"))].tolist()
    assert keys == wanted


def test_the_second_replay_is_answered_from_the_ledger(replayed: Replayed) -> None:
    toy, branch = replayed
    ran = len(toy.ledger.executions())

    def listen(progress: Progress) -> None:
        raise AssertionError("nothing is to be done")

    again, cached = loop.replay(toy.ledger, toy.job(), listen=listen)
    assert cached
    assert (again.id, again.result) == (branch.id, branch.result)
    assert len(toy.ledger.executions()) == ran


def test_two_folders_give_the_same_figures_and_models(replayed: Replayed, tmp_path: Path) -> None:
    toy, branch = replayed
    other = open_toy(write_project(tmp_path / "elsewhere"))
    same = other.replay()
    assert same.id == branch.id
    assert same.result == branch.result
    assert same.state == branch.state
    digests = [[version.digest for version in registry.versions(one.ledger, branch.id)] for one in (toy, other)]
    assert digests[0] == digests[1]
    assert len(digests[0]) > 1


def test_progress_grows_to_the_whole(toy: Toy) -> None:
    seen: list[Progress] = []
    branch = toy.replay(replace(toy.policy, on=(Never(),)), end="2024-03-20", listen=seen.append)
    assert [one.share for one in seen] == sorted(one.share for one in seen)
    assert (seen[-1].share, seen[-1].now) == (1.0, toy.at("2024-03-20"))
    assert [month["month"] for month in seen[-1].months] == [month["month"] for month in branch.result["months"]]
    assert seen[-1].months == branch.result["months"]
    assert seen[-1].events == branch.result["events"]


def test_a_month_is_counted_whole_when_it_has_ended(toy: Toy) -> None:
    seen: dict[int, Progress] = {}
    toy.replay(replace(toy.policy, on=(Never(),)), end="2024-04-03", listen=lambda progress: seen.update({progress.now: progress}))
    event = toy.built.examples.requests.event
    march = int(np.sum((event >= toy.at("2024-03-01")) & (event < toy.at("2024-04-01"))))
    counted = next(month for month in seen[toy.at("2024-04-01")].months if month["month"] == "2024-03")
    assert march - 60 < counted["requests"] <= march, "those of the last hour were asked, those of the first hour were not"
    assert [month["month"] for month in seen[toy.at("2024-04-03")].months] == ["2024-03", "2024-04"]


def test_ticks_are_the_midnights_of_the_project_through_a_change_of_clocks(toy: Toy) -> None:
    seen: list[Progress] = []
    toy.replay(replace(toy.policy, on=(Never(),)), start="2024-03-08", end="2024-03-13", listen=seen.append)
    assert [one.now for one in seen] == [toy.at(f"2024-03-{day:02}") for day in range(9, 14)]
    gaps = {b.now - a.now for a, b in pairwise(seen)}
    assert gaps == {DAY, 23 * DAY // 24}


def test_a_policy_that_never_retrains_serves_the_frozen_model(toy: Toy) -> None:
    branch = toy.replay(replace(toy.policy, on=(Never(),)))
    assert "retrained" not in toy.kinds(branch)
    assert branch.result["mean"]["frozen"] == branch.result["mean"]["loop"]
    assert branch.result["gain"]["roc_auc"] == {"estimate": 0.0, "low": 0.0, "high": 0.0}
    assert branch.result["cost"]["trainings"] == 2, "the twin that was judged, and the model"


def test_the_calendar_and_the_age_say_when(toy: Toy) -> None:
    policy = replace(toy.policy, on=(Every("10d"),), cooldown="1d", min_new_labels=1)
    made = [one.at for one in toy.decisions(toy.replay(policy, end="2024-04-01"), "retrained")]
    assert made == [toy.at(day) for day in ("2024-03-11", "2024-03-21", "2024-03-31")]
    aged = toy.replay(replace(policy, on=(Age("14d"),)), end="2024-03-20")
    assert next(one.at for one in toy.decisions(aged, "retrained")) == toy.at("2024-03-15")


def test_other_policies_times_and_models_are_other_branches(toy: Toy) -> None:
    jobs = [
        toy.job(),
        toy.job(end="2024-04-30"),
        toy.job(replace(toy.policy, cooldown="5d")),
        toy.job(with_deployment(toy.policy, gates=[gates.calibration(max_ece=0.5)])),
        toy.job(with_deployment(toy.policy, timeout="3s")),
    ]
    assert len({job.branch(toy.ledger).id for job in jobs}) == len(jobs)


def test_no_gates_is_refused_before_anything_is_trained(toy: Toy) -> None:
    with pytest.raises(DefinitionError, match="has no gates") as error:
        toy.replay(with_deployment(toy.policy, gates=[]))
    assert "parcels.py" in error.value.where
    assert not toy.ledger.executions(kind="training run")


def test_a_first_model_that_fails_its_gates_does_not_serve(toy: Toy) -> None:
    strict = with_deployment(toy.policy, gates=[gates.calibration(max_ece=1e-9)])
    with pytest.raises(Refused, match=r"the first model trees/1 does not pass its gates: calibration"):
        toy.replay(strict)
    branch = toy.job(strict).branch(toy.ledger)
    assert (branch.status, branch.state) == ("running", {})
    assert toy.ledger.alias(branch.id, "late", "champion") is None
    (told,) = toy.decisions(branch)
    assert (told.kind, told.subject, told.why.split(":")[0]) == ("gate refused", "trees/1", "calibration")


def test_the_same_refusal_is_written_down_once(toy: Toy) -> None:
    strict = with_deployment(toy.policy, gates=[gates.calibration(max_ece=1e-9)])
    for _ in range(3):
        with pytest.raises(Refused):
            toy.replay(strict)
    assert toy.kinds(toy.job(strict).branch(toy.ledger)) == ["gate refused"]


def test_a_metric_that_only_a_trigger_names_is_tested(toy: Toy) -> None:
    """The monitor writes down another one."""
    monitor = replace(toy.policy.monitor, quality=["roc_auc"], drift=None)
    branch = toy.replay(replace(toy.policy, on=(QualityDrop("log_loss", by=0.03),), monitor=monitor), end="2024-04-20")
    assert {"quality drop", "retrained"} <= set(toy.kinds(branch))
    assert all("log_loss" not in one.evidence["quality"] for one in toy.decisions(branch, "watched"))


def test_a_trigger_that_could_never_fire_is_refused(toy: Toy) -> None:
    with pytest.raises(DefinitionError, match=r"DriftFound\(\) never fires: the monitor tests no drift") as error:
        toy.replay(replace(toy.policy, monitor=replace(toy.policy.monitor, drift=None)))
    assert "parcels.py" in error.value.where


def test_cohorts_of_the_last_days_are_shown_as_open(toy: Toy) -> None:
    branch = toy.replay(replace(toy.policy, on=(Never(),)), end="2024-03-10")
    march = branch.result["months"][0]
    assert march["requests"] > march["rows"]
    assert 0.9 < march["resolved"] < 1.0
    assert branch.result["maturity"]["mature"] < branch.result["maturity"]["days"]


def test_parcels_that_never_arrive_are_resolved_as_no_label(toy: Toy) -> None:
    examples = toy.built.examples
    lost = {row["parcel"].encode() for row in make_rows() if row["late"] is None}
    rows = np.array([key in lost for key in examples.requests.keys.tolist()])
    assert rows.sum() > 100
    assert np.isnan(examples.label[rows]).all()
    assert not np.isnan(examples.label[~rows]).any()
    assert (examples.resolved[rows] == examples.requests.event[rows] + instant("1970-01-02T12:00:00Z")).all()
    assert (examples.resolved[~rows] > examples.requests.event[~rows]).all()
