"""When something fails: the next rung answers and says so, a full disk acknowledges nothing, and golden cases guard a start."""

import fcntl
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidemill as tm
from disks import small_disk
from serving.conftest import Serve, Served
from tidemill.core import Instants, Ref, Refused, StoreError, Unavailable, UnknownName, instant, pack
from tidemill.features import Matrix, MemoryOnline, Reader, Requests
from tidemill.features.online import Asked, Stored
from tidemill.ledger import Branch, Ledger
from tidemill.loop import State
from tidemill.models import Predictor, load_model
from tidemill.registry import version, versions
from tidemill.serving import Answer, AnswerLog, Ladder, appending, find_answers, read_log
from tidemill.serving import open_endpoint as open_serving
from tidemill.serving.appending import Lines
from tidemill.serving.ladder import Circuit
from tidemill.session.session import open_endpoint, standing_of
from tidemill.store import MemoryBlobs
from toy import Toy, open_toy

ROW: dict[str, Any] = {"rows": [{"parcel": "p118-003"}], "at": "2024-04-30T00:00:00Z"}


class Broken(Predictor):
    """A model that cannot answer."""

    def predict(self, features: Any) -> Any:
        raise MemoryError("no room for this")


class Wordless(Predictor):
    """A model that has no number to give, as a sum over infinite features has none."""

    def predict(self, features: Any) -> Any:
        return np.full(len(features), np.nan)


class Slow(Predictor):
    """A model that answers when it is let."""

    def __init__(self, other: Predictor) -> None:
        self.signature, self.other, self.let = other.signature, other, threading.Event()

    def predict(self, features: Any) -> Any:
        self.let.wait(60)
        return self.other.predict(features)


def break_version(served: Served, label: tuple[str, str] | None, kind: type[Predictor] = Broken) -> None:
    assert label is not None
    found = served.endpoint.predictors[label[1]]
    broken = object.__new__(kind)
    broken.signature = found.signature
    served.endpoint.predictors[label[1]] = broken


def test_all_is_well_the_champion_answers(served: Served) -> None:
    answer = served.one(**ROW)
    assert (answer["rung"], answer["version"]) == ("champion", served.endpoint.standing.champion[0])


@pytest.mark.parametrize("how", [Broken, Wordless])
def test_when_the_champion_fails_the_version_before_it_answers(served: Served, how: type[Predictor]) -> None:
    standing = served.endpoint.standing
    assert standing.previous is not None
    expected = served.endpoint.predictors[standing.previous[1]]
    break_version(served, standing.champion, how)
    answer = served.one(**ROW, explain=True)
    assert (answer["rung"], answer["version"]) == ("previous version", standing.previous[0])
    assert 0 < answer["probability"] < 1
    assert served.endpoint.ladder.counts == {"champion: failed": 1, "previous version": 1}
    assert served.logged[0]["rung"] == "previous version"
    assert expected.signature.features == served.endpoint.predictors[standing.champion[1]].signature.features


def test_when_both_fail_the_constant_answers(served: Served) -> None:
    standing = served.endpoint.standing
    break_version(served, standing.champion)
    break_version(served, standing.previous)
    answer = served.one(**ROW)
    assert (answer["rung"], answer["version"], answer["probability"]) == ("constant", "", 0.3)


def test_without_a_rung_left_there_is_no_answer_and_none_is_logged(served: Served) -> None:
    served.endpoint.fallback = []
    break_version(served, served.endpoint.standing.champion)
    status, answer = served.ask(**ROW)
    assert status == 503
    assert "no rung of deployment 'late' could answer" in answer["error"]
    assert served.logged == []


def test_a_champion_that_is_too_slow_is_not_waited_for(served: Served) -> None:
    standing = served.endpoint.standing
    slow = Slow(served.endpoint.predictors[standing.champion[1]])
    served.endpoint.predictors[standing.champion[1]] = slow
    served.endpoint.ladder.timeout = 50_000
    answer = served.one(**ROW)
    assert answer["rung"] == "previous version"
    assert served.endpoint.ladder.counts["champion: too late"] == 1
    slow.let.set()


