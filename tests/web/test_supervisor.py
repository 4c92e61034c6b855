"""What keeps processes going: small real ones that say when they are ready, and end as they are told."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tidemill.core import DefinitionError, Unavailable
from tidemill.web import place, workers
from tidemill.web.place import number_of
from tidemill.web.workers import IN_A_ROW, Supervisor

READY = "import os, sys, signal; os.write(int(sys.argv[1]), b'r'); "
ANSWERS = READY + "signal.pause()"
DRAINS = "import os, sys, signal; signal.signal(15, lambda *_: (print('drained', flush=True), os._exit(0))); " + ANSWERS


@dataclass
class Started:
    """What was started, in order: its number, and whether it is to tell the addresses."""

    code: Callable[[int, int], str]
    told: list[tuple[int, bool]] = field(default_factory=list)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __call__(self, number: int, tells: bool) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            code = self.code(number, sum(one == number for one, _ in self.told))
            self.told.append((number, tells))
            call = [sys.executable, "-ISc", code, str(theirs.fileno())]
            self.processes.append(subprocess.Popen(call, pass_fds=[theirs.fileno()], process_group=0))
        return self.processes[-1], ours


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LONGEST", 0.01)


def run(started: Started, many: int, enough: Callable[[Supervisor], bool] = lambda one: False, ask: int = signal.SIGTERM) -> list[int]:
    """Run until it is enough, ask to end then; returns which ended."""
    ended = list[int]()
    supervisor = Supervisor(started, many, ended.append)
    step = supervisor._step

    def stepped() -> int:
        found = step()
        if not found and enough(supervisor):
            os.kill(os.getpid(), ask)
        return found

    supervisor._step = stepped  # type: ignore[method-assign]
    supervisor.run()
    return ended


def ready(many: int) -> Callable[[Supervisor], bool]:
    return lambda one: sum(worker.ready is not None for worker in one.workers) == many


def test_the_others_start_when_the_first_is_ready_and_all_end_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    started = Started(lambda number, time: DRAINS)
    assert run(started, 3, ready(3)) == []
    assert started.told == [(0, True), (1, False), (2, False)]
    assert [one.wait(20) for one in started.processes] == [0, 0, 0]
    assert capfd.readouterr().out.split() == ["drained"] * 3


def test_ctrl_c_ends_them_too_and_is_told_on() -> None:
    started = Started(lambda number, time: ANSWERS)
    with pytest.raises(KeyboardInterrupt):
        run(started, 2, ready(2), signal.SIGINT)
    assert [one.wait(20) for one in started.processes] == [-signal.SIGTERM] * 2


def test_a_first_one_that_fails_ends_the_server_with_its_code_and_no_other_is_started() -> None:
    for code, text in ((3, "raise SystemExit(3)"), (128 + 9, "import os; os.kill(os.getpid(), 9)"), (1, "1/0")):
        started = Started(lambda number, time, text=text: text)  # type: ignore[misc]
        with pytest.raises(SystemExit) as ended:
            run(started, 3)
        assert (ended.value.code, started.told) == (code, [(0, True)])


def test_what_dies_is_started_again_and_tells_no_addresses(caplog: pytest.LogCaptureFixture) -> None:
    started = Started(lambda number, time: READY + "os.kill(os.getpid(), 9)" if (number, time) in ((0, 0), (1, 0), (1, 1)) else ANSWERS)
    ended = run(started, 2, lambda one: len(started.told) == 5 and ready(2)(one))
    assert sorted(ended) == [0, 1, 1]
    assert sorted(started.told) == [(0, False), (0, True), (1, False), (1, False), (1, False)]
    assert "worker=1 ended=SIGKILL started_again_in=" in caplog.text


def test_one_that_cannot_start_any_more_is_tried_while_another_answers() -> None:
    started = Started(lambda number, time: ANSWERS if number == 0 else "raise SystemExit(4)")
    ended = run(started, 2, lambda one: len(started.told) > 2 * IN_A_ROW)
    assert {*ended} == {1}


def test_where_none_answers_any_more_the_server_says_so_and_ends() -> None:
    started = Started(lambda number, time: READY if time == 0 else "raise SystemExit(4)")
    with pytest.raises(Unavailable, match=f"each of the 2 processes ended at once {IN_A_ROW} times in a row") as error:
        run(started, 2)
    assert "above" in error.value.hint
    assert all(one.wait(20) in (0, 4, -signal.SIGKILL) for one in started.processes)


def test_ctrl_c_once_more_does_not_wait_for_what_hangs() -> None:
    hangs = "import signal; signal.signal(15, signal.SIG_IGN); " + READY + "os.write(1, b''); [signal.pause() for _ in range(9)]"
    started = Started(lambda number, time: hangs)
    handled = signal.getsignal(signal.SIGTERM)
    supervisor = Supervisor(started, 2, lambda number: None)
    drain = supervisor._drain

    def drained() -> None:
        threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
        drain()

    supervisor._drain = drained  # type: ignore[method-assign]
    step = supervisor._step
    supervisor._step = lambda: step() or (signal.SIGTERM if ready(2)(supervisor) else 0)  # type: ignore[method-assign]
    supervisor.run()
    assert [one.wait(20) for one in started.processes] == [-signal.SIGKILL] * 2
    assert signal.getsignal(signal.SIGTERM) is handled


def test_what_does_not_come_to_its_end_is_ended(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(workers, "HUNG", 0.01)
    hangs = "import signal; signal.signal(15, signal.SIG_IGN); " + READY + "[signal.pause() for _ in range(9)]"
    started = Started(lambda number, time: hangs)
    run(started, 2, ready(2))
    assert [one.wait(20) for one in started.processes] == [-signal.SIGKILL] * 2
    assert "end=killed" in caplog.text


def test_cores_are_those_that_a_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(text: str, own: int) -> int:
        monkeypatch.setattr(place.Path, "read_text", lambda path: text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(own)), raising=False)
        return number_of("cores")

    assert [told("max 100000\n", 8), told("150000 100000\n", 8), told("400000 100000\n", 2), told("5000 100000", 4)] == [8, 2, 2, 1]
    assert number_of(3) == 3
    with pytest.raises(DefinitionError, match="1000 processes are too many"):
        number_of(1000)
