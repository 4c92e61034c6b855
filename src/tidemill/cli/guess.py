"""What `tidemill init` guesses of a table: label, times, key, and what each other column is good for.

Every guess is shown and can be overruled.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.cli.table import FEW, Column, Table, time_sql, uses
from tidemill.core import DAY, HOUR, MINUTE, DataError, DefinitionError, duration, roc_auc, show_duration
from tidemill.data import fetch, quote

LABELS = r"^(label|target|y|class|outcome|result)$|churn|fraud|default|late|cancel|convert|click|bought|purchas|return|won|^is_|^has_"
ASKED = r"(^|_|\b)(time|timestamp|date|datetime|at|when|requested|created|event|ordered|opened|start|snapshot|as_?of|zeit|datum|ts$)"
KNOWN = r"known|resolv|closed|label|outcome|due|ended|end$|finish|deliver|paid|updated"
KEYS = r"(^|[_ ])(id|key|uuid|guid|number|nr|no|code|ref)$|id$"
LEAK = 0.99
CATEGORIES, GROUPS = 100, 2


def guess_label(table: Table) -> str:
    """The column that is most likely the label, or nothing."""
    two = [column for column in table.columns if column.distinct == 2 and not column.is_time]
    named = [column for column in two if re.search(LABELS, column.name.strip(), re.IGNORECASE)]
    return (named or two[-1:] or [Column("", "", 0, 0)])[0].name


def guess_time(table: Table) -> str:
    """The column that is most likely the time of the request, or nothing: of the fullest, one named so, else the earliest."""
    times = [column for column in table.columns if column.is_time] or [column for column in table.columns if _counts_seconds(table, column)]
    if not times:
        return ""
    fullest = min(column.nulls for column in times)
    full = [column for column in times if column.nulls <= fullest + table.rows // 100 and not re.search(KNOWN, column.name, re.IGNORECASE)]
    full = full or times
    named = [column for column in full if re.search(ASKED, column.name, re.IGNORECASE)]
    return (named or full)[0].name


def _counts_seconds(table: Table, column: Column) -> bool:
    """Whether a column of numbers is named like a time and holds seconds (or thousandths, …) since 1970."""
    try:
        return bool(column.is_whole and re.search(ASKED, column.name, re.IGNORECASE) and time_sql(table, column, "UTC"))
    except DataError:
        return False


def guess_known(table: Table, asked: Column, label: str, timezone: str) -> tuple[str, str]:
    """The column that holds when the label was known, or a duration; and why."""
    start = time_sql(table, asked, timezone)
    found: dict[str, int] = {}
    for column in table.columns:
        if column.is_time and column != asked and column.name not in uses(table, label):
            known = time_sql(table, column, timezone)
            kinds = f"count(DISTINCT CASE WHEN {known} IS NOT NULL THEN {label} END)"
            row = table.one(f"SELECT count(*), count({known}), count_if({known} > {start}), {kinds} FROM data WHERE {label} IS NOT NULL")
            if row[1] >= 0.95 * row[0] and row[2] >= 0.99 * row[1] and row[3] == 2:
                found[column.name] = table.one(f"SELECT count({known}) FROM data WHERE {label} IS NULL")[0]
    if found:  # a date that was agreed on is there before the label is
        name = min(found, key=lambda one: found[one])
        return name, f"{name} is after {asked.name} and there wherever the label is"
    low, high = table.one(f"SELECT epoch_us(min({start})), epoch_us(max({start})) FROM data")
    delay = min(DAY, max(((high or 0) - (low or 0)) // 20 // MINUTE, 1) * MINUTE)
    delay = delay // HOUR * HOUR or delay
    return show_duration(delay), f"no column says it: {show_duration(delay)} is an assumption"


def _is_named_key(column: Column) -> bool:
    return bool(re.search(KEYS, column.name.strip(), re.IGNORECASE))


def _is_text(table: Table, column: Column) -> bool:
    """Whether a column holds texts, and not numbers or times but for a few values: those measure something, they name nothing."""
    return column.type == "VARCHAR" and column.name not in table.odd


def guess_key(table: Table, excluded: set[str]) -> str:
    """A column that is different in every row, or nothing."""
    every = [c for c in table.columns if c.distinct == table.rows and not c.nulls and not c.is_time]
    named = [column for column in every if _is_named_key(column) and (column.is_whole or not column.is_number)]
    others = [column for column in every if _is_text(table, column) or (column.is_whole and column is table.columns[0])]
    return next((column.name for column in [*named, *others] if column.name not in excluded), "")


def guess_pair(table: Table, asked: str, excluded: set[str]) -> tuple[str, ...]:
    """A column that is different in every row together with the time of the request, and that time; or nothing."""
    for column in table.columns:
        full = column.name not in {*excluded, asked} and not column.nulls and (column.is_whole or _is_text(table, column))
        if full and table.one(f"SELECT count(DISTINCT row({quote(column.name)}, {quote(asked)})) FROM data") == (table.rows,):
            return column.name, asked
    return ()


def known_sql(table: Table, text: str, asked: str, timezone: str) -> tuple[str, str]:
    """SQL for when a label is known, and the column's name (empty for a duration). Raises DefinitionError and DataError."""
    column = table.get(text)
    if column:
        return time_sql(table, column, timezone), column.name
    try:
        delay = duration(text)
    except DefinitionError as error:
        times = [c.name for c in table.columns if c.is_time]
        raise DefinitionError(
            f"{text!r} is neither a column nor a duration", where=str(table.path), available=times, hint=error.hint
        ) from None
    if delay <= 0:
        raise DefinitionError("a label cannot be known when it is asked for", hint="say how much later, for example 1h or 7d")
    number, unit = re.fullmatch(r"(\d+)(\D+)", show_duration(delay)).groups()  # type: ignore[union-attr]
    words = {"d": "DAY", "h": "HOUR", "min": "MINUTE", "s": "SECOND", "ms": "MILLISECOND", "us": "MICROSECOND"}
    return f"{asked} + INTERVAL {number} {words[unit]}", ""


