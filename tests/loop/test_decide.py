"""What must hold of every decision, for any state and any observation; and of any walk through them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core import DAY, HOUR, GateResult, Verdict, duration, spend
from tidemill.evaluation import gates
from tidemill.loop import Age, DriftFound, Every, Never, QualityDrop, RetrainPolicy, Served, State
from tidemill.loop.decide import decide
from tidemill.loop.declarations import Trigger
from tidemill.loop.state import (
    Action,
    Admit,
    Ask,
    Candidate,
    Climb,
    Compare,
    Compared,
    Keep,
    Look,
    Note,
    Observation,
    Promote,
    Refuse,
    Retrain,
    RollBack,
    SkewSeen,
)
from tidemill.monitoring import Alert, Monitor, Skew, Skewed, Watched
from tidemill.serving import Canary, Deployment
from tidemill.training import Model
from toy import write_project

NOW = 20_000 * DAY
LABEL = "m/2"
PHASES = ["judging", "judged", "approval", "canary"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    from tidemill import project

    return project.load(write_project(tmp_path_factory.mktemp("decide") / "p", [])).only(Model)


def policy_over(model: Model, rollout: Canary | None, on: list[Trigger], cooldown: str, labels: int, approvals: int) -> RetrainPolicy:
    deployment = Deployment("late", model, gates=[gates.calibration(max_ece=0.1)], rollout=rollout)
    return RetrainPolicy(Monitor(deployment), on=on, cooldown=cooldown, min_new_labels=labels, approvals=approvals)


ladders = st.lists(st.floats(0.01, 0.99), max_size=4).map(lambda found: [*sorted(set(found)), 1.0])
canaries = st.none() | st.builds(
    lambda steps, labels, alpha: Canary(steps, labels, alpha), ladders, st.integers(0, 100), st.floats(0.01, 0.5)
)
triggers = st.lists(
    st.sampled_from([Never(), Every("7d"), Every("30d"), Age("20d"), DriftFound(), QualityDrop("log_loss", 0.02)]), min_size=1, max_size=3
)
policies = st.tuples(canaries, triggers, st.sampled_from(["1d", "7d", "28d"]), st.integers(0, 50), st.integers(0, 2))
alerts = st.lists(
    st.sampled_from(
        [Alert("drift found", NOW, "d"), Alert("quality drop", NOW, "q", "log_loss"), Alert("quality drop", NOW, "q", "brier")]
    ),
    max_size=3,
).map(tuple)
windows = st.lists(st.builds(lambda found: Watched(0, NOW, 10, {}, {}, "", found), alerts), max_size=2).map(tuple)
looks = st.builds(lambda rows: Skewed(0, NOW, rows, rows, rows, {}, (), ()), st.integers(0, 2))
skews = st.none() | st.builds(SkewSeen, looks, st.just("skew report:late@1"), st.none() | st.just(Alert("skew found", NOW, "off")))
verdicts = st.none() | st.booleans().map(lambda passed: Verdict(LABEL, (GateResult("g", passed, "r"),), 10))
compared = st.none() | st.builds(Compared, st.integers(0, 200), st.floats(-1, 1), st.floats(0, 1))
served = st.builds(lambda until, since: Served("m/1", 1, "a", NOW - until * DAY, NOW - since * DAY), st.integers(0, 60), st.integers(0, 60))
observations = st.builds(
    Observation, st.just(NOW), windows, st.integers(0, 100), verdicts, st.just((0.1, 0.2, 0.3)), st.booleans(), compared, st.integers(0, 3)
)


def candidate_in(phase: str, weight: float) -> Candidate:
    verdict = Verdict(LABEL, (GateResult("g", passed=True, reason="r"),)) if phase != "judging" else None
    return Candidate(Served(LABEL, 2, "b", NOW - DAY, NOW - DAY), phase, NOW - DAY, "why", 0, weight, verdict)


@given(chosen=policies, champion=served, seen=observations, ago=st.integers(0, 40 * 24))
def test_without_a_candidate_the_only_act_is_to_retrain_and_only_when_all_allows_it(
    model: Model, chosen: Any, champion: Served, seen: Observation, ago: int
) -> None:
    policy = policy_over(model, *chosen)
    state = State(NOW, champion, champion, last_attempt=NOW - ago * HOUR)
    actions = decide(policy, state, seen)
    assert [a.alert for a in actions if isinstance(a, Note)] == list(seen.alerts), "every alert is written down"
    assert [a.watched for a in actions if isinstance(a, Keep)] == list(seen.windows), "and so is what every window showed"
    rest = [a for a in actions if not isinstance(a, Note | Keep)]
    assert all(isinstance(a, Retrain) for a in rest)
    assert len(rest) <= 1
    allowed = ago * HOUR >= duration(policy.cooldown) - HOUR and seen.new_labels >= policy.min_new_labels
    due = {
        "never": False,
        "every 7d": ago >= 7 * 24 - 1,
        "every 30d": ago >= 30 * 24 - 1,
        "age 20d": NOW - champion.until >= 20 * DAY - HOUR,
        "on drift": any(alert.kind == "drift found" for alert in seen.alerts),
        "on drop of log_loss": any(alert.metric == "log_loss" for alert in seen.alerts),
    }
    assert bool(rest) == (allowed and any(due[trigger.name] for trigger in policy.on))
    for action in rest:
        assert isinstance(action, Retrain)
        assert action.why


@given(
    chosen=policies, champion=served, seen=observations, phase=st.sampled_from(["judging", "judged", "approval", "canary"]), at=st.data()
)
def test_with_a_candidate_nothing_else_is_trained_and_weights_only_climb(
    model: Model, chosen: Any, champion: Served, seen: Observation, phase: str, at: st.DataObject
) -> None:
    policy = policy_over(model, *chosen)
    rollout = policy.monitor.deployment.rollout
    if phase == "canary" and (rollout is None or len(rollout.steps) == 1):
        return
    weight = at.draw(st.sampled_from(rollout.steps[:-1])) if phase == "canary" and rollout else 0.0
    state = State(NOW, champion, champion, candidate=candidate_in(phase, weight))
    actions = [a for a in decide(policy, state, seen) if not isinstance(a, Note | Keep)]
    assert not any(isinstance(a, Retrain) for a in actions)
    assert len(actions) <= 2
    for action in actions:
        match action:
            case Climb(to, _):
                assert rollout is not None
                assert to < 1.0, "the whole weight is a promotion"
                assert to in rollout.steps
                assert to > weight
            case RollBack(_, pairs):
                assert phase == "canary"
                assert rollout is not None
                assert pairs.labels >= rollout.min_labels
                assert pairs.p_worse is not None
                assert pairs.p_worse < spend(rollout.alpha, max(len(rollout.steps) - 1, 1))
            case Promote():
                assert phase != "canary" or (
                    rollout is not None and seen.compared is not None and seen.compared.labels >= rollout.min_labels
                )
                assert phase == "canary" or rollout is None or rollout.steps[0] >= 1.0
            case Admit(verdict):
                assert verdict.passed
                assert phase in ("judging", "judged")
            case Refuse(verdict):
                assert not verdict.passed
                assert seen.last_look
            case Look(verdict):
                assert not verdict.passed
                assert not seen.last_look
            case Ask(missing):
                assert missing == policy.approvals - seen.approvals > 0
            case _:
                raise AssertionError(action)


@given(chosen=policies, champion=served, seen=observations)
def test_a_canary_that_is_surely_worse_is_rolled_back_and_nothing_more(
    model: Model, chosen: Any, champion: Served, seen: Observation
) -> None:
    rollout = Canary([0.1, 0.5, 1.0], min_labels=20, alpha=0.05)
    policy = policy_over(model, rollout, *chosen[1:])
    state = State(NOW, champion, champion, candidate=candidate_in("canary", 0.5))
    bad = replace(seen, compared=Compared(20, 0.3, 0.001))
    actions = [a for a in decide(policy, state, bad) if not isinstance(a, Note | Keep)]
    assert [type(a) for a in actions] == [RollBack]
    early = replace(seen, compared=Compared(19, 0.3, 0.001))
    assert [a for a in decide(policy, state, early) if not isinstance(a, Note | Keep)] == [], "a step lasts until it has its labels"


@given(
    chosen=policies,
    champion=served,
    seen=observations,
    phase=st.sampled_from(PHASES),
    skew=skews,
    before=st.sampled_from(["", "off"]),
    hold=st.booleans(),
)
def test_while_features_are_not_served_as_learnt_nothing_goes_live_and_the_rest_goes_on(
    model: Model, chosen: Any, champion: Served, seen: Observation, phase: str, skew: SkewSeen | None, before: str, *, hold: bool
) -> None:
    policy = policy_over(model, *chosen)
    rollout = policy.monitor.deployment.rollout
    if phase == "canary" and (rollout is None or len(rollout.steps) == 1):
        return
    weight = rollout.steps[0] if phase == "canary" and rollout else 0.0
    state = State(NOW, champion, champion, candidate=candidate_in(phase, weight), skew=before)
    seen = replace(seen, skew=skew)
    without = decide(policy, state, seen)
    actions = decide(replace(policy, monitor=replace(policy.monitor, skew=Skew(hold=hold))), state, seen)
    found = bool(before) if skew is None or not skew.found.rows else skew.alert is not None
    if hold and found and any(isinstance(one, Climb | Promote) for one in without):
        assert actions == [one for one in without if isinstance(one, Note | Keep | Compare)], "it is written down, and that is all"
    else:
        assert actions == without


def follow(state: State, action: Action) -> State:
    """The state after an action, without training anything."""
    candidate = state.candidate
    match action:
        case Retrain(why):
            assert candidate is None, "at most one candidate"
            number = state.numbers + 1
            made = Candidate(Served(f"m/{number}", number, f"d{number}", state.now, state.now), "judging", state.now, why)
            return replace(state, candidate=made, numbers=number, last_attempt=state.now)
        case Keep() | Note() | Look():
            return state
    assert candidate is not None
    match action:
        case Admit(verdict):
            return replace(state, candidate=replace(candidate, verdict=verdict))
        case Ask():
            return replace(state, candidate=replace(candidate, phase="approval"))
        case Climb(weight, _):
            return replace(state, candidate=replace(candidate, phase="canary", weight=weight))
        case Promote():
            return replace(state, champion=candidate.version, previous=state.champion, candidate=None)
        case _:
            return replace(state, candidate=None)


@settings(max_examples=200)
@given(chosen=policies, walk=st.lists(observations, min_size=5, max_size=40))
def test_on_no_walk_does_a_version_go_live_without_a_passing_verdict_and_its_people(
    model: Model, chosen: Any, walk: list[Observation]
) -> None:
    policy = policy_over(model, *chosen)
    first = Served("m/1", 1, "d1", 0, 0)
    state, admitted, weights = State(0, first, first), {"m/1"}, {}
    for day, seen in enumerate(walk):
        now = day * DAY
        before = state = replace(state, now=now)
        seen = replace(seen, now=now)
        for action in decide(policy, state, seen):
            if isinstance(action, Admit) and state.candidate:
                assert action.verdict.passed
                admitted.add(state.candidate.version.label)
            if isinstance(action, (Climb, Promote)) and state.candidate:
                label = state.candidate.version.label
                assert label in admitted
                assert state.candidate.verdict is not None
                assert state.candidate.verdict.passed
                assert state.candidate.phase == "canary" or seen.approvals >= policy.approvals
                rollout = policy.monitor.deployment.rollout
                weight = action.weight if isinstance(action, Climb) and rollout else 1.0
                assert weight >= weights.get(label, 0.0)
                weights[label] = weight
            if isinstance(action, Retrain) and before.last_attempt:
                assert now - before.last_attempt >= duration(policy.cooldown) - HOUR
            state = follow(state, action)
        assert state.champion.label in admitted


def test_a_candidate_in_a_canary_that_is_no_longer_declared_is_rolled_back(model: Model) -> None:
    policy = policy_over(model, None, [Never()], "1d", 0, 0)
    first = Served("m/1", 1, "d1", 0, 0)
    actions = decide(policy, State(NOW, first, first, candidate=candidate_in("canary", 0.1)), Observation(NOW))
    assert [type(action) for action in actions] == [RollBack]


def test_an_alert_that_came_at_a_bad_time_is_not_forgotten(model: Model) -> None:
    policy = policy_over(model, None, [DriftFound()], "7d", 0, 0)
    first = Served("m/1", 1, "d1", 0, 0)
    state = State(NOW, first, first, last_attempt=NOW - 8 * DAY, pending=(Alert("drift found", NOW - 3 * DAY, "weather"),))
    assert [type(action) for action in decide(policy, state, Observation(NOW))] == [Retrain]


def test_states_survive_the_way_through_json() -> None:
    import json

    first = Served("m/1", 1, "d1", 0, 0, "twin", 5)
    state = State(NOW, first, first, first, candidate_in("canary", 0.5), 3, 4, {"log_loss": 0.5}, 2, 7, 3, 9)
    assert State.of(json.loads(json.dumps(state.plain()))) == state