def test_slow_answers_do_not_block_those_that_come_after(served: Served) -> None:
    """More stuck calls than the endpoint has threads: the ladder still answers, by a rung that can."""
    champion = served.endpoint.standing.champion
    slow = Slow(served.endpoint.predictors[champion[1]])
    served.endpoint.predictors[champion[1]] = slow
    served.endpoint.ladder.timeout = 20_000
    rungs = [served.one(**ROW)["rung"] for _ in range(12)]
    slow.let.set()
    assert set(rungs) <= {"previous version", "constant"}


class DeadStore(MemoryOnline):
    """An online store whose disk is gone."""

    def read(self, asked: Sequence[Asked]) -> list[Stored]:
        raise StoreError("the disk is gone")


def test_a_dead_store_leads_to_the_offline_path_and_says_so(serve: Serve) -> None:
    answer = serve(DeadStore()).one(**ROW)
    assert (answer["rung"], answer["features_from"]) == ("champion", "offline")
    assert "the online store cannot be read" in answer["note_features"]
    assert {**serve().one(**ROW), "note_features": "", "id": ""} == {**answer, "note_features": "", "id": ""}


class DeadReader(Reader):
    """Views whose every path is gone."""

    def read(self, requests: Requests, at: Instants) -> Matrix:
        raise StoreError("the disk is gone")


def test_where_no_features_can_be_read_the_constant_answers_and_says_so(serve: Serve) -> None:
    served = serve()
    reader = served.endpoint.reader
    served.endpoint.rows = replace(served.endpoint.rows, reader=DeadReader(reader.views, reader.logs, reader.versions))
    answer = served.one(**ROW)
    assert (answer["rung"], answer["features_from"], answer["probability"]) == ("constant", "none", 0.3)
    served.endpoint.fallback = []
    status, answer = served.ask(**ROW)
    assert status == 503
    assert "the disk is gone" in answer["error"]


# ── the rollout ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rollout_sends_its_share_and_keeps_a_courier_on_one_version(parcels: Path) -> None:
    """A replay that ends in the middle of a canary is served with its weight, as the replay would have gone on."""
    toy = open_toy(parcels)
    first = next(one.at for one in toy.decisions(toy.replay(), "canary"))
    from tidemill.core import show

    branch = toy.replay(end=show(first))
    standing = standing_of(toy.policy.monitor.deployment, branch)
    state = State.of(branch.state)
    assert state.candidate is not None
    assert (standing.challenger, standing.weight, standing.sticky_by) == (
        (state.candidate.version.label, state.candidate.version.digest),
        0.1,
        "courier",
    )
    endpoint = open_endpoint(toy.ledger, toy.declared, branch)
    endpoint.standing = replace(standing, weight=0.5)
    requests = toy.built.examples.requests
    rows = np.flatnonzero((requests.at >= first) & (requests.at < first + 3 * 86_400_000_000))
    couriers = requests.texts["courier"].take(rows).texts()
    keys = [{"parcel": key.decode()} for key in requests.keys[rows].tolist()]
    answers = endpoint.answer(keys, requests.at[rows].tolist())
    versions: dict[str, set[str]] = {}
    for courier, answer in zip(couriers, answers, strict=True):
        if courier is not None:
            versions.setdefault(courier, set()).add(answer.version)
        assert answer.rung == ("challenger" if answer.version == state.candidate.version.label else "champion")
    assert all(len(found) == 1 for found in versions.values())
    assert set().union(*versions.values()) == {state.champion.label, state.candidate.version.label}
    share = sum(answer.rung == "challenger" for answer in answers)
    endpoint.ladder.counts.clear()
    broken = object.__new__(Broken)
    broken.signature = endpoint.predictors[state.candidate.version.digest].signature
    endpoint.predictors[state.candidate.version.digest] = broken
    alone = endpoint.answer(keys, requests.at[rows].tolist())
    assert {(one.rung, one.version) for one in alone} == {("champion", state.champion.label)}, "a canary that fails takes nobody down"
    assert endpoint.ladder.counts == {"challenger: failed": share, "champion": len(keys)}
    assert all(two.probability == one.probability for one, two in zip(answers, alone, strict=True) if one.rung == "champion")


