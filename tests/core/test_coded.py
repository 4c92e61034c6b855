"""Text as codes of a sorted vocabulary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import Coded

columns = st.lists(st.none() | st.text(max_size=3), max_size=40)


@given(columns)
def test_text_comes_back(values: list[str | None]) -> None:
    column = Coded.of(values)
    assert column.texts() == values
    assert list(column.vocabulary) == sorted({value for value in values if value is not None})
    assert len(column) == len(values)


@given(columns, st.sets(st.text(max_size=3)))
def test_another_vocabulary_knows_what_it_knows(values: list[str | None], words: set[str]) -> None:
    vocabulary = tuple(sorted(words))
    expected = [vocabulary.index(value) if value in vocabulary else -1 for value in values]
    assert Coded.of(values).to(vocabulary).tolist() == expected


@given(st.sets(st.text(max_size=3), min_size=30), st.data())
def test_a_few_rows_of_a_large_vocabulary_take_a_shorter_way_to_the_same_codes(words: set[str], data: st.DataObject) -> None:
    vocabulary = tuple(sorted(words))
    codes = data.draw(st.lists(st.integers(-1, len(vocabulary) - 1), max_size=3))
    other = tuple(sorted(data.draw(st.sets(st.sampled_from(vocabulary)))))
    few = Coded(np.array(codes, dtype=np.int32), vocabulary)
    many = Coded(np.tile(few.codes, len(vocabulary)), vocabulary)
    assert few.to(other).tolist() == many.to(other)[: len(few)].tolist()


def test_some_rows() -> None:
    assert Coded.of(["b", None, "a"]).take([2, 1]).texts() == ["a", None]


wholes = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)


@given(st.lists(st.none() | wholes, max_size=40))
def test_whole_numbers_are_their_texts(values: list[int | None]) -> None:
    null = np.array([value is None for value in values], dtype=bool)
    column = Coded.of_whole(np.array([value or 0 for value in values], dtype=np.int64), null)
    assert column.texts() == [None if value is None else str(value) for value in values]
    assert list(column.vocabulary) == sorted({str(value) for value in values if value is not None})
    assert column.codes.dtype == np.int32


@given(st.lists(wholes, max_size=40))
def test_whole_numbers_without_a_null_need_no_mask(values: list[int]) -> None:
    assert Coded.of_whole(np.array(values, dtype=np.int64)).texts() == list(map(str, values))
