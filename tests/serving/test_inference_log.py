"""The log of a bare model: what was asked and answered, to be sent again; whole lines, whatever happens to the disk and the process."""

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from conformance.oip.server import Server
from disks import small_disk
from processes import other, served
from serving.test_oip import Asked, echo, sums, tensor
from tidemill.core import StoreError
from tidemill.models import OnnxModel
from tidemill.serving import Begun, Inference, InferenceLog, Repository, Served, asked_of, finished

PATH = "/v2/models/sums/infer"
SENT = [tensor("a", "FP32", [1, 2], [10, 20]), tensor("b", "FP32", [1, 2], [1, 0.1])]


class Logged(Asked):
    """Bare models with a log."""

    def __init__(self, folder: Path, **models: bytes) -> None:
        self.folder = folder
        made = [
            Served(name, "1", lambda data=data: OnnxModel(data), lambda: 7_000, log=InferenceLog(folder, name))
            for name, data in models.items()
        ]  # type: ignore[misc]
        for one in made:
            one.model = one.load()
        self.inference = Inference(Repository(made), "")

    def lines(self, name: str = "sums") -> list[Any]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_bytes().splitlines()]


def test_a_line_has_what_was_asked_and_what_was_told(tmp_path: Path) -> None:
    ask, plain = Logged(tmp_path, sums=sums()), Asked(sums=sums())
    status, told, _ = ask("POST", PATH, {"inputs": SENT, "id": "mine", "outputs": [{"name": "difference"}]})
    (line,) = ask.lines()
    assert (status, line["id"], line["asked"], asked_of(line["id"])) == (200, told["parameters"]["prediction_id"], 7_000, 7_000)
    assert (line["model"], line["version"], line["request"]) == ("sums", "1", "mine")
    assert line["inputs"] == SENT
    assert line["outputs"] == told["outputs"] == plain("POST", PATH, {"inputs": SENT, "outputs": [{"name": "difference"}]})[1]["outputs"]
    assert 0 <= line["latency_us"] < 60_000_000
    assert ask("POST", PATH, {"inputs": line["inputs"]})[1]["outputs"][1:] == line["outputs"], "it may be sent again"
    assert ask("POST", PATH, b'{"inputs": []}')[0] == 400
    assert len(ask.lines()) == 2, "what is refused is not answered"
    assert "request" not in ask.lines()[1]


def test_however_a_request_is_written_it_is_one_line(tmp_path: Path) -> None:
    ask = Logged(tmp_path, sums=sums(), texts=echo("BYTES", ["n"]))
    for body in (json.dumps({"inputs": SENT}, indent=1), json.dumps({"inputs": SENT}).replace(",", ",\r"), json.dumps({"inputs": SENT})):
        assert ask("POST", PATH, body.encode())[0] == 200
    assert [line["inputs"] for line in ask.lines()] == [SENT] * 3
    texts = ["a\nb", "\u2028\x85", 'é"\\', ""]
    assert ask("POST", "/v2/models/texts/infer", {"inputs": [tensor("x", "BYTES", [4], texts)]})[0] == 200
    (line,) = (tmp_path / "texts.jsonl").read_bytes().split(b"\n")[:-1]
    assert [json.loads(line)[part][0]["data"] for part in ("inputs", "outputs")] == [texts, texts]


