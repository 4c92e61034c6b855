"""What comes in one turn of the loop is answered together, and each as if it had come alone."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from disks import small_disk
from serving.test_oip import echo, onnx_of, sums, tensor
from tidemill.models import OnnxModel
from tidemill.models.onnx import operators
from tidemill.serving import CachedModel, Counters, Inference, InferenceLog, Reply, Repository, Served, repository
from tidemill.web.direct import led
from tidemill.web.metrics import Traffic
from tidemill.web.turn import AGAIN, LONE, Gathered, Turn
from web.test_wire import Memory


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no model is taken for a slow one, which leaves the loop."""
    monkeypatch.setattr(repository, "SLOW", 60_000_000_000)


class Server:
    """Models asked below the framework; what is asked in one turn is a list."""

    def __init__(self, *models: Served) -> None:
        for one in models:
            one.model = one.load()
        self.turn = Turn(lambda end: None)
        self.inference = Inference(Repository(models), "")
        self.quick = led(self.inference.quick, Traffic(Counters()), self.turn)

    def __call__(self, asked: Sequence[tuple[str, Any]]) -> list[tuple[int, Any]]:
        answers: list[bytes] = []
        for name, body in asked:
            sent = json.dumps(body).encode()
            headers = {b"content-length": b"%d" % len(sent), b"host": b"localhost"}
            call = self.quick(b"POST", f"/v2/models/{name}/infer".encode(), headers)
            assert call is not None
            assert call({}, sent, answers.append)
        assert not answers, "before the turn ends"
        self.turn.settle()
        found = [one.partition(b"\r\n\r\n") for one in answers]
        return [(int(head[9:12]), json.loads(body)) for head, _, body in found]


def served(name: str, data: bytes, log: Path | None = None) -> Served:
    return Served(name, "1", lambda: OnnxModel(data), lambda: 7_000, log=InferenceLog(log, name) if log else None)


def trees(kind: Any, labels: int = 2) -> tuple[bytes, Any]:
    chance = np.random.default_rng(len(kind.__name__))
    rows = chance.normal(size=(300, 5)).astype(np.float32)
    label = np.digitize(rows[:, 0] * rows[:, 1] + rows[:, 2], np.linspace(-1, 1, labels + 1)[1:-1])
    options = {"zipmap": False} if issubclass(kind, ClassifierMixin) else None
    return to_onnx(kind(random_state=0).fit(rows, label), rows[:1], options=options).SerializeToString(), rows


def of_rows(rows: Any) -> dict[str, Any]:
    return {"inputs": [tensor("X", "FP32", list(rows.shape), rows.ravel().tolist())]}


def linear() -> bytes:
    """Sums of products, which are made in blocks of rows."""
    rows = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    made = to_onnx(LogisticRegression().fit(rows, rows[:, 0] > 0), rows[:1], options={"zipmap": False})
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("kind", [RandomForestClassifier, HistGradientBoostingClassifier, GradientBoostingRegressor])
@pytest.mark.parametrize("labels", [2, 7])
def test_trees_answer_a_row_to_the_bit_whoever_is_asked_with_it(kind: Any, labels: int) -> None:
    data, rows = trees(kind, labels)
    model, chance = OnnxModel(data), np.random.default_rng(0)
    assert model.rowwise
    alone = [model.run({"X": rows[i : i + 1]}) for i in range(len(rows))]
    for many in (2, 3, 7, 16, 50, 64, 200, 300):
        chosen = chance.integers(0, len(rows), many)
        for name, together in model.run({"X": rows[chosen]}).items():
            assert together.tobytes() == b"".join(alone[i][name].tobytes() for i in chosen)


def identity(inputs: dict[str, Any], outputs: dict[str, Any], **constants: Any) -> bytes:
    nodes = [helper.make_node("Identity", [name], [out]) for name, out in zip([*inputs, *constants], outputs, strict=True)]
    made = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    return onnx_of(nodes, inputs, outputs, made)


