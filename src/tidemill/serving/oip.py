"""The Open Inference Protocol v2 as bytes and arrays: requests are read and checked, answers are written. Nothing of HTTP or of models.

Tensors come as JSON numbers, flat or nested, or as raw bytes behind the JSON (the binary tensor extension). JSON has no NaN: null is NaN
in a tensor of floats, on both ways, and an infinite number is the text "inf" or "-inf".
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite, isinf, prod
from typing import Any, Literal

import msgspec
import numpy as np

from tidemill.core import Array, DataError
from tidemill.models import DATATYPES, Spec

DATA = "send `data`, or raw bytes with their size in parameters.binary_data_size; shared memory is not offered"
BRAIN = "BF16"  # the upper half of a float32; raw only
_KINDS = DATATYPES | {BRAIN: np.dtype("<u2")}
_NAMES = {kind: name for name, kind in DATATYPES.items()}
_PYTHON = {"b": bool, "u": int, "i": int, "f": float | None, "O": str | None, "inf": float | Literal["inf", "-inf"] | None}
_LIST = 'send a list, also of one value: {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}'


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Wanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = ""  # clients send null for what is left out
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


class _Given(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: Sequence[int]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: msgspec.Raw | list[_Given]
    id: str = ""
    parameters: Mapping[str, str] = {}


class Asked(msgspec.Struct):
    """A request: its tensors by name, the outputs that are wanted and whether as raw bytes; all of them where none are named. `request` is
    by what its headers name it; `sent` are the tensors as they came, where JSON tells them."""

    tensors: Mapping[str, Array]
    wanted: Mapping[str, bool]
    raw: bool
    id: str
    parameters: Mapping[str, Any] = {}
    request: str = ""
    sent: Sequence[_Tensor] = ()

    @property
    def in_json(self) -> bool:
        """Whether no output is wanted as raw bytes."""
        return not any(self.wanted.values()) if self.wanted else not self.raw

    @property
    def rows(self) -> int:
        """How many rows the first tensor has."""
        first = next(iter(self.tensors.values()), None)
        return len(first) if first is not None and first.ndim else 1


class Found(msgspec.Struct):
    """What a model said: the version that did, its outputs by name, and what else is told; `shown` are the outputs as JSON, where somebody
    needed that before."""

    version: str
    outputs: Mapping[str, Array]
    parameters: Mapping[str, str] = {}
    shown: bytes = b""


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode
_floats = msgspec.json.Decoder(list[float | None]).decode
LARGE, MANY = 1 << 20, 10_000  # bytes of a request whose parts are counted, and that others do not wait for; how many it may have
_ALL: Mapping[str, bool] = {}
_NONE: Mapping[str, Any] = {}
_FLOATS = {name: kind for name, kind in DATATYPES.items() if name in ("FP32", "FP64")}


def read(body: bytes, head: int | None = None) -> Asked:
    """A request; `head` is how many bytes are JSON where raw tensors follow. Raises DataError with the path of the fault."""
    if head is not None and not 0 <= head <= len(body):
        raise DataError(f"the JSON is said to have {head} bytes of {len(body)}", where="Inference-Header-Content-Length")
    if len(body) > LARGE and (many := body.count(b'"datatype"', 0, head)) > MANY:
        raise DataError(f"a request of {many} inputs", where="inputs", hint=f"send {MANY} at most")
    try:
        asked = _decode(body if head is None else body[:head])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = 'for example {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}'
        what = error if body[:head].strip() else "it is empty"
        raise DataError(f"the body is no inference request: {what}", hint=hint) from None
    raw: Any = b"" if head is None else memoryview(body)[head:]
    tensors: dict[str, Array] = {}
    for place, one in enumerate(asked.inputs):
        if one.name in tensors:
            raise DataError(f"the input {one.name!r} comes twice", where=f"inputs[{place}]")
        size = one.parameters.get("binary_data_size") if one.parameters else None
        if size is None:
            array = _of_floats(one)
            tensors[one.name] = _of_json(one, f"inputs[{place}]") if array is None else array
        else:
            array = _of_numbers(one, raw, size)
            tensors[one.name], raw = _of_bytes(one, raw, size, f"inputs[{place}]") if array is None else array, raw[size:]
    if len(raw):
        raise DataError(f"{len(raw)} bytes follow the last tensor", hint="say the size of each in its parameters: binary_data_size")
    wanted, parameters, are_raw = _ALL, asked.parameters or _NONE, False
    if asked.outputs:
        wanted = {one.name: is_raw(one.parameters, i) if one.parameters else False for i, one in enumerate(asked.outputs)}
    if parameters:
        are_raw = _truth(parameters, "binary_data_output", "parameters")
    return Asked(tensors, wanted, are_raw, asked.id or "", parameters, "", asked.inputs)


def is_raw(parameters: Mapping[str, Any], place: int) -> bool:
    """Whether an output is wanted as raw bytes. Raises DataError where it is wanted as it is not told."""
    where = f"outputs[{place}].parameters"
    for name in ("classification", "shared_memory_region"):
        if parameters.get(name):
            raise DataError(f"{name} is not offered", where=where, hint="leave it out, and the output comes as it is")
    return _truth(parameters, "binary_data", where)


def _truth(parameters: Mapping[str, Any], name: str, where: str) -> bool:
    value = parameters.get(name)
    if not (value is None or isinstance(value, bool)):
        raise DataError(f"{name} is {value!r:.100}", where=where, hint="send true or false")
    return bool(value)


def _of_floats(one: _Tensor) -> Array | None:
    """A tensor of floats whose data are flat, as most are; None for any other, and for a wrong one."""
    kind, shape = _FLOATS.get(one.datatype), one.shape
    if kind is None or not 0 < len(shape) < 3:
        return None
    try:
        values = _floats(one.data)
        if len(values) != prod(shape):
            return None
        return np.ndarray(shape, kind, _packer(len(values), kind.char)(*values))
    except struct.error:  # a null
        return np.array(values, dtype=kind).reshape(shape) if min(shape) >= 0 else None
    except ValueError:
        return None


@lru_cache(256)
def _packer(many: int, letter: str) -> Callable[..., bytes]:
    """What packs numbers, in a third of the time in which numpy takes a list."""
    return struct.Struct(f"{many}{letter}").pack


def _of_json(one: _Tensor, where: str) -> Array:
    kind = kind_of(one.datatype, one.shape, where)
    if not one.data:
        raise DataError("it has no data", where=where, hint=DATA)
    if one.datatype == BRAIN:
        raise DataError("BF16 has no form in JSON", where=f"{where}.datatype", hint="send raw bytes, or FP32")
    try:
        values = _values(one.data, kind.kind, len(one.shape))
        with np.errstate(over="ignore"):  # beyond a narrow float is infinite
            array = np.array(values, dtype=kind)
    except OverflowError:
        raise _beyond(values, one.datatype, f"{where}.data") from None
    except (ValueError, TypeError) as error:
        hint = _LIST if "Expected `array`" in str(error) else ""
        what = "its rows have different lengths" if "inhomogeneous" in str(error) else error
        raise DataError(f"the data are not {one.datatype}: {what}", where=f"{where}.data", hint=hint) from None
    if array.size != prod(one.shape) or (array.ndim > 1 and array.shape != tuple(one.shape)):
        raise DataError(f"the data have the shape {list(array.shape)} and not {one.shape}", where=f"{where}.data")
    return shaped(array, one.shape, where)


def _values(data: msgspec.Raw, letter: str, depth: int) -> list[Any]:
    """What JSON holds, flat or as deep as the shape. Raises ValueError."""
    if letter == "f" and b'inf"' in bytes(data):
        letter = "inf"
    try:
        return _decoder(letter, 1).decode(data)
    except msgspec.DecodeError as error:
        if depth < 2 or "got `array`" not in str(error):
            raise ValueError(_said(error)) from None
    try:
        return _decoder(letter, depth).decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(_said(error)) from None


def _beyond(values: list[Any], datatype: str, where: str) -> DataError:
    """The error for whole numbers of which one is out of the range of its datatype, with its place."""
    most = np.iinfo(DATATYPES[datatype])
    place, one = next(found for found in _numbers(values, where) if not most.min <= found[1] <= most.max)
    return DataError(f"{one} is no {datatype}", where=place, hint=f"send whole numbers from {most.min} to {most.max}")


def _numbers(values: list[Any], where: str) -> Iterator[tuple[str, int]]:
    """Nested numbers with their places."""
    for place, one in enumerate(values):
        here = f"{where}[{place}]"
        yield from _numbers(one, here) if isinstance(one, list) else [(here, one)]


def _said(error: Exception) -> str:
    return str(error).replace("$", "data")


@lru_cache(64)
def _decoder(letter: str, depth: int) -> "msgspec.json.Decoder[list[Any]]":
    kind: Any = _PYTHON[letter]
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def kind_of(datatype: str, shape: Sequence[int], where: str) -> np.dtype[Any]:
    """Of which kind the values of a tensor are. Raises DataError for an unknown datatype, and for what is no shape."""
    kind = _KINDS.get(datatype)
    if kind is None:
        raise DataError(f"the datatype {datatype!r} is not known", where=f"{where}.datatype", available=list(_KINDS))
    if len(shape) > 32 or min(shape, default=0) < 0:
        what = f"{shape}" if len(shape) <= 32 else f"{len(shape)} sizes"
        raise DataError(f"{what} is no shape", where=f"{where}.shape", hint="give sizes from 0 on, 32 at most")
    return kind


def _of_numbers(one: _Tensor, raw: memoryview, size: Any) -> Array | None:
    """A tensor of floats in raw bytes, as most are; None for any other, and for a wrong one."""
    kind = _FLOATS.get(one.datatype)
    if kind is None or size.__class__ is not int or not 0 < size <= len(raw) or size % kind.itemsize or len(one.shape) != 2:
        return None
    rows, columns = one.shape
    if rows < 0 or rows * columns * kind.itemsize != size:
        return None
    return np.frombuffer(raw, kind, size // kind.itemsize).reshape(rows, columns)


def _of_bytes(one: _Tensor, raw: memoryview, size: Any, where: str) -> Array:
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw):
        what = f"binary_data_size is {size!r}, and {len(raw)} bytes are there"
        raise DataError(what, where=f"{where}.parameters", hint="send the JSON's length in the header Inference-Header-Content-Length")
    return of_raw(one.datatype, one.shape, raw[:size], where)


def of_raw(datatype: str, shape: Sequence[int], raw: memoryview, where: str) -> Array:
    """A tensor of raw bytes. Raises DataError where they are not as many as the shape needs."""
    kind, many = kind_of(datatype, shape, where), prod(shape)
    if datatype == "BYTES":
        return shaped(_texts(raw, many, where), shape, where)
    if len(raw) != many * kind.itemsize:
        raise DataError(f"{many} values of {datatype} are {many * kind.itemsize} bytes, not {len(raw)}", where=where)
    array = np.frombuffer(raw, dtype=kind)
    if datatype == BRAIN:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return shaped(array, shape, where)


def shaped(array: Array, shape: Sequence[int], where: str) -> Array:
    """As many values as the shape has. Raises DataError where no array can have it: with no values, other sizes may still be too large."""
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise DataError(f"{list(shape)} is no shape: {error}", where=f"{where}.shape") from None


def _texts(raw: memoryview, many: int, where: str) -> Array:
    """Elements that each have their length before them, four bytes little-endian; texts as UTF-8."""
    if many * 4 > len(raw):  # before there is room for them
        raise DataError(f"{many} elements with their lengths are more than its {len(raw)} bytes", where=where)
    found, place = np.empty(many, dtype=object), 0
    for i in range(many):
        size = int.from_bytes(raw[place : place + 4], "little")
        place += 4
        if place + size > len(raw):
            raise DataError(f"element {i} of {many} ends behind its {len(raw)} bytes", where=where)
        try:
            found[i] = str(raw[place : place + size], "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"element {i} is no UTF-8", where=where, hint="a model takes texts") from None
        place += size
    if place != len(raw):
        raise DataError(f"{len(raw) - place} bytes follow its {many} elements", where=where)
    return found


def fitted(asked: Asked, specs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> Mapping[str, Array]:
    """The tensors as a model takes them: of its datatypes, where that loses nothing. Raises DataError with what is expected, also for an
    output that it does not have."""
    if asked.wanted:
        check_outputs(asked, outputs)
    given = asked.tensors
    for name, array in given.items():
        if name not in specs or not specs[name].takes(array):
            break
    else:
        if len(given) == len(specs):
            return given
    if given.keys() != specs.keys():
        given = named(given, specs)
        lacks = next((name for name in specs if name not in given), None)
        if lacks is not None:
            raise DataError(f"the input {lacks!r} is missing", where="inputs", available=list(specs))
    found: dict[str, Array] = {}
    for name, array in given.items():
        spec = specs[name]
        found[name] = array = as_spec(array, spec)
        if spec.datatype == "BYTES" and None in array.ravel().tolist():
            raise DataError(f"the input {name!r} has a null, and the model takes texts", where="inputs")
    return found


def check_outputs(asked: Asked, outputs: Mapping[str, Spec]) -> None:
    """Raise DataError for an output that a model does not have."""
    for one in asked.wanted:
        if one not in outputs:
            raise DataError(f"the model has no output {one!r}", where="outputs", available=list(outputs))


def named(given: Mapping[str, Array], specs: Mapping[str, Spec]) -> dict[str, Array]:
    """Tensors by the names of a model: `x` is `X` where that can only be meant. Raises DataError for one that it does not have."""
    known = {name.casefold(): name for name in specs} | {name: name for name in specs}
    found: dict[str, Array] = {}
    for name, array in given.items():
        meant = known.get(name) or known.get(name.casefold())
        if meant is None:
            raise DataError(f"the model has no input {name!r}", where="inputs", available=list(specs))
        if meant in found:
            raise DataError(f"the input {meant!r} comes twice", where="inputs")
        found[meant] = array
    return found


def as_spec(array: Array, spec: Spec) -> Array:
    """A tensor of the datatype that a model takes, where that loses nothing. Raises DataError with what is expected."""
    kind = DATATYPES[spec.datatype]
    if array.ndim != len(spec.shape) or spec.sized(array.shape) != spec.sizes:
        what = f"the input {spec.name!r} has the shape {list(array.shape)}"
        one = [max(size, 1) for size in spec.shape]
        raise DataError(what, where="inputs", hint=f"send {list(spec.shape)}, where −1 is any size: for example {one}")
    if array.dtype == kind:
        return array
    numbers = array.dtype.kind in "iuf" and kind.kind == "f"  # of a model of floats: rounded as the model would
    if array.dtype.kind == "O" or kind.kind == "O" or not (numbers or np.can_cast(array.dtype, kind)):
        raise DataError(f"the input {spec.name!r} is {datatype_of(array)}", where="inputs", hint=f"send {spec.datatype}")
    with np.errstate(over="ignore"):
        return array.astype(kind)


def write(name: str, asked: Asked, found: Found) -> tuple[bytes, int | None]:
    """The answer, and how many bytes of it are JSON where raw tensors follow."""
    if not found.outputs or asked.in_json:
        shown = msgspec.Raw(found.shown or show(asked, found.outputs))
        return _encode(_Answer(name, found.version, shown, asked.id, found.parameters)), None
    given: list[_Given] = []
    parts: list[bytes] = []
    for one in asked.wanted or found.outputs:
        array = found.outputs[one]
        if asked.wanted[one] if asked.wanted else asked.raw:
            parts.append(raw_of(array))
            given.append(_Given(one, datatype_of(array), array.shape, {"binary_data_size": len(parts[-1])}))
        else:
            given.append(_given(one, array))
    head = _encode(_Answer(name, found.version, given, asked.id, found.parameters))
    return b"".join((head, *parts)), len(head)


def show(asked: Asked, outputs: Mapping[str, Array]) -> bytes:
    """The outputs that are wanted as JSON."""
    if asked.wanted:
        outputs = {name: outputs[name] for name in asked.wanted}
    alone = show_each(outputs) if asked.rows == 1 else None
    return alone[0] if alone and len(alone) == 1 else _encode([_given(name, array) for name, array in outputs.items()])


def show_each(outputs: Mapping[str, Array]) -> list[bytes] | None:
    """The outputs of each row as JSON, as those of a request with that row alone: in a fraction of the time that one by one takes. None
    where they are not finite numbers, one or several a row, of as many rows.

    >>> show_each({"score": np.array([0.25, 1.0])})
    [b'[{"name":"score","datatype":"FP64","shape":[1],"data":[0.25]}]', b'[{"name":"score","datatype":"FP64","shape":[1],"data":[1.0]}]']
    """
    columns: list[list[bytes]] = []
    openings: list[bytes] = []
    for name, array in outputs.items():
        kind, deep, values = array.dtype, array.ndim, array.tolist()
        if kind.kind not in "iuf" or not 0 < deep < 3 or not len(array) or (columns and len(array) != len(columns[0])):
            return None
        if kind.kind == "f" and not isfinite(sum(values) if deep == 1 else sum(map(sum, values))):
            return None
        text = _encode(values)
        columns.append(text[1:-1].split(b",") if deep == 1 else text[2:-2].split(b"],["))
        openings.append(_opening(name, kind.char, array.shape[1:]))
    whole = b"[%b]" % b",".join(openings)
    return [whole % row for row in zip(*columns, strict=True)]


@lru_cache(256)
def _opening(name: str, letter: str, sizes: tuple[int, ...]) -> bytes:
    """What stands around the data of one row: %b is where they go."""
    return _encode(_Given(name, _NAMES[np.dtype(letter)], (1, *sizes))).removesuffix(b"}").replace(b"%", b"%%") + b',"data":[%b]}'


def told(asked: Asked) -> Sequence[_Tensor | _Given]:
    """The tensors of a request, as JSON has them: flat, and floats with a point where all are whole numbers, so that no reader of many
    takes them for integers. As they came where they came so, over several lines where they did."""
    sent, tensors = asked.sent, asked.tensors
    if not sent:
        return [_given(name, array) for name, array in tensors.items()]
    if len(sent) == 1:
        return (_plain(sent[0], tensors[sent[0].name]),)
    return [_plain(one, tensors[one.name]) for one in sent]


def _plain(one: _Tensor, array: Array) -> _Tensor | _Given:
    """A tensor without what else was said of it."""
    if one.parameters is None and one.datatype in _FLOATS:
        data = bytes(one.data)
        if b"." in data and data.count(b"[") == 1:
            return one
    raw = one.parameters is not None and one.parameters.get("binary_data_size") is not None
    if raw or array.dtype.kind != "f":
        return _given(one.name, array)
    values = np.array(_values(one.data, "f", len(one.shape)), dtype=np.float64)  # of a narrower float the digits that were sent
    found = _given(one.name, values.reshape(array.shape))
    found.datatype = one.datatype
    return found


def _given(name: str, array: Array) -> _Given:
    plain: list[Any] = array.ravel().tolist()
    if array.dtype.kind == "f" and not isfinite(sum(plain)):
        plain = [str(value) if isinf(value) else value for value in plain]
    return _Given(name, _NAMES[array.dtype], array.shape, {}, plain)


def datatype_of(array: Array) -> str:
    """The protocol's name of what an array holds."""
    return _NAMES[array.dtype]


def raw_of(array: Array) -> bytes:
    """A tensor as raw bytes."""
    if array.dtype.kind != "O":
        return array.tobytes()
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
