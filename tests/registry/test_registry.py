"""Versions, verdicts and promotion: nothing serves without a passing verdict on that very version, and its people."""

from dataclasses import replace

import pytest

from tidemill import loop, registry
from tidemill.core import Approval, GateResult, Ref, Refused, UnknownName, Verdict
from tidemill.ledger import Artifact, Ledger
from tidemill.registry import Version

BRANCH = "here"


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    return loop.prepare(ledger)


def registered(ledger: Ledger, name: str = "m", digest: str = "a" * 64) -> Version:
    with ledger.records.begin() as connection:
        return registry.register(connection, BRANCH, Artifact(Ref.of("model", name, digest), {}), at=5)


def verdict_on(version: Version, *, passed: bool = True) -> Verdict:
    return Verdict(version.label, (GateResult("g", passed=passed, reason="because", evidence={"n": 3}),), 10)


def promote(ledger: Ledger, version: Version, verdict: Verdict, **more: object) -> None:
    with ledger.records.begin() as connection:
        registry.promote(ledger, connection, "late", version, verdict, at=7, why="w", **more)  # type: ignore[arg-type]


def champion(ledger: Ledger) -> Ref | None:
    return ledger.alias(BRANCH, "late", "champion")


def test_versions_are_numbered_by_model_and_branch(ready: Ledger) -> None:
    found = [registered(ready), registered(ready, digest="b" * 64), registered(ready, "other")]
    assert [version.label for version in found] == ["m/1", "m/2", "other/1"]
    assert registry.versions(ready, BRANCH, "m") == found[:2]
    assert registry.version(ready, BRANCH, "m/2") == found[1]
    assert registry.versions(ready, "elsewhere") == []
    with pytest.raises(UnknownName) as error:
        registry.version(ready, BRANCH, "m/9")
    assert error.value.available == ["m/1", "m/2", "other/1"]


def test_a_version_with_its_passing_verdict_is_promoted_and_the_evidence_kept(ready: Ledger) -> None:
    version = registered(ready)
    promote(ready, version, verdict_on(version))
    assert champion(ready) == version.ref
    (decision,) = ready.decisions(BRANCH)
    assert (decision.kind, decision.subject, decision.at) == ("promoted", "m/1", 7)
    assert decision.evidence["verdict"]["results"][0] == {"gate": "g", "passed": True, "reason": "because", "evidence": {"n": 3}}


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_without_a_passing_verdict_nothing_moves(ready: Ledger, alias: str) -> None:
    version = registered(ready)
    for verdict in (verdict_on(version, passed=False), Verdict(version.label, ())):
        with pytest.raises(Refused, match="m/1 has no passing verdict") as error:
            promote(ready, version, verdict, alias=alias)
        assert error.value.where == "late"
    assert ready.alias(BRANCH, "late", alias) is None
    assert ready.decisions(BRANCH) == []


def test_one_gate_of_many_that_refuses_is_enough(ready: Ledger) -> None:
    version = registered(ready)
    mixed = Verdict(version.label, (GateResult("a", passed=True, reason="fine"), GateResult("b", passed=False, reason="too bad")))
    with pytest.raises(Refused, match="b: too bad"):
        promote(ready, version, mixed)


def test_the_verdict_of_another_version_does_not_count(ready: Ledger) -> None:
    one, two = registered(ready), registered(ready, digest="b" * 64)
    with pytest.raises(Refused, match="the verdict is about m/1"):
        promote(ready, two, verdict_on(one))
    assert champion(ready) is None


def test_people_are_counted_once_and_for_this_version(ready: Ledger) -> None:
    version, other = registered(ready), registered(ready, digest="b" * 64)
    ann = Approval(version.label, "ann", 1)
    for people in ([], [ann], [ann, replace(ann, at=2)], [ann, Approval(other.label, "ben", 1)]):
        with pytest.raises(Refused, match=r"approvals, 2 are needed"):
            promote(ready, version, verdict_on(version), approvals=people, needed=2)
    assert champion(ready) is None
    promote(ready, version, verdict_on(version), approvals=[ann, Approval(version.label, "ben", 3, "looks well")], needed=2)
    assert champion(ready) == version.ref
    assert [one["who"] for one in ready.decisions(BRANCH)[0].evidence["approvals"]] == ["ann", "ben"]


def test_a_challenger_is_admitted_and_rolled_back_while_the_champion_stays(ready: Ledger) -> None:
    one, two = registered(ready), registered(ready, digest="b" * 64)
    promote(ready, one, verdict_on(one))
    promote(ready, two, verdict_on(two), alias="challenger")
    assert ready.alias(BRANCH, "late", "challenger") == two.ref
    with ready.records.begin() as connection:
        registry.roll_back(ready, connection, "late", two, one, at=9, why="worse", evidence={"p": 0.001})
    assert (champion(ready), ready.alias(BRANCH, "late", "challenger")) == (one.ref, one.ref)
    assert [(d.kind, d.subject) for d in ready.decisions(BRANCH)] == [("promoted", "m/1"), ("rolled back", "m/2")]
    assert ready.decisions(BRANCH)[-1].evidence == {"p": 0.001}
    assert [ref.version for ref, _, _ in ready.alias_history(BRANCH, "late", "challenger")] == ["2", "1"]


def test_a_verdict_is_kept_with_its_version_word_for_word(ready: Ledger) -> None:
    version = registered(ready)
    verdict = verdict_on(version, passed=False)
    with ready.records.begin() as connection:
        registry.record_verdict(ready, connection, version, verdict, at=6)
    assert registry.version(ready, BRANCH, "m/1").verdict == verdict
    (decision,) = ready.decisions(BRANCH)
    assert (decision.kind, decision.why) == ("gate refused", "g: because")
    assert ready.verify_decisions() == 1


def test_a_refused_promotion_undoes_all_of_its_transaction(ready: Ledger) -> None:
    version = registered(ready)

    def both() -> None:
        with ready.records.begin() as connection:
            registry.record_verdict(ready, connection, version, verdict_on(version), at=6)
            registry.promote(ready, connection, "late", version, verdict_on(version, passed=False), at=6, why="w")

    with pytest.raises(Refused):
        both()
    assert registry.version(ready, BRANCH, "m/1").verdict is None
    assert ready.decisions(BRANCH) == []
