"""By what a model was made, as its lineage tells it: its own definition, its training set, and what it reads and learns."""

from collections.abc import Mapping
from typing import Any

from tidemill.core import Ref
from tidemill.ledger import Artifact, Ledger, lineage, nodes


def own_definition(ledger: Ledger, model: Artifact) -> dict[str, Any]:
    """The definition that a model was trained by."""
    newest = max(edge.execution for edge in ledger.parents(model.ref))
    return dict(ledger.execution(newest).inputs["definition"])


def training_set_of(ledger: Ledger, model: Artifact) -> Artifact:
    """The training set of a model; its `meta` names the examples and the cut-off."""
    sets = [edge.parent for edge in ledger.parents(model.ref) if edge.parent.startswith("training set:")]
    return ledger.artifact(Ref.parse(sets[-1]))


def examples_of(ledger: Ledger, model: Artifact) -> Artifact:
    """The examples that a model was trained on."""
    return ledger.artifact(Ref.parse(training_set_of(ledger, model).meta["examples"]))


def reads(ledger: Ledger, examples: Ref) -> dict[str, Any]:
    """What examples mean, by name: the definition of each view, what each dataset's rows are made by, when it is asked, and the label."""
    found: dict[str, Any] = {}
    for node in nodes(lineage(ledger, examples)):
        if node.execution is None:  # a source file
            continue
        made = node.execution.inputs
        match node.ref.kind:
            case "examples":
                task = made["definition"]
                found |= {"predict_at": task["predict_at"], "label": (task["label"]["dataset"], task["label"]["expression"])}
            case "requests":
                found |= {f"view {view['name']}": view for view in made["views"]}
            case "feature view":
                found[f"view {node.ref.name}"] = made["definition"]
            case "dataset":
                found[f"dataset {node.ref.name}"] = rows_of(made["definition"])
    return found


def otherwise(theirs: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """The names of what is defined otherwise today, or not any more; what has been added since is nobody's loss."""
    return sorted(name for name, value in theirs.items() if today.get(name) != value)


def rows_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What says which rows a dataset has: neither its checks nor where its files lie."""
    sources = {name: {key: value for key, value in one.items() if key != "path"} for name, one in dataset["sources"].items()}
    return {**{key: value for key, value in dataset.items() if key != "checks"}, "sources": sources}
