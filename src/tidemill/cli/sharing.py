"""`tidemill features list --shared`: the views that other projects share; and what a page says of sharing."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from tidemill.cli.console import Terminal, out, print_json
from tidemill.session import Session

Plain = Mapping[str, Any]
NONE = "nothing is shared with this project: tidemill.toml names other projects in [shared], and these share views with shared=True"


def list_shared(folder: str, project: str, *, as_json: bool) -> None:
    """Print the views that other projects share, or one. Raises UnknownName and StoreError."""
    found = Session(folder).features.shared(project)
    if as_json:
        print_json({"shared": found})
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("view", "entity", "features", "known until", "owner", "used as", ""):
        table.add_column(name, justify="right" if name == "features" else "left", overflow="fold")
    for one in found:
        entity = f"{one['entity']['name']} ({', '.join(one['entity']['key'])})"
        used = ", ".join(one["used_as"]) or "–"
        known = (one["freshness"]["newest"] or "–")[:16].replace("T", " ")
        cells = (one["name"], entity, str(len(one["features"])), known, one["owner"], used, one["description"])
        table.add_row(*map(escape, cells))
    (out if out.is_terminal else Terminal(width=1000)).print(table if found else escape(NONE))  # a pipe has no edge
    unused = next((one for one in found if not one["used_as"]), None)
    if unused:
        out.print(escape(f'a file of yours takes one: {unused["view"]} = tm.shared("{unused["project"]}", "{unused["view"]}")'))


def told(found: Plain) -> list[tuple[str, str]]:
    """What a view's page says of sharing: with others, or whose it is."""
    taken, shared = found["taken_from"], found["shared"]
    if taken:
        newer = {None: "", True: "; there are newer rows, which the next run takes", False: "; its newest rows are here"}[taken["newer"]]
        owner = f", owner {taken['owner']}" if taken["owner"] else ""
        state = f"; {taken['why']}" if taken["why"] else newer
        return [("taken from", f"{taken['project']}/{taken['view']}{owner}{state}")]
    if not shared:
        return []
    if not shared["recorded"]:
        return [("shared", "other projects see it when it is built")]
    since = f"as it was recorded on {shared['recorded'][:16].replace('T', ' ')}"
    return [("shared", f"other projects may use it, {since}" if shared["declared"] else f"no longer; the next run withdraws it ({since})")]
