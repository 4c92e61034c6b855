"""What is recorded stays as it was, can be found, and shows when it was changed."""

from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from tidemill.core import Busy, Damaged, Ref, UnknownName, digest_bytes
from tidemill.ledger import Artifact, Edge, Ledger, Made, lineage
from tidemill.store import MemoryBlobs, Records


def ref(kind: str, name: str, content: str = "") -> Ref:
    return Ref.of(kind, name, digest_bytes(kind.encode(), name.encode(), content.encode()))


def make(ledger: Ledger, kind: str, name: str, content: str = "", **inputs: object) -> Ref:
    """A step that makes one artifact from others."""
    made = Artifact(ref(kind, name, content), {"content": content})
    return ledger.once(f"make {kind}", name, {**inputs, "content": content}, lambda: Made({"it": made})).output.ref


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_artifact_is_found_by_digest_version_start_of_version_and_name(ledger: Ledger) -> None:
    old = ledger.put_artifact(Artifact(ref("model", "m", "old"), {"n": 1}))
    new = ledger.put_artifact(Artifact(ref("model", "m", "new"), {"n": 2}))
    assert ledger.artifact(old).meta == {"n": 1}
    assert ledger.artifact(Ref("model", "m", old.version)).ref == old
    assert ledger.artifact(Ref("model", "m", old.version[:6])).ref == old
    assert ledger.artifact(Ref.parse("model:m")).ref == new


def test_a_version_is_not_taken_for_a_longer_one(ledger: Ledger) -> None:
    for version in ("1", "10", "12", "2"):
        ledger.put_artifact(Artifact(Ref("model version", "m", version, digest_bytes(version.encode())), {}))
    assert ledger.artifact(Ref.parse("model version:m@1")).ref.version == "1"
    with pytest.raises(UnknownName, match="nothing is recorded"):
        ledger.artifact(Ref.parse("model version:m@_"))


def test_the_start_of_two_versions_names_neither(ledger: Ledger) -> None:
    for version in ("ab12", "ab34"):
        ledger.put_artifact(Artifact(Ref("model", "m", version, version), {}))
    with pytest.raises(UnknownName, match="start of several") as error:
        ledger.artifact(Ref.parse("model:m@ab"))
    assert error.value.available == ["ab12", "ab34"]


def test_an_unknown_ref_names_what_there_is(ledger: Ledger) -> None:
    ledger.put_artifact(Artifact(ref("model", "boosted"), {}))
    with pytest.raises(UnknownName, match="nothing is recorded as model:bosted") as error:
        ledger.artifact(Ref.parse("model:bosted"))
    assert error.value.available == ["model:boosted"]
    with pytest.raises(UnknownName, match="no execution 7"):
        ledger.execution(7)


def test_an_artifact_does_not_change(ledger: Ledger) -> None:
    it = ref("report", "r")
    ledger.put_artifact(Artifact(it, {"n": 1}))
    ledger.put_artifact(Artifact(it, {"n": 2}))
    assert ledger.artifact(it).meta == {"n": 1}


def test_executions_are_listed_newest_first(ledger: Ledger) -> None:
    for name in "abc":
        make(ledger, "table", name)
    assert [found.name for found in ledger.executions()] == ["c", "b", "a"]
    assert [found.name for found in ledger.executions(name="b")] == ["b"]
    assert ledger.executions(kind="other") == []
    assert ledger.executions(status="failed") == []
    assert len(ledger.executions(limit=2)) == 2


# ── lineage ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_way_back_is_a_tree_with_roles_and_executions(ledger: Ledger) -> None:
    file = ledger.put_artifact(Artifact(ref("source", "pkg:data/f@1.csv"), {"bytes": 9}))
    table = make(ledger, "dataset", "d", source={"flights": file})
    view = make(ledger, "view", "v", dataset=table)
    model = make(ledger, "model", "m", views=[view], labels=table)
    node = lineage(ledger, model)
    assert [(parent.role, parent.ref.kind) for parent in node.parents] == [("labels", "dataset"), ("views", "view")]
    assert node.execution
    assert node.execution.kind == "make model"
    through_view = node.parents[1].parents[0]
    assert through_view.ref == table
    assert through_view.parents[0].ref == file
    assert through_view.parents[0].meta == {"bytes": 9}
    assert through_view.parents[0].execution is None
    assert through_view.parents[0].parents == ()


