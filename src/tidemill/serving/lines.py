"""What a line of a log is as a row of its table, and what a row is as a line: nothing is lost on the way there and back.

Features are a map each for numbers and texts, so a table takes any deployment's, and new ones, without another column; what a line has that
no column is for is kept too, as JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tidemill import data
from tidemill.core import instant, show

Row = dict[str, Any]
TEXT = JSON = "VARCHAR"
TIME, NUMBER, WHOLE = "TIMESTAMP WITH TIME ZONE", "DOUBLE", "BIGINT"
TEXTS, NUMBERS, LISTS = "MAP(VARCHAR, VARCHAR)", "MAP(VARCHAR, DOUBLE)", "MAP(VARCHAR, VARCHAR[])"


class AnswerLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the log of answers."""

    branch: str
    asked: int
    key: str
    at_us: int
    probability: float
    version: str
    rung: str
    id: str = ""
    at: str = ""
    route: str | None = None
    request: str | None = None
    trace: str | None = None
    latency_us: int | None = None
    features_from: str | None = None
    note_features: str | None = None
    given_at: str | None = None
    features_missing: dict[str, str] | None = None
    unexpected: dict[str, str] | None = None
    inputs: dict[str, float | str | None] | None = None
    versions: dict[str, str] | None = None
    sent: dict[str, Any] | None = None
    withheld: dict[str, list[str]] | None = None


class Labelled(msgspec.Struct, frozen=True):
    """A line of the log of feedback: what was said, when, and of which answer. Times are texts in UTC."""

    id: str
    key: str
    predicted_at: str
    version: str
    rung: str
    probability: float
    label: int | None
    comment: str
    labelled_at: str
    branch: str


class _LabelledLine(Labelled, frozen=True, forbid_unknown_fields=True):
    """The same, and nothing else."""


@dataclass(frozen=True)
class Form:
    """What a log and its table have in common. `name` is that of the table, `by` the time whose day a row belongs to; `columns` with
    their types; `fields`: of which columns a field of a line is made."""

    name: str
    what: str
    by: str
    line: type[msgspec.Struct]
    columns: Mapping[str, str]
    fields: Mapping[str, tuple[str, ...]]
    row: Callable[[Any, bytes], Row]
    back: Callable[[Row], Row]

    def row_of(self, line: bytes) -> Row:
        """The row of a line. Raises msgspec.DecodeError and UnicodeDecodeError for what is none."""
        try:
            return self.row(msgspec.json.decode(line, type=self.line), line)
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise
            found: Row = msgspec.json.decode(line)
            more = {name: found.pop(name) for name in [*found] if name not in self.line.__struct_fields__}
            return self.row(msgspec.convert(found, self.line), line) | {"more": _json(more)}

    def columns_of(self, kind: type) -> list[str]:
        """The columns that such a value needs; all for a dict."""
        names = getattr(kind, "__struct_fields__", None)
        if names is None:
            return [*self.columns]
        return list(dict.fromkeys(column for name in names for column in self.fields.get(name, (name,)) if column in self.columns))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _answer_row(one: AnswerLine, line: bytes) -> Row:
    same = ("branch", "asked", "key", "probability", "version", "rung", "route", "request", "trace", "latency_us")
    row = {name: getattr(one, name) for name in (*same, "features_from", "versions")}
    row |= {"id": one.id or f"{one.asked:013x}-{blake2b(line, digest_size=6).hexdigest()}", "at": one.at_us}
    row |= {"note": one.note_features, "missing": one.features_missing, "unexpected": one.unexpected, "withheld": one.withheld}
    row |= {"given_at": instant(one.given_at) if one.given_at else None, "sent": None if one.sent is None else _json(one.sent)}
    if one.inputs is not None:
        row["features"] = {name: value for name, value in one.inputs.items() if not isinstance(value, str)}
        row["categories"] = {name: value for name, value in one.inputs.items() if isinstance(value, str)}
    return row


def _answer_line(row: Row) -> Row:
    line = {name: value for name, value in row.items() if value is not None}
    if "at" in line:
        line |= {"at_us": line["at"], "at": show(line["at"])}
    if "given_at" in line:
        line["given_at"] = show(line["given_at"])
    for name, column in (("note_features", "note"), ("features_missing", "missing")):
        if column in line:
            line[name] = line.pop(column)
    if "features" in line or "categories" in line:
        line["inputs"] = dict(sorted((line.pop("features", {}) | line.pop("categories", {})).items()))
    if "sent" in line:
        line["sent"] = msgspec.json.decode(line["sent"])
    more: Row = msgspec.json.decode(line.pop("more", "{}"))
    return line | more


def _said_row(one: Labelled, line: bytes) -> Row:
    return msgspec.structs.asdict(one) | {name: instant(getattr(one, name)) for name in ("predicted_at", "labelled_at")}


def _said_line(row: Row) -> Row:
    times = {name: show(row[name]) for name in ("predicted_at", "labelled_at") if name in row}
    more: Row = msgspec.json.decode(row.pop("more", None) or "{}")
    return row | times | more


ANSWERS = Form(
    "predictions",
    "the table of answers",
    "asked",
    AnswerLine,
    {"id": TEXT, "asked": TIME, "at": TIME, "key": TEXT, "probability": NUMBER, "version": TEXT, "rung": TEXT, "branch": TEXT}
    | {"route": TEXT, "request": TEXT, "trace": TEXT, "latency_us": WHOLE, "features_from": TEXT, "note": TEXT, "given_at": TIME}
    | {"features": NUMBERS, "categories": TEXTS, "versions": TEXTS, "missing": TEXTS, "unexpected": TEXTS}
    | {"withheld": LISTS, "sent": JSON, "more": JSON},
    {"at_us": ("at",), "inputs": ("features", "categories"), "features_missing": ("missing",), "note_features": ("note",)},
    _answer_row,
    _answer_line,
)
FEEDBACK = Form(
    "feedback",
    "the table of feedback",
    "labelled_at",
    _LabelledLine,
    {"id": TEXT, "key": TEXT, "predicted_at": TIME, "version": TEXT, "rung": TEXT, "probability": NUMBER, "label": WHOLE}
    | {"comment": TEXT, "labelled_at": TIME, "branch": TEXT, "more": JSON},
    {},
    _said_row,
    _said_line,
)


def write_rows(form: Form, file: BinaryIO, begin: int, most: int, to: Path) -> tuple[int, int, list[bytes]]:
    """Write lines as rows, up to a place; returns the place behind the last line, how many they were, and those that are damaged."""
    place, lines, odd = begin, 0, list[bytes]()
    with to.open("wb") as rows:
        while place < most and (line := file.readline()):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it was cut")
                rows.write(msgspec.json.encode(form.row_of(line) | {data.PLACE: place}) + b"\n")
                lines += 1
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                if line != b"\n":  # of who sealed it
                    odd.append(line)
            place += len(line)
    return place, lines, odd


def rows_sql(form: Form, rows: Path, *more: str) -> str:
    """SQL for rows that were written to a file, and more columns."""
    types = {data.quote(name): kind for name, kind in {**form.columns, data.PLACE: WHOLE}.items()}
    read = ", ".join(f"{name}: {data.literal(WHOLE if kind == TIME else kind)}" for name, kind in types.items())
    told = [f"make_timestamp({name})::{TIME} AS {name}" if kind == TIME else name for name, kind in types.items()]
    size = max(rows.stat().st_size, 1 << 20)
    source = f"read_json({data.named(rows)}, format = 'newline_delimited', maximum_object_size = {size}, columns = {{{read}}})"
    return f"SELECT {', '.join([*told, *more])} FROM {source}"
