"""Versions that people must agree to before they go live: which wait, who has agreed, how many are missing, what to type."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tidemill.core import Approval, Event
from tidemill.ledger import Branch, Ledger
from tidemill.loop.declarations import RetrainPolicy
from tidemill.loop.state import State


@dataclass(frozen=True)
class Waiting:
    """A version that waits for people: its label, the digest of its model, how many must agree, and who has, in order."""

    version: str
    model: str
    needed: int
    agreed: tuple[str, ...]

    @property
    def missing(self) -> int:
        return max(self.needed - len(self.agreed), 0)

    @property
    def next(self) -> str:
        """The command that goes on from here."""
        return f"tidemill approve {self.version}" if self.missing else "tidemill run"

    @property
    def said(self) -> str:
        """For people: who has agreed, what is missing, what to type."""
        so_far = f"so far: {', '.join(self.agreed)}" if self.agreed else "nobody has agreed yet"
        return f"{so_far}; {self.missing} more must agree: `{self.next}`" if self.missing else f"{so_far}; `{self.next}` goes on"

    def plain(self) -> dict[str, Any]:
        """As one object."""
        return asdict(self) | {"missing": self.missing, "next": self.next, "said": self.said}


def needed(policies: Iterable[RetrainPolicy], deployment: str) -> int:
    """How many people must agree to a version of a deployment."""
    return max((policy.approvals for policy in policies if policy.monitor.name == deployment), default=0)


def approvals(ledger: Ledger, branch: str, version: str, model: str) -> tuple[Approval, ...]:
    """Who agreed that a version may go live, each once: that very model, not another one of its name."""
    approved = [one for one in ledger.decisions(branch) if (one.kind, one.subject) == (Event.APPROVED, version)]
    found = [one for one in approved if one.evidence.get("model") == model]
    return tuple({one.who: Approval(version, one.who, one.at, one.why) for one in found}.values())


def approvable(ledger: Ledger, branch: Branch) -> dict[str, str]:
    """The versions of a live branch that people may approve, with the digests of their models: each is there to be looked at."""
    if not branch.state:
        return _first(ledger, branch)
    state = State.of(branch.state)
    return {one.version.label: one.version.digest for one in (state.candidate, state.waiting) if one is not None}


def waiting(ledger: Ledger, branch: Branch, people: int) -> list[Waiting]:
    """The versions of a live branch that go no further until people agree, `people` in number."""
    if not branch.state:
        found = _first(ledger, branch)
    else:
        state = State.of(branch.state)
        asked = [one for one in (state.candidate,) if one is not None and one.phase == "approval"] + [state.waiting]
        found = {one.version.label: one.version.digest for one in asked if one is not None}
    return [standing(ledger, branch, label, model, people) for label, model in found.items()] if people else []


def standing(ledger: Ledger, branch: Branch, version: str, model: str, people: int) -> Waiting:
    """How far a version is with its people."""
    return Waiting(version, model, people, tuple(one.who for one in approvals(ledger, branch.id, version, model)))


def _first(ledger: Ledger, branch: Branch) -> dict[str, str]:
    """The first model of a branch, when people were asked about it last and no later one was refused."""
    said = [one for one in ledger.decisions(branch.id) if one.kind in (Event.APPROVAL_NEEDED, Event.GATE_REFUSED)][-1:]
    return {one.subject: str(one.evidence["model"]) for one in said if one.kind == Event.APPROVAL_NEEDED}
