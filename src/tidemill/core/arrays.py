"""Named arrays as one run of bytes, in the layout of safetensors: 8 bytes of header length, a JSON header, the buffers.

Any safetensors reader opens them; `unpack` gives arrays that look into the bytes without copying, so a memory-mapped file
costs nothing until it is read. Buffers lie by size of item, then name: each starts on its own alignment without a gap (the
format allows none), and equal arrays give equal bytes.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from tidemill.core.digests import canonical
from tidemill.core.errors import Damaged

_NAMES = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "int16": "I16", "uint8": "U8", "bool": "BOOL"}
_TYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in _NAMES.items()}
AT_ONCE = 2**16  # rows of an array that are put in order at once

Array = np.ndarray[Any, np.dtype[Any]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Instants = Ints  # microseconds since 1970 UTC


def pack(arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None) -> bytes:
    """Bytes of named arrays (float64, float32, int64, int32, int16, uint8, bool) and of plain metadata.

    >>> arrays, meta = unpack(pack({"x": np.arange(3.0)}, {"unit": "minute"}))
    >>> arrays["x"].tolist(), meta
    ([0.0, 1.0, 2.0], {'unit': 'minute'})
    """
    return b"".join(packed(arrays, meta))


def packed(arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None, rows: Ints | None = None) -> Iterator[bytes | memoryview]:
    """The same in pieces, of which each is good until the next is asked for; with `rows`, those of each array (n,), within it, in
    their order.

    >>> b"".join(bytes(piece) for piece in packed({"x": np.arange(3.0)}, rows=np.array([2, 0]))) == pack({"x": np.array([2.0, 0.0])})
    True
    """
    header: dict[str, Any] = {"__metadata__": {"tidemill": canonical(dict(meta or {})).decode()}}
    names, offset = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)), 0
    for name in names:
        array, shape = arrays[name], list(arrays[name].shape) if rows is None else [len(rows)]
        size = prod(shape) * array.dtype.itemsize
        header[name] = {"dtype": _NAMES[array.dtype.name], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        array = np.ascontiguousarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"))
        if rows is None:
            yield _bytes(array)
            continue
        some = np.empty(min(AT_ONCE, len(rows)), array.dtype)  # not a whole column: fresh memory costs more than what is done with it
        for part in (rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)):
            yield _bytes(np.take(array, part, out=some[: len(part)], mode="clip"))  # to raise would take a copy of `out`


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def unpack(data: bytes | memoryview) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and metadata that `pack` wrote; raises Damaged when the bytes are something else."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(bytes(data[8 : 8 + size]))
        meta = msgspec.json.decode(header.pop("__metadata__")["tidemill"])
        arrays = {}
        for name, info in header.items():
            start, end = info["data_offsets"]
            view = data[8 + size + start : 8 + size + end]
            arrays[name] = np.frombuffer(view, dtype=_TYPES[info["dtype"]]).reshape(info["shape"])
    except (msgspec.DecodeError, AttributeError, KeyError, ValueError, TypeError) as error:
        raise Damaged("these bytes are not a set of named arrays", hint="run `tidemill doctor`; the blob may be cut short") from error
    return arrays, meta
