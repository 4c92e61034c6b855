"""`tidemill features skew`: features that were served, beside the same features computed offline as known then."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from tidemill.cli.console import fitting, lines, out, print_json
from tidemill.cli.features import percent
from tidemill.session import Session

Plain = Mapping[str, Any]


def skew(folder: str, deployment: str, since: str | None, rows: int | None, *, as_json: bool) -> None:
    """Print what was found. Exits with 1 where surely too many answers differ. Raises UnknownName and DataError."""
    found = Session(folder).skew(deployment, since=since, rows=rows)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["over"]:
        raise SystemExit(1)


def _print(found: Plain) -> None:
    features = found["features"]
    out.print(f"[bold]{escape(found['deployment'])}[/]  {escape(found['why'])}")
    if features:
        out.print(fitting(lambda left_out: _table(features, found["over"], left_out), len(LEFT_OUT)))
    for one in [one for one in features if one["name"] in found["over"]][:3]:
        out.print(lines(*_examples(one)))
    over, allowed = len(found["over"]), f"{found['max_share']:.2%} of the answers"
    said = f"[red]skew[/]  {over} of {len(features)} features surely differ in more than {allowed}"
    out.print(said if over else f"[green]ok[/]    no feature surely differs in more than {allowed}" if features else "nothing was compared")
    out.print(f"[dim]{escape(found['report'])}[/]")


def _table(features: list[Plain], over: list[str], left_out: int) -> Table:
    """The features that are not equal in all answers, and a line for the rest; all of them where none differs."""
    gone = [name for names in LEFT_OUT[:left_out] for name in names]
    shown = [one for one in features if one["equal"] < one["rows"]] or features
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("feature", no_wrap=left_out < len(LEFT_OUT), overflow="fold")
    for name in (name for name in CELLS if name not in gone):
        table.add_column(name, justify="right", no_wrap=True)
    for one in shown:
        name = escape(one["name"])
        cells = [cell(one) for column, cell in CELLS.items() if column not in gone]
        table.add_row(f"[red]{name}[/]" if one["name"] in over else name, *cells)
    if len(shown) < len(features):
        table.add_row(f"[dim]and {len(features) - len(shown)} that are equal in all[/]")
    return table


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


CELLS: dict[str, Callable[[Plain], str]] = {
    "rows": lambda one: f"{one['rows']:,}",
    "equal": lambda one: f"{one['equal']:,}",
    "mismatch": lambda one: f"{one['mismatch']:,}",
    "missing": lambda one: f"{one['missing']:,}",
    "extra": lambda one: f"{one['extra']:,}",
    "known later": lambda one: f"{one['known_later']:,}",
    "differ": lambda one: percent(one["share"]["estimate"]),
    "95 %": lambda one: f"{percent(one['share']['low'])} – {percent(one['share']['high'])}",
    "greatest error": lambda one: _error(one["greatest"]),
    "mean error": lambda one: _error(one["mean"]),
}
LEFT_OUT = (("mean error",), ("equal",), ("known later",), ("greatest error",), ("mismatch", "missing", "extra"))  # where it is narrow


def _examples(one: Plain) -> list[tuple[str, str]]:
    """A few answers of which a feature differs."""
    told = []
    for example in one["examples"]:
        served, offline = ("null" if value is None else str(value) for value in (example["served"], example["offline"]))
        before, now = (f" ({status})" if status != "present" else "" for status in example["status"])
        answer = example["answer"]
        told.append(f"{answer['key']} at {answer['at']}: served {served}{before}, offline {offline}{now}")
    return [(one["name"] if place == 0 else "", escape(text)) for place, text in enumerate(told)]
