"""One pass of the loop on the live branch of a deployment: the same tick as in a replay, with the time that it is handed.

While an edit of features or model is judged, refused or waits for people, the tick goes on with the definitions of before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tidemill import registry
from tidemill.core import HOUR, DataError, DefinitionError, Event, TidemillError, differences, digest_value, duration, show
from tidemill.data import Prediction, Segment, broken
from tidemill.features import functions_of
from tidemill.ledger import Branch, Decision, Ledger, told
from tidemill.loop.build import Built, build
from tidemill.loop.decide import to_live
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.former import at_rest, former_policy, former_task
from tidemill.loop.mend import mend
from tidemill.loop.origin import own_definition
from tidemill.loop.replay import Replay, check, read_state
from tidemill.loop.rollback import end_weights
from tidemill.loop.skew import Measured, measure
from tidemill.loop.state import Admit, Ask, Candidate, Compared, Promote, Refuse, RollBack, State
from tidemill.loop.tick import Effect, Loop
from tidemill.loop.world import World
from tidemill.monitoring import Skew
from tidemill.serving import Sample
from tidemill.training import Examples, load_examples

Parts = dict[str, Any]
Draw = Callable[[str, int, int, int], Sample]


@dataclass(frozen=True)
class Passed:
    """What one pass did: the state, the decisions that it wrote, and what is declared otherwise than what served before it, or serves
    now: with why that does not serve, where it does not."""

    branch: str
    state: State
    decisions: list[Decision]
    changed: str


def run_once(
    ledger: Ledger,
    built: Built,
    policy: RetrainPolicy,
    now: int,
    timezone: str,
    told: Callable[[str], Sequence[Prediction]] = lambda _: (),
    sample: Draw | None = None,
) -> Passed:
    """Build the first champion, or make one tick. Changed definitions call for a candidate at once. `told` gives what the gateway has
    answered so far on a branch; `sample` some of that with its features, by branch, period and number. Raises Refused when the first
    model does not pass its gates, or needs people to agree."""
    check(policy, built)
    parts = _parts(built, policy, timezone)
    branch = ledger.open_branch("live", policy.monitor.name, parts)
    before = len(ledger.decisions(branch.id))
    state, changed = _Pass(ledger, branch, built, policy, now, timezone, told(branch.id), sample).make(parts)
    return Passed(branch.id, state, ledger.decisions(branch.id)[before:], changed)


def lost_answers(ledger: Ledger, branch: Branch) -> list[Segment]:
    """The parts of a branch's log that cannot be read, without those that a pass has written down as lost."""
    known = {one.subject for one in ledger.decisions(branch.id) if one.kind == Event.ANSWERS_LOST}
    return [one for one in broken(ledger, branch.id) if _of_log(one) not in known]


def _of_log(one: Segment) -> str:
    return f"{one.deployment}/segment {one.number}"


def _parts(built: Built, policy: RetrainPolicy, timezone: str) -> Parts:
    return Replay(built, policy, 0, 0, timezone).parts() | {"time": [timezone]}


