"""The loop over historical data with a simulated clock, on a branch of the ledger of its own.

Each local midnight is a tick. The state of every tick is kept, so a killed replay goes on from where it was; a finished one
is answered from the ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tidemill.core import DefinitionError, canonical, definition, midnights, moment, show
from tidemill.evaluation import gates
from tidemill.ledger import Branch, Ledger, own_code
from tidemill.loop.build import Built
from tidemill.loop.declarations import DriftFound, RetrainPolicy, SkewFound
from tidemill.loop.mend import answer_again, mend
from tidemill.loop.result import events, months, result
from tidemill.loop.state import State
from tidemill.loop.tick import Loop
from tidemill.loop.world import World
from tidemill.serving import Deployment
from tidemill.training import Model

STAGES = ("core", "data", "features", "models", "training", "evaluation", "registry", "serving", "monitoring", "loop")


@dataclass(frozen=True)
class Progress:
    """Where a replay is: its clock, the share that is done, what it is doing, months and events so far."""

    now: int
    share: float
    months: list[dict[str, Any]]
    events: list[dict[str, Any]]
    state: State


@dataclass(frozen=True)
class Replay:
    """What to replay: the examples, from when to when, and the policy."""

    built: Built
    policy: RetrainPolicy
    start: int
    end: int
    timezone: str
    kind: str = "replay"

    @property
    def deployment(self) -> Deployment:
        return self.policy.monitor.deployment

    def parts(self) -> dict[str, Any]:
        """What the branch is keyed by; what differs between two of them is why one had to run."""
        return {
            "examples": self.built.examples.ref.digest,
            "recipe": self.built.recipe(),
            "model": definition(self.deployment.model),
            "deployment": definition(self.deployment),
            "policy": definition(self.policy),
            "time": [self.start, self.end, self.timezone],
            "code": own_code(*STAGES),
        }

    def branch(self, ledger: Ledger) -> Branch:
        return ledger.open_branch(self.kind, self.deployment.name, self.parts())


def read_state(ledger: Ledger, branch: Branch) -> State:
    """The state of a branch. One that an earlier version wrote is written anew, for the next to be compared with."""
    state = State.of(branch.state)
    if canonical(state.plain()) != canonical(branch.state):
        with ledger.records.begin() as connection:
            ledger.save_branch(connection, branch.id, branch.state, state.plain())
    return state


def with_model(policy: RetrainPolicy, model: Model) -> RetrainPolicy:
    """The same policy over another model of the same task."""
    return replace(policy, monitor=replace(policy.monitor, deployment=replace(policy.monitor.deployment, model=model)))


def check(policy: RetrainPolicy, built: Built) -> None:
    """Problems that would only show at the end of a training, or never."""
    deployment = policy.monitor.deployment
    if policy.monitor.drift is None and any(isinstance(trigger, DriftFound) for trigger in policy.on):
        hint = "give the monitor drift=tm.Drift(), or leave the trigger out"
        raise DefinitionError("DriftFound() never fires: the monitor tests no drift", where=str(policy.where), hint=hint)
    if policy.monitor.skew is None and any(isinstance(trigger, SkewFound) for trigger in policy.on):
        hint = "give the monitor skew=tm.Skew(), or leave the trigger out"
        raise DefinitionError("SkewFound() never fires: the monitor compares no features", where=str(policy.where), hint=hint)
    if not deployment.gates:
        hint = "declare gates=[…]: nothing is promoted without a verdict"
        raise DefinitionError(f"deployment {deployment.name!r} has no gates", where=str(deployment.where), hint=hint)
    _check_slices(deployment, built)
    keys = built.task.request.keys
    columns = sorted({*built.examples.requests.texts, *(keys if len(keys) == 1 else ())})
    sticky_by = deployment.rollout.sticky_by if deployment.rollout else ""
    if sticky_by and sticky_by not in columns:
        what = f"sticky_by={sticky_by!r} of deployment {deployment.name!r} is no text column of its requests"
        raise DefinitionError(what, where=str(deployment.where), available=columns, hint="leave it out to keep each request's key together")


def _check_slices(deployment: Deployment, built: Built) -> None:
    texts = sorted(built.examples.requests.texts)
    for gate in deployment.gates:
        lacking = [column for column in gate.by if column not in texts] if isinstance(gate, gates.NoWorseSlice) else []
        if lacking:
            what = f"gate {gate.name} cuts by {lacking[0]!r}, which is no text column of the requests"
            raise DefinitionError(what, where=str(gate.where), available=texts, hint="correct its by=[…]")


def replay(ledger: Ledger, job: Replay, *, listen: Callable[[Progress], None] = lambda progress: None) -> tuple[Branch, bool]:
    """Run, go on with, or look up a replay; returns its finished branch, and whether it was finished before."""
    check(job.policy, job.built)
    _check_dates(job)
    branch = job.branch(ledger)
    ticks = [job.start, *(at for at in midnights(job.start, job.end, job.timezone) if at > job.start)]
    if branch.state:
        mend(ledger, branch.id, job.deployment.model, job.built.examples, State.of(branch.state))
        answer_again(_loop(ledger, job, branch), ticks)
    if branch.status == "finished":
        ledger.finish_branch(branch.id, branch.result)
        return branch, True
    loop = _loop(ledger, job, branch)
    world = loop.world
    state = _restore(world, branch) or loop.begin(job.start)
    progress: Progress | None = None
    for now in [at for at in ticks if at > state.now]:
        state = loop.tick(state, now)
        progress = _progress(ledger, job, world, state, progress)
        listen(progress)
    ledger.finish_branch(branch.id, result(world, state, job.start, ledger.decisions(branch.id)))
    finished = ledger.branch(branch.id)
    assert finished is not None
    return finished, False


def _loop(ledger: Ledger, job: Replay, branch: Branch) -> Loop:
    world = World(ledger, branch.id, job.deployment, job.built.examples, job.timezone, job.policy.monitor.maturity)
    return Loop(replace(job.policy, approvals=0), world)  # people cannot be asked in the past: their yes is taken as given


def _check_dates(job: Replay) -> None:
    """Raises DefinitionError where no request was asked while the replay's clock would run."""
    at = job.built.examples.at
    if len(at) and not (int(at[0]) < job.end and job.start <= int(at[-1])):
        what = f"nothing was asked from {show(job.start)} to {show(job.end)}: there is nothing to replay"
        asked = f"requests were asked from {show(int(at[0]))} to {show(int(at[-1]))}: correct the dates of [replay] in tidemill.toml"
        raise DefinitionError(what, where=str(job.deployment.where), hint=asked)


def _restore(world: World, branch: Branch) -> State | None:
    """The state of an unfinished branch, with the scores of its log; None for a new one."""
    if not branch.state:
        return None
    state = read_state(world.ledger, branch)
    world.recall(state.segments, state.candidate.version.label if state.candidate else "")
    return state


def _progress(ledger: Ledger, job: Replay, world: World, state: State, before: Progress | None) -> Progress:
    """Months are counted when one has ended, and at the end; counting each day would cost more than the day itself."""
    share = (state.now - job.start) / max(job.end - job.start, 1)
    month = moment(state.now, job.timezone).month
    same = before is not None and moment(before.now, job.timezone).month == month and state.now < job.end
    table = before.months if before is not None and same else months(world, job.start, state.now)
    return Progress(state.now, share, table, events(ledger.decisions(world.branch)), state)
