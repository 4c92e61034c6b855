"""`tidemill runs`: runs found, shown, set side by side, and what differs in the code and the environment of two."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from tidemill.cli.console import Terminal, fitting, out, print_json
from tidemill.core import show, show_duration
from tidemill.session import Session
from tidemill.tracking import Recorded, Runs, comparison_rows, find_run, save, shown

FILES = 20  # of a run that are shown
COLUMNS = 8  # of metrics and of parameters that a list shows


NAME, LONG = 28, 240  # characters of a name in a list, and of a value


def _table(*names: str, folds: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(escape(name), overflow="fold" if folds else "ellipsis", no_wrap=not folds)
    return table


def _cell(value: Any) -> str:
    text = str(shown(value))
    return escape(text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters; --json has all)")


def list_runs(folder: str, text: str, experiments: Sequence[str], order_by: Sequence[str], limit: int, *, as_json: bool) -> None:
    """Print the runs that a filter leaves. Raises DataError for a filter that is none."""
    runs = Session(folder).runs(text, experiments=experiments, order_by=order_by, limit=limit)
    if as_json:
        print_json({"runs": [_plain(run) for run in runs]})
        return
    if not runs:
        out.print("no run is there" if not text else "no run fits")
        return
    cells: dict[str, list[str]] = {"experiment": [escape(run.experiment) for run in runs]}
    cells |= {name: [shown(run.metrics.get(name)) for run in runs] for name in _names(runs, "metrics")}
    cells |= {name: [escape(shown(run.params.get(name))[:40]) for run in runs] for name in _names(runs, "params")}

    def table(left_out: int) -> Table:
        """Without the last columns, which most runs lack or which are of least interest."""
        names = list(cells)[: len(cells) - left_out]
        found = _table("run", "status", "started", "took", *names, folds=False)
        for i, run in enumerate(runs):
            took = "–" if run.ended is None else show_duration(max(run.ended - run.started, 0))
            about = (f"{run.id[:8]} [bold]{escape(run.name[:NAME])}[/]", _status(run), show(run.started)[:16].replace("T", " "), took)
            found.add_row(*about, *(cells[name][i] for name in names))
        return found

    if out.is_terminal:
        out.print(fitting(table, len(cells)))
    else:  # a pipe has no edge
        Terminal(width=1000).print(table(0))


def _names(runs: Runs, section: str) -> list[str]:
    """The names that most runs have, those of the machine left out."""
    found: dict[str, int] = {}
    for run in runs:
        for name in getattr(run, section):
            found[name] = found.get(name, 0) + 1
    names = sorted((name for name in found if not name.startswith("system/")), key=lambda name: (-found[name], name))
    return names[: COLUMNS if len(names) <= COLUMNS else COLUMNS // 2]


def _status(run: Recorded) -> str:
    colour = {"FINISHED": "green", "FAILED": "red", "KILLED": "yellow"}.get(run.status, "cyan")
    return f"[{colour}]{run.status.lower()}[/]"


def _plain(run: Recorded) -> dict[str, Any]:
    about = {name: getattr(run, name) for name in ("id", "name", "experiment", "status", "params", "metrics", "tags", "data")}
    return about | {"started": show(run.started), "ended": None if run.ended is None else show(run.ended)}


def show_run(folder: str, name: str, *, as_json: bool) -> None:
    """Print one run. Raises UnknownName."""
    run = find_run(Session(folder).ledger, name)
    if as_json:
        print_json(_plain(run) | {"environment": run.environment, "code": sorted(run.code), "files": run.files})
        return
    out.print(f"[bold]{escape(run.name[:LONG])}[/]  {_status(run)}  {escape(run.experiment)}")
    out.print(f"[dim]{run.id}  {show(run.started)}[/]")
    sections = {key: value for key, value in run.sections.items() if key not in ("run", "environment")}
    _print_rows(_table("", "", ""), comparison_rows([{**sections, "source": run.source, "files": _files(run)}], everything=True))
    if run.code:
        out.print(f"[dim]code[/]  {escape(', '.join(run.code))}")


def _files(run: Recorded) -> dict[str, str]:
    """The artifacts of a run, by their sizes: of many, the first."""
    found = {path: f"{size:,} bytes" for path, size in list(run.files.items())[:FILES]}
    return found | ({"…": f"and {len(run.files) - FILES} more"} if len(run.files) > FILES else {})


def _print_rows(table: Table, rows: Sequence[Any]) -> None:
    last = ""
    for row in rows:
        table.add_row("" if row.section == last else row.section, escape(row.name), *(_cell(value) for value in row.values))
        last = row.section
    out.print(table)


def compare(folder: str, names: Sequence[str], html: Path | None, *, as_json: bool) -> None:
    """Print what differs between runs; write a page with their curves where `html` says. Raises UnknownName, DataError and StoreError."""
    found = Runs([find_run(Session(folder).ledger, name) for name in names]).compare()
    if html is not None:
        save(found.html(), html)
    if as_json:
        print_json(found.plain() | ({"html": str(html)} if html else {}))
        return
    if found.rows:
        _print_rows(_table("", "", *found.names), found.rows)
    else:
        out.print("nothing differs")
    if html is not None:
        out.print(f"page     {escape(str(html))}")


def diff(folder: str, one: str, two: str, *, as_json: bool) -> None:
    """Print what differs in the code and the environment of two runs. Raises UnknownName."""
    found = Runs([find_run(Session(folder).ledger, name) for name in (one, two)]).compare()
    code, environment = found.code(), found.environment()
    if as_json:
        print_json({"code": code, "environment": environment})
        return
    out.print(Syntax(code, "diff", theme="ansi_dark", background_color="default", word_wrap=True) if code else "the code is the same")
    table = _table("library", *found.names)
    for change in environment:
        table.add_row(escape(change["name"]), *(escape(shown(change[side])) for side in ("one", "two")))
    out.print(table if environment else "the environment is the same")
