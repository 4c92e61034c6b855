"""From a table and the answers about it to the plan of a project, with figures that fit the number of rows."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import ceil, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.cli.guess import Chosen, choose_columns, groups, guess_pair, known_sql
from tidemill.cli.table import FEW, Table, label_sql, refuse_bad_key, time_sql, uses
from tidemill.core import (
    DAY,
    HOUR,
    MINUTE,
    DataError,
    DefinitionError,
    Floats,
    Instants,
    MissingExtra,
    duration,
    instant,
    moment,
    show,
    show_duration,
)
from tidemill.data import OddValue, fetch
from tidemill.project import Item, Names, Scaffold, Sizes

MANY = 100  # values of a group that is kept on one version: with few, one of them is a large share of the requests
NULLS_SAID = 12  # odd values that a note names; a column with more is rather one to correct
LADDER = ("1h", "6h", "1d", "7d", "30d")
EVERYONE = Item("everyone", "'all'", "everyone")


@dataclass(frozen=True)
class Answers:
    """What a person said, or the guesses that stand: columns by name, a label as a column or SQL, a duration or a column for `known`,
    which is `assumed` where nobody said it."""

    label: str
    time: str
    known: str
    keys: tuple[str, ...]
    timezone: str
    keep_leaks: Callable[[dict[str, float]], bool] = lambda leaks: False
    assumed: bool = False


@dataclass(frozen=True)
class Plan:
    """A scaffold, and what a person should know about it. `newest` is the time of the newest request."""

    scaffold: Scaffold
    notes: list[str]
    newest: int


def plan(table: Table, answers: Answers, folder: Path, now: int) -> Plan:
    """The plan of a project in a folder. Raises DataError and DefinitionError when the answers and the data do not go together."""
    facts = facts_of(table, answers, now)
    chosen = _chosen(table, answers, facts)
    dates, why = replay_dates(facts.rows, facts.sizes, answers.timezone)
    scaffold = replace(
        _scaffold(table, answers, facts, chosen, folder),
        client_time=int(facts.rows.asked.max()) < now - DAY,
        replay=dates,
        no_replay=why,
    )
    newest, notes = int(facts.rows.asked.max()), facts.notes + _notes(table, answers, facts.every, chosen.left_out)
    if scaffold.client_time:
        told = "requests may state their own time (serve.client_time = true in tidemill.toml; take it out where clients are not to)"
        notes.append(f"the newest row is of {show(newest)[:10]}: {told}")
    return Plan(scaffold, notes, newest)


@dataclass(frozen=True)
class Facts:
    """The answers as SQL over the table, its rows, and figures that fit them. `known_column` is empty for a duration."""

    label: str
    asked: str
    known: str
    known_column: str
    every: "Rows"
    rows: "Rows"
    sizes: Sizes
    notes: list[str]


def facts_of(table: Table, answers: Answers, now: int) -> Facts:
    """The answers, checked against the rows."""
    label, asked = label_sql(table, answers.label), time_sql(table, table.need(answers.time, "the time"), answers.timezone)
    known, known_column = known_sql(table, answers.known, asked, answers.timezone)
    if answers.keys:
        refuse_bad_key(table, answers.keys)
    every = rows_of(table, asked, known, label)
    rows = check_rows(every, now, answers.label, answers.known)
    figures, notes = sizes(rows)
    return Facts(label, asked, known, known_column, every, rows, figures, notes)


def _chosen(table: Table, answers: Answers, facts: Facts) -> Chosen:
    """What each column is used as; those that look like the label are left out unless a person keeps them."""
    taken: dict[str, str] = dict.fromkeys(uses(table, facts.label), "it is the label")
    if facts.known_column:
        taken[facts.known_column] = "it is known only with the label"
    alone = answers.keys if len(answers.keys) == 1 else ()  # a part of a key may well have a history
    taken |= dict.fromkeys([table.need(answers.time, "the time").name, *alone], "")
    found = choose_columns(table, facts.asked, facts.label, taken, answers.timezone)
    leaks = {} if not found.leaks or answers.keep_leaks(found.leaks) else found.leaks
    why = {name: f"alone it tells the label (ROC AUC {auc:.3f}): is it known when asked?" for name, auc in leaks.items()}
    used = {name: use for name, use in found.used.items() if name not in leaks}
    history = groups(table, set(taken) | set(leaks))
    used = {name: use for name, use in used.items() if use == "category" or name not in history} | dict.fromkeys(
        (name for name in history if used.get(name) != "category"), "group"
    )
    odd = {
        name: f"it is text: {one.told(table.path)}; {_remedy(one)}"
        for name, one in table.odd.items()
        if name in found.left_out and not taken.get(name)
    }
    left_out = {name: reason for name, reason in (found.left_out | odd | why).items() if name not in history}
    if not used:
        raise DataError("no column is left to learn from", where=str(table.path), available=[f"{n}: {r}" for n, r in left_out.items()])
    return Chosen(used, left_out, leaks, history)


# ── the parts of a plan ─────────────────────────────────────────────────────────────────────────────────────────


def _notes(table: Table, answers: Answers, every: "Rows", left_out: dict[str, str]) -> list[str]:
    """What was assumed and what was left out, in sentences."""
    found = []
    naive = [
        name for name in (answers.time, answers.known) if (c := table.get(name)) and c.is_time and c.type != "TIMESTAMP WITH TIME ZONE"
    ]
    if naive:
        other = "" if answers.timezone != "UTC" else "; if they are not, say --timezone Europe/Berlin"
        found.append(f"times of {', '.join(naive)} have no zone and are taken as {answers.timezone}{other}")
    if answers.assumed:
        found.append(f"known {answers.known} after the request is an assumption: no column says it; say what is true with --label-known")
    if not answers.keys:
        pair = guess_pair(table, table.need(answers.time, "the time").name, set(left_out))
        known = f"; together these are one: {' '.join(f'--key {shlex.quote(name)}' for name in pair)}" if pair else " (name one with --key)"
        found.append(f"no column is a key: rows are numbered, oldest first{known}")
        found.append("an older row that the file gains later moves the numbers after it: earlier answers are then taken for other rows")
    found += [f"{one.column} holds {one.kinds}, such as {one.example}, and is read so" for one in table.commas]
    kept = [name for name in table.odd if name not in left_out]
    found += [f"{name} is read as text: {table.odd[name].told(table.path)}; {_remedy(table.odd[name])}" for name in kept]
    without = table.rows - len(every.asked)
    if without:
        found.append(f"{without:,} rows without a time are left out")
    early = int(np.sum(~np.isnan(every.label) & (every.known >= 0) & (every.known <= every.asked)))
    if early:
        found.append(f"{early:,} labels known at or before their request are left out")
    if table.null_values:
        found.append(f"read as null: {', '.join(one if one.strip() else repr(one) for one in table.null_values)}")
    return found + [f"left out: {name}: {why}" for name, why in left_out.items() if why != "it is the label"]


def _remedy(odd: OddValue) -> str:
    """What to do about texts among numbers or times."""
    said = [f"--null {shlex.quote(value)}" for value in odd.values if value.isprintable() and len(value) < 40][:NULLS_SAID]
    them, stand = ("them", "they stand") if odd.count > 1 else ("it", "it stands")
    more = len(odd.values) - len(said)
    rest = f", and so for {more:,} more" if more else ""
    return f"correct {them}" + (f"; where {stand} for nothing, say {' '.join(said)}{rest}" if said else "")


@dataclass(frozen=True)
class _Columns:
    """The columns of the file under their names in the project."""

    table: Table
    timezone: str
    names: dict[str, str]
    instants: dict[str, str]

    def item(self, name: str, use: str = "") -> Item:
        """A column as the project selects it; keys of groups are text."""
        alias, column = self.names[name], self.table.need(name, "the column")
        sql = self.instants.get(name) or self.table.sql(name)
        if use == "since":
            sql = time_sql(self.table, column, self.timezone)
        elif use == "group" and column.type != "VARCHAR":
            sql = f"CAST({sql} AS VARCHAR)"
        return Item(alias, sql, use)


def _scaffold(table: Table, answers: Answers, facts: Facts, chosen: Chosen, folder: Path) -> Scaffold:
    """The scaffold, without the dates of a replay."""
    names = Names(table.reserved | {"everyone"})
    own = names.give(table.path.name.split(".")[0])
    label_column, asked = table.get(answers.label), table.need(answers.time, "the time").name
    own_names = {column.name: names.give(column.name) for column in table.columns}
    columns = _Columns(
        table, answers.timezone, own_names, {asked: facts.asked} | ({facts.known_column: facts.known} if facts.known_column else {})
    )
    label = columns.names[label_column.name] if label_column else names.give("label")
    known = columns.names[facts.known_column] if facts.known_column else names.give("known_at")
    few = [c.name for c in table.columns if chosen.used.get(c.name) == "category" and c.distinct <= 20]
    return Scaffold(
        name=folder.resolve().name,
        task=next((name for name in (label if label_column else own, own) if name.isascii()), "answer"),
        module=_module(own),
        source=_source(table.path, folder),
        table=own,
        null_values=table.null_values,
        timezone=answers.timezone,
        keys=[columns.item(name) for name in answers.keys] or [Item(key := names.give("row_id"), key)],
        asked=Item(columns.names[asked], facts.asked),
        known=Item(known, facts.known),
        label=Item(label, facts.label),
        none_after=_none_after(facts, answers.known),
        entities=[columns.item(name, "group") for name in chosen.history] or [EVERYONE],
        columns=[columns.item(name, use) for name, use in chosen.used.items() if use != "group"],
        left_out=list(chosen.left_out.items()),
        slices=[columns.names[name] for name in few[:2]],
        converted=[Item(table.sql(one.column), one.sql) for one in table.commas],
        hour=bool(np.any(facts.rows.asked % HOUR)) or len(np.unique(facts.rows.asked % DAY)) > 2,
        boosted=_learner(),
        sizes=facts.sizes,
        client_time=False,
        replay=None,
        sticky_by=next((columns.names[name] for name in chosen.history if table.need(name, "the group").distinct >= MANY), ""),
        row_order=[] if answers.keys else _order(table, asked, uses(table, facts.label) | {facts.known_column}),
    )


def _order(table: Table, asked: str, late: set[str]) -> list[str]:
    """An order of rows that does not change when newer ones are added: by time, then by all else, what is known late at the end."""
    rest = [column.name for column in table.columns if column.name != asked]
    return [table.sql(name) for name in [asked, *sorted(rest, key=lambda name: name in late)]]


def _module(own: str) -> str:
    """The name of the Python file: not one that would hide a library from the project's imports."""
    return f"{own}_project" if own in sys.stdlib_module_names or find_spec(own) else own


