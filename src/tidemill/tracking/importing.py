"""Takes experiments, runs, logged models and their files over from MLflow, with their ids.

What is there already is left as it is, so an import that was interrupted goes on, and one that is run again adds what is new. A run's
status and end are written last: one whose end is there is whole.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from tidemill.core import DataError, StoreError, TidemillError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Part
from tidemill.tracking.artifacts import place_of, put_file
from tidemill.tracking.experiments import ROOT, insert_experiment
from tidemill.tracking.limits import LONG, check_experiment_name, check_metric, check_param, check_path, check_run_id, check_tag
from tidemill.tracking.metrics import Point, put_metrics, remember
from tidemill.tracking.models import LoggedModel, take_model
from tidemill.tracking.runs import PUT_PARAM, STATUS, put_input, put_model_metrics, put_model_refs
from tidemill.tracking.sources import Source
from tidemill.tracking.values import Experiment, Metric, Run

AT_ONCE = 10_000  # values of metrics in one transaction
_NEW_TAG = "INSERT INTO tag (run, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
MODEL_ID = re.compile(r"[\w\-]{1,255}")


@dataclass
class Imported:
    """What an import did: how many things of each kind are new and how many were there, ids of experiments that had to change, what could
    not be taken and why, and `moved`: where files lay there, and lie here. With `dry` nothing is written."""

    source: str
    dry: bool = False
    listen: Callable[["Imported"], None] = lambda imported: None
    new: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)

    def count(self, kind: str, *, new: bool, many: int = 1) -> None:
        """Count things of a kind."""
        counts = self.new if new else self.known
        counts[kind] = counts.get(kind, 0) + many
        self.listen(self)


def import_tracking(ledger: Ledger, source: Source, done: Imported) -> None:
    """Take over all experiments with what is in them."""
    for experiment in source.experiments():
        with _told(done, f"experiment {experiment.experiment_id}"):
            number = _experiment(ledger, experiment, done)
            for model in source.logged_models(experiment):
                with _told(done, f"model {model.info.model_id}"):
                    _model(ledger, source, number, model, done)
            for run in source.runs(experiment):
                with _told(done, f"run {run.info.run_id}"):
                    _run(ledger, source, number, run, done)


@contextmanager
def _told(done: Imported, what: str) -> Iterator[None]:
    """Do one thing; where it is wrong, say so, and the next goes on."""
    try:
        yield
    except (DataError, UnknownName) as error:
        done.problems.append(f"{done.source}: {what[:300]}: {error.what}")


# ── experiments ─────────────────────────────────────────────────────────────────────────────────────────────────


def _experiment(ledger: Ledger, one: Experiment, done: Imported) -> int:
    """Our number of an experiment: that of its name, its own where it is free, or another."""
    name = check_experiment_name(one.name)
    with ledger.records.transaction() as sql:
        row = sql.one("SELECT id FROM experiment WHERE name = ?", (name,))
        number = int(row[0]) if row else _free(sql, one.experiment_id)
        if row is None and not done.dry:
            number = insert_experiment(ledger, sql, name, number=number)
            times = (one.lifecycle_stage, one.creation_time, one.last_update_time, number)
            sql.run("UPDATE experiment SET stage = ?, created_at = ?, updated_at = ? WHERE id = ?", times)
        tags = [] if done.dry else [(number, tag.key, tag.value or "") for tag in one.tags or ()]
        sql.many("INSERT INTO experiment_tag (experiment, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", tags)
    done.count("experiments", new=row is None)
    if str(number) != one.experiment_id:
        done.mapped[one.experiment_id] = str(number) if number is not None else "another"
    return -1 if number is None else number  # none yet: nothing is written


def _free(sql: Driver, text: str) -> int | None:
    """The number of an id, where it is one that nothing has yet."""
    number = int(text) if text.isdecimal() and int(text) < LONG else -1
    return None if number < 0 or sql.one("SELECT 1 FROM experiment WHERE id = ?", (number,)) else number


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(ledger: Ledger, source: Source, experiment: int, run: Run, done: Imported) -> None:
    info = run.info
    uid = check_run_id(info.run_id)
    with ledger.records.snapshot() as sql:
        row = sql.one(
            "SELECT r.execution, r.location, r.experiment, e.status, e.ended_at FROM run AS r JOIN execution AS e ON e.id = r.execution "
            "WHERE r.uid = ?",
            (uid,),
        )
    files = _listed(source, "run", uid, info.artifact_uri, done)
    place = str(row[1]) if row else info.artifact_uri if files is None else f"{ROOT}{experiment}/{uid}/artifacts"
    status, ended = STATUS.get(info.status, "finished"), None if info.end_time is None else info.end_time * 1000
    whole = row is not None and (row[3], row[4]) == (status, ended) and status not in ("running", "scheduled")
    done.moved[info.artifact_uri.rstrip("/")] = place
    if not done.dry:
        number, owner = (int(row[0]), int(row[2])) if row else (_begin(ledger, experiment, run, place), experiment)
        _said(ledger, number, owner, run)
    keys = list(dict.fromkeys(metric.key for metric in run.data.metrics or ())) if not whole else []
    if keys and not done.dry:
        points = _sound(source.history(run, keys), done, f"run {uid}")
        done.count("values", new=True, many=_values(ledger, number, owner, points))
    if keys:
        done.count("metrics", new=True, many=len(keys))
    _files(ledger, source, ("run", uid, info.artifact_uri), place, files or [], done)
    if not done.dry and not whole:
        with ledger.records.transaction() as sql:
            ledger.end_execution(sql, number, status, ended)
            stage, gone = ("deleted", ledger.wall()) if info.lifecycle_stage == "deleted" else ("active", None)
            sql.run(
                "UPDATE run SET stage = ?, deleted_at = ? WHERE execution = ?",
                (stage, gone, number),
            )
    done.count("runs", new=row is None)


def _begin(ledger: Ledger, experiment: int, run: Run, place: str) -> int:
    info = run.info
    with ledger.records.transaction(synced=False) as sql:  # as all of a run but its end, which is synced and makes it last
        number = ledger.begin_execution(sql, "run", info.run_name, started_at=info.start_time * 1000)
        sql.run(
            "INSERT INTO run (execution, uid, experiment, name, who, stage, started_at, location) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
            (number, info.run_id, experiment, info.run_name, info.user_id, info.start_time, place),
        )
    return number


def _said(ledger: Ledger, number: int, experiment: int, run: Run) -> None:
    """Parameters, tags, inputs and outputs that are not there yet."""
    params = [(number, *check_param(one)) for one in run.data.params or ()]
    tags = [(number, *check_tag(one)) for one in run.data.tags or ()]
    with ledger.records.transaction(synced=False) as sql:
        sql.many(PUT_PARAM, params)
        sql.many(_NEW_TAG, tags)
        for one in run.inputs.dataset_inputs or ():
            put_input(sql, number, experiment, one)
        put_model_refs(sql, number, "input", run.inputs.model_inputs or ())
        put_model_refs(sql, number, "output", (run.outputs.model_outputs if run.outputs else None) or ())


def _sound(metrics: Iterator[Metric], done: Imported, what: str) -> Iterator[Point]:
    """The values that may be kept; the first that may not is told."""
    told = False
    for one in metrics:
        try:
            yield check_metric(one)
        except DataError as error:
            if not told:
                done.problems.append(f"{done.source}: {what}: {error.what}")
            told = True


def _values(ledger: Ledger, number: int, experiment: int, points: Iterable[Point]) -> int:
    """Keep values of metrics, some at a time; returns how many there were."""
    waiting, many = iter(points), 0
    while some := list(islice(waiting, AT_ONCE)):
        with ledger.records.transaction(synced=False) as sql:
            names = put_metrics(sql, ledger.records, number, experiment, some)
        remember(ledger.records, names)
        many += len(some)
    return many


# ── logged models ───────────────────────────────────────────────────────────────────────────────────────────────


def _model(ledger: Ledger, source: Source, experiment: int, model: LoggedModel, done: Imported) -> None:
    info = model.info
    if not MODEL_ID.fullmatch(info.model_id):
        raise DataError(f"Invalid model ID: '{info.model_id[:300]}'")
    row = ledger.records.row("SELECT location FROM logged_model WHERE id = ?", (info.model_id,))
    files = _listed(source, "model", info.model_id, info.artifact_uri, done)
    place = str(row[0]) if row else info.artifact_uri if files is None else f"{ROOT}{experiment}/models/{info.model_id}/artifacts"
    done.moved[info.artifact_uri.rstrip("/")] = place
    if row is None and not done.dry:
        with ledger.records.transaction() as sql:
            take_model(sql, model, experiment, place)
            for one in model.data.metrics or ():
                one.model_id = info.model_id
            put_model_metrics(sql, info.source_run_id or "", model.data.metrics or ())
    _files(ledger, source, ("model", info.model_id, info.artifact_uri), place, files or [], done)
    done.count("logged models", new=row is None)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _listed(source: Source, kind: str, owner: str, uri: str, done: Imported) -> list[tuple[str, int]] | None:
    """The files there; None where they stay, which is told."""
    try:
        return list(source.files(kind, owner, uri))
    except (TidemillError, OSError) as error:
        done.problems.append(f"{done.source}: files of {kind} {owner}: {error.what if isinstance(error, TidemillError) else error}")
        return None


def _files(ledger: Ledger, source: Source, of: tuple[str, str, str], place: str, files: list[tuple[str, int]], done: Imported) -> None:
    """Keep files that are not there yet, each as it streams by. What is there with the same size is not read again."""
    if not files:
        return
    root = place_of(place)
    with ledger.records.snapshot() as sql:
        there: dict[str, int] = dict(
            sql.all("SELECT path, size FROM artifact_file WHERE path >= ? AND path < ?", (f"{root}/", f"{root}/\U0010ffff"))
        )
    for path, size in files:
        try:
            if not path or path.startswith("/"):
                raise DataError(f"Invalid path: {path[:200]!r}")
            whole = check_path(f"{root}/{path}")
            new = there.get(whole) != size
            if new and not done.dry:
                _stream(ledger, whole, source.read(*of, path))
            done.count("files", new=new)
            done.count("bytes", new=new, many=size)
        except (DataError, UnknownName, StoreError, OSError) as error:
            done.problems.append(
                f"{done.source}: {of[0]} {of[1]}: {path[:200]}: {error.what if isinstance(error, TidemillError) else error}"
            )


def _stream(ledger: Ledger, path: str, pieces: Iterator[bytes]) -> None:
    with _part(ledger, pieces) as part:
        put_file(ledger, path, part)


def keep_pieces(ledger: Ledger, pieces: Iterator[bytes]) -> tuple[str, int]:
    """Keep bytes as they stream by, of which no file speaks yet: their digest and size."""
    with _part(ledger, pieces) as part:
        return part.keep()


@contextmanager
def _part(ledger: Ledger, pieces: Iterator[bytes]) -> Iterator[Part]:
    part = ledger.blobs.part()
    try:
        for piece in pieces:
            part.write(piece)
        yield part
    finally:
        part.discard()
