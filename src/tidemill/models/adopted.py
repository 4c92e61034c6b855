"""ONNX that others made, as a model artifact: one matrix in, numbers for each row out. Nothing of Python is loaded.

Comes in: the bytes of the file, and those that lie beside it. Goes out: one run of bytes, and a signature that says how it is asked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tidemill.core import DataError, Ref, digest_value
from tidemill.ledger import Artifact, Ledger
from tidemill.models.compiled import BLOCK, Predictor
from tidemill.models.onnx import OnnxModel, Spec
from tidemill.models.signature import Signature

MOST = 2**30  # bytes: beyond two of these no protocol buffer goes
FLOATS = {"FP32": "float32", "FP64": "float64"}
WHOLE = ("INT64", "INT32", "BOOL")  # labels, mostly: an output where it is named
SHAPE = "its input is to be one matrix of float or double, a row for each example"
TRIED = 8 * BLOCK  # rows


def whole_onnx(onnx: bytes, beside: Callable[[str], bytes]) -> bytes:
    """A model in one piece: weights that lie in files beside it (`beside` reads one by its name) are put into it. Raises DataError for
    what is no ONNX, or too large."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto, TensorProto

    try:
        model = ModelProto.FromString(onnx)
    except DecodeError as error:
        raise DataError("the file is no ONNX model", hint="name a model that was logged with mlflow.onnx") from error
    read, found = dict[str, bytes](), onnx
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            told = {one.key: one.value for one in tensor.external_data}
            file = told.get("location", "")
            data = read[file] = read.get(file) or beside(file)
            start = int(told.get("offset", 0))
            tensor.raw_data = data[start : start + int(told["length"]) if "length" in told else None]
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
        if sum(map(len, read.values())) + len(onnx) > MOST:
            raise DataError(
                f"the model has more than {MOST >> 20:,} MiB", hint="a feature is computed for each request: take a smaller one"
            )
    return bytes(model.SerializeToString(deterministic=True)) if read else found


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of a message, those of graphs within nodes too."""
    for field, value in message.ListFields():
        several = value if field.is_repeated else [value]
        for one in several if field.message_type else ():
            if field.message_type.name == "TensorProto":
                yield one
            else:
                yield from _tensors(one)


def read_onnx(
    onnx: bytes, *, names: Sequence[str] = (), categories: Mapping[str, Sequence[str]] | None = None, output: str = ""
) -> Signature:
    """How a model is asked, found by asking it: `names` are those of its columns, by default input_0, input_1, …; `output` is the one to
    take where it has several. Raises DataError for one that takes or gives something else than numbers, row by row."""
    model = OnnxModel(onnx)
    given = _input(list(model.inputs.values()))
    rows, columns = given.shape
    takes = tuple(names) or tuple(f"{given.name}_{i}" for i in range(columns))
    if len(takes) != columns or len(set(takes)) != columns:
        raise DataError(f"the model takes {columns} columns, and {len(set(takes))} are named", hint="name each of them, in their order")
    chosen = _output(list(model.outputs.values()), output)
    words = {name: tuple(own) for name, own in (categories or {}).items() if name in takes}
    found = Signature(takes, words, chosen.name, given.name, FLOATS[given.datatype], 1, max(rows, 0) or BLOCK)
    found = replace(found, width=_width(model, found))
    return found if rows > 0 else replace(found, block=_block(onnx, found))


def _input(given: Sequence[Spec]) -> Spec:
    """The only input."""
    if len(given) != 1:
        raise DataError(f"the model takes {len(given)} inputs: {', '.join(one.name for one in given)}", hint=f"{SHAPE}: join them")
    one = given[0]
    if one.datatype not in FLOATS or len(one.shape) != 2 or one.shape[1] < 1:
        raise DataError(f"the input {one.name!r} of the model is {_shown(one)}", hint=SHAPE)
    return one


def _shown(one: Spec) -> str:
    return f"{one.datatype} [{', '.join('any' if size < 0 else str(size) for size in one.shape)}]"


def _output(given: Sequence[Spec], wanted: str) -> Spec:
    """The output that is wanted, or the only one of numbers with a fraction."""
    kinds = (*FLOATS, *WHOLE) if wanted else FLOATS
    fits = [one for one in given if one.datatype in kinds and len(one.shape) in (1, 2) and wanted in ("", one.name)]
    if len(fits) == 1:
        return fits[0]
    hint = "name the one to take" if fits else "an output is to be a number, or several, for each row"
    what = f"the model has no output {wanted!r} of numbers" if wanted else f"{len(fits)} outputs of the model are numbers, one is needed"
    raise DataError(what, available=[f"{one.name} ({_shown(one)})" for one in given], hint=hint)


def _width(model: OnnxModel, signature: Signature) -> int:
    """How many numbers it gives for a row."""
    rows = np.zeros((signature.block, len(signature.features)), dtype=signature.dtype)
    shape = model.run({signature.input: rows}, [signature.output])[signature.output].shape
    if len(shape) not in (1, 2) or shape[0] != signature.block or 0 in shape:
        what = f"the output {signature.output!r} of the model has the shape {shape} for {signature.block} rows"
        raise DataError(what, hint="an output is to have a row for each row of the input")
    return int(shape[1]) if len(shape) == 2 else 1


def _block(onnx: bytes, signature: Signature) -> int:
    """How many rows it is asked at once: several, where each is answered as it is alone with zeros, wherever it stands; else one."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 3, (TRIED, len(signature.features)))
    rows[::5] = random.integers(0, 5, rows[::5].shape)
    alone, several = Predictor(onnx, replace(signature, block=1)), Predictor(onnx, signature)
    single = alone.outputs(rows)
    if single.tobytes() != alone.outputs(rows).tobytes():
        raise DataError("the model gives other numbers each time", hint="export it for inference: without dropout and other chance")
    whole = several.outputs(rows)
    apart = np.concatenate([several.outputs(rows[i : i + 1]) for i in range(TRIED)])
    turned = several.outputs(rows[::-1].copy())[::-1]
    return BLOCK if whole.tobytes() == apart.tobytes() == turned.tobytes() else 1


def store_onnx(ledger: Ledger, name: str, onnx: bytes, signature: Signature) -> Artifact:
    """The artifact of a model that others made; its bytes are stored, the caller records it."""
    blobs, plain = {"onnx": ledger.blobs.put(onnx)}, signature.plain()
    digest = digest_value({"onnx": blobs["onnx"], "signature": plain})
    return Artifact(Ref.of("model", name, digest), {"blobs": blobs, "signature": plain, "library": "onnx"})
