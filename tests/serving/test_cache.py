"""What models said is said again to equal questions, and to no others; a new version, a failure or a wrong request finds nothing."""

import asyncio
import json
import sys
import threading
import tracemalloc
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import tidemill as tm
from cli.conftest import Command
from cli.conftest import forks as forks
from cli.conftest import tidemill as tidemill
from processes import served as started
from serving.conftest import Serve, Served
from serving.test_deployed import Ask, Case, matrix
from serving.test_deployed import ask as ask
from serving.test_deployed import cases as cases
from serving.test_gateway import Replayed
from serving.test_ladder import Broken, break_version
from serving.test_oip import onnx_of, sums, tensor
from tidemill.core import DefinitionError, Floats, size
from tidemill.models import OnnxModel, Predictor
from tidemill.serving import AnswerCache, CachedModel, rehearse
from tidemill.serving import Served as Bare
from tidemill.serving.cache import ENTRY, digest_of
from tidemill.serving.repository import Repository
from tidemill.web.metrics import exposition, of_endpoints

ROW: dict[str, Any] = {"rows": [{"parcel": "p118-003"}], "at": "2024-04-30T00:00:00Z"}
ANOTHER: dict[str, Any] = {"rows": [{"parcel": "p117-003"}], "at": "2024-04-30T00:00:00Z"}


class Counting(Predictor):
    """A model that counts the rows that it is asked about."""

    def __init__(self, other: Predictor) -> None:
        self.signature, self.other, self.asked = other.signature, other, 0

    def predict(self, features: Any) -> Any:
        self.asked += len(features)
        return self.other.predict(features)


@pytest.fixture
def cached(served: Served) -> Served:
    """A deployment whose cache is empty."""
    served.endpoint.cache = AnswerCache(1_000_000)
    return served


def count(served: Served, label: tuple[str, str] | None = None) -> Counting:
    """Have a version, the champion where none is named, count what it is asked."""
    digest = (label or served.endpoint.standing.champion)[1]
    counting = served.endpoint.predictors[digest] = Counting(served.endpoint.predictors[digest])
    return counting


def test_an_equal_request_asks_no_model_and_has_its_own_line_in_the_log(cached: Served) -> None:
    model = count(cached)
    first, again, other = cached.one(**ROW), cached.one(**ROW), cached.one(**ANOTHER)
    assert model.asked == 2
    assert "cached" not in first
    assert "cached" not in other
    assert again == first | {"id": again["id"], "cached": True}
    assert again["id"] != first["id"]
    assert [line.get("cached") for line in cached.logged] == [None, True, None]
    assert [line["inputs"] for line in cached.logged[:2]] == [cached.logged[0]["inputs"]] * 2


def test_without_a_declaration_nothing_is_kept(served: Served) -> None:
    model = count(served)
    assert served.endpoint.cache is None
    assert [served.one(**ROW).get("cached"), served.one(**ROW).get("cached"), model.asked] == [None, None, 2]


def test_of_several_rows_the_model_is_asked_about_those_that_are_new(cached: Served, served: Served) -> None:
    expected = [one["probability"] for one in served.ask(rows=ROW["rows"] + ANOTHER["rows"] + ROW["rows"], at=ROW["at"])[1]["predictions"]]
    cached.endpoint.cache = AnswerCache(1_000_000)
    model = count(cached)
    cached.one(**ROW)
    _, answer = cached.ask(rows=ROW["rows"] + ANOTHER["rows"] + ROW["rows"], at=ROW["at"])
    assert [one["probability"] for one in answer["predictions"]] == expected
    assert [one.get("cached") for one in answer["predictions"]] == [True, None, True]
    assert model.asked == 2


def test_a_promotion_finds_no_answer_of_the_version_before_it(cached: Served) -> None:
    standing = cached.endpoint.standing
    assert standing.previous
    before = cached.one(**ROW)
    cached.endpoint.standing = replace(standing, champion=standing.previous, previous=standing.champion)
    cached.endpoint.__dict__.pop("given", None)
    after = cached.one(**ROW)
    assert "cached" not in after
    assert after["version"] == standing.previous[0]
    assert cached.one(**ROW)["probability"] == after["probability"] != before["probability"]


