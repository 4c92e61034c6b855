"""The features of a project as plain data: how each is made and what from, what it is like, who uses it, what it costs.

Reading only: the files say what is declared, the ledger what was built; what was never built says so.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tidemill import features, registry, training
from tidemill.core import (
    SECOND,
    Damaged,
    DefinitionError,
    Erased,
    Floats,
    Instants,
    MissingFile,
    Ref,
    StoreError,
    UnknownName,
    definition,
    digest_value,
    show,
)
from tidemill.data import publications
from tidemill.features import FeatureView, RequestView, SharedView, View
from tidemill.ledger import Artifact, Execution, Ledger, descendants
from tidemill.loop import State
from tidemill.project import Project, now
from tidemill.serving import Deployment
from tidemill.session.history import History
from tidemill.session.retrieval import list_saved
from tidemill.session.sharing import Offers
from tidemill.training import Examples, Task

FEW = 8  # executions of a view that are looked at first
MOST = 10_000  # executions of a view that are looked at: a database takes three times as many in one question

Plain = dict[str, Any]
Columns = Mapping[str, tuple[Floats, Sequence[str] | None]]  # values, and the words of their codes


@dataclass(frozen=True)
class Version:
    """A version of a view, and the executions that gave it, the newest first."""

    digest: str
    definition: Plain
    executions: Sequence[Execution]

    @property
    def short(self) -> str:
        return self.digest[:12]

    @property
    def execution(self) -> Execution:
        """The newest."""
        return self.executions[0]

    @property
    def refs(self) -> list[Ref]:
        """What was built, the newest first: the view's own artifact, or the requests that hold a request view's values."""
        return list(dict.fromkeys(Ref(**one.outputs["version"]) for one in self.executions))

    def plain(self) -> Plain:
        """When it was built first, and over what it was built last."""
        dataset, first = self.execution.inputs["dataset"].rpartition("#")[2][:12], self.executions[-1]
        built = show((first.ended_at or first.started_at) // SECOND * SECOND)
        return {"version": self.short, "built": built, "rows": int(self.execution.metrics["rows"]), "dataset": dataset}


class Past:
    """What the ledger knows of views at one moment; nothing where nothing has run."""

    def __init__(self, declared: Project, ledger: Ledger | None, serving: Mapping[str, History], now: int) -> None:
        self.declared, self.ledger, self.serving, self.now = declared, ledger, serving, now
        self._learned: dict[str, tuple[Execution, Examples] | None] = {}

    def versions(self, view: View) -> list[Version]:
        """All of them, the newest first."""
        if self.ledger is None:
            return []
        kind, name = ("feature view", view.name) if isinstance(view, FeatureView) else ("requests", view.dataset.name)
        found: dict[str, Version] = {}
        for one in self.ledger.executions(kind=kind, name=name, status="finished", limit=MOST):
            said = one.inputs["definition"] if kind == "feature view" else _of_requests(one, view.name)
            if said:
                digest = one.outputs["version"]["digest"] if kind == "feature view" else digest_value(said)
                before = found[digest].executions if digest in found else ()
                found[digest] = Version(digest, said, (*before, one))
        return list(found.values())

    def newest(self, view: View) -> Version | None:
        """The newest version of what is declared now; before that is built, the newest of all."""
        found, now = self.versions(view), digest_value(definition(view))
        return next((one for one in found if digest_value(one.definition) == now), found[0] if found else None)

    def built(self, view: FeatureView) -> Ref | None:
        """What was built last of a view as it is declared now; only as many executions are read as that takes."""
        for many in (FEW, MOST) if self.ledger else ():
            found = self.ledger.executions(kind="feature view", name=view.name, status="finished", limit=many)  # type: ignore[union-attr]
            same = next((one for one in found if one.inputs["definition"] == definition(view)), None)
            if same:
                return Ref(**same.outputs["version"])
        return None

    def kept(self, ref: Ref) -> tuple[Artifact | None, str]:
        """An artifact, and whether its bytes are "kept", "gone", "erased" or "damaged"; only one whose bytes can be read."""
        assert self.ledger is not None
        try:
            found = self.ledger.artifact(ref)
            for role in found.meta.get("blobs", ["erased"]):
                self.ledger.blobs.get(found.blob(role))
        except Erased:
            return None, "erased"
        except (UnknownName, MissingFile):
            return None, "gone"
        except Damaged:
            return None, "damaged"
        return found, "kept"

    def artifact(self, ref: Ref) -> Artifact | None:
        """An artifact whose bytes can be read."""
        return self.kept(ref)[0]

    def stored(self, view: View, version: Version) -> tuple[Columns, Instants | None]:
        """The columns of a version by the names of their features, and when each row became known; None where its bytes cannot be read."""
        artifact = self.artifact(version.refs[0])
        if artifact is None or self.ledger is None:
            return {}, None
        if isinstance(view, RequestView):
            asked = features.load_requests(self.ledger, artifact)
            own = {name: i for i, name in enumerate(asked.names) if name.startswith(f"{view.name}__")}
            return {name: (asked.values[:, i], asked.vocabularies.get(name)) for name, i in own.items()}, asked.known
        built = features.from_definition(version.definition)
        assert isinstance(built, FeatureView)
        log = features.load(self.ledger, built, artifact)
        if built.windows:
            return {}, log.events.known
        names = {built.names_of(name)[0]: log.columns[f"x:{name}"] for name in built.columns}
        return {name: (values, log.vocabularies.get(name)) for name, values in names.items()}, log.events.known

    def learned(self, view: View) -> tuple[str, str, Columns]:
        """The newest training set that a view is in, the version of the view that it was made from, and the view's columns there."""
        tasks = [task.name for task in self.declared.all(Task) if view.name in {one.name for one in task.features}]
        found = max((one for one in map(self._set, tasks) if one), key=lambda one: one[0].id, default=None)
        if found is None or self.ledger is None:
            return "", "", {}
        made, examples = found
        rows, matrix = examples.known(int(made.inputs["until"])), examples.matrix
        own = [(i, name) for i, name in enumerate(matrix.names) if name in view.names]
        edges = [edge.parent for edge in self.ledger.parents(examples.ref)]
        version = next((parent for parent in reversed(edges) if parent.startswith(f"feature view:{view.name}@")), "")
        columns = {name: (matrix.values[rows, i], matrix.vocabularies.get(name)) for i, name in own}
        return str(Ref(**made.outputs["set"])), version.rpartition("@")[2], columns

    def _set(self, task: str) -> tuple[Execution, Examples] | None:
        if self.ledger is not None and task not in self._learned:
            self._learned[task] = None
            for one in self.ledger.executions(kind="training set", name=task, status="finished", limit=1):
                artifact = self.artifact(Ref("examples", task, "", one.inputs["examples"].rpartition("#")[2]))
                if artifact:
                    self._learned[task] = one, training.load_examples(self.ledger, artifact)
        return self._learned.get(task)

    def values(self, view: View, version: Version, columns: Columns) -> tuple[str, str, Columns]:
        """What statistics are over, of which version of the view, and its columns: what is stored, or where windows make the values what
        the newest training set holds."""
        windows = isinstance(view, FeatureView) and view.windows
        return self.learned(view) if windows else (str(version.refs[0]), version.short, columns)

    def fresh(self, view: View, known: Instants | None) -> Plain | None:
        """The newest knowledge time at the clock's: the wall's, or that of the replay which serves where nothing live does."""
        if known is None:
            return None
        replays = [one.branch for one in self._using(view).values() if one]
        replayed = bool(replays) and all(branch.kind == "replay" for branch in replays)
        clock = max(State.of(branch.state).now for branch in replays) if replayed else self.now
        seen = known[known <= clock]
        newest = int(seen.max()) if len(seen) else None
        told = {"newest": None if newest is None else show(newest), "seconds": None if newest is None else (clock - newest) / 1e6}
        return {**told, "now": show(clock), "clock": "replay" if replayed else "wall"}

    def _using(self, view: View) -> dict[str, History | None]:
        """The deployments whose task has a view, by the files or by what serves."""
        found: dict[str, History | None] = {}
        for one in self.declared.all(Deployment):
            history = self.serving.get(one.name)
            named = {used.name for used in one.model.task.features}
            named |= {used["definition"]["name"] for used in history.branch.parts["recipe"]["views"]} if history else set()
            if view.name in named:
                found[one.name] = history
        return found

    def deployments(self, view: View) -> list[Plain]:
        """The deployments that use a view: what serves there, and the version of the view that it is bound to."""
        return [_deployment(name, history, view.name) for name, history in self._using(view).items()]

    def models(self, versions: Sequence[Version]) -> list[Plain]:
        """The models that were made from versions of a view, by model and version of the view."""
        if self.ledger is None:
            return []
        origin = {str(ref): one.short for one in versions for ref in one.refs}
        bound: dict[tuple[str, str], set[str]] = {}
        for ref, model in descendants(self.ledger, list(origin), "model", through=False):
            bound.setdefault((Ref.parse(model).name, origin[ref]), set()).add(model)
        found = []
        for (name, version), models in bound.items():
            labels = sorted((self._labels[one] for one in models if one in self._labels), key=lambda label: int(label.rpartition("/")[2]))
            found.append({"model": name, "versions": labels, "without_number": len(models) - len(labels), "bound_to": version})
        return found

    def saved(self, view: View) -> list[str]:
        """The rows that were saved with values of a view, the newest first."""
        found = [] if self.ledger is None else list_saved(self.ledger)
        own = [one for one in found if any(name.startswith(f"{view.name}__") for name in one["features"])]
        return [f"{one['name']}@{one['digest'][:12]}" for one in own]

    def output_of(self, view: View) -> Plain | None:
        """The model whose output a view is: its ref and digest (empty where the ledger has none), the versions that it is, until when it
        has learned, and `wrong`, why it does not fit; None for other views."""
        if not isinstance(view.features, features.Output):
            return None
        found: Plain = {"ref": str(view.features.ref), "digest": "", "versions": [], "learned_until": None, "wrong": ""}
        with suppress(UnknownName, MissingFile):
            digest = self._there.artifact(view.features.ref).ref.digest
            labels = [label for one, label in self._labels.items() if one.rpartition("@")[2] == digest[:12]]
            found |= {"digest": digest, "versions": labels}
            try:
                until = features.learned_until([features.bound(self._there, view)]).get(view.name)
                found |= {"learned_until": None if until is None else show(until)}
            except DefinitionError as error:
                found |= {"wrong": error.what}
        return found

    @property
    def _there(self) -> Ledger:
        if self.ledger is None:
            raise MissingFile("nothing has run yet")
        return self.ledger

    @cached_property
    def _labels(self) -> dict[str, str]:
        """The numbered versions of what serves, by the refs of their models."""
        found = [one for history in self.serving.values() for one in registry.versions(self._there, history.branch.id)]
        return {str(Ref.of("model", one.name, one.digest)): one.label for one in found}

    def cost(self, view: View, version: Version) -> Plain:
        """Seconds to compute, bytes to store. Request views are computed and kept together."""
        assert self.ledger is not None
        run, artifact = version.execution, self.artifact(version.refs[0])
        size = sum(len(self.ledger.blobs.get(digest)) for digest in artifact.meta["blobs"].values()) if artifact else None
        seconds = None if run.ended_at is None else (run.ended_at - run.started_at) / 1e6
        shared = sorted(one["name"] for one in run.inputs.get("views", []) if one["name"] != view.name)
        return {"seconds": seconds, "bytes": size, "execution": run.id, "requests": isinstance(view, RequestView), "shared_with": shared}

    def shared(self, view: View) -> Plain | None:
        """Whether a view is declared as shared with other projects, and since when they can see that; None where it is neither."""
        if not isinstance(view, FeatureView) or isinstance(view, SharedView) or not (view.shared or view.name in self._shared):
            return None
        at = self._shared.get(view.name)
        return {"declared": view.shared, "recorded": None if at is None else show(at)}

    @cached_property
    def _shared(self) -> Mapping[str, int]:
        return {} if self.ledger is None else {one.view: one.at for one in publications(self.ledger) if not one.withdrawn}

    def dataset(self, view: View, version: Version | None) -> Plain:
        """The dataset that a view is over, as declared, with the version and the sources that it was built from."""
        one = view.dataset
        found: Plain = {"name": one.name, "event_time": one.event_time, "known_at": one.known_at or one.event_time, "query": _sql(view)}
        sources = {source.path: {"path": source.path, "version": "", "bytes": None} for source in one.sources.values()}
        found |= {"version": "", "rows": None, "sources": list(sources.values())}
        if self.ledger is None or version is None:
            return found
        with suppress(UnknownName):
            made = self.ledger.artifact(Ref("dataset", one.name, "", version.execution.inputs["dataset"].rpartition("#")[2]))
            found |= {"version": made.ref.version, "rows": made.meta.get("rows")}
            edges = [edge for edge in self.ledger.parents(made.ref) if edge.parent.startswith("source:")]
            newest = max((edge.execution for edge in edges), default=0)
            found["sources"] = [self._source(edge.parent) for edge in edges if edge.execution == newest] or found["sources"]
        return found

    def _source(self, text: str) -> Plain:
        assert self.ledger is not None
        ref = Ref.parse(text)
        size = None
        with suppress(UnknownName):
            size = self.ledger.artifact(ref).meta.get("bytes")
        return {"path": ref.name, "version": ref.version, "bytes": size}


