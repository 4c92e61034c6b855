"""What differs between versions: pure parts, versions of the loop, versions of clients."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidemill
from tidemill import loop, registry
from tidemill.core import UnknownName
from tidemill.ledger import Ledger
from tidemill.registry import Facts
from tidemill.registry.diff import changes
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.tracking import Pair, put_file
from tidemill.tracking.runs import create_run, log_batch
from tidemill.tracking.values import Metric
from toy import kept as kept

PLAIN = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.floats() | st.text(max_size=3), max_size=5)


@given(PLAIN)
def test_a_thing_does_not_differ_from_itself(values: dict[str, object]) -> None:
    assert changes(values, dict(values)) == []


@given(PLAIN, PLAIN)
def test_differences_are_those_of_both_ways(one: dict[str, object], two: dict[str, object]) -> None:
    there, back = changes(one, two), changes(two, one)
    assert [(c["name"], str(c["one"]), str(c["two"])) for c in there] == [(c["name"], str(c["two"]), str(c["one"])) for c in back]


def test_features_are_added_removed_and_changed() -> None:
    one, two = Facts("m/1", features={"a": 1, "b": 2, "c": 3}), Facts("m/2", features={"b": 2, "c": 4, "d": 5})
    found = registry.diff(one, two)
    assert found["features"] == {"added": ["d"], "removed": ["a"], "changed": [{"name": "c", "one": 3, "two": 4}]}
    assert (found["one"], found["two"], found["predictions"]) == ("m/1", "m/2", [])
    assert found["unknown"] == ["params", "metrics", "data", "code", "environment", "signature"]


def test_two_versions_of_the_loop(kept: Path) -> None:
    session = tidemill.open(kept)
    found = session.diff("trees/2", "trees@champion")
    assert (found["one"], found["two"]) == ("trees/2", "trees/4")
    assert {"training set late", "until", "rows"} <= {change["name"] for change in found["data"]}
    assert found["params"] == [{"name": "rows", "one": 5616, "two": 6139}]
    assert (found["code"], found["environment"], found["signature"]) == ([], [], [])
    assert found["features"] == {"added": [], "removed": [], "changed": []}
    assert [(one["cases"], one["rows"]) for one in found["predictions"]] == [("trees/2", 20), ("trees/4", 20)]
    assert all(0 < one["mean"] <= one["max"] < 1 and 0 <= one["crossed"] <= 1 for one in found["predictions"])
    same = session.diff("trees/2", "models:/trees/2")
    assert [same[name] for name in ("params", "metrics", "data", "signature")] == [[], [], [], []]
    assert [one["max"] for one in same["predictions"]] == [0.0, 0.0]


def test_definitions_of_features_are_told(kept: Path) -> None:
    session = tidemill.open(kept)
    known = registry.facts_of(session.ledger, "trees/2")
    assert known.features["depot_recent__late_share_12h"] == {
        "dataset": "deliveries", "entity": "depot", "category": False, "expression": "late", "function": "mean",
    }  # fmt: skip
    assert known.features["booking__weight"] == {"dataset": "bookings", "category": False, "expression": "weight", "function": "last"}
    assert known.environment["numpy"]


def test_a_version_of_a_client(ledger: Ledger) -> None:
    loop.prepare(ledger)
    create_model(ledger, "m")
    for depth in ("3", "4"):
        run = create_run(ledger, "0").info
        log_batch(ledger, run.run_id, [Metric("auc", 0.1 * int(depth), 1, 0)], [Pair("depth", depth)], [])
        columns = json.dumps([{"name": "x" * int(depth), "type": "double"}])
        described = {"flavors": {"sklearn": {}}, "signature": {"inputs": columns, "outputs": None}}
        for name, text in (("requirements.txt", f"mlflow==3.17.2\nscikit-learn==1.{depth}\n"), ("MLmodel", json.dumps(described))):
            part = ledger.blobs.part()
            part.write(text.encode())
            put_file(ledger, f"{run.artifact_uri.removeprefix('mlflow-artifacts:/')}/model/{name}", part)
        create_version(ledger, "m", f"runs:/{run.run_id}/model", run_id=run.run_id)
    found = registry.diff(registry.facts_of(ledger, "m/1"), registry.facts_of(ledger, "m/2"))
    assert found["params"] == [{"name": "depth", "one": "3", "two": "4"}]
    assert [change["name"] for change in found["metrics"]] == ["auc"]
    assert found["environment"] == [{"name": "scikit-learn", "one": "1.3", "two": "1.4"}]
    (changed,) = found["signature"]
    assert (changed["name"], '"xxxx"' in changed["two"]) == ("inputs", True)
    assert found["predictions"] == [], "what a client registered is never loaded"


@pytest.mark.parametrize("text", ["m", "m/9", "m@none", "models:/m/1/2", "@", "m/one"])
def test_what_is_no_version_is_said(ledger: Ledger, text: str) -> None:
    create_model(loop.prepare(ledger), "m")
    with pytest.raises((UnknownName, ValueError)):
        registry.named_version(ledger, text)
