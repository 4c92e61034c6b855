"""`tidemill feedback add` and `export`: labels and comments by the id of an answer."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidemill.cli.console import out, print_json
from tidemill.cli.exported import write_rows
from tidemill.cli.push import json_rows
from tidemill.core import DataError, MissingFile, TidemillError
from tidemill.serving import Labelled
from tidemill.session import Session

LABELS = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def add(folder: str, deployment: str, file: Path, *, as_json: bool) -> None:
    """Take the rows of a file as feedback. Raises MissingFile, DataError and UnknownName, and then none is added."""
    try:
        found = Session(folder).feedback(deployment, _rows(file))
    except (DataError, LookupError) as error:
        if isinstance(error, TidemillError) and not error.where:
            error.where = f"{file}, whose first row is rows[0]"
        raise
    if as_json:
        print_json(found)
        return
    skipped = f", {found['skipped']:,} without a label or a comment skipped" if found["skipped"] else ""
    out.print(f"{found['added']:,} row{'' if found['added'] == 1 else 's'} of feedback on {deployment}{skipped}")


def export(folder: str, deployment: str, file: Path, *, as_json: bool) -> None:
    """Write what counts of each answer to a file."""
    rows = Session(folder).feedback_rows(deployment)
    write_rows(file, Labelled.__struct_fields__, rows)
    found = {"deployment": deployment, "rows": len(rows), "file": str(file)}
    if as_json:
        print_json(found)
    else:
        out.print(f"{len(rows):,} rows in {file}")


def _rows(file: Path) -> Sequence[dict[str, Any]]:
    """CSV with a line of names, or JSON: a list of objects, or one on each line."""
    if not file.is_file():
        raise MissingFile(f"there is no file {file}", hint="a CSV file with the columns id and label, or one JSON object on each line")
    if file.suffix.lower() != ".csv":
        with file.open("rb") as lines:
            return json_rows(lines, '{"id": "…", "label": 1, "comment": "…"}')
    with file.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened)
        if "id" not in (reader.fieldnames or ()):
            raise DataError(f"{file} has no column 'id'", available=list(reader.fieldnames or ()), hint="its first line has the names")
        return [row | {"label": LABELS.get((text := row.get("label") or "").strip().lower(), text)} for row in reader]
