"""Back to an earlier version at once: a person's word, for versions that the gates passed before. Nothing is built or trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection

from tidemill import registry
from tidemill.core import Approval, Event, Refused, UnknownName, show
from tidemill.ledger import Branch, Decision, Ledger
from tidemill.loop.origin import examples_of, otherwise, reads, training_set_of
from tidemill.loop.people import approvals
from tidemill.loop.state import Served, State
from tidemill.models import golden_differences, golden_of, load_model
from tidemill.registry import Version

PUT_BACK = "put their definitions back and `tidemill run`: a version is trained on them and judged again"


@dataclass(frozen=True)
class Restored:
    """A rollback that was done: which version served, which does now, and the candidate that was dropped, if one was on its way."""

    branch: str
    before: str
    now: str
    dropped: str


def roll_back(
    ledger: Ledger, deployment: str, *, to: str = "", needed: Callable[[], int] = int, who: str, user: str, why: str, at: int
) -> Restored:
    """Let an earlier version of a deployment serve again: `to` (`boosted/2`, or its number), or the champion before. A candidate on its
    way is dropped, and the cooldown of retraining begins again. A version that never served so many people must have approved as `needed`
    gives. `at` is now (microseconds UTC), `user` who runs this.

    Raises Refused for a version that cannot serve: without a passing verdict or those people, with other features, or of a replay;
    UnknownName; Busy.
    """
    branch = live_of(ledger, deployment)
    state = State.of(branch.state)
    if at < state.now:
        raise Refused(f"{show(at)} is before the last pass at {show(state.now)}", hint="correct the clock of this machine")
    target = _target(ledger, branch, state, to)
    if target.label == state.champion.label:
        raise Refused(f"{target.label} serves already", where=branch.name, hint="name another version with --to")
    decisions = ledger.decisions(branch.id)
    check_servable(ledger, branch, state, target, decisions, needed)
    served, reference = as_before(ledger, target, decisions)
    after = replace(
        state,
        champion=replace(served, since=at),
        previous=None,
        candidate=None,
        weighted=(),
        reference=reference,
        pending=(),
        last_attempt=at,
    )
    people = approvals(ledger, branch.id, target.label, target.digest)
    with ledger.records.begin() as connection:
        _write(ledger, connection, branch, state, target, people, {"who": who, "at": at}, why, user, after)
        ledger.save_branch(connection, branch.id, branch.state, after.plain())
    dropped = state.candidate.version.label if state.candidate else ""
    return Restored(branch.id, state.champion.label, target.label, dropped)


def live_of(ledger: Ledger, deployment: str) -> Branch:
    """The live branch of a deployment that has a champion."""
    branches = ledger.branches()
    found = next((one for one in branches if one.kind == "live" and one.name == deployment and one.state), None)
    if found is not None:
        return found
    if any(one.kind == "replay" and one.name == deployment for one in branches):
        what = f"deployment {deployment} is served from a replay, which is the past as it was: nothing in it is changed"
        raise Refused(what, hint=f"`tidemill run --deployment {deployment}` begins a live branch")
    names = sorted({one.name for one in branches if one.kind == "live"})
    raise UnknownName(f"no deployment {deployment!r} serves", available=names, hint="name a deployment, or models:/NAME@ALIAS")


def _target(ledger: Ledger, branch: Branch, state: State, to: str) -> Version:
    """The version to go back to; raises UnknownName and Refused."""
    if to:
        return registry.version(ledger, branch.id, to if "/" in to else f"{state.champion.model}/{to}")
    past = [f"{ref.name}/{ref.version}" for ref, _, _ in ledger.alias_history(branch.id, branch.name, "champion")]
    before = registry.version_before(past)
    if not before:
        passed = [one.label for one in registry.versions(ledger, branch.id) if one.verdict and one.verdict.passed]
        others = [label for label in passed if label != state.champion.label]
        hint = "name a version with --to" if others else "no other version has passed its gates yet"
        raise Refused(f"{state.champion.label} is the first champion of {branch.name}", available=others, hint=hint)
    return registry.version(ledger, branch.id, before)


def check_servable(
    ledger: Ledger, branch: Branch, state: State, target: Version, decisions: list[Decision], needed: Callable[[], int]
) -> None:
    """Raise Refused where the version cannot serve in place of the champion, or beside it: to one that never did, so many people must have
    agreed as `needed` gives."""
    where = branch.name
    if target.verdict is None or not target.verdict.passed:
        what = f"{target.label} has no passing verdict" + (f": {target.verdict.reason}" if target.verdict else "")
        raise Refused(what, where=where, hint=f"`tidemill models show {target.name}` shows the verdicts")
    agreed = len(approvals(ledger, branch.id, target.label, target.digest))
    if not any((one.kind, one.subject) == (Event.PROMOTED, target.label) for one in decisions) and agreed < (people := needed()):
        raise Refused(f"{target.label} has {agreed} approvals, {people} are needed", where=where, hint=f"`tidemill approve {target.label}`")
    model = ledger.artifact_of("model", target.digest)
    own = registry.facts_of_model(ledger, model, target.label).features
    champion = registry.facts_of_model(ledger, ledger.artifact_of("model", state.champion.digest), state.champion.label).features
    other = sorted(name for name in own if own[name] != champion.get(name))
    if other:
        what = f"{target.label} reads features that {where} no longer serves as they were: {', '.join(other[:5])}"
        raise Refused(what, where=where, hint=PUT_BACK)
    theirs, served = (
        reads(ledger, examples_of(ledger, ledger.artifact_of("model", one)).ref) for one in (target.digest, state.champion.digest)
    )
    other = [name for name in otherwise(theirs, served) if not name.startswith("view ")]  # of a view, what it does not read may differ
    if other:
        what = f"{target.label} learnt from what {where} defines otherwise by now: {', '.join(other)}"
        raise Refused(what, where=where, hint=PUT_BACK)
    wrong = golden_differences(load_model(ledger, model), golden_of(ledger, model))
    if wrong:
        what = f"{target.label} answers {wrong} of its golden cases otherwise than when it was made"
        raise Refused(what, where=where, hint="the runtime or the machine differs from the one it was made on: train it again here")


def as_before(ledger: Ledger, target: Version, decisions: list[Decision]) -> tuple[Served, dict[str, float]]:
    """The version as it served, with the quality that it was judged by: from its promotion, from when it was made where it never served,
    or from what else is recorded of it."""
    own = [one for one in decisions if one.subject == target.label]
    told: Mapping[str, Any] = next((one.evidence for one in reversed(own) if "served" in one.evidence), {})
    if told:
        return msgspec.convert(told["served"], Served), dict(told["reference"])
    watched: Mapping[str, float] = next((one.evidence.get("reference", {}) for one in reversed(own) if one.kind == Event.WATCHED), {})
    until = int(training_set_of(ledger, ledger.artifact_of("model", target.digest)).meta["until"])
    return Served(target.label, target.number, target.digest, until, target.at), dict(watched)


def _write(
    ledger: Ledger,
    connection: Connection,
    branch: Branch,
    state: State,
    target: Version,
    people: Sequence[Approval],
    by: dict[str, Any],
    why: str,
    user: str,
    after: State,
) -> None:
    """What is written down: the candidate that is dropped, the champion that goes, the one that comes back."""
    verdict = target.verdict
    assert verdict is not None
    told = {"to": target.label, "user": user}
    for served in [state.candidate.version] if state.candidate else []:
        version = Version(branch.id, served.model, served.number, served.digest, served.since)
        dropped = f"dropped: {branch.name} goes back to {target.label}"
        registry.roll_back(ledger, connection, branch.name, version, target, why=dropped, evidence=told, **by)
    gone: dict[str, Any] = {"kind": Event.ROLLED_BACK, "subject": state.champion.label, "why": why, "evidence": told}
    ledger.decide(connection, branch.id, **by, **gone)
    if state.weighted:
        end_weights(ledger, connection, branch.id, branch.name, state, f"{branch.name} goes back to {target.label}", user=user, **by)
    kept = {"served": asdict(after.champion), "reference": after.reference, "user": user}
    said = f"rolled back from {state.champion.label}: {why}"
    registry.promote(ledger, connection, branch.name, target, verdict, people, why=said, kept=kept, **by)


def end_weights(
    ledger: Ledger, connection: Connection, branch: str, deployment: str, state: State, why: str, *, who: str, at: int, user: str
) -> None:
    """Write down that the champion answers again what other versions had a share of."""
    before = {one.version.label: one.weight for one in state.weighted}
    told: dict[str, Any] = {"weights": {}, "before": before, "user": user}
    ledger.decide(connection, branch, at=at, who=who, kind=Event.WEIGHTED, subject=deployment, why=why, evidence=told)
