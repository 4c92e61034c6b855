"""A model whose bytes are lost or damaged is trained again on the set that it was made from: the same training gives the same bytes."""

import logging

from tidemill import training
from tidemill.core import Damaged, MissingFile, Ref, StoreError
from tidemill.ledger import Artifact, Ledger
from tidemill.loop.state import State
from tidemill.training import Examples, Model, load_examples

log = logging.getLogger(__name__)


def mend(ledger: Ledger, branch: str, model: Model, examples: Examples, state: State) -> None:
    """Make the models whole that a state of a branch names. Raises Damaged where training gives another one than was lost."""
    candidate = state.candidate.version if state.candidate else None
    versions = [one for one in (state.champion, state.frozen, state.previous, candidate) if one is not None]
    for digest, label in {digest: one.label for one in versions for digest in (one.digest, one.twin) if digest}.items():
        artifact = ledger.artifact_of("model", digest)
        broken = _broken(ledger, artifact)
        if not broken:
            continue
        log.warning("model=%s lost=%s trained_again=true", label, ",".join(blob[:12] for blob in broken))
        chosen = training.training_set(ledger, *_made_from(ledger, artifact, examples), branch=branch)
        for blob in broken:
            ledger.blobs.delete(blob)  # a step whose bytes are there is not run again
        training.train(ledger, model, chosen, branch=branch)
        if not all(ledger.blobs.has(blob) for blob in broken):
            hint = (
                "its code, data or libraries are not those of then: restore its blobs from a backup (`tidemill doctor` names them), "
                "or run once with what was then; without either, move the project's state away and begin anew"
            )
            raise Damaged(f"{label} is lost, and training it again gives another model", where=str(model.where), hint=hint)


def _broken(ledger: Ledger, artifact: Artifact) -> list[str]:
    """The blobs of an artifact that are not there or not what was written."""
    found = []
    for blob in artifact.meta["blobs"].values():
        try:
            ledger.blobs.verify(blob)
        except (MissingFile, StoreError):
            found.append(blob)
    return found


def _made_from(ledger: Ledger, model: Artifact, examples: Examples) -> tuple[Examples, int]:
    """The examples and the cut-off of a model's training set; of lost ones, those of today, which may hold the same rows."""
    sets = [edge.parent for edge in ledger.parents(model.ref) if edge.parent.startswith("training set:")]
    meta = ledger.artifact(Ref.parse(sets[-1])).meta
    theirs = ledger.artifact(Ref.parse(meta["examples"]))
    return examples if _broken(ledger, theirs) else load_examples(ledger, theirs), int(meta["until"])
