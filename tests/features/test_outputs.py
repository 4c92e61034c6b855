"""What may be declared as the output of a model, what its version is, and how a misfit is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from models.fitted import SIGNATURE, boosted, matrix
from tidemill.core import DefinitionError, TidemillError, UnknownName, Where, definition
from tidemill.data import ingest
from tidemill.features import Output, bound, build, from_definition, load
from tidemill.ledger import Artifact, Ledger
from tidemill.models import compile_model, store_model

REF = "model:boosted@49061ef94337"
WHERE = Where("views.py", 7)
TAKES = dict.fromkeys(SIGNATURE.features, "NULL")
DATA = tm.Dataset("trips", {"s": tm.Source("trips.csv", where=WHERE)}, event_time="at", where=WHERE)
CAR = tm.Entity("car", key="car", where=WHERE)


def view(output: Any, **more: Any) -> tm.FeatureView:
    return tm.FeatureView("risk", DATA, CAR, features=output, **more)


@pytest.fixture(scope="module")
def onnx() -> Any:
    return compile_model(boosted(n_estimators=3), SIGNATURE, matrix(50))


@pytest.fixture
def model(ledger: Ledger, onnx: Any) -> Artifact:
    found = store_model(ledger, "boosted", onnx, SIGNATURE, matrix(20), {})
    ledger.put_artifact(found)
    return found


@pytest.mark.parametrize(
    "ref", ["boosted/3", "boosted@champion", "models:/boosted/3", "model:boosted", "model:boosted@3", f"{REF}0", "", 3]
)
def test_what_does_not_name_one_version_is_refused_and_told_how_to_name_it(ref: Any) -> None:
    with pytest.raises(DefinitionError) as error:
        view(tm.output_of(ref, columns=TAKES, returns=["score"]))
    assert "`tidemill models show NAME`" in error.value.hint
    assert "model:NAME@DIGEST" in error.value.hint
    assert "test_outputs.py:" in error.value.where


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"columns": "delay"}, "columns of view 'risk' is 'delay'"),
        ({"columns": 5}, "columns of view 'risk' is 5"),
        ({"columns": {"delay": ""}}, "the expression of 'delay' in view 'risk' is empty"),
        ({"columns": {"delay": 3}}, "the expression of 'delay' in view 'risk' is 3"),
        ({"returns": "score"}, "'score' is no list"),
        ({"returns": []}, "is an empty list"),
        ({"returns": ["a", "A"]}, "differ by case alone"),
        ({"returns": ["a b"]}, "has ' '"),
    ],
)
def test_what_it_takes_and_gives_is_said(more: Any, what: str) -> None:
    output = tm.output_of(REF, **{"columns": TAKES, "returns": ["score"], **more})
    for declare in (view, lambda features: tm.RequestView("risk", DATA, features=features)):
        with pytest.raises(DefinitionError, match=what):
            declare(output)


def test_windows_over_it_are_refused() -> None:
    with pytest.raises(DefinitionError, match="'risk' folds the output of a model over windows") as error:
        view(tm.output_of(REF, columns=TAKES, returns=["score"]), windows=["1h"])
    assert "leave the windows out" in error.value.hint


def test_it_is_not_shared_with_projects_that_have_not_the_model() -> None:
    with pytest.raises(DefinitionError, match="'risk' is the output of a model, and shared"):
        view(tm.output_of(REF, columns=TAKES, returns=["score"]), shared=True)


def test_its_definition_is_the_digest_and_comes_back() -> None:
    whole = REF + "0" * 28
    named = view(tm.output_of(REF, columns=["a b", "c"], returns=["x", "y"]), ttl="1d")
    assert named.names == ["risk__x", "risk__y"]
    assert definition(named)["output"] == {"model": REF, "columns": {"a b": '"a b"', "c": '"c"'}, "returns": ["x", "y"]}
    assert definition(from_definition(definition(named))) == definition(named)
    assert definition(view(tm.output_of(whole, columns=["a b", "c"], returns=["x", "y"]), ttl="1d")) == definition(named)
    own = tm.RequestView("risk", DATA, features=tm.output_of(REF, columns=["c"], returns=["x"]))
    assert definition(from_definition(definition(own))) == definition(own)


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ({"columns": {**TAKES, "more": "1"}}, "gives model:boosted@.* 'more', which it does not take"),
        ({"columns": {"delay": "1"}}, "takes 'origin', which view 'risk' does not give it"),
        ({"returns": ["a", "b"]}, "gives 1 number for a row, and view 'risk' names 2"),
    ],
)
def test_a_model_that_takes_or_gives_something_else_is_a_misfit(ledger: Ledger, model: Artifact, output: Any, what: str) -> None:
    with pytest.raises(DefinitionError, match=what) as error:
        bound(ledger, view(tm.output_of(str(model.ref), **{"columns": TAKES, "returns": ["score"], **output}), where=WHERE))
    assert error.value.where == "views.py:7"


def test_a_model_is_looked_for_by_all_of_the_digest_that_is_named(ledger: Ledger, model: Artifact) -> None:
    loaded = []
    for ref in (f"model:boosted@{model.ref.digest}", str(model.ref)):
        found = bound(ledger, view(tm.output_of(ref, columns=TAKES, returns=["score"]))).features
        assert isinstance(found, Output)
        assert found.bound is not None
        assert found.bound.artifact.ref == model.ref
        loaded.append(found.loaded("risk", ""))
    assert loaded[0] is loaded[1], "it is loaded once"
    for ref in (f"{model.ref}{'0' * 28}", str(model.ref).replace("boosted", "other")):
        with pytest.raises(UnknownName, match="the model of view 'risk' is not in this ledger"):
            bound(ledger, view(tm.output_of(ref, columns=TAKES, returns=["score"])))


def test_a_wrong_expression_names_the_view(ledger: Ledger, model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("car,at,late,from\na,2024-01-01T00:00:00Z,5,JFK\nb,2024-01-01T00:00:00Z,,\n")
    where = Where(str(tmp_path / "views.py"), 3)
    trips = tm.Dataset("trips", {"s": tm.Source("trips.csv", where=where)}, event_time="at", where=where)
    version = ingest(ledger, trips).output

    def built(**takes: str) -> Any:
        output = tm.output_of(str(model.ref), columns=TAKES | takes, returns=["score"])
        one = tm.FeatureView("risk", trips, CAR, features=output, where=where)
        return load(ledger, one, build(ledger, one, version).output).columns["x:score"].tolist()

    with pytest.raises(TidemillError, match="nothing") as error:
        built(delay="nothing + 1")
    assert error.value.where == str(where)
    with pytest.raises(TidemillError, match="JFK"):
        built(delay='"from"')  # a text, where the model takes a number
    assert len({*built(delay="late", origin='"from"'), *built(delay="late"), *built()}) >= 2
    assert np.isfinite(built(delay="late", origin='"from"')).all()
