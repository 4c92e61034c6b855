"""Any ONNX file, ready to answer: tensors in by name, tensors out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from tidemill.core import Array, DataError

ML = "ai.onnx.ml."
DATATYPES: dict[str, np.dtype[Any]] = {  # as the Open Inference Protocol names them
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BYTES": np.dtype(object),
}
_ONNX = {"bool": "BOOL", "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES"}
_ONNX |= {name.lower(): name for name in DATATYPES if "INT" in name}
# Operators that answer each row by itself and round in one way wherever it stands. Not so: what sums over blocks of rows (products of
# matrices), and what has other code for the last numbers of a tensor than for those before them (Cast to UINT32, Sigmoid of doubles).
ROWWISE = {f"{ML}TreeEnsemble{kind}" for kind in ("", "Classifier", "Regressor")} | {f"{ML}Scaler", f"{ML}Imputer", "Identity"}
QUIET = 4  # onnxruntime's level of what it prints: fatal
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
GRAPH, NODE, KIND, DOMAIN = 7, 1, 4, 7  # numbers of fields in onnx.proto3


@dataclass(frozen=True)
class Spec:
    """A tensor that a model takes or gives: −1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    sized: Callable[[Sequence[int]], Any] = field(init=False, repr=False, compare=False)  # of a shape, the sizes that are fixed
    sizes: Any = field(init=False, repr=False, compare=False)
    kind: np.dtype[Any] = field(init=False, repr=False, compare=False)  # of its values

    def __post_init__(self) -> None:
        places = [place for place, size in enumerate(self.shape) if size >= 0]
        sized = itemgetter(*places) if places else itemgetter(slice(0))
        object.__setattr__(self, "sized", sized)  # they are compared with each request
        object.__setattr__(self, "sizes", sized(self.shape))
        object.__setattr__(self, "kind", DATATYPES[self.datatype])

    def takes(self, array: Array) -> bool:
        """Whether an array is what it asks for, of numbers."""
        shape = array.shape
        return array.dtype == self.kind and len(shape) == len(self.shape) and self.sized(shape) == self.sizes and self.datatype != "BYTES"

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def opened(onnx: bytes) -> Any:
    """A session of onnxruntime on one thread, which waits without spinning."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET  # what fails is raised: a line of its own for each would stop a server whose stderr nobody reads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def runner(session: Any) -> Callable[[Sequence[str], Mapping[str, Array]], list[Any]]:
    """How a session gives outputs: without what onnxruntime checks in Python for devices that are not used, and makes for each run anew."""
    from onnxruntime import RunOptions

    run, options = getattr(session, "_sess", session).run, RunOptions()
    options.log_severity_level = QUIET
    return lambda names, tensors: run(names, tensors, options)


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
        self._run = runner(session)
        self._dicts = set[str]()  # the outputs that come as dicts
        self.inputs = {one.name: self._spec(one, where) for one in session.get_inputs()}
        self.outputs = {one.name: self._spec(one, where) for one in session.get_outputs()}
        self._all, self.draws = [*self.outputs], draws(onnx)
        self.rowwise = _is_of_rows(self.inputs.values()) and set() < operators(onnx) <= ROWWISE and self._answers_rows()

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

    def _answers_rows(self) -> bool:
        """Whether each output has a row for each row of the inputs."""
        one, three = (
            self.run({name: np.ones((rows, *spec.shape[1:]), DATATYPES[spec.datatype]) for name, spec in self.inputs.items()})
            for rows in (1, 3)
        )
        return all(one[name].shape[:1] == (1,) and three[name].shape == (3, *one[name].shape[1:]) for name in self.outputs)

    def run(self, tensors: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs, all or those that are wanted. Raises DataError for tensors that the model cannot take."""
        names = wanted or self._all
        try:
            found = self._run(names, tensors)
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


def _is_of_rows(inputs: Iterable[Spec]) -> bool:
    """Whether inputs take any number of rows of numbers, of one width."""
    return all(spec.shape[:1] == (-1,) and len(spec.shape) > 1 and min(spec.shape[1:]) >= 0 and spec.datatype != "BYTES" for spec in inputs)


def draws(onnx: bytes) -> str:
    """The operator by which an ONNX file draws random numbers, also within a function or a branch; empty where none does."""
    return next((kind for kind in RANDOM if bytes((KIND << 3 | 2, len(kind))) + kind.encode() in onnx), "")


def operators(onnx: bytes) -> set[str]:
    """The operators of an ONNX file, each behind its domain where that is not ONNX's own; those within a function or a branch are not told,
    but what calls them is. None of what is in another form, which onnxruntime reads too."""
    found = set[str]()
    try:
        for graph in (part for number, part in _fields(memoryview(onnx)) if number == GRAPH):
            for node in (part for number, part in _fields(graph) if number == NODE):
                texts = {number: str(part, "utf-8") for number, part in _fields(node) if number in (KIND, DOMAIN)}
                domain = texts.get(DOMAIN, "").removeprefix("ai.onnx") and f"{texts[DOMAIN]}."
                found.add(domain + texts.get(KIND, ""))
    except (IndexError, ValueError):
        return set()
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message of protobuf that has a length; others are passed over. Raises IndexError and ValueError
    for what is none."""
    place, size = 0, len(message)
    while place < size:
        key, place = _varint(message, place)
        match key & 7:
            case 0:  # a number
                _, place = _varint(message, place)
            case 2:  # bytes behind their length
                length, place = _varint(message, place)
                yield key >> 3, message[place : place + length]
                place += length
            case 1 | 5:  # eight bytes, or four
                place += 8 if key & 7 == 1 else 4
            case other:
                raise ValueError(f"a field of the kind {other}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte, place = message[place], place + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("a number of more than ten bytes")


def _matrix(rows: Sequence[Mapping[Any, float]]) -> Array:
    return np.array([[row[name] for name in sorted(row)] for row in rows], dtype=np.float32)
