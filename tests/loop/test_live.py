"""The live loop between its passes: late answers, edits soon after a run, states of an earlier version."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from tidemill import loop
from tidemill.core import DataError, MissingFile, Refused, canonical, definition
from tidemill.data import Prediction, find_predictions, logged, segments
from tidemill.ledger import Ledger
from tidemill.loop import Passed, State
from tidemill.loop.former import former_task
from tidemill.loop.origin import own_definition
from tidemill.registry import version
from toy import DECLARATIONS, ZONE, Toy, make_rows, open_toy, write_project, write_rows

Told = Callable[[str], Sequence[Prediction]]


def live_pass(toy: Toy, day: str, told: Told = lambda _: (), **changes: Any) -> Passed:
    return loop.run_once(toy.ledger, toy.built, replace(toy.policy, **changes), toy.at(day), ZONE, told)


def edited(folder: Path, ledger: Ledger, *pairs: tuple[str, str]) -> Toy:
    """The project with its declarations changed."""
    declarations = DECLARATIONS
    for old, new in pairs:
        assert old in declarations
        declarations = declarations.replace(old, new)
    return open_toy(write_project(folder / "edited", declarations=declarations), ledger)


def test_an_answer_that_was_given_after_the_outcome_does_not_count(toy: Toy) -> None:
    first = live_pass(toy, "2024-03-01")
    examples, end = toy.built.examples, toy.at("2024-03-05")
    open_then = (examples.at >= toy.at("2024-03-01")) & (examples.at < end) & (examples.resolved < end) & ~np.isnan(examples.label)
    answers = []
    for row in np.flatnonzero(open_then).tolist():
        key, knowing = examples.requests.keys[row].decode(), 0.98 * float(examples.label[row]) + 0.01
        answers.append(Prediction(first.branch, "late", key, int(examples.at[row]), 0.3, "trees/1", "champion"))
        answers.append(Prediction(first.branch, "late", key, int(examples.resolved[row]), knowing, "trees/1", "champion"))
    live_pass(toy, "2024-03-05", lambda _: answers)
    ((_, segment),) = segments(toy.ledger, first.branch, "late")
    assert (segment.probability == 0.3).sum() == len(answers) / 2, "what was asked in time counts"
    assert not np.isin(segment.probability, (0.01, 0.99)).any()


def test_a_line_may_be_changed_soon_after_a_run_when_few_labels_are_new(toy: Toy, tmp_path: Path) -> None:
    live_pass(toy, "2024-03-01", min_new_labels=1)
    other = edited(tmp_path, toy.ledger, ('["12h", "3d"]', '["12h", "4d"]'))
    passed = live_pass(other, "2024-03-01T09:00:00-05:00", min_new_labels=1)
    assert {"retrained"} < {one.kind for one in passed.decisions}, "judged on the rows of the champion's own twin"


@pytest.mark.parametrize(
    ("edits", "what", "next_"),
    [
        (
            [("late IS NOT NULL", "late = 1"), (', none_after="36h"', "")],
            r"1,019 requests .* 349 have a label, none .* maturity=0.9",
            "none_after",
        ),
        ([('"late > 0"', '"late > -1"')], r"all 3,\d{3} labels known by .* are True: there is nothing to tell apart", "expression"),
    ],
)
def test_labels_from_which_nothing_can_be_learnt_are_named(
    toy: Toy, tmp_path: Path, edits: list[tuple[str, str]], what: str, next_: str
) -> None:
    branch = live_pass(toy, "2024-03-01").branch
    with pytest.raises(DataError, match=what) as error:
        live_pass(edited(tmp_path, toy.ledger, *edits), "2024-03-10")
    assert next_ in error.value.hint
    assert error.value.hint.endswith("the edit is not taken, trees/1 serves on")
    found = toy.ledger.branch(branch)
    assert found is not None
    assert State.of(found.state).now == toy.at("2024-03-10"), "what serves had its pass"


def test_a_state_that_lacks_what_is_new_in_this_version_goes_on(toy: Toy) -> None:
    first = live_pass(toy, "2024-03-01")
    branch = toy.ledger.branch(first.branch)
    assert branch is not None
    older = {name: value for name, value in branch.state.items() if name not in ("tried_at", "waiting", "pending", "compared", "skew")}
    with toy.ledger.records.begin() as connection:
        stored = {"state": canonical(older).decode(), "id": branch.id}
        connection.execute(text("UPDATE branch SET state = :state WHERE id = :id"), stored)
    second = live_pass(toy, "2024-03-02")
    assert second.state.champion == first.state.champion
    assert second.state.now == toy.at("2024-03-02")
    assert isinstance(live_pass(toy, "2024-03-03").state, State)


def test_a_lost_part_of_the_log_is_written_down_and_the_loop_goes_on(toy: Toy) -> None:
    for day in ("2024-03-01", "2024-03-05", "2024-03-06"):
        passed = live_pass(toy, day)
    first, second = logged(toy.ledger, passed.branch)
    toy.ledger.blobs.delete(first.digest)
    after = live_pass(toy, "2024-03-11")
    told = [one for one in after.decisions if one.kind == "answers lost"]
    assert [(one.subject, one.evidence["digest"]) for one in told] == [("late/segment 0", first.digest)]
    assert f"{first.rows} answers from 2024-03-01T" in told[0].why
    watched = [one.evidence["rows"] for one in after.decisions if one.kind == "watched"]
    assert watched[-1] > 200, "the window after the gap is watched whole"
    assert live_pass(toy, "2024-03-12").decisions == [], "once"
    keys = toy.built.examples.requests.keys
    row = int(np.searchsorted(toy.built.examples.at, second.first_at))
    assert find_predictions(toy.ledger, passed.branch, "late", keys[row].decode())
    with pytest.raises(MissingFile):
        find_predictions(toy.ledger, passed.branch, "late", "nobody")


# ── an edit that is refused, taken, or waits ────────────────────────────────────────────────────────────────────────

WORSE = ('"weight": "weight", ', ""), ('"n_estimators": 30', '"n_estimators": 1')
MARCH = {"cooldown": "4d", "min_new_labels": 100}


def asked_and_logged(toy: Toy, branch: str, start: str, end: str) -> tuple[int, int]:
    """How many requests were asked from one day to another, and how many of them the log has an answer to."""
    examples = toy.built.examples
    asked = examples.requests.keys[(examples.at >= toy.at(start)) & (examples.at < toy.at(end))]
    found = segments(toy.ledger, branch, "late")
    logged = np.concatenate([segment.keys[~np.isnan(segment.probability)] for _, segment in found])
    return len(asked), int(np.isin(asked, logged).sum())


def test_the_definitions_of_before_are_read_from_the_recipe(toy: Toy, tmp_path: Path) -> None:
    recipe = toy.built.recipe()
    other = edited(tmp_path, toy.ledger, *WORSE)
    task = former_task(other.built.task, recipe)
    assert definition(task) == recipe["task"]
    assert [definition(view) for view in task.features] == [view["definition"] for view in recipe["views"]]
    assert {dataset.name: definition(dataset) for dataset in task.datasets} == recipe["datasets"]
    assert loop.build(toy.ledger, task).examples.ref == toy.built.examples.ref


def upto(folder: Path, toy: Toy, day: str) -> None:
    """The source file as it was on a day."""
    now, rows = toy.at(day) / 1e6, []
    for row in make_rows():
        if row["booked"].timestamp() <= now:
            known = row["arrived"] and row["arrived"].timestamp() <= now
            rows.append(row if known else {**row, "arrived": None, "late": None})
    write_rows(folder, rows)


def test_while_an_edit_stands_refused_the_loop_goes_on_and_tries_again_when_a_policy_would(toy: Toy, tmp_path: Path) -> None:
    """New data come with each pass; the champion's features are built over them too."""
    live_pass(toy, "2024-03-01", **MARCH)
    folder = tmp_path / "edited"
    other = edited(tmp_path, toy.ledger, *WORSE)
    judged, watched = [], []
    days = [f"2024-03-{day:02}" for day in (2, 3, 5, 6, 7, 9, 10)]
    for day in days:
        upto(folder, toy, day)
        passed = live_pass(open_toy(folder, other.ledger), day, **MARCH)
        judged += [day] * [one.kind for one in passed.decisions].count("gate refused")
        watched += [one for one in passed.decisions if one.kind == "watched"]
        assert passed.state.champion.label == "trees/1"
        assert passed.state.now == toy.at(day)
        assert "order" in passed.changed
    assert judged == ["2024-03-02", "2024-03-06", "2024-03-10"], "at once, and after each cooldown"
    assert [one.subject for one in watched] == ["trees/1"] * 2
    asked, logged = asked_and_logged(toy, passed.branch, "2024-03-01", "2024-03-10")
    assert logged == asked > 500


