"""One project, opened: training sets, training, predictions, lineage and status as calls and values.

Reading never waits; what writes holds the project's writer lock for as long as it runs. The clock is read here, at the edge.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tidemill import loop, project, serving, training
from tidemill.core import DataError, Ref, UnknownName, duration, instant
from tidemill.features import LmdbOnline, OnlineStore
from tidemill.ledger import Branch, Ledger, Node
from tidemill.loop import Built, RetrainPolicy
from tidemill.serving import Constant, Deployment, Endpoint, Standing
from tidemill.session.status import find_ref, status, tree
from tidemill.training import Model, Task, Trained, TrainingSet

Time = str | date | datetime


def now() -> int:
    """The wall clock in microseconds UTC."""
    return time.time_ns() // 1000


class Handle:
    """One deployment of the branch that serves."""

    def __init__(self, session: "Session", name: str, branch: Branch) -> None:
        self.session, self.name, self.branch = session, name, branch
        self._endpoint: Endpoint | None = None

    def endpoint(self, online: OnlineStore | None = None) -> Endpoint:
        """The endpoint itself, opened on first use."""
        if self._endpoint is None or online is not None:
            self._endpoint = open_endpoint(self.session.ledger, self.session.project, self.branch, online)
        return self._endpoint

    def predict(self, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, at: Time | None = None, explain: bool = False) -> Any:
        """Answer one request (a dict, or its key as text) or several, as known at `at` (default: now)."""
        many = [rows] if isinstance(rows, Mapping) else list(rows)
        when = now() if at is None else instant(at, self.session.project.timezone)
        endpoint = self.endpoint()
        answers = [
            answer.plain(len(endpoint.reader.logs)) | ({"inputs": answer.inputs} if explain else {})
            for answer in endpoint.answer(many, [when] * len(many), explain=explain)
        ]
        return answers[0] if isinstance(rows, Mapping) else answers


class Session:
    """A project folder with its ledger."""

    def __init__(self, folder: str | Path = ".") -> None:
        self.project = project.load(folder)
        self._ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger, for reading. Raises MissingFile before anything has run."""
        if self._ledger is None:
            self._ledger = self.project.ledger(read_only=True)
        return self._ledger

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.records.close()
            self._ledger = None

    # ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────

    def training_set(self, task: str, *, until: Time) -> TrainingSet:
        """The training set of a task as known at `until`; what is not cached is built first."""
        with self.project.writing("training_set", wait=600) as ledger:
            built = self._build(ledger, self.project.get(Task, task))
            return training.training_set(ledger, built.examples, instant(until, self.project.timezone))

    def train(self, model: str, *, until: Time) -> "Result":
        """Train a declared model on what was known at `until`: tracked, cached, compiled with parity."""
        declared = self.project.get(Model, model)
        with self.project.writing("train", wait=600) as ledger:
            built = self._build(ledger, declared.task)
            chosen = training.training_set(ledger, built.examples, instant(until, self.project.timezone))
            trained = training.train(ledger, declared, chosen)
            return Result(trained)

    def _build(self, ledger: Ledger, task: Task) -> Built:
        return loop.build(loop.prepare(ledger), task)

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def branch(self) -> Branch:
        """The live branch, or the newest finished replay where nothing live exists. Raises UnknownName when there is neither."""
        return serving_branch(self.ledger)

    @property
    def deployments(self) -> dict[str, Handle]:
        """What serves, by name."""
        live = live_branches(self.ledger)
        return {branch.name: Handle(self, branch.name, branch) for branch in live or [self.branch]}

    @property
    def histories(self) -> list[Branch]:
        """The branch that serves, and the newest finished replay: where a name may be known."""
        replays = [branch for branch in self.ledger.branches("replay") if branch.status == "finished"]
        return list({branch.id: branch for branch in (self.branch, *replays[:1])}.values())

    def lineage(self, ref: Ref | str) -> Node:
        """The way back from a thing: a ref, or text such as `boosted/3`, `late` or `prediction:late/KEY`. What the serving branch does
        not know is looked for in the newest replay."""
        histories = self.histories
        for branch in histories:
            try:
                return tree(self.ledger, branch, ref if isinstance(ref, Ref) else find_ref(self.ledger, branch, ref))
            except UnknownName:
                if branch is histories[-1]:
                    raise
        raise AssertionError(histories)

    def status(self) -> dict[str, Any]:
        """Deployments, versions, alerts, the last retraining, and the champion's lineage, as plain data."""
        return status(self.ledger, self.project, self.branch)


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


def serving_branch(ledger: Ledger) -> Branch:
    """The branch that `up` and `lineage` read."""
    live = live_branches(ledger)
    if live:
        return live[0]
    finished = [branch for branch in ledger.branches("replay") if branch.status == "finished"]
    if not finished:
        raise UnknownName("nothing serves yet", hint="run `tidemill run` or `tidemill replay` first")
    return finished[0]


def live_branches(ledger: Ledger) -> list[Branch]:
    """The live branches that have a champion."""
    return [branch for branch in ledger.branches("live") if branch.state]


def standing_of(ledger: Ledger, deployment: Deployment, branch: Branch) -> Standing:
    """Which versions serve on a branch."""
    state = loop.State.of(branch.state)
    previous = (state.previous.label, state.previous.digest) if state.previous else None
    rollout, challenger, weight = deployment.rollout, None, 0.0
    if state.candidate and state.candidate.phase == "canary" and rollout:
        challenger = (state.candidate.version.label, state.candidate.version.digest)
        weight = state.candidate.weight
    champion = (state.champion.label, state.champion.digest)
    return Standing(branch.id, champion, previous, challenger, weight, rollout.sticky_by if rollout else "")


def open_endpoint(ledger: Ledger, declared: project.Project, branch: Branch, online: OnlineStore | None = None) -> Endpoint:
    """The endpoint of the deployment of a branch."""
    deployment = declared.get(Deployment, branch.name)
    model = str(branch.parts["model"]["name"])
    fallback = [("constant", step.value) if isinstance(step, Constant) else ("previous version", 0.0) for step in deployment.fallback]
    standing = standing_of(ledger, deployment, branch)
    timeout = duration(deployment.timeout)
    return serving.open_endpoint(
        ledger, branch.name, branch.parts["recipe"], standing, model, fallback=fallback, timeout=timeout, online=online
    )


def online_store(declared: project.Project) -> LmdbOnline:
    """The project's online store; it is a cache below `.tidemill`."""
    return LmdbOnline(declared.state / "online")


def policy_of(declared: project.Project, name: str = "") -> RetrainPolicy:
    """The policy of a project, or of one of its deployments."""
    found = [policy for policy in declared.all(RetrainPolicy) if not name or policy.monitor.name == name]
    if len(found) != 1:
        names = [policy.monitor.name for policy in declared.all(RetrainPolicy)]
        raise DataError(
            f"{len(found)} policies fit, one is needed", where=str(declared.folder), available=names, hint="name the deployment"
        )
    return found[0]


def open(folder: str | Path = ".") -> Session:
    """The project in a folder. Raises MissingFile and DefinitionError, with file and line."""
    return Session(folder)
