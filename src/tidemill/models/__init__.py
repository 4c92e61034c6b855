"""The model artifact: signature, exact compiled form with parity or the original in a process of its own, golden cases, predicting.

Comes in: a fitted model, or ONNX that others made. Goes out: what answers the same; nothing that runs code is read in this process.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tidemill.models.onnx import DATATYPES, OnnxModel, Spec
from tidemill.models.pace import Pace

if TYPE_CHECKING:
    from tidemill.models.adopted import read_onnx as read_onnx
    from tidemill.models.adopted import store_onnx as store_onnx
    from tidemill.models.adopted import whole_onnx as whole_onnx
    from tidemill.models.artifact import Golden as Golden
    from tidemill.models.artifact import form_of as form_of
    from tidemill.models.artifact import golden_differences as golden_differences
    from tidemill.models.artifact import golden_of as golden_of
    from tidemill.models.artifact import load_model as load_model
    from tidemill.models.artifact import signature_of as signature_of
    from tidemill.models.artifact import store_model as store_model
    from tidemill.models.artifact import why_isolated as why_isolated
    from tidemill.models.compiled import Compiled as Compiled
    from tidemill.models.compiled import MatrixModel as MatrixModel
    from tidemill.models.compiled import Predictor as Predictor
    from tidemill.models.compiled import compile_model as compile_model
    from tidemill.models.converted import Converted as Converted
    from tidemill.models.converted import convert as convert
    from tidemill.models.converted import prove as prove
    from tidemill.models.gathering import Gatherer as Gatherer
    from tidemill.models.int8 import Int8 as Int8
    from tidemill.models.isolated import Isolated as Isolated
    from tidemill.models.isolated import Kept as Kept
    from tidemill.models.network import Network as Network
    from tidemill.models.original import keep as keep
    from tidemill.models.rows import Rows as Rows
    from tidemill.models.signature import Signature as Signature

_OF_THE_LEDGER = {
    **dict.fromkeys(("Golden", "form_of", "golden_differences", "golden_of", "load_model", "signature_of", "store_model"), "artifact"),
    "why_isolated": "artifact",
    "keep": "original",
    "Gatherer": "gathering",
    **dict.fromkeys(("Isolated", "Kept"), "isolated"),
    **dict.fromkeys(("Compiled", "MatrixModel", "Predictor", "compile_model"), "compiled"),
    **dict.fromkeys(("read_onnx", "store_onnx", "whole_onnx"), "adopted"),
    **dict.fromkeys(("Converted", "convert", "prove"), "converted"),
    "Int8": "int8",
    "Network": "network",
    "Rows": "rows",
    "Signature": "signature",
}

__all__ = ["DATATYPES", "OnnxModel", "Pace", "Spec"]


def __getattr__(name: str) -> object:
    """Who serves a bare file needs no ledger."""
    if name not in _OF_THE_LEDGER:
        raise AttributeError(f"module 'tidemill.models' has no attribute {name!r}")
    return getattr(import_module(f"tidemill.models.{_OF_THE_LEDGER[name]}"), name)
