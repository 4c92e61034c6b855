"""`tidemill gc`: what the retention rules delete, as a plan first."""

from collections import Counter

from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tidemill import loop, project, registry
from tidemill.cli.console import err, out, print_json
from tidemill.core import duration, show_duration
from tidemill.registry import Action, DeleteExperiment, DeleteModel, DeleteRun, Rule, Stays
from tidemill.tracking import drop_uploads

GRACE = duration("1d")  # bytes that came later may belong to what is being written


def gc(folder: str, *, yes: bool, as_json: bool) -> None:
    """Print what the rules delete; with `yes`, delete it."""
    found = project.find(folder)
    unreferenced = str(found.settings["retention.unreferenced"])
    rule = Rule(duration(str(found.settings["retention.deleted"])), duration(unreferenced) if unreferenced else None)
    now = project.now()
    if not yes:
        _tell(found, rule, now, as_json=as_json)
        return
    with found.writing("gc", wait=60) as ledger:
        loop.prepare(ledger)
        actions = registry.plan(ledger, rule, now)
        if not as_json:
            _print(actions, rule)
        with Progress(console=err, transient=True, disable=as_json) as bar:
            task = bar.add_task("deleting", total=len(actions) or None)
            actions = registry.apply(ledger, actions, lambda action: bar.advance(task))
            with ledger.records.transaction() as sql:
                drop_uploads(sql, (now - GRACE) // 1000)
            count, size = registry.sweep(ledger, now - GRACE)
    if as_json:
        print_json({"plan": [_plain(action) for action in actions], "blobs": count, "bytes": size, "done": True})
    else:
        out.print(f"deleted  {sum(not isinstance(one, Stays) for one in actions)} things, {count} blobs, {size / 1e6:,.1f} MB")
        out.print("[dim]blobs of the last day stay for now: they may belong to what is being written[/]")


def _tell(found: project.Project, rule: Rule, now: int, *, as_json: bool) -> None:
    """The plan; nobody is waited for."""
    ledger = found.ledger()
    try:
        loop.prepare(ledger)
        actions, loose = registry.plan(ledger, rule, now), len(registry.unspoken(ledger))
    finally:
        ledger.records.close()
    if as_json:
        print_json({"plan": [_plain(action) for action in actions], "loose_blobs": loose, "done": False})
        return
    _print(actions, rule)
    doomed = any(not isinstance(one, Stays) for one in actions)
    out.print(f"blobs    {loose} are named by nothing; they go when they are a day old: they may belong to what is being written")
    out.print("[dim]nothing was deleted: `tidemill gc --yes` does it[/]" if doomed or loose else "[dim]there is nothing to delete[/]")


def _words(action: Action) -> tuple[str, str, str]:
    match action:
        case DeleteRun(run, why):
            return "run", f"{run.name} ({run.id})", why
        case DeleteModel(model):
            return "logged model", model.id, "deleted"
        case DeleteExperiment(one):
            return "experiment", one.name, "deleted"
        case Stays(what, why):
            return "stays", what, why


def _plain(action: Action) -> dict[str, str]:
    kind, what, why = _words(action)
    return {"kind": kind, "what": what, "why": why}


def _print(actions: list[Action], rule: Rule) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "what", "why"):
        table.add_column(name, overflow="fold")
    for action in actions[:50]:
        kind, what, why = _words(action)
        table.add_row(kind, escape(what), escape(why))
    if actions:
        out.print(table)
    if len(actions) > 50:
        kinds = Counter(_words(action)[0] for action in actions[50:])
        out.print(f"… and {', '.join(f'{count} × {kind}' for kind, count in kinds.items())}")
    kept = f", runs to which nothing refers {show_duration(rule.unreferenced)}" if rule.unreferenced is not None else ""
    out.print(f"rules    deleted things stay {show_duration(rule.deleted)}{kept}")
