"""One writer for each project; the lock ends with its process."""

import os
from pathlib import Path

import pytest

from processes import other, run_python
from tidemill.core import Busy
from tidemill.store import holder, writer

HOLD = """
import sys
from pathlib import Path
from tidemill.store import writer
with writer(Path(sys.argv[1]), "replay"):
    print("held"); input()
print("free"); input()
"""


def test_the_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "writer.lock"
    with other(HOLD, path) as first:
        assert first.says() == "held"
        with pytest.raises(Busy, match=rf"process {first.pid} \(replay\)") as error, writer(path, "run"):
            pass
        assert "reading always works" in error.value.hint
        assert holder(path) == {"pid": first.pid, "command": "replay"}
        first.go_on()
        assert first.says() == "free"
        with writer(path, "run"):
            assert holder(path) == {"pid": os.getpid(), "command": "run"}


def test_a_writer_may_wait_and_says_for_whom_once(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    said: list[str] = []
    with other(HOLD, path) as first:
        assert first.says() == "held"

        def waiting(who: str) -> None:
            said.append(who)
            first.go_on()

        with writer(path, "run", wait=60, waiting=waiting):
            assert holder(path)["command"] == "run"
        assert said == [f"waiting for process {first.pid} (replay)"]


def test_waiting_ends(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    with writer(path, "run"), pytest.raises(Busy), writer(path, "run", wait=0.05):
        pass


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    with other(HOLD, path) as first:
        assert first.says() == "held"
        first.kill()
        with writer(path, "run"):
            pass


def test_the_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    with pytest.raises(ZeroDivisionError), writer(path, "run"):
        raise ZeroDivisionError
    with writer(path, "run"):
        pass


def test_commands_that_a_writer_starts_do_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    with writer(path, "run"), other("print('up'); input()") as child:
        assert child.says() == "up"
        code = (
            "import sys; from pathlib import Path; from tidemill.store import writer\nwith writer(Path(sys.argv[1]), 'x'): print('got it')"
        )
        assert "Busy" in run_python(code, path).stderr


@pytest.mark.parametrize("text", ["", "not json", "[1]"])
def test_an_unreadable_note_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "writer.lock"
    assert holder(path) == {}
    path.write_text(text)
    assert holder(path) == {}
