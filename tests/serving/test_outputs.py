"""A deployment whose model takes the output of another: the same for all requests, by key and by columns, and computed again alike."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill import loop
from tidemill.core import MissingFile, Ref, Where, definition, show
from tidemill.models import Signature, compile_model, store_model
from tidemill.monitoring import Skew
from tidemill.serving import AnswerLog, Endpoint, sample_answers
from tidemill.session.session import open_endpoint
from toy import DECLARATIONS, Toy, in_memory, open_toy, write_project

SIGNATURE = Signature(("weight", "grade"), {"grade": ("x", "y")})
OUTPUT = """first = tm.RequestView("first", bookings, features=tm.output_of("REF", columns=["weight", "grade"], returns=["score"]))


late = tm.Task("""


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Ref]:
    from lightgbm import LGBMClassifier

    rng, ledger = np.random.default_rng(2), in_memory()
    X = np.column_stack([rng.normal(2, 1, 500), rng.integers(0, 2, 500)])
    fitted = LGBMClassifier(n_estimators=20, num_leaves=7, random_state=1, n_jobs=1, verbose=-1).fit(
        X, X[:, 0] + X[:, 1] > 2, categorical_feature=[1]
    )
    model = store_model(ledger, "first", compile_model(fitted, SIGNATURE, X), SIGNATURE, X, {})
    ledger.put_artifact(model)
    files = DECLARATIONS.replace("late = tm.Task(", OUTPUT.replace("REF", str(model.ref))).replace("[booking,", "[booking, first,")
    return open_toy(write_project(tmp_path_factory.mktemp("stacked") / "parcels", declarations=files), ledger), model.ref


def asked(endpoint: Endpoint, count: int) -> list[tuple[dict[str, Any], int]]:
    """Known requests as clients send them, with all their columns, and when they are asked."""
    requests, found = endpoint.rows.known, []
    for i in range(count):
        texts = {name: requests.texts[name].texts()[i] for name in ("depot", "courier", "grade")}
        weight = float(requests.values[i, list(requests.names).index("booking__weight")])
        times = {name: show(int(value[i])) for name, value in (("sent", requests.event), ("booked", requests.known))}
        found.append(({"parcel": requests.keys[i].decode(), "weight": weight, **texts, **times}, int(requests.at[i])))
    return found


def test_it_is_the_same_for_all_rows_and_for_one_request(stacked: tuple[Toy, Ref], tmp_path: Path) -> None:
    toy, ref = stacked
    branch = toy.replay(end="2024-03-05")
    endpoint = open_endpoint(toy.ledger, toy.declared, branch)
    rows, at = zip(*asked(endpoint, 40), strict=True)
    by_key = endpoint.answer([{"parcel": row["parcel"]} for row in rows], at, explain=True)
    assert len({answer.inputs["first__score"] for answer in by_key if answer.inputs}) > 3
    for row, when, one in zip(rows, at, by_key, strict=True):
        (alone,) = endpoint.answer([row], [when], explain=True)
        assert (alone.inputs, alone.probability) == (one.inputs, one.probability)
    assert endpoint.answer(rows, at, explain=True) == by_key

    log = AnswerLog(tmp_path / "late.jsonl")
    log.append(endpoint.answer([rows[0], {"parcel": rows[1]["parcel"]}], at[:2], keep=1.0), 5, branch.id)
    sample = sample_answers(log.path, branch.id, 0, 6, 10)
    found = loop.measure(toy.ledger, branch.id, "late", sample, Skew()).found
    assert (found.rows, {one.equal for one in found.features}, found.left_out) == (2, {2}, {}), "no file of the project is asked"

    champion = toy.ledger.artifact_of("model", loop.State.of(branch.state).champion.digest)
    read = loop.origin.reads(toy.ledger, loop.origin.examples_of(toy.ledger, champion).ref)
    assert read["view first"]["output"]["model"] == str(ref)
    former = {one.view.name: one.view for one in loop.former_features(toy.ledger, champion, toy.declared.declarations, Where())}
    assert definition(former["first"]) == definition(next(view for view in toy.built.task.features if view.name == "first"))


def test_where_the_model_is_gone_what_is_known_is_answered_still(stacked: tuple[Toy, Ref]) -> None:
    toy, ref = stacked
    gc.collect()  # whoever holds a model that was loaded goes on with it
    toy.ledger.blobs.delete(toy.ledger.artifact(ref).meta["blobs"]["onnx"])
    endpoint = open_endpoint(toy.ledger, toy.declared, toy.replay(end="2024-03-05"))
    ((row, at),) = asked(endpoint, 1)
    assert np.isfinite(endpoint.answer([{"parcel": row["parcel"]}], [at])[0].probability)
    with pytest.raises(MissingFile, match=r"the model of view 'first', model:first@.*, cannot be read"):
        endpoint.answer([row], [at])
