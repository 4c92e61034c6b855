"""Where a version comes from that a client registered: its run, and the datasets and logged models that the run read."""

from contextlib import suppress

from tidemill.core import Ref, UnknownName
from tidemill.ledger import Ledger, Node, lineage
from tidemill.registry import ModelVersion
from tidemill.tracking import Dataset, get_run


def registered_tree(ledger: Ledger, version: ModelVersion, *, forward: bool = False) -> Node:
    """The way back from a version, as far as its run tells; or `forward`, the aliases by which it is found."""
    ref = Ref("registered model", version.name, version.version)
    if forward:
        return Node(
            ref, "", {}, None, tuple(Node(Ref("alias", version.name, alias), "found as", {}, None, ()) for alias in version.aliases or ())
        )
    parents = _run(ledger, version.run_id) if version.run_id else ()
    return Node(ref, "", {"source": version.source or ""}, None, parents)


def _read(ledger: Ledger, one: Dataset) -> Node:
    """What a run read; of a thing of this project the way back to its sources."""
    with suppress(UnknownName):
        return lineage(ledger, ledger.artifact_of(Ref.parse(one.source).kind, one.digest).ref, role="read")
    return Node(Ref("dataset", one.name, one.digest), "read", {}, None, ())


def _run(ledger: Ledger, run_id: str) -> tuple[Node, ...]:
    try:
        run = get_run(ledger, run_id)
    except UnknownName:  # it was never here
        return (Node(Ref("run", run_id), "run", {}, None, ()),)
    data = [one.dataset for one in run.inputs.dataset_inputs or () if one.dataset]
    read = [_read(ledger, one) for one in data]
    read += [Node(Ref("logged model", one.model_id), "read", {}, None, ()) for one in run.inputs.model_inputs or ()]
    return (Node(Ref("run", run.info.run_name or run_id, run_id), "run", {}, None, tuple(read)),)
