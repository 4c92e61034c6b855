"""A model version as an artifact: ONNX and the library's own safe format, or the original alone; signature, golden cases, profile.

Its digest covers these contents and nothing else, so the same training gives the same digest anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from tidemill.core import Floats, Ref, Refused, canonical, digest_value, pack, unpack
from tidemill.ledger import Artifact, Ledger
from tidemill.models.compiled import Compiled, Predictor
from tidemill.models.int8 import in_words
from tidemill.models.isolated import Isolated, Kept, Original
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
    ledger: Ledger, name: str, made: Compiled | Kept, signature: Signature, golden: Floats, profile: Mapping[str, Any]
) -> Artifact:
    """The artifact of a model; its blobs are stored, the caller records it as the output of its training run."""
    rows = np.ascontiguousarray(golden[:GOLDEN])
    parts, form = _parts(made)
    blobs = {kind: ledger.blobs.put(data) for kind, data in parts.items()}
    own, plain = dict(blobs), signature.plain()
    blobs["golden"] = ledger.blobs.put(pack({"features": rows, "expected": made.predictor.predict(rows)}))
    blobs["profile"] = ledger.blobs.put(canonical(dict(profile)))
    meta = {"blobs": blobs, "signature": plain, "library": made.library, "rounds": made.rounds, "parity": made.parity}
    meta |= {"isolated": {"why": made.why, **form}} if isinstance(made, Kept) else {}
    digest = digest_value({**own, **form, "signature": plain, "profile": blobs["profile"]})
    return Artifact(Ref.of("model", name, digest), meta)


def _parts(made: Compiled | Kept) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bytes of a model by their kind, and what else decides its answers."""
    if isinstance(made, Compiled):
        return {"onnx": made.onnx, "native": made.native}, {}
    original = made.predictor.original
    sources = {"sources": canonical(dict(original.sources))} if original.sources else {}
    form = {"format": original.format, "block": original.block, "libraries": dict(original.libraries)}
    return {"original": bytes(original.data), **sources}, form


def signature_of(artifact: Artifact) -> Signature:
    """The signature that a model artifact carries."""
    return Signature.of(artifact.meta["signature"])


def load_model(ledger: Ledger, artifact: Artifact) -> Predictor:
    """A predictor of a stored model. Raises MissingFile or Damaged when its bytes are not what was written, Refused for an original that no
    run of this ledger made."""
    blobs, kept = artifact.meta["blobs"], why_isolated(artifact)
    if kept is None:
        return Predictor(ledger.blobs.get(blobs["onnx"]), signature_of(artifact))
    if not any(edge.execution for edge in ledger.parents(artifact.ref)):
        what = f"{artifact.ref} was not trained here, and its original runs code when it is read"
        raise Refused(what, hint="train it here, or hand in its ONNX form")
    sources = msgspec.json.decode(ledger.blobs.get(blobs["sources"])) if "sources" in blobs else {}
    told = (str(artifact.ref), artifact.meta["library"], kept["libraries"], kept["block"])
    data = ledger.blobs.get(blobs["original"])
    return Isolated(Original(data, kept["format"], sources, *told, digest=blobs["original"]), signature_of(artifact))


def why_isolated(artifact: Artifact) -> Mapping[str, Any] | None:
    """Of a model whose original answers, in a process of its own, why (`why`), its `format` and `libraries`; None of a compiled one."""
    return artifact.meta.get("isolated")


def form_of(artifact: Artifact) -> str:
    """In which form a stored model answers, in words.

    >>> form_of(Artifact(Ref.of("model", "m", "1" * 40), {"isolated": {"format": "skops", "why": "SVC has no exact form here"}}))
    'the original (skops), in a process of its own: SVC has no exact form here'
    """
    if kept := why_isolated(artifact):
        return f"the original ({kept['format']}), in a process of its own: {kept['why']}"
    return ", ".join(["compiled", *filter(None, [in_words(artifact.meta.get("parity", {}))])])


def golden_of(ledger: Ledger, artifact: Artifact) -> Golden:
    """The golden cases of a stored model."""
    arrays, _ = unpack(ledger.blobs.get(artifact.meta["blobs"]["golden"]))
    return Golden(arrays["features"], arrays["expected"])


def golden_differences(predictor: Predictor, golden: Golden) -> int:
    """How many golden cases a predictor answers otherwise than when the model was made."""
    return golden.wrong(predictor.predict(golden.features))