ROW = ("FP32", ["n", 2])
MIXED = {
    "products": linear(),
    "widths": echo("FP32"),
    "no rows": echo("FP32", [2, 3]),
    "one number": echo("FP32", []),
    "texts": echo("BYTES", ["n", 2]),
    "one row": echo("FP32", ["n"]),
    "a constant": identity({"x": ROW}, {"y": ROW, "k": ("FP32", [3])}, c=[7, 8, 9]),
    "a constant number": identity({"x": ROW}, {"y": ROW, "k": ("FP32", [])}, c=7),
    "sums": sums(),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_may_mix_rows_or_round_by_their_number_is_asked_alone(name: str) -> None:
    assert not OnnxModel(MIXED[name]).rowwise


def test_operators_are_those_of_the_file() -> None:
    assert operators(sums()) == {"Add", "Sub"}
    assert operators(linear()) == {"ai.onnx.ml.LinearClassifier"}
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(linear())
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        operators(bytes(damaged[: random.integers(0, len(damaged))]))
    assert operators(b"\xff" * 100_000) == set()


def test_any_requests_of_a_turn_are_answered_as_each_is_alone(tmp_path: Path) -> None:
    forest, rows = trees(RandomForestClassifier, 3)
    pair = identity({"a": ROW, "b": ROW}, {"y": ROW, "z": ROW})
    made = {"forest": forest, "boosted": trees(HistGradientBoostingClassifier)[0], "linear": linear(), "pair": pair, "logged": forest}
    made |= {name: MIXED[name] for name in ("one number", "a constant", "a constant number", "sums")}
    server, lone = (
        Server(
            *[served(name, data, tmp_path / part if name == "logged" or name in MIXED else None) for name, data in made.items()],
            Served("cached", "1", lambda: CachedModel(OnnxModel(forest), 1 << 20), lambda: 7_000),
        )
        for part in ("together", "alone")
    )
    chance = np.random.default_rng(5)

    def one() -> tuple[str, Any]:
        name = str(chance.choice([*made, "logged", "cached"]))
        sizes = chance.integers(0, 4, 2) if chance.random() < 0.2 else (1, 1)
        if name in ("sums", "pair"):  # where the sizes differ, one row is added to each of several
            parts = [tensor(key, "FP32", [int(size), 2], [chance.normal()] * 2 * int(size)) for key, size in zip("ab", sizes, strict=True)]
            return name, {"inputs": parts, "outputs": [{"name": {"sums": "sum", "pair": "z"}[name]}] if chance.random() < 0.5 else []}
        if name in MIXED:
            shape = [] if name == "one number" else [int(sizes[0]), 2]
            return name, {"inputs": [tensor("x", "FP32", shape, [chance.normal()] * prod(shape))]}
        body = of_rows(rows[chance.integers(0, len(rows), int(sizes[0]))])
        if chance.random() < 0.1:
            body["inputs"][0][str(chance.choice(["shape", "datatype", "data"]))] = [9]
        return name, body | ({"id": "mine"} if chance.random() < 0.2 else {}) | ({"parameters": {}} if chance.random() < 0.2 else {})

    for _ in range(100):
        turn = [one() for _ in range(chance.integers(1, 20))]
        found, expected = server(turn), [answer for single in turn for answer in lone([single])]
        for _, told in (*found, *expected):
            told.get("parameters", {}).pop("prediction_id", "")
        assert found == expected
    lines = [[json.loads(line) for line in (tmp_path / part / "logged.jsonl").read_bytes().splitlines()] for part in ("together", "alone")]
    assert len({line["id"] for line in lines[0]}) == len(lines[0]) > 50
    assert [[line["inputs"], line["outputs"]] for line in lines[0]] == [[line["inputs"], line["outputs"]] for line in lines[1]]
    noise = dict.fromkeys(("run", "whole", "runs"), 0)
    told, counted = ([one.counts.read() | noise for one in each.inference.models] for each in (server, lone))  # type: ignore[attr-defined]
    assert told == counted


def test_rows_of_several_requests_are_one_run() -> None:
    server = Server(served("pair", identity({"a": ROW, "b": ROW}, {"y": ROW, "z": ROW})), served("linear", linear()))
    body = {"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}
    server([("pair", body)] * 5 + [("linear", of_rows(np.zeros((1, 5))))] * 3 + [("pair", body | {"outputs": [{"name": "y"}]})] * 2)
    counted = [(one.counts.plain()["inference_count"], one.counts.plain()["execution_count"]) for one in server.inference.models]
    assert counted == [(7, 2), (3, 3)]


def test_where_the_disk_is_full_who_is_told_an_answer_has_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        server = Server(served("sums", sums(), disk))
        body = {"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}
        told = [answer for _ in range(60) for answer in server([("sums", body)] * 10)]
        lines = [json.loads(line)["id"] for line in (disk / "sums.jsonl").read_bytes().splitlines()]
        assert [one["parameters"]["prediction_id"] for status, one in told if status == 200] == lines
        assert {status for status, _ in told} == {200, 503}
        assert [one.counts.read()["failed"] for one in server.inference.models] == [sum(status == 503 for status, _ in told)]


def test_what_escapes_is_told_to_who_asked_that_model_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> int:
        raise ZeroDivisionError("a bug")

    one, other = served("sums", sums(), tmp_path), served("other", sums(), tmp_path)
    server = Server(one, other)
    one.clock = broken
    body = {"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}
    assert [status for status, _ in server([("sums", body), ("other", body)] * 3)] == [500, 200] * 3
    assert "ZeroDivisionError: a bug" in caplog.text
    assert [model.counts.read()["failed"] for model in (one, other)] == [3, 0]


def test_who_comes_alone_is_answered_at_once_until_others_come() -> None:
    turn, server = list[Any](), Server(served("sums", sums()))
    server.turn = Turn(turn.append)
    server.quick = led(server.inference.quick, Traffic(Counters()), server.turn)
    answers, sent = list[bytes](), json.dumps({"inputs": [tensor(name, "FP32", [1, 2], [1, 2]) for name in "ab"]}).encode()
    call = server.quick(b"POST", b"/v2/models/sums/infer", {b"content-length": b"%d" % len(sent), b"host": b"localhost"})
    assert call is not None

    def read(*, over: bool = True) -> None:
        """A connection reads a request; perhaps the turn is over then."""
        server.turn.reads = True
        assert call({}, sent, answers.append)
        server.turn.end_to_read()
        while over and turn:
            turn.pop()()

    for _ in range(LONE):
        assert not server.turn.alone
        read()
    for many in range(AGAIN - LONE):
        assert server.turn.alone
        read(over=False)
        assert (len(answers), turn) == (LONE + many + 1, [])
    assert not server.turn.alone
    read(over=False)
    read()
    assert not server.turn.alone, "there were two"
    assert len(answers) == AGAIN + 2
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_one_that_cannot_be_told_keeps_no_other_from_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        aborted = False

        def write(self, data: bytes) -> None:
            raise OSError("gone")

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            self.aborted = True

    ends, told, turn = list[Any](), list[Reply](), Turn(lambda end: ends.append(end))
    broken, sound = Broken(), Memory()
    first, second = Gathered(broken, turn), Gathered(sound, turn)
    turn.answer(Reply(200, b""), lambda reply: 1 / 0)  # type: ignore[arg-type, return-value]
    turn.answer(Reply(200, b""), told.append)
    first.write(b"one")
    second.write(b"two")
    ends.pop()()
    assert (len(told), broken.aborted, sound.sent) == (1, True, b"two")
    assert "ZeroDivisionError" in caplog.text
