"""The loop's decisions: state and observation in, actions out. Pure; nothing is read, written, trained or timed here."""

from tidemill.core import DAY, Refused, duration, spend
from tidemill.loop.declarations import RetrainPolicy, Seen
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
    State,
)
from tidemill.serving import Canary


def decide(policy: RetrainPolicy, state: State, seen: Observation) -> list[Action]:
    """What to do at `seen.now`, in order."""
    notes: list[Action] = [*map(Keep, seen.windows), *([Compare(seen.skew)] if seen.skew else []), *map(Note, seen.alerts)]
    actions = _actions(policy, state, seen)
    return notes if held(policy, state, seen) and any(isinstance(one, Climb | Promote) for one in actions) else notes + actions


def held(policy: RetrainPolicy, state: State, seen: Observation) -> bool:
    """Whether nothing may go live: the last comparison found that features are not served as they are learnt."""
    return policy.monitor.skew is not None and policy.monitor.skew.hold and bool(skew_now(state, seen))


def skew_now(state: State, seen: Observation) -> str:
    """What the last comparison found, where it was too much; one that compared nothing says nothing."""
    if seen.skew is None or not seen.skew.found.rows:
        return state.skew
    return seen.skew.alert.why if seen.skew.alert else ""


def _actions(policy: RetrainPolicy, state: State, seen: Observation) -> list[Action]:
    if state.candidate is None:
        return _retrain(policy, state, seen)
    rollout = policy.monitor.deployment.rollout
    match state.candidate.phase:
        case "judging" | "judged":
            return _judged(policy, rollout, seen)
        case "approval":
            return to_live(rollout) if seen.approvals >= policy.approvals else []
        case "canary" if rollout is not None:
            return _canary(rollout, state.candidate, seen)
        case "canary":
            return [RollBack("its rollout is no longer declared", Compared(0, 0.0, None))]
        case phase:
            raise Refused(f"a candidate cannot be in phase {phase!r}")


def _retrain(policy: RetrainPolicy, state: State, seen: Observation) -> list[Action]:
    if seen.now - state.last_attempt < duration(policy.cooldown) - DAY // 24 or seen.new_labels < policy.min_new_labels:
        return []
    view = Seen(seen.now, state.champion.until, state.last_attempt, (*state.pending, *seen.alerts))
    reasons = [reason for reason in (trigger.due(view) for trigger in policy.on) if reason]
    return [Retrain("; ".join(reasons))] if reasons else []


def _judged(policy: RetrainPolicy, rollout: Canary | None, seen: Observation) -> list[Action]:
    if seen.verdict is None:
        return []
    if not seen.verdict.passed:
        return [Refuse(seen.verdict) if seen.last_look else Look(seen.verdict)]
    if seen.approvals < policy.approvals:
        return [Admit(seen.verdict, seen.daily), Ask(policy.approvals - seen.approvals)]
    return [Admit(seen.verdict, seen.daily), *to_live(rollout)]


def to_live(rollout: Canary | None) -> list[Action]:
    """The first step of a version that may go live: onto the canary, or at once where none is declared."""
    if rollout is None or rollout.steps[0] >= 1.0:
        return [Promote("its gates passed; no rollout is declared")]
    return [Climb(rollout.steps[0], f"its gates passed: {rollout.steps[0]:.0%} of requests")]


def _canary(rollout: Canary, candidate: Candidate, seen: Observation) -> list[Action]:
    compared = seen.compared
    if compared is None or compared.p_worse is None or compared.labels < rollout.min_labels:
        return []
    looks = len(rollout.steps) - 1  # the last step is the promotion itself
    if compared.p_worse < spend(rollout.alpha, max(looks, 1)):
        why = f"log loss {compared.worse:+.4f} against the champion on {compared.labels} pairs, p = {compared.p_worse:.2g}"
        return [RollBack(why, compared)]
    weight = next((step for step in rollout.steps if step > candidate.weight), 1.0)
    told = f"not surely worse, log loss {compared.worse:+.4f} (below 0 is better) on {compared.labels} pairs"
    if weight >= 1.0:
        return [Promote(f"canary passed: {told}")]
    return [Climb(weight, f"{told}: {weight:.0%} of requests")]
