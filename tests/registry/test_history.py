"""Where an alias pointed: every move with who, when and why; and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import loop, registry
from tidemill.core import Refused, UnknownName
from tidemill.ledger import Ledger, user
from tidemill.registry.aliases import delete_alias, set_alias
from tidemill.registry.history import version_before
from tidemill.registry.models import create_model, delete_model
from tidemill.registry.registered import create_version, delete_version, set_version_tag, update_version
from tidemill.tracking import Pair


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    """A model of a client with four versions."""
    create_model(loop.prepare(ledger), "m")
    for _ in range(4):
        create_version(ledger, "m", "s3://there/it/is")
    return ledger


def told(ledger: Ledger, alias: str = "") -> list[tuple[str, str, str, str]]:
    return [(move.alias, move.version, move.who, move.why) for move in registry.alias_history(ledger, "m", alias)]


def test_who_and_why_are_what_the_version_tells(ready: Ledger) -> None:
    set_version_tag(ready, "m", "2", Pair("mlflow.user", "ann"))
    update_version(ready, "m", "2", "better on Mondays")
    set_alias(ready, "m", "best", "1")
    set_alias(ready, "m", "best", "2")
    set_alias(ready, "m", "other", "1", who="ben", why="because")
    delete_alias(ready, "m", "best")
    me = user()
    assert told(ready, "best") == [
        ("best", "1", me, "set by a client"),
        ("best", "2", "ann", "better on Mondays"),
        ("best", "", me, "deleted by a client"),
    ]
    assert told(ready)[2] == ("other", "1", "ben", "because")
    at = [move.at for move in registry.alias_history(ready, "m")]
    assert at == sorted(at)


def test_the_history_outlives_the_model(ready: Ledger) -> None:
    set_alias(ready, "m", "best", "1")
    delete_model(ready, "m")
    assert [version for _, version, _, _ in told(ready)] == ["1", ""]
    with pytest.raises(UnknownName, match="no registered model is named 'n'"):
        registry.alias_history(ready, "n")


def test_an_alias_goes_back_step_by_step(ready: Ledger) -> None:
    for version in ("1", "2", "3"):
        set_alias(ready, "m", "best", version)
    assert registry.restore_alias(ready, "m", "best", who="ann", why="worse") == ("3", "2")
    assert registry.restore_alias(ready, "m", "best", who="ann", why="still") == ("2", "1")
    assert told(ready)[-1] == ("best", "1", "ann", "still")
    with pytest.raises(Refused, match="has no earlier version to go back to") as error:
        registry.restore_alias(ready, "m", "best", who="ann", why="more")
    assert error.value.available == ["1", "2", "3", "4"]
    assert registry.restore_alias(ready, "m", "best", to="4", who="ann", why="this one") == ("1", "4")


def test_what_is_not_there_is_not_gone_back_to(ready: Ledger) -> None:
    set_alias(ready, "m", "best", "1")
    set_alias(ready, "m", "best", "2")
    delete_version(ready, "m", "1")
    for to in ("", "1", "9", "x"):
        with pytest.raises(Refused, match="is not there any more"):
            registry.restore_alias(ready, "m", "best", to=to, who="ann", why="w")
    with pytest.raises(UnknownName, match="no alias 'none' was ever set"):
        registry.restore_alias(ready, "m", "none", who="ann", why="w")
    assert registry.named_version(ready, "m@best").version == "2"


@given(st.lists(st.sampled_from("1234"), min_size=1, max_size=12))
def test_going_back_comes_to_an_end(past: list[str]) -> None:
    """Each step leads to a version that the alias pointed at before, and none is visited twice."""
    seen = [past[-1]]
    while back := version_before(past):
        assert back in past[:-1]
        assert back not in seen
        seen.append(back)
        past = [*past, back]