class Catalogue:
    """`project.features`: the views that a project declares. `list()`, `show("view")` or `show("view:feature")`, `search("words")`;
    those that other projects share: `shared()`; and the rows with features that were saved: `saved()`."""

    def __init__(self, declared: Project, past: Callable[[], Past]) -> None:
        self._declared, self._past = declared, past

    def __repr__(self) -> str:
        return f"Catalogue({', '.join(self._views)})"

    @cached_property
    def _views(self) -> dict[str, View]:
        return {one.name: one for one in self._declared.declarations if isinstance(one, (FeatureView, RequestView))}

    def saved(self) -> list[Plain]:
        """The rows that `historical_features` saved, the newest first, as plain data."""
        ledger = self._past().ledger
        return [] if ledger is None else list_saved(ledger)

    def show(self, name: str) -> Plain:
        """All that is known of a view, or of one of its features (`view:feature`, or a value's name `view__feature_window`), as plain
        data; of `project/view` what its owner's ledger tells. Raises UnknownName."""
        past = self._past()
        if "/" in name:
            return self._show_theirs(past.now, name)
        view, names = self._named(name)
        found = _told(past, view, names)
        found |= {"deployments": past.deployments(view), "models": past.models(past.versions(view)), "taken_from": None}
        found["saved"] = past.saved(view)
        if isinstance(view, SharedView):
            theirs = self._offers(past.now).of(view)
            ours = next((one["version"] for one in found["dataset"]["sources"]), "")
            found["taken_from"] = theirs | {"newer": None if theirs["version"] is None or not ours else theirs["version"] != ours}
        return found

    def _show_theirs(self, now: int, name: str) -> Plain:
        name, _, feature = name.partition(":")
        with self._offers(now).opened(name) as (ledger, offer, view):
            found = _told(Past(self._declared, ledger, {}, now), view, _meant(view, feature))
            shared = {"declared": True, "recorded": show(offer.published.at)}
            return found | {"declared_at": "", "deployments": [], "models": [], "saved": [], "taken_from": None, "shared": shared}

    def shared(self, project: str = "") -> Sequence[Plain]:
        """The views that other projects share, of all that the settings name or of one, by project and name, as plain data. Raises
        UnknownName, and of one project StoreError where it is not reached. It answers too where the project's files are wrong."""
        return self._offers(now()).offered(project)

    def _offers(self, now: int) -> Offers:
        return Offers(self._declared, now)

    def search(self, text: str) -> Sequence[Plain]:
        """Views and features with all words of a text in names, descriptions, owners, tags or expressions, the best first, those that other
        projects share among them. Raises DataError for a text without words."""
        own = [{**hit.plain(), "project": ""} for hit in features.search(self._views.values(), text)]
        return sorted([*own, *self._offers(self._past().now).search(text)], key=lambda hit: -hit["score"])

    def list(self) -> Sequence[Plain]:
        """Each view in short, in the order of the files, as plain data."""
        past = self._past()
        return [self._short(past, view) for view in self._views.values()]

    def _short(self, past: Past, view: View) -> Plain:
        version = past.newest(view)
        found = _head(past, view, version) | {"null_share": None, "freshness": None}
        if version is not None:
            columns, known = past.stored(view, version)
            _, _, values = past.values(view, version, columns)
            nulls, cells = sum(int(np.isnan(one).sum()) for one, _ in values.values()), sum(len(one) for one, _ in values.values())
            found |= {"null_share": nulls / cells if cells else None, "freshness": past.fresh(view, known)}
        return found | {"deployments": [one["deployment"] for one in past.deployments(view)]}

    def _named(self, text: str) -> tuple[View, Sequence[str]]:
        """The view that a text names, and the names of the values that are meant: all, or of one feature, or of it in one window."""
        name, _, feature = text.partition(":")
        values = {full: one for one in self._views.values() for full in one.names}
        if text in values:
            return values[text], [text]
        view = self._views.get(name)
        if view is None:
            hint = "name one of these, or VIEW:FEATURE" if self._views else "declare a tm.FeatureView or a tm.RequestView"
            raise UnknownName(f"no view {name!r} is declared", available=sorted(self._views), hint=hint)
        return view, _meant(view, feature)


