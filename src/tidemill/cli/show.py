"""`tidemill status`, `lineage`, `why` and `doctor`: what is there, where it comes from, why, and whether it is sound."""

import os
import platform
import shutil
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tidemill import __version__, loop, registry
from tidemill.cli.console import Terminal, lines, out, print_json, tree_text
from tidemill.cli.plain import plain
from tidemill.core import Damaged, Event, Refused, StoreError, TidemillError, UnknownName, instant, show
from tidemill.features import SharedView, is_whole, open_online
from tidemill.ledger import Branch, Decision
from tidemill.models import form_of, why_isolated
from tidemill.session import Session, plain_tree
from tidemill.store import LOST, held
from tidemill.training import Model

NAMED = 50  # digests in a line of `tidemill doctor`


def status(folder: str, *, as_json: bool, whole: bool) -> None:
    """Print each deployment's standing; lines are cut at the width of the terminal, unless the `whole` is wanted."""
    found = Session(folder).status()
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{escape(found['project']['name'])}[/]  {escape(found['project']['objective'])}")
    for deployment in found["deployments"]:
        out.print()
        _deployment(deployment, str(found["project"]["timezone"]), whole=whole)


def _deployment(one: dict[str, Any], zone: str, *, whole: bool) -> None:
    refused, waiting = one.get("refused"), one.get("waiting", [])
    if "champion" not in one:
        made = "no version serves yet" if refused or waiting else f"no version yet; `tidemill run --deployment {one['name']}` makes one"
        out.print(f"deployment [bold]{one['name']}[/]: {made}")
    if refused:
        said = f"the gates refused the first live model, {refused['subject']}: {refused['why']}"
        out.print(lines(("[yellow]refused[/]  ", f"{_time(refused['at'], zone)}  {escape(said)}")))
    if "champion" not in one:
        _waits(waiting)
        return
    champion, branch, candidate = one["champion"], one["branch"], one["candidate"]
    since, now, until = (_time(text, zone) for text in (champion["since"], branch["now"], champion["until"]))
    out.print(f"deployment [bold]{one['name']}[/]: {champion['label']} serves since {since}")
    out.print(f"[dim]{branch['kind']} {branch['id']} as of {now}, trained until {until} ({zone})[/]")
    _waits(waiting)
    if candidate:
        out.print(f"candidate  {candidate['label']}: {candidate['phase']}, weight {candidate['weight']:.0%}")
    if one["weighted"]:
        out.print(f"shares     {', '.join(f'{label} {part:.4g}' for label, part in one['shares'].items())}")
    for label, form in one["isolated"].items():
        out.print(lines(("isolated  ", _said(f"{label}: {form}", whole=whole))))
    if one["held"]:
        out.print(lines(("[yellow]held[/]      ", escape(f"nothing goes live while features are not served as learnt: {one['held']}"))))
    out.print(_versions(one["versions"], zone, whole=whole))
    seen = [(name, [one[name]] if one[name] else []) for name in ("watched", "compared")]
    for title, events in (*seen, ("alerts", one["alerts"]), ("retrained", one["retrainings"])):
        for event in events[:3]:
            kind = f"{event['kind']}: " if title == "alerts" else ""
            line = f"{_time(event['at'], zone)[:10]}  {kind}{event['why']}"
            out.print(lines((f"{title:<10}", _said(line, whole=whole))))


def _said(text: str, *, whole: bool) -> Text:
    """A reason: one line that the terminal cuts, or whole, by words; a query in it has lines of its own."""
    return Text(" ".join(plain(text).split()), no_wrap=not whole, overflow="fold" if whole else "ellipsis")


def _waits(waiting: list[dict[str, Any]]) -> None:
    """What people are asked."""
    for one in waiting:
        out.print(lines(("[yellow]waiting[/]   ", escape(f"{one['version']} passed its gates and needs people: {one['said']}"))))


def _time(text: str, zone: str) -> str:
    """A time for people, to the minute, in the project's zone."""
    return show(instant(text), zone)[:16].replace("T", " ")


