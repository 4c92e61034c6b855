"""Features of rows that somebody brings: of which views, over which versions, and what is recorded of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from tidemill import data, features, loop, registry
from tidemill.core import DefinitionError, Problems, Ref, Where, odd_name, odd_number, show
from tidemill.data import Dataset
from tidemill.features import Brought, Chosen, Computed, FeatureView, Historical, Listen, Opened, Question, RequestView, View, bound
from tidemill.ledger import Ledger
from tidemill.project import Project
from tidemill.store import store_error

EVENT_TIME = "event_timestamp"  # the column of times where no other is named
DATASET = "dataset:"  # how a text begins that names a declared dataset, and no file

Views = Sequence[str | View]


@dataclass(frozen=True)
class Asked:
    """What `Session.historical_features` is asked; `until` in microseconds UTC, `notes` what there is to say beside."""

    rows: Any
    chosen: Sequence[Chosen]
    at: str
    as_known: bool
    until: int | None
    timezone: str
    status: bool
    save: str
    chunk: int
    to: Path | None
    listen: Listen
    notes: tuple[str, ...] = ()

    def problems(self) -> Problems:
        """What is wrong with it before anything is read."""
        yield from odd_number("chunk", self.chunk, "[0, inf)", "chunk=100_000", whole=True)
        if self.save != "":
            yield from odd_name("saved rows", self.save)

    @property
    def dataset(self) -> Dataset | None:
        """The dataset whose rows are asked about, if it is one."""
        return self.rows if isinstance(self.rows, Dataset) else None

    def question(self, ledger: Ledger) -> Question:
        """The question over the versions of its views: those of today's files, built or found in the cache."""
        opened, computed = opened_views(ledger, self.chosen)
        at = (self.dataset.event_time if self.dataset else EVENT_TIME) if self.at == "" else self.at
        timezone = self.timezone or (self.dataset.timezone if self.dataset else "")
        timed = opened or self.at or self.dataset  # where only the request is asked about, rows need no time
        learned = features.learned_until([*(one.log.view for one in opened.values()), *(one.view for one in computed.values())])
        asked = (self.as_known, timezone, self.status, self.until)
        return Question(self.chosen, opened, at, computed, *asked, learned if timed else {})

    def brought(self, ledger: Ledger) -> Brought | None:
        """The rows of a dataset."""
        return features.rows_of(ledger, data.ingest(ledger, self.dataset).output, self.until) if self.dataset else None


def opened_views(ledger: Ledger, chosen: Sequence[Chosen]) -> tuple[dict[str, Opened], dict[str, Computed]]:
    """The views that are chosen, over the newest data: those that are looked up, and those of the request itself. Raises UnknownName for a
    model that is not in the ledger."""
    views, opened, computed = {one.view.name: bound(ledger, one.view) for one in chosen}, dict[str, Opened](), dict[str, Computed]()
    each = {view.dataset.name: view.dataset for view in views.values()}
    datasets = {name: data.ingest(ledger, dataset).output for name, dataset in each.items()}  # its files are read for their digests
    with data.kept_open():
        for view in views.values():
            dataset = datasets[view.dataset.name]
            if isinstance(view, RequestView):
                computed[view.name] = Computed.of(view, dataset.meta["types"])
            else:
                version = features.build(ledger, view, dataset).output
                opened[view.name] = Opened(features.load(ledger, view, version), dataset.meta["types"], version)
    return opened, computed


def named_rows(project: Project, rows: Any) -> Any:
    """Rows as they are given; of a text that names one, the dataset. Raises UnknownName."""
    return project.get(Dataset, rows.removeprefix(DATASET)) if isinstance(rows, str) and rows.startswith(DATASET) else rows


def chosen_views(project: Project, views: Views, model: str | Ref, ledger: Callable[[], Ledger]) -> tuple[list[Chosen], tuple[str, ...]]:
    """The views that are named, or those of a model as it was trained with them; and what there is to say of those that are declared
    otherwise now. Raises UnknownName and DefinitionError."""
    if not model:
        declared: list[View] = [*project.all(FeatureView), *project.all(RequestView)]
        return features.choose(views, {view.name: view for view in declared}), ()
    if views:
        raise DefinitionError("views and a model are both named", hint="a model names its views: leave one of them out")
    label, bound = registry.bound_to(ledger(), model)
    chosen = loop.former_features(ledger(), bound, project.declarations, Where(str(project.folder / "tidemill.toml")))
    edited = loop.edits([one.view for one in chosen], project.declarations)
    notes = [f"{name} is read as {label} was trained with it, and declared otherwise now: {what}" for name, what in edited.items()]
    return chosen, tuple(notes)


def retrieve(asked: Asked, cached_or_made: Callable[[str, Callable[[Ledger], Any]], Any]) -> tuple[Historical, list[Any]]:
    """The features, and what was read for them: the rows that are saved, or else the versions of the views."""
    for problem in asked.problems():
        raise problem
    if asked.to:
        features.writable(asked.to)
    if asked.save:
        found = _saved(asked, cached_or_made)
        return found, [found]

    def give(ledger: Ledger) -> tuple[Question, Brought | None]:
        return asked.question(ledger), asked.brought(ledger)

    question, brought = cached_or_made("historical_features", give)
    rows = brought.given if brought else asked.rows
    found = features.historical(rows, question, asked.to, chunk=asked.chunk, listen=asked.listen)
    found.report.notes = asked.notes
    return found, [one.version for one in question.opened.values()]


def _saved(asked: Asked, cached_or_made: Callable[[str, Callable[[Ledger], Any]], Any]) -> Historical:
    with ExitStack() as stack:
        theirs = None if asked.dataset else stack.enter_context(features.bring(asked.rows, asked.save))

        def give(ledger: Ledger) -> Historical:
            brought = theirs or asked.brought(ledger)
            assert brought is not None
            once = features.save_rows(ledger, asked.save, brought, asked.question(ledger), chunk=asked.chunk, listen=asked.listen)
            return features.load_rows(ledger, once.output, once.execution, "" if once.cached else once.why)

        found: Historical = cached_or_made("historical_features", give)
    found.report.notes = asked.notes
    return copied(found, asked.to)


def saved_ref(name: str) -> Ref:
    """What a name of saved rows means: `orders`, `orders@1f3c…`, or the whole ref."""
    return Ref.parse(name if name.startswith(f"{features.SAVED}:") else f"{features.SAVED}:{name}")


def list_saved(ledger: Ledger) -> list[dict[str, Any]]:
    """All saved rows that are recorded, the newest first, as plain data."""
    found: dict[str, dict[str, Any]] = {}
    for one in ledger.executions(kind=features.SAVED, status="finished"):
        ref = Ref(**one.outputs["rows"])
        said = {"ref": str(ref), "name": ref.name, "digest": ref.digest, "made": show(one.ended_at or one.started_at)}
        until = one.inputs["until"]
        told = {"rows": one.params["report"]["rows"], "features": one.inputs["features"], "until": None if until is None else show(until)}
        found.setdefault(str(ref), {**said, **told, "as_known": one.inputs["as_known"], "from": one.inputs["rows"].partition("#")[0]})
    return list(found.values())


def copied(found: Historical, to: Path | None) -> Historical:
    """Saved rows with their file, or with a copy of it where one is wanted: whole or not at all."""
    if to is None or found.file is None:
        return found
    part = features.writable(to).with_name(f".{to.name}.part")
    try:
        copyfile(found.file, part)
        part.replace(to)
    except OSError as error:
        raise store_error(error, str(to)) from error
    finally:
        part.unlink(missing_ok=True)
    return replace(found, file=to)
