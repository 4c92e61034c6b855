"""Every error says what, where, what was available and what to do next; each is the fitting builtin too."""

import pytest

from tidemill import core
from tidemill.core import TidemillError

ERRORS = [value for value in vars(core).values() if isinstance(value, type) and issubclass(value, TidemillError)]


def test_the_four_parts_are_shown_and_given_as_data() -> None:
    error = core.UnknownName("no dataset 'flihgts'", where="flights.py:12", available=["arrivals", "flights"], hint="correct the name")
    assert str(error) == "no dataset 'flihgts'\n  where: flights.py:12\n  available: arrivals, flights\n  next: correct the name"
    assert error.data() == {
        "error": "UnknownName",
        "what": "no dataset 'flihgts'",
        "where": "flights.py:12",
        "available": ["arrivals", "flights"],
        "next": "correct the name",
    }


def test_parts_that_are_empty_are_left_out_and_long_lists_cut() -> None:
    assert str(core.DataError("wrong")) == "wrong"
    assert str(core.UnknownName("no x", available=[f"n{i}" for i in range(20)])).endswith("n11, …")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_each_error_is_ours_and_a_builtin(error: type[TidemillError]) -> None:
    builtins = {ValueError, LookupError, FileNotFoundError, OSError, PermissionError, ImportError}
    assert error is TidemillError or builtins & set(error.__mro__)
    assert error.__doc__
    assert 0 < error.code < 128
    with pytest.raises(TidemillError, match="it"):
        raise error("it")
