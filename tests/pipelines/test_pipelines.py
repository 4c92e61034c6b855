"""Steps with needs: order, what stands side by side, what is refused, and whose error is raised."""

import threading

import pytest

from tidemill import pipelines
from tidemill.core import DefinitionError, Ref, digest_bytes
from tidemill.ledger import Artifact, Ledger, Made, Once
from tidemill.pipelines import Answers, Report, Step
from tidemill.store import MemoryBlobs


def made(name: str) -> Made:
    return Made({"it": Artifact(Ref.of("thing", name, digest_bytes(name.encode())), {})})


def step(ledger: Ledger, name: str, *needs: str, order: list[str] | None = None) -> Step:
    def make(answers: Answers) -> Once:
        if order is not None:
            order.append(name)
        assert set(answers) == set(needs), "a step gets the answers that it needs and no others"
        return ledger.once("step", name, {need: answers[need].output.ref for need in needs}, lambda: made(name))

    return Step(name, make, needs)


def test_every_step_runs_once_and_after_what_it_needs(ledger: Ledger) -> None:
    order: list[str] = []
    steps = [
        step(ledger, "d", "b", "c", order=order),
        step(ledger, "b", "a", order=order),
        step(ledger, "c", "a", order=order),
        step(ledger, "a", order=order),
        step(ledger, "alone", order=order),
    ]
    answers = pipelines.run(steps)
    assert sorted(order) == sorted(answers) == ["a", "alone", "b", "c", "d"]
    for before, after in (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")):
        assert order.index(before) < order.index(after)
    assert {edge.parent.split(":")[1].split("@")[0] for edge in ledger.parents(answers["d"].output.ref)} == {"b", "c"}


def test_steps_without_a_need_between_them_run_side_by_side(ledger: Ledger) -> None:
    meet = threading.Barrier(2, timeout=30)

    def waits(name: str) -> Step:
        def make(answers: Answers) -> Once:
            meet.wait()
            return ledger.once("step", name, {}, lambda: made(name))

        return Step(name, make)

    assert set(pipelines.run([waits("a"), waits("b")])) == {"a", "b"}


def test_reports_say_when_a_step_starts_ends_and_why_it_ran(ledger: Ledger) -> None:
    for cached in (False, True):
        reports: list[Report] = []
        pipelines.run([step(ledger, "a"), step(ledger, "b", "a")], listen=reports.append)
        assert [(report.name, report.done) for report in reports] == [("a", False), ("a", True), ("b", False), ("b", True)]
        done = [report for report in reports if report.done]
        assert [report.cached for report in done] == [cached, cached]
        assert [report.why for report in done] == ["nothing changed" if cached else "first time"] * 2
        assert all(report.seconds >= 0 and report.outputs == 1 for report in done)


def test_a_need_that_no_step_makes_is_refused_before_anything_runs(ledger: Ledger) -> None:
    order: list[str] = []
    with pytest.raises(DefinitionError, match="step 'b' needs 'nothing', which no step makes") as error:
        pipelines.run([step(ledger, "a", order=order), step(ledger, "b", "nothing", order=order)])
    assert error.value.available == ["a", "b"]
    assert order == []


@pytest.mark.parametrize("needs", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "c", "b": "a", "c": "b"}])
def test_a_circle_is_refused_and_named(ledger: Ledger, needs: dict[str, str]) -> None:
    with pytest.raises(DefinitionError, match="these steps need each other: " + ", ".join(needs)):
        pipelines.run([step(ledger, name, need) for name, need in needs.items()])


def test_the_error_of_a_step_is_raised_as_it_is_and_what_needs_it_does_not_run(ledger: Ledger) -> None:
    def fails(answers: Answers) -> Once:
        raise ZeroDivisionError("no rows")

    order: list[str] = []
    with pytest.raises(ZeroDivisionError, match="no rows"):
        pipelines.run([Step("bad", fails), step(ledger, "after", "bad", order=order)])
    assert order == []


def test_no_steps_give_no_answers() -> None:
    assert pipelines.run([]) == {}


def test_steps_side_by_side_read_the_same_blob_in_memory() -> None:
    """The folder of files behind blobs in memory is one, whoever asks first."""
    for _ in range(30):
        blobs = MemoryBlobs()
        digest, ready = blobs.put(b"x" * 100_000), threading.Barrier(4, timeout=30)
        found: list[bool] = []

        def ask(blobs: MemoryBlobs = blobs, digest: str = digest, ready: threading.Barrier = ready, found: list[bool] = found) -> None:
            ready.wait()
            found.append(blobs.path(digest).stat().st_size == 100_000)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 4
