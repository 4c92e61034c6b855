"""A person takes a deployment back to an earlier version: what the gates passed, at once, and the loop goes on from there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from loop.test_candidates import approve
from postgres import new_schema
from tidemill import loop, registry
from tidemill.core import GateResult, Refused, UnknownName, instant
from tidemill.evaluation import Evidence, Gate, gates
from tidemill.ledger import Branch, Ledger
from tidemill.loop import Every, Restored, RetrainPolicy, State
from tidemill.serving import Canary
from tidemill.store import FolderBlobs, Records
from toy import DECLARATIONS, ZONE, Toy, open_toy, with_deployment, write_project


@dataclass(frozen=True)
class Never(Gate):
    """A gate that lets nothing through."""

    def judge(self, evidence: Evidence, looks: int = 1) -> GateResult:
        return GateResult("never", passed=False, reason="so it is")


def easy(toy: Toy, **changes: object) -> RetrainPolicy:
    """Each pass trains a candidate, and the gates pass it."""
    policy = replace(toy.policy, on=(Every("1d"),), cooldown="1d", min_new_labels=1)
    return with_deployment(policy, gates=[gates.calibration(max_ece=0.9)], **{"rollout": None, **changes})


def after_days(toy: Toy, *days: str, **changes: object) -> Branch:
    """The live branch after a pass on each of these days."""
    for day in days:
        passed = loop.run_once(toy.ledger, toy.built, easy(toy, **changes), toy.at(day), ZONE)
    found = toy.ledger.branch(passed.branch)
    assert found is not None
    return found


def back(toy: Toy, to: str = "", *, at: str = "2024-03-30") -> Restored:
    return loop.roll_back(toy.ledger, "late", to=to, who="ann", user="root", why="too many complaints", at=toy.at(at))


def state_of(toy: Toy, branch: Branch) -> State:
    found = toy.ledger.branch(branch.id)
    assert found is not None
    return State.of(found.state)


@pytest.fixture(params=["memory", "postgres"])
def either(request: pytest.FixtureRequest, toy: Toy, tmp_path: Path) -> Iterator[Toy]:
    """The project over records in memory, or in PostgreSQL."""
    if request.param == "memory":
        yield toy
        return
    with new_schema() as address:
        records = Records(address)
        yield open_toy(toy.declared.folder, loop.prepare(Ledger(records, FolderBlobs(tmp_path / "blobs"), count().__next__)))
        records.close()


def test_the_champion_before_serves_again(either: Toy) -> None:
    toy = either
    branch = after_days(toy, "2024-03-01", "2024-03-05", "2024-03-09")
    before = state_of(toy, branch)
    assert before.champion.label == "trees/3"
    assert back(toy) == Restored(branch.id, "trees/3", "trees/2", "")
    state = state_of(toy, branch)
    assert (state.champion.label, state.champion.since) == ("trees/2", toy.at("2024-03-30"))
    assert state.champion.until == toy.at("2024-03-05")
    assert (state.previous, state.candidate, state.pending, state.now) == (None, None, (), before.now)
    assert state.reference
    assert toy.ledger.alias(branch.id, "late", "champion") == registry.version(toy.ledger, branch.id, "trees/2").ref
    gone, came = toy.decisions(branch)[-2:]
    assert (gone.kind, gone.subject, gone.who, gone.why) == ("rolled back", "trees/3", "ann", "too many complaints")
    assert gone.evidence == {"to": "trees/2", "user": "root"}
    assert (came.kind, came.subject, came.who) == ("promoted", "trees/2", "ann")
    assert came.evidence["verdict"]["results"]
    assert toy.ledger.verify_decisions()
    assert back(toy).now == "trees/1", "twice goes back further"
    with pytest.raises(Refused, match="trees/1 is the first champion") as error:
        back(toy)
    assert error.value.available == ["trees/2", "trees/3"], "not the one that serves"
    assert back(toy, "3").now == "trees/3"


def test_the_loop_goes_on_from_the_version_that_serves(toy: Toy) -> None:
    branch = after_days(toy, "2024-03-01", "2024-03-05")
    back(toy, at="2024-03-06T12:00:00-05:00")
    sooner = loop.run_once(toy.ledger, toy.built, easy(toy), toy.at("2024-03-07"), ZONE)
    assert {one.kind for one in sooner.decisions} <= {"watched"}, "the cooldown began again"
    later = loop.run_once(toy.ledger, toy.built, easy(toy), toy.at("2024-03-09"), ZONE)
    assert [one.kind for one in later.decisions if one.kind in ("retrained", "promoted")] == ["retrained", "promoted"]
    assert (later.state.champion.label, later.state.previous and later.state.previous.label) == ("trees/3", "trees/1")
    assert later.branch == branch.id


def test_a_candidate_in_its_canary_is_dropped(toy: Toy) -> None:
    rollout = Canary(steps=[0.1, 1.0], min_labels=10_000)
    after_days(toy, "2024-03-01", "2024-03-05")
    branch = after_days(toy, "2024-03-09", rollout=rollout)
    candidate = state_of(toy, branch).candidate
    assert candidate is not None
    assert candidate.phase == "canary"
    assert back(toy).dropped == "trees/3"
    assert state_of(toy, branch).candidate is None
    assert [(one.kind, one.subject) for one in toy.decisions(branch)[-3:]] == [
        ("rolled back", "trees/3"),
        ("rolled back", "trees/2"),
        ("promoted", "trees/1"),
    ]
    assert toy.ledger.alias(branch.id, "late", "challenger") == registry.version(toy.ledger, branch.id, "trees/1").ref
    assert back(toy, "3").now == "trees/3", "it has never been champion, and its gates passed"
    again = state_of(toy, branch)
    assert (again.champion, again.reference) == (replace(candidate.version, since=again.champion.since), candidate.reference)
    assert again.champion.twin, "the next edit is judged on the rows that its gates saw"


def test_what_cannot_serve_is_refused_and_nothing_changes(toy: Toy) -> None:
    branch = after_days(toy, "2024-03-01", "2024-03-05")
    refusing = with_deployment(easy(toy), gates=[Never()])
    loop.run_once(toy.ledger, toy.built, refusing, toy.at("2024-03-09"), ZONE)
    before = (state_of(toy, branch), toy.kinds(branch))
    with pytest.raises(Refused, match="trees/3 has no passing verdict: never: so it is"):
        back(toy, "trees/3")
    with pytest.raises(UnknownName, match="no version is named 'trees/9'") as error:
        back(toy, "9")
    assert error.value.available == ["trees/1", "trees/2", "trees/3"]
    with pytest.raises(Refused, match="trees/2 serves already"):
        back(toy, "2")
    with pytest.raises(Refused, match="before the last pass"):
        back(toy, at="2024-03-02")
    with pytest.raises(UnknownName, match="no deployment 'other' serves"):
        loop.roll_back(toy.ledger, "other", who="ann", user="root", why="w", at=toy.at("2024-03-30"))
    assert (state_of(toy, branch), toy.kinds(branch)) == before


def test_one_that_never_served_waits_for_its_people(toy: Toy) -> None:
    branch = after_days(toy, "2024-03-01", "2024-03-05")
    loop.run_once(toy.ledger, toy.built, replace(easy(toy), approvals=2), toy.at("2024-03-09"), ZONE)
    before = (state_of(toy, branch), toy.kinds(branch))
    how: Any = {"needed": lambda: 2, "user": "root", "why": "w", "at": toy.at("2024-03-30")}
    with pytest.raises(Refused, match="trees/3 has 0 approvals, 2 are needed") as error:
        loop.roll_back(toy.ledger, "late", to="3", who="ann", **how)
    assert ("tidemill approve trees/3" in error.value.hint, (state_of(toy, branch), toy.kinds(branch))) == (True, before)
    for who in ("ann", "bob"):
        approve(toy, branch.id, "trees/3", who)
    assert loop.roll_back(toy.ledger, "late", to="3", who="ann", **how).now == "trees/3"
    how["needed"] = lambda: pytest.fail("one that served needs nobody's word, and no project that can be loaded")
    assert loop.roll_back(toy.ledger, "late", who="ann", **how).now == "trees/2"


def test_a_replay_is_the_past(replayed: tuple[Toy, Branch]) -> None:
    toy, branch = replayed
    with pytest.raises(Refused, match="served from a replay") as error:
        loop.roll_back(toy.ledger, "late", who="ann", user="root", why="w", at=instant("2026-01-01"))
    assert "tidemill run --deployment late" in error.value.hint
    assert State.of(branch.state).champion.label == "trees/4"


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        (
            [('"delivered": tm.count()', '"delivered": tm.sum("1 + late")')],
            "reads features that late no longer serves as they were: depot_",
        ),
        (
            [("grade, weight FROM", "grade, -weight AS weight FROM"), ('"late > 0"', '"late = 0"')],
            "learnt from what late defines otherwise by now: dataset bookings, label",
        ),
    ],
)
def test_a_version_of_other_definitions_is_refused(tmp_path: Path, edits: list[tuple[str, str]], why: str) -> None:
    folder = write_project(tmp_path / "parcels")
    toy = open_toy(folder)
    after_days(toy, "2024-03-01")
    declarations = DECLARATIONS
    for old, new in edits:
        declarations = declarations.replace(old, new)
    (folder / "parcels.py").write_text(declarations)
    changed = open_toy(folder, toy.ledger)
    branch = after_days(changed, "2024-03-05")
    assert state_of(changed, branch).champion.label == "trees/2"
    with pytest.raises(Refused, match=f"trees/1 {why}"):
        back(changed)
