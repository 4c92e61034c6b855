"""Packed arrays: what goes in comes out, equal arrays give equal bytes, and the layout is that of safetensors."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidemill.core import Damaged, digest_bytes, pack, packed, unpack

dtypes = st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.int16, np.uint8, np.bool_])
arrays = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))),
    max_size=5,
)


@given(arrays)
def test_what_goes_in_comes_out(given_arrays: dict[str, np.ndarray]) -> None:
    found, meta = unpack(pack(given_arrays, {"unit": ["minute", 1]}))
    assert meta == {"unit": ["minute", 1]}
    assert found.keys() == given_arrays.keys()
    for name, array in given_arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.aligned


@given(arrays)
def test_the_layout_is_that_of_safetensors(given_arrays: dict[str, np.ndarray]) -> None:
    """The rules of github.com/huggingface/safetensors, `validate`: buffers follow each other without a gap, up to the end."""
    data = pack(given_arrays)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert all(isinstance(value, str) for value in header.pop("__metadata__").values())
    offsets = sorted(info["data_offsets"] for info in header.values())
    ends = [0, *(end for _, end in offsets)]
    assert [start for start, _ in offsets] == ends[:-1]
    assert 8 + size + ends[-1] == len(data)


def test_order_memory_layout_and_byte_order_do_not_change_the_bytes() -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.array([1, 2, 3], dtype=np.int32)
    wanted = digest_bytes(pack({"x": x, "y": y}))
    assert digest_bytes(pack({"y": y, "x": np.asfortranarray(x)})) == wanted
    assert digest_bytes(pack({"x": x.astype(">f8"), "y": y.astype(">i4")})) == wanted


def test_reading_copies_nothing_and_cannot_write() -> None:
    data = memoryview(pack({"x": np.arange(3.0)}))
    found, _ = unpack(data)
    assert np.shares_memory(found["x"], np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        found["x"][0] = 1.0


@pytest.mark.parametrize("cut", [0, 3, 8, 20, -1])
def test_a_cut_is_found(cut: int) -> None:
    with pytest.raises(Damaged):
        unpack(pack({"x": np.arange(3.0)})[:cut])


@pytest.mark.parametrize("data", [b"\x02" + b"\0" * 7 + b"[]", b"\x01" + b"\0" * 7 + b"7", b"PK\x03\x04 a zip file", bytes(64)])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        unpack(data)


@given(st.lists(st.floats(), min_size=1, max_size=20), st.data())
def test_some_rows_are_packed_as_if_they_were_taken_first(values: list[float], data: st.DataObject) -> None:
    columns = {"x": np.array(values), "n": np.arange(len(values), dtype=np.int32)}
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=30)), dtype=np.int64)
    pieces = b"".join(bytes(piece) for piece in packed(columns, {"a": 1}, rows))
    assert pieces == pack({name: column[rows] for name, column in columns.items()}, {"a": 1})


def test_many_rows_come_in_more_than_one_piece() -> None:
    column, rows = np.arange(200_000, dtype=np.int64), np.random.default_rng(1).permutation(200_000)
    sizes = list[int]()
    found = bytearray()
    for piece in packed({"x": column}, rows=rows):
        sizes.append(len(piece))
        found += piece
    assert max(sizes) < column.nbytes / 2
    assert bytes(found) == pack({"x": column[rows]})
