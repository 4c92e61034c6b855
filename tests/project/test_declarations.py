"""Declarations that could not work, or mean something else than they say, are refused when a project is loaded, with file and line."""

from pathlib import Path

import pytest

from tidemill.core import DefinitionError
from tidemill.project import FILE, load

DECLARED = """import tidemill as tm
s = {"s": tm.Source("x.csv")}
d = tm.Dataset("d", s, event_time="t", key="id")
e = tm.Entity("e", key="k")
v = tm.FeatureView("v", d, entity=e, windows=["1h"], features={"m": tm.mean("x")})
r = tm.RequestView("r", d, features={"x": "x"})
t = tm.Task("t", request=d, predict_at="t", features=[r, v], label=tm.Label(d, "y", none_after="2d"))
@tm.model(t, seed=13, params={"a": 1})
def m(train, params): ...
g = tm.gates.no_worse_slice("roc_auc", by=["x"], margin=0.1)
p = tm.Deployment("p", m, gates=[g], rollout=tm.Canary(steps=[0.5, 1.0], alpha=0.05), fallback=[tm.Constant(0.2)], timeout="1s")
w = tm.Monitor(p, every="7d", quality=["log_loss"], drift=tm.Drift(false_alarm_rate=0.05))
k = tm.RetrainPolicy(w, on=[tm.Age("60d"), tm.QualityDrop("log_loss", by=0.1)], cooldown="7d", approvals=0)
"""

