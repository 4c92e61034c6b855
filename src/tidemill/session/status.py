"""What a person asks of a project: deployments, versions, alerts, the last retraining. Plain data, read from the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill import registry
from tidemill.core import Event, show
from tidemill.ledger import Decision, Ledger
from tidemill.loop import Served, State, Waiting, shared_by
from tidemill.models import form_of, why_isolated
from tidemill.project import Project
from tidemill.serving import Deployment
from tidemill.session.history import History, plain_tree

ALERTS = (Event.DRIFT_FOUND, Event.QUALITY_DROP, Event.SKEW_FOUND)


def status(
    declared: Project, serving: Mapping[str, History], refused: Mapping[str, Decision], waiting: Mapping[str, Sequence[Waiting]]
) -> dict[str, Any]:
    """Everything that the status page shows, by deployment: `serving` are the branches that serve, `refused` the gates' last no to a
    first live model, `waiting` the versions that people must agree to."""
    settings = declared.settings
    names = [deployment.name for deployment in declared.all(Deployment)]
    return {
        "project": {name: settings[f"project.{name}"] for name in ("name", "objective", "owner", "positive", "timezone")},
        "deployments": [
            (_deployment(declared, serving[name]) if name in serving else {"name": name})
            | ({"refused": _event(refused[name])} if name in refused else {})
            | ({"waiting": [one.plain() for one in waiting[name]]} if waiting.get(name) else {})
            for name in names
        ],
    }


def _event(decision: Decision) -> dict[str, Any]:
    return {"at": show(decision.at), "kind": decision.kind, "subject": decision.subject, "why": decision.why}


def _served(served: Served | None) -> dict[str, Any] | None:
    return (
        None
        if served is None
        else {"label": served.label, "digest": served.digest[:12], "until": show(served.until), "since": show(served.since)}
    )


def _deployment(declared: Project, history: History) -> dict[str, Any]:
    ledger, branch = history.ledger, history.branch
    state, decisions = State.of(branch.state), list(reversed(ledger.decisions(branch.id)))
    champion = registry.version(ledger, branch.id, state.champion.label)
    deployment = declared.get(Deployment, branch.name)
    return {
        "name": branch.name,
        "branch": {"id": branch.id, "kind": branch.kind, "status": branch.status, "now": show(state.now)},
        "champion": _served(state.champion),
        "previous": _served(state.previous),
        "candidate": _candidate(state, deployment),
        "weighted": [_served(one.version) for one in state.weighted],
        "shares": shared_by(state),
        "fallback": [step.name for step in deployment.fallback],
        "isolated": _isolated(ledger, state),
        "versions": [_version(version, state, decisions) for version in reversed(registry.versions(ledger, branch.id))],
        "watched": _newest(decisions, Event.WATCHED),
        "compared": _newest(decisions, Event.FEATURES_COMPARED),
        "held": state.skew if (branch.parts["policy"]["monitor"].get("skew") or {}).get("hold") else "",
        "alerts": [_event(d) for d in decisions if d.kind in ALERTS][:10],
        "retrainings": [_event(d) for d in decisions if d.kind == Event.RETRAINED][:5],
        "lineage": plain_tree(history.tree(champion.ref)),
        **{name: branch.result.get(name) for name in ("months", "mean", "gain", "cost")},
    }


def _isolated(ledger: Ledger, state: State) -> dict[str, str]:
    """Of the versions that may be asked and have no compiled form, by label, in which form they answer, and why."""
    standing = [state.champion, state.previous, state.candidate and state.candidate.version, *(one.version for one in state.weighted)]
    found = {one.label: ledger.artifact_of("model", one.digest) for one in standing if one}
    return {label: form_of(artifact) for label, artifact in found.items() if why_isolated(artifact)}


def _newest(decisions: Sequence[Decision], kind: Event) -> dict[str, Any] | None:
    return next(({**_event(one), "found": one.evidence} for one in decisions if one.kind == kind), None)


def _candidate(state: State, deployment: Deployment) -> dict[str, Any] | None:
    if state.candidate is None:
        return None
    canary = deployment.rollout is not None and state.candidate.phase == "canary"
    weight = state.candidate.weight if canary else 0.0
    return {**(_served(state.candidate.version) or {}), "phase": state.candidate.phase, "weight": weight}


def _version(version: registry.Version, state: State, newest: list[Decision]) -> dict[str, Any]:
    """A version with its role: that of now, or that it left, by a rollback."""
    last = next((d.kind for d in newest if d.subject == version.label and d.kind in (Event.PROMOTED, Event.ROLLED_BACK)), None)
    roles = {state.previous.label if state.previous else "": "previous"}
    roles |= {one.version.label: "weighted" for one in state.weighted} | {state.champion.label: "champion"}
    roles |= {state.candidate.version.label: "candidate"} if state.candidate else {}
    verdict, left = version.verdict, "rolled back" if last == Event.ROLLED_BACK else ""
    found = {"label": version.label, "digest": version.digest[:12], "at": show(version.at), "role": roles.get(version.label, left)}
    return found | {"passed": verdict.passed if verdict else None, "reason": verdict.reason if verdict else ""}
