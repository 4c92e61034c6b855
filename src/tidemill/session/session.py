"""One project, opened: training sets, training, predictions, lineage and status as calls and values.

Reading never waits, nor does what is cached; what has to be made holds the project's writer lock for as long as it runs. The clock
is read here, at the edge.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from tidemill import features, loop, project, registry, serving, tracking, training
from tidemill.core import DataError, Event, MissingFile, Ref, StoreError, UnknownName, duration, instant, odd_number, size
from tidemill.features import (
    Erasure,
    FeatureView,
    Feed,
    Getter,
    Historical,
    Listen,
    OnlineFeatures,
    OnlineStore,
)
from tidemill.ledger import Branch, Ledger, Node, lineage
from tidemill.loop import RetrainPolicy
from tidemill.monitoring import Monitor, Skew
from tidemill.serving import Deployment, Endpoint, Standing
from tidemill.session.answered import Answered, log_of
from tidemill.session.catalogue import Catalogue, Past
from tidemill.session.erasing import erase, key_of
from tidemill.session.forward import Forward
from tidemill.session.history import History
from tidemill.session.online import beside, online_store, opened_online
from tidemill.session.pushing import Pushing
from tidemill.session.registered import registered_tree
from tidemill.session.retrieval import Asked, Views, chosen_views, copied, named_rows, opened_views, retrieve, saved_ref
from tidemill.session.scoring import Order, Scored, score
from tidemill.session.sharing import up_to_date
from tidemill.session.status import status
from tidemill.training import Model, Task, Trained, TrainingSet

Time = str | date | datetime
T = TypeVar("T")
ListenToViews = Callable[[str, int, int], object]  # a view, how many of its entities are written, of how many


class Handle:
    """One deployment of the branch that serves."""

    def __init__(self, session: "Session", name: str, branch: Branch) -> None:
        self.session, self.name, self.branch = session, name, branch
        self._endpoint: Endpoint | None = None

    def __repr__(self) -> str:
        return f"Handle({self.name}: {self.branch.kind} {self.branch.id}, {loop.State.of(self.branch.state).champion.label} serves)"

    def endpoint(self, online: OnlineStore | None = None) -> Endpoint:
        """The endpoint itself, opened on first use."""
        if self._endpoint is None or online is not None:
            self._endpoint = open_endpoint(self.session.ledger, self.session.project, self.branch, online)
        return self._endpoint

    def predict(
        self, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, at: Time | Sequence[Time] | None = None, explain: bool = False
    ) -> Any:
        """Answer one request (a dict) or several, as known at `at`: one time for all, or one for each (default: now); a time has its
        zone, and a date is its midnight in the project's. Nothing is logged. Raises DataError for a wrong request, DefinitionError
        for a time without a zone."""
        given: Any = rows
        many = list(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else [given]
        wrong = [row for row in many if not isinstance(row, Mapping)]
        if wrong:
            example = ", ".join(f'"{key}": "…"' for key in self.endpoint().rows.dataset.keys)
            raise DataError(f"a request is a dict, not {wrong[0]!r}", hint=f"for example {{{example}}}")
        each = list(at) if isinstance(at, Iterable) and not isinstance(at, str) else [at] * len(many)
        if len(each) != len(many):
            raise DataError(f"`at` has {len(each)} times for {len(many)} rows", hint="give one time for all rows, or one for each")
        when = [project.now() if one is None else instant(one, self.session.project.timezone) for one in each]
        endpoint = self.endpoint()
        views, stored = len(endpoint.reader.logs), endpoint.reader.online is not None
        answers = [
            answer.plain(views, stored=stored) | ({"inputs": answer.inputs} if explain else {})
            for answer in endpoint.answer(many, when, explain=explain)
        ]
        return answers[0] if isinstance(rows, Mapping) else answers

    def score(
        self,
        rows: Any,
        *,
        to: str | Path,
        at: Time = "",
        by: str = "",
        version: str = "",
        chunk: int = 0,
        explain: bool = False,
        keep_going: bool = False,
        timezone: str = "",
        listen: Listen = features.quiet,
    ) -> Scored:
        """Answer many rows into the Parquet file `to`, in their order, as `predict` answers each.

        `rows` is a frame, what else speaks Arrow, a dict of arrays, the path of a Parquet or CSV file, or a declared dataset (`tm.Dataset`,
        "dataset:NAME"). They ask by their columns: all features, all columns of the request, or its key; `by` says which of these, where
        several could be meant.

        `at` is the column with their times (`timezone` for those that state no zone), one time for all, or "now"; by default each row is
        asked at its own prediction time, or now where that is still to come. `version` answers alone, by its label; `explain` adds a column
        for each feature. What was answered before, of an equal row, time, model and views, is not asked again; so a run that was killed
        goes on. `chunk` rows are held at once; `listen(done, rows)` is told.

        Raises UnknownName and DataError; for a row that cannot be answered with its number, unless `keep_going` writes null and why."""
        for problem in odd_number("chunk", chunk, "[0, inf)", "chunk=10_000", whole=True):
            raise problem
        session, declared = self.session, self.session.project
        order = Order(named_rows(declared, rows), Path(to), at, by, version, chunk, explain, keep_going, timezone, listen)
        endpoint = open_endpoint(session.ledger, declared, self.branch)
        writing = partial(declared.writing, "score", wait=600)
        return score(order, declared, self.branch, endpoint, session._cached_or_made, writing, project.now())


class Session(Answered):
    """A project folder with its ledger; its files are imported when a declaration is asked for."""

    def __init__(self, folder: str | Path = ".") -> None:
        self.project = project.find(folder)
        self._ledger: Ledger | None = None

    def __repr__(self) -> str:
        return f"Session({self.project.name} in {self.project.folder})"

    @property
    def ledger(self) -> Ledger:
        """The ledger, for reading. Raises MissingFile before anything has run."""
        if self._ledger is None:
            self._ledger = self.project.ledger(read_only=True)
        return self._ledger

    def close(self) -> None:
        """Close the ledger and the online store; what `online` prepared has the store open for itself, for as long as it is kept."""
        if self._ledger is not None:
            self._ledger.records.close()
            self._ledger = None
        for name in ("_pushing", "_store"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    # ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────

    def training_set(self, task: str, *, until: Time) -> TrainingSet:
        """The training set of a task as known at `until`, a time with its zone or a date (its midnight in the project's); what is not
        cached is built first. Raises DefinitionError for a time without a zone."""
        declared, known = self.project.get(Task, task), instant(until, self.project.timezone)

        def give(ledger: Ledger) -> TrainingSet:
            return training.training_set(ledger, loop.build(ledger, declared).examples, known)

        found = self._cached_or_made("training_set", give)
        tracking.note_input(found)
        return found

    def historical_features(
        self,
        rows: Any,
        views: Views = (),
        *,
        model: str | Ref = "",
        at: str = "",
        as_known: bool = True,
        until: Time | None = None,
        timezone: str = "",
        status: bool = False,
        save: str = "",
        to: str | Path | None = None,
        chunk: int = 0,
        listen: Listen = features.quiet,
    ) -> Historical:
        """Features of any rows, each as known at its own time: one row out for each row in, in their order, all columns kept.

        `rows` is a frame of pandas or polars, what else speaks Arrow, a dict of arrays, the path of a Parquet or CSV file, or a declared
        dataset (`tm.Dataset`, "dataset:NAME"); `at` names the column of times (by default `event_timestamp`, of a dataset its event time),
        which have their zone unless `timezone` declares one, and entity keys stand under their own names. `views` are declared views, their
        names, or `view:feature`; their versions are built over the newest data or found in the cache. `model` in their place takes the
        features of a model (`boosted/3`, `boosted@champion`, a ref), in its order and as they were defined when it was trained.

        `until` leaves out what became known later, and of a dataset the rows too. With `as_known=False` a row counts from its event time
        on, also before it was known. `status` adds a column with the status of each view; `to` writes a Parquet file, `chunk` rows at a
        time (`listen(done, rows)` is told), and gives no frame; `save` records such a file under a name as an artifact of the ledger,
        with its lineage, and finds it again. Raises UnknownName, DefinitionError and DataError."""
        for problem in odd_number("chunk", chunk, "[0, inf)", "chunk=100_000", whole=True):
            raise problem
        chosen, notes = chosen_views(self.project, views, model, lambda: self.ledger)
        cut = None if until is None else instant(until, self.project.timezone)
        file, rows = Path(to) if to else None, named_rows(self.project, rows)
        asked = Asked(rows, chosen, at, as_known, cut, timezone, status, save, chunk, file, listen, notes)
        found, read = retrieve(asked, self._cached_or_made)
        for one in read:
            tracking.note_input(one)
        return found

    def online(self, views: Views = (), *, model: str | Ref = "") -> Getter:
        """The newest features by entity keys, prepared for many questions: `get(row)`, `get_many(rows)`, and `read(rows)`, which tells the
        status of each view and where its values came from. Views and models are named as for `historical_features`.

        The online store answers for the views that are in it: those that `tidemill up` serves, and those that `materialise` put there.
        Of others, and where it cannot be read, the same values come from the offline path. Raises UnknownName, DefinitionError and
        DataError."""
        return self._getter(views, model, online_store(self.project))

    def _getter(self, views: Views, model: str | Ref, store: OnlineStore) -> Getter:
        chosen, notes = chosen_views(self.project, views, model, lambda: self.ledger)
        opened, computed = self._cached_or_made("online", lambda ledger: opened_online(ledger, self.project, chosen, store))
        return Getter(chosen, beside(opened, self.ledger, store), computed, store, project.now, self.project.timezone, notes)

    def online_features(self, rows: Any, views: Views = (), *, model: str | Ref = "", at: Time | None = None) -> OnlineFeatures:
        """The newest features of entities, by their keys, in the order asked; with the status of each view, the time up to which the online
        store holds all that was known, and whether it answered.

        `rows` is a dict with the keys by their names, a list of such, columns as a dict of lists, or a frame; views and models are named as
        for `historical_features`. `at` asks for what was known then (a time with its zone, or a date: its midnight in the project's), by
        default now. Who asks often prepares it: `online`. Raises UnknownName, DefinitionError and DataError."""
        return self._getter(views, model, self._store).read(rows, at=at)

    def materialise(
        self, views: Sequence[str | FeatureView] = (), *, until: Time | None = None, listen: ListenToViews = lambda view, done, of: None
    ) -> dict[str, int]:
        """Put views into the online store, as far as is known by `until` (default: now), or bring them up to date there; returns how many
        entities were written of each. Without names, all of entities that are declared; one of another project that cannot be brought up to
        date is left as it is then, with a warning. Of a view of the request only its dataset is built. A killed one goes on where it ended;
        what is there already, or newer, costs nothing. `listen(view, done, entities)` is told. Raises UnknownName, DefinitionError, and
        StoreError."""
        named = views or [view.name for view in self.project.all(FeatureView)]
        if not named:
            return {}
        chosen, _ = chosen_views(self.project, named, "", lambda: self.ledger)
        put = features.bring_up if until is None else features.materialise
        cut = project.now() if until is None else instant(until, self.project.timezone)
        store, written = online_store(self.project), dict[str, int]()
        with closing(store), self.project.writing("features materialise", wait=600) as ledger:
            reached = chosen if views else up_to_date(loop.prepare(ledger), chosen)
            for name, one in opened_views(loop.prepare(ledger), reached)[0].items():
                assert one.version is not None
                feed = Feed.of(ledger, one.log.view, one.version)
                written[name] = put(store, one.log, cut, version=one.version.ref.digest, feed=feed, tell=partial(listen, name))
            if any(written.values()):
                store.settle()
            features.withdraw_unshared(ledger, self.project)
        return written

    def saved_rows(self, name: str, *, again: bool = False, to: str | Path | None = None, listen: Listen = features.quiet) -> Historical:
        """Rows that `historical_features` saved under a name: the newest, or one version (`orders@1f3c…`). `again` makes them anew from
        what the ledger recorded of them, also where their file was lost; `to` writes a copy. Raises UnknownName, and Damaged where
        something else comes out."""
        if again:
            with self.project.writing("saved_rows", wait=600) as ledger:
                functions = features.functions_of(self.project.declarations)
                features.make_again(ledger, ledger.artifact(saved_ref(name)), functions, listen=listen)
        found = features.load_rows(self.ledger, self.ledger.artifact(saved_ref(name)))
        tracking.note_input(found)
        return copied(found, Path(to) if to else None)

    def push(self, dataset: str, rows: Any, *, source: str = "", offsets: int | Sequence[int] = ()) -> dict[str, Any]:
        """Add rows to a dataset, known from now on: to its next version, and at once to the online store, in all views over it.

        `rows` is a dict by column, a list of such, a dict of lists, or a frame, with all columns of the dataset; a time is a datetime or a
        text, with its zone unless the dataset declares one. They survive the end of the process when this returns. `offsets`, of one row or
        of each, are their numbers in a `source`: what it gave before is skipped, so a consumer that was killed may send again, or go on
        behind `pushed_offset(dataset, source)`.

        Returns {"dataset", "rows", "skipped", "known"}. Raises UnknownName, DataError for a row that does not fit, and then none is added,
        and StoreError."""
        return self._pushing.push(dataset, rows, project.now(), source=source, offsets=offsets)

    def pushed_offset(self, dataset: str, source: str) -> int | None:
        """The offset of the last row that a source gave to a dataset, None before the first. Raises UnknownName."""
        return self._pushing.offset(dataset, source)

    def erase_entity(self, entity: str, *key: object, why: str = "", dry_run: bool = False) -> Erasure:
        """Erase all values and events of one entity, offline in all versions and online; `key` has the values of its key, in their order.
        What is then opened and was erased raises Erased; the next version is made without the entity, also where a file still holds it.

        Returns what was found and what remains, with `repr` and `plain()`; `dry_run` only that. A call that was cut off goes on when it is
        repeated. Raises UnknownName, DataError, Busy and StoreError."""
        found = key_of(self.project, entity, key)
        self.close()
        return erase(self.project, entity, found, lambda: online_store(self.project), now=project.now(), why=why, dry_run=dry_run)

    @cached_property
    def _pushing(self) -> Pushing:
        return Pushing(self.project, self._store)

    @cached_property
    def _store(self) -> OnlineStore:
        """The online store, for what is done at once."""
        return online_store(self.project)

    def adopt(self, version: str, *, output: str = "", features: Sequence[str] = ()) -> Ref:
        """Make the ONNX of a version that a client of MLflow registered (`models:/embedder/2`) a model of the ledger; returns its ref, to
        which `tm.output_of` binds features. `output` is the one to take of several, `features` are the names of the columns that it takes,
        in their order. Raises UnknownName, and DataError for what is no ONNX, or no matrix to numbers."""
        with self.project.writing("adopt", wait=600) as ledger:
            return registry.adopt(loop.prepare(ledger), version, output=output, features=features).ref

    def train(self, model: str, *, until: Time) -> "Result":
        """Train a declared model on what was known at `until`, as for `training_set`: tracked, cached, compiled with parity."""
        declared, known = self.project.get(Model, model), instant(until, self.project.timezone)

        def give(ledger: Ledger) -> Result:
            chosen = training.training_set(ledger, loop.build(ledger, declared.task).examples, known)
            return Result(training.train(ledger, declared, chosen))

        return self._cached_or_made("train", give)

    def _cached_or_made(self, command: str, give: Callable[[Ledger], T]) -> T:
        """What `give` finds in the ledger, or makes: a ledger for reading refuses the first thing that would have to be made, and only
        then the writer's lock is waited for. Raises Busy, which names who holds it, after ten minutes."""

        def found(ledger: Ledger) -> T:
            given = give(ledger)
            features.withdraw_unshared(ledger, self.project)
            return given

        with suppress(MissingFile):
            _ = self.ledger
        if self._ledger is not None:
            with suppress(StoreError):
                return found(self._ledger)
        with self.project.writing(command, wait=600) as ledger:
            return found(loop.prepare(ledger))

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def serving(self) -> dict[str, History]:
        """The branch that serves each deployment: its live one, or its newest finished replay where nothing live exists. Raises
        UnknownName when there is none at all."""
        found = self._serving()
        if not found:
            raise _nothing_yet()
        return found

    def _serving(self) -> dict[str, History]:
        branches = {deployment.name: serving_branch(self.ledger, deployment.name) for deployment in self.project.all(Deployment)}
        return {name: self._history(branch) for name, branch in branches.items() if branch is not None}

    @property
    def branch(self) -> Branch:
        """The branch that serves the first deployment. Raises UnknownName when there is none."""
        return next(iter(self.serving.values())).branch

    @property
    def deployments(self) -> "Handles":
        """What serves, by name."""
        return Handles({name: Handle(self, name, history.branch) for name, history in self.serving.items()})

    @property
    def branches(self) -> list[Branch]:
        """The live branches, and each deployment's newest finished replay. The ledger tells, so the past can be asked about whatever
        the files say now."""
        replays = {branch.name: branch for branch in reversed(self.ledger.branches("replay")) if branch.status == "finished"}
        return [*self.ledger.branches("live"), *replays.values()]

    @property
    def histories(self) -> list[History]:
        """The branches with a champion: where a name may be known. Raises UnknownName when there is none at all."""
        found = [self._history(branch) for branch in self.branches if branch.state]
        if not found:
            raise _nothing_yet()
        return found

    def _history(self, branch: Branch) -> History:
        return History(self.ledger, branch, log_of(self.project, branch.name))

    def lineage(self, ref: Ref | str, *, forward: bool = False) -> Node:
        """The way back from a thing: a ref, or text such as `boosted/3`, `late`, `prediction:late/KEY` or `models:/NAME@ALIAS`. What the
        live branches do not know is looked for in the newest replays, and then among the models that clients registered. `forward`: what
        was made from it instead, down to the deployments that serve it and their monitors. Raises UnknownName."""
        if isinstance(ref, str) and ref.startswith("models:/"):
            return self._registered(ref, forward=forward)
        if not any(branch.state for branch in self.branches):
            return self._recorded(ref, forward=forward)
        wrong: list[UnknownName] = []
        found: list[Node] = []
        for history in self.histories:
            try:
                one = ref if isinstance(ref, Ref) else history.find(ref)
                found.append(self._forward(one) if forward else history.tree(one))
            except UnknownName as error:
                wrong.append(error)
            if found and not (isinstance(ref, str) and ref.startswith("prediction:")):
                return found[0]  # of predictions, several deployments may have made one for a key
        if not found:
            raise wrong[0] if len({error.what for error in wrong}) == 1 else UnknownName("; ".join(error.what for error in wrong))
        parents = tuple(parent for node in found for parent in node.parents)
        return found[0] if len(found) == 1 else Node(Ref("prediction", str(ref).removeprefix("prediction:")), "", {}, None, parents)

    def _recorded(self, ref: Ref | str, *, forward: bool) -> Node:
        """The lineage of a thing of the ledger, where nothing serves yet."""
        if isinstance(ref, str) and (":" not in ref or ref.startswith("prediction:")):
            raise _nothing_yet()
        found = self.ledger.artifact(ref if isinstance(ref, Ref) else Ref.parse(ref)).ref
        return self._forward(found) if forward else lineage(self.ledger, found)

    def _registered(self, text: str, *, forward: bool) -> Node:
        """The lineage of a registered version: of one of the loop that of its model, of a client's that of its run."""
        version = registry.named_version(self.ledger, text)
        digest = next((tag.value for tag in version.tags or () if tag.key == "tidemill.digest"), None)
        if digest is None:
            tree = registered_tree(self.ledger, version, forward=forward)
            adopted = registry.adopted(self.ledger, version) if forward else []
            return replace(tree, parents=(*tree.parents, *(replace(self._forward(ref), role="adopted as") for ref in adopted)))
        model = self.ledger.artifact_of("model", digest).ref
        found = Ref("model", model.name, version.version, digest)
        return self._forward(found) if forward else self.histories[0].tree(found)

    def _forward(self, ref: Ref) -> Node:
        return Forward(self.ledger, [branch for branch in self.branches if branch.state]).tree(ref)

    def diff(self, one: str, two: str) -> dict[str, Any]:
        """What differs from one version to another (`boosted/2`, `boosted@champion`), as plain data: params, metrics, data, features, code,
        environment, signature, and the predictions of both on their golden cases. Raises UnknownName."""
        return registry.diff(registry.facts_of(self.ledger, one), registry.facts_of(self.ledger, two))

    def aliases(self, model: str, alias: str = "") -> list[registry.Move]:
        """Where the aliases of a model pointed, or one of them: every move with who, when and why, the oldest first. Raises UnknownName."""
        return registry.alias_history(self.ledger, model, alias)

    def runs(self, text: str = "", *, experiments: Sequence[str] = (), order_by: Sequence[str] = (), limit: int = 100) -> tracking.Runs:
        """The runs that a filter leaves (`metrics.auc > 0.7 and params.depth = '3'`), the newest first where no order is given
        (`["metrics.auc DESC"]`). Raises UnknownName and DataError."""
        return tracking.find_runs(self.ledger, text, experiments=experiments, order_by=order_by, limit=limit)

    def run(self, name: str) -> tracking.Recorded:
        """One run by its id, the beginning of it, or its name. Raises UnknownName and DataError."""
        return tracking.find_run(self.ledger, name)

    @property
    def features(self) -> Catalogue:
        """The views that are declared: `features.list()`, `features.show("weather")`, `features.show("weather:wind")`,
        `features.search("wind")`. Reading only; before anything has run it says what is declared."""
        return Catalogue(self.project, self._past)

    def _past(self) -> Past:
        with suppress(MissingFile):
            return Past(self.project, self.ledger, self._serving(), project.now())
        return Past(self.project, None, {}, project.now())

    def skew(self, deployment: str = "", *, since: Time | None = None, rows: int | None = None) -> dict[str, Any]:
        """The features of at most `rows` answers that the gateway gave since a time (default: in all of its log), beside the same features
        computed offline as known then: by feature how many differ and how, as plain data. The monitor's `tm.Skew` says what is too many;
        without one, its defaults. Nothing is built: what was built last is compared with. Raises UnknownName, and DataError where no
        answer has its features in the log."""
        name = self._one_of(deployment)
        declared = next((one.skew for one in self.project.all(Monitor) if one.name == name and one.skew), None) or Skew()
        check = declared if rows is None else replace(declared, rows=rows)
        branch, log, until = self.serving[name].branch.id, log_of(self.project, name), project.now()
        asked = (int(one["asked"]) for one in serving.read_log(log) if "asked" in one)
        first = next(asked, until) if since is None else instant(since, self.project.timezone)
        sample = serving.sample_answers(log, branch, first, until, check.rows)
        if not sample.kept:
            hint = "ask `tidemill up` for predictions first, with serve.log_features above 0"
            raise DataError(f"none of {sample.answers:,} answers has its features in the log", where=str(log), hint=hint)
        with self.project.writing("features skew", wait=600) as ledger:
            functions = features.functions_of(self.project.declarations)
            measured = loop.measure(loop.prepare(ledger), branch, name, sample, check, functions)
        told = {"deployment": name, "max_share": check.max_share, "tolerance": check.tolerance, "report": str(measured.report)}
        return told | measured.found.plain()

    def _one_of(self, deployment: str) -> str:
        """The deployment that is named, or the only one that serves."""
        names = sorted(self.serving)
        if deployment and deployment not in names:
            raise UnknownName(f"no deployment {deployment!r} serves", available=names)
        if not deployment and len(names) > 1:
            raise DataError(f"{len(names)} deployments serve, one is needed", available=names, hint="name the deployment")
        return deployment or names[0]

    def status(self) -> dict[str, Any]:
        """Deployments with their versions, alerts, last retraining and lineage, as plain data. Raises UnknownName before any run."""
        found, first = self._serving(), [branch for branch in self.ledger.branches("live") if not branch.state]
        decided = [(branch.name, one) for branch in first for one in self.ledger.decisions(branch.id)]
        waiting = {}
        for branch in self.ledger.branches("live"):
            people = loop.needed(self.project.all(RetrainPolicy), branch.name)
            waiting[branch.name] = loop.waiting(self.ledger, branch, people)
        refused = {name: one for name, one in decided if one.kind == Event.GATE_REFUSED and not waiting.get(name)}
        if not found and not refused and not any(waiting.values()):
            raise _nothing_yet()
        return status(self.project, found, refused, waiting)


class Handles(dict[str, Handle]):
    """Handles by the name of their deployment."""

    def __missing__(self, name: str) -> Handle:
        hint = "run `tidemill run` or `tidemill replay` first, if it is declared"
        raise UnknownName(f"no deployment {name!r} serves", available=sorted(self), hint=hint)


class Result:
    """A training run by hand: its model's ref, parameters and metrics, and whether it came from the cache."""

    def __init__(self, trained: Trained) -> None:
        self.model: Ref = trained.model.ref
        self.cached = trained.cached
        execution = trained.run.execution
        self.params: dict[str, Any] = execution.params
        self.metrics: dict[str, float] = trained.run.metrics
        self.number = execution.id

    def __repr__(self) -> str:
        return f"Result(model={self.model}, cached={self.cached}, metrics={self.metrics})"


def _nothing_yet() -> UnknownName:
    return UnknownName("nothing serves yet", hint="run `tidemill run` or `tidemill replay` first")


def serving_branch(ledger: Ledger, deployment: str) -> Branch | None:
    """The branch that `up` and `lineage` read: a live one with a champion, else the newest finished replay."""
    live = [branch for branch in ledger.branches("live") if branch.name == deployment and branch.state]
    return live[0] if live else newest_replay(ledger, deployment)


def newest_replay(ledger: Ledger, deployment: str) -> Branch | None:
    """The newest finished replay of a deployment."""
    return next((one for one in ledger.branches("replay") if one.name == deployment and one.status == "finished"), None)


def standing_of(deployment: Deployment, branch: Branch) -> Standing:
    """Which versions serve on a branch."""
    state = loop.State.of(branch.state)
    previous = (state.previous.label, state.previous.digest) if state.previous else None
    rollout, challenger, weight = deployment.rollout, None, 0.0
    if state.candidate and state.candidate.phase == "canary" and rollout:
        challenger = (state.candidate.version.label, state.candidate.version.digest)
        weight = state.candidate.weight
    champion = (state.champion.label, state.champion.digest)
    weighted = [((one.version.label, one.version.digest), one.weight) for one in state.weighted]
    return Standing(branch.id, champion, previous, challenger, weight, rollout.sticky_by if rollout else "", weighted)


def open_endpoint(ledger: Ledger, declared: project.Project, branch: Branch, online: OnlineStore | None = None) -> Endpoint:
    """The endpoint of the deployment of a branch."""
    deployment = declared.get(Deployment, branch.name)
    standing = standing_of(deployment, branch)
    ladder = serving.Ladder(branch.name, duration(deployment.timeout), deployment.breaker)
    more: dict[str, Any] = {"fallback": deployment.fallback, "expect": deployment.expect, "ladder": ladder, "online": online}
    more |= {"holdout": deployment.holdout, "shadow": deployment.shadow, "batching": deployment.batching}
    more |= {"cache": serving.AnswerCache(size(deployment.cache.most))} if deployment.cache else {}
    functions = features.functions_of(declared.declarations)
    return serving.open_endpoint(ledger, branch.name, branch.parts["recipe"], standing, **more, functions=functions)


def shadows_of(declared: project.Project, deployment: str) -> Path:
    """The file to which it appends what the shadow of a deployment says."""
    return declared.state / "log" / "shadow" / f"{deployment}.jsonl"


def policy_of(declared: project.Project, name: str = "") -> RetrainPolicy:
    """The policy of a project, or of one of its deployments."""
    found = [policy for policy in declared.all(RetrainPolicy) if not name or policy.monitor.name == name]
    names = [policy.monitor.name for policy in declared.all(RetrainPolicy)]
    if name and not found:
        raise UnknownName(f"no deployment {name!r} has a policy", where=str(declared.folder), available=names, hint="name one of these")
    if not names:
        hint = "declare a tm.RetrainPolicy over the monitor of a deployment; views alone are built by `tidemill features materialise`"
        raise DataError("the project declares no policy, one is needed", where=str(declared.folder), hint=hint)
    if len(found) != 1:
        hint = "declare one for each deployment" if name else "name the deployment"
        raise DataError(f"{len(found)} policies fit, one is needed", where=str(declared.folder), available=names, hint=hint)
    return found[0]


def open(folder: str | Path = ".") -> Session:
    """The project in a folder. Raises MissingFile and DefinitionError, with file and line."""
    session = Session(folder)
    _ = session.project.declarations  # what is wrong in the files is said at once
    return session
