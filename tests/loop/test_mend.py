"""A model whose bytes are lost or damaged is trained again, or said to be gone."""

from dataclasses import replace
from pathlib import Path

import pytest
from lightgbm import LGBMClassifier

from tidemill import loop
from tidemill.core import Damaged, definition
from tidemill.data import broken, logged
from tidemill.evaluation import gates
from tidemill.ledger import Branch, Ledger
from tidemill.loop import Progress, State
from tidemill.loop.mend import _as_then
from tidemill.loop.replay import with_model
from tidemill.models import Int8, load_model
from tidemill.store import FolderBlobs
from tidemill.training import Params, TrainingSet
from toy import ZONE, Toy, open_toy, parcels_of, with_deployment

DAYS = ("2024-03-25", "2024-03-26")


def blobs_of(ledger: Ledger, digest: str) -> list[str]:
    return list(ledger.artifact_of("model", digest).meta["blobs"].values())


@pytest.fixture
def live(parcels: Path, folder_ledger: Ledger) -> Toy:
    return open_toy(parcels, loop.prepare(folder_ledger))


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_the_champion_of_a_live_branch_is_trained_again(live: Toy, how: str) -> None:
    first = loop.run_once(live.ledger, live.built, live.policy, live.at(DAYS[0]), ZONE).state
    for blob in blobs_of(live.ledger, first.champion.digest):
        path = live.ledger.blobs.path(blob)
        path.unlink() if how == "lost" else path.write_bytes(b"x" * path.stat().st_size)
    live = replace(live, ledger=loop.prepare(Ledger(live.ledger.records, FolderBlobs(path.parent.parent), live.ledger.wall)))
    second = loop.run_once(live.ledger, live.built, live.policy, live.at(DAYS[1]), ZONE).state
    assert second.champion == first.champion
    for blob in blobs_of(live.ledger, first.champion.digest):
        live.ledger.blobs.verify(blob)
    assert live.ledger.changed(live.ledger.executions(kind="training run")[0]) == "its result was not kept"


def another(train: TrainingSet, params: Params) -> LGBMClassifier:
    """A function that gives other models than the project's, under the same name."""
    return LGBMClassifier(**params, random_state=train.seed + 1, n_jobs=1, verbose=-1).fit(train.X, train.y)


def test_a_champion_that_cannot_be_made_again_is_said(toy: Toy) -> None:
    first = loop.run_once(toy.ledger, toy.built, toy.policy, toy.at(DAYS[0]), ZONE).state
    for blob in blobs_of(toy.ledger, first.champion.digest):
        toy.ledger.blobs.delete(blob)
    model = toy.policy.monitor.deployment.model
    changed = with_model(toy.policy, replace(model, function=another))
    for _ in range(2):
        with pytest.raises(Damaged, match="trees/1 is lost, and training it again gives another model") as error:
            loop.run_once(toy.ledger, toy.built, changed, toy.at(DAYS[1]), ZONE)
        assert "restore its blobs from a backup" in error.value.hint
    second = loop.run_once(toy.ledger, toy.built, toy.policy, toy.at(DAYS[1]), ZONE).state
    assert second.champion == first.champion, "with what was then, it is made again"


def test_each_version_is_trained_again_as_it_was_defined(toy: Toy) -> None:
    """An edit of the parameters climbs the canary: the branch has its definition, the champion and the frozen model have theirs."""
    model = toy.policy.monitor.deployment.model
    easy = with_deployment(toy.policy, gates=[gates.calibration(max_ece=0.9)])
    slower = with_model(easy, replace(model, params={**model.params, "learning_rate": 0.1}))
    first = loop.run_once(toy.ledger, toy.built, slower, toy.at(DAYS[0]), ZONE).state.champion
    assert loop.run_once(toy.ledger, toy.built, easy, toy.at(DAYS[1]), ZONE).state.candidate is not None
    lost = blobs_of(toy.ledger, first.digest)
    for blob in lost:
        toy.ledger.blobs.delete(blob)
    assert loop.run_once(toy.ledger, toy.built, easy, toy.at("2024-03-27"), ZONE).state.champion == first
    assert all(toy.ledger.blobs.has(blob) for blob in lost)


def test_it_is_trained_as_it_was_then_in_its_form_too(toy: Toy) -> None:
    then = replace(toy.policy.monitor.deployment.model, seed=9, params={"a": 1}, quantise=Int8(0.05), pickle=True)
    for now in (then, replace(then, seed=1, params={}, quantise=None, pickle=False), replace(then, quantise=Int8(0.01))):
        assert definition(_as_then(now, definition(then))) == definition(then)
    plain = replace(then, quantise=None, pickle=False)
    assert definition(_as_then(then, definition(plain))) == definition(plain)


def test_a_replay_that_serves_has_its_champion_again(tmp_path: Path) -> None:
    toy = parcels_of(tmp_path)
    branch: Branch = toy.replay(end="2024-03-03")
    champion = toy.ledger.artifact_of("model", State.of(branch.state).champion.digest)
    toy.ledger.blobs.delete(champion.meta["blobs"]["onnx"])
    _, cached = loop.replay(toy.ledger, toy.job(end="2024-03-03"))
    assert cached
    load_model(toy.ledger, champion)


def test_the_lost_answers_of_a_replay_are_given_again(tmp_path: Path) -> None:
    """Through a canary and a promotion: the same versions answer with the same bytes."""
    toy = parcels_of(tmp_path)
    branch = toy.replay()
    kept = logged(toy.ledger, branch.id)
    assert {"canary", "promoted", "drift found"} <= set(toy.kinds(branch))
    for one in kept[::2]:
        toy.ledger.blobs.delete(one.digest)
    assert len(broken(toy.ledger, branch.id)) == len(kept[::2])
    again, cached = loop.replay(toy.ledger, toy.job())
    assert (again.id, cached, broken(toy.ledger, branch.id)) == (branch.id, True, [])
    assert logged(toy.ledger, branch.id) == kept


def test_a_replay_that_was_stopped_goes_on_after_its_log_was_damaged(live: Toy, tmp_path: Path) -> None:
    whole = parcels_of(tmp_path).replay(end="2024-03-06")

    def stop(progress: Progress) -> None:
        if progress.now == live.at("2024-03-04"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live.replay(end="2024-03-06", listen=stop)
    branch = live.job(end="2024-03-06").branch(live.ledger)
    path = live.ledger.blobs.path(logged(live.ledger, branch.id)[1].digest)
    path.write_bytes(b"x" * path.stat().st_size)
    live = replace(live, ledger=loop.prepare(Ledger(live.ledger.records, FolderBlobs(path.parent.parent), live.ledger.wall)))
    assert live.replay(end="2024-03-06").result == whole.result
