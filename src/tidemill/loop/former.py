"""What a live branch serves while an edit is judged, refused or waits for people: the definitions of before, from the recipe it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidemill.core import Where, definition
from tidemill.data import Check, Dataset, Source
from tidemill.features import FeatureView, Function, RequestView, from_definition, functions_of
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.replay import with_model
from tidemill.training import Label, Model, Task

NEVER = 2**62  # labels: a policy that wants as many does not retrain


def former_task(today: Task, recipe: Mapping[str, Any]) -> Task:
    """The task of a recipe, to be built again over the data of today. Its sources lie where those of today's files do."""
    places = {source.path: source.where for dataset in today.datasets for source in dataset.sources.values()}
    datasets = {name: _dataset(plain, places, today.where) for name, plain in recipe["datasets"].items()}
    functions = functions_of(today.features)
    views = [_view(view["definition"], datasets, today.where, functions) for view in recipe["views"]]
    plain = recipe["task"]
    label = Label(datasets[plain["label"]["dataset"]], plain["label"]["expression"], plain["label"]["none_after"], where=today.where)
    return Task(plain["name"], datasets[plain["request"]], plain["predict_at"], views, label, plain["type_of"], where=today.where)


def _dataset(plain: Mapping[str, Any], places: Mapping[str, Where], where: Where) -> Dataset:
    sources = {
        name: Source(one["path"], one["format"], tuple(one["null_values"]), where=places.get(one["path"], where))
        for name, one in plain["sources"].items()
    }
    checks = [Check(**{name: value for name, value in one.items() if name != "type"}, where=where) for one in plain["checks"]]
    texts = {name: plain[name] for name in ("name", "event_time", "query", "known_at", "timezone")}
    return Dataset(sources=sources, key=tuple(plain["key"]), checks=checks, where=where, **texts)


def _view(
    plain: Mapping[str, Any], datasets: Mapping[str, Dataset], where: Where, functions: Sequence[Function]
) -> FeatureView | RequestView:
    return replace(from_definition(plain, functions), dataset=datasets[plain["dataset"]], where=where)


def former_policy(today: RetrainPolicy, task: Task, plain: Mapping[str, Any]) -> RetrainPolicy:
    """Today's policy over the model of before. Where that function is no longer in the files, it watches and does not retrain."""
    now = today.monitor.deployment.model
    model = Model(plain["name"], task, now.function, plain["seed"], plain["params"], where=now.where)
    policy = with_model(today, model)
    return policy if definition(model) == plain else at_rest(policy)


def at_rest(policy: RetrainPolicy) -> RetrainPolicy:
    """The same policy without retraining: it watches, and what is on its way goes on."""
    return replace(policy, min_new_labels=NEVER)
