"""One branch as a person names its things: deployments, versions, predictions, and the way back from each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill import registry
from tidemill.core import Ref, UnknownName, show
from tidemill.data import Prediction, find_predictions
from tidemill.ledger import Branch, Ledger, Node, lineage
from tidemill.loop import State
from tidemill.serving import find_answers


@dataclass(frozen=True)
class History:
    """A branch of the ledger, and `log`: the file of what the gateway answered for its deployment."""

    ledger: Ledger
    branch: Branch
    log: Path

    def find(self, text: str) -> Ref:
        """What a person means: a deployment, a version (`boosted/3`), `prediction:KEY`, or `kind:name@version`. Raises UnknownName."""
        name = self.branch.name
        if text in (name, f"deployment:{name}"):
            return Ref("deployment", name)
        if text.startswith("prediction:"):
            key = text.removeprefix("prediction:").removeprefix(f"{name}/")
            if not self.answers(key):
                hint = "name the key of a request that was answered"
                raise UnknownName(f"deployment {name!r} made no prediction for {key!r}", hint=hint)
            return Ref("prediction", f"{name}/{key}")
        labels = {version.label: version.ref for version in registry.versions(self.ledger, self.branch.id)}
        labels |= {f"model:{ref.name}@{ref.version}": ref for ref in labels.values()}
        if text in labels:
            return labels[text]
        if ":" in text:
            return self.ledger.artifact(Ref.parse(text)).ref
        available = [name, *(label for label in labels if "/" in label), "prediction:KEY", "dataset:NAME"]
        raise UnknownName(f"nothing is named {text!r} in branch {self.branch.id}", available=available)

    def answers(self, key: str) -> list[Prediction]:
        """The newest answer that a key got from the loop, and the newest from the gateway."""
        both = find_predictions(self.ledger, self.branch.id, self.branch.name, key), find_answers(self.log, self.branch.id, key)
        return [found[-1] for found in both if found]

    def tree(self, ref: Ref) -> Node:
        """Lineage with the things that a branch adds to the ledger's own: predictions, deployments and numbered versions."""
        name, deployment = self.branch.name, Ref("deployment", self.branch.name, self.branch.id)
        if ref.kind == "prediction":
            answers = self.answers(ref.name.removeprefix(f"{name}/"))
            by = (Node(deployment, "answered by", answer.plain(), None, self._version(answer.version)) for answer in answers)
            return Node(ref, "", {}, None, tuple(by))
        if ref.kind == "deployment":
            return Node(deployment, "", {}, None, self._version(State.of(self.branch.state).champion.label))
        if ref.kind != "model":
            return lineage(self.ledger, ref)
        artifact = self.ledger.artifact(Ref("model", ref.name, "" if ref.digest else ref.version, ref.digest)).ref
        found = lineage(self.ledger, artifact)
        return Node(Ref("model", ref.name, ref.version, artifact.digest), "version", found.meta, found.execution, found.parents)

    def _version(self, label: str) -> tuple[Node, ...]:
        """The way back from a version; nothing for the constant of the ladder, which has none."""
        return (self.tree(registry.version(self.ledger, self.branch.id, label).ref),) if label else ()


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
    kept: Any = meta.get("isolated")
    shown += [f"isolated: {kept['why']}"] if isinstance(kept, dict) else []
    if isinstance(meta.get("until"), int):
        shown.append(f"known until {show(int(str(meta['until'])))}")
    if node.role == "answered by":
        shown.append(f"{meta['probability']:.4f} at {meta['at']} by {meta['version']} ({meta['rung']})")
    return ", ".join(shown)