def test_an_endpoint_that_follows_another_knows_what_it_knew_within_its_own_size(cached: Served, replayed: Any) -> None:
    cached.one(**ROW)
    after = replace(cached.endpoint, cache=AnswerCache(5 * ENTRY))
    after.follow(cached.endpoint)
    assert after.cache is cached.endpoint.cache
    assert after.cache is not None
    assert (after.cache.most, after.cache.bytes) == (5 * ENTRY, ENTRY)
    toy, _ = replayed
    before = after.cache.counted()
    rehearse(toy.ledger, after)  # golden cases are asked of the model itself
    assert after.cache.counted() == before


def test_over_the_protocol_an_answer_says_so_too(cached: Served, ask: Ask, cases: Case) -> None:
    rows = matrix(cached, [values for _, values in cases])
    model = count(cached)

    def asked(*places: int) -> dict[str, Any]:
        data: list[Any] = [value for i in places for value in rows[i]]
        status, answer = ask([tensor("features", "FP64", [len(places), len(rows[0])], data)])
        assert status == 200
        assert answer["outputs"][0]["data"] == [cases[i][0] for i in places]
        return dict(answer["parameters"])

    assert "cached" not in asked(0)
    assert asked(0)["cached"] == "true"
    assert asked(0, 1)["cached"] == "true,false"
    assert model.asked == 2
    assert [line.get("cached") for line in cached.logged] == [None, True, True, None]


def test_a_model_that_fails_says_what_it_said_and_is_not_mended_by_that(cached: Served) -> None:
    cached.endpoint.fallback = [tm.Constant(0.3)]
    known = cached.one(**ROW)
    break_version(cached, cached.endpoint.standing.champion, Broken)
    for _ in range(5):
        assert cached.one(**ANOTHER)["rung"] == "constant"
        again = cached.one(**ROW)
        assert (again["rung"], again["probability"], again["cached"]) == ("champion", known["probability"], True)
    assert [*cached.endpoint.ladder.left_out] == ["champion"]
    assert cached.one(**ROW)["rung"] == "champion"


def test_each_version_of_a_rollout_has_its_own(cached: Served) -> None:
    standing = cached.endpoint.standing
    assert standing.previous
    cached.endpoint.standing = replace(standing, challenger=standing.previous, weight=1.0)
    champion, challenger = count(cached), count(cached, standing.previous)
    first, again = cached.one(**ROW), cached.one(**ROW)
    assert (again["version"], again["rung"], again["cached"]) == (first["version"], "challenger", True)
    assert (champion.asked, challenger.asked) == (1, 1)


def test_what_is_no_number_is_asked_again() -> None:
    cache, asked = AnswerCache(10_000), []

    def run(features: Floats) -> Floats:
        asked.append(len(features))
        return np.full(len(features), np.nan)

    for _ in range(2):
        scores, was = cache.scores("v", np.ones((1, 2)), run)
        assert np.isnan(scores).all()
        assert was == [False]
    assert asked == [1, 1]


def test_every_nan_is_one_and_zeros_are_two() -> None:
    cache, odd = AnswerCache(10_000), np.array([[1.0, np.nan]])
    odd.view(np.uint64)[0, 1] |= 7  # another bit pattern of NaN
    assert cache.scores("v", np.array([[1.0, np.nan]]), lambda rows: rows[:, 0])[1] == [False]
    assert cache.scores("v", odd, lambda rows: rows[:, 0])[1] == [True]
    assert cache.scores("v", np.array([[0.0, 0.0]]), lambda rows: 1 / (1 + rows[:, 0]))[1] == [False]
    assert cache.scores("v", np.array([[-0.0, 0.0]]), lambda rows: 1 / (1 + rows[:, 0]))[1] == [False]
    single = np.array([np.nan, 1], dtype=np.float32)
    other = single.copy()
    other.view(np.uint32)[0] |= 3
    assert digest_of({"a": single}, []) == digest_of({"a": other}, [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, np.nan]), min_size=2, max_size=2), min_size=1, max_size=4),
        ),
        max_size=12,
    ),
    st.integers(0, 6),
)
def test_whatever_is_asked_the_answers_are_the_model_s(questions: list[tuple[str, list[list[float]]]], entries: int) -> None:
    def model(version: str, rows: Floats) -> Floats:
        return np.array([hash((version, *("nan" if x != x else float(x).hex() for x in row))) / 1e9 for row in rows.tolist()])

    cache = AnswerCache(entries * ENTRY)
    for version, rows in questions:
        features = np.array(rows)
        known = cache.known(version, features)
        found, _ = cache.scores(version, features, lambda asked, version=version: model(version, asked))  # type: ignore[misc]
        assert found.tolist() == model(version, features).tolist()
        assert known is None or known == found.tolist()
        assert cache.bytes <= cache.most


