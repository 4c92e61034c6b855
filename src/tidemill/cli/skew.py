"""`tidemill features skew`: features that were served, beside the same features computed offline as known then."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from tidemill.cli.console import fitting, lines, out, print_json
from tidemill.cli.features import percent
from tidemill.session import Session

Plain = Mapping[str, Any]
COUNTS = ("rows", "equal", "mismatch", "missing", "extra", "known_later")


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
        out.print(fitting(lambda left_out: _table(features, found["over"], left_out), 2))
    for one in [one for one in features if one["name"] in found["over"]][:3]:
        out.print(lines(*_examples(one)))
    over, allowed = len(found["over"]), f"{found['max_share']:.2%} of the answers"
    said = f"[red]skew[/]  {over} of {len(features)} features surely differ in more than {allowed}"
    out.print(said if over else f"[green]ok[/]    no feature surely differs in more than {allowed}" if features else "nothing was compared")
    out.print(f"[dim]{escape(found['report'])}[/]")


def _table(features: list[Plain], over: list[str], left_out: int) -> Table:
    """All features where none is equal everywhere, else those that are not, and a line for the rest. A terminal that is too narrow lacks
    the mean error, then the counts of what is equal."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("feature", overflow="fold")
    counts = [name for name in COUNTS if left_out < 2 or name != "equal"]
    errors = ["greatest", "mean"] if left_out < 1 else ["greatest"]
    for name in (*counts, "differ", "95 %", *(f"{name} error" for name in errors)):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    shown = [one for one in features if one["equal"] < one["rows"]] or features
    for one in shown:
        share = one["share"]
        mark = "[red]" if one["name"] in over else ""
        sure = f"{percent(share['low'])} – {percent(share['high'])}"
        cells = [f"{one[name]:,}" for name in counts] + [percent(share["estimate"]), sure]
        table.add_row(f"{mark}{escape(one['name'])}", *cells, *("–" if one[name] is None else f"{one[name]:.3g}" for name in errors))
    if len(shown) < len(features):
        table.add_row(f"[dim]and {len(features) - len(shown)} that are equal in all[/]")
    return table


def _examples(one: Plain) -> list[tuple[str, str]]:
    """A few answers of which a feature differs."""
    told = []
    for example in one["examples"]:
        served, offline = ("null" if value is None else str(value) for value in (example["served"], example["offline"]))
        before, now = (f" ({status})" if status != "present" else "" for status in example["status"])
        answer = example["answer"]
        told.append(f"{answer['key']} at {answer['at']}: served {served}{before}, offline {offline}{now}")
    return [(one["name"] if place == 0 else "", escape(text)) for place, text in enumerate(told)]
