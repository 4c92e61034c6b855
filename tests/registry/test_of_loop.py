"""The loop's models among the registered ones: which branch is seen, under which name, and what no client moves."""

import pytest

from tidemill import loop, registry
from tidemill.core import GateResult, Ref, Refused, Taken, Verdict
from tidemill.ledger import Artifact, Ledger
from tidemill.registry.aliases import delete_alias, set_alias, version_by_alias
from tidemill.registry.models import create_model, get_model, search_registered
from tidemill.registry.registered import create_version, get_version, search_versions
from tidemill.registry.values import Alias
from tidemill.tracking import Pair


@pytest.fixture
def ready(ledger: Ledger) -> Ledger:
    return loop.prepare(ledger)


def branch_of(ledger: Ledger, kind: str, deployment: str) -> str:
    """A branch that serves: a live one with a state, or a finished replay."""
    branch = ledger.open_branch(kind, deployment, {"of": deployment})
    with ledger.records.begin() as connection:
        ledger.save_branch(connection, branch.id, branch.state, {"now": 1})
    if kind == "replay":
        ledger.finish_branch(branch.id, {})
    return branch.id


def made(ledger: Ledger, branch: str, deployment: str, *digits: str, name: str = "m") -> None:
    """Versions of a model on a branch, each promoted."""
    for digit in digits:
        with ledger.records.begin() as connection:
            version = registry.register(connection, branch, Artifact(Ref.of("model", name, digit * 40), {}), at=5_000)
            verdict = Verdict(version.label, (GateResult("g", passed=True, reason="r"),))
            registry.record_verdict(ledger, connection, version, verdict, at=6_000)
            registry.promote(ledger, connection, deployment, version, verdict, at=7_000, why="w")


def names(ledger: Ledger) -> list[str]:
    return [one.name for one in search_registered(ledger)[0]]


def test_versions_of_the_serving_branch_are_seen(ready: Ledger) -> None:
    made(ready, branch_of(ready, "replay", "late"), "late", "a", "b")
    assert (names(ready), version_by_alias(ready, "m", "champion").version) == (["m"], "2")
    made(ready, branch_of(ready, "live", "late"), "late", "c")
    assert [one.version for one in search_versions(ready)[0]] == ["1"], "the live branch serves now"
    assert {pair.key: pair.value for pair in get_version(ready, "m", "1").tags or ()} == {
        "tidemill.branch": "live-late",
        "tidemill.deployment": "late",
        "tidemill.digest": "c" * 40,
        "tidemill.verdict": "passed",
    }


def test_a_feature_may_be_named_as_a_mark_of_ours(ready: Ledger) -> None:
    ready.put_artifact(Artifact(Ref.of("model", "m", "a" * 40), {"signature": {"categories": {"isolated": ["yes", "no"]}}}))
    made(ready, branch_of(ready, "live", "late"), "late", "a")
    assert not [pair for pair in get_version(ready, "m", "1").tags or () if pair.key == "tidemill.isolated"]


def test_a_replay_under_way_is_not_seen(ready: Ledger) -> None:
    branch = ready.open_branch("replay", "late", {})
    made(ready, branch.id, "late", "a")
    assert names(ready) == []


def test_a_name_that_is_taken_is_told_with_the_deployment(ready: Ledger) -> None:
    create_model(ready, "m", tags=[Pair("whose", "a client's")])
    for deployment in ("late", "later"):
        made(ready, branch_of(ready, "live", deployment), deployment, "a", name="m" if deployment == "late" else "n")
    made(ready, branch_of(ready, "live", "last"), "last", "b", name="n")
    assert names(ready) == ["m", "m.late", "n", "n.last"]
    assert get_model(ready, "m").latest_versions is None
    assert get_model(ready, "m.late").aliases == [Alias("champion", "1")]


def test_what_a_deployment_follows_is_not_moved_by_hand(ready: Ledger) -> None:
    made(ready, branch_of(ready, "live", "late"), "late", "a", "b")
    for act in (lambda: set_alias(ready, "m", "champion", "1"), lambda: delete_alias(ready, "m", "champion")):
        with pytest.raises(Refused, match=r"deployment late follows .* `tidemill rollback late` moves it back"):
            act()
    with pytest.raises(Refused, match="the loop alone makes its versions"):
        create_version(ready, "m", "s3://there/it/is")
    with pytest.raises(Taken):
        create_model(ready, "m")
    set_alias(ready, "m", "liked", "1")
    assert version_by_alias(ready, "m", "liked").aliases == ["liked"]
    assert version_by_alias(ready, "m", "champion").version == "2"


def test_a_challenger_that_became_the_champion_is_none_any_more(ready: Ledger) -> None:
    branch = branch_of(ready, "live", "late")
    made(ready, branch, "late", "a", "b")
    one, two = registry.versions(ready, branch, "m")
    assert one.verdict is not None
    assert two.verdict is not None
    with ready.records.begin() as connection:
        registry.promote(ready, connection, "late", one, one.verdict, alias="challenger", at=8, why="w")
    assert {alias.alias: alias.version for alias in get_model(ready, "m").aliases or ()} == {"challenger": "1", "champion": "2"}
    with ready.records.begin() as connection:
        registry.promote(ready, connection, "late", one, one.verdict, at=9, why="w")
    assert {alias.alias: alias.version for alias in get_model(ready, "m").aliases or ()} == {"champion": "1"}


def test_labels_of_a_replays_versions_do_not_pass_to_the_live_ones(ready: Ledger) -> None:
    made(ready, branch_of(ready, "replay", "late"), "late", "a")
    set_alias(ready, "m", "liked", "1")
    made(ready, branch_of(ready, "live", "late"), "late", "b")
    assert [alias.alias for alias in get_model(ready, "m").aliases or ()] == ["champion"]
