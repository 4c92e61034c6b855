"""`tidemill run` and `tidemill approve`: the live loop by hand."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.markup import escape

from tidemill import features, loop, project
from tidemill.cli.console import Steps, out, print_error, print_json
from tidemill.core import Busy, Event, Refused, StoreError, TidemillError, UnknownName, show
from tidemill.data import stale
from tidemill.ledger import Ledger, user
from tidemill.loop import Built, Passed, RetrainPolicy
from tidemill.project import Project
from tidemill.serving import find_answers, sample_answers
from tidemill.session import Session, log_of, now, policy_of, serving_branch
from tidemill.training import Task


def run(folder: str, deployment: str, *, as_json: bool) -> None:
    """One pass of the loop at this moment for each deployment in turn, or for the one that is named: show it as it goes on, or print
    one object at the end. One that fails keeps no other from its pass; the exit code is its own."""
    declared = project.load(folder)
    policies, found, code = _policies(declared, deployment), list[dict[str, Any]](), 0
    _compact(declared)  # first: what people said may be a source
    with declared.writing("run", wait=600) as ledger:
        features.withdraw_unshared(ledger, declared)
        passes = Passes(declared, loop.prepare(ledger), now(), quiet=as_json)
        for policy in policies:
            name = policy.monitor.name
            if len(policies) > 1 and not as_json:
                out.print(f"\ndeployment [bold]{escape(name)}[/]")
            try:
                done = passes.one(policy)
            except TidemillError as error:
                if len(policies) == 1 and not isinstance(error, Refused):
                    raise
                code = error.code
                found.append({"name": name} | error.data())
                if not as_json:
                    print_error(error)
            else:
                found.append({"name": name} | done.plain())
                if not as_json:
                    done.say()
    if as_json:
        print_json({"deployments": found})
    if code:
        raise SystemExit(code)


def _compact(declared: Project) -> None:
    """Move the logs of answers and of feedback into their tables. Where that fails they are read as they are."""
    try:
        Session(declared.folder).compact()
    except Busy:
        pass  # another process is at it
    except StoreError as error:
        print_error(error)


def _policies(declared: Project, deployment: str) -> list[RetrainPolicy]:
    """The policy of each deployment, or of the one that is named. Raises DataError where that is not one."""
    names = [deployment] if deployment else list(dict.fromkeys(policy.monitor.name for policy in declared.all(RetrainPolicy)))
    return [policy_of(declared, name) for name in names or [""]]


@dataclass(frozen=True)
class Done:
    """What one pass did: its steps, what they gave, what was decided, which data are stale, and the replay that served until now."""

    steps: Steps
    built: Built
    passed: Passed
    alerts: list[str]
    replay: str

    def plain(self) -> dict[str, Any]:
        """As one object."""
        steps = [{"step": r.name, "cached": r.cached, "why": r.why, "seconds": r.seconds} for r in self.steps.reports.values()]
        decided = [{"at": show(d.at), "kind": d.kind, "subject": d.subject, "why": d.why} for d in self.passed.decisions]
        state = self.passed.state
        found = {"champion": state.champion.label, "changed": self.passed.changed, "stale": self.alerts, "skew": state.skew}
        return {"steps": steps, "decisions": decided, **found, "instead_of": self.replay}

    def say(self) -> None:
        """For people."""
        if self.passed.changed and self.passed.changed != "there was no champion":
            out.print(f"changed  {escape(self.passed.changed)}")
        for decision in self.passed.decisions:
            out.print(f"{decision.kind:<12} [bold]{escape(decision.subject)}[/]  {escape(decision.why)}")
        if self.passed.state.skew:
            out.print(f"[yellow]skew[/]         features are not served as they are learnt: {escape(self.passed.state.skew)}")
        elif not self.passed.decisions:
            out.print("no reason to train: the champion stays")
        taken = any(decision.kind in (Event.PROMOTED, Event.CANARY) for decision in self.passed.decisions[-1:])
        if self.passed.changed and not taken:
            out.print("[yellow]not taken[/]    requests are still answered by the definitions before the change")
        for alert in self.alerts:
            out.print(f"[yellow]stale[/]        {escape(alert)}")
        name = self.passed.branch.removeprefix("live-")
        out.print(f"\n[bold]{self.passed.state.champion.label}[/] serves deployment {name}; `tidemill up` answers requests")
        if self.replay:
            out.print(f"`tidemill up` now serves the live branch instead of the replay {self.replay}")


@dataclass(frozen=True)
class Passes:
    """The passes of one moment over a project's ledger. A task that several deployments share is built once."""

    declared: Project
    ledger: Ledger
    clock: int
    quiet: bool
    built: dict[str, tuple[Steps, Built]] = field(default_factory=dict)

    def build(self, task: Task) -> tuple[Steps, Built]:
        """The steps of a task and what they gave; they are shown when they run."""
        if task.name not in self.built:
            with Steps().shown(quiet=self.quiet) as steps:
                self.built[task.name] = steps, loop.build(self.ledger, task, listen=steps)
        return self.built[task.name]

    def one(self, policy: RetrainPolicy) -> Done:
        """One pass of the loop. Raises Refused, as when a first model does not pass its gates, and what is wrong with it."""
        name, task = policy.monitor.name, policy.monitor.deployment.model.task
        served = serving_branch(self.ledger, name)
        steps, built = self.build(task)
        log = log_of(self.declared, name)
        told, sample = partial(find_answers, log), partial(sample_answers, log)
        passed = loop.run_once(self.ledger, built, policy, self.clock, self.declared.timezone, told, sample)
        alerts = [text for dataset in task.datasets for text in stale(dataset, built.dataset(dataset.name), self.clock)]
        return Done(steps, built, passed, alerts, served.id if served and served.kind == "replay" else "")


def approve(folder: str, version: str, who: str, why: str) -> None:
    """Write down that a person agrees to a version. Raises UnknownName when it is not waiting for that."""
    declared = project.load(folder)
    with declared.writing("approve", wait=60) as ledger:
        found = [(branch, one) for branch in ledger.branches("live") for one in loop.approvable(ledger, branch).items()]
        meant = [(branch, model) for branch, (label, model) in found if label == version]
        if not meant:
            waiting, hint = sorted({label for _, (label, _) in found}), "`tidemill run` says which version needs it"
            raise UnknownName(f"{version} is not waiting for approval", available=waiting, hint=hint)
        name = user()
        agreed = {one.who for branch, model in meant for one in loop.approvals(ledger, branch.id, version, model)}
        with ledger.records.begin() as connection:
            for branch, model in meant:
                told: dict[str, Any] = {"who": who or name, "why": why or "approved", "evidence": {"user": name, "model": model}}
                ledger.decide(connection, branch.id, at=now(), kind=Event.APPROVED, subject=version, **told)
        policies = declared.all(RetrainPolicy)
        after = [loop.standing(ledger, branch, version, model, loop.needed(policies, branch.name)) for branch, model in meant]
    if (who or name) in agreed:
        out.print(f"{who or name} had approved {version} already: a name counts once")
    for one in after:
        out.print(escape(f"{who or name} approved {version}; {one.said}"))
