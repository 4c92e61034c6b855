"""What is lost or damaged and can be made again: a model is trained on the set that it was made from, a segment of a replay's log is
answered by the versions that answered it. The same work gives the same bytes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidemill import registry, training
from tidemill.core import Damaged, Event, MissingFile, StoreError
from tidemill.data import broken
from tidemill.ledger import Artifact, Ledger
from tidemill.loop.origin import examples_of, own_definition, training_set_of
from tidemill.loop.state import Candidate, Served, State
from tidemill.loop.tick import Loop
from tidemill.models import Int8
from tidemill.training import Examples, Model, load_examples

log = logging.getLogger(__name__)


def mend(ledger: Ledger, branch: str, model: Model, examples: Examples, state: State) -> None:
    """Make the models whole that a state of a branch names. Raises Damaged where training gives another one than was lost."""
    candidate = state.candidate.version if state.candidate else None
    weighted = [one.version for one in state.weighted]
    versions = [one for one in (state.champion, state.frozen, state.previous, candidate, *weighted) if one is not None]
    for digest, label in {digest: one.label for one in versions for digest in (one.digest, one.twin) if digest}.items():
        artifact = ledger.artifact_of("model", digest)
        broken = _broken(ledger, artifact)
        if not broken:
            continue
        log.warning("model=%s lost=%s trained_again=true", label, ",".join(blob[:12] for blob in broken))
        chosen = training.training_set(ledger, *_made_from(ledger, artifact, examples), branch=branch)
        for blob in broken:
            ledger.blobs.delete(blob)  # a step whose bytes are there is not run again
        training.train(ledger, _as_then(model, own_definition(ledger, artifact)), chosen, branch=branch)
        if not all(ledger.blobs.has(blob) for blob in broken):
            hint = (
                "its code, data or libraries are not those of then: restore its blobs from a backup (`tidemill doctor` names them), "
                "or run once with what was then; without either, move the project's state away and begin anew"
            )
            raise Damaged(f"{label} is lost, and training it again gives another model", where=str(model.where), hint=hint)


def _as_then(model: Model, plain: Mapping[str, Any]) -> Model:
    """A model as it was defined when a version was trained: today's function with all else of then."""
    quantise = Int8(plain["quantise"]["most_loss"]) if "quantise" in plain else None
    named = {name: plain[name] for name in ("name", "seed", "params")}
    return replace(model, **named, quantise=quantise, pickle=plain.get("pickle", False))


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
    theirs = examples_of(ledger, model)
    return examples if theirs.erased or _broken(ledger, theirs) else load_examples(ledger, theirs), int(
        training_set_of(ledger, model).meta["until"]
    )


# ── the log of a replay ─────────────────────────────────────────────────────────────────────────────────────────────


def answer_again(loop: Loop, ticks: Sequence[int]) -> None:
    """Give the lost answers of a replay again: segment n is of the requests from the n-th tick to the next. Raises Damaged where other
    answers come out than were lost."""
    ledger, branch = loop.world.ledger, loop.world.branch
    for lost in broken(ledger, branch):
        log.warning("branch=%s segment=%d lost=%s answered_again=true", branch, lost.number, lost.digest[:12])
        ledger.blobs.delete(lost.digest)
        loop.answer(_standing(loop, lost.number, ticks[lost.number]), ticks[lost.number + 1])
        if not ledger.blobs.has(lost.digest):
            hint = "restore its blob from a backup (`tidemill doctor` names it), or move the project's state away and replay anew"
            raise Damaged(f"segment {lost.number} of branch {branch} is lost, and answering again gives other answers", hint=hint)


def _standing(loop: Loop, number: int, now: int) -> State:
    """Which versions answered from a tick on, by the decisions up to it."""
    champion = candidate = frozen = ""
    weight = 0.0
    for one in loop.world.ledger.decisions(loop.world.branch):
        if one.at > now:
            break
        match one.kind:
            case Event.RETRAINED:
                candidate, weight = one.subject, 0.0
            case Event.CANARY:
                weight = float(one.evidence["weight"])
            case Event.GATE_REFUSED | Event.ROLLED_BACK:
                candidate = ""
            case Event.PROMOTED:
                champion, candidate, frozen = one.subject, "", frozen or one.subject
    on_its_way = Candidate(_served(loop, candidate), "canary", now, "", weight=weight) if candidate else None
    return State(now, _served(loop, champion), _served(loop, frozen), candidate=on_its_way, segments=number)


def _served(loop: Loop, label: str) -> Served:
    version = registry.version(loop.world.ledger, loop.world.branch, label)
    return Served(label, version.number, version.digest, version.at, version.at)