def test_a_thing_made_again_shows_its_newest_making(ledger: Ledger) -> None:
    one, two = make(ledger, "dataset", "d", "1"), make(ledger, "dataset", "d", "2")
    view = ref("view", "same")
    for table in (one, two):
        ledger.once("make view", "same", {"dataset": table}, lambda: Made({"it": Artifact(view, {})}))
    assert [parent.ref for parent in lineage(ledger, view).parents] == [two]


def test_edges_of_what_no_step_made(ledger: Ledger) -> None:
    model = make(ledger, "model", "m")
    deployment = ledger.put_artifact(Artifact(ref("deployment", "d"), {}), {"champion": model})
    assert ledger.parents(deployment) == [Edge(0, "champion", str(model), str(deployment))]


# ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alias_points_to_the_newest_and_keeps_its_history(ledger: Ledger) -> None:
    one, two = ref("model", "m#1", "1"), ref("model", "m#1", "2")
    assert ledger.alias("live", "m", "champion") is None
    for at, target in ((10, one), (20, two), (30, one)):
        with ledger.records.begin() as connection:
            ledger.set_alias(connection, "live", "m", "champion", target, at=at, who="loop", why=f"at {at}")
    assert ledger.alias("live", "m", "champion") == one
    assert ledger.alias_history("live", "m", "champion") == [(one, 10, "at 10"), (two, 20, "at 20"), (one, 30, "at 30")]
    assert ledger.alias("other", "m", "champion") is None
    with ledger.records.begin() as connection:
        ledger.set_alias(connection, "live", "n", "champion", two, at=15, who="loop", why="")
        ledger.set_alias(connection, "live", "n", "previous", one, at=50, who="loop", why="")
    assert ledger.aliased("live", "champion") == [(one, 30), (two, 15)]
    assert ledger.aliased("live", "champion", "n") == [(two, 15)]
    assert ledger.aliased("other", "champion") == []


def test_an_alias_moves_with_its_transaction(ledger: Ledger) -> None:
    def half() -> None:
        with ledger.records.begin() as connection:
            ledger.set_alias(connection, "live", "m", "champion", ref("model", "m"), at=1, who="loop", why="")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert ledger.alias("live", "m", "champion") is None


# ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(ledger: Ledger, number: int, branch: str = "live") -> None:
    with ledger.records.begin() as connection:
        evidence = {"auc": 0.7, "rows": number, "missing": float("nan")}
        ledger.decide(
            connection, branch, at=number, who="loop", kind="retrain", subject=f"model:m@{number}", why="drift", evidence=evidence
        )


def test_decisions_are_kept_in_order_with_their_evidence(ledger: Ledger) -> None:
    for number in range(3):
        decide(ledger, number)
    decide(ledger, 9, branch="replay")
    assert [(found.at, found.subject, found.evidence["rows"]) for found in ledger.decisions("live")] == [
        (0, "model:m@0", 0),
        (1, "model:m@1", 1),
        (2, "model:m@2", 2),
    ]
    assert ledger.verify_decisions() == 4


def test_an_empty_chain_is_whole(ledger: Ledger) -> None:
    assert ledger.verify_decisions() == 0


