"""What the commands share: the console, a live table of steps, figures and trees as text."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.style import Style
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tidemill.cli.plain import plain
from tidemill.core import TidemillError
from tidemill.pipelines import Report


class Terminal(Console):
    """A console to which no text of a user, nor of their data, can say more than words: control characters are left out, and `:truck:` is
    no picture."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)


out = Terminal()


def print_error(error: TidemillError, word: str = "error", colour: str = "red") -> None:
    """An error for people, on standard error."""
    click.echo(click.style(f"{word}: ", fg=colour, bold=word == "error") + plain(str(error)), err=True)


err = Console(stderr=True, highlight=False, emoji=False)


def link(text: str, url: str) -> Text:
    """A text that leads somewhere. Not as markup: `[::1]`, or a folder of such a name, would be taken for a tag."""
    return Text(plain(text), style=Style(link=plain(url)))


def print_json(value: Any) -> None:
    """One object on standard output, also while all else that is printed goes to standard error."""
    stdout = sys.__stdout__ if sys.stdout is sys.stderr else None
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), file=stdout)


def figure(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def fitting(table: Callable[[int], Table], most: int) -> Table:
    """A table with as many columns as the terminal is wide for: `table(n)` is that without the `n` that are missed least."""
    for left_out in range(most):
        found = table(left_out)
        text = "".join(segment.text for segment in out.render(found))
        if "…" not in text and max(map(len, text.splitlines())) <= out.width:  # nothing was cut, nothing will be
            return found
    return table(most)


def lines(*told: tuple[str, str | Text]) -> Table:
    """A word and what is to be said of it, line by line; long ones go on under their beginning."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    for word, text in told:
        table.add_row(word, text)
    return table


@contextmanager
def row_bar(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """What shows how many rows are done, on a terminal and while it lasts."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, rows: bar.update(task, completed=done, total=rows)


def progress(*, quiet: bool) -> Progress:
    """Bars with counts, on a terminal and while they last."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal)


class Steps:
    """A table of steps that grows in place: what ran, what was cached, and why."""

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self.live: Live | None = None

    def __call__(self, report: Report) -> None:
        self.reports[report.name] = report
        if self.live is not None:
            self.live.update(self.table())

    def table(self) -> Table:
        """The steps so far."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("step", "", "s", "why"):
            table.add_column(name, justify="right" if name == "s" else "left", overflow="fold" if name == "why" else "ellipsis")
        for report in self.reports.values():
            state = "[cyan]running[/]" if not report.done else "[dim]cached[/]" if report.cached else "[green]ran[/]"
            why = "" if report.cached else escape(report.why)
            table.add_row(escape(report.name), state, f"{report.seconds:.1f}" if report.done else "", why)
        return table

    @contextmanager
    def shown(self, *, quiet: bool) -> Iterator["Steps"]:
        """Show the table while the block runs; only a count is left where all was cached."""
        if quiet:
            yield self
            return
        with Live(self.table(), console=out, refresh_per_second=8, transient=True) as self.live:
            yield self
        self.live = None
        done = list(self.reports.values())
        if all(report.cached for report in done):
            out.print(f"[dim]{len(done)} steps, all cached[/]")
        else:
            out.print(self.table())


def tree_text(node: dict[str, Any]) -> Tree:
    """A lineage as a tree for the terminal."""
    top = Tree(_line(node))
    _grow(top, node)
    return top


def _line(node: dict[str, Any]) -> str:
    role = f"[dim]{escape(node['role'])}[/] " if node["role"] else ""
    return f"{role}[bold]{escape(node['ref'])}[/]" + (f"  [dim]{escape(node['detail'])}[/]" if node["detail"] else "")


def _grow(tree: Tree, node: dict[str, Any]) -> None:
    for parent in node["parents"]:
        _grow(tree.add(_line(parent)), parent)


def ending(processes: int) -> str:
    """How to end a server of so many processes."""
    return "Ctrl-C ends it" if processes == 1 else f"{processes} processes answer; Ctrl-C ends them"