def test_the_champion_is_judged_on_the_columns_that_it_learnt_from(toy: Toy, tmp_path: Path) -> None:
    """The views read as before; what the query puts into a column is another thing."""
    live_pass(toy, "2024-03-01")
    other = edited(tmp_path, toy.ledger, ("grade, weight FROM parcels", "grade, -weight AS weight FROM parcels"))
    (refused,) = [one for one in live_pass(other, "2024-03-10").decisions if one.kind == "gate refused"]
    assert abs(refused.evidence["results"][0]["evidence"]["gain"]) < 0.02, "trees do not mind the sign: no model is better than the other"


def test_a_request_that_the_files_hold_only_after_the_pass_of_its_time_is_answered_and_watched_by_the_next(
    toy: Toy, tmp_path: Path
) -> None:
    """Passes go on while the file ends days before; what the gateway answered to what came late counts too."""
    folder = write_project(tmp_path / "behind")
    live_pass(toy, "2024-03-01")
    keys, at = toy.built.examples.requests.keys, toy.built.examples.at
    row = int(np.searchsorted(at, toy.at("2024-03-02T05:00:00")))
    told = [Prediction("live-late", "late", keys[row].decode(), int(at[row]), 0.123, "trees/1", "champion")]
    write_rows(folder, [one for one in make_rows() if one["sent"].timestamp() < toy.at("2024-03-02") / 1e6])
    behind = open_toy(folder, toy.ledger)
    assert live_pass(behind, "2024-03-02", lambda _: told).decisions == []
    assert live_pass(behind, "2024-03-10", lambda _: told).decisions == [], "the file may yet tell of those windows"
    passed = live_pass(toy, "2024-03-10T12:00:00", lambda _: told)
    assert [one.evidence["rows"] > 200 for one in passed.decisions if one.kind == "watched"] == [True, True]
    asked, logged = asked_and_logged(toy, passed.branch, "2024-03-01", "2024-03-10T12:00:00")
    assert logged == asked > 500
    assert [one.probability for one in find_predictions(toy.ledger, passed.branch, "late", keys[row].decode())] == [0.123]
    found = np.concatenate([segment.keys for _, segment in segments(toy.ledger, passed.branch, "late")])
    assert len(np.unique(found)) == len(found), "each once"


