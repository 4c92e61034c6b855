"""`tidemill status`, `lineage`, `why` and `doctor`: what is there, where it comes from, why, and whether it is sound."""

import platform
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from tidemill import __version__
from tidemill.cli.console import out, print_json, tree_text
from tidemill.core import Damaged, MissingExtra, TidemillError, UnknownName, show
from tidemill.session import Session, plain_tree
from tidemill.training import Model


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as one object.")
@click.pass_obj
def status(obj: dict[str, Any], as_json: bool) -> None:
    """Deployments, versions, alerts, the last retraining."""
    found = Session(obj["folder"]).status()
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{escape(found['project']['name'])}[/]  {escape(found['project']['objective'])}")
    out.print(f"[dim]{found['branch']['kind']} {found['branch']['id']}, as of {found['branch']['now']}[/]\n")
    for deployment in found["deployments"]:
        champion = deployment["champion"]
        out.print(
            f"deployment [bold]{deployment['name']}[/]: {champion['label']} since {champion['since']}, trained until {champion['until']}"
        )
        if deployment["candidate"]:
            candidate = deployment["candidate"]
            out.print(f"  candidate {candidate['label']}: {candidate['phase']}, weight {candidate['weight']:.0%}")
    out.print(_versions(found["versions"]))
    for title, events in (("alerts", found["alerts"]), ("retrained", found["retrainings"])):
        for event in events[:3]:
            out.print(f"{title:<10} {event['at'][:10]}  {event['kind']}: {escape(event['why'])}", no_wrap=True, overflow="ellipsis")


def _versions(versions: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("version", "role", "gates", "made"):
        table.add_column(name, no_wrap=True, min_width={"version": 12, "made": 10}.get(name, 8))
    table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=1)
    words = {True: "[green]passed[/]", False: "[yellow]refused[/]", None: "[dim]–[/]"}
    for one in versions:
        table.add_row(one["label"], one["role"], words[one["passed"]], one["at"][:10], escape(one["reason"]))
    return table


@click.command()
@click.argument("ref")
@click.option("--json", "as_json", is_flag=True, help="Print as one object.")
@click.pass_obj
def lineage(obj: dict[str, Any], ref: str, as_json: bool) -> None:
    """The way back from REF: prediction:KEY, a deployment, a version such as boosted/3, or kind:name@version."""
    found = plain_tree(Session(obj["folder"]).lineage(ref))
    if as_json:
        print_json(found)
    else:
        out.print(tree_text(found), soft_wrap=True)


@click.command()
@click.argument("what", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print as one object.")
@click.pass_obj
def why(obj: dict[str, Any], what: str, as_json: bool) -> None:
    """Why a version serves or was refused (WHAT: a version), or why each step ran the last time (no WHAT, or its name)."""
    session = Session(obj["folder"])
    found = _decisions(session, what) if "/" in what else []
    found = found or _runs(session, what)
    if not found:
        raise UnknownName(
            f"nothing is known about {what!r}", hint="name a version as `tidemill status` shows it, or a step such as departures"
        )
    if as_json:
        print_json(found)
        return
    for one in found:
        out.print(f"[dim]{one['at']}[/]  [bold]{one['kind']}[/] {escape(one['subject'])}: {escape(one['why'])}")


def _decisions(session: Session, label: str) -> list[dict[str, Any]]:
    found = [one for branch in session.histories for one in session.ledger.decisions(branch.id)]
    return [{"at": show(d.at), "kind": d.kind, "subject": d.subject, "why": d.why} for d in found if d.subject == label]


def _runs(session: Session, name: str) -> list[dict[str, Any]]:
    """The newest execution of each step, with what changed since the one before it."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for run in session.ledger.executions(name=name, limit=2000):
        if (run.kind, run.name) not in newest:
            text = session.ledger.changed(run)
            newest[run.kind, run.name] = {
                "at": show(run.started_at // 1_000_000 * 1_000_000),
                "kind": run.kind,
                "subject": run.name,
                "why": text,
            }
    return list(newest.values())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as one object.")
@click.pass_obj
def doctor(obj: dict[str, Any], as_json: bool) -> None:
    """Check the ledger, the blobs, the declarations and the environment. Exits with 1 when something is wrong."""
    checks = [_environment(), *_project_checks(obj["folder"])]
    if as_json:
        print_json([{"check": name, "ok": ok, "found": text} for name, ok, text in checks])
    else:
        for name, ok, text in checks:
            out.print(f"{'[green]ok[/]   ' if ok else '[red]wrong[/]'}  {name:<14} {escape(text)}")
    if not all(ok for _, ok, _ in checks):
        raise SystemExit(1)


def _environment() -> tuple[str, bool, str]:
    import duckdb
    import onnxruntime

    libraries = f"duckdb {duckdb.__version__}, onnxruntime {onnxruntime.__version__}"
    return "environment", True, f"tidemill {__version__}, Python {platform.python_version()}, {libraries}"


def _project_checks(folder: str) -> list[tuple[str, bool, str]]:
    try:
        session = Session(folder)
    except (TidemillError, MissingExtra) as error:
        return [("declarations", False, str(error))]
    checks = [("declarations", True, _declarations(session))]
    for name, check in (("ledger", _ledger), ("decisions", _chain), ("blobs", _blobs), ("writer", _writer)):
        try:
            checks.append((name, True, check(session)))
        except TidemillError as error:
            checks.append((name, False, str(error)))
    return checks


def _declarations(session: Session) -> str:
    """How many there are, and what the digest of a model's code cannot see: a change of that would not be noticed."""
    unseen = [f"{model.name} uses {name}" for model in session.project.all(Model) for name in model.code.unseen]
    blind = f"; a change of these would not be noticed: {', '.join(unseen)}" if unseen else ""
    return f"{len(session.project.declarations)} in {session.project.folder}{blind}"


def _ledger(session: Session) -> str:
    wrong = session.ledger.records.check()
    if wrong:
        raise UnknownName(f"the records are damaged: {wrong[0]}", hint="restore records.db from a backup, or move it away and run again")
    return f"sound, {len(session.ledger.executions(limit=100_000)):,} executions"


def _chain(session: Session) -> str:
    return f"chain of {session.ledger.verify_decisions():,} is whole"


def _blobs(session: Session) -> str:
    """Read every blob, and look for those that the ledger names: all damage at once."""
    blobs, damaged = session.ledger.blobs, []
    there = list(blobs.digests())
    for digest in there:
        try:
            blobs.verify(digest)
        except Damaged:
            damaged.append(digest[:12])
    lost = sorted(digest[:12] for digest in session.ledger.named_blobs() if not blobs.has(digest))
    if damaged or lost:
        what = [f"{len(damaged)} are damaged: {', '.join(damaged[:5])}"] if damaged else []
        what += [f"{len(lost)} that the ledger names are missing: {', '.join(lost[:5])}"] if lost else []
        hint = "restore them from a backup; without one, delete the damaged ones and run again: steps are computed anew, a model is not"
        raise Damaged("; ".join(what), where=str(session.project.settings.path("store.blobs")), hint=hint)
    return f"{len(there):,} read and compared"


def _writer(session: Session) -> str:
    held = session.project.writer()
    return f"last held by process {held['pid']} ({held['command']})" if held else "never held"