def test_what_it_says_that_it_holds_is_not_less_than_it_holds() -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 4))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cache = AnswerCache(4_000_000)
    cache.scores("v", rows, lambda asked: asked[:, 0])
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held <= cache.bytes <= cache.most
    assert cache.bytes > 0.99 * cache.most
    assert cache.known("v", rows[-10:]) is not None  # the newest are there
    assert cache.known("v", rows[:1]) is None


def test_an_event_loop_waits_for_nobody_with_an_equal_question() -> None:
    cache, key = AnswerCache(1 << 20), b"k" * 20

    async def asked() -> str:
        with cache.turn(key):
            return "answered"

    with cache.turn(key):
        assert asyncio.run(asked()) == "answered"


def test_equal_questions_at_once_are_one_run() -> None:
    cache, begun, let = AnswerCache(10_000), threading.Event(), threading.Event()
    runs = []

    def run(features: Floats) -> Floats:
        runs.append(len(features))
        begun.set()
        let.wait(60)
        return np.asarray(features[:, 0] * 2)

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.scores, "v", np.array([[3.0]]), run) for _ in range(8)]
        begun.wait(60)
        let.set()
        answers = [one.result(60) for one in waiting]
    assert runs == [1]
    assert [scores.tolist() for scores, _ in answers] == [[6.0]] * 8
    assert sorted(was for _, (was,) in answers) == [False] + [True] * 7


def test_who_fails_holds_nobody_up() -> None:
    cache = AnswerCache(10_000)

    def fails(features: Floats) -> Floats:
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError):
            cache.scores("v", np.array([[3.0]]), fails)
    assert cache.scores("v", np.array([[3.0]]), lambda rows: rows[:, 0])[0].tolist() == [3.0]


def test_it_is_measured(cached: Served) -> None:
    cached.one(**ROW)
    cached.one(**ROW)
    cached.one(**ROW)
    told = exposition(of_endpoints({"late": cached.endpoint})).decode()
    assert 'tidemill_cache_hits_total{deployment="late"} 2.0' in told
    assert 'tidemill_cache_misses_total{deployment="late"} 1.0' in told
    assert f'tidemill_cache_bytes{{deployment="late"}} {float(ENTRY)}' in told
    cached.endpoint.cache = None
    assert "tidemill_cache" not in exposition(of_endpoints({"late": cached.endpoint})).decode()


@pytest.mark.parametrize("most", ["", "64", "0MB", "-1MB", "64 mb", "many", 64, None])
def test_a_size_that_is_none_is_refused(most: Any) -> None:
    with pytest.raises(DefinitionError, match=r"most: .* is not a size"):
        tm.Cache(most)


def test_a_deployment_takes_a_declared_cache(replayed: Replayed, serve: Serve) -> None:
    deployment = replayed[0].declared.get(tm.Deployment, "late")
    with pytest.raises(DefinitionError, match="the cache of deployment 'late' is '64MB'"):
        replace(deployment, cache="64MB")  # type: ignore[arg-type]
    object.__setattr__(deployment, "cache", tm.Cache("2 MiB"))
    try:
        found = serve().endpoint.cache
    finally:
        object.__setattr__(deployment, "cache", None)
    assert found is not None
    assert found.most == size("2 MiB") == 2 << 20


def texts() -> bytes:
    """The text that it is asked with."""
    return onnx_of([helper.make_node("Identity", ["a"], ["b"])], {"a": ("BYTES", ["n"])}, {"b": ("BYTES", ["n"])})


