"""What the companion process does. The clock is read here, since looking at the machine is an event of its own."""

import json
import os
import secrets
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidemill.core import Damaged, Refused, TidemillError
from tidemill.tracking.hardware import Hardware
from tidemill.tracking.segment import METRIC, NAME, Head, Segment, frame, is_written, pack_metric, read_head
from tidemill.tracking.shipping import Shipper
from tidemill.tracking.spool import LOOKS, segments

QUICK, SLOW, AWAY = 0.1, 1.0, 15.0  # seconds between two rounds: while something comes, while nothing does, at most while nobody answers
LINGER = 30.0  # seconds that a companion goes on trying when its training has ended, and stays when there is nothing to do


@dataclass
class Looks:
    """The looks at the machine for one run, logged to a segment of their own."""

    hardware: Hardware
    segment: Segment
    every: float
    last: float
    numbers: dict[str, int] = field(default_factory=dict)
    step: int = 0

    def look(self) -> None:
        now = time.monotonic()
        at, taken = time.time_ns() // 1000, now - self.last
        for name, value in self.hardware.look(max(taken, 1e-3)).items():
            if name not in self.numbers:
                self.segment.append(frame(NAME, [len(self.numbers), name]))
                self.numbers[name] = len(self.numbers)
            self.segment.append(pack_metric(METRIC, self.numbers[name], at, self.step, value))
        self.step, self.last = self.step + 1, now


class Beside:
    """The rounds of a companion over one spool."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.shipper = spool, Shipper()
        self.runs: set[str] = set()
        self.looks: dict[str, Looks] = {}
        self.failures = 0
        self._heads: dict[Path, Head] = {}
        self._host = socket.gethostname()
        self._input = b""

    # ── what the training says ──────────────────────────────────────────────────────────────────────────────────

    def listen(self, seconds: float) -> bool:
        """Wait for a word of the training, at most so long; False when it has ended."""
        if not select.select([sys.stdin.fileno()], [], [], seconds)[0]:
            return True
        data = os.read(sys.stdin.fileno(), 1 << 16)
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            word = json.loads(line)
            self.runs.add(word["run"])
            self._begin(word["run"], word["pid"], word["every"]) if word["every"] else self._end(word["run"])
        return bool(data)

    def _begin(self, run: str, pid: int, every: float) -> None:
        head = next((head for _, head in self._waiting() if head.run == run), None)
        if head is not None and run not in self.looks:
            head = msgspec.structs.replace(head, at=time.time_ns() // 1000, pid=os.getpid(), first=False)
            with suppress(TidemillError):  # a full disk
                segment = Segment(self.spool / f"{run}{LOOKS}{secrets.token_hex(4)}.seg", head)
                self.looks[run] = Looks(Hardware(pid), segment, every, time.monotonic())

    def _end(self, run: str) -> None:
        looks = self.looks.pop(run, None)
        if looks is not None:
            with suppress(Exception):
                looks.look()
            looks.segment.close()

    # ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────────

    def round(self) -> bool:
        """Look at the machine where it is time, and ship what there is; True while something is left to wait for."""
        for looks in self.looks.values():
            if time.monotonic() - looks.last >= looks.every:
                with suppress(Exception):  # a driver that fails ends no shipping
                    looks.look()
        left, away = False, set[str]()
        for path, head in self._waiting():
            if head.to in away:  # who did not answer a moment ago is not waited for again
                left = True
                continue
            done = self._ship(path)
            left |= done is not True
            if done is None:
                away.add(head.to)
        return left

    def _waiting(self) -> Iterator[tuple[Path, Head]]:
        """Segments of our own runs first, then those of this machine that nobody writes any more."""
        others = []
        for path in segments(self.spool):
            with suppress(FileNotFoundError, TidemillError):
                head = self._heads.setdefault(path, read_head(path))
                if head.run in self.runs:
                    yield path, head
                elif head.host == self._host and not is_written(path):
                    others.append((path, head))
        yield from others

    def _ship(self, path: Path) -> bool | None:
        """True: it is done, or lies aside; False: it goes on; None: nobody takes it now."""
        away = path.with_suffix(".away")
        try:
            done = self.shipper.ship(path)
            self.failures = 0
            away.unlink(missing_ok=True)
            return done
        except TidemillError as error:
            aside = isinstance(error, (Damaged, Refused))
            self.failures += not aside
            with suppress(OSError):
                away.write_text(error.what + ("; it lies aside, and `tidemill sync --again` tries again" if aside else ""))
            return True if aside else None

    def run(self) -> None:
        """Rounds until the training has ended and its segments are shipped, or nobody takes them."""
        alive, ended, busy, size = True, 0.0, time.monotonic(), -1
        self.listen(0.0)
        while True:
            before, size = size, self._size()
            left = self.round()
            pause = min(QUICK * 2**self.failures, AWAY) if self.failures else QUICK if size != before else SLOW
            if alive:
                alive = self.listen(pause)
                if left or self.looks or size != before:
                    busy = time.monotonic()
                elif time.monotonic() - busy > LINGER:
                    return  # the next word starts another one
                if not alive:
                    ended = time.monotonic()
                    for run in list(self.looks):
                        self._end(run)
            elif not left or time.monotonic() - ended > LINGER:
                return
            else:
                time.sleep(min(pause, SLOW))

    def _size(self) -> int:
        found = 0
        for path in segments(self.spool):
            with suppress(FileNotFoundError):
                found += path.stat().st_size
        return found


def main(spool: str) -> None:
    """Be the companion of the process at the other end of the standard input."""
    Beside(Path(spool)).run()