def test_weights_share_the_keys_between_versions_and_one_that_fails_takes_nobody_down(served: Served, replayed: tuple[Toy, Branch]) -> None:
    toy, branch = replayed
    first, before = (version(toy.ledger, branch.id, f"trees/{number}") for number in (1, 2))
    weights = [((one.label, one.digest), weight) for one, weight in ((before, 0.3), (first, 0.2))]
    standing = replace(served.endpoint.standing, previous=None, weighted=weights)
    champion = standing.champion[0]
    endpoint = replace(
        served.endpoint,
        standing=standing,
        predictors=served.endpoint.predictors
        | {one.digest: load_model(toy.ledger, toy.ledger.artifact_of("model", one.digest)) for one in (first, before)},
        ladder=Ladder("late"),
    )
    assert endpoint.standing.shares == pytest.approx({champion: 0.5, "trees/2": 0.3, "trees/1": 0.2})
    requests = toy.built.examples.requests.take(range(400))
    keys, at = [{"parcel": key.decode()} for key in requests.keys.tolist()], requests.at.tolist()
    answers = endpoint.answer(keys, at)
    found = Counter((one.rung, one.version) for one in answers)
    assert found.keys() == {("champion", champion), ("weighted", "trees/2"), ("weighted", "trees/1")}
    assert [one.version for one in endpoint.answer(keys[::-1], at[::-1])] == [one.version for one in answers][::-1], "a key stays"
    for one in (first, before):
        alone = replace(endpoint, standing=replace(standing, champion=(one.label, one.digest), weighted=()), ladder=Ladder("late"))
        said = alone.answer(keys, at)
        assert all(two.probability == three.probability for two, three in zip(answers, said, strict=True) if two.version == one.label)
    endpoint.ladder.counts.clear()
    broken = object.__new__(Broken)
    broken.signature = endpoint.predictors[first.digest].signature
    endpoint.predictors[first.digest] = broken
    alone = endpoint.answer(keys, at)
    assert Counter(one.version for one in alone) == {
        champion: found["champion", champion] + found["weighted", "trees/1"],
        "trees/2": found["weighted", "trees/2"],
    }
    assert endpoint.ladder.counts["weighted trees/1: failed"] == found["weighted", "trees/1"]


def test_a_version_whose_golden_cases_are_answered_otherwise_does_not_start(parcels: Path) -> None:
    toy = open_toy(parcels)
    branch: Branch = toy.replay(end="2024-03-03")
    digest = State.of(branch.state).champion.digest
    artifact = toy.ledger.artifact(Ref("model", "trees", "", digest))
    from tidemill.models import golden_of

    golden = golden_of(toy.ledger, artifact)
    other = toy.ledger.blobs.put(pack({"features": golden.features, "expected": golden.expected + 0.01}))
    with toy.ledger.records.begin() as connection:
        meta = str(artifact.meta["blobs"]["golden"])
        connection.exec_driver_sql(f"update artifact set meta = replace(meta, '{meta}', '{other}')")
    with pytest.raises(Refused, match="answers 20 of its golden cases otherwise"):
        open_endpoint(toy.ledger, toy.declared, branch)


def test_a_version_before_that_is_lost_keeps_no_champion_from_serving(
    replayed: tuple[Toy, Branch], caplog: pytest.LogCaptureFixture
) -> None:
    toy, branch = replayed
    previous, rest = State.of(branch.state).previous, MemoryBlobs()
    assert previous is not None
    lost = toy.ledger.artifact_of("model", previous.digest).meta["blobs"]["onnx"]
    for digest in toy.ledger.blobs.digests():
        if digest != lost:
            rest.put(bytes(toy.ledger.blobs.get(digest)))
    endpoint = open_endpoint(Ledger(toy.ledger.records, rest, toy.ledger.wall), toy.declared, branch)
    assert f"version={previous.label} left_out=true error=blob {lost[:12]} is not stored" in caplog.text
    (answer,) = endpoint.answer(ROW["rows"], [toy.at("2024-04-30")])
    assert (answer.rung, endpoint.standing.previous) == ("champion", None)


# ── the log on a bad disk ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "256k") as folder:
        yield folder


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(serve: Serve, disk: Path) -> None:
    served = serve(log=disk / "late.jsonl")
    acknowledged = 0
    for _ in range(2000):
        status, answer = served.ask(**ROW)
        if status != 200:
            break
        acknowledged += 1
    assert status == 503
    assert "No space left" in answer["error"] or "only a part" in answer["error"]
    assert "predictions" not in answer
    assert acknowledged > 10
    assert len(served.logged) == acknowledged


