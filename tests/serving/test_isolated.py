"""A deployment whose model has no exact form: a pickle of the project's own class, declared, in a process of its own behind the ladder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import tidemill as tm
from cli.conftest import Command
from cli.conftest import forks as forks
from cli.conftest import tidemill as tidemill
from tidemill import loop, registry
from tidemill.core import DataError, DefinitionError, NoExactForm, Refused
from tidemill.models import Isolated, OnnxModel
from tidemill.serving import AnswerLog, Endpoint, Gateway, gateway_routes
from tidemill.session import Session
from tidemill.web.status import render_status
from toy import DECLARATIONS, ZONE, open_toy, write_project

OWN = '''"""How late a parcel is by its weight; some weights do harm."""

import os
import time

import numpy as np


class Weighed:
    def __init__(self, seed):
        self.seed = seed

    def predict_proba(self, X):
        weight = np.nan_to_num(X[:, 1])
        if (weight == 666).any():
            raise ValueError("it weighs too much")
        if (weight == 777).any():
            time.sleep(600)
        if (weight == 888).any():
            os._exit(3)
        late = 1 / (1 + np.exp(2 - weight))
        return np.column_stack([1 - late, late])
'''
MODEL = """
@tm.model(late, seed=5, pickle=True)
def trees(train: tm.TrainingSet, params: tm.Params):
    return Weighed(train.seed)

"""
TIDEMILL = Path(sys.executable).parent / "tidemill"
AT = "2024-02-20T00:00:00Z"


def declared(**changes: str) -> str:
    start, end = DECLARATIONS.index("@tm.model"), DECLARATIONS.index("gates = [")
    text = DECLARATIONS[:start] + MODEL.strip() + "\n\n\n" + DECLARATIONS[end:]
    text = text.replace("import tidemill as tm\n", "import tidemill as tm\nfrom weighed import Weighed\n").replace(
        "gates=gates", "gates=[tm.gates.calibration(max_ece=1.0)]"
    )
    ladder = 'fallback=[tm.Constant(0.3)], timeout="900ms", breaker=tm.Breaker(pause="200ms")'
    text = text.replace('fallback=[tm.PreviousVersion(), tm.Constant(0.3)], timeout="2s"', ladder)
    for before, after in changes.items():
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with a first champion."""
    folder = tmp_path_factory.mktemp("isolated") / "parcels"
    folder.mkdir()
    (folder / "weighed.py").write_text(OWN)
    write_project(folder, declarations=declared())
    with Session(folder).project.writing("run") as ledger:
        toy = open_toy(folder, loop.prepare(ledger))
        loop.run_once(ledger, toy.built, toy.policy, toy.at("2024-03-01"), ZONE)
    return folder


@pytest.fixture
def session(folder: Path) -> Iterator[Session]:
    session = tm.open(folder)
    yield session
    session.close()


@pytest.fixture
def endpoint(session: Session) -> Endpoint:
    return session.deployments["late"].endpoint()


@pytest.fixture
def client(session: Session, endpoint: Endpoint, tmp_path: Path) -> TestClient:
    gateway = Gateway({"late": endpoint}, {"late": AnswerLog(tmp_path / "late.jsonl", 1.0)}, lambda: 1_708_400_000_000_000, True)
    return TestClient(Starlette(routes=[*gateway_routes(gateway)]))


def parcel(weight: float, name: str = "new") -> dict[str, Any]:
    times = {"sent": "2024-02-21T00:00:00Z", "booked": "2024-02-19T00:00:00Z"}
    return {"parcel": name, "depot": "N", "courier": "a", "grade": "x", "weight": weight, **times}


def ask(client: TestClient, *weights: float) -> list[dict[str, Any]]:
    answer = client.post("/predict/late", json={"rows": [parcel(one) for one in weights], "at": AT})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


def late(weight: float) -> float:
    return float(1 / (1 + np.exp(2 - weight)))


def champion(endpoint: Endpoint) -> Isolated:
    found = endpoint.predictors[endpoint.standing.champion[1]]
    assert isinstance(found, Isolated)
    return found


def pid_of(endpoint: Endpoint) -> int:
    begun = champion(endpoint)._process._begun
    assert begun is not None
    return begun.result(60)._process.pid


def until_it_is_back(client: TestClient) -> None:
    """Ask until the champion answers again."""
    end = time.monotonic() + 60
    while ask(client, 1.0)[0]["rung"] != "champion":
        assert time.monotonic() < end


