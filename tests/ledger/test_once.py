"""The content cache: what is known is not run again, and what is run says why."""

import math
import os
from itertools import count
from pathlib import Path

import pytest

from processes import other
from tidemill.core import Erased, Ref, StoreError, digest_bytes
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.store import FolderBlobs, Records


class Step:
    """A step that counts how often it ran, and makes one artifact with one blob."""

    def __init__(self, ledger: Ledger, content: bytes = b"content") -> None:
        self.ledger, self.content, self.runs = ledger, content, 0

    def __call__(self) -> Made:
        self.runs += 1
        digest = self.ledger.blobs.put(self.content)
        made = Artifact(Ref.of("table", "t", digest), {"blobs": {"rows": digest}, "rows": 3})
        return Made({"version": made}, params={"p": 1}, metrics={"rows": 3.0})


def test_a_known_step_is_not_run_again(ledger: Ledger) -> None:
    step = Step(ledger)
    first = ledger.once("step", "s", {"x": 1}, step)
    again = ledger.once("step", "s", {"x": 1}, step)
    assert (first.cached, first.why, again.cached, again.why, step.runs) == (False, "first time", True, "nothing changed", 1)
    assert again.output.ref == first.output.ref
    assert again.output.meta == first.output.meta
    assert again.execution == first.execution


def test_it_says_which_input_changed(ledger: Ledger) -> None:
    step = Step(ledger)
    one, two = (Ref.of("dataset", "flights", digest_bytes(text)) for text in (b"1", b"2"))
    ledger.once("step", "s", {"data": one, "definition": {"window": "24h", "deep": {"list": [1, 2]}}}, step, code="c1")

    def why(**changed: object) -> str:
        inputs = {"data": one, "definition": {"window": "24h", "deep": {"list": [1, 2]}}} | changed
        return ledger.once("step", "s", inputs, step, code=str(changed.get("code", "c1"))).why

    assert why(definition={"window": "12h", "deep": {"list": [1, 2]}}) == "definition.window: 24h → 12h"
    ledger.once("step", "s", {"data": one}, step, code="c1")
    changed = ledger.once("step", "s", {"data": two}, step, code="c1")
    assert changed.why == f"data: dataset:flights@{one.version} → dataset:flights@{two.version}"
    assert ledger.once("step", "s", {"data": two}, step, code="c2").why == "Tidemill's own code for it, or a library's version"
    assert ledger.once("step", "s", {"data": two, "more": 1}, step, code="c2").why == "more: nothing → 1"


def test_values_that_json_has_not_are_no_change(ledger: Ledger) -> None:
    inputs = {"limit": math.inf, "pair": (1, 2), "nan": math.nan}
    ledger.once("step", "s", inputs, Step(ledger))
    assert ledger.once("step", "s", inputs, Step(ledger)).cached
    assert not ledger.once("step", "s", {**inputs, "limit": None}, Step(ledger)).cached


def test_another_name_kind_or_code_is_another_step(ledger: Ledger) -> None:
    step = Step(ledger)
    ledger.once("step", "s", {}, step)
    for kind, name, code in (("other", "s", ""), ("step", "other", ""), ("step", "s", "code")):
        assert not ledger.once(kind, name, {}, step, code=code).cached


def test_a_missing_blob_is_made_again(ledger: Ledger) -> None:
    step = Step(ledger)
    made = ledger.once("step", "s", {}, step).output
    ledger.blobs.delete(made.meta["blobs"]["rows"])
    again = ledger.once("step", "s", {}, step)
    assert (again.cached, again.why, step.runs) == (False, "its result was not kept", 2)
    assert again.output.ref == made.ref
    assert ledger.once("step", "s", {}, step).cached


def test_what_ran_is_recorded(ledger: Ledger) -> None:
    source = ledger.put_artifact(Artifact(Ref.of("source", "s.csv", digest_bytes(b"s")), {}))
    once = ledger.once("step", "s", {"source": source}, Step(ledger), branch="b", code="c")
    found = ledger.execution(once.execution)
    assert (found.kind, found.name, found.branch, found.status, found.code) == ("step", "s", "b", "finished", "c")
    assert found.inputs == {"source": f"source:s.csv#{source.digest}", "code": "c"}
    assert found.outputs["version"]["digest"] == once.output.ref.digest
    assert (found.params, found.metrics, found.error) == ({"p": 1}, {"rows": 3.0}, "")
    assert (found.started_at, found.ended_at, ledger.artifact(once.output.ref).recorded_at) == (2, 3, 4)  # by the clock of the fixture
    assert b"numpy" in bytes(ledger.blobs.get(found.environment))


