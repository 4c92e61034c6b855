"""The live loop between its passes: late answers, edits soon after a run, states of an earlier version."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from tidemill import loop
from tidemill.core import canonical
from tidemill.data import Prediction, segments
from tidemill.ledger import Ledger
from tidemill.loop import Passed, State
from toy import DECLARATIONS, ZONE, Toy, open_toy, write_project

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
    passed = live_pass(other, "2024-03-01T09:00:00", min_new_labels=1)
    assert {"retrained"} < {one.kind for one in passed.decisions}, "judged on the rows of the champion's own twin"


def test_a_state_that_lacks_what_is_new_in_this_version_goes_on(toy: Toy) -> None:
    first = live_pass(toy, "2024-03-01")
    branch = toy.ledger.branch(first.branch)
    assert branch is not None
    older = {name: value for name, value in branch.state.items() if name not in ("refused", "pending")}
    with toy.ledger.records.begin() as connection:
        stored = {"state": canonical(older).decode(), "id": branch.id}
        connection.execute(text("UPDATE branch SET state = :state WHERE id = :id"), stored)
    second = live_pass(toy, "2024-03-02")
    assert second.state.champion == first.state.champion
    assert second.state.now == toy.at("2024-03-02")
    assert isinstance(live_pass(toy, "2024-03-03").state, State)
