"""Who answers whom: the hold-out that no model answers, and the shadow that answers nobody."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import tidemill as tm
from serving.conftest import Served
from serving.test_gateway import Replayed as Whole
from tidemill.core import DefinitionError, instant
from tidemill.features import Requests
from tidemill.registry import versions
from tidemill.serving import Endpoint, Ladder, Shadows
from tidemill.serving import open_endpoint as open_serving
from tidemill.serving.rows import Part
from tidemill.session import Session
from tidemill.session.session import open_endpoint
from tidemill.web.app import make_app

AT = instant("2024-04-30T00:00:00Z")


@pytest.fixture
def parcels_of_april(served: Served) -> list[dict[str, Any]]:
    known = served.endpoint.rows.known
    return [{"parcel": key.decode()} for key in known.keys[known.at < AT][-400:].tolist()]


def changed(served: Served, **changes: Any) -> Endpoint:
    return replace(served.endpoint, ladder=Ladder("late"), **changes)


# ── the hold-out ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_share_of_the_keys_is_answered_by_no_model_and_stays_so(served: Served, parcels_of_april: list[dict[str, Any]]) -> None:
    plain = served.endpoint.answer(parcels_of_april, [AT] * 400)
    small, large = (changed(served, holdout=tm.Holdout(share, 0.22)).answer(parcels_of_april, [AT] * 400) for share in (0.1, 0.3))
    held = [{one.key for one in answers if one.rung == "hold-out"} for answers in (small, large)]
    assert held[0] < held[1], "a key that is held out stays so when the share grows"
    assert [abs(len(some) / 400 - share) < 0.06 for some, share in zip(held, (0.1, 0.3), strict=True)] == [True, True]
    for before, after in zip(plain, small, strict=True):
        if after.rung == "hold-out":
            assert (after.probability, after.version) == (0.22, "")
        else:
            assert (after.probability, after.version, after.rung) == (before.probability, before.version, "champion")


def test_a_hold_out_may_stick_to_a_column_and_asks_no_model_for_it(served: Served, parcels_of_april: list[dict[str, Any]]) -> None:
    endpoint = changed(served, holdout=tm.Holdout(0.5, 0.22, sticky_by="courier"))
    answers = endpoint.answer(parcels_of_april, [AT] * 400)
    known, rungs = endpoint.rows.known, dict[str, set[str]]()
    for one in answers:
        courier = known.take([known.find(one.key)]).texts["courier"].texts()[0]
        if courier:
            rungs.setdefault(courier, set()).add(one.rung)
    assert {len(found) for found in rungs.values()} == {1}
    assert set().union(*rungs.values()) == {"champion", "hold-out"}
    held = [{"parcel": one.key} for one in answers if one.rung == "hold-out"]
    endpoint.ladder.counts.clear()
    endpoint.predictors.clear()
    assert {one.rung for one in endpoint.answer(held, [AT] * len(held))} == {"hold-out"}


def test_what_is_missing_is_one_thing_whatever_its_bytes(served: Served) -> None:
    """A file may hold NaN with a sign, as a division gives it; a request's null has none."""
    endpoint = changed(served, holdout=tm.Holdout(0.5, 0.22))
    words, rows = endpoint.given.signature.categories, 100
    numbers = [name for name in endpoint.given.signature.features if name not in words]

    def rungs(nothing: float) -> list[str]:
        columns = dict.fromkeys(numbers, np.full(rows, nothing)) | {name: [None] * rows for name in words}
        matrix = endpoint.given.of_columns(columns | {numbers[0]: np.arange(rows, dtype=np.float64)}, range(rows))
        part = Part(range(rows), Requests.bare([""] * rows, np.full(rows, AT)), None, matrix)
        return [one.rung for one in endpoint.answer_part(part)]

    assert {*rungs(np.nan)} == {"champion", "hold-out"}
    assert rungs(np.nan) == rungs(-np.nan)


# ── the shadow ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shadows(tmp_path: Path) -> Iterator[Shadows]:
    found = Shadows(tmp_path / "shadow" / "late.jsonl", most=3)
    yield found
    found.close()


def shadowed(replayed: Whole, served: Served, shadows: Shadows, **how: Any) -> Endpoint:
    """The deployment with its first version as its shadow."""
    toy, branch = replayed
    first = versions(toy.ledger, branch.id)[0].ref
    shadow = tm.Shadow(f"model:{first.name}@{first.digest[:12]}", **how)
    endpoint = open_serving(toy.ledger, "late", branch.parts["recipe"], served.endpoint.standing, shadow=shadow)
    endpoint.shadows = shadows
    return endpoint


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "shadow" / "late.jsonl").read_text().splitlines()]


def test_a_shadow_gets_a_copy_and_answers_nobody(
    replayed: Whole, served: Served, shadows: Shadows, tmp_path: Path, parcels_of_april: list[dict[str, Any]]
) -> None:
    endpoint = shadowed(replayed, served, shadows)
    answers = endpoint.answer(parcels_of_april, [AT] * 400)
    assert answers == served.endpoint.answer(parcels_of_april, [AT] * 400)
    shadows.wait()
    (name,) = endpoint.others.values()
    alone = replace(endpoint, shadows=None, standing=replace(endpoint.standing, champion=name)).answer(parcels_of_april, [AT] * 400)
    found = lines(tmp_path)
    assert [one["key"] for one in found] == [one.key for one in answers]
    assert [one["probability"] for one in found] == [one.probability for one in alone], "as if it had served"
    assert [one["answered_probability"] for one in found] == [one.probability for one in answers]
    assert {(one["version"], one["answered"], one["rung"]) for one in found} == {(name[0], endpoint.standing.champion[0], "champion")}
    apart = np.mean([abs(one["probability"] - one["answered_probability"]) for one in found])
    other = sum((one["probability"] > 0.5) != (one["answered_probability"] > 0.5) for one in found)
    plain = shadows.plain()
    assert plain.pop("mean_difference") == pytest.approx(apart, rel=1e-12)
    assert plain == {"copied": 400, "dropped": 0, "failed": 0, "other_label": other}


