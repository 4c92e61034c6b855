"""`tidemill init`: from a CSV file to a project with a trained, gated model, in one command."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.markup import escape

from tidemill import loop, project
from tidemill.cli import guess
from tidemill.cli.console import out, print_error, print_json
from tidemill.cli.plain import plain
from tidemill.cli.plan import Answers, Plan, facts_of, plan
from tidemill.cli.start import Done, Passes
from tidemill.cli.table import Table, label_sql, opened, refuse_bad_key, time_sql, uses
from tidemill.core import DataError, DefinitionError, Refused, StoreError, TidemillError, show
from tidemill.features import parts_of
from tidemill.session import now, policy_of


@dataclass(frozen=True)
class Given:
    """What the command line said; None where it said nothing."""

    label: str | None
    time: str | None
    known: str | None
    keys: tuple[str, ...]
    timezone: str
    null: tuple[str, ...]
    yes: bool


def init(folder: Path, data: Path, given: Given, *, as_json: bool) -> None:
    """Write a project for a CSV file, make the first pass of its loop, and say what to do next."""
    _refuse_zone(given.timezone)
    clock = now()
    with opened(data, given.null) as table:
        _refuse_folder(folder)
        answers = _answers(table, given, clock)
        planned = plan(table, answers, folder, clock)
    written = _write(folder, project.files(planned.scaffold))
    if not as_json:
        _say_written(folder, written, answers, planned)
    try:
        done = _first_pass(folder, written, quiet=as_json)
    except KeyboardInterrupt:
        there = shlex.quote(os.path.relpath(folder))
        click.echo(f"\nstopped; the project is written and what was done is kept: cd {there}; tidemill run", err=True)
        raise SystemExit(130) from None
    told = _next(folder, planned, done)
    if as_json:
        chosen = {"label": answers.label, "time": answers.time, "label_known": answers.known, "key": list(answers.keys)}
        where = {"folder": str(folder), "files": [str(path) for path in written], "answers": chosen, "notes": planned.notes}
        print_json(where | done.plain() | told)
    else:
        done.say()
        _say_next(told)


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────


def _answers(table: Table, given: Given, clock: int) -> Answers:
    """What was given, else what a person says, else the guess. Raises DefinitionError where nobody can be asked."""
    ask = _Asker(table, given.yes)
    label = given.label or ask(
        "--label",
        "Which column is to be predicted (two values), or an SQL expression",
        guess.guess_label(table),
        lambda text: label_sql(table, text),
    )
    label_of = label_sql(table, label)
    time = given.time or ask(
        "--time",
        "Which column is the time of the request: when a prediction would be asked",
        guess.guess_time(table),
        lambda text: time_sql(table, table.need(text, "the time"), given.timezone),
    )
    asked = table.need(time, "the time")
    time_sql(table, asked, given.timezone)
    known = given.known or _ask_known(table, given, ask, (label, label_of), asked.name, clock)
    keys = tuple(key for key in given.keys if key) if given.keys else _ask_key(table, ask, {asked.name} | uses(table, label_of))
    names = tuple(table.need(key, "the key").name for key in keys)
    ask.finish()
    assumed = any(option == "--label-known" and not table.get(known) for option, _ in ask.open)
    return Answers(label, asked.name, known, names, given.timezone, ask.keeps, assumed)


def _ask_known(table: Table, given: Given, ask: "_Asker", label: tuple[str, str], time: str, clock: int) -> str:
    found, why = guess.guess_known(table, table.need(time, "the time"), label[1], given.timezone)
    question = f"When is the label known? A column with that time, or how much later, such as 7d ({why})"
    return ask("--label-known", question, found, lambda text: facts_of(table, Answers(label[0], time, text, (), given.timezone), clock))


def _ask_key(table: Table, ask: "_Asker", excluded: set[str]) -> tuple[str, ...]:
    found = guess.guess_key(table, excluded)
    none = "none"

    def check(text: str) -> None:
        if text != none:
            refuse_bad_key(table, (table.need(text, "the key").name,))

    said = ask("--key", "Which column names a row (none: rows are numbered)", found or none, check)
    return () if said == none else (said,)


class _Asker:
    """Asks a person at a terminal; takes the guess with --yes; notes what is open where nobody is there."""

    def __init__(self, table: Table, yes: bool) -> None:
        self.table, self.yes, self.open = table, yes, list[tuple[str, str]]()

    def __call__(self, option: str, question: str, guessed: str, check: Callable[[str], Any]) -> str:
        if self.yes or not sys.stdin.isatty():
            if not guessed:
                names = [f"{column.name} ({column.type}, {column.distinct:,} values)" for column in self.table.columns]
                what = f"no column looks like the answer to {option}"
                raise DataError(what, where=str(self.table.path), available=names, hint=_hint(option))
            self.open.append((option, guessed))
            return guessed
        while True:
            said = str(click.prompt(plain(question), default=guessed or None, err=True)).strip()
            try:
                check(said)
            except TidemillError as error:
                print_error(error, "no", "yellow")
            else:
                return said

    def finish(self) -> None:
        """Refuse to take guesses that nobody agreed to."""
        if self.open and not self.yes:
            guesses = " ".join(f"{option} {shlex.quote(guessed if guessed != 'none' else '')}" for option, guessed in self.open)
            what = f"not told: {', '.join(option for option, _ in self.open)}; and there is no terminal to ask at"
            raise DefinitionError(what, hint=f"say it, or take the guesses with --yes. They are: {guesses}")

    def keeps(self, leaks: dict[str, float]) -> bool:
        """Whether columns that tell the label alone are used all the same."""
        if self.yes or not sys.stdin.isatty():
            return False
        told = ", ".join(f"{name} (ROC AUC {auc:.3f})" for name, auc in leaks.items())
        return bool(
            click.confirm(f"Alone these tell the label: {plain(told)}. Are they known when a prediction is asked?", default=False, err=True)
        )


def _hint(option: str) -> str:
    if option == "--label":
        return "name a column with two values, or make one of many with an SQL expression: --label 'amount > 100'"
    return "write times as 2024-01-31 12:00:00; without a time nothing tells what was known when"


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_zone(timezone: str) -> None:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise DefinitionError(
            f"{timezone!r} is not a time zone", hint="write a name of the IANA database, for example Europe/Berlin"
        ) from None


def _refuse_folder(folder: Path) -> None:
    """Raises DefinitionError where a project would mix with what is there: every Python file of a project's folder is part of it."""
    if folder.exists() and not folder.is_dir():
        raise DefinitionError(f"{str(folder)!r} is a file", hint="choose a folder: --into FOLDER")
    there = [name for name in (project.FILE, "requests.sql", "labels.sql", ".tidemill", ".gitignore") if (folder / name).exists()]
    there += sorted(path.name for path in folder.glob("*.py"))
    if there:
        hint = "nothing is overwritten: choose another folder with --into FOLDER, or edit what is there and `tidemill run`"
        raise DefinitionError(f"there is a project, or a part of one, in {str(folder)!r}", available=there, hint=hint)