def test_an_edit_that_is_taken_loses_no_request(toy: Toy, tmp_path: Path) -> None:
    other = edited(tmp_path, toy.ledger, ('"weight": "weight", ', ""))
    live_pass(other, "2024-03-01")
    live_pass(other, "2024-03-05")
    taken = live_pass(toy, "2024-03-10")
    assert taken.state.champion.number == 2
    assert toy.ledger.branch(taken.branch).parts["recipe"] == toy.built.recipe()  # type: ignore[union-attr]
    live_pass(toy, "2024-03-12")
    asked, logged = asked_and_logged(toy, taken.branch, "2024-03-01", "2024-03-12")
    assert logged == asked > 500


SLOW = ('"learning_rate": 0.15', '"learning_rate": 0.005')
ONE_GATE = (
    ('holdout="8d"', 'holdout="8d", confidence=0.55'),
    ('    tm.gates.no_worse_slice("log_loss", by=["depot"], margin=0.2, min_rows=100),\n', ""),
    ("    tm.gates.calibration(max_ece=0.12, bins=10),\n", ""),
)


@pytest.fixture
def one_gate(toy: Toy, tmp_path: Path) -> Toy:
    """The project with one gate, over the branch of a champion that learnt slowly: the toy's own parameters are better."""
    live_pass(edited(tmp_path, toy.ledger, SLOW, *ONE_GATE), "2024-03-01")
    return edited(tmp_path, toy.ledger, *ONE_GATE)


