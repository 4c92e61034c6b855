"""What is refused before a replay or a run begins: it would show only at the end of a training, or never."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidemill import training
from tidemill.core import DefinitionError
from tidemill.evaluation import gates
from tidemill.features import parts_of
from tidemill.loop.replay import check
from tidemill.loop.world import World
from tidemill.models import load_model
from toy import DECLARATIONS, ZONE, Toy, open_toy, with_deployment, write_project


def test_a_canary_by_a_part_of_the_key_keeps_that_part_together(tmp_path: Path) -> None:
    declarations = DECLARATIONS.replace('key="parcel"', 'key=["parcel", "grade"]').replace('sticky_by="courier"', 'sticky_by="grade"')
    declarations = declarations.replace("SELECT parcel, arrived", "SELECT parcel, grade, arrived")
    toy = open_toy(write_project(tmp_path / "p", declarations=declarations))
    check(toy.policy, toy.built)
    world = World(toy.ledger, "x", toy.policy.monitor.deployment, toy.built.examples, ZONE, 0.9)
    keys = toy.built.examples.requests.keys[:9].tolist()
    assert world.sticky("grade", np.arange(9)) == [parts_of(key.decode(), 2)[1] for key in keys]


def test_a_replay_of_many_versions_keeps_few_of_them(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = training.training_set(toy.ledger, toy.built.examples, toy.at("2024-02-01"))
    model = toy.policy.monitor.deployment.model
    digests = [training.train(toy.ledger, replace(model, seed=seed), chosen).model.ref.digest for seed in range(3)]
    world = World(toy.ledger, "x", toy.policy.monitor.deployment, toy.built.examples, ZONE, 0.9)
    rows = np.arange(20)
    scores = [world.score(digest, rows) for digest in digests]
    asked: list[str] = []
    monkeypatch.setattr("tidemill.loop.world.LOADED", 2)
    monkeypatch.setattr("tidemill.loop.world.load_model", lambda ledger, one: asked.append(one.ref.digest) or load_model(ledger, one))
    for digest in (1, 2, 1, 2, 0):
        np.testing.assert_array_equal(world.score(digests[digest], rows), scores[digest])
    assert asked == [digests[0]], "those that were asked last stay"


def test_a_gate_that_cuts_by_a_column_that_requests_lack_is_refused(toy: Toy) -> None:
    policy = with_deployment(toy.policy, gates=[gates.no_worse_slice("log_loss", by=["depot", "curier"], margin=0.1)])
    with pytest.raises(DefinitionError, match="cuts by 'curier', which is no text column") as error:
        check(policy, toy.built)
    assert "courier" in error.value.available
    assert __file__ in error.value.where


@pytest.mark.parametrize("wrong", [{"approvals": -1}, {"min_new_labels": -1}])
def test_numbers_below_nothing_are_refused(toy: Toy, wrong: dict[str, int]) -> None:
    with pytest.raises(DefinitionError, match="=-1 is below 0"):
        replace(toy.policy, **wrong)  # type: ignore[arg-type]
