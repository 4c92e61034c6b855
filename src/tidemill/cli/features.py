"""`tidemill features`: features for rows that a user brings."""

from pathlib import Path

from rich.markup import escape

from tidemill.cli.console import out, print_json
from tidemill.session import Session


def get(folder: str, rows: Path, views: str, to: Path, *, at: str, timezone: str, status: bool, as_known: bool, as_json: bool) -> None:
    """Write the rows of a file with their features. Raises UnknownName, DefinitionError and DataError."""
    asked = [view.strip() for view in views.split(",") if view.strip()]
    found = Session(folder).historical_features(rows, asked, at=at, timezone=timezone, status=status, as_known=as_known, to=to)
    if as_json:
        print_json({"file": str(to), **found.report.plain()})
        return
    out.print(escape(f"{to}: {found.report!r}"))
