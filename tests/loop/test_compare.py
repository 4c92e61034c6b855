"""Policies over the same history: quality against cost, a choice by a stated rule, and its regret later."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tidemill import loop
from tidemill.core import DefinitionError, Refused, row_log_loss
from tidemill.data import segments
from tidemill.loop import Every, Never, PolicyComparison, Progress, QualityDrop
from tidemill.training import Params, TrainingSet, model
from toy import END, TRAIN_UNTIL, ZONE, Toy, parcels_of

Comparison = tuple[Toy, dict[str, Any], list[tuple[str, str, Progress | None]]]
DAYS: dict[str, Any] = {"choose_on": ("2024-03-01", "2024-04-12"), "report_on": ("2024-04-12", "2024-05-01")}


def linear(train: TrainingSet, params: Params) -> Pipeline:
    return make_pipeline(SimpleImputer(), LogisticRegression(max_iter=300)).fit(train.X, train.y)


def upside_down(train: TrainingSet, params: Params) -> Pipeline:
    return make_pipeline(SimpleImputer(), LogisticRegression(max_iter=300)).fit(train.X, 1 - train.y)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    toy = parcels_of(tmp_path_factory.mktemp("compare"))
    policy = replace(toy.policy, on=(QualityDrop("log_loss", by=0.03),))
    models = (toy.policy.monitor.deployment.model, model(toy.built.task, seed=5)(linear))
    comparison = PolicyComparison(policy, against=[Never()], models=models, **DAYS)
    heard: list[tuple[str, str, Progress | None]] = []

    def listen(policy: str, model: str, progress: Progress | None) -> None:
        heard.append((policy, model, progress))

    found = loop.compare(toy.ledger, toy.built, comparison, toy.at(TRAIN_UNTIL), toy.at(END), ZONE, listen=listen)
    return toy, found, heard


def test_every_policy_is_replayed_with_every_model(compared: Comparison) -> None:
    toy, found, heard = compared
    pairs = {(model, policy) for model in ("trees", "linear") for policy in ("on drop of log_loss", "never")}
    assert {(one["model"], one["policy"]) for one in found["policies"]} == pairs
    assert {(model, policy) for policy, model, progress in heard if progress is None} == pairs
    assert {branch.kind for branch in toy.ledger.branches()} == {"comparison"}, "nothing that `up` would serve"


def test_quality_is_that_of_what_each_policy_answered(compared: Comparison) -> None:
    toy, found, _ = compared
    examples = toy.built.examples
    label = dict(zip(examples.requests.keys.tolist(), zip(examples.label, examples.requests.event, strict=True), strict=True))
    branch = next(b for b in toy.ledger.branches() if b.result["cost"]["trainings"] == 2 and b.parts["model"]["name"] == "trees")
    losses = []
    for _, segment in segments(toy.ledger, branch.id, "late"):
        for key, p in zip(segment.keys.tolist(), segment.probability.tolist(), strict=True):
            y, event = label[key]
            if not np.isnan(y) and toy.at("2024-03-01") <= event < toy.at("2024-04-12"):
                losses.append(float(row_log_loss([y], [p])[0]))
    never = next(one for one in found["policies"] if (one["model"], one["policy"]) == ("trees", "never"))
    assert never["choose"]["log_loss"] == pytest.approx(np.mean(losses))


def test_the_choice_follows_its_rule_and_the_regret_is_told_with_its_interval(compared: Comparison) -> None:
    _, found, _ = compared
    chosen = [one for one in found["policies"] if one["chosen"]]
    assert [(one["policy"], one["model"]) for one in chosen] == [(found["chosen"]["policy"], found["chosen"]["model"])]
    best = min(found["policies"], key=lambda one: one["choose"]["log_loss"])
    assert chosen[0]["cost"]["row_rounds"] <= best["cost"]["row_rounds"], "the best is always allowed, so what is chosen costs no more"
    later = min(found["policies"], key=lambda one: one["report"]["log_loss"])
    loss = found["regret"]["log_loss"]
    assert found["regret"]["best"] == {"policy": later["policy"], "model": later["model"]}
    assert loss["estimate"] == pytest.approx(chosen[0]["report"]["log_loss"] - later["report"]["log_loss"])
    assert loss["low"] <= loss["estimate"] <= loss["high"]


def test_what_is_never_retrained_costs_least_and_is_worst_after_the_change(compared: Comparison) -> None:
    _, found, _ = compared
    trees = {one["policy"]: one for one in found["policies"] if one["model"] == "trees"}
    assert trees["never"]["cost"]["row_rounds"] == min(one["cost"]["row_rounds"] for one in trees.values())
    assert trees["never"]["report"]["log_loss"] == max(one["report"]["log_loss"] for one in trees.values())
    assert trees["never"]["promotions"] == 0
    assert trees["on drop of log_loss"]["promotions"] >= 1


@pytest.mark.parametrize("name", ["choose_on", "report_on"])
@pytest.mark.parametrize(
    ("days", "what"),
    [
        (("", ""), "is not a pair of dates"),
        (("2024-03-01", "May"), "is not a pair of dates"),
        ("2024-03-01", "is not a pair of dates"),
        (("2024-03-01",), "is not a pair of dates"),
        ((2024, 2025), "is not a pair of dates"),
        (("2024-03-01", "2024-03-01"), "holds no day"),
        (("2024-05-01", "2024-03-01"), "holds no day"),
    ],
)
def test_days_that_cannot_be_compared_on_are_refused(toy: Toy, name: str, days: Any, what: str) -> None:
    with pytest.raises(DefinitionError) as error:
        PolicyComparison(toy.policy, **DAYS | {name: days})
    assert error.value.what == f"{name}={days!r} {what}"
    assert error.value.where.startswith(__file__)


def test_a_policy_of_several_triggers_is_compared_with_each_alone(toy: Toy) -> None:
    policy = replace(toy.policy, on=(QualityDrop("log_loss", by=0.03), Every("20d")))
    comparison = PolicyComparison(policy, against=[Never()], **DAYS)
    names = [replace(policy, on=triggers).name for triggers in comparison.triggers]
    assert names == ["on drop of log_loss or every 20d", "on drop of log_loss", "every 20d", "never"]


def test_a_model_that_its_gates_refuse_is_told_and_the_rest_is_compared(toy: Toy) -> None:
    policy = replace(toy.policy, on=(Never(),))
    models = (model(toy.built.task, seed=5)(upside_down), toy.policy.monitor.deployment.model)
    comparison = PolicyComparison(policy, models=models, choose_on=("2024-03-01", "2024-03-10"), report_on=("2024-03-10", "2024-03-20"))
    span = toy.at(TRAIN_UNTIL), toy.at("2024-03-20")
    found = loop.compare(toy.ledger, toy.built, comparison, *span, ZONE)
    assert [one["model"] for one in found["policies"]] == ["trees"]
    (refused,) = found["refused"]
    assert refused["model"] == "upside_down"
    assert "upside_down/1 does not pass its gates: better than champion" in refused["why"]
    with pytest.raises(Refused, match="upside_down/1 does not pass"):
        loop.compare(toy.ledger, toy.built, replace(comparison, models=models[:1]), *span, ZONE)


def test_days_that_the_replay_does_not_answer_or_that_overlap_are_refused(toy: Toy) -> None:
    with pytest.raises(DefinitionError, match=r"begins before choose_on=.* has ended"):
        PolicyComparison(toy.policy, choose_on=DAYS["report_on"], report_on=DAYS["choose_on"])
    outside = PolicyComparison(toy.policy, choose_on=("2024-02-01", "2024-03-10"), report_on=DAYS["report_on"])
    with pytest.raises(DefinitionError, match=r"choose_on=.* is not within the replay") as error:
        loop.compare(toy.ledger, toy.built, outside, toy.at(TRAIN_UNTIL), toy.at(END), ZONE)
    assert "from 2024-03-01 to 2024-05-01" in error.value.hint


def test_of_equal_policies_the_cheaper_is_chosen(toy: Toy) -> None:
    policy = replace(toy.policy, on=(Every("10d"),), cooldown="1d")
    comparison = PolicyComparison(policy, against=[Never()], choose_on=("2024-03-01", "2024-03-05"), report_on=("2024-03-05", "2024-03-20"))
    found = loop.compare(toy.ledger, toy.built, comparison, toy.at(TRAIN_UNTIL), toy.at("2024-03-20"), ZONE)
    every, never = found["policies"]
    assert every["choose"] == never["choose"]
    assert every["cost"]["row_rounds"] > never["cost"]["row_rounds"]
    assert never["chosen"]
