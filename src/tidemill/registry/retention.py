"""Deletion that deletes: runs, logged models, experiments and files that nothing refers to, by rule; first a plan, then its steps.

`decide` is pure: what is there and the rule in, actions out. Each action is one transaction, so what was interrupted goes on with the next
call. At the end the blobs of which no row of the records speaks any more are deleted, whatever wrote them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import Text, inspect, text

from tidemill.core import digest_bytes
from tidemill.ledger import Ledger
from tidemill.store import Driver
from tidemill.tracking import FROZEN, place_of

KEEP, PARENT = "tidemill.keep", "mlflow.parentRunId"
CHANGED = "it changed after the plan was made"
_DIGEST = len(digest_bytes(b""))
_OF_RUN = ("param", "tag", "metric", "metric_latest", "run_input", "run_model")
_OF_MODEL = ("logged_model_param", "logged_model_tag", "logged_model_metric")


@dataclass(frozen=True)
class Rule:
    """How long things stay, in microseconds: what was deleted, and (None: for ever) runs that ended and to which nothing refers."""

    deleted: int
    unreferenced: int | None = None


@dataclass(frozen=True)
class RunFact:
    """A run: whether and when it was deleted, when it ended, whose child it is, and what refers to it ("" for nothing)."""

    id: str
    name: str
    experiment: str
    location: str
    deleted_at: int | None
    ended_at: int | None
    parent: str = ""
    referred: str = ""


@dataclass(frozen=True)
class OtherFact:
    """A logged model or an experiment that was deleted, and what refers to it or lies in it ("" for nothing)."""

    id: str
    name: str
    location: str
    deleted_at: int
    referred: str = ""
    run: str = ""


@dataclass(frozen=True)
class DeleteRun:
    """Take a run away, with all that it logged and the logged models that it made."""

    run: RunFact
    why: str


@dataclass(frozen=True)
class DeleteModel:
    """Take a logged model away."""

    model: OtherFact


@dataclass(frozen=True)
class DeleteExperiment:
    """Take an empty experiment away, with its traces."""

    experiment: OtherFact


@dataclass(frozen=True)
class Stays:
    """What the rule would delete, and why it stays."""

    what: str
    why: str


Action = DeleteRun | DeleteModel | DeleteExperiment | Stays


def decide(runs: Sequence[RunFact], models: Sequence[OtherFact], experiments: Sequence[OtherFact], rule: Rule, now: int) -> list[Action]:
    """What the rule does at `now` (microseconds UTC): children before their parents, so that no child loses its parent before it goes."""
    due = {run.id: why for run in runs if (why := _due(run, rule, now))}
    children: dict[str, list[str]] = {}
    for run in runs:
        children.setdefault(run.parent, []).append(run.id)
    stays = {run.id: f"{run.referred} refers to it" for run in runs if run.id in due and run.referred}
    changed = True
    while changed:  # a parent stays while one of its children does
        changed = False
        for run in runs:
            left = [child for child in children.get(run.id, ()) if child not in due or child in stays]
            if run.id in due and run.id not in stays and left:
                stays[run.id], changed = f"its child {left[0]} stays", True
    gone = [run for run in runs if run.id in due and run.id not in stays]
    parents = {run.id: run.parent for run in runs}
    found: list[Action] = [DeleteRun(run, due[run.id]) for run in sorted(gone, key=lambda run: -_depth(run.id, parents))]
    found += [Stays(f"run {run.name} ({run.id})", stays[run.id]) for run in runs if run.id in stays]
    taken = {run.id for run in gone}
    for model in models:
        if model.deleted_at <= now - rule.deleted and model.run not in taken:
            found.append(Stays(f"logged model {model.id}", f"{model.referred} refers to it") if model.referred else DeleteModel(model))
    for one in experiments:
        inside = [run for run in runs if run.experiment == one.id and run.id not in taken]
        if one.deleted_at <= now - rule.deleted:
            why = f"{len(inside)} runs stay" if inside else one.referred and f"{one.referred} refers to it"
            found.append(Stays(f"experiment {one.name}", why) if why else DeleteExperiment(one))
    return found


def _depth(run: str, parents: Mapping[str, str]) -> int:
    """How many runs stand above one; whoever tags runs in a circle is as deep as the circle is long."""
    above = {run}
    while (run := parents.get(run, "")) and run not in above:
        above.add(run)
    return len(above)


def _due(run: RunFact, rule: Rule, now: int) -> str:
    if run.deleted_at is not None:
        return "deleted" if run.deleted_at <= now - rule.deleted else ""
    if rule.unreferenced is None or run.ended_at is None or run.referred:
        return ""
    return "nothing refers to it" if run.ended_at <= now - rule.unreferenced else ""


# ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────


def plan(ledger: Ledger, rule: Rule, now: int) -> list[Action]:
    """The actions of a rule at `now`."""
    with ledger.records.snapshot() as sql:
        return decide(_runs(sql), _models(sql), _experiments(sql), rule, now)


def _runs(sql: Driver) -> list[RunFact]:
    """Runs of clients; those that the loop made are steps of a pipeline, which stay with what they gave."""
    versions, referred = _Versions.of(sql), dict[str, str]()
    for model in _all_models(sql, versions):
        if model.referred:
            referred[model.run] = model.referred
    kept = {row[0] for row in sql.all("SELECT run FROM tag WHERE key = ?", (KEEP,))}
    query = (
        "SELECT r.execution, r.uid, r.name, r.experiment, r.location, r.deleted_at, e.ended_at, p.value FROM run AS r "
        "JOIN execution AS e ON e.id = r.execution LEFT JOIN tag AS p ON p.run = r.execution AND p.key = ? "
        "WHERE e.kind = 'run' ORDER BY r.started_at, r.uid"
    )
    found = []
    for number, uid, name, experiment, location, gone, end, parent in sql.all(query, (PARENT,)):
        tag = f"the tag {KEEP}" if number in kept else ""
        why = tag or versions.runs.get(uid) or versions.places.get(location.rstrip("/")) or referred.get(uid, "")
        found.append(RunFact(uid, name, str(experiment), location, gone, end, parent or "", why))
    return found


@dataclass(frozen=True)
class _Versions:
    """What registered versions refer to, each as `name/number`: runs, logged models, and every folder in which their files lie."""

    runs: dict[str, str]
    models: dict[str, str]
    places: dict[str, str]

    @classmethod
    def of(cls, sql: Driver) -> "_Versions":
        found = cls({}, {}, {})
        for name, number, run, model, *where in sql.all("SELECT name, number, run, model, location, source FROM registered_version"):
            label = f"{name}/{number}"
            found.runs[run] = found.models[model] = label
            found.runs.update({one.removeprefix("runs:/").partition("/")[0]: label for one in where if one.startswith("runs:/")})
            for place in {one.rstrip("/") for one in where}:  # its own files, and those that it was made from
                while place:
                    found.places[place] = label
                    place = place.rpartition("/")[0]
        return found


def _all_models(sql: Driver, versions: _Versions) -> list[OtherFact]:
    found = []
    for one, name, at, gone, run in sql.all("SELECT id, name, location, updated_at, run FROM logged_model ORDER BY id"):
        found.append(OtherFact(one, name, at, gone * 1000, versions.models.get(one) or versions.places.get(at.rstrip("/"), ""), run))
    return found


def _models(sql: Driver) -> list[OtherFact]:
    deleted = {row[0] for row in sql.all("SELECT id FROM logged_model WHERE stage = 'deleted'")}
    return [one for one in _all_models(sql, _Versions.of(sql)) if one.id in deleted]


def _experiments(sql: Driver) -> list[OtherFact]:
    rows = sql.all("SELECT id, name, location, updated_at FROM experiment WHERE stage = 'deleted' AND id <> 0 ORDER BY id")
    return [OtherFact(str(one), name, at, gone * 1000, _tied_experiment(sql, one, at)) for one, name, at, gone in rows]


# ── what refers to one thing ────────────────────────────────────────────────────────────────────────────────────


def _within(location: str) -> tuple[str, str, str]:
    """The values of `column = ? OR column >= ? AND column < ?` for what lies at a place or below it."""
    return location, f"{location.rstrip('/')}/", f"{location.rstrip('/')}/\U0010ffff"


def _version(sql: Driver, column: str, value: str, location: str) -> str:
    """A registered version made of a run or logged model, or of files at its place."""
    there = " OR ".join(f"{place} = ? OR {place} >= ? AND {place} < ?" for place in ("location", "source"))
    said = "source = ? OR source >= ? AND source < ?"
    values = (value, *_within(location), *_within(location), *_within(f"runs:/{value}"))
    row = sql.one(f"SELECT name, number FROM registered_version WHERE {column} = ? OR {there} OR {said}", values)
    return f"{row[0]}/{row[1]}" if row else ""


def _tied_run(sql: Driver, execution: int, run: RunFact) -> str:
    if sql.one("SELECT 1 FROM tag WHERE run = ? AND key = ?", (execution, KEEP)):
        return f"the tag {KEEP}"
    models = sql.all("SELECT id, location FROM logged_model WHERE run = ?", (run.id,))
    of_models = (label for model, location in models if (label := _version(sql, "model", model, location)))
    return _version(sql, "run", run.id, run.location) or next(of_models, "")


def _tied_experiment(sql: Driver, number: int, location: str) -> str:
    """A version of what lies below an experiment, or what lies there and belongs to another experiment."""
    models = sql.all("SELECT id, location FROM logged_model WHERE experiment = ?", (number,))
    of_models = (label for model, at in models if (label := _version(sql, "model", model, at)))
    found = _version(sql, "location", location, location) or next(of_models, "")
    for table in ("run", "logged_model"):
        query = f"SELECT experiment FROM {table} WHERE experiment <> ? AND (location = ? OR location >= ? AND location < ?)"
        row = None if found else sql.one(query, (number, *_within(location)))
        found = f"experiment {row[0]}, which has files below it," if row else found
    return found


# ── what is done ────────────────────────────────────────────────────────────────────────────────────────────────


def apply(ledger: Ledger, actions: Sequence[Action], told: Callable[[Action], None] = lambda action: None) -> list[Action]:
    """Carry actions out, each in one transaction that looks again whether it still may be; returns what was done, and `Stays` for what no
    longer could be."""
    going = {action.run.id for action in actions if isinstance(action, DeleteRun)}
    done: list[Action] = []
    for action in actions:
        with ledger.records.transaction() as sql:
            done.append(_apply(sql, action, going))
        told(action)
    return done


def _apply(sql: Driver, action: Action, going: set[str]) -> Action:
    match action:
        case DeleteRun(run):
            why = _delete_run(sql, run, going)
            if why:
                going.discard(run.id)
                return Stays(f"run {run.name} ({run.id})", why)
        case DeleteModel(model):
            row = sql.one("SELECT stage, updated_at FROM logged_model WHERE id = ?", (model.id,))
            why = "" if row == ("deleted", model.deleted_at // 1000) else CHANGED
            tied = _version(sql, "model", model.id, model.location)
            if why or tied:
                return Stays(f"logged model {model.id}", why or f"{tied} refers to it")
            _delete_model(sql, model.id, model.location)
        case DeleteExperiment(one):
            why = _delete_experiment(sql, one)
            if why:
                return Stays(f"experiment {one.name}", why)
        case Stays():
            pass
        case _:
            assert_never(action)
    return action


def _delete_run(sql: Driver, run: RunFact, going: set[str]) -> str:
    """Delete a run; or returns why it stays by now. Of its segments a word stays: what still writes one must not make the run again."""
    query = "SELECT r.execution, r.deleted_at, e.ended_at FROM run AS r JOIN execution AS e ON e.id = r.execution WHERE r.uid = ?"
    row = sql.one(query, (run.id,))
    if row is None or row[1:] != (run.deleted_at, run.ended_at):
        return CHANGED
    tied = _tied_run(sql, row[0], run)
    if tied:
        return f"{tied} refers to it"
    children = sql.all("SELECT r.uid FROM tag AS t JOIN run AS r ON r.execution = t.run WHERE t.key = ? AND t.value = ?", (PARENT, run.id))
    left = [child for (child,) in children if child not in going]
    if left:
        return f"its child {left[0]} stays"
    for table in _OF_RUN:
        sql.run(f"DELETE FROM {table} WHERE run = ?", (row[0],))
    sql.run("UPDATE segment SET shipped = -1 WHERE run = ?", (row[0],))
    for model, location in sql.all("SELECT id, location FROM logged_model WHERE run = ?", (run.id,)):
        _delete_model(sql, model, location)
    _delete_files(sql, run.location)
    sql.run("DELETE FROM run WHERE execution = ?", (row[0],))
    sql.run("DELETE FROM execution WHERE id = ? AND kind = 'run'", (row[0],))
    return ""


def _delete_model(sql: Driver, model: str, location: str) -> None:
    for table in _OF_MODEL:
        sql.run(f"DELETE FROM {table} WHERE model = ?", (model,))
    _delete_files(sql, location)
    sql.run("DELETE FROM logged_model WHERE id = ?", (model,))


def _delete_experiment(sql: Driver, one: OtherFact) -> str:
    """Delete an experiment; or returns why it stays by now."""
    number = int(one.id)
    if not sql.one("SELECT 1 FROM experiment WHERE id = ? AND stage = 'deleted' AND updated_at = ?", (number, one.deleted_at // 1000)):
        return CHANGED
    if sql.one("SELECT 1 FROM run WHERE experiment = ?", (number,)):
        return "runs stay in it"
    tied = _tied_experiment(sql, number, one.location)
    if tied:
        return f"{tied} refers to it"
    for table in ("trace_tag", "trace_metadata"):
        sql.run(f"DELETE FROM {table} WHERE trace IN (SELECT id FROM trace WHERE experiment = ?)", (number,))
    for model, location in sql.all("SELECT id, location FROM logged_model WHERE experiment = ?", (number,)):
        _delete_model(sql, model, location)
    sql.run("DELETE FROM trace WHERE experiment = ?", (number,))
    sql.run("DELETE FROM run_dataset WHERE experiment = ?", (number,))
    sql.run("DELETE FROM experiment_tag WHERE experiment = ?", (number,))
    _delete_files(sql, one.location)
    sql.run("DELETE FROM experiment WHERE id = ?", (number,))
    return ""


def _delete_files(sql: Driver, location: str) -> None:
    """The names of the files below a location of this server; their bytes go with the sweep when no other name has them."""
    place = place_of(location) if location.startswith("mlflow-artifacts:/") else ""
    if place and not f"{place}/".startswith(FROZEN):  # whatever lies there goes with its version alone
        sql.run("DELETE FROM artifact_file WHERE path >= ? AND path < ?", (f"{place}/", f"{place}/\U0010ffff"))


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def unspoken(ledger: Ledger) -> list[str]:
    """The digests of the blobs of which no text of any row speaks: what a stage writes tomorrow is kept without a word here."""
    spoken, pattern = set[str](), re.compile(rf"(?=([0-9a-f]{{{_DIGEST}}}))")
    with ledger.records.read() as connection:
        found, quoted = inspect(connection), connection.dialect.identifier_preparer.quote
        for table in found.get_table_names():
            for name in (quoted(one["name"]) for one in found.get_columns(table) if isinstance(one["type"], Text)):
                query = text(f"SELECT {name} FROM {quoted(table)} WHERE length({name}) >= {_DIGEST}")
                for (value,) in connection.execute(query):
                    spoken.update(pattern.findall(value))
    return [digest for digest in ledger.blobs.digests() if digest not in spoken]


def sweep(ledger: Ledger, before: int, told: Callable[[int], None] = lambda size: None) -> tuple[int, int]:
    """Delete the blobs of which nothing speaks and that nobody has written since `before` (microseconds UTC); (how many, bytes)."""
    count = total = 0
    for digest in unspoken(ledger):
        size = ledger.blobs.discard(digest, before)
        if size is not None:
            count, total = count + 1, total + size
            told(size)
    return count, total