def _meant(view: View, feature: str) -> Sequence[str]:
    """The names of the values that are meant: of all features, of one, or of it in one window. Raises UnknownName."""
    known = list(features.made_by(view))
    if feature in ("", *known):
        return [full for one in known if feature in ("", one) for full in features.values_of(view, one)]
    if f"{view.name}__{feature}" in view.names:
        return [f"{view.name}__{feature}"]
    raise UnknownName(f"view {view.name!r} has no feature {feature!r}", available=known, hint=f"for example {view.name}:{known[0]}")


def _told(past: Past, view: View, names: Sequence[str]) -> Plain:
    """What a page says of a view and of some of its values, but for who uses it."""
    wanted = [one for one in features.made_by(view) if set(names) & set(features.values_of(view, one))]
    versions, version = past.versions(view), past.newest(view)
    found = _head(past, view, version) | {"declared_at": str(view.where), "definition": _definition(view, wanted)}
    if isinstance(view, FeatureView):
        found["entity"] |= view.entity.about()
    found |= {"dataset": past.dataset(view, version), "output_of": past.output_of(view), "versions": [one.plain() for one in versions]}
    found |= {"statistics": {"over": "", "of_version": "", "features": {}}, "freshness": None, "cost": None}
    if version is None:
        return found
    columns, known = past.stored(view, version)
    over, of, values = past.values(view, version, columns)
    told = {one: features.summarise(*values[one]) for one in names if one in values}
    found["statistics"] = {"over": over, "of_version": of, "features": told}
    return found | {"freshness": past.fresh(view, known), "cost": past.cost(view, version)}