def _write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write new files, all or none; raises StoreError."""
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise StoreError(
            f"the project cannot be written: {error.strerror}", where=str(folder), hint="choose another folder: --into"
        ) from error
    return written


def _first_pass(folder: Path, written: list[Path], *, quiet: bool) -> Done:
    try:
        declared = project.load(folder)
        with declared.writing("init", wait=600) as ledger:
            return Passes(declared, loop.prepare(ledger), now(), quiet).one(policy_of(declared))
    except Refused as error:
        file = next(path for path in written if path.suffix == ".py")
        hint = (
            f"the files stay in {folder}. The label may not follow from these columns: add what is known at the time to requests.sql "
            f"and {file.name}, bring more rows, or change the gates; then `tidemill run` there"
        )
        raise Refused(error.what, where=error.where, hint=hint) from error


# ── what to do next ─────────────────────────────────────────────────────────────────────────────────────────────


def _next(folder: Path, planned: Plan, done: Done) -> dict[str, str]:
    """Lines to copy."""
    from tidemill.web import curl_line

    declared, requests = project.load(folder), done.built.examples.requests
    names = done.built.task.request.keys
    key = dict(zip(names, parts_of(requests.keys[-1].decode(), len(names)), strict=True))
    at = show(int(requests.at[-1])) if declared.settings["serve.client_time"] else ""
    url = f"http://{declared.settings['serve.host']}:{declared.settings['serve.port']}"
    line, text = project.window_line(planned.scaffold)
    return {
        "up": f"cd {shlex.quote(os.path.relpath(folder))}; tidemill up",
        "curl": curl_line(url, planned.scaffold.task, key, at),
        "edit": f"{folder / planned.scaffold.module}.py:{line}",
        "edit_line": text,
    }


def _say_written(folder: Path, written: list[Path], answers: Answers, planned: Plan) -> None:
    out.print(f"[bold]{escape(str(folder))}[/]  {escape(', '.join(path.name for path in written))}")
    key = ", ".join(answers.keys) or "row number"
    out.print(
        f"label    {escape(answers.label)}\ntime     {escape(answers.time)}\nknown    {escape(answers.known)}\nkey      {escape(key)}"
    )
    for note in planned.notes:
        out.print(f"[yellow]note[/]     {escape(note)}")
    out.print()


def _say_next(told: dict[str, str]) -> None:
    out.print("\nnext")
    out.print(f"  serve it           {escape(told['up'])}", soft_wrap=True)
    out.print(f"  ask it             {escape(told['curl'])}", soft_wrap=True)
    out.print(f"  change one line    {escape(told['edit_line'])} in {escape(told['edit'])}, then `tidemill run`", soft_wrap=True)