def test_raw_tensors_are_logged_as_numbers(tmp_path: Path) -> None:
    ask = Logged(tmp_path, sums=sums())
    rows = np.array([[1.5, np.nan], [0.1, -np.inf]], dtype="<f4")
    given = [{"name": name, "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}} for name in ("a", "b")]
    head = json.dumps({"inputs": given, "parameters": {"binary_data_output": True}}).encode()
    status, _, raw = ask("POST", PATH, head + rows.tobytes() * 2, inference_header_content_length=str(len(head)))
    assert status == 200
    (line,) = ask.lines()
    data = [1.5, None, float(np.float32(0.1)), "-inf"]
    assert line["inputs"] == [{"name": name, "datatype": "FP32", "shape": [2, 2], "data": data} for name in ("a", "b")]
    assert line["outputs"][0]["data"] == [3.0, None, float(np.float32(0.1) * 2), "-inf"]
    assert np.frombuffer(raw[-32:-16], "<f4")[3] == -np.inf
    again = ask("POST", PATH, {"inputs": line["inputs"]})[1]
    assert again["outputs"] == line["outputs"] == ask.lines()[1]["outputs"], "it may be sent again"
    assert ask.lines()[1]["inputs"] == line["inputs"]


@pytest.mark.parametrize("data", [None, [9, 9]])
def test_a_line_has_the_tensors_that_were_asked_and_nothing_else(tmp_path: Path, data: Any) -> None:
    ask = Logged(tmp_path, sums=sums())
    said: dict[str, Any] = {"binary_data_size": 8, "note": "customer 7"}
    raw, plain = {**SENT[0], "parameters": said, "data": data}, {**SENT[1], "parameters": {"note": [["deep"]]}, "more": 1}
    head = json.dumps({"inputs": [raw, plain]}).encode()
    status, told, _ = ask("POST", PATH, head + np.array([10, 20], "<f4").tobytes(), inference_header_content_length=str(len(head)))
    assert status == 200, told
    (line,) = ask.lines()
    assert line["inputs"] == SENT


@pytest.mark.parametrize(
    ("data", "logged"),
    [
        ([14, 20], "[14.0, 20.0]"),
        ([[14, 20]], "[14.0, 20.0]"),
        ([[14.0, 20]], "[14.0, 20.0]"),
        ([14.0, 20], "[14.0, 20]"),
        ([1e30, 20], "[1e+30, 20.0]"),
        (["14", 20], ""),
    ],
)
def test_floats_are_floats_in_the_log_however_they_are_spelled(tmp_path: Path, data: Any, logged: str) -> None:
    ask = Logged(tmp_path, sums=sums())
    status, told, _ = ask("POST", PATH, {"inputs": [tensor("a", "FP32", [1, 2], data), tensor("b", "FP32", [1, 2], [0.1, 1e-05])]})
    assert status == (200 if logged else 400), told
    if logged:
        (line,) = ask.lines()
        assert [repr(one["data"]) for one in line["inputs"]] == [logged, "[0.1, 1e-05]"]
        assert ask("POST", PATH, {"inputs": line["inputs"]})[1]["outputs"] == told["outputs"]


def test_many_lines_have_one_type_for_whoever_reads_them(tmp_path: Path) -> None:
    ask = Logged(tmp_path, sums=sums())
    for data in ([14, 20], [[14.9, 20]], [None, 1.5], [14.9, 20]):
        assert ask("POST", PATH, {"inputs": [tensor("a", "FP32", [1, 2], data), SENT[1]]})[0] == 200
    whole, others = (tmp_path / "sums.jsonl").read_bytes().split(b"\n", 1)
    (tmp_path / "many.jsonl").write_bytes((whole + b"\n") * 21_600 + others)
    lines = "read_json(?, format='newline_delimited', ignore_errors=true)"
    last = duckdb.execute(f"SELECT inputs[1].data FROM {lines}", [str(tmp_path / "many.jsonl")]).fetchall()[-3:]
    assert last == [([14.9, 20.0],), ([None, 1.5],), ([14.9, 20.0],)]


def test_what_is_said_beside_a_tensor_however_deep_costs_no_other_request_its_answer(tmp_path: Path) -> None:
    ask = Logged(tmp_path, sums=sums())
    (one,) = ask.inference.models
    deep = b"[" * 900 + b"]" * 900
    bodies = [json.dumps({"inputs": SENT}).encode()] * 4
    bodies[0] = bodies[0].replace(b'"name"', b'"parameters": {"a": %b}, "name"' % deep, 1)
    quick = ask.inference.quick(b"POST", PATH.encode(), 100)
    assert quick is not None
    begun = [quick({}, body, False) for body in bodies]
    replies = finished([found for found in begun if isinstance(found, Begun)])
    assert [reply.status for reply in replies] == [200] * 4
    assert [line["inputs"] for line in ask.lines()] == [SENT] * 4
    assert one.counts.read()["failed"] == 0


def test_half_a_line_that_could_not_be_taken_back_is_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = InferenceLog(tmp_path, "sums")
    log.write([b'{"id":1}'])
    real = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda file, data: real(file, data[:4]))
        broken.setattr(os, "ftruncate", lambda file, size: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StoreError, match="Input/output error"):
            log.write([b'{"id":2}'])
    log.write([b'{"id":3}'])
    assert log.path.read_bytes() == b'{"id":1}\n{"id\n{"id":3}\n'
    os.truncate(log.path, 12)  # by somebody else, in the midst of a line
    log._look = 0.0  # a moment later
    log.write([b'{"id":4}'])
    assert log.path.read_bytes() == b'{"id":1}\n{"i\n{"id":4}\n'
    log.close()


def test_a_full_disk_acknowledges_nothing_and_leaves_nothing_of_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        ask, known = Logged(disk, sums=sums()), 0
        for _ in range(1_000):
            status, told, _ = ask("POST", PATH, {"inputs": SENT})
            if status != 200:
                break
            known += 1
        assert (status, "the log of requests" in told["error"], "free some space" in told["error"]) == (503, True, True)
        assert len(ask.lines()) == known > 100
        stats = ask("GET", "/v2/models/sums/stats")[1]["model_stats"][0]["inference_stats"]
        assert (stats["success"]["count"], stats["fail"]["count"]) == (known, 1)


def test_a_server_whose_disk_is_full_says_so_and_is_not_ready_until_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    with small_disk(tmp_path / "disk", "1m") as disk:
        arguments = ("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--log", str(disk), "--json")
        with served(*arguments) as (process, url):

            def ask(path: str, body: bytes | None = None) -> tuple[int, str | None, str]:
                try:
                    with urllib.request.urlopen(url + path, body, timeout=20) as answer:
                        return answer.status, answer.headers["retry-after"], answer.read().decode()
                except urllib.error.HTTPError as error:
                    return error.code, error.headers["retry-after"], error.read().decode()

            body, paths = json.dumps({"inputs": SENT}).encode(), ("/v2/health/ready", "/v2/models/sums/ready")
            assert [ask(PATH, body)[0], *(ask(path)[0] for path in paths)] == [200] * 3
            for _ in range(2):
                with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)
                while (refused := ask(PATH, body))[0] == 200:
                    pass
                assert refused[:2] == (503, "1")
                assert ask(PATH, body)[0] == 503
                for path in paths:
                    status, later, told = ask(path)
                    assert (status, later, "log cannot be written" in told) == (503, "1", True)
                (disk / "filler").unlink()
                size = (disk / "sums.jsonl").stat().st_size
                assert [ask(path)[0] for path in paths] == [200] * 2, "though nobody asks the model"
                assert (disk / "sums.jsonl").stat().st_size == size
                assert ask(PATH, body)[0] == 200
            process.terminate()
            _, said = process.communicate(timeout=30)
        told = [json.loads(line) for line in said.splitlines()]
        assert [(line["level"], line["log"]) for line in told] == [(level, str(disk / "sums.jsonl")) for level in ("error", "warning")] * 2
        assert told[0]["message"] == "cannot be written: what is to be in it is refused"
        assert told[0]["error"] in ("No space left on device", "the disk took only a part")
        assert told[1]["message"] == "is written again"