def test_of_a_batch_that_fits_in_part_nothing_is_logged(serve: Serve, disk: Path) -> None:
    served = serve(log=disk / "late.jsonl")
    assert served.ask(**ROW)[0] == 200
    (disk / "filler").write_bytes(b"x" * 230_000)
    many = {**ROW, "rows": [{"parcel": f"p118-{place:03}"} for place in range(55)] * 4}
    assert served.ask(**many)[0] == 503
    assert len(served.logged) == 1
    assert served.log.read_bytes().count(b"\n") == 1
    assert served.ask(**ROW)[0] == 200


def test_after_space_was_made_answers_are_logged_whole_again(serve: Serve, disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(b"x" * 200_000)
    served = serve(log=disk / "late.jsonl")
    before = 0
    while served.ask(**ROW)[0] == 200:
        before += 1
    filler.unlink()
    after = sum(served.ask(**ROW)[0] == 200 for _ in range(20))
    assert after == 20
    assert len(served.logged) == before + after, "a line that was cut on the full disk spoils no other"


def test_a_read_only_disk_is_said_at_the_start(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match="Read-only") as error:
        AnswerLog(disk / "log" / "late.jsonl")
    assert "read-only" in error.value.hint


def test_a_line_that_was_cut_or_damaged_is_left_out_by_the_reader_and_spoils_no_other(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    path.write_bytes(b'{"key":"a"}\n{"key":"\xff"}\n[1]\nnull\n\0\0\n{"key":"b"}\n{"key":"c')
    assert [one["key"] for one in read_log(path)] == ["a", "b"]
    assert list(read_log(tmp_path / "none.jsonl")) == []
    assert serve(log=path).ask(**ROW)[0] == 200
    assert [one["key"] for one in read_log(path)] == ["a", "b", "p118-003"]
    branch = list(read_log(path))[-1]["branch"]
    path.write_bytes(path.read_bytes() + b'{"branch":"%s"}\n' % branch.encode())
    assert [one.key for one in find_answers(path, branch)] == ["p118-003"]


@pytest.mark.parametrize("away", ["folder deleted", "file deleted", "file moved"])
def test_a_log_that_was_taken_away_under_the_server_is_made_again(served: Served, away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "LOOK_AGAIN", 0.0)
    assert served.ask(**ROW)[0] == 200
    if away == "folder deleted":
        shutil.rmtree(served.log.parent)
    elif away == "file deleted":
        served.log.unlink()
    else:
        served.log.rename(served.log.with_suffix(".old"))
    assert [served.ask(**ROW)[0] for _ in range(2)] == [200, 200]
    assert len(served.logged) == 2, "every answer that went out since has its line"


@pytest.mark.parametrize("another", [False, True])
def test_a_log_that_was_sealed_or_replaced_is_not_written_to(tmp_path: Path, another: bool) -> None:
    """By another process between two lines that follow each other at once."""
    log, path = Lines(tmp_path / "late.jsonl"), tmp_path / "late.jsonl"
    for _ in range(50):
        log.write([b"1"])
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b"\n")
            file.flush()
            before = path.read_bytes()
            path.rename(path.with_suffix(".sealed"))
            if another:
                path.write_bytes(b"0\n")
        log.write([b"2", b"3"])
        assert path.with_suffix(".sealed").read_bytes() == before
        assert path.read_bytes() == b"0\n" * another + b"2\n3\n"
    log.close()


def test_threads_and_processes_write_whole_lines(tmp_path: Path) -> None:
    logs = [Lines(tmp_path / "late.jsonl") for _ in range(2)]  # as two processes have them

    def write(who: int) -> None:
        for i in range(200):
            logs[who % 2].write([b"%d %d a" % (who, i), b"%d %d b" % (who, i)])

    with ThreadPoolExecutor(4) as pool:
        [*pool.map(write, range(4))]
    found = (tmp_path / "late.jsonl").read_bytes().splitlines()
    assert [one[:-1] for one in found[::2]] == [one[:-1] for one in found[1::2]]
    for who in range(4):
        assert [one for one in found[::2] if one.startswith(b"%d " % who)] == [b"%d %d a" % (who, i) for i in range(200)]


def test_where_the_log_cannot_be_made_again_nothing_is_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "LOOK_AGAIN", 0.0)
    shutil.rmtree(served.log.parent)
    served.log.parent.write_text("a file")
    status, answer = served.ask(**ROW)
    assert (status, "predictions" in answer) == (503, False)
    paths = ("/v2/health/ready", "/v2/models/late/ready")
    assert [served.client.get(path).status_code for path in paths] == [503, 503]
    served.log.parent.unlink()
    assert [served.client.get(path).status_code for path in paths] == [200, 200]
    assert served.ask(**ROW)[0] == 200
    assert len(served.logged) == 1


