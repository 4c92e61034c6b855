"""The definitions of before: what a live branch serves while an edit is judged, refused or waits for people, from the recipe it keeps; and
what a model reads, from its lineage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidemill.core import Declaration, Where, definition, differences
from tidemill.data import Check, Dataset, Source
from tidemill.features import FeatureView, Function, RequestView, from_definition, functions_of
from tidemill.ledger import Artifact, Ledger, lineage, told
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.origin import examples_of, nodes, rows_of
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


def former_views(ledger: Ledger, model: Artifact, today: Sequence[Declaration], where: Where) -> list[FeatureView | RequestView]:
    """The views that a model reads, in its order, as they and their datasets were defined when it was trained. Sources lie where those of
    today's declarations do, or else beside `where`."""
    made = [(node.ref, node.execution.inputs) for node in nodes(lineage(ledger, examples_of(ledger, model).ref)) if node.execution]
    places = {one.path: one.where for one in today if isinstance(one, Source)}
    datasets = {ref.name: _dataset(inputs["definition"], places, where) for ref, inputs in made if ref.kind == "dataset"}
    views = {ref.name: inputs["definition"] for ref, inputs in made if ref.kind == "feature view"}
    views |= {view["name"]: view for ref, inputs in made if ref.kind == "requests" for view in inputs["views"]}
    [order] = [inputs["definition"]["features"] for ref, inputs in made if ref.kind == "examples"]
    functions = functions_of(today)
    return [_view(views[name], datasets, where, functions) for name in order]


def edits(views: Sequence[FeatureView | RequestView], today: Sequence[Declaration]) -> dict[str, str]:
    """By the name of each view that is defined otherwise today, or not any more: what differs, in words."""
    declared = {one.name: one for one in today if isinstance(one, (FeatureView, RequestView))}
    found = {}
    for view in views:
        now = declared.get(view.name)
        changed = _changed(view, now) if now else "it is not declared any more"
        if changed:
            found[view.name] = changed
    return found


def _changed(view: FeatureView | RequestView, now: FeatureView | RequestView) -> str:
    own = differences(definition(view), definition(now))
    data = differences(rows_of(definition(view.dataset)), rows_of(definition(now.dataset)))
    return "; ".join(text for text in (told(own), f"its dataset: {told(data)}" if data else "") if text)


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
