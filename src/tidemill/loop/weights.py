"""Weights over versions: which registered versions share the requests of a deployment. A person's word; nothing is built or trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import fsum, isfinite

from tidemill import registry
from tidemill.core import DataError, Event, Refused, show
from tidemill.ledger import Branch, Ledger
from tidemill.loop.rollback import as_before, check_servable, live_of
from tidemill.loop.state import State, Weighted
from tidemill.serving import shares

CHAMPION = "champion"


@dataclass(frozen=True)
class Shared:
    """Of a deployment the share of the keys that each version answers, by its label, the champion's first: before, and now."""

    before: dict[str, float]
    now: dict[str, float]


def set_weights(
    ledger: Ledger, deployment: str, weights: Mapping[str, float], *, needed: int = 0, who: str, user: str, why: str, at: int
) -> Shared:
    """Give versions (`boosted/2`, or its number) their weights, from 0 to 1; the champion answers what is left, and all where no other has
    a weight. A candidate on its way takes its share before them. Weights end with a rollback, and where the definitions of features change;
    a version that becomes champion leaves them. `needed` people must have approved a version that never served; `at` is now (microseconds
    UTC), `user` who runs this.

    Raises DataError for weights that are none; Refused for a version that cannot serve: without a passing verdict, with other features, on
    its way, or of a replay; UnknownName; Busy.
    """
    branch = live_of(ledger, deployment)
    state = State.of(branch.state)
    if at < state.now:
        raise Refused(f"{show(at)} is before the last pass at {show(state.now)}", hint="correct the clock of this machine")
    wanted = _wanted(state, weights)
    weighted = tuple(_weighted(ledger, branch, state, label, weight, needed) for label, weight in wanted.items())
    after = replace(state, weighted=weighted)
    told = {"weights": wanted, "before": {one.version.label: one.weight for one in state.weighted}, "user": user}
    with ledger.records.begin() as connection:
        ledger.decide(connection, branch.id, at=at, who=who, kind=Event.WEIGHTED, subject=branch.name, why=why, evidence=told)
        ledger.save_branch(connection, branch.id, branch.state, after.plain())
    return Shared(shared_by(state), shared_by(after))


def shared_by(state: State) -> dict[str, float]:
    """The share of the keys that each version answers, by its label, the champion's first."""
    candidate = state.candidate if state.candidate and state.candidate.phase == "canary" else None
    label, weight = (candidate.version.label, candidate.weight) if candidate else ("", 0.0)
    return shares(state.champion.label, label, weight, {one.version.label: one.weight for one in state.weighted})


def _wanted(state: State, weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of others than the champion, by label. Raises DataError."""
    own, found = state.champion, dict[str, float]()
    for text, weight in weights.items():
        label = own.label if text == CHAMPION else text if "/" in text else f"{own.model}/{text}"
        if not isfinite(weight) or not 0 <= weight <= 1:
            raise DataError(f"the weight of {label} is {weight:g}", hint="a weight is a share from 0 to 1, for example 0.2")
        if label in found:
            raise DataError(f"{label} is named twice", hint="name each version once")
        found[label] = weight
    total = fsum(found.values())
    if total > 1 + 1e-9:
        raise DataError(
            f"the weights make {total:g} together", hint=f"together they are 1 at most; what is left is the champion's, {own.label}"
        )
    if own.label in found and total < 1 - 1e-9:
        left = 1 - total + found[own.label]
        what = f"{own.label} is the champion, which answers all that the others leave: {left:g}, and not {found[own.label]:g}"
        raise DataError(what, hint=f"leave {own.label} out, or let all weights make 1 together")
    return {label: weight for label, weight in found.items() if weight > 0 and label != own.label}


def _weighted(ledger: Ledger, branch: Branch, state: State, label: str, weight: float, needed: int) -> Weighted:
    """A version with its weight. Raises UnknownName, and Refused where it may not serve."""
    if state.candidate and state.candidate.version.label == label:
        what = f"{label} is on its way ({state.candidate.phase}): its share is moved by the gates and the rollout"
        raise Refused(what, where=branch.name, hint=f"`tidemill why {label}` says how far it is")
    version = registry.version(ledger, branch.id, label)
    decisions = ledger.decisions(branch.id)
    check_servable(ledger, branch, state, version, decisions, lambda: needed)
    return Weighted(as_before(ledger, version, decisions)[0], weight)
