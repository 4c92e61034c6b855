"""The numbered versions of the loop, and how they come to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from tidemill.core import Approval, Event, GateResult, Ref, Refused, UnknownName, Verdict, canonical
from tidemill.ledger import Artifact, Ledger
from tidemill.registry.tables import version_table


@dataclass(frozen=True)
class Version:
    """A numbered version of a model on a branch. `ref` says the number and means the digest."""

    branch: str
    name: str
    number: int
    digest: str
    at: int
    verdict: Verdict | None = None

    @property
    def ref(self) -> Ref:
        return Ref("model", self.name, str(self.number), self.digest)

    @property
    def label(self) -> str:
        """What people say: `boosted/3`."""
        return f"{self.name}/{self.number}"


def register(connection: Connection, branch: str, model: Artifact, *, at: int, number: int = 0) -> Version:
    """A version of a model on a branch: of that number, or the next."""
    newest = select(func.max(version_table.c.number)).where(version_table.c.branch == branch, version_table.c.name == model.ref.name)
    number = number or int(connection.execute(newest).scalar() or 0) + 1
    row = {"branch": branch, "name": model.ref.name, "number": number, "digest": model.ref.digest, "at": at, "verdict": ""}
    connection.execute(insert(version_table).values(row))
    return Version(branch, model.ref.name, number, model.ref.digest, at)


def record_verdict(ledger: Ledger, connection: Connection, version: Version, verdict: Verdict, *, at: int) -> None:
    """Keep a verdict with its version, and write it down as a decision."""
    row = (version_table.c.branch == version.branch, version_table.c.name == version.name, version_table.c.number == version.number)
    connection.execute(update(version_table).where(*row).values(verdict=canonical(asdict(verdict)).decode()))
    kind = Event.GATES_PASSED if verdict.passed else Event.GATE_REFUSED
    evidence = asdict(verdict)
    ledger.decide(connection, version.branch, at=at, who="gates", kind=kind, subject=version.label, why=verdict.reason, evidence=evidence)


def versions(ledger: Ledger, branch: str, name: str = "") -> list[Version]:
    """Versions of a branch in the order of their numbers."""
    query = select(version_table).where(version_table.c.branch == branch).order_by(version_table.c.name, version_table.c.number)
    with ledger.records.read() as connection:
        rows = connection.execute(query if not name else query.where(version_table.c.name == name)).all()
    return [Version(row.branch, row.name, row.number, row.digest, row.at, _verdict(row.verdict)) for row in rows]


def version(ledger: Ledger, branch: str, label: str) -> Version:
    """The version that a label (`boosted/3`) names; raises UnknownName."""
    found = versions(ledger, branch)
    for one in found:
        if one.label == label:
            return one
    raise UnknownName(f"no version is named {label!r}", available=[one.label for one in found])


def _verdict(text: str) -> Verdict | None:
    if not text:
        return None
    plain: dict[str, Any] = msgspec.json.decode(text)
    return Verdict(plain["subject"], tuple(GateResult(**result) for result in plain["results"]), plain["rows"])


def promote(
    ledger: Ledger,
    connection: Connection,
    deployment: str,
    version: Version,
    verdict: Verdict,
    approvals: Sequence[Approval] = (),
    *,
    needed: int = 0,
    alias: str = "champion",
    at: int,
    why: str,
    who: str = "loop",
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Let a version serve: `challenger` admits it to a rollout, `champion` ends one. `kept` is more evidence for a promotion. Raises
    Refused without a passing verdict on this very version, or with fewer approvals than needed."""
    if verdict.subject != version.label or not verdict.passed:
        what = f"{version.label} has no passing verdict" if verdict.subject == version.label else f"the verdict is about {verdict.subject}"
        raise Refused(f"{what}: {verdict.reason}", where=deployment, hint="train a candidate that passes the gates")
    people = {approval.who for approval in approvals if approval.subject == version.label}
    if len(people) < needed:
        raise Refused(f"{version.label} has {len(people)} approvals, {needed} are needed", where=deployment, hint="ask for approval")
    ledger.set_alias(connection, version.branch, deployment, alias, version.ref, at=at, who=who, why=why)
    if alias == "champion":
        evidence = {"verdict": asdict(verdict), "approvals": [asdict(approval) for approval in approvals], **(kept or {})}
        ledger.decide(connection, version.branch, at=at, who=who, kind=Event.PROMOTED, subject=version.label, why=why, evidence=evidence)


def roll_back(
    ledger: Ledger,
    connection: Connection,
    deployment: str,
    version: Version,
    to: Version,
    *,
    at: int,
    why: str,
    evidence: Any,
    who: str = "loop",
) -> None:
    """Take a version out of a rollout: the deployment's challenger is again its champion."""
    ledger.set_alias(connection, version.branch, deployment, "challenger", to.ref, at=at, who=who, why=why)
    ledger.decide(connection, version.branch, at=at, who=who, kind=Event.ROLLED_BACK, subject=version.label, why=why, evidence=evidence)
