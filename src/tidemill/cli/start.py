"""`tidemill run` and `tidemill approve`: the live loop by hand."""

import getpass
from dataclasses import dataclass
from typing import Any

import click
from rich.markup import escape

from tidemill import loop, project
from tidemill.cli.console import Steps, out, print_json
from tidemill.core import UnknownName, show
from tidemill.data import stale
from tidemill.ledger import Branch
from tidemill.loop import Built, Passed
from tidemill.session import now, policy_of


@click.command()
@click.option("--deployment", default="", help="Which deployment, where the project has several.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as one object.")
@click.pass_obj
def run(obj: dict[str, Any], deployment: str, as_json: bool) -> None:
    """One pass of the loop at this moment: build, train if there is a reason, gate, promote."""
    done = one_pass(project.load(obj["folder"]), deployment, quiet=as_json)
    if as_json:
        print_json(done.plain())
    else:
        done.say()


@dataclass(frozen=True)
class Done:
    """What one pass did: its steps, what they gave, what was decided, and which data are stale."""

    steps: Steps
    built: Built
    passed: Passed
    alerts: list[str]

    def plain(self) -> dict[str, Any]:
        """As one object."""
        steps = [{"step": r.name, "cached": r.cached, "why": r.why, "seconds": r.seconds} for r in self.steps.reports.values()]
        decided = [{"at": show(d.at), "kind": d.kind, "subject": d.subject, "why": d.why} for d in self.passed.decisions]
        found = {"champion": self.passed.state.champion.label, "changed": self.passed.changed, "stale": self.alerts}
        return {"steps": steps, "decisions": decided, **found}

    def say(self) -> None:
        """For people."""
        if self.passed.changed and self.passed.changed != "there was no champion":
            out.print(f"changed  {escape(self.passed.changed)}")
        for decision in self.passed.decisions:
            out.print(f"{decision.kind:<12} [bold]{escape(decision.subject)}[/]  {escape(decision.why)}")
        if not self.passed.decisions:
            out.print("no reason to train: the champion stays")
        promoted = any(decision.kind == "promoted" for decision in self.passed.decisions)
        if self.passed.changed and not promoted:
            out.print("[yellow]not taken[/]    requests are still answered by the definitions before the change")
        for alert in self.alerts:
            out.print(f"[yellow]stale[/]        {escape(alert)}")
        name = self.passed.branch.removeprefix("live-")
        out.print(f"\n[bold]{self.passed.state.champion.label}[/] serves deployment {name}; `tidemill up` answers requests")


def one_pass(declared: project.Project, deployment: str = "", *, quiet: bool) -> Done:
    """One pass of the loop at this moment. Raises Refused when a first model does not pass its gates."""
    policy, clock = policy_of(declared, deployment), now()
    task = policy.monitor.deployment.model.task
    with declared.writing("run", wait=600) as ledger, Steps().shown(quiet=quiet) as steps:
        built = loop.build(loop.prepare(ledger), task, listen=steps)
        passed = loop.run_once(ledger, built, policy, clock, declared.timezone)
    alerts = [text for dataset in task.datasets for text in stale(dataset, built.dataset(dataset.name), clock)]
    return Done(steps, built, passed, alerts)


@click.command()
@click.argument("version")
@click.option("--who", default="", help="Your name; the user of this machine by default.")
@click.option("--why", "reason", default="", help="The reason, for the record.")
@click.pass_obj
def approve(obj: dict[str, Any], version: str, who: str, reason: str) -> None:
    """Agree that VERSION (for example boosted/3) may go live. The next `tidemill run` acts on it."""
    declared = project.load(obj["folder"])
    with declared.writing("approve", wait=60) as ledger:
        branches = ledger.branches("live")
        found = {label: branch.id for branch in branches for label in _waiting(branch)}
        if version not in found:
            hint = "`tidemill run` says which version needs it"
            raise UnknownName(f"{version} is not waiting for approval", available=sorted(found), hint=hint)
        name = who or getpass.getuser()
        with ledger.records.begin() as connection:
            why = reason or "approved"
            ledger.decide(connection, found[version], at=now(), who=name, kind="approved", subject=version, why=why, evidence={})
    out.print(f"{name} approved {version}; `tidemill run` goes on")


def _waiting(branch: Branch) -> list[str]:
    """The versions that may be approved: the candidate, and the next one, which goes live at once when the gates pass it."""
    model = str(branch.parts["model"]["name"])
    if not branch.state:
        return [f"{model}/1"]
    state = loop.State.of(branch.state)
    candidate = [state.candidate.version.label] if state.candidate else []
    return [*candidate, f"{model}/{state.numbers + 1}"]
