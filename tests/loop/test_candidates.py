"""Candidates on their way: refused by the gates, rolled back from a canary, waiting for people, judged on rows to come."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier

from tidemill import loop, registry
from tidemill.core import DAY, DefinitionError, GateResult, Refused, Verdict, instant
from tidemill.data import Prediction, find_predictions, segments
from tidemill.evaluation import Evidence, Gate
from tidemill.ledger import Branch
from tidemill.loop import Every, Passed, QualityDrop, RetrainPolicy, State
from tidemill.serving import Canary
from tidemill.training import Params, TrainingSet, model
from toy import ZONE, Toy, with_deployment

BAD_FROM = instant("2024-03-13", ZONE)
SMALL = {"num_leaves": 7, "n_estimators": 20, "min_child_samples": 20}


@dataclass(frozen=True)
class AlwaysPass(Gate):
    """A gate as a user may write it, too kind."""

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        return GateResult("always", passed=True, reason="why not", evidence={"rows": len(evidence.y)})


def sometimes_bad(train: TrainingSet, params: Params) -> LGBMClassifier:
    """Sound until BAD_FROM; from then on it learns the opposite of the truth."""
    labels = 1 - train.y if train.at.max() > BAD_FROM else train.y
    fitted = LGBMClassifier(**params, random_state=train.seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
    return fitted.fit(train.X, labels, categorical_feature=train.categorical)


def every_ten_days(toy: Toy, **changes: Any) -> RetrainPolicy:
    return replace(toy.policy, on=(Every("10d"),), cooldown="1d", min_new_labels=1, **changes)


def bad_candidates(toy: Toy, **changes: Any) -> RetrainPolicy:
    """Every candidate but the first is bad. The world does not change in March."""
    bad = model(toy.built.task, seed=5, params=SMALL)(sometimes_bad)
    return with_deployment(every_ten_days(toy, **changes), model=bad)


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("judge", ["holdout", "ahead"])
def test_the_gates_refuse_a_bad_candidate(toy: Toy, judge: str) -> None:
    branch = toy.replay(bad_candidates(toy, judge=judge), end="2024-04-01")
    bad = [version for version in registry.versions(toy.ledger, branch.id) if version.at > BAD_FROM]
    refused = {one.subject: one for one in toy.decisions(branch, "gate refused")}
    for version in bad:
        if version.label in refused:
            assert version.verdict is not None
            assert not version.verdict.passed
            assert refused[version.label].evidence["results"][0]["passed"] is False
            assert "not surely better" in refused[version.label].why
    assert {version.label for version in bad} & set(refused), toy.kinds(branch)
    served = {segment.versions[v] for _, segment in segments(toy.ledger, branch.id, "late") for v in np.unique(segment.version)}
    assert not served & {version.label for version in bad}, "a refused candidate answers nobody"
    promoted = {one.subject for one in toy.decisions(branch, "promoted")}
    assert not promoted & {version.label for version in bad}


def test_a_candidate_judged_ahead_is_looked_at_more_than_once_and_refused_at_the_last(toy: Toy) -> None:
    branch = toy.replay(bad_candidates(toy, judge="ahead"), end="2024-03-31")
    looks = toy.decisions(branch, "gates undecided", "gate refused")
    kinds = [one.kind for one in looks if one.subject == looks[0].subject]
    assert kinds == ["gates undecided", "gates undecided", "gate refused"]
    made = toy.decisions(branch, "retrained")[0].at
    assert [(one.at - made) // DAY for one in looks[:3]] == [2, 4, 8], "quarter, half and whole of the gates' holdout of 8 days"


def test_a_good_candidate_judged_ahead_is_promoted(toy: Toy) -> None:
    branch = toy.replay(replace(toy.policy, judge="ahead"))
    promoted = toy.decisions(branch, "promoted")
    assert len(promoted) >= 2
    assert branch.result["cost"]["trainings"] == 2 + len(toy.decisions(branch, "retrained")), "no twin: one training for each candidate"
    assert branch.result["gain"]["log_loss"]["low"] > 0


# ── rolled back ─────────────────────────────────────────────────────────────────────────────────────────────────────


def bad_canary(toy: Toy) -> tuple[RetrainPolicy, Branch]:
    """The twin that is judged is sound, the refitted candidate is not, and the only gate is too kind."""
    canary = Canary(steps=[0.2, 0.6, 1.0], min_labels=40, sticky_by="courier")
    policy = with_deployment(bad_candidates(toy), gates=[AlwaysPass()], rollout=canary)
    return policy, toy.replay(policy, end="2024-04-01")


def test_a_bad_canary_is_rolled_back_and_the_champion_stays(toy: Toy) -> None:
    _, branch = bad_canary(toy)
    back = toy.decisions(branch, "rolled back")
    assert back, toy.kinds(branch)
    for one in back:
        version = registry.version(toy.ledger, branch.id, one.subject)
        assert version.at > BAD_FROM
        assert version.verdict is not None
        assert version.verdict.passed, "its verdict is kept: the gate was too kind"
        assert one.evidence["labels"] >= 40
        assert one.evidence["worse"] > 0.1
        assert one.evidence["p_worse"] < 0.025
        assert "against the champion" in one.why
    state = State.of(branch.state)
    assert state.champion.label not in {one.subject for one in back}
    assert toy.ledger.alias(branch.id, "late", "champion").digest == state.champion.digest  # type: ignore[union-attr]
    history = [ref.version for ref, _, _ in toy.ledger.alias_history(branch.id, "late", "challenger")]
    labels = [one.subject.split("/")[1] for one in back]
    assert all(label in history for label in labels)
    last = back[-1].at
    assert next(ref.version for ref, at, _ in toy.ledger.alias_history(branch.id, "late", "challenger") if at == last) not in labels


def test_a_rolled_back_version_answers_only_its_share_and_nobody_later(toy: Toy) -> None:
    _, branch = bad_canary(toy)
    back = toy.decisions(branch, "rolled back")[0]
    begin = next(one.at for one in toy.decisions(branch, "canary") if one.subject == back.subject)
    during, after, asked = 0, 0, 0
    for _, segment in segments(toy.ledger, branch.id, "late"):
        mine = np.array([segment.versions[v] == back.subject for v in segment.version])
        live = (segment.at >= begin) & (segment.at < back.at)
        during, asked, after = during + int(mine[live].sum()), asked + int(live.sum()), after + int(mine[segment.at >= back.at].sum())
        assert not mine[segment.at < begin].any()
    assert 0 < during < 0.65 * asked
    assert after == 0


def test_a_later_candidate_may_try_again_after_a_rollback(toy: Toy) -> None:
    _, branch = bad_canary(toy)
    kinds = toy.kinds(branch)
    assert "retrained" in kinds[kinds.index("rolled back") :]
    numbers = [version.number for version in registry.versions(toy.ledger, branch.id)]
    assert numbers == list(range(1, len(numbers) + 1)), "no number is given twice"


def test_what_a_bad_canary_answers_is_not_charged_to_the_champion(toy: Toy) -> None:
    policy, _ = bad_canary(toy)
    drop = replace(policy, on=(*policy.on, QualityDrop("log_loss", by=0.03)), monitor=replace(policy.monitor, drift=None))
    branch = toy.replay(drop, end="2024-04-01")
    assert "rolled back" in toy.kinds(branch), "one canary in between was bad"
    assert "quality drop" not in toy.kinds(branch)
    losses = [one.evidence["quality"]["log_loss"] for one in toy.decisions(branch, "watched")]
    assert max(losses) < 0.6, "the world does not change in March"


# ── people ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_takes_the_yes_of_people_as_given(toy: Toy) -> None:
    kinds = toy.kinds(toy.replay(replace(toy.policy, approvals=1)))
    assert "approval needed" not in kinds, "nobody can be asked in the past"
    assert kinds.count("promoted") > 1


def live_pass(toy: Toy, policy: RetrainPolicy, day: str) -> Passed:
    return loop.run_once(toy.ledger, toy.built, policy, toy.at(day), ZONE)


def approve(toy: Toy, branch: str, label: str, who: str, model: str = "") -> None:
    """Agree to what waits, or to another model."""
    found = toy.ledger.branch(branch)
    assert found is not None
    evidence = {"model": model or loop.approvable(toy.ledger, found)[label]}
    with toy.ledger.records.begin() as connection:
        toy.ledger.decide(connection, branch, at=0, who=who, kind="approved", subject=label, why="looks well", evidence=evidence)


def days_of(month: str, first: int, end: int) -> list[str]:
    return [f"2024-{month}-{day:02}" for day in range(first, end)]


def test_a_candidate_goes_live_when_enough_different_people_approved_it(toy: Toy) -> None:
    policy = with_deployment(replace(toy.policy, approvals=2), rollout=None)
    with pytest.raises(Refused, match=r"trees/1 passed its gates and needs 2 more approvals"):
        live_pass(toy, policy, "2024-03-25")
    for who in ("ann", "ben"):
        approve(toy, "live-late", "trees/1", who)
    assert live_pass(toy, policy, "2024-03-25").state.champion.label == "trees/1"
    passed = [live_pass(toy, policy, day) for day in [*days_of("03", 26, 32), *days_of("04", 1, 13)]][-1]
    candidate = passed.state.candidate
    assert candidate is not None
    assert candidate.phase == "approval"
    label = candidate.version.label
    approve(toy, passed.branch, label, "ann")
    approve(toy, passed.branch, label, "ann")
    approve(toy, passed.branch, "trees/99", "ben", candidate.version.digest)
    approve(toy, passed.branch, label, "cid", "0" * 64)
    told = "one person twice, for another version, or for another model of that name, is one"
    assert live_pass(toy, policy, "2024-04-13").state.candidate == candidate, told
    approve(toy, passed.branch, label, "ben")
    after = live_pass(toy, policy, "2024-04-14")
    assert after.state.champion.label == label
    assert [one.kind for one in after.decisions if one.subject == label] == ["promoted"]


# ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_live_loop_decides_as_the_replay_does(toy: Toy, replayed: tuple[Toy, Branch]) -> None:
    """The same tick with the same clock: only the branch differs."""
    other, branch = replayed
    days = [*days_of("03", 1, 32), *days_of("04", 1, 31), "2024-05-01"]
    passed = [live_pass(toy, toy.policy, day) for day in days]
    told: Callable[[Any], tuple[Any, ...]] = lambda one: (one.at, one.who, one.kind, one.subject, one.why)  # noqa: E731
    assert [told(one) for each in passed for one in each.decisions] == [told(one) for one in other.decisions(branch)]
    assert passed[-1].state == State.of(branch.state)


def test_the_first_pass_makes_a_champion_and_the_next_does_nothing_without_a_reason(toy: Toy) -> None:
    first = live_pass(toy, toy.policy, "2024-03-01")
    assert [one.kind for one in first.decisions] == ["gates passed", "promoted"]
    second = live_pass(toy, toy.policy, "2024-03-02")
    assert (second.decisions, second.changed) == ([], "")
    assert second.state.champion == first.state.champion


def test_what_the_gateway_answered_is_what_is_counted(toy: Toy) -> None:
    first = live_pass(toy, toy.policy, "2024-03-01")
    rows = np.flatnonzero((toy.built.examples.at >= toy.at("2024-03-01")) & (toy.built.examples.at < toy.at("2024-03-02")))
    keys = [toy.built.examples.requests.keys[row].decode() for row in rows[:3]]
    asked = toy.at("2024-03-01T03:00:00-05:00")  # before the outcome of any is known
    answers = [
        ("unknown", 0.5, "trees/1", "champion"), (keys[0], 0.9, "trees/1", "champion"), (keys[0], 0.1, "trees/1", "champion"),
        (keys[1], 0.3, "", "constant"),
    ]  # fmt: skip
    told = [Prediction(first.branch, "late", key, asked, p, version, rung) for key, p, version, rung in answers]
    loop.run_once(toy.ledger, toy.built, toy.policy, toy.at("2024-03-02"), ZONE, lambda branch: told if branch == first.branch else [])
    found = [find_predictions(toy.ledger, first.branch, "late", key)[-1] for key in keys]
    assert [(one.probability, one.version, one.rung) for one in found[:2]] == [(0.1, "trees/1", "champion"), (0.3, "", "constant")]
    assert found[0].at == asked
    assert (found[2].version, found[2].rung) == ("trees/1", "nobody asked")
    ((_, segment),) = segments(toy.ledger, first.branch, "late")
    assert len(segment.at) == len(rows)
    assert segment.shadows["champion"][1][0] not in (0.1, 0.9), "what the champion says of it is kept beside it"


@pytest.mark.parametrize(("version", "rung", "counts"), [("trees/1", "champion", True), ("", "constant", False)])
def test_the_monitor_counts_the_answers_of_the_champion_alone(toy: Toy, version: str, rung: str, counts: bool) -> None:
    first = live_pass(toy, toy.policy, "2024-03-01")
    examples = toy.built.examples
    rows = np.flatnonzero((examples.at >= toy.at("2024-03-01")) & (examples.at < toy.at("2024-03-05")))
    told = [
        Prediction(first.branch, "late", examples.requests.keys[row].decode(), int(examples.at[row]), 0.99, version, rung) for row in rows
    ]
    loop.run_once(toy.ledger, toy.built, toy.policy, toy.at("2024-03-05"), ZONE, lambda _: told)
    watched = [one for one in live_pass(toy, toy.policy, "2024-03-07").decisions if one.kind == "watched"]
    assert (watched[0].evidence["quality"]["log_loss"] > 1) is counts, "0.99 for all is bad; but only who said it answers for it"


def test_a_changed_definition_calls_for_a_candidate_and_says_what_changed(toy: Toy) -> None:
    live_pass(toy, toy.policy, "2024-03-15")
    declared = toy.policy.monitor.deployment.model
    other = replace(declared, params={**declared.params, "num_leaves": 15})
    passed = live_pass(toy, with_deployment(toy.policy, model=other, gates=[AlwaysPass()]), "2024-03-29")
    assert "num_leaves: 7 → 15" in passed.changed
    assert passed.state.candidate is not None
    assert (passed.state.candidate.version.number, passed.state.candidate.phase) == (2, "canary")
    assert any("num_leaves" in one.why for one in passed.decisions)
    again = live_pass(toy, with_deployment(toy.policy, model=other, gates=[AlwaysPass()]), "2024-03-30")
    assert again.changed == ""


def test_verdicts_survive_the_way_to_the_records(toy: Toy) -> None:
    passed = live_pass(toy, toy.policy, "2024-03-01")
    (version,) = registry.versions(toy.ledger, passed.branch)
    assert isinstance(version.verdict, Verdict)
    assert version.verdict.subject == "trees/1"
    assert [result.passed for result in version.verdict.results] == [True, True, True]


def test_a_canary_by_a_column_that_requests_lack_is_refused_before_it_starts(toy: Toy) -> None:
    deployment = replace(toy.policy.monitor.deployment, rollout=Canary(steps=[0.2, 1.0], min_labels=40, sticky_by="curier"))
    policy = replace(toy.policy, monitor=replace(toy.policy.monitor, deployment=deployment))
    with pytest.raises(DefinitionError, match=r"sticky_by='curier' .* is no text column of its requests") as error:
        loop.replay(toy.ledger, loop.Replay(toy.built, policy, toy.at("2024-03-01"), toy.at("2024-04-01"), "UTC"))
    assert "courier" in error.value.available


def test_a_replay_of_days_without_requests_is_refused(toy: Toy) -> None:
    late = loop.Replay(toy.built, toy.policy, toy.at("2090-01-01"), toy.at("2090-02-01"), "UTC")
    with pytest.raises(DefinitionError, match="nothing was asked from 2090-01-01T"):
        loop.replay(toy.ledger, late)