def test_what_is_tried_leaves_a_cut_line_a_line_of_its_own_and_nothing_to_write_proves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "sums.jsonl").write_bytes(b'{"id":"old"}\n{"id":"cu')  # a process was killed in the midst of it
        log = InferenceLog(disk, "sums")
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StoreError):
            log.write([b"x" * 8192])
        log.write([])
        assert not log.is_writable
        (disk / "filler").unlink()
        assert log.is_writable
        log.write([b'{"id":"new"}'])
        assert (disk / "sums.jsonl").read_bytes() == b'{"id":"old"}\n{"id":"cu\n{"id":"new"}\n'


def test_each_process_has_a_file_of_its_own_and_leaves_it_to_the_next(tmp_path: Path) -> None:
    first, second = InferenceLog(tmp_path, "sums"), InferenceLog(tmp_path, "sums")
    with other(KILLED, tmp_path) as killed:
        assert killed.says() == "sums+3.jsonl"
        killed.kill()
    second.write([b"2"])
    first.write([b"1"])
    first.close()
    again, third = InferenceLog(tmp_path, "sums"), InferenceLog(tmp_path, "sums")
    again.write([b"again"])
    third.write([b"whole"])
    (tmp_path / "sums+2.jsonl").rename(tmp_path / "away.jsonl")
    (tmp_path / "sums.jsonl").unlink()
    second._look = again._look = 0.0  # a moment later
    second.write([b"anew"])
    again.write([b"anew too"])
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found.pop("away.jsonl") == b"2\n"
    assert found.pop("sums+3.jsonl") == b'{"id":"cu\nwhole\n'
    assert found == {"sums.jsonl": b"anew\n", "sums+2.jsonl": b"anew too\n"}
    for one in (second, again, third):
        one.close()


KILLED = """
import sys
from pathlib import Path
from tidemill.serving import InferenceLog
log = InferenceLog(Path(sys.argv[1]), "sums")
open(log.path, "wb").write(b'{"id":"cu')
print(log.path.name, flush=True)
sys.stdin.read()
"""


def test_a_log_that_is_closed_takes_nothing_and_touches_nothing_of_others(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, "sums")
    log.close()
    with (tmp_path / "other").open("wb") as other:  # by the number that the log had
        log.close()
        with pytest.raises(StoreError, match="is closed"):
            log.write([b"{}"])
        other.write(b"still open")
    assert (tmp_path / "other").read_bytes() == b"still open"
    assert (tmp_path / "sums.jsonl").read_bytes() == b""


def test_a_name_leads_to_a_file_in_the_folder(tmp_path: Path) -> None:
    for name in ("../up", "a/b", "..", "é"):
        assert InferenceLog(tmp_path / "log", name).path.parent == tmp_path / "log"
        assert InferenceLog(tmp_path / "log", name).path.exists()


def test_what_was_answered_survives_a_kill_and_others_read_it(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    with served("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--log", str(tmp_path / "log"), "--json") as (process, url):
        server = Server(url, "sums")
        told = [server.infer(lambda body: {"inputs": SENT}).json["parameters"]["prediction_id"] for _ in range(20)]
        process.kill()
        process.wait()
    with (tmp_path / "log" / "sums.jsonl").open("ab") as file:
        file.write(b'{"id":"cut')
    lines = "read_json(?, format='newline_delimited', ignore_errors=true)"
    query = f"SELECT id, asked, inputs[1].data, outputs[2].data FROM {lines} WHERE version = '1'"
    found = duckdb.execute(query, [str(tmp_path / "log" / "*.jsonl")]).fetchall()
    assert [one[0] for one in found] == told
    assert all(later[1] >= earlier[1] for earlier, later in pairwise(found))
    assert found[0][2:] == ([10, 20], [9, pytest.approx(19.9)])


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the log of requests"):
        InferenceLog(tmp_path / "file" / "log", "sums")
