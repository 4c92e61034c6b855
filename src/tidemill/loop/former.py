"""The definitions of before: what a live branch serves while an edit is judged, refused or waits for people, from the recipe it keeps; and
what a model reads, from its lineage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidemill.core import Declaration, Where, definition, differences
from tidemill.data import Check, Dataset, Source
from tidemill.features import SAVED, Chosen, FeatureView, Function, RequestView, from_definition, functions_of
from tidemill.ledger import Artifact, Ledger, lineage, nodes, told
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.origin import examples_of, rows_of
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


def former_features(ledger: Ledger, bound: Artifact, today: Sequence[Declaration], where: Where) -> list[Chosen]:
    """The features that a model of the loop, or that saved rows have, in their order, their views and datasets as they were defined then.
    Sources lie where those of today's declarations do, or else beside `where`."""
    saved = bound.ref.kind == SAVED
    tree = lineage(ledger, bound.ref if saved else examples_of(ledger, bound).ref)
    assert tree.execution is not None
    inputs, made = tree.execution.inputs, [(node.ref, node.execution.inputs) for node in nodes(tree) if node.execution]
    datasets = {ref.name: one["definition"] for ref, one in made if ref.kind == "dataset"}
    plain = {ref.name: one["definition"] for ref, one in made if ref.kind == "feature view"}
    if saved:
        datasets |= tree.execution.params["datasets"]
        plain |= {name: one["definition"] for name, one in inputs["request views"].items()}
    else:
        plain |= {view["name"]: view for ref, one in made if ref.kind == "requests" for view in one["views"]}
    places = {one.path: one.where for one in today if isinstance(one, Source)}
    then = {name: _dataset(one, places, where) for name, one in datasets.items()}
    views = {name: _view(one, then, where, functions_of(today)) for name, one in plain.items()}
    names = inputs["features"] if saved else [full for name in inputs["definition"]["features"] for full in views[name].names]
    owner = {full: view for view in views.values() for full in view.names}
    return [Chosen(owner[full], (full,)) for full in names if full in owner]  # the others are statuses


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
