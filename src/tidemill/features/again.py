"""Saved rows made again from what the ledger recorded of them: the same rows, views and cut-off give the same digest."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tidemill.core import Damaged, DataError, Ref
from tidemill.data import Dataset, table
from tidemill.features.arrays import Function
from tidemill.features.declarations import FeatureView, from_definition
from tidemill.features.frames import Stored
from tidemill.features.historical import Chosen, Listen, Opened, Question, quiet
from tidemill.features.outputs import bound
from tidemill.features.request_rows import Computed
from tidemill.features.saved import Brought, bring, digest_of, execution_of, made, rows_of
from tidemill.features.views import load
from tidemill.ledger import Artifact, Execution, Ledger
from tidemill.store import put_file


def make_again(ledger: Ledger, saved: Artifact, functions: Iterable[Function] = (), *, listen: Listen = quiet) -> None:
    """Compute saved rows anew, and put their file back where it was lost. `functions` are the functions of request views that are here.
    Raises Damaged where other rows come out, DataError and MissingFile where what they came from is not there any more."""
    execution = execution_of(ledger, saved.ref)
    question = _question(ledger, execution.inputs, functions)
    with _rows(ledger, execution) as brought, made(brought, question, 0, listen) as (file, _):
        digest = digest_of(file)
        if digest == saved.ref.digest:
            put_file(ledger.blobs, file)
            return
    hint = "Tidemill's code or its libraries are not those of then; save the rows anew, which says what differs"
    raise Damaged(f"{saved.ref} made again is something else: its digest is {digest[:12]}", hint=hint)


@contextmanager
def _rows(ledger: Ledger, execution: Execution) -> Iterator[Brought]:
    """The rows of then: those that the ledger keeps, or a file of the user's where it still is what it was."""
    head, _, digest = execution.inputs["rows"].rpartition("#")
    kind, _, name = head.partition(":")
    if kind == "dataset":
        yield rows_of(ledger, ledger.artifact_of(kind, digest), execution.inputs["until"])
    elif kind == "rows":
        file = ledger.blobs.path(digest)
        yield Brought(Ref.of(kind, name, digest), Stored("the rows", f"SELECT * FROM {table(file)}"), file, {})
    else:
        with bring(execution.params["file"], name) as brought:
            if brought.ref.digest != digest:
                hint = f"bring back the file whose digest begins with {digest[:12]}"
                raise DataError(f"{name} is not what it was", where=str(brought.file), hint=hint)
            yield brought


def _question(ledger: Ledger, inputs: Mapping[str, Any], functions: Iterable[Function]) -> Question:
    """What was asked, over the versions of then."""
    own = {name: plain["definition"] for name, plain in inputs["request views"].items()}
    views = {name: from_definition(plain, functions) for name, plain in {**inputs["definitions"], **own}.items()}
    owner = {full: view for view in views.values() for full in view.names}
    chosen = [Chosen(owner[full], (full,)) for full in inputs["features"] if full in owner]  # the others are statuses
    opened, computed = dict[str, Opened](), dict[str, Computed]()
    for view in {one.view.name: one.view for one in chosen}.values():
        if isinstance(view, FeatureView):
            version = ledger.artifact_of("feature view", inputs["views"][view.name].rpartition("#")[2])
            opened[view.name] = Opened(load(ledger, view, version), inputs["keys"][view.name], version)
        else:
            said = inputs["request views"][view.name]
            dataset = Dataset.recorded(view.dataset.name, "event", timezone=said["timezone"])
            computed[view.name] = Computed.of(bound(ledger, replace(view, dataset=dataset)), said["types"])
    asked = {name: inputs[name] for name in ("as_known", "timezone", "status", "until")}
    return Question(chosen, opened, inputs["at"], computed, **asked)
