"""People share a deployment's requests between versions: data in the ledger, beside the loop's own canary."""

from dataclasses import replace

import pytest

from loop.test_rollback import Never, after_days, back, easy, state_of
from tidemill import loop
from tidemill.core import DataError, Refused, UnknownName
from tidemill.loop import Shared
from tidemill.serving import Canary
from toy import ZONE, Toy, with_deployment

DAYS = ("2024-03-01", "2024-03-05", "2024-03-09")


def weigh(toy: Toy, weights: dict[str, float], *, at: str = "2024-03-10", needed: int = 0) -> Shared:
    return loop.set_weights(toy.ledger, "late", weights, needed=needed, who="ann", user="root", why="to compare", at=toy.at(at))


def test_weights_are_data_of_the_branch_and_a_decision(toy: Toy) -> None:
    branch = after_days(toy, *DAYS)
    done = weigh(toy, {"trees/2": 0.2, "1": 0.1})
    assert done.before == {"trees/3": 1.0}
    assert done.now == pytest.approx({"trees/3": 0.7, "trees/2": 0.2, "trees/1": 0.1})
    state = state_of(toy, branch)
    assert [(one.version.label, one.weight) for one in state.weighted] == [("trees/2", 0.2), ("trees/1", 0.1)]
    (told,) = toy.decisions(branch, "weights set")
    assert (told.subject, told.who, told.why) == ("late", "ann", "to compare")
    assert told.evidence == {"weights": {"trees/2": 0.2, "trees/1": 0.1}, "before": {}, "user": "root"}
    assert toy.ledger.verify_decisions()
    assert weigh(toy, {"champion": 0.5, "trees/1": 0.5}).now == {"trees/3": 0.5, "trees/1": 0.5}
    assert weigh(toy, {"trees/3": 1}).now == {"trees/3": 1.0}
    assert state_of(toy, branch).weighted == ()


def test_a_candidate_takes_the_share_of_its_canary_before_them(toy: Toy) -> None:
    branch = after_days(toy, *DAYS)
    weigh(toy, {"trees/2": 0.2, "trees/1": 0.1})
    after_days(toy, "2024-03-13", rollout=Canary(steps=[0.5, 1.0], min_labels=10_000))
    assert loop.shared_by(state_of(toy, branch)) == pytest.approx({"trees/3": 0.35, "trees/4": 0.5, "trees/2": 0.1, "trees/1": 0.05})
    with pytest.raises(Refused, match=r"trees/4 is on its way \(canary\)"):
        weigh(toy, {"trees/4": 0.5}, at="2024-03-13")


def test_a_new_champion_answers_what_the_one_before_did(toy: Toy) -> None:
    branch = after_days(toy, *DAYS)
    weigh(toy, {"trees/2": 0.2, "trees/1": 0.1})
    after_days(toy, "2024-03-13")
    assert loop.shared_by(state_of(toy, branch)) == pytest.approx({"trees/4": 0.7, "trees/2": 0.2, "trees/1": 0.1})


def test_a_rollback_ends_them(toy: Toy) -> None:
    branch = after_days(toy, *DAYS)
    weigh(toy, {"trees/2": 0.2})
    back(toy, "trees/1")
    assert state_of(toy, branch).weighted == ()
    told = toy.decisions(branch, "weights set")[-1]
    assert (told.why, told.evidence["before"], told.evidence["weights"]) == ("late goes back to trees/1", {"trees/2": 0.2}, {})


@pytest.mark.parametrize(
    ("weights", "error", "what"),
    [
        ({"trees/2": 1.2}, DataError, "the weight of trees/2 is 1.2"),
        ({"trees/2": -0.1}, DataError, "the weight of trees/2 is -0.1"),
        ({"trees/2": float("nan")}, DataError, "is nan"),
        ({"trees/2": 0.6, "trees/1": 0.6}, DataError, "make 1.2 together"),
        ({"champion": 0.5, "trees/1": 0.2}, DataError, "is the champion, which answers all that the others leave: 0.8, and not 0.5"),
        ({"trees/2": 0.2, "2": 0.2}, DataError, "trees/2 is named twice"),
        ({"trees/9": 0.2}, UnknownName, "no version is named 'trees/9'"),
        ({"trees/4": 0.2}, Refused, "trees/4 has no passing verdict"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(toy: Toy, weights: dict[str, float], error: type[Exception], what: str) -> None:
    branch = after_days(toy, *DAYS)
    loop.run_once(toy.ledger, toy.built, with_deployment(easy(toy), gates=[Never()]), toy.at("2024-03-13"), ZONE)
    before = (state_of(toy, branch), toy.kinds(branch))
    with pytest.raises(error, match=what):
        weigh(toy, weights, at="2024-03-14")
    assert (state_of(toy, branch), toy.kinds(branch)) == before


def test_a_version_that_people_never_agreed_to_waits_for_them(toy: Toy) -> None:
    branch = after_days(toy, "2024-03-01", "2024-03-05")
    asking = replace(easy(toy), approvals=1)
    loop.run_once(toy.ledger, toy.built, asking, toy.at("2024-03-09"), ZONE)
    candidate = state_of(toy, branch).candidate
    assert candidate
    assert candidate.phase == "approval"
    with pytest.raises(Refused, match=r"trees/3 is on its way \(approval\)"):
        weigh(toy, {"trees/3": 0.1}, needed=1)
    assert weigh(toy, {"trees/1": 0.1}, needed=1).now == {"trees/2": 0.9, "trees/1": 0.1}, "it was champion"
