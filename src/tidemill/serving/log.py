"""The gateway's own log of answers: one line of JSON each, appended with a single write before the answer leaves.

A line that was acknowledged survives the end of the process; one that was cut by it is skipped by the reader. Of an answer
that a full disk took in part, nothing stays.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import msgspec

from tidemill.data import Prediction
from tidemill.serving.answers import Answer
from tidemill.serving.appending import Lines
from tidemill.serving.caller import caller
from tidemill.serving.dataset import answers_at
from tidemill.serving.ids import new_ids
from tidemill.serving.routing import share
from tidemill.serving.spans import span
from tidemill.serving.withheld import Withheld

_encode = msgspec.json.Encoder().encode


class AnswerLog(Lines):
    """The answers of one deployment. `keep`: the share of them whose features are written down too, but for what is `withheld`."""

    def __init__(self, path: Path, keep: float = 1.0, withheld: Withheld | None = None) -> None:
        super().__init__(path)
        self.keep, self._withheld = keep, withheld

    def append(self, answers: Sequence[Answer], now: int, branch: str, *, begun: int = 0, **how: str) -> list[str]:
        """Write the answers of a branch's versions, and `how` they were asked for; returns the id of each. `begun` is when the request
        came, by `time.perf_counter_ns`. Raises StoreError when the disk refuses, and then nothing was acknowledged."""
        return self.add(answers, now, branch, begun=begun, **how)[0]

    def add(self, answers: Sequence[Answer], now: int, branch: str, *, begun: int = 0, **how: str) -> tuple[list[str], list[bytes]]:
        """As `append`; returns beside the ids what is told of each answer, as JSON: a line begins with it."""
        known = {"asked": now, "branch": branch, **how}
        if begun:
            known["latency_us"] = (time.perf_counter_ns() - begun) // 1_000
        if trace := caller().trace:
            known["trace"] = trace
        ids, withheld = new_ids(now, len(answers)), self._withheld
        told: list[bytes] = []
        lines: list[bytes] = []
        for name, answer in zip(ids, answers, strict=True):
            said = {"id": name, **answer.told()}
            told.append(one := _encode(said))
            more = {**known, **answer.kept()}
            lines.append(_encode(withheld.of(said | more)) if withheld else spliced(one, _encode(more)))
        with span("log append", rows=len(answers)):
            self.write(lines)
        return ids, told


def spliced(one: bytes, other: bytes) -> bytes:
    """Two JSON objects as one; neither is empty.

    >>> spliced(b'{"a":1}', b'{"b":2}')
    b'{"a":1,"b":2}'
    """
    return b"%b,%b" % (one[:-1], other[1:])


class _Line(msgspec.Struct):
    """What the loop reads of a line."""

    branch: str
    key: str
    at_us: int
    probability: float
    version: str
    rung: str


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the log with what it rests on: `inputs` are the values that were served, categories as text; `versions` what they were
    read from; `sent` the columns that the request brought. Of an answer without its features both are empty. `withheld` are the names of
    `inputs` and of `sent` that are left out, or digests."""

    branch: str
    asked: int
    key: str
    at_us: int
    version: str
    rung: str
    features_from: str = ""
    features_missing: dict[str, str] = {}
    inputs: dict[str, float | str | None] = {}
    versions: dict[str, str] = {}
    sent: dict[str, Any] | None = None
    withheld: dict[str, list[str]] = {}


@dataclass(frozen=True)
class Sample:
    """Some answers of a branch's log, asked in [since, until): `rows` of those `kept` with their features, of `answers` in all."""

    since: int
    until: int
    answers: int
    kept: int
    rows: Sequence[Logged]


def sample_answers(path: Path, branch: str, since: int, until: int, most: int) -> Sample:
    """At most so many answers of versions of a branch, with what they rest on, in the order of the log. Which ones, a digest of key and
    times tells: the same every time, all alike likely. The constant of the ladder rests on nothing and is not counted."""
    answers = kept = 0
    heap: list[tuple[float, int, Logged]] = []  # those of the least shares, the greatest of them first
    for one in answers_at(path).read(Logged, since=since, until=until, like={"branch": branch}):
        if one.branch == branch and one.version and since <= one.asked < until:
            answers += 1
            if one.versions:
                kept += 1
                heappush(heap, (-share(f"{one.key}/{one.at_us}/{one.asked}", "skew"), -kept, one))
                if len(heap) > most:
                    heappop(heap)
    return Sample(since, until, answers, kept, [one for _, _, one in sorted(heap, key=lambda found: -found[1])])


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The answers of a log, oldest first; a line that was cut or damaged is left out."""
    return answers_at(path).read(dict[str, Any])


def find_answers(path: Path, branch: str, key: str = "") -> list[Prediction]:
    """What the versions of a branch answered, to one key or to all, oldest first."""
    like = {"branch": branch} | ({"key": key} if key else {})
    found = (one for one in answers_at(path).read(_Line, like=like) if one.branch == branch and (not key or one.key == key))
    return [Prediction(branch, path.stem, one.key, one.at_us, one.probability, one.version, one.rung) for one in found]