# ── the last answer, a simpler model, and rungs that are left out ───────────────────────────────────────────────────


def declared(served: Served, **changes: Any) -> Served:
    """The same deployment with another fallback, and its ladder anew."""
    served.endpoint = replace(served.endpoint, ladder=Ladder("late", **changes.pop("ladder", {})), **changes)
    return served


def asked(served: Served, parcel: str = "p118-003", at: str = "2024-04-30T00:00:00Z", **row: Any) -> Answer:
    (answer,) = served.endpoint.answer([{"parcel": parcel, **row}], [instant(at)])
    return answer


def test_the_last_answer_of_a_key_is_given_again_while_it_is_young(served: Served) -> None:
    declared(served, fallback=[tm.LastAnswer(within="1h"), tm.Constant(0.3)])
    before = asked(served)
    break_version(served, served.endpoint.standing.champion)
    again = asked(served, at="2024-04-30T01:00:00Z")
    assert (again.rung, again.version, again.probability) == ("last answer", before.version, before.probability)
    assert again.plain(0)["given_at"] == "2024-04-30T00:00:00Z"
    assert again.line()["given_at"] == "2024-04-30T00:00:00Z"
    assert asked(served, at="2024-04-30T01:00:01Z").rung == "constant", "it is too old, and was not made younger by being told again"
    assert asked(served, at="2024-04-29T23:59:59Z").rung == "constant", "it is of later"
    assert asked(served, "p117-003").rung == "constant", "another key"
    assert "given_at" not in before.plain(0)


def test_each_row_of_a_request_gets_the_first_rung_that_has_an_answer_for_it(served: Served) -> None:
    declared(served, fallback=[tm.LastAnswer(), tm.Constant(0.3)])
    keys, at = ["p118-003", "p117-003", "p116-003"], [instant("2024-04-30T00:00:00Z")] * 3
    first = asked(served, keys[1])
    break_version(served, served.endpoint.standing.champion)
    answers = served.endpoint.answer([{"parcel": key} for key in keys], at)
    assert [one.rung for one in answers] == ["constant", "last answer", "constant"]
    assert answers[1].probability == first.probability
    assert [one.key for one in answers] == keys


def test_the_last_answer_stands_in_where_no_features_can_be_read(served: Served) -> None:
    declared(served, fallback=[tm.LastAnswer()])
    before, reader = asked(served), served.endpoint.reader
    served.endpoint.rows = replace(served.endpoint.rows, reader=DeadReader(reader.views, reader.logs, reader.versions))
    again = asked(served)
    assert (again.rung, again.features, again.probability) == ("last answer", "none", before.probability)
    with pytest.raises(Unavailable, match="no rung of deployment 'late' could answer"):
        asked(served, "p117-003")


def test_what_was_answered_is_remembered_when_another_version_takes_over(replayed: tuple[Toy, Branch], served: Served) -> None:
    fallback = [tm.LastAnswer(), tm.Constant(0.3)]
    before = asked(declared(served, fallback=fallback))
    newer = replace(served.endpoint, ladder=Ladder("late"))
    newer.follow(served.endpoint)
    assert newer.ladder.counts == {"champion": 1}
    break_version(served, newer.standing.champion)
    (again,) = newer.answer([{"parcel": "p118-003"}], [instant("2024-04-30T00:00:00Z")])
    assert (again.rung, again.probability) == ("last answer", before.probability)