def test_it_answers_as_the_class_itself_and_says_what_it_is(client: TestClient, endpoint: Endpoint) -> None:
    found = ask(client, 0.5, 2.0, 3.25)
    assert [one["rung"] for one in found] == ["champion"] * 3
    np.testing.assert_allclose([one["probability"] for one in found], [late(0.5), late(2.0), late(3.25)], rtol=0, atol=1e-12)
    assert client.get("/v2/models/late").json()["platform"] == "python_pickle"
    features = endpoint.given.signature.features
    values = [[2.5 if name == "booking__weight" else 0.0 for name in features]]
    tensor = {"name": "features", "shape": [1, len(features)], "datatype": "FP64", "data": values}
    answer = client.post("/v2/models/late/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["data"] == [pytest.approx(late(2.5), abs=1e-12)]
    assert answer["parameters"]["rung"] == "champion"


def test_requests_that_come_together_get_the_answers_they_get_alone(client: TestClient) -> None:
    weights = [round(0.1 * one, 1) for one in range(40)]
    alone = [ask(client, one)[0]["probability"] for one in weights]
    with ThreadPoolExecutor(16) as pool:
        together = [*pool.map(lambda weight: ask(client, weight)[0], [666.0 if i % 13 == 5 else one for i, one in enumerate(weights)])]
    for i, (one, found) in enumerate(zip(alone, together, strict=True)):
        if i % 13 == 5:
            assert (found["rung"], found["probability"]) == ("constant", 0.3)
        else:
            assert (found["rung"], found["probability"]) == ("champion", one)


@pytest.mark.parametrize("weight", [777.0, 888.0], ids=["hangs", "leaves"])
def test_one_that_hangs_or_leaves_is_replaced_and_the_next_rung_answers(client: TestClient, endpoint: Endpoint, weight: float) -> None:
    pid = pid_of(endpoint)
    assert ask(client, weight)[0]["rung"] == "constant"
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
    until_it_is_back(client)
    assert pid_of(endpoint) != pid


def test_killed_under_load_each_answer_is_right_or_from_the_next_rung(client: TestClient, endpoint: Endpoint) -> None:
    def one(i: int) -> None:
        found = ask(client, i / 100)[0]
        expected = late(i / 100) if found["rung"] == "champion" else 0.3
        assert found["probability"] == pytest.approx(expected, abs=1e-12)
        if i == 100:
            os.kill(pid_of(endpoint), signal.SIGKILL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(300)))
    until_it_is_back(client)


def test_scores_of_many_rows_are_those_of_requests(session: Session, tmp_path: Path) -> None:
    handle, weights = session.deployments["late"], [0.5, 1.5, 666.0, 2.5]
    rows = pl.DataFrame([parcel(one, f"p{i}") for i, one in enumerate(weights)])
    handle.score(rows, to=tmp_path / "scores.parquet", at=AT)
    found = pl.read_parquet(tmp_path / "scores.parquet")
    asked = [handle.predict(row, at=AT) for row in rows.to_dicts()]
    assert found["probability"].to_list() == [one["probability"] for one in asked]
    assert found["rung"].to_list() == ["champion", "champion", "constant", "champion"]


def test_why_it_has_no_compiled_form_is_told_everywhere(folder: Path, session: Session, tidemill: Command) -> None:
    def said(*arguments: str) -> str:
        done = tidemill(*arguments, folder=folder, COLUMNS="300")
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    why = "weighed.Weighed has no safe format here"
    form = f"the original (pickle), in a process of its own: {why}"
    assert f"trees/1: {form}" in said("status")
    assert f"it answers as {form}" in said("why", "trees/1")
    assert f"isolated: {why}" in said("lineage", "late")
    assert f"1 answers as {form}" in said("models", "show", "trees")
    assert json.loads(said("models", "show", "trees", "--json"))["versions"][0]["tags"]
    page = render_status(session.status())
    assert "answers as the original (pickle), in a process of its own" in page
    assert session.status()["deployments"][0]["isolated"] == {"trees/1": form}


def test_a_registered_version_is_served_bare_and_a_pickle_is_not(session: Session, tmp_path: Path) -> None:
    version, model = registry.open_version(session.ledger, "trees/1")
    assert not isinstance(model, OnnxModel)
    assert (version.version, model.platform, model.isolated) == ("1", "python_pickle", True)
    features = np.zeros((3, model.inputs["features"].shape[1]))
    features[:, 1] = [0.5, 1.5, 2.5]
    np.testing.assert_allclose(model.run({"features": features})["probability"][:, 0], [late(0.5), late(1.5), late(2.5)], atol=1e-12)
    with pytest.raises(DataError, match="it weighs too much"):
        model.run({"features": features + 666 - features})
    (tmp_path / "model.joblib").write_bytes(b"\x80\x04.")
    done = subprocess.run([TIDEMILL, "serve", tmp_path / "model.joblib"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert 'tm.convert(model, rows, "model.onnx")' in done.stderr


def test_a_version_of_another_ledger_is_refused(endpoint: Endpoint, session: Session) -> None:
    from tidemill.models import load_model
    from toy import in_memory

    strange, artifact = in_memory(), session.ledger.artifact_of("model", endpoint.standing.champion[1])
    for digest in artifact.meta["blobs"].values():
        strange.blobs.put(bytes(session.ledger.blobs.get(digest)))
    strange.put_artifact(artifact)
    with pytest.raises(Refused, match="was not trained here"):
        load_model(strange, strange.artifact(artifact.ref))


def test_without_a_declared_pickle_it_is_refused_where_it_is_declared(tmp_path: Path) -> None:
    folder = tmp_path / "parcels"
    folder.mkdir()
    (folder / "weighed.py").write_text(OWN)
    write_project(folder, declarations=declared(**{", pickle=True": ""}))
    toy = open_toy(folder)
    with pytest.raises(NoExactForm, match=r"@tm.model\(…, pickle=True\)") as error:
        loop.run_once(toy.ledger, toy.built, toy.policy, toy.at("2024-03-01"), ZONE)
    assert "parcels.py" in error.value.where


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: tm.Batching(rows=0), "rows=0 is not in"),
        (lambda: tm.Batching(within="soon"), "'soon' is not a duration"),
    ],
)
def test_wrong_declarations_of_batching_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        wrong()
