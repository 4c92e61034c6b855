"""A stored model: equal training gives an equal digest anywhere, and it answers as it did when it was made."""

from pathlib import Path

import numpy as np
import pytest

from models.fitted import SIGNATURE, boosted, extreme, grown, hidden, linear, matrix
from processes import run_python
from tidemill.core import DataError
from tidemill.ledger import Artifact, Ledger
from tidemill.models import Signature, compile_model, golden_differences, golden_of, load_model, signature_of, store_model

HERE = Path(__file__).parent.parent
PROFILE = {"delay": {"mean": 1.5}}
MADE = {"boosted": boosted, "linear": linear, "grown": grown, "hidden": hidden, "extreme": extreme}


def stored(ledger: Ledger, name: str) -> Artifact:
    recorded = matrix(300, seed=5)
    return store_model(ledger, name, compile_model(MADE[name](), SIGNATURE, recorded), SIGNATURE, recorded, PROFILE)


STORED = """
import sys
sys.path.insert(0, sys.argv[1])
from models.test_artifact import digests
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records
print(digests(Ledger(Records(None), MemoryBlobs(), lambda: 0)))
"""


def digests(ledger: Ledger) -> dict[str, list[str]]:
    made = {name: stored(ledger, name) for name in MADE}
    return {name: [one.ref.digest, *sorted(one.meta["blobs"].values())] for name, one in made.items()}


def test_the_same_trainings_give_the_same_digests_in_another_process(ledger: Ledger) -> None:
    done = run_python(STORED, HERE)
    assert done.stdout.strip() == str(digests(ledger)), done.stderr


def test_other_contents_have_other_digests(ledger: Ledger) -> None:
    recorded = matrix(300, seed=5)
    compiled = compile_model(linear(), SIGNATURE, recorded)
    more = Signature(SIGNATURE.features, {"origin": (*SIGNATURE.categories["origin"], "zzz")})
    made = [
        stored(ledger, "boosted"),
        stored(ledger, "linear"),
        store_model(ledger, "linear", compiled, more, recorded, PROFILE),
        store_model(ledger, "linear", compiled, SIGNATURE, recorded, {}),
    ]
    assert len({artifact.ref.digest for artifact in made}) == 4


@pytest.mark.parametrize("name", MADE)
def test_a_stored_model_answers_as_it_did(ledger: Ledger, name: str) -> None:
    artifact = stored(ledger, name)
    predictor, golden = load_model(ledger, artifact), golden_of(ledger, artifact)
    assert signature_of(artifact) == SIGNATURE == predictor.signature
    assert len(golden.features) == 20
    assert golden_differences(predictor, golden) == 0
    assert np.array_equal(golden.expected, predictor.predict(golden.features))


def test_golden_cases_find_another_model(ledger: Ledger) -> None:
    golden = golden_of(ledger, stored(ledger, "boosted"))
    assert golden_differences(load_model(ledger, stored(ledger, "linear")), golden) == 20


def test_every_blob_of_a_model_is_stored(ledger: Ledger) -> None:
    artifact = stored(ledger, "boosted")
    assert artifact.meta["blobs"].keys() == {"onnx", "native", "golden", "profile"}
    for digest in artifact.meta["blobs"].values():
        ledger.blobs.verify(digest)
    assert b"pickle" not in bytes(ledger.blobs.get(artifact.meta["blobs"]["native"]))


# ── signatures ──────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL = Signature(("delay", "origin"), {"origin": ("BOS", "JFK")})


def test_what_fits_is_taken_as_it_is() -> None:
    values = matrix(5)[:, :2]
    assert MODEL.align(["delay", "origin"], values, {"origin": ("BOS", "JFK")}) is values


def test_columns_are_put_in_order_and_categories_recoded() -> None:
    given = np.array([[1.0, 0.0, 9.0], [3.0, 1.0, 9.0], [np.nan, 2.0, 9.0]])
    aligned = MODEL.align(["origin", "delay", "more"], given, {"origin": ("ATL", "BOS", "DEN", "JFK")})
    assert np.array_equal(aligned, [[0.0, 0.0], [1.0, 1.0], [2.0, np.nan]], equal_nan=True)


def test_unseen_and_missing_categories_are_missing() -> None:
    aligned = MODEL.align(["delay", "origin"], np.array([[1.0, 0.0], [1.0, np.nan]]), {"origin": ("SFO",)})
    assert np.isnan(aligned[:, 1]).all()


def test_the_given_matrix_stays_as_it_was() -> None:
    given = np.array([[1.0, 0.0]])
    MODEL.align(["delay", "origin"], given, {"origin": ("SFO",)})
    assert given.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("names", "vocabularies", "what"),
    [
        (["delay"], {}, "needs feature 'origin'"),
        (["delay", "origin"], {}, "feature 'origin' is a number, the model was trained on a category"),
        (["delay", "origin"], {"origin": ("BOS",), "delay": ("x",)}, "feature 'delay' is a category, the model was trained on a number"),
    ],
)
def test_features_that_are_not_the_models_are_refused(names: list[str], vocabularies: dict[str, tuple[str, ...]], what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        MODEL.align(names, np.zeros((1, len(names))), vocabularies)
    assert "train it again" in error.value.hint
