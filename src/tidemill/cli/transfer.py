"""`tidemill import` and `export`: what MLflow keeps comes over with its ids; a registered version goes out as MLflow's model directory."""

from contextlib import nullcontext
from pathlib import Path

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tidemill import loop, project, registry, tracking
from tidemill.cli.console import out, print_json
from tidemill.tracking import Imported

SHOWN = 20  # problems on the screen; --json has them all


def import_mlflow(folder: str, source: str, artifacts: Path | None, *, dry: bool, as_json: bool) -> None:
    """Take over what a source holds, and say what is new, what was there and what could not be read. A project is made where there is none.
    Exits with 1 where something could not be taken."""
    opened = tracking.open_source(source, artifacts)
    done = Imported(opened.where, dry)
    live = Live(console=out, refresh_per_second=4, transient=True, get_renderable=lambda: _table(done))
    with project.ensure(Path(folder)).writing("import", wait=60) as ledger, nullcontext() if as_json else live:
        loop.prepare(ledger)
        tracking.import_tracking(ledger, opened, done)
        registry.import_registry(ledger, opened, done)
    done.problems = opened.problems + done.problems
    if as_json:
        told = {"source": done.source, "dry_run": dry, "new": done.new, "known": done.known, "experiments": done.mapped}
        print_json(told | {"problems": done.problems})
    else:
        _say(done)
    if done.problems:
        raise SystemExit(1)


def _table(done: Imported) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("new", "there"):
        table.add_column(name, justify="right")
    for kind in dict.fromkeys([*done.new, *done.known]):
        table.add_row(kind, f"{done.new.get(kind, 0):,}", f"{done.known.get(kind, 0):,}")
    return table


def _say(done: Imported) -> None:
    out.print(_table(done) if done.new or done.known else "nothing is there")
    for theirs, ours in done.mapped.items():
        out.print(f"experiment {escape(theirs)} is experiment {ours} here")
    for problem in done.problems[:SHOWN]:
        out.print(f"[yellow]not taken[/]  {escape(problem)}", soft_wrap=True)
    if len(done.problems) > SHOWN:
        out.print(f"and {len(done.problems) - SHOWN} more: --json tells all")
    out.print(
        "[dim]nothing was written: a dry run[/]" if done.dry else f"[dim]from {escape(done.source)}; run again, it adds what is new[/]"
    )


def export(folder: str, text: str, into: Path, *, as_json: bool) -> None:
    """Write a registered version into a folder. Raises UnknownName and Refused."""
    found = project.find(folder)
    ledger = found.ledger()
    try:
        loop.prepare(ledger)
        version = registry.named_version(ledger, text)
        names = registry.export(ledger, version.name, version.version, into)
    finally:
        ledger.records.close()
    if as_json:
        print_json({"version": f"{version.name}/{version.version}", "into": str(into), "files": names})
    else:
        out.print(f"{version.name}/{version.version} → {escape(str(into))}: {len(names)} files")
