"""Rows written to a file for people and programs: CSV, Parquet, or one JSON object on each line, by its ending."""

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tidemill.core import DataError
from tidemill.data import engine, literal
from tidemill.store import store_error

ENDINGS = (".csv", ".parquet", ".jsonl", ".json")


def write_rows(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with these columns, all or nothing: what was there is replaced at the end. Raises DataError for another ending, and
    StoreError."""
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{file} has no ending that says what it is", available=list(ENDINGS))
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    plain = [{name: row.get(name) for name in columns} for row in rows]
    try:
        if ending == ".csv":
            _csv(aside, columns, plain)
        elif ending == ".parquet":
            _parquet(aside, columns, plain)
        else:
            aside.write_bytes(msgspec.json.Encoder().encode_lines(plain))
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise store_error(error, str(file)) from error


def _csv(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def _text(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, Mapping | list) else value


def _parquet(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Numbers as DOUBLE, the label as a small integer, all else as text."""
    kinds = {name: _kind([row[name] for row in rows]) for name in columns}
    with TemporaryDirectory() as folder, engine() as connection:
        lines = Path(folder) / "rows.jsonl"
        lines.write_bytes(msgspec.json.Encoder().encode_lines([{name: _text(value) for name, value in row.items()} for row in rows]))
        told = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in kinds.items())
        query = f"SELECT * FROM read_json({literal(str(lines))}, format = 'newline_delimited', columns = {{{told}}})"
        connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet)")


def _kind(values: Sequence[Any]) -> str:
    found = {type(value) for value in values} - {type(None)}
    return "BIGINT" if found == {int} else "DOUBLE" if found and found <= {int, float} else "VARCHAR"
