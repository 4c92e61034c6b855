"""Digests name content: equal content, equal digest, on any machine and in any process."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes import run_python
from tidemill.core import canonical, differences, digest_bytes, digest_value

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert digest_value(value) == digest_value(dict(reversed(value.items())))


def test_another_process_gives_the_same_digest() -> None:
    code = "from tidemill.core import digest_value; print(digest_value({'b': [1, 2.5, None, 'ü'], 'a': {'x', 'y', 'z'}}))"
    assert {run_python(code).stdout, run_python(code).stdout} == {digest_value({"a": {"z", "y", "x"}, "b": [1, 2.5, None, "ü"]}) + "\n"}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": math.inf}, {"a": None}),
        ({"a": math.nan}, {"a": None}),
        ({"a": math.inf}, {"a": -math.inf}),
        ({"a": 0.0}, {"a": -0.0}),
    ],
)
def test_other_content_gives_another_digest(one: object, two: object) -> None:
    assert digest_value(one) != digest_value(two)


def test_parts_keep_their_borders() -> None:
    assert digest_bytes(b"ab", b"c") != digest_bytes(b"a", b"bc") != digest_bytes(b"abc")
    assert digest_bytes() != digest_bytes(b"")


def test_canonical_text_is_fixed() -> None:
    assert canonical({"b": (1, 2), "a": None, "ü": "€"}) == '{"a":null,"b":[1,2],"ü":"€"}'.encode()


def test_what_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError):
        digest_value({"a": object()})


def test_differences_name_their_place() -> None:
    before = {"same": 1, "deep": {"x": 1, "y": [1]}, "gone": 2}
    after = {"same": 1, "deep": {"x": 1, "y": [2]}, "new": 3}
    assert differences(before, after) == [("deep.y", [1], [2]), ("gone", 2, None), ("new", None, 3)]
    assert differences(before, before) == []
