"""One pass of the loop on the live branch of a deployment: the same tick as in a replay, with the time that it is handed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidemill.core import differences, digest_value
from tidemill.data import Prediction
from tidemill.ledger import Branch, Decision, Ledger, told
from tidemill.loop.build import Built
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.mend import mend
from tidemill.loop.replay import Replay, check, read_state
from tidemill.loop.state import Admit, Compared, Promote, Refuse, RollBack, State
from tidemill.loop.tick import Effect, Loop
from tidemill.loop.world import World


@dataclass(frozen=True)
class Passed:
    """What one pass did: the state, the decisions that it wrote, and why a candidate was needed, if one was."""

    branch: str
    state: State
    decisions: list[Decision]
    changed: str


def run_once(
    ledger: Ledger, built: Built, policy: RetrainPolicy, now: int, timezone: str, told: Callable[[str], Sequence[Prediction]] = lambda _: ()
) -> Passed:
    """Build the first champion, or make one tick. Changed definitions call for a candidate at once. `told` gives what the gateway has
    answered so far on a branch. Raises Refused when the first model does not pass its gates."""
    check(policy, built)
    deployment = policy.monitor.deployment
    parts = Replay(built, policy, 0, 0, timezone).parts() | {"time": [timezone]}
    branch = ledger.open_branch("live", deployment.name, parts)
    before = len(ledger.decisions(branch.id))
    world = World(ledger, branch.id, deployment, built.examples, timezone, policy.monitor.maturity, told(branch.id), "nobody asked")
    loop = Loop(policy, world, parts)
    state, changed = _pass(loop, branch, parts, now)
    return Passed(branch.id, state, ledger.decisions(branch.id)[before:], changed)


def _pass(loop: Loop, branch: Branch, parts: dict[str, Any], now: int) -> tuple[State, str]:
    if not branch.state:
        return loop.begin(now), "there was no champion"
    state = read_state(loop.world.ledger, branch)
    mend(loop.world.ledger, branch.id, loop.world.deployment.model, loop.world.examples, state)
    loop.world.recall(state.segments, state.candidate.version.label if state.candidate else "")
    changed = _changed(branch.parts, parts)
    if not changed:
        return loop.tick(state, now), ""
    tried = digest_value([_definitions(parts), parts["examples"]])
    if state.refused == tried:
        return state, f"{changed} (refused before; nothing is new since)"
    return _replace(loop, state, changed, now, tried), changed


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What changed in the definitions of features and model, in words; new data and other code are no reason by themselves."""
    found = differences(_definitions(before), _definitions(after))
    return told(found)


def _definitions(parts: dict[str, Any]) -> dict[str, Any]:
    recipe = parts["recipe"]
    views = {view["definition"]["name"]: view["definition"] for view in recipe["views"]}
    return {"views": views, "task": recipe["task"], "datasets": recipe["datasets"], "model": parts["model"]}


def _replace(loop: Loop, state: State, why: str, now: int, tried: str) -> State:
    """Train on the changed definitions and, if the gates pass, promote at once: a rollout would need both versions to read the same
    features, and they no longer do."""
    effects: list[Effect] = []
    started = replace(state, now=now)
    if state.candidate is not None:
        started = loop.act(started, RollBack("definitions changed while it was on its way", Compared(0, 0.0, None)), effects)
    judged = loop.candidate_on_holdout(started, f"definitions changed: {why}", effects)
    assert judged.candidate is not None
    verdict = judged.candidate.verdict
    assert verdict is not None
    if not verdict.passed:  # what serves goes on from where it was: `now` and the parts stay
        refused = replace(loop.act(judged, Refuse(verdict), effects), now=state.now, refused=tried)
        replace(loop, parts=None).commit(state, refused, effects)
        return refused
    label = judged.candidate.version.label
    loop.ask_first(label, loop.approvals(label))
    admitted = loop.act(judged, Admit(verdict, judged.candidate.daily), effects)
    after = loop.act(admitted, Promote("its gates passed; it reads other features than the champion, so there is no rollout"), effects)
    alone = replace(after, previous=None)  # what came before reads features that this branch no longer serves
    loop.commit(state, alone, effects)
    return alone