@dataclass(frozen=True)
class _Pass:
    """One pass over a live branch, with the definitions of today."""

    ledger: Ledger
    branch: Branch
    built: Built
    policy: RetrainPolicy
    now: int
    timezone: str
    told: Sequence[Prediction]
    sample: Draw | None = None

    def make(self, parts: Parts) -> tuple[State, str]:
        """The state after the pass, and what has changed in the definitions."""
        loop = self._loop(self.policy, self.built.examples, parts)
        if not self.branch.state:
            return loop.begin(self.now), "there was no champion"
        state, changed = read_state(self.ledger, self.branch), _changed(self.branch.parts, parts)
        alike = not differences(_read(self.branch.parts), _read(parts))
        if not changed or (alike and (not self._otherwise(state, parts) or self._put_aside(parts))):
            state = self._tick(loop, self._without_edit(loop, state, changed))
            found = [] if state.candidate else self._otherwise(state, parts)
            return state, f"{told(found)} (what came of it was rolled back; the next retraining takes it up)" if found else ""
        served = self.branch.parts | {"model": self._served(state)}
        changed, edit = _changed(served, parts), digest_value([_definitions(parts), parts["deployment"]])
        due = self._due(loop, state, edit)
        standing, said = self._former(self.branch.parts if state.candidate else served, rest=due)
        state = self._tick(standing, state)  # first what was asked since the last pass, by what has served it
        loop.world.former = standing.world.examples
        if due:
            try:
                return _judge(loop, state, changed, edit, alike=alike), changed + said
            except (DataError, DefinitionError) as error:
                error.hint = "; ".join(filter(None, [error.hint, f"the edit is not taken, {state.champion.label} serves on"]))
                raise
        if state.waiting and len(loop.approvals(state.waiting.version)) >= self.policy.approvals:
            return _go_live(loop, state, state.waiting, alike=alike), changed + said
        why = f"{state.waiting.version.label} waits for people to approve it" if state.waiting else "refused before"
        return state, f"{changed} ({why}){said}"

    def _loop(self, policy: RetrainPolicy, examples: Examples, parts: Parts | None) -> Loop:
        monitor, rung = policy.monitor, "nobody asked"
        world = World(self.ledger, self.branch.id, monitor.deployment, examples, self.timezone, monitor.maturity, self.told, rung)
        world.skew = self._skew if self.sample else None
        return Loop(policy, world, parts)

    def _skew(self, check: Skew, since: int, until: int) -> Measured:
        """Compare what was served in a period, by the definitions of its versions."""
        assert self.sample is not None
        drawn = self.sample(self.branch.id, since, until, check.rows)
        return measure(self.ledger, self.branch.id, self.branch.name, drawn, check, functions_of(self.built.task.features))

    def _otherwise(self, state: State, parts: Parts) -> list[tuple[str, Any, Any]]:
        """Where the model is defined otherwise than the champion was when it was trained; nowhere once an edit of it was taken back."""
        return differences(self._served(state), parts["model"], "model.")

    def _served(self, state: State) -> dict[str, Any]:
        """The definition that the champion was trained by: after a rollback not what the branch took last."""
        return own_definition(self.ledger, self.ledger.artifact_of("model", state.champion.digest))

    def _put_aside(self, parts: Parts) -> bool:
        """Whether people rolled back a version of this very model since the loop last promoted one: it is no edit to be judged."""
        for one in reversed(self.ledger.decisions(self.branch.id)):
            by_people = "user" in one.evidence
            if one.kind == Event.PROMOTED and not by_people:
                break
            if one.kind == Event.ROLLED_BACK and by_people:
                digest = registry.version(self.ledger, self.branch.id, one.subject).digest
                if not differences(own_definition(self.ledger, self.ledger.artifact_of("model", digest)), parts["model"]):
                    return True
        return False

    def _without_edit(self, loop: Loop, state: State, changed: str) -> State:
        """The state without what came of an edit that was taken back: its version on the rollout, or the one that waits for people."""
        why, effects, after = "its edit was taken back", list[Effect](), state
        if changed and state.candidate is not None:
            dropped = loop.act(replace(state, now=self.now), RollBack(f"{why}: {changed}", Compared(0, 0.0, None)), effects)
            after = replace(dropped, now=state.now)
        if state.waiting is not None:
            decided: dict[str, Any] = {"kind": Event.ROLLED_BACK, "subject": state.waiting.version.label, "why": why, "evidence": {}}
            effects.append(lambda c: self.ledger.decide(c, self.branch.id, at=self.now, who="loop", **decided))
        if effects:
            after = replace(after, waiting=None, tried="")
            replace(loop, parts=None).commit(state, after, effects)
        return after

    def _tick(self, loop: Loop, state: State) -> State:
        world = loop.world
        mend(self.ledger, self.branch.id, world.deployment.model, world.examples, state)
        self._say_lost()
        label = state.candidate.version.label if state.candidate else ""
        answered = world.recall(state.segments, label, broken(self.ledger, self.branch.id))
        asked = world.rows(
            state.champion.since, state.now
        )  # while another served, nobody knows by what a late one would have been answered
        world.late = asked[~answered[asked]]
        return loop.tick(state, self.now)

    def _say_lost(self) -> None:
        """Write down, once for each, which answers cannot be read: the loop goes on without them, as they cannot be given again."""
        for one in lost_answers(self.ledger, self.branch):
            why = f"{one.rows} answers from {show(one.first_at)} to {show(one.last_at)} are lost or damaged: no window counts them"
            decision: dict[str, Any] = {"kind": Event.ANSWERS_LOST, "subject": _of_log(one), "why": why, "evidence": one._asdict()}
            with self.ledger.records.begin() as connection:
                self.ledger.decide(connection, self.branch.id, at=self.now, who="loop", **decision)

    def _due(self, loop: Loop, state: State, edit: str) -> bool:
        """Whether the gates shall judge an edit: a new one at once, and one that they refused once another champion serves than it was
        compared with, or when a policy would train again."""
        if state.tried != edit or (state.waiting is None and state.tried_at < state.champion.since):
            return True
        enough = loop.world.new_labels(state.tried_at, self.now) >= self.policy.min_new_labels
        return state.waiting is None and enough and self.now - state.tried_at >= duration(self.policy.cooldown) - HOUR

    def _former(self, kept: Parts, *, rest: bool) -> tuple[Loop, str]:
        """The loop over definitions that serve or are on their way, and what is wrong with them: of those that can no longer be built
        over the files of today, what was built last is watched."""
        said, task = "", former_task(self.built.task, kept["recipe"])
        policy = former_policy(self.policy, task, kept["model"])
        try:
            built = build(self.ledger, task)
            examples, parts = built.examples, _parts(built, policy, self.timezone) | {"model": kept["model"], "policy": kept["policy"]}
        except TidemillError as error:
            examples, parts = load_examples(self.ledger, self.ledger.artifact_of("examples", kept["examples"])), None
            said = f"; what serves can no longer be built ({error.what}), so newer requests are not watched"
        return self._loop(at_rest(policy) if rest else policy, examples, parts), said


