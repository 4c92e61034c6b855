"""`tidemill score`: many rows answered into a file."""

from typing import Any

from rich.markup import escape

from tidemill.cli.console import out, print_json, row_bar
from tidemill.session import Session


def score(folder: str, deployment: str, *, rows: str, by: str | None, as_json: bool, **asked: Any) -> None:
    """Score rows into a file, with a bar on a terminal. Raises UnknownName and DataError."""
    handle = Session(folder).deployments[deployment]
    with row_bar(quiet=as_json) as listen:
        found = handle.score(rows, by=by or "", listen=listen, **asked)
    if as_json:
        print_json(found.plain())
        return
    out.print(escape(repr(found).removeprefix("Scored(").removesuffix(")")))
