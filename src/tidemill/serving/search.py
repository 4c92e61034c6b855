"""Lines of a file of a log by their ids, or from a time on, without reading the lines before.

A line is written when its answer is made: so by when that was, `asked` and `latency_us`, they stand in order, but for those of several
threads and processes that wrote at once, and for a clock that went back.
"""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

import msgspec

from tidemill.core import MINUTE

T = TypeVar("T")
AROUND = 64 << 10  # bytes, within which the beginning is not looked for more closely
EARLY = MINUTE  # how far a line may stand before its time
LATE = 10 * MINUTE  # how long an answer may take to be searched for


class _Mark(msgspec.Struct):
    """What a line is found by; those of before 0.2 have no id."""

    asked: int
    id: str = ""
    latency_us: int = 0

    @property
    def written(self) -> int:
        return self.asked + self.latency_us


_mark = msgspec.json.Decoder(_Mark).decode


def find_lines(file: BinaryIO, times: Mapping[str, int], kind: type[T], *, thorough: bool = False) -> dict[str, T]:
    """The lines with these ids, asked at these times, as such values, by id; `thorough` reads the whole file for those that stand
    elsewhere than their time says."""
    found, decode = dict[str, T](), msgspec.json.Decoder(kind).decode
    for group in _together(times):
        wanted, last = {*group}, times[group[-1]]
        for line, mark in _from(file, _start(file, times[group[0]] - EARLY)):
            if mark.id in wanted:
                wanted.discard(mark.id)
                found[mark.id] = decode(line)
            if not wanted or mark.written > last + LATE:
                break
    wanted = {*times} - found.keys()
    for line, mark in _from(file, 0) if thorough and wanted else ():
        if mark.id in wanted:
            found[mark.id] = decode(line)
    return found


def lines_since(file: BinaryIO, since: int, begin: int = 0) -> Iterator[bytes]:
    """The lines from a place on (bytes), in their order; of those that were asked before a time (microseconds UTC) most are left out."""
    return _lines(file, max(begin, _start(file, since - EARLY) if since else 0))


def _together(times: Mapping[str, int]) -> Iterator[list[str]]:
    """The ids by their times, those in one list that are read at once."""
    group = list[str]()
    for name in sorted(times):
        if group and times[name] - times[group[-1]] > LATE:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _start(file: BinaryIO, written: int) -> int:
    """A place before which no line was written from a time on: the beginning of a line."""
    low, high = 0, file.seek(0, 2)
    while high - low > AROUND:
        middle = (low + high) // 2
        mark = next((mark for _, mark in _from(file, middle, part=True)), None)
        if mark is not None and mark.written < written:
            low = middle
        else:
            high = middle
    if not low:
        return 0
    file.seek(low)
    file.readline()
    return file.tell()


def _from(file: BinaryIO, place: int, *, part: bool = False) -> Iterator[tuple[bytes, _Mark]]:
    """The lines from a place on, which may be in the middle of one; a line that was cut or damaged is none."""
    for line in _lines(file, place, part=part):
        try:
            yield line, _mark(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def _lines(file: BinaryIO, place: int, *, part: bool = False) -> Iterator[bytes]:
    file.seek(place)
    if part:
        file.readline()
    return (line for line in file if line.endswith(b"\n"))