def _learner() -> bool:
    """Whether LightGBM is there; raises MissingExtra when nothing is."""
    if find_spec("sklearn") and find_spec("lightgbm"):
        return True
    if find_spec("sklearn") and find_spec("skops"):
        return False
    raise MissingExtra("no library to train with is installed", hint="pip install 'tidemill[lightgbm]'")


def _source(path: Path, folder: Path) -> str:
    """The file from the project's folder; raises DefinitionError for a path that a source cannot name."""
    found = os.path.relpath(path.resolve(), folder.resolve())
    if ":" in found:
        raise DefinitionError(f"a source cannot name {found!r}: the colon stands for a package", hint="rename the file or its folder")
    return found


# ── rows and sizes ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rows:
    """When each request was asked and its label known (−1: never), and the label (NaN: none)."""

    asked: Instants
    known: Instants
    label: Floats

    def learnt(self, until: int) -> Floats:
        """Labels of requests asked before a time and known by then."""
        return self.label[(self.asked < until) & (self.known >= 0) & (self.known <= until) & ~np.isnan(self.label)]

    @property
    def labelled(self) -> Any:
        return ~np.isnan(self.label) & (self.known > self.asked)


def rows_of(table: Table, asked: str, known: str, label: str) -> Rows:
    """The rows with a time."""
    query = f"SELECT epoch_us({asked}) AS a, coalesce(epoch_us({known}), -1) AS k, CAST({label} AS DOUBLE) AS y FROM data"
    raw = fetch(table.connection, f"{query} WHERE {asked} IS NOT NULL", {"a": "instant", "k": "instant", "y": "number"})
    return Rows(raw["a"], raw["k"], raw["y"])  # type: ignore[arg-type]