def _changed(before: Parts, after: Parts) -> str:
    """What changed in the definitions of features and model, in words; new data and other code are no reason by themselves."""
    found = differences(_definitions(before), _definitions(after))
    return told(found)


def _definitions(parts: Parts) -> Parts:
    recipe = parts["recipe"]
    views = {view["definition"]["name"]: view["definition"] for view in recipe["views"]}
    return {"views": views, "task": recipe["task"], "datasets": recipe["datasets"], "model": parts["model"]}


def _read(parts: Parts) -> Parts:
    """What a model reads and learns, as it is defined: all but the model itself."""
    return {name: value for name, value in _definitions(parts).items() if name != "model"}


def _judge(loop: Loop, state: State, why: str, edit: str, *, alike: bool) -> State:
    """Train on the changed definitions. If the gates pass and nobody needs to agree, it goes live."""
    effects: list[Effect] = []
    judged = loop.candidate_on_holdout(replace(state, candidate=None), f"definitions changed: {why}", effects)
    assert judged.candidate is not None
    verdict = judged.candidate.verdict
    assert verdict is not None
    # the edit's own try neither delays nor ends what the loop does for the version that serves
    standing = replace(state, numbers=judged.numbers, trainings=judged.trainings, row_rounds=judged.row_rounds)
    standing = replace(standing, tried=edit, tried_at=state.now, waiting=None)
    if not verdict.passed:
        loop.act(judged, Refuse(verdict), effects)
        replace(loop, parts=None).commit(state, standing, effects)
        return standing
    admitted = loop.act(judged, Admit(verdict, judged.candidate.daily), effects)
    if loop.policy.approvals:
        asked = loop.act(admitted, Ask(loop.policy.approvals), effects)
        standing = replace(standing, waiting=asked.candidate)
        replace(loop, parts=None).commit(state, standing, effects)
        return standing
    assert admitted.candidate is not None
    return _go_live(loop, state, admitted.candidate, replace(standing, last_attempt=state.now, pending=()), effects, alike=alike)


def _go_live(
    loop: Loop, before: State, edit: Candidate, after: State | None = None, effects: list[Effect] | None = None, *, alike: bool
) -> State:
    """An edit's version climbs the rollout where what it reads is as before (`alike`), or else becomes champion at once: a rollout needs
    both versions to read the same features. A candidate of the definitions before leaves."""
    effects, state = effects if effects is not None else [], after or before
    if state.candidate is not None:
        state = loop.act(state, RollBack("definitions changed while it was on its way", Compared(0, 0.0, None)), effects)
    why = "its gates passed; what it reads is defined otherwise than for the champion, so there is no rollout"
    state = replace(state, candidate=edit, waiting=None)
    for action in to_live(loop.policy.monitor.deployment.rollout) if alike else [Promote(why)]:
        state = loop.act(state, action, effects)
    if not alike:
        if state.weighted:
            end = partial(end_weights, loop.world.ledger, branch=loop.world.branch, deployment=loop.deployment, state=state)
            effects.append(partial(end, why=f"{state.champion.label} reads other features", who="loop", at=state.now, user=""))
        state = replace(state, previous=None, weighted=())  # what came before reads features that this branch no longer serves
    loop.commit(before, state, effects)
    return state
