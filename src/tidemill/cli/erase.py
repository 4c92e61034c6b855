"""`tidemill features erase`: what there is of one entity, as a plan first."""

from collections.abc import Sequence

from rich.markup import escape

from tidemill.cli.console import Terminal, out, print_json
from tidemill.session import Session


def erase(folder: str, entity: str, key: Sequence[str], *, why: str, yes: bool, as_json: bool) -> None:
    """Print what there is of an entity; with `yes`, erase it. Raises UnknownName and DataError."""
    found = Session(folder).erase_entity(entity, *key, why=why, dry_run=not yes)
    if as_json:
        print_json(found.plain())
        return
    (out if out.is_terminal else Terminal(width=1000)).print(escape(repr(found)))
    if found.found and not found.done:
        out.print("[dim]nothing was erased: the same with --yes does it[/]")
