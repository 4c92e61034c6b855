"""Deletion that deletes: runs, logged models, experiments and files that nothing refers to, by rule; first a plan, then its steps.

`decide` is pure: what is there and the rule in, actions out. Each action is one transaction, so what was interrupted goes on with the next
call. At the end the blobs of which no row of the records speaks any more are deleted, whatever wrote them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import Text, inspect, text

from tidemill.core import digest_bytes
from tidemill.ledger import Ledger
from tidemill.store import Driver
from tidemill.tracking import place_of

KEEP, PARENT = "tidemill.keep", "mlflow.parentRunId"
_DIGEST = len(digest_bytes(b""))
_OF_RUN = ("param", "tag", "metric", "metric_latest", "run_input", "run_model", "segment")
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
    """What the rule does at `now` (microseconds UTC): runs with their children last, so that no child loses its parent before it goes."""
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
    found: list[Action] = [DeleteRun(run, due[run.id]) for run in sorted(gone, key=lambda run: not run.parent)]
    found += [Stays(f"run {run.name} ({run.id})", stays[run.id]) for run in runs if run.id in stays]
    taken = {run.id for run in gone}
    for model in models:
        if model.deleted_at <= now - rule.deleted and model.run not in taken:
            found.append(Stays(f"logged model {model.id}", f"{model.referred} refers to it") if model.referred else DeleteModel(model))
    for one in experiments:
        inside = [run for run in runs if run.experiment == one.id and run.id not in taken]
        if one.deleted_at <= now - rule.deleted:
            found.append(Stays(f"experiment {one.name}", f"{len(inside)} runs stay") if inside else DeleteExperiment(one))
    return found


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
        why = tag or versions.runs.get(uid) or versions.places.get(location) or referred.get(uid, "")
        found.append(RunFact(uid, name, str(experiment), location, gone, end, parent or "", why))
    return found


@dataclass(frozen=True)
class _Versions:
    """What registered versions refer to, each as `name/number`: runs, logged models, and folders of files."""

    runs: dict[str, str]
    models: dict[str, str]
    places: dict[str, str]

    @classmethod
    def of(cls, sql: Driver) -> "_Versions":
        found = cls({}, {}, {})
        for name, number, run, model, location in sql.all("SELECT name, number, run, model, location FROM registered_version"):
            label = f"{name}/{number}"
            found.runs[run] = found.models[model] = label
            head, there, _ = location.partition("/artifacts")
            found.places[f"{head}{there}"] = label
        return found


def _all_models(sql: Driver, versions: _Versions) -> list[OtherFact]:
    found = []
    for one, name, at, gone, run in sql.all("SELECT id, name, location, updated_at, run FROM logged_model ORDER BY id"):
        found.append(OtherFact(one, name, at, gone * 1000, versions.models.get(one) or versions.places.get(at, ""), run))
    return found


def _models(sql: Driver) -> list[OtherFact]:
    deleted = {row[0] for row in sql.all("SELECT id FROM logged_model WHERE stage = 'deleted'")}
    return [one for one in _all_models(sql, _Versions.of(sql)) if one.id in deleted]


def _experiments(sql: Driver) -> list[OtherFact]:
    rows = sql.all("SELECT id, name, location, updated_at FROM experiment WHERE stage = 'deleted' AND id <> 0 ORDER BY id")
    return [OtherFact(str(one), name, location, gone * 1000) for one, name, location, gone in rows]


# ── what is done ────────────────────────────────────────────────────────────────────────────────────────────────


def apply(ledger: Ledger, actions: Iterable[Action], told: Callable[[Action], None] = lambda action: None) -> None:
    """Carry actions out, each in one transaction that looks again whether somebody refers to what goes by now."""
    for action in actions:
        with ledger.records.transaction() as sql:
            match action:
                case DeleteRun(run):
                    _delete_run(sql, run)
                case DeleteModel(model):
                    _delete_model(sql, model.id, model.location)
                case DeleteExperiment(one):
                    _delete_experiment(sql, one)
                case Stays():
                    pass
                case _:
                    assert_never(action)
        told(action)


def _delete_run(sql: Driver, run: RunFact) -> None:
    row = sql.one("SELECT execution, stage FROM run WHERE uid = ?", (run.id,))
    restored = row is not None and run.deleted_at is not None and row[1] != "deleted"
    if row is None or restored or sql.one("SELECT 1 FROM registered_version WHERE run = ?", (run.id,)):
        return
    for table in _OF_RUN:
        sql.run(f"DELETE FROM {table} WHERE run = ?", (row[0],))
    for model, location in sql.all("SELECT id, location FROM logged_model WHERE run = ?", (run.id,)):
        if not sql.one("SELECT 1 FROM registered_version WHERE model = ?", (model,)):
            _delete_model(sql, model, location)
    _delete_files(sql, run.location)
    sql.run("DELETE FROM run WHERE execution = ?", (row[0],))
    sql.run("DELETE FROM execution WHERE id = ? AND kind = 'run'", (row[0],))


def _delete_model(sql: Driver, model: str, location: str) -> None:
    for table in _OF_MODEL:
        sql.run(f"DELETE FROM {table} WHERE model = ?", (model,))
    _delete_files(sql, location)
    sql.run("DELETE FROM logged_model WHERE id = ?", (model,))


def _delete_experiment(sql: Driver, one: OtherFact) -> None:
    number = int(one.id)
    active = sql.one("SELECT 1 FROM experiment WHERE id = ? AND stage = 'active'", (number,))
    if active or sql.one("SELECT 1 FROM run WHERE experiment = ?", (number,)):
        return
    for table in ("trace_tag", "trace_metadata"):
        sql.run(f"DELETE FROM {table} WHERE trace IN (SELECT id FROM trace WHERE experiment = ?)", (number,))
    for model, location in sql.all("SELECT id, location FROM logged_model WHERE experiment = ?", (number,)):
        if sql.one("SELECT 1 FROM registered_version WHERE model = ?", (model,)):
            return
        _delete_model(sql, model, location)
    sql.run("DELETE FROM trace WHERE experiment = ?", (number,))
    sql.run("DELETE FROM run_dataset WHERE experiment = ?", (number,))
    sql.run("DELETE FROM experiment_tag WHERE experiment = ?", (number,))
    _delete_files(sql, one.location)
    sql.run("DELETE FROM experiment WHERE id = ?", (number,))


def _delete_files(sql: Driver, location: str) -> None:
    """The names of the files below a location of this server; their bytes go with the sweep when no other name has them."""
    if location.startswith("mlflow-artifacts:/"):
        place = place_of(location)
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