@pytest.mark.parametrize(
    "tampering",
    [
        "update decision set why = 'no reason' where id = 3",
        "update decision set evidence = '{}' where id = 3",
        "update decision set at = 7 where id = 3",
        "update decision set branch = 'other' where id = 3",
        "delete from decision where id = 3",
        "delete from decision where id = 1",
        "update decision set id = 99 where id = 3",
        "create table t as select * from decision where id = 3; update t set id = 99; insert into decision select * from t",
    ],
)
def test_a_changed_removed_or_moved_decision_is_found(folder_ledger: Ledger, tampering: str) -> None:
    for number in range(5):
        decide(folder_ledger, number)
    assert folder_ledger.verify_decisions() == 5
    with folder_ledger.records.begin() as connection:
        for statement in tampering.split(";"):
            connection.execute(text(statement))
    with pytest.raises(Damaged, match="was changed, or one before it removed") as error:
        folder_ledger.verify_decisions()
    assert Path(error.value.where).name == "records.db"


# ── branches ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_branch_is_named_by_its_parts(ledger: Ledger) -> None:
    one = ledger.open_branch("replay", "r", {"policy": "weekly"})
    assert ledger.open_branch("replay", "r", {"policy": "weekly"}) == one
    assert ledger.open_branch("replay", "r", {"policy": "monthly"}).id != one.id
    live = ledger.open_branch("live", "late", {"policy": "weekly"})
    assert ledger.open_branch("live", "late", {"policy": "monthly"}) == live  # what serves goes on when its definitions change
    assert (one.status, one.state, one.result, one.parts) == ("running", {}, {}, {"policy": "weekly"})


def test_the_state_of_a_branch_moves_with_what_it_decided(tmp_path: Path) -> None:
    ledger = Ledger(Records(tmp_path / "records.db"), MemoryBlobs(), count().__next__)
    branch = ledger.open_branch("replay", "r", {})

    def half() -> None:
        with ledger.records.begin() as connection:
            ledger.save_branch(connection, branch.id, first, {"day": 2})
            ledger.decide(connection, branch.id, at=2, who="loop", kind="k", subject="s", why="w", evidence={})
            raise ZeroDivisionError

    first = {"day": 1, "weights": [0.5, 0.5], "quality": float("nan")}
    with ledger.records.begin() as connection:
        ledger.save_branch(connection, branch.id, {}, first)
    with pytest.raises(ZeroDivisionError):
        half()
    again = Ledger(Records(tmp_path / "records.db"), MemoryBlobs(), count().__next__)
    found = again.branch(branch.id)
    assert found
    assert found.state == {"day": 1, "weights": [0.5, 0.5], "quality": None}
    assert again.decisions(branch.id) == []
    with again.records.begin() as connection:
        again.save_branch(connection, branch.id, found.state, {"day": 2})  # as it was read, so it is known


def test_a_branch_that_another_moved_on_is_not_moved_twice(ledger: Ledger) -> None:
    branch = ledger.open_branch("replay", "r", {})

    def move(before: dict[str, object], after: dict[str, object]) -> None:
        with ledger.records.begin() as connection:
            ledger.decide(connection, branch.id, at=1, who="loop", kind="k", subject="s", why="w", evidence={})
            ledger.save_branch(connection, branch.id, before, after)

    move({}, {"day": 1})
    with pytest.raises(Busy, match="another process moved branch"):
        move({}, {"day": 1, "by": "a slower one"})
    assert len(ledger.decisions(branch.id)) == 1


def test_finished_branches_come_first_newest_first(ledger: Ledger) -> None:
    for name in "abc":
        ledger.open_branch("replay", name, {})
    other = ledger.open_branch("comparison", "x", {})
    for name in "ba":
        ledger.finish_branch(ledger.open_branch("replay", name, {}).id, {"auc": 0.7})
    found = ledger.branches("replay")
    assert [branch.name for branch in found] == ["a", "b", "c"]
    assert [branch.status for branch in found] == ["finished", "finished", "running"]
    assert found[0].result == {"auc": 0.7}
    assert found[0].finished_at
    assert other.id not in {branch.id for branch in found}
    ledger.finish_branch(found[1].id, {"auc": 0.8})
    assert ledger.branches("replay")[0].name == "b"
    assert ledger.branch("none") is None
