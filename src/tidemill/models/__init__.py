"""The model artifact: signature, exact compiled form with parity, golden cases, loading and predicting.

Comes in: a fitted LightGBM or scikit-learn model. Goes out: ONNX that answers the same, without pickle.
"""

from tidemill.models.artifact import Golden, golden_differences, golden_of, load_model, signature_of, store_model
from tidemill.models.compiled import Compiled, Predictor, compile_model
from tidemill.models.signature import Signature

__all__ = [
    "Compiled",
    "Golden",
    "Predictor",
    "Signature",
    "compile_model",
    "golden_differences",
    "golden_of",
    "load_model",
    "signature_of",
    "store_model",
]