def test_of_a_share_the_same_requests_are_copied_again(
    replayed: Whole, served: Served, shadows: Shadows, tmp_path: Path, parcels_of_april: list[dict[str, Any]]
) -> None:
    endpoint = shadowed(replayed, served, shadows, share=0.2)
    for _ in range(2):
        endpoint.answer(parcels_of_april, [AT] * 400)
    shadows.wait()
    keys = [one["key"] for one in lines(tmp_path)]
    assert keys[: len(keys) // 2] == keys[len(keys) // 2 :]
    assert abs(len(keys) / 800 - 0.2) < 0.06


def test_a_shadow_that_hangs_or_fails_keeps_nobody_waiting(
    replayed: Whole, served: Served, shadows: Shadows, parcels_of_april: list[dict[str, Any]]
) -> None:
    endpoint = shadowed(replayed, served, shadows)
    (name,) = endpoint.others.values()
    whole, begun, let = endpoint.predictors[name[1]], threading.Event(), threading.Event()

    class Hanging:
        signature, pace = whole.signature, whole.pace

        def predict(self, features: Any) -> Any:
            begun.set()
            let.wait(60)
            raise MemoryError("no room for this")

    endpoint.predictors[name[1]] = Hanging()  # type: ignore[assignment]
    assert endpoint.answer(parcels_of_april[:1], [AT])[0].rung == "champion"
    assert begun.wait(60)
    for _ in range(5):  # one row is asked, three times two wait
        assert endpoint.answer(parcels_of_april[:2], [AT] * 2)[1].rung == "champion"
    assert shadows.plain()["dropped"] == 4
    let.set()
    shadows.wait()
    assert {name: shadows.plain()[name] for name in ("copied", "dropped", "failed")} == {"copied": 0, "dropped": 4, "failed": 7}


def test_a_version_that_nobody_asks_keeps_no_request_from_the_short_way(served: Served) -> None:
    standing = served.endpoint.standing
    assert standing.previous
    assert served.endpoint.brisk, "how long each takes is known before the first request"


def test_a_shadow_that_is_slow_slows_nobody_down(replayed: Whole, served: Served, shadows: Shadows) -> None:
    endpoint = shadowed(replayed, served, shadows)
    (name,) = endpoint.others.values()
    for predictor in endpoint.predictors.values():
        predictor.pace.note(1)
    assert endpoint.brisk
    endpoint.predictors[name[1]].pace.usual = 1e9
    assert endpoint.brisk
    slower = replace(endpoint, fallback=[tm.SimplerModel(f"model:{name[0]}")], others={f"model:{name[0]}": name})
    assert not slower.brisk, "it may answer"


def test_a_served_deployment_tells_what_its_shadow_says(copied: Path) -> None:
    """Declared, served, and read from the status and its log."""
    session = Session(copied)
    branch = session.serving["late"].branch
    first = versions(session.project.ledger(), branch.id)[0].ref
    declared = next(copied.glob("*.py"))
    text = declared.read_text()
    assert text.count('timeout="2s")') == 1
    declared.write_text(text.replace('timeout="2s")', f'timeout="2s", shadow=tm.Shadow("model:{first.name}@{first.digest[:12]}"))'))
    session = Session(copied)
    client = TestClient(make_app(session, "http://127.0.0.1"), base_url="http://127.0.0.1")
    assert client.post("/predict/late", json={"rows": [{"parcel": "p118-003"}]}).status_code == 200
    endpoint = client.app.state.gateway.endpoints["late"]  # type: ignore[attr-defined]
    endpoint.shadows.wait()
    (deployment,) = client.get("/status.json").json()["deployments"]
    assert (deployment["shadow"]["of"], deployment["shadow"]["copied"]) == (f"model:{first.name}@{first.digest[:12]}", 1)
    assert "1 rows copied, 0 dropped, 0 failed; probabilities differ by 0." in client.get("/").text
    assert open_endpoint(session.project.ledger(), session.project, branch).shadows is None, "who asks from Python copies nothing"


WRONG = [
    (lambda: tm.Holdout(0.0, 0.2), "share=0.0 is not in (0, 1)"),
    (lambda: tm.Holdout(0.1, 2), "value=2 is not in [0, 1]"),
    (lambda: tm.Shadow("linear"), "the shadow 'linear' is no ref of a model"),
    (lambda: tm.Shadow(share=0), "share=0 is not in (0, 1]"),
    (lambda: tm.SimplerModel("linear/3"), "the simpler model 'linear/3' is no ref of a model"),
    (lambda: tm.Breaker(failures=0), "failures=0 is below 1"),
    (lambda: tm.LastAnswer(within="soon"), "soon"),
]


@pytest.mark.parametrize(("declare", "what"), WRONG)
def test_what_cannot_work_is_refused_where_it_is_declared(declare: Any, what: str) -> None:
    with pytest.raises(DefinitionError) as error:
        declare()
    assert what in str(error.value)
