"""From a project's declarations to the examples of a task: sources → datasets → views → requests → examples, cached by content."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tidemill import data, features, pipelines, registry, tracking, training
from tidemill.core import definition
from tidemill.data import Dataset
from tidemill.features import FeatureView, Reader
from tidemill.ledger import Artifact, Ledger
from tidemill.pipelines import Answers, Report, Step
from tidemill.training import Examples, Task

Listen = Callable[[Report], None]


@dataclass(frozen=True)
class Built:
    """The versions that a task's steps gave, by step; the examples are opened, the rest is named."""

    task: Task
    versions: dict[str, Artifact]
    examples: Examples

    def dataset(self, name: str) -> Artifact:
        return self.versions[f"dataset {name}"]

    def recipe(self) -> dict[str, Any]:
        """All that answering a request needs, as plain data: definitions, and digests of the versions that they gave."""
        request, views = self.task.request, []
        for view in self.task.features:
            version = self.versions.get(f"view {view.name}")
            views.append({"definition": definition(view), "digest": version.ref.digest if version else ""})
        plain = {"name": request.name, "key": list(request.keys), "event_time": request.event_time, "known_at": request.known_at}
        plain["timezone"] = request.timezone
        digests = {"requests": self.versions["requests"].ref.digest, "dataset": self.dataset(request.name).ref.digest}
        asked = {dataset.name: definition(dataset) for dataset in self.task.datasets}
        found = {"task": definition(self.task), "datasets": asked, "predict_at": self.task.predict_at}
        return {**found, "request": plain, "views": views, **digests}

    def reader(self, ledger: Ledger) -> Reader:
        """The reader of the task's features over these versions."""
        views = {view.name: self.versions[f"view {view.name}"] for view in self.task.feature_views}
        return training.reader(ledger, self.task, views)


def prepare(ledger: Ledger) -> Ledger:
    """Make the tables of every stage that the loop records into."""
    tracking.prepare(ledger)
    for tables in (registry.tables, data.prediction_tables, data.push_tables):
        ledger.records.ensure(tables)
    return ledger


def steps(ledger: Ledger, task: Task) -> list[Step]:
    """The steps of a task, each with what it needs."""
    found = [Step(f"dataset {dataset.name}", partial(_ingest, ledger, dataset)) for dataset in task.datasets]
    found += [Step(f"view {view.name}", partial(_view, ledger, view), (f"dataset {view.dataset.name}",)) for view in task.feature_views]
    found.append(Step("requests", partial(_requests, ledger, task), (f"dataset {task.request.name}",)))
    views = tuple(f"view {view.name}" for view in task.feature_views)
    found.append(Step("examples", partial(_examples, ledger, task), ("requests", f"dataset {task.label.dataset.name}", *views)))
    return found


def build(ledger: Ledger, task: Task, *, listen: Listen = pipelines.quiet) -> Built:
    """Run what is not cached. Raises the first error of a step."""
    answers = pipelines.run(steps(ledger, task), listen=listen)
    versions = {name: once.output for name, once in answers.items()}
    return Built(task, versions, training.load_examples(ledger, versions["examples"]))


def _ingest(ledger: Ledger, dataset: Dataset, _: Answers) -> Any:
    return data.ingest(ledger, dataset)


def _view(ledger: Ledger, view: FeatureView, answers: Answers) -> Any:
    return features.build(ledger, view, answers[f"dataset {view.dataset.name}"].output)


def _requests(ledger: Ledger, task: Task, answers: Answers) -> Any:
    version = answers[f"dataset {task.request.name}"].output
    where = str(task.where)
    return features.build_requests(ledger, task.request, version, task.request_views, task.predict_at, lookups=_lookups(task), source=where)


def _lookups(task: Task) -> list[str]:
    """The columns by which views are looked up."""
    return sorted({column for view in task.feature_views for column in view.entity.keys})


def _examples(ledger: Ledger, task: Task, answers: Answers) -> Any:
    views = {view.name: answers[f"view {view.name}"].output for view in task.feature_views}
    labels = answers[f"dataset {task.label.dataset.name}"].output
    return training.build_examples(ledger, task, answers["requests"].output, views, labels)