def test_the_number_of_the_execution_is_told_before_it_runs(ledger: Ledger) -> None:
    told: list[str] = []
    ledger.once("step", "s", {}, Step(ledger), on_start=lambda number: told.append(ledger.execution(number).status))
    assert told == ["running"]


@pytest.mark.parametrize(("error", "status"), [(ValueError("bad rows"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_a_step_that_raises_is_recorded_and_run_again(ledger: Ledger, error: BaseException, status: str) -> None:
    def make() -> Made:
        raise error

    with pytest.raises(type(error)):
        ledger.once("step", "s", {}, make)
    (found,) = ledger.executions()
    assert (found.status, found.error) == (status, str(error))
    assert found.ended_at
    step = Step(ledger)
    assert ledger.once("step", "s", {}, step).why == f"it was {status} before"
    with pytest.raises(type(error)):
        ledger.once("step", "s", {"until": 1364788800000000}, make)
    assert ledger.once("step", "s", {"until": 1364788800000000}, step).why == "until: nothing → 2013-04-01T04:00:00Z", (
        "what failed is no state"
    )
    assert ledger.once("step", "s", {}, step).cached


KILLED = """
import sys
from pathlib import Path
from tidemill.ledger import Ledger, Made
from tidemill.store import FolderBlobs, Records
folder = Path(sys.argv[1])
ledger = Ledger(Records(folder / "records.db"), FolderBlobs(folder / "blobs"), lambda: 1)
def make():
    print("running"); input()
ledger.once("step", "s", {}, make)
"""


def test_a_killed_step_does_not_stay_running(tmp_path: Path) -> None:
    with other(KILLED, tmp_path) as process:
        assert process.says() == "running"
        process.kill()
    ledger = Ledger(Records(tmp_path / "records.db"), FolderBlobs(tmp_path / "blobs"), count(2).__next__)
    (found,) = ledger.executions()
    assert (found.status, found.pid) == ("running", process.pid)
    assert ledger.close_dead() == 1
    assert ledger.close_dead() == 0
    (found,) = ledger.executions()
    assert found.status == "interrupted"
    assert found.ended_at
    assert ledger.once("step", "s", {}, Step(ledger)).why == "it was interrupted before"


def test_a_killed_step_with_our_own_number_is_dead_too(tmp_path: Path) -> None:
    """In a container, the first process has the same number each time."""
    with other("import os, sys; os.getpid = lambda: int(sys.argv[2])\n" + KILLED, tmp_path, os.getpid()) as process:
        assert process.says() == "running"
        process.kill()
    ledger = Ledger(Records(tmp_path / "records.db"), FolderBlobs(tmp_path / "blobs"), count(2).__next__)
    (found,) = ledger.executions()
    assert found.pid == os.getpid()
    assert ledger.close_dead() == 1


def test_our_own_running_step_is_not_dead(ledger: Ledger) -> None:
    def make() -> Made:
        assert ledger.close_dead() == 0
        return Made({})

    ledger.once("step", "s", {}, make)
    assert ledger.executions()[0].status == "finished"


def test_a_read_only_ledger_answers_from_the_cache_and_runs_nothing(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    ledger = Ledger(Records(tmp_path / "records.db"), blobs, count().__next__)
    ledger.once("step", "s", {}, Step(ledger))
    reader = Ledger(Records(tmp_path / "records.db", read_only=True), blobs, count().__next__, read_only=True)
    assert reader.once("step", "s", {}, Step(reader)).cached
    step = Step(reader)
    with pytest.raises(StoreError):
        reader.once("step", "s", {"x": 1}, step)
    assert step.runs == 0


def test_what_was_erased_says_so_and_is_whole_again_when_the_same_is_made_again(ledger: Ledger) -> None:
    def make() -> Made:
        blob = ledger.blobs.put(b"rows")
        return Made({"version": Artifact(Ref.of("dataset", "d", blob), {"blobs": {"rows": blob}, "profile": {"max": 7}, "rows": 1})})

    made = ledger.once("dataset", "d", {}, make).output
    with ledger.records.begin() as connection:
        ledger.erase(connection, made.ref, at=0, why="asked", without=["profile"])
    erased = ledger.artifact(made.ref)
    with pytest.raises(Erased, match=r"dataset:d@.* was erased on 1970-01-01T00:00:00Z: asked"):
        erased.blob("rows")
    assert erased.meta == {"rows": 1, "erased": {"at": 0, "why": "asked", "blobs": [made.blob("rows")]}}
    again = ledger.once("dataset", "d", {}, make)
    assert not again.cached, "also while its bytes are still there"
    assert ledger.artifact(made.ref).meta == made.meta
    assert ledger.once("dataset", "d", {}, make).cached