def test_an_edit_of_the_model_alone_climbs_the_canary_like_any_candidate(one_gate: Toy) -> None:
    taken = live_pass(one_gate, "2024-03-10")
    assert [one.kind for one in taken.decisions[-3:]] == ["retrained", "gates passed", "canary"]
    assert taken.state.champion.label == "trees/1"
    assert taken.state.candidate is not None
    assert (taken.state.candidate.phase, taken.state.candidate.weight) == ("canary", 0.1)
    decided = [one for day in range(12, 29, 2) for one in live_pass(one_gate, f"2024-03-{day}").decisions]
    promoted = next(one for one in decided if one.kind == "promoted")
    assert (promoted.subject, promoted.why[:13]) == ("trees/2", "canary passed")
    state = live_pass(one_gate, "2024-03-29").state
    assert state.previous is not None
    asked, logged = asked_and_logged(one_gate, taken.branch, "2024-03-01", "2024-03-29")
    assert logged == asked > 500


def test_an_approved_edit_of_the_model_alone_climbs_the_canary_too(one_gate: Toy) -> None:
    asked = live_pass(one_gate, "2024-03-10", approvals=1)
    assert asked.state.waiting is not None
    approve(one_gate, asked.branch)
    state = live_pass(one_gate, "2024-03-11", approvals=1).state
    assert state.candidate is not None
    assert (state.champion.label, state.candidate.phase, state.waiting) == ("trees/1", "canary", None)


@pytest.mark.parametrize("approvals", [0, 1])
def test_an_edit_that_is_taken_back_leaves_at_once(one_gate: Toy, tmp_path: Path, approvals: int) -> None:
    """Whether it climbs or waits for people: nothing is trained, and its version is on its way no more."""
    took = live_pass(one_gate, "2024-03-10", approvals=approvals)
    before = edited(tmp_path, one_gate.ledger, SLOW, *ONE_GATE)
    back = live_pass(before, "2024-03-12", approvals=approvals)
    assert [(one.kind, one.subject) for one in back.decisions if one.kind != "watched"] == [("rolled back", "trees/2")]
    assert back.decisions[0].why.startswith("its edit was taken back")
    assert (back.changed, back.state.candidate, back.state.waiting, back.state.champion) == ("", None, None, took.state.champion)
    assert loop.approvable(before.ledger, before.ledger.branch(back.branch)) == {}  # type: ignore[arg-type]
    assert [one.kind for one in live_pass(before, "2024-03-14", approvals=approvals).decisions] in ([], ["watched"])
    again = live_pass(edited(tmp_path, one_gate.ledger, *ONE_GATE), "2024-03-15", approvals=approvals)
    assert "retrained" in [one.kind for one in again.decisions], "put back, it is judged anew"
    asked, logged = asked_and_logged(before, back.branch, "2024-03-01", "2024-03-15")
    assert logged == asked > 500