def test_a_bare_model_says_again_what_it_said_to_equal_tensors() -> None:
    model = CachedModel(OnnxModel(sums()), 100_000)
    one, two = np.array([[1, 2]], np.float32), np.array([[3, np.nan]], np.float32)

    def ask(a: Any, b: Any, *wanted: str) -> tuple[dict[str, Any], bool]:
        outputs, known = model.answer({"a": a, "b": b}, list(wanted))
        return {name: array.tolist() for name, array in outputs.items()}, known

    assert ask(one, one) == ({"sum": [[2, 4]], "difference": [[0, 0]]}, False)
    assert ask(one, one) == ({"sum": [[2, 4]], "difference": [[0, 0]]}, True)
    assert ask(one, one, "sum") == ({"sum": [[2, 4]]}, False)
    assert ask(two, one)[1] is False
    assert ask(one, two)[1] is False
    assert ask(two, one)[1] is True
    assert ask(np.vstack([one, two]), np.vstack([one, two]))[1] is False
    spoken = CachedModel(OnnxModel(texts()), 100_000)
    for words, known in ((["ab", "c"], False), (["a", "bc"], False), (["ab", "c"], True)):
        outputs, was = spoken.answer({"a": np.array(words, dtype=object)})
        assert (outputs["b"].tolist(), was) == (words, known)
    assert model.cache.bytes > sum(sys.getsizeof(array) for array in model.answer({"a": one, "b": one})[0].values())


def test_a_model_that_is_loaded_anew_begins_with_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(sums())
    one = Bare("m", "1", lambda: CachedModel(OnnxModel(file.read_bytes()), 100_000), lambda: 7)
    models = Repository([one])
    models.load("m")
    asked = {name: np.array([[1, 2]], np.float32) for name in "ab"}
    assert isinstance(one.model, CachedModel)
    assert [one.model.answer(asked)[1] for _ in range(2)] == [False, True]
    models.load("m")
    assert one.model.answer(asked)[1] is False


def test_serve_takes_a_size_and_tells_what_it_saved(tmp_path: Path) -> None:
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    body = b'{"inputs":[%s]}' % b",".join(b'{"name":"%s","shape":[1,2],"datatype":"FP32","data":[1,2]}' % name for name in (b"a", b"b"))
    with started("serve", str(file), "--port", "0", "--cache", "1MB", "--log", str(tmp_path / "log"), "--json") as (_, url):
        said = [urllib.request.urlopen(f"{url}/v2/models/sums/infer", body).read() for _ in range(3)]
        told = urllib.request.urlopen(f"{url}/metrics").read().decode()
    assert [b'"cached":"true"' in one for one in said] == [False, True, True]
    lines = [json.loads(line) for line in (tmp_path / "log" / "sums.jsonl").read_text().splitlines()]
    assert [line.get("cached") for line in lines] == [None, True, True]
    assert len({line["id"] for line in lines}) == 3
    assert 'tidemill_cache_hits_total{model="sums"} 2.0' in told
    assert 'tidemill_inference_requests_total{model="sums",version="1"} 3.0' in told


@pytest.mark.parametrize("most", ["lots", "0MB"])
def test_serve_refuses_a_size_that_is_none(tmp_path: Path, tidemill: Command, most: str) -> None:
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    said = tidemill("serve", str(file), "--cache", most)
    assert said.returncode != 0
    assert f"--cache: '{most}' is not a size" in said.stderr


@pytest.mark.parametrize("within", [False, True])
def test_serve_refuses_to_keep_what_a_model_draws(tmp_path: Path, tidemill: Command, within: bool) -> None:
    """Also where a branch of it does."""
    draw = helper.make_node("RandomUniformLike", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    branch = helper.make_graph([draw], "branch", [], [output])
    nodes = [yes, helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)] if within else [draw]
    tensors = {"x": ("FP32", ["n", 1])}, {"y": ("FP32", ["n", 1])}
    file = tmp_path / "dice.onnx"
    file.write_bytes(onnx_of(nodes, *tensors))
    said = tidemill("serve", str(file), "--cache", "1MB")
    assert (said.returncode, "'dice' draws random numbers (RandomUniformLike)" in said.stderr, "leave out --cache" in said.stderr) == (
        2,
        True,
        True,
    )
    assert (
        OnnxModel(onnx_of([helper.make_node("Identity", ["x"], ["RandomUniform"])], tensors[0], {"RandomUniform": tensors[1]["y"]})).draws
        == ""
    )