def _head(past: Past, view: View, version: Version | None) -> Plain:
    """What a list and a page say alike."""
    entity = {"name": view.entity.name, "key": list(view.entity.keys)} if isinstance(view, FeatureView) else None
    edited = version is not None and digest_value(version.definition) != digest_value(definition(view))
    newest = {**version.plain(), "bytes": past.kept(version.refs[0])[1], "of_an_earlier_definition": edited} if version else None
    about = {"name": view.name, "kind": view.kind, "entity": entity, "features": list(features.made_by(view)), "values": len(view.names)}
    about |= {"project": view.project if isinstance(view, SharedView) else "", "shared": past.shared(view)}
    return about | {"description": view.description, "owner": view.owner, "tags": list(view.tags), "newest": newest}


def _definition(view: View, wanted: Sequence[str]) -> Plain:
    found: Plain = {"windows": list(view.windows), "ttl": view.ttl, "filter": view.filter} if isinstance(view, FeatureView) else {}
    made, plain = features.made_by(view), dict[str, Plain]()
    for name in wanted:
        one = None if isinstance(view.features, features.Output) else view.columns.get(name)  # nor is there one of a function of Python
        plain[name] = {"made_by": made[name], "description": one.description if one else "", **(definition(one) if one else {})}
        plain[name]["type"] = one.gives if one else "number"
    return found | {"features": plain, "source": features.source_of(view)}


def _of_requests(execution: Execution, name: str) -> Plain | None:
    """The definition of a request view among those that were computed together."""
    return next((view for view in execution.inputs["views"] if view["name"] == name), None)


def _deployment(name: str, history: History | None, view: str) -> Plain:
    if history is None:
        return {"deployment": name, "branch": "", "champion": "", "since": "", "bound_to": ""}
    state, branch = State.of(history.branch.state), history.branch
    used = next((one for one in branch.parts["recipe"]["views"] if one["definition"]["name"] == view), None)
    bound = (used["digest"] or digest_value(used["definition"]))[:12] if used else ""
    champion = {"champion": state.champion.label, "since": show(state.champion.since)}
    return {"deployment": name, "branch": branch.kind, **champion, "bound_to": bound}


def _sql(view: View) -> str:
    with suppress(StoreError, OSError):  # a file of SQL that is gone: the rest can be told
        return view.dataset.sql()
    return ""