# ── columns ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Chosen:
    """Columns that a request knows, by use, and those left out with the reason. `leaks`: those that look like the label;
    `history`: those whose values come again and again."""

    used: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, float] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)


def choose_columns(table: Table, asked: str, label: str, taken: dict[str, str], timezone: str) -> Chosen:
    """What each column that is not `taken` (name → as what) is used as."""
    found = Chosen()
    for column in table.columns:
        if column.name in taken:
            if taken[column.name]:
                found.left_out[column.name] = taken[column.name]
            continue
        use, why = _use(table, column, asked, timezone)
        leak = _leak(table, column, label)
        if leak > LEAK:
            found.leaks[column.name] = leak
        if use:
            found.used[column.name] = use
        else:
            found.left_out[column.name] = why
    return found


def _use(table: Table, column: Column, asked: str, timezone: str) -> tuple[str, str]:
    if column.distinct == 0 or (column.distinct == 1 and not column.nulls):
        return "", "it is always the same"
    if column.is_time:
        later = table.one(f"SELECT count(*) FROM data WHERE {time_sql(table, column, timezone)} > {asked}")[0]
        return ("", f"in {later:,} rows it is after the request") if later else ("since", "")
    if column.is_whole and column.distinct == table.rows:
        return "", "it is different in every row"
    if column.is_number or column.type == "BOOLEAN":
        return "number", ""
    if column.type != "VARCHAR":
        return "", f"a {column.type} is neither a number nor a category"
    return ("category", "") if column.distinct <= CATEGORIES else ("", f"{column.distinct:,} different texts are too many for a category")


def _leak(table: Table, column: Column, label: str) -> float:
    """How well a column alone tells the label: the area under the ROC curve of its values, or of whether it is there."""
    name = quote(column.name)
    value = "0" if column.type != "VARCHAR" or column.distinct > CATEGORIES else f"avg(CAST({label} AS DOUBLE)) OVER (PARTITION BY {name})"
    value = f"CAST({name} AS DOUBLE)" if column.is_number or column.type == "BOOLEAN" else value
    query = f"SELECT {value} AS v, CAST({name} IS NULL AS DOUBLE) AS n, CAST({label} AS DOUBLE) AS y FROM data WHERE {label} IS NOT NULL"
    raw: Any = fetch(table.connection, query, {"v": "number", "n": "number", "y": "number"})
    there = ~np.isnan(raw["v"])
    found = [roc_auc(raw["y"], raw["n"])]
    if there.sum() >= max(FEW, 0.05 * len(there)):
        found.append(roc_auc(raw["y"][there], raw["v"][there]))
    return max((max(auc, 1 - auc) for auc in found if auc == auc), default=0.5)


def groups(table: Table, excluded: set[str]) -> list[str]:
    """Columns whose values come again and again: those that have a history. At most two, the finest first."""
    found = []
    for column in table.columns:
        named = _is_named_key(column) and (column.is_whole or column.type == "VARCHAR")
        repeats = 2 <= column.distinct <= (table.rows - column.nulls) / 3
        if column.name not in excluded and repeats and (named or _is_text(table, column)):
            found.append(column)
    return [column.name for column in sorted(found, key=lambda c: -c.distinct)[:GROUPS]]