def test_an_answer_of_before_does_not_take_the_place_of_a_newer_one(served: Served) -> None:
    declared(served, fallback=[tm.LastAnswer(within="1h", keys=5), tm.Constant(0.3)])
    newer = asked(served)
    older = asked(served, at="2024-04-29T12:00:00Z")
    break_version(served, served.endpoint.standing.champion)
    again = asked(served, at="2024-04-30T00:30:00Z")
    assert (again.rung, again.given, again.probability) == ("last answer", newer.at, newer.probability)
    assert older.rung == "champion"
    smaller = replace(served.endpoint, ladder=Ladder("late"), fallback=[tm.LastAnswer(keys=1)])
    smaller.follow(served.endpoint)
    assert smaller._last is not None
    assert smaller._last.most == 1


def test_a_simpler_model_stands_in_by_its_digest(replayed: tuple[Toy, Branch], served: Served) -> None:
    toy, branch = replayed
    simple = versions(toy.ledger, branch.id)[0].ref
    ref = f"model:{simple.name}@{simple.digest[:12]}"
    endpoint = open_serving(toy.ledger, "late", branch.parts["recipe"], served.endpoint.standing, fallback=[tm.SimplerModel(ref)])
    served.endpoint = endpoint
    expected = endpoint.predictors[simple.digest]
    break_version(served, endpoint.standing.champion)
    (answer,) = endpoint.answer([{"parcel": "p118-003"}], [instant("2024-04-30T00:00:00Z")], explain=True)
    assert (answer.rung, answer.version) == ("simpler model", f"{simple.name}@{simple.digest[:12]}")
    assert answer.inputs is not None
    (given,) = replace(endpoint, predictors=endpoint.predictors | {endpoint.standing.champion[1]: expected}, fallback=[]).answer(
        [answer.inputs], [0]
    )
    assert given.probability == answer.probability
    other = tm.SimplerModel("model:nothing@0123456789ab")
    with pytest.raises(UnknownName, match="nothing"):
        open_serving(toy.ledger, "late", branch.parts["recipe"], endpoint.standing, fallback=[other])


def test_a_rung_that_keeps_failing_is_left_out_and_comes_back_by_itself(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    clock = [0]
    ladder = {"breaker": tm.Breaker(failures=3, pause="10s"), "ticks": lambda: clock[0]}
    declared(served, fallback=[tm.Constant(0.3)], ladder=ladder)
    label, digest = served.endpoint.standing.champion
    whole = served.endpoint.predictors[digest]
    break_version(served, (label, digest))
    found = [asked(served).rung for _ in range(5)]
    assert found == ["constant"] * 5
    assert served.endpoint.ladder.counts == {"champion: failed": 3, "champion: left out": 2, "constant": 5}
    assert [*served.endpoint.ladder.left_out] == ["champion"]
    clock[0] = 10 * 10**9 - 1
    asked(served)
    assert served.endpoint.ladder.counts["champion: left out"] == 3
    clock[0] += 1
    assert [asked(served).rung for _ in range(2)] == ["constant"] * 2
    assert (served.endpoint.ladder.counts["champion: failed"], served.endpoint.ladder.counts["champion: left out"]) == (4, 4), "one tried"
    served.endpoint.predictors[digest] = whole
    assert asked(served).rung == "constant"
    clock[0] += 10 * 10**9
    assert [asked(served).rung for _ in range(2)] == ["champion"] * 2
    assert [*served.endpoint.ladder.left_out] == []
    assert [("circuit=open" in one.message, "circuit=closed" in one.message) for one in caplog.records if "circuit" in one.message] == [
        (True, False),
        (False, True),
    ]


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_a_circuit_lets_one_try_in_each_pause_once_it_is_open(failures: int, steps: list[tuple[int, bool]]) -> None:
    """Beside a list of all that happened, which is searched each time."""
    circuit, now, tries = Circuit(tm.Breaker(failures=failures, pause="10us")), 0, list[tuple[int, bool]]()
    for wait, works in steps:
        now += wait
        row = next((i for i, (_, well) in enumerate(reversed(tries)) if well), len(tries))
        expected = row < failures or now - tries[-1][0] >= 10
        assert circuit.closed(now) == expected
        if expected:
            tries.append((now, works))
            assert circuit.succeeded() == (row >= failures) if works else circuit.failed(now) == (row + 1 == failures)
