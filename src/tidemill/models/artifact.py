"""A model version as an artifact: ONNX, the library's own safe format, signature, golden cases and the reference profile.

Its digest covers these contents and nothing else, so the same training gives the same digest anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core import Floats, Ref, canonical, digest_value, pack, unpack
from tidemill.ledger import Artifact, Ledger
from tidemill.models.compiled import Compiled, Predictor
from tidemill.models.parity import TOLERANCE
from tidemill.models.signature import Signature

GOLDEN = 20  # how many cases a version carries


@dataclass(frozen=True)
class Golden:
    """Inputs with the answers they had when the model was made; run again after each deploy."""

    features: Floats
    expected: Floats

    def wrong(self, answers: Floats) -> int:
        """How many answers are others than those; another processor may round the last bits."""
        return int(np.sum(~(np.abs(answers - self.expected) <= TOLERANCE)))


def store_model(
    ledger: Ledger, name: str, compiled: Compiled, signature: Signature, golden: Floats, profile: Mapping[str, Any]
) -> Artifact:
    """The artifact of a compiled model; its blobs are stored, the caller records it as the output of its training run."""
    rows = np.ascontiguousarray(golden[:GOLDEN])
    answers = Predictor(compiled.onnx, signature).predict(rows)
    blobs = {
        "onnx": ledger.blobs.put(compiled.onnx),
        "native": ledger.blobs.put(compiled.native),
        "golden": ledger.blobs.put(pack({"features": rows, "expected": answers})),
        "profile": ledger.blobs.put(canonical(dict(profile))),
    }
    plain = signature.plain()
    meta = {"blobs": blobs, "signature": plain, "library": compiled.library, "rounds": compiled.rounds, "parity": compiled.parity}
    digest = digest_value({"onnx": blobs["onnx"], "native": blobs["native"], "signature": plain, "profile": blobs["profile"]})
    return Artifact(Ref.of("model", name, digest), meta)


def signature_of(artifact: Artifact) -> Signature:
    """The signature that a model artifact carries."""
    return Signature.of(artifact.meta["signature"])


def load_model(ledger: Ledger, artifact: Artifact) -> Predictor:
    """A predictor of a stored model. Raises MissingFile or Damaged when its bytes are not what was written."""
    return Predictor(ledger.blobs.get(artifact.meta["blobs"]["onnx"]), signature_of(artifact))


def golden_of(ledger: Ledger, artifact: Artifact) -> Golden:
    """The golden cases of a stored model."""
    arrays, _ = unpack(ledger.blobs.get(artifact.meta["blobs"]["golden"]))
    return Golden(arrays["features"], arrays["expected"])


def golden_differences(predictor: Predictor, golden: Golden) -> int:
    """How many golden cases a predictor answers otherwise than when the model was made."""
    return golden.wrong(predictor.predict(golden.features))