ODD = [
    ('windows=["1h"]', 'windows=["0h"]', "'0h' is no time at all"),
    ('windows=["1h"]', 'windows=["500ms"]', "'500ms' is less than a second"),
    ('windows=["1h"]', 'windows=["1h", "60min"]', "the windows '1h' and '60min' of view 'v' are as long"),
    ('windows=["1h"]', 'windows=["1h", "1h"]', "windows lists '1h' twice"),
    ('windows=["1h"]', 'windows="1h"', "windows='1h' is no list"),
    ('windows=["1h"]', "windows=[3600]", "windows lists 3600"),
    ('windows=["1h"]', 'windows=["9999999d"]', "more than a hundred years"),
    ('windows=["1h"], features={"m": tm.mean("x")}', 'ttl="0s", features=["m"]', "the ttl of view 'v': '0s' is no time at all"),
    ('windows=["1h"], features={"m": tm.mean("x")}', 'ttl="-1h", features=["m"]', "'-1h' is not a duration"),
    ('windows=["1h"], features={"m": tm.mean("x")}', 'features=["m", "m"]', "features lists 'm' twice"),
    ('windows=["1h"], features={"m": tm.mean("x")}', 'features=["Wind Speed"]', "the feature's name 'Wind Speed' has ' '"),
    ('features={"m": tm.mean("x")}', 'features={"m": tm.mean("x"), "M": tm.min("x")}', "'m' and 'M' of view 'v' differ by case alone"),
    ('windows=["1h"], features={"m": tm.mean("x")}', 'features=["m", "M"]', "'m' and 'M' of view 'v' differ by case alone"),
    ('"r", d, features={"x": "x"}', '"r", d, features={"x": "x", "X": "y"}', "'x' and 'X' of view 'r' differ by case alone"),
    ('features={"m": tm.mean("x")}', "features={}", "view 'v' has no features"),
    ('features={"m": tm.mean("x")}', 'features={"": tm.mean("x")}', "the feature's name '' is empty"),
    ('features={"m": tm.mean("x")}', 'features={"a,b": tm.mean("x")}', "the feature's name 'a,b' has ','"),
    ('features={"m": tm.mean("x")}', 'features={"__known": tm.mean("x")}', "begins with '__'"),
    ('features={"m": tm.mean("x")}', 'features={"m": "x"}', "the feature 'm' of view 'v' is 'x'"),
    ('features={"m": tm.mean("x")}', 'features={"m": tm.mean(" ")}', "the expression of 'm' in view 'v' is empty"),
    ('FeatureView("v"', 'FeatureView("a.b"', "the feature view's name 'a.b' has '.'"),
    ('FeatureView("v"', "FeatureView('a\"b'", "has '\"'"),
    ('FeatureView("v"', 'FeatureView("a\\nb"', r"has '\\n'"),
    ("entity=e", 'entity="e"', "the entity of view 'v' is 'e'"),
    ('"r", d, features={"x": "x"}', '"r", d, features={"x": tm.mean("x")}', "a request is one row"),
    ('"r", d, features={"x": "x"}', '"v", d, features={"m_1h": "x"}', "a view twice"),
    ('Entity("e"', 'Entity("an airport"', "the entity's name 'an airport' has ' '"),
    ('key="k"', "key=7", "of entity 'e' is 7, not a text"),
    ('key="k"', 'key=["k", "k"]', "of entity 'e': key lists 'k' twice"),
    ('key="k"', 'key="k", tags="a"', "tags='a' is no list"),
    ('Dataset("d", s', 'Dataset("a/b", s', "the dataset's name 'a/b' has '/'"),
    ('Dataset("d", s', 'Dataset("d", {}', "the sources of dataset 'd' are {}"),
    ('Dataset("d", s', 'Dataset("d", s["s"]', "the sources of dataset 'd' are Source"),
    ('Dataset("d", s', 'Dataset("d", {"a": s["s"], "b": s["s"]}', "has 2 sources and no query"),
    ('key="id"', 'key="id", query="SELECT 1", timezone="Mars"', "timezone='Mars' is not a time zone"),
    ('key="id"', 'key=["id", "id"]', "key lists 'id' twice"),
    ('key="id"', 'key="id", checks=[tm.in_range("x")]', "the range of 'x', low=None and high=None, holds every number"),
    ('key="id"', 'key="id", checks=[tm.in_range("x", 5, 1)]', "holds no number"),
    ('key="id"', 'key="id", checks=[tm.in_range("x", "0", "9")]', "low='0' is no number"),
    ('key="id"', 'key="id", checks=[tm.fresh("0d")]', "fresh: '0d' is no time at all"),
    ('Source("x.csv"', 'Source("x.csv", null_values="NA"', "null_values='NA' is no list"),
    ("seed=13", "seed=-1", r"seed=-1 is not in \[0, 2147483647\]"),
    ("seed=13", "seed=1.5", "seed=1.5 is no whole number"),
    ('params={"a": 1}', 'params={"f": print}', "params: 'f' of model 'm' is <built-in function print>"),
    ('predict_at="t"', 'predict_at=""', "predict_at of task 't' is empty"),
    ('none_after="2d"', 'none_after="0h"', "none_after: '0h' is no time at all"),
    ("margin=0.1", 'margin=float("inf")', "margin=inf is not in"),
    ("gates=[g]", "gates=g", "gates=NoWorseSlice.* is no list"),
    ("steps=[0.5, 1.0]", "steps=[-0.5, 1.0]", r"step=-0.5 is not in \(0, 1\]"),
    ("steps=[0.5, 1.0]", "steps=[0.5, 1.5]", r"step=1.5 is not in \(0, 1\]"),
    ("alpha=0.05", 'alpha="0.05"', "alpha='0.05' is no number"),
    ("fallback=[tm.Constant(0.2)]", "fallback=[0.2]", "fallback lists 0.2"),
    ('timeout="1s"', "timeout=1", "timeout: 1 is not a duration"),
    ('Deployment("p"', 'Deployment("../p"', "the deployment's name '../p' has '.'"),
    ('quality=["log_loss"]', 'quality="log_loss"', "quality='log_loss' is no list"),
    ("drift=tm.Drift(false_alarm_rate=0.05)", "drift=0.05", "drift is 0.05"),
    ('tm.Age("60d")', 'tm.Age("0d")', "Age: '0d' is no time at all"),
    ("by=0.1", "by=-0.1", "by=-0.1 is below 0"),
    ('on=[tm.Age("60d"), tm.QualityDrop("log_loss", by=0.1)]', "on=[]", "on is an empty list"),
    ('on=[tm.Age("60d"), tm.QualityDrop("log_loss", by=0.1)]', "on=tm.Never()", "on=.* is no list"),
    ('cooldown="7d"', 'cooldown="-7d"', "cooldown: '-7d' is not a duration"),
    ("approvals=0", "approvals=-1", "approvals=-1 is below 0"),
]


@pytest.mark.parametrize(("text", "instead", "what"), ODD)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, text: str, instead: str, what: str) -> None:
    assert text in DECLARED
    (tmp_path / FILE).write_text('[project]\nname = "toy"\n')
    (tmp_path / "toy.py").write_text(DECLARED.replace(text, instead))
    with pytest.raises(DefinitionError, match=what) as error:
        load(tmp_path)
    line = next(number for number, line in enumerate(DECLARED.splitlines(), 1) if text in line)
    assert error.value.where == f"{tmp_path / 'toy.py'}:{7 if 'view twice' in what else line}"
    assert error.value.hint or error.value.available


def test_two_features_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[project]\nname = "toy"\n')
    twice = DECLARED.replace('"r", d, features={"x": "x"}', '"v__m", d, features={"x": "x"}').replace('{"m": tm', '{"m__x": tm')
    (tmp_path / "toy.py").write_text(twice.replace('windows=["1h"], features={"m__x": tm.mean("x")}', 'features={"m__x": tm.last("x")}'))
    with pytest.raises(DefinitionError, match="the views 'v__m' and 'v' of task 't' both give 'v__m__x'"):
        load(tmp_path)
