"""A registered version, ready to be asked by tensors: one of the loop, or ONNX of a client. Nothing is unpickled."""

from tidemill.core import Refused
from tidemill.ledger import Ledger
from tidemill.models import MatrixModel, OnnxModel, golden_differences, golden_of, load_model
from tidemill.registry.adopting import onnx_of
from tidemill.registry.history import named_version
from tidemill.registry.values import ModelVersion


def open_version(ledger: Ledger, text: str) -> tuple[ModelVersion, MatrixModel | OnnxModel]:
    """The version that a text names (`boosted@champion`, `models:/embedder/2`), and its model. Golden cases are run first. Raises
    UnknownName, DataError for what is no ONNX, and Refused for a model that answers otherwise than when it was made."""
    version = named_version(ledger, text)
    label = f"{version.name}/{version.version}"
    digest = next((tag.value for tag in version.tags or () if tag.key == "tidemill.digest"), "")
    if not digest:
        return version, OnnxModel(onnx_of(ledger, version)[0], label)
    artifact = ledger.artifact_of("model", digest)
    predictor = load_model(ledger, artifact)
    wrong = golden_differences(predictor, golden_of(ledger, artifact))
    if wrong:
        hint = "the runtime or the machine differs from the one it was made on: train it again here"
        raise Refused(f"{label} answers {wrong} of its golden cases otherwise than when it was made", hint=hint)
    return version, MatrixModel(predictor)
