"""A replay that is killed goes on from where it was, and ends as one that was never disturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import other
from tidemill import loop, project, registry
from tidemill.core import Busy
from tidemill.ledger import Branch
from toy import Toy, open_toy, write_project

REPLAY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tidemill import loop, project
from toy import open_toy
declared = project.load(sys.argv[2])
with declared.writing("replay") as ledger:
    toy = open_toy(Path(sys.argv[2]), loop.prepare(ledger))
    print("built")
    toy.replay(listen=lambda progress: print(progress.state.segments))
print("done")
"""
TESTS = Path(__file__).parents[1]
Replayed = tuple[Toy, Branch]


def killed_at(folder: Path, line: str) -> bool:
    """Run the replay in a process of its own until it says `line`, and kill it; False when it was done before."""
    with other(REPLAY, TESTS, folder) as process:
        while (said := process.says()) not in (line, "done", ""):
            pass
        assert said, "the process ended by itself"
        process.kill()
        return said == line


def finish(folder: Path, undisturbed: Replayed) -> None:
    """Run it to its end in this process: it is as one that nobody disturbed."""
    declared = project.load(folder)
    with declared.writing("replay") as ledger:
        toy = open_toy(folder, loop.prepare(ledger))
        branch = toy.replay()
        assert [one.status for one in ledger.executions(status="running")] == [], "no execution stays open"
        assert ledger.verify_decisions() > 0
        assert ledger.records.check() == []
        same(toy, branch, *undisturbed)


def same(toy: Toy, branch: Branch, whole: Toy, expected: Branch) -> None:
    assert branch.id == expected.id
    assert branch.result == expected.result
    assert branch.state == expected.state
    versions, wanted = (registry.versions(one.ledger, branch.id) for one in (toy, whole))
    assert versions == wanted, "numbers, digests, times and verdicts"
    told = [[(d.at, d.who, d.kind, d.subject, d.why, d.evidence) for d in one.ledger.decisions(branch.id)] for one in (toy, whole)]
    assert told[0] == told[1], "no decision is lost, and none is written twice"


@pytest.mark.parametrize("lines", [("37", "41"), pytest.param(("built", "37", "38", "41", "44"), marks=pytest.mark.torture)], ids=len)
def test_a_killed_replay_ends_as_one_that_was_not(tmp_path: Path, replayed: Replayed, lines: tuple[str, ...]) -> None:
    """Killed in the alarm and in a rollout; in torture before its first tick too, and thrice in the rollout."""
    folder = write_project(tmp_path / "p")
    for line in lines:
        assert killed_at(folder, line)
    finish(folder, replayed)


def test_two_folders_share_nothing_and_a_killed_one_serves_nothing(tmp_path: Path) -> None:
    from tidemill.core import UnknownName
    from tidemill.session import Session

    folder = write_project(tmp_path / "p")
    assert killed_at(folder, "20")
    session = Session(folder)
    with pytest.raises(UnknownName, match="nothing serves yet"):
        session.status()
    session.close()


def test_a_second_writer_is_told_who_holds_the_lock_while_readers_read(copied: Path) -> None:
    """A replay of another policy runs in one process; status is read, and a second replay is refused, in this one."""
    from tidemill.session import Session

    text = (copied / "parcels.py").read_text()
    (copied / "parcels.py").write_text(text.replace('cooldown="4d"', 'cooldown="5d"'))
    with other(REPLAY, TESTS, copied) as process:
        assert process.says() == "built"
        assert process.says() == "1"
        declared = project.load(copied)
        with pytest.raises(Busy, match=rf"process {process.pid} \(replay\) is writing") as error, declared.writing("run"):
            pass
        assert "reading always works" in error.value.hint
        session = Session(copied)
        assert session.status()["deployments"][0]["champion"]["label"].startswith("trees/")
        session.close()
        process.kill()
    with declared.writing("run") as ledger:
        assert ledger.executions(status="running") == []


CTRL_C = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from loop.test_kills import ticked
from tidemill import project
from tidemill.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background of a script ignores it
declared = project.find(sys.argv[2])
def press():  # in the same process, so that a busy machine delays both
    while not ticked(declared):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
sys.argv[1:] = ["-C", sys.argv[2], "replay"]
main()
"""


def test_ctrl_c_ends_with_a_plain_message_and_loses_nothing(tmp_path: Path, replayed: Replayed) -> None:
    folder = write_project(tmp_path / "p")
    call = [sys.executable, "-c", CTRL_C, str(TESTS), str(folder)]
    ended = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "COLUMNS": "150"}, timeout=240, check=False)
    assert ended.returncode == 130, ended.stderr
    assert "stopped; what was done is kept" in ended.stderr
    assert "Traceback" not in ended.stderr
    finish(folder, replayed)


def ticked(declared: project.Project) -> bool:
    """Whether a replay has made some ticks."""
    if not (declared.state / "records.db").exists():
        return False
    try:
        ledger = declared.ledger(read_only=True)
    except OSError:
        return False
    try:
        return any(branch.state.get("segments", 0) > 5 for branch in ledger.branches("replay"))
    except OSError:
        return False
    finally:
        ledger.records.close()
