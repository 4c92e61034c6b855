"""Before a version is asked by anybody, its golden cases go the way of requests; where they are answered otherwise, it is not deployed."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import tidemill as tm
from serving.conftest import Served
from serving.test_gateway import Replayed
from serving.test_ladder import Slow
from tidemill.core import Refused
from tidemill.models import Predictor, golden_of
from tidemill.serving import rehearse
from tidemill.session import Session
from tidemill.web.app import make_app


class Counting(Predictor):
    """A model that counts the rows that it is asked about; `by` is added to its answers."""

    def __init__(self, whole: Any, by: float = 0.0) -> None:
        self.whole, self.signature, self.pace, self.by, self.rows = whole, whole.signature, whole.pace, by, 0

    def predict(self, features: Any) -> Any:
        self.rows += len(features)
        return self.whole.predict(features) + self.by


def champion(served: Served) -> Any:
    return served.endpoint.predictors[served.endpoint.standing.champion[1]]


def as_champion(served: Served, model: Any) -> Served:
    served.endpoint.predictors[served.endpoint.standing.champion[1]] = model
    return served


def test_a_sound_version_passes_whatever_the_deployment_expects_and_nothing_is_counted(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    cases = len(golden_of(toy.ledger, toy.ledger.artifact_of("model", served.endpoint.standing.champion[1])).features)
    model = Counting(champion(served))
    as_champion(served, model)
    expect = [tm.Expect("booking__weight", high=-1, otherwise="reject")]
    endpoint = replace(served.endpoint, expect=expect, holdout=tm.Holdout(0.99, 0.2), fallback=[tm.LastAnswer(), tm.Constant(0.2)])
    before = dict(endpoint.ladder.counts)
    rehearse(toy.ledger, endpoint)
    assert (model.rows, endpoint.ladder.counts) == (cases, before)
    assert cases > 0


def test_another_answer_is_refused(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    as_champion(served, Counting(champion(served), by=1e-6))
    with pytest.raises(Refused, match="golden cases otherwise when they are sent as requests"):
        rehearse(toy.ledger, served.endpoint)


def test_a_fault_on_the_way_of_requests_is_found(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    whole = champion(served)
    name, words = next((name, words) for name, words in whole.signature.categories.items() if len(words) > 1)

    class Wrong(Counting):
        def predict(self, features: Any) -> Any:
            features = features.copy()
            place = self.signature.features.index(name)
            features[:, place] = len(words) - 1 - features[:, place]
            return super().predict(features)

    as_champion(served, Wrong(whole))
    with pytest.raises(Refused, match="golden cases otherwise"):
        rehearse(toy.ledger, served.endpoint)


def test_a_version_that_is_too_slow_for_its_deployment_is_refused(replayed: Replayed, served: Served) -> None:
    toy, _ = replayed
    slow = Slow(champion(served))
    as_champion(served, slow)
    served.endpoint.ladder.timeout = 20_000
    with pytest.raises(Refused, match=r"does not answer its golden cases within 0\.02 s"):
        rehearse(toy.ledger, served.endpoint)
    slow.let.set()


def test_what_serves_goes_on_when_the_next_cannot(copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(copied)
    client = TestClient(make_app(session, "http://127.0.0.1"), base_url="http://127.0.0.1")
    gateway: Any = client.app.state.gateway  # type: ignore[attr-defined]
    current, serving = gateway.refresh.__self__, gateway.endpoints["late"]
    current._marks.clear()  # as if the branch had moved

    def refuse(*_: Any) -> None:
        raise Refused("trees/9 answers 1 of its 20 golden cases otherwise")

    monkeypatch.setattr("tidemill.web.app.rehearse", refuse)
    with caplog.at_level(logging.WARNING):
        current._look()
    assert gateway.endpoints["late"] is serving
    assert "deployment=late kept error=trees/9 answers 1 of its 20" in caplog.text
    assert client.post("/predict/late", json={"rows": [{"parcel": "p118-003"}]}).status_code == 200
    with pytest.raises(Refused):
        make_app(Session(copied), "http://127.0.0.1")
