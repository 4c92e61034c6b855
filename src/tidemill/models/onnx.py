"""Any ONNX file, ready to answer: tensors in by name, tensors out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from tidemill.core import Array, DataError

DATATYPES: dict[str, np.dtype[Any]] = {  # as the Open Inference Protocol names them
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BYTES": np.dtype(object),
}
_ONNX = {"bool": "BOOL", "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES"}
_ONNX |= {name.lower(): name for name in DATATYPES if "INT" in name}


@dataclass(frozen=True)
class Spec:
    """A tensor that a model takes or gives: −1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    sized: Callable[[Sequence[int]], Any] = field(init=False, repr=False, compare=False)  # of a shape, the sizes that are fixed
    sizes: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = [place for place, size in enumerate(self.shape) if size >= 0]
        sized = itemgetter(*places) if places else itemgetter(slice(0))
        object.__setattr__(self, "sized", sized)  # they are compared with each request
        object.__setattr__(self, "sizes", sized(self.shape))

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def opened(onnx: bytes) -> Any:
    """A session of onnxruntime on one thread, which waits without spinning."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised: a line of its own for each would stop a server whose stderr nobody reads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class OnnxModel:
    """A session of onnxruntime. Where a converter gave the probabilities of classes as a list of dicts, they become a matrix
    with a column for each class, in their order."""

    isolated, platform = False, "onnxruntime_onnx"

    def __init__(self, onnx: bytes, where: str = "") -> None:
        """Raises DataError for what is no ONNX file, and for a model that takes something else than tensors."""
        try:
            session = opened(onnx)
        except Exception as error:  # onnxruntime's own kinds are not public
            what = f"the model cannot be loaded: {str(error).splitlines()[0]}"
            raise DataError(what, where=where, hint="export it again, and check it with onnx.checker") from error
        self._run = getattr(session, "_sess", session).run  # without what onnxruntime checks in Python for devices that are not used
        self._dicts = set[str]()  # the outputs that come as dicts
        self.inputs = {one.name: self._spec(one, where) for one in session.get_inputs()}
        self.outputs = {one.name: self._spec(one, where) for one in session.get_outputs()}
        self._all = [*self.outputs]

    def _spec(self, one: Any, where: str) -> Spec:
        kind = one.type.removeprefix("tensor(").removesuffix(")")
        if kind in _ONNX:
            return Spec(one.name, _ONNX[kind], tuple(size if isinstance(size, int) and size >= 0 else -1 for size in one.shape))
        if one.type.startswith("seq(map(") and one.type.endswith(",tensor(float)))"):
            self._dicts.add(one.name)
            return Spec(one.name, "FP32", (-1, -1))
        raise DataError(
            f"{one.name!r} of the model is {one.type}, and not a tensor", where=where, hint="export the model with tensors only"
        )

    def run(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs, all or those that are wanted. Raises DataError for tensors that the model cannot take."""
        names = wanted or self._all
        try:
            found = self._run(names, tensors, None)
        except Exception as error:
            rows = {name: len(tensor) for name, tensor in tensors.items() if tensor.ndim and self.inputs[name].shape[:1] == (-1,)}
            if len({*rows.values()}) > 1:
                told = ", ".join(f"{name} {count}" for name, count in rows.items())
                hint = "send as many in each"
                raise DataError(f"the inputs have different numbers of rows: {told}", where="inputs", hint=hint) from error
            raise DataError(f"the model cannot take these tensors: {str(error).splitlines()[-1]}", where="inputs") from error
        if not self._dicts:
            return dict(zip(names, found, strict=True))
        return {name: _matrix(one) if name in self._dicts else np.asarray(one) for name, one in zip(names, found, strict=True)}


def _matrix(rows: Sequence[Mapping[Any, float]]) -> Array:
    return np.array([[row[name] for name in sorted(row)] for row in rows], dtype=np.float32)