def check_rows(rows: Rows, now: int, label: str, known: str) -> Rows:
    """The rows that can be learnt from by now; raises DataError when those are too few."""
    there = ~np.isnan(rows.label)
    never, early = int(np.sum(there & (rows.known < 0))), int(np.sum(there & (rows.known >= 0) & (rows.known <= rows.asked)))
    if early > 0.05 * there.sum():
        hint = "name another column, or a duration after the event, for example --label-known 7d"
        raise DataError(f"{early:,} labels are known at or before the time of their request", where=known, hint=hint)
    usable = rows.labelled & (rows.known <= now)
    kinds = [int(np.sum(usable & (rows.label == value))) for value in (1, 0)]
    if min(kinds) < FEW // 5 or sum(kinds) < FEW:
        why = f"{int(np.sum(rows.known > now)):,} are known only after now, {never:,} have no time when they were known"
        told = f"{kinds[0]:,} true and {kinds[1]:,} false labels can be used ({why})"
        hint = "is it filled only for one kind of label? Then give a duration, for example --label-known 30d"
        raise DataError(f"too few labels of {label!r}: {told}", where=known, hint=hint)
    return Rows(rows.asked[usable], rows.known[usable], rows.label[usable])


def sizes(rows: Rows) -> tuple[Sizes, list[str]]:
    """Figures that fit the number of rows, and what a person should know about them. Raises DataError when nothing can be held out."""
    holdout = _holdout(rows)
    start = int(rows.known.max()) - holdout
    judged = rows.asked >= start
    n, share = int(judged.sum()), float(rows.label.mean())
    bins = _clamp(n // 50, 5, 20)
    noise = sqrt(bins * share * (1 - share) * 2 / (pi * n))
    span = int(rows.asked.max() - rows.asked.min())
    windows = [w for w in LADDER if duration(w) * 4 <= span][-3:] or ["1h"]
    few = min(share, 1 - share) * len(rows.label) < 1000  # of the rarer kind: with few, a large model learns them by heart
    found = Sizes(
        holdout=show_duration(holdout),
        bins=bins,
        max_ece=ceil((min(0.03, min(share, 1 - share) / 4) + 1.5 * noise) * 1000) / 1000,
        min_rows=_clamp(n // 10, 50, 500),
        min_labels=_clamp(n // 5, 50, 500),
        min_new_labels=_clamp(n // 2, 50, 5000),
        every="7d" if span >= 60 * DAY else "1d",
        windows=windows,
        base_rate=share,
        rounds=60 if few else 150,
        leaves=4 if few else 15,
        min_child=_clamp(len(rows.label) // 100, 10, 100),
    )
    days = len(np.unique(rows.asked[judged] // DAY))
    short = f"the newest {found.holdout}, on which models are judged, span {days} days: how much days differ is hardly known"
    return found, [short] if days < 7 else []


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _holdout(rows: Rows) -> int:
    """The time that the newest quarter of the labels spans, less where the time until a label is known would leave too little to learn."""
    newest = int(rows.known.max())
    for share in (0.25, 0.2, 0.15, 0.1):
        width = newest - int(np.quantile(rows.asked, 1 - share))
        unit = DAY if width > 4 * DAY else HOUR if width > 4 * HOUR else MINUTE
        width = -(-width // unit) * unit
        learnt = rows.learnt(newest - width)
        if len(learnt) >= FEW // 2 and 0 < learnt.sum() < len(learnt):
            return width
    first, last = show(int(rows.asked.min())), show(int(rows.asked.max()))
    late = show_duration(int(np.median(rows.known - rows.asked)) // MINUTE * MINUTE)
    raise DataError(
        f"the labelled requests span {first} to {last}, it is known {late} later: what is known early is too little to learn from",
        hint="bring rows of a longer time, or give a shorter --label-known if that is true",
    )


def replay_dates(rows: Rows, found: Sizes, timezone: str) -> tuple[tuple[str, str] | None, str]:
    """(train_until, end) of a replay, or why there is none. It begins halfway, or later where that is too little for a first model."""
    first, last = int(rows.asked.min()), int(rows.asked.max())
    end = moment(int(rows.known.max()) + DAY, timezone).date().isoformat()
    days = [moment(first + (last - first) * tenths // 10, timezone).date().isoformat() for tenths in (5, 6, 7)]
    rarer = {day: _rarer(rows, instant(day, timezone), duration(found.holdout)) for day in days}
    if last - first < 28 * DAY or max(rarer.values()) < FEW // 5:
        return None, "the data span too little time to replay a part of it; set both dates when there is more"
    return (next((day for day in days if rarer[day] >= 3 * FEW), max(days, key=lambda day: rarer[day])), end), ""


def _rarer(rows: Rows, at: int, holdout: int) -> int:
    """How many labels of the rarer kind a model could learn from at a time, with its holdout kept out."""
    known = rows.known[(rows.known <= at) & (rows.asked < at)]
    learnt = rows.learnt(int(known.max()) - holdout) if len(known) else np.empty(0)
    return int(min(learnt.sum(), len(learnt) - learnt.sum()))


def _none_after(facts: Facts, text: str) -> str:
    """How long after the request a label that is still missing counts as none; nothing when no label is missing."""
    if facts.every.labelled.all():
        return ""
    if not facts.known_column:
        return show_duration(duration(text))
    longest = int((facts.rows.known - facts.rows.asked).max())
    unit = DAY if longest > DAY else HOUR
    return show_duration(-(-longest // unit) * unit)