def test_an_edit_whose_version_was_rolled_back_is_told_at_each_pass(one_gate: Toy, tmp_path: Path) -> None:
    """It is declared, and does not serve; put back, there is nothing to tell."""
    assert live_pass(one_gate, "2024-03-10").state.candidate is not None
    assert live_pass(one_gate, "2024-03-11").changed == "", "it is on its way"
    at_once = ('rollout=tm.Canary(steps=[0.1, 0.5, 1.0], min_labels=40, alpha=0.05, sticky_by="courier")', "rollout=None")
    dropping = edited(tmp_path, one_gate.ledger, *ONE_GATE, at_once)
    for day in ("2024-03-12", "2024-03-13"):
        passed = live_pass(dropping, day)
        assert passed.state.candidate is None
        assert passed.changed.startswith("model.params.learning_rate: 0.005 → 0.15")
        assert passed.changed.endswith("(what came of it was rolled back; the next retraining takes it up)")
    assert live_pass(edited(tmp_path, one_gate.ledger, SLOW, *ONE_GATE), "2024-03-14").changed == ""


def test_where_no_rollout_is_declared_an_edit_of_the_model_alone_keeps_the_version_before(one_gate: Toy, tmp_path: Path) -> None:
    at_once = ("rollout=tm.Canary(steps=[0.1, 0.5, 1.0]", "rollout=tm.Canary(steps=[1.0]")
    taken = live_pass(edited(tmp_path, one_gate.ledger, *ONE_GATE, at_once), "2024-03-10")
    assert (taken.decisions[-1].kind, taken.decisions[-1].why) == ("promoted", "its gates passed; no rollout is declared")
    assert taken.state.previous is not None
    assert taken.state.previous.label == "trees/1"


def test_after_a_rollback_an_edit_is_judged_against_what_serves_now(one_gate: Toy, tmp_path: Path) -> None:
    """By its words too; what people rolled back is no edit, also after another one was declared. Each is judged once."""
    at_once = ("rollout=tm.Canary(steps=[0.1, 0.5, 1.0]", "rollout=tm.Canary(steps=[1.0]")

    def rate(value: float) -> Toy:
        return edited(tmp_path, one_gate.ledger, (SLOW[0], f'"learning_rate": {value}'), *ONE_GATE, at_once)

    def told(day: str, value: float, **changes: Any) -> tuple[str, str, list[str]]:
        passed = live_pass(rate(value), day, **changes)
        decided = [one.kind for one in passed.decisions if one.kind != "watched"]
        return passed.state.champion.label, passed.changed.removeprefix("model.params.learning_rate: "), decided

    refused = ["retrained", "gate refused"]
    assert told("2024-03-10", 0.15)[0] == "trees/2"
    assert told("2024-03-11", 0.004) == ("trees/2", "0.15 → 0.004", refused)
    assert told("2024-03-11T12:00", 0.004) == ("trees/2", "0.15 → 0.004 (refused before)", [])
    loop.roll_back(one_gate.ledger, "late", who="ann", user="root", why="w", at=one_gate.at("2024-03-11T18:00"))
    aside = "0.005 → 0.15 (what came of it was rolled back; the next retraining takes it up)"
    assert told("2024-03-12", 0.15) == ("trees/1", aside, [])
    assert told("2024-03-12T06:00", 0.004) == ("trees/1", "0.005 → 0.004", refused)
    assert told("2024-03-12T12:00", 0.15) == ("trees/1", aside, [])
    every: dict[str, Any] = {"on": (loop.Every("1d"),), "cooldown": "1d", "min_new_labels": 1}
    assert told("2024-03-12T18:00", 0.004, **every) == ("trees/1", "0.005 → 0.004 (refused before)", refused)
    retrained = one_gate.ledger.artifact_of("model", version(one_gate.ledger, "live-late", "trees/5").digest)
    assert own_definition(one_gate.ledger, retrained)["params"]["learning_rate"] == 0.005, "by the parameters of what serves"
    assert told("2024-03-13", 0.1)[0] == "trees/6", "another one is taken"
    assert told("2024-03-13T06:00", 0.15)[:2] == ("trees/7", "0.1 → 0.15"), "and what was rolled back for the one before is an edit again"