def _versions(versions: list[dict[str, Any]], zone: str, *, whole: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("version", "role", "gates", "made"):
        table.add_column(name, no_wrap=True, min_width={"version": 12, "made": 10}.get(name, 8))
    table.add_column("reason", overflow="fold")
    words = {True: "[green]passed[/]", False: "[yellow]refused[/]", None: "[dim]–[/]"}
    for one in versions:
        table.add_row(one["label"], one["role"], words[one["passed"]], _time(one["at"], zone)[:10], _said(one["reason"], whole=whole))
    return table


def lineage(folder: str, ref: str, *, forward: bool, as_json: bool) -> None:
    """Print the way back from a thing as a tree, or the way forward. Raises UnknownName."""
    found = plain_tree(Session(folder).lineage(ref, forward=forward))
    if as_json:
        print_json(found)
    else:
        (out if out.is_terminal else Terminal(width=1000)).print(tree_text(found))  # a pipe has no edge to fold lines at


def why(folder: str, what: str, *, as_json: bool) -> None:
    """Print what was decided about a version, or why each step of that name (of any, without one) ran the last time. Raises
    UnknownName."""
    session = Session(folder)
    found = _decisions(session, what) if what else []
    found = (found + _forms(session, what, found) if "/" in what else []) or [one for one in found if one["kind"] == Event.WEIGHTED] + (
        [] if what else _refused(session)
    ) + _runs(session, what)
    if not found:
        raise UnknownName(
            f"nothing is known about {what!r}", hint="name a version as `tidemill status` shows it, or a step such as departures"
        )
    if as_json:
        print_json(found)
        return
    several = len({one["branch"] for one in found if "branch" in one}) > 1
    for one in found:
        branch = f"[dim]{one['branch']}[/]  " if several else ""
        out.print(f"[dim]{one['at']}[/]  {branch}[bold]{one['kind']}[/] {escape(one['subject'])}: {escape(one['why'])}")


def _decisions(session: Session, label: str) -> list[dict[str, Any]]:
    """The decisions about a version or a deployment, with the kind of its branch: in a replay a label may be another model."""
    return [_told(branch, one) for branch in session.branches for one in session.ledger.decisions(branch.id) if one.subject == label]


def _forms(session: Session, label: str, decided: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why a version of which something was decided has no compiled form."""
    found = {}
    for branch in session.branches:
        for version in registry.versions(session.ledger, branch.id) if decided else ():
            artifact = session.ledger.artifact_of("model", version.digest)
            if version.label == label and why_isolated(artifact):
                told = {"branch": branch.kind, "kind": "isolated", "subject": label, "why": f"it answers as {form_of(artifact)}"}
                found[version.digest] = {"at": show(version.at), **told}
    return [*found.values()]


def _refused(session: Session) -> list[dict[str, Any]]:
    """Why a live branch has no champion yet."""
    first = [branch for branch in session.branches if not branch.state]
    return [_told(branch, one) for branch in first for one in session.ledger.decisions(branch.id)]


def _told(branch: Branch, one: Decision) -> dict[str, Any]:
    return {"at": show(one.at), "branch": branch.kind, "kind": one.kind, "subject": one.subject, "why": one.why}


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


def doctor(folder: str, *, as_json: bool) -> None:
    """Check all, and print what was found. Exits with 1 when something is wrong."""
    checks = [_environment(), *_project_checks(folder)]
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
    except TidemillError as error:
        return [("settings", False, str(error))]
    checks: list[tuple[str, bool, str]] = []
    for name, check in (
        ("declarations", _declarations),
        ("disk", _disk),
        ("ledger", _ledger),
        ("decisions", _chain),
        ("blobs", _blobs),
        ("answers", _answers),
        ("online store", _online),
        *([("other projects", _others)] if session.project.settings.shared else []),
        ("writer", _writer),
    ):
        try:
            checks.append((name, True, check(session)))
        except TidemillError as error:
            before = next((other for other, ok, text in checks if not ok and text == str(error)), "")
            checks.append((name, False, f"as {before}" if before else str(error)))
    return checks


def _declarations(session: Session) -> str:
    """How many there are, and what the digest of a model's code cannot see: a change of that would not be noticed."""
    unseen = [f"{model.name} uses {name}" for model in session.project.all(Model) for name in model.code.unseen]
    blind = f"; a change of these would not be noticed: {', '.join(unseen)}" if unseen else ""
    return f"{len(session.project.declarations)} in {session.project.folder}{blind}"


def _disk(session: Session) -> str:
    free, state = shutil.disk_usage(session.project.folder).free, session.project.state
    if not os.access(state if state.exists() else session.project.folder, os.W_OK):
        hint = "mount the disk for writing, or let this user write there: reading goes on, but nothing can be run or served"
        raise StoreError("nothing can be written here", where=str(state), hint=hint)
    if not free:
        hint = "free some space: reading goes on, but nothing can be run or served"
        raise StoreError("the disk is full", where=str(session.project.folder), hint=hint)
    return f"{free / 2**30:,.1f} GiB free" if free >= 2**30 else f"{free / 2**20:,.1f} MiB free"


def _ledger(session: Session) -> str:
    wrong = session.ledger.records.check()
    if wrong:
        raise Damaged(f"the ledger is damaged: {wrong[0]}", where=session.ledger.records.where, hint=LOST)
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
        what = [f"{len(damaged)} are damaged: {_some(damaged)}"] if damaged else []
        what += [f"{len(lost)} that the ledger names are missing: {_some(lost)}"] if lost else []
        hint = "restore them from a backup; without one, delete the damaged ones and run again: the same data and code give the same"
        raise Damaged("; ".join(what), where=str(session.project.settings.path("store.blobs")), hint=hint)
    return f"{len(there):,} read and compared"


def _some(digests: list[str]) -> str:
    """Digests in a line: whoever deletes them needs each."""
    return ", ".join(digests[:NAMED]) + (f" and {len(digests) - NAMED:,} more" if len(digests) > NAMED else "")


def _others(session: Session) -> str:
    """Whether the projects are reached whose views are used, and share them."""
    found = {name: {one["name"] for one in session.features.shared(name)} for name in session.project.settings.shared}
    used = {f"{one.project}/{one.theirs}" for one in session.project.all(SharedView)}
    gone = sorted(used.difference(*found.values()))
    if gone:
        hint = "ask their owner, or use them no longer: what was built of them stays, and may not be brought up to date"
        raise Refused(f"used here and shared no longer: {', '.join(gone)}", hint=hint)
    return ", ".join(f"{name} shares {len(names)} view{'' if len(names) == 1 else 's'}" for name, names in found.items())


def _answers(session: Session) -> str:
    """Whether the newest log of each deployment can be read whole; what the live loop has written down as lost is known."""
    newest = {(branch.kind, branch.name): branch for branch in reversed(session.ledger.branches())}
    lost = [one for branch in newest.values() for one in loop.lost_answers(session.ledger, branch)]
    if lost:
        what = f"{sum(one.rows for one in lost)} answers in {len(lost)} segments of {lost[0].branch} are lost or damaged"
        hint = (
            "restore them from a backup; without one, `tidemill replay` gives those of a replay again, and the live loop goes on "
            "without: `tidemill run` writes down which"
        )
        raise Damaged(what, where=str(session.project.settings.path("store.blobs")), hint=hint)
    return f"{len(newest)} log{'' if len(newest) == 1 else 's'} of answers can be read"


def _online(session: Session) -> str:
    """Whether the file of the store is what was written."""
    folder = session.project.settings.online
    if isinstance(folder, str):
        open_online(folder).read([("", ())])  # which asks the server
        return "answers"
    if not (folder / "data.mdb").exists():
        return "none yet: `tidemill up` makes it"
    return "read and compared" if is_whole(folder) else "its last write was cut short: `tidemill up` makes it anew"


def _writer(session: Session) -> str:
    who = session.project.writer()
    when = "held now" if held(session.project.state / "writer.lock") else "last held"
    return f"{when} by process {who['pid']} ({who['command']})" if who else "never held"
