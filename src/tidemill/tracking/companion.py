"""A process beside the training: it ships the segments of its runs as they grow, and looks at the machine. When the training ends, however
that comes, it ships what is left and ends too."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill.tracking.spool import LOOKS, segments

_PACKAGES = str(Path(__file__).parent.parent.parent)
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from tidemill.tracking.beside import main; main(sys.argv[2])"
_STEP = 0.005
KEPT = "; what it logged is kept, and sent later or by `tidemill sync`"
_running: dict[tuple[int, Path], "Companion"] = {}


@dataclass
class Companion:
    """The companion as its training sees it: one for each process and spool."""

    spool: Path
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def of(cls, spool: Path) -> "Companion":
        """The companion of this process for a spool; it is started with the first word to it."""
        return _running.setdefault((os.getpid(), spool), cls(spool))

    def _start(self) -> "subprocess.Popen[bytes] | None":
        if self.process is None or self.process.poll() is not None:
            self.spool.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-P", "-c", _MAIN, _PACKAGES, str(self.spool)]
            try:
                with (self.spool / "companion.log").open("ab") as log:
                    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
                assert self.process.stdin is not None
                os.set_blocking(self.process.stdin.fileno(), False)
            except OSError:
                self.process = None
        return self.process

    def tell(self, run: str, every: float) -> None:
        """Say that a run is there, and how many seconds lie between two looks at the machine (0: none)."""
        process = self._start()
        if process is not None and process.stdin is not None:
            with suppress(OSError):  # it will find the segment all the same, or the next one will
                process.stdin.write(json.dumps({"run": run, "pid": os.getpid(), "every": every}).encode() + b"\n")
                process.stdin.flush()

    def wait(self, run: str, segment: Path, seconds: float) -> str:
        """Say that a run has ended, and wait until its segment and the looks at the machine are shipped; returns why they are not."""
        away, end = segment.with_suffix(".away"), time.monotonic() + seconds
        self.tell(run, 0.0)
        again = self.process
        while segment.exists() or away.exists() or segments(self.spool, f"{run}{LOOKS}"):
            with suppress(OSError):
                return f"{away.read_text()}{KEPT if segment.exists() else ''}"
            if self.process is None or self.process.poll() is not None:
                if self.process is not again:
                    return f"its companion ended ({self.spool / 'companion.log'}); what it logged is kept: `tidemill sync` sends it"
                self.tell(run, 0.0)  # one that had nothing to do may just have ended
            if time.monotonic() > end:
                return "what it logged is still on its way"
            time.sleep(_STEP)
        return ""

    def leave(self) -> None:
        """Let the companion end when its work is done, and wait for that."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
            self.process.wait()
            self.process = None


def running() -> list[Companion]:
    """The companions of this process."""
    return [one for (pid, _), one in _running.items() if pid == os.getpid()]