def test_a_source_that_the_definitions_of_before_need_may_be_gone(toy: Toy, tmp_path: Path) -> None:
    live_pass(toy, "2024-03-01")
    folder = write_project(tmp_path / "edited", declarations=DECLARATIONS.replace("parcels.csv", "packets.csv"))
    (folder / "parcels.csv").rename(folder / "packets.csv")
    passed = live_pass(open_toy(folder, toy.ledger), "2024-03-10")
    assert "what serves can no longer be built (there is no file 'parcels.csv')" in passed.changed
    assert {"watched", "retrained"} <= {one.kind for one in passed.decisions}, "what was built last is watched, and the edit is judged"


# ── people ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def approve(toy: Toy, branch: str) -> str:
    """Ann agrees to the one version that waits; its model."""
    found = toy.ledger.branch(branch)
    assert found is not None
    ((label, model),) = loop.approvable(toy.ledger, found).items()
    with toy.ledger.records.begin() as connection:
        told: dict[str, Any] = {"who": "ann", "kind": "approved", "subject": label, "why": "I looked", "evidence": {"model": model}}
        toy.ledger.decide(connection, branch, at=0, **told)
    return model


def test_the_first_model_that_people_approved_is_the_one_that_serves(toy: Toy, tmp_path: Path) -> None:
    for day in ("2024-03-01", "2024-03-02"):
        with pytest.raises(Refused, match="trees/1 passed its gates and needs 1 more approvals"):
            live_pass(toy, day, approvals=1)
    assert [one.kind for one in toy.ledger.decisions("live-late")] == ["approval needed"], "who waits is not asked about another one"
    model = approve(toy, "live-late")
    other = edited(tmp_path, toy.ledger, ('"num_leaves": 7', '"num_leaves": 6'))
    with pytest.raises(Refused, match="trees/1 passed its gates and needs 1 more approvals"):
        live_pass(other, "2024-03-03", approvals=1)
    assert approve(other, "live-late") != model, "another model is another yes"
    state = live_pass(other, "2024-03-20", approvals=1).state
    assert state.champion.until == toy.at("2024-03-03"), "what they looked at, whatever has become known since"
    assert (state.now, state.champion.since) == (toy.at("2024-03-20"), toy.at("2024-03-20"))


def test_an_edit_that_needs_people_waits_while_the_loop_goes_on(toy: Toy, tmp_path: Path) -> None:
    other = edited(tmp_path, toy.ledger, ('"weight": "weight", ', ""))
    live_pass(other, "2024-03-01")
    asked = live_pass(toy, "2024-03-10", approvals=1)
    assert [one.kind for one in asked.decisions[-3:]] == ["retrained", "gates passed", "approval needed"]
    again = live_pass(toy, "2024-03-15", approvals=1)
    assert [one.kind for one in again.decisions] == ["watched"]
    assert (again.state.champion.label, "trees/2 waits for people" in again.changed) == ("trees/1", True)
    branch = toy.ledger.branch(asked.branch)
    assert branch is not None
    assert [(one.version, one.missing, one.agreed) for one in loop.waiting(toy.ledger, branch, 1)] == [("trees/2", 1, ())]
    assert loop.waiting(toy.ledger, branch, 0) == []
    model = approve(toy, asked.branch)
    taken = live_pass(toy, "2024-03-16", approvals=1)
    assert (taken.state.champion.label, taken.state.champion.digest) == ("trees/2", model)
    assert [one.kind for one in taken.decisions][-1] == "promoted"
    assert live_pass(toy, "2024-03-17", approvals=1).changed == ""
    asked_then, logged = asked_and_logged(toy, taken.branch, "2024-03-01", "2024-03-17")
    assert logged == asked_then > 500
