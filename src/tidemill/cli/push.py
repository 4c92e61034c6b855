"""`tidemill features push`: rows into a dataset, known from now on."""

from typing import Any, BinaryIO

import msgspec

from tidemill.cli.console import out, print_json
from tidemill.core import DataError
from tidemill.data import MOST_PUSHED
from tidemill.session import Session

EXAMPLE = '{"origin": "JFK", "sched_dep": "2013-07-01T12:00:00Z"}'


def push(folder: str, dataset: str, file: BinaryIO, source: str, offset: int | None, *, as_json: bool) -> None:
    """Push the rows of a file, as many at once as can be. Raises DataError; what was pushed before stays."""
    rows, session = json_rows(file, EXAMPLE), Session(folder)
    found = {"dataset": dataset, "rows": 0, "skipped": 0, "known": None}
    for start in range(0, len(rows), MOST_PUSHED):
        part = rows[start : start + MOST_PUSHED]
        numbers = [] if offset is None else range(offset + start, offset + start + len(part))
        try:
            told = session.push(dataset, part, source=source, offsets=list(numbers))
        except DataError as error:
            before = f" ({start:,} rows before these are pushed)" if start else ""
            raise DataError(f"{error.what}{before}", where=error.where, hint=error.hint) from None
        found |= {name: told[name] if name == "known" else found[name] + told[name] for name in ("rows", "skipped", "known")}
    session.close()
    if as_json:
        print_json(found)
        return
    skipped = f", {found['skipped']:,} were there before" if found["skipped"] else ""
    out.print(f"{found['rows']:,} row{'' if found['rows'] == 1 else 's'} pushed to {dataset}{skipped}")


def json_rows(file: BinaryIO, example: str) -> list[dict[str, Any]]:
    """JSON: a list of objects, or one on each line. Raises DataError, with an example of one."""
    data = file.read().strip()
    try:
        if data.startswith(b"["):
            return msgspec.json.decode(data, type=list[dict[str, Any]])
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = f"send a list of objects, or one on each line: {example}"
        raise DataError(f"{getattr(file, 'name', 'the input')} holds no rows: {error}", hint=hint) from None
