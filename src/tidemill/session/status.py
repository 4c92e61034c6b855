"""What a person asks of a project: its status, and the way back from anything that it names. Plain data, read from the ledger."""

from typing import Any

from tidemill import registry
from tidemill.core import Ref, UnknownName, show
from tidemill.data import find_predictions
from tidemill.ledger import Branch, Decision, Ledger, Node, lineage
from tidemill.loop import Served, State
from tidemill.project import Project
from tidemill.serving import Constant, Deployment

ALERTS = ("drift found", "quality drop", "stale data")


def status(ledger: Ledger, declared: Project, branch: Branch) -> dict[str, Any]:
    """Everything that the status page shows."""
    state, decisions = State.of(branch.state), ledger.decisions(branch.id)
    versions = registry.versions(ledger, branch.id)
    champion = registry.version(ledger, branch.id, state.champion.label)
    settings = declared.settings
    alerts = [_event(d) for d in reversed(decisions) if d.kind in ALERTS][:10]
    return {
        "project": {name: settings[f"project.{name}"] for name in ("name", "objective", "owner")},
        "branch": {"id": branch.id, "kind": branch.kind, "status": branch.status, "now": show(state.now)},
        "deployments": [_deployment(ledger, declared, branch, state)],
        "versions": [_version(version, state) for version in reversed(versions)],
        "alerts": alerts,
        "retrainings": [_event(d) for d in reversed(decisions) if d.kind == "retrained"][:5],
        "lineage": plain_tree(tree(ledger, branch, champion.ref)),
        **{name: branch.result.get(name) for name in ("months", "mean", "gain", "cost")},
    }


def _event(decision: Decision) -> dict[str, Any]:
    return {"at": show(decision.at), "kind": decision.kind, "subject": decision.subject, "why": decision.why}


def _served(served: Served | None) -> dict[str, Any] | None:
    return (
        None
        if served is None
        else {"label": served.label, "digest": served.digest[:12], "until": show(served.until), "since": show(served.since)}
    )


def _deployment(ledger: Ledger, declared: Project, branch: Branch, state: State) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": branch.name,
        "champion": _served(state.champion),
        "previous": _served(state.previous),
        "candidate": None,
    }
    deployment = declared.get(Deployment, branch.name)
    found["fallback"] = [f"constant {step.value:g}" if isinstance(step, Constant) else "previous version" for step in deployment.fallback]
    if state.candidate:
        canary = deployment.rollout is not None and state.candidate.phase == "canary"
        weight = state.candidate.weight if canary else 0.0
        found["candidate"] = {**(_served(state.candidate.version) or {}), "phase": state.candidate.phase, "weight": weight}
    return found


def _version(version: registry.Version, state: State) -> dict[str, Any]:
    roles = {state.champion.label: "champion", state.previous.label if state.previous else "": "previous"}
    roles |= {state.candidate.version.label: "candidate"} if state.candidate else {}
    verdict = version.verdict
    found = {"label": version.label, "digest": version.digest[:12], "at": show(version.at), "role": roles.get(version.label, "")}
    return found | {"passed": verdict.passed if verdict else None, "reason": verdict.reason if verdict else ""}


def find_ref(ledger: Ledger, branch: Branch, text: str) -> Ref:
    """What a person means: a deployment, a version (`boosted/3`), `prediction:KEY`, or `kind:name@version`. Raises UnknownName."""
    state = State.of(branch.state)
    if text in (branch.name, f"deployment:{branch.name}"):
        return Ref("deployment", branch.name)
    if text.startswith("prediction:"):
        key = text.removeprefix("prediction:").removeprefix(f"{branch.name}/")
        if not find_predictions(ledger, branch.id, branch.name, key):
            example = "the key of a request, for example one that `tidemill status` shows"
            raise UnknownName(f"deployment {branch.name!r} made no prediction for {key!r}", hint=example)
        return Ref("prediction", f"{branch.name}/{key}")
    labels = {version.label: version.ref for version in registry.versions(ledger, branch.id)}
    labels |= {f"model:{ref.name}@{ref.version}": ref for ref in labels.values()}
    if text in labels:
        return labels[text]
    if ":" in text:
        return ledger.artifact(Ref.parse(text)).ref
    available = [branch.name, *(label for label in labels if "/" in label), "prediction:KEY", "dataset:NAME"]
    raise UnknownName(f"nothing is named {text!r} in branch {branch.id} ({state.champion.label} serves)", available=available)


def tree(ledger: Ledger, branch: Branch, ref: Ref) -> Node:
    """Lineage with the things that a branch adds to the ledger's own: predictions, deployments and numbered versions."""
    if ref.kind == "prediction":
        key = ref.name.removeprefix(f"{branch.name}/")
        answer = find_predictions(ledger, branch.id, branch.name, key)[-1]
        version = registry.version(ledger, branch.id, answer.version)
        deployment = Node(Ref("deployment", branch.name, branch.id), "answered by", {}, None, (tree(ledger, branch, version.ref),))
        return Node(ref, "", answer.plain(), None, (deployment,))
    if ref.kind == "deployment":
        state = State.of(branch.state)
        version = registry.version(ledger, branch.id, state.champion.label)
        return Node(Ref("deployment", branch.name, branch.id), "", {}, None, (tree(ledger, branch, version.ref),))
    if ref.kind == "model":
        return _version_node(ledger, ledger.artifact(Ref("model", ref.name, "" if ref.digest else ref.version, ref.digest)).ref, ref)
    return lineage(ledger, ref)


def _version_node(ledger: Ledger, artifact: Ref, version: Ref) -> Node:
    found = lineage(ledger, artifact)
    return Node(Ref("model", version.name, version.version, artifact.digest), "version", found.meta, found.execution, found.parents)


def plain_tree(node: Node) -> dict[str, Any]:
    """A lineage as plain data, with the execution between a thing and what it was made from."""
    parents = [plain_tree(parent) for parent in node.parents]
    if node.execution is not None:
        run = node.execution
        own = run.inputs.get("definition", {}).get("code", "")
        function = f"function {own[:12]}, " if own else ""
        detail = f"{function}code {run.code[:12]}, environment {run.environment[:12]}, run {run.id}"
        parents = [{"ref": f"{run.kind}:{run.name}", "role": "made by", "detail": detail, "parents": parents}]
    return {"ref": _name(node.ref), "role": node.role, "detail": _detail(node), "parents": parents}


def _name(ref: Ref) -> str:
    return f"{ref.kind}:{ref.name}" + (f"@{ref.version}" if ref.version else "")


def _detail(node: Node) -> str:
    """The few facts about a thing that tell it apart."""
    meta = node.meta
    shown = [f"digest {node.ref.digest[:12]}"] if node.ref.digest else []
    shown += [f"{meta[name]:,} {name}" for name in ("rows", "positives", "rounds", "bytes") if isinstance(meta.get(name), int)]
    if isinstance(meta.get("until"), int):
        shown.append(f"known until {show(int(str(meta['until'])))}")
    if node.ref.kind == "prediction":
        shown.append(f"{meta['probability']:.4f} at {meta['at']} by {meta['version']} ({meta['rung']})")
    return ", ".join(shown)
