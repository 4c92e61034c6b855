"""A log as a dataset, wherever its lines lie: the oldest in a table, then parts that were sealed to be moved there, then the file that is
being written to. Who reads does not know where: each line comes once, and in the order of the log.

A line goes one way: file, sealed part, table. So what is opened in this order misses none; and while the file is the same before and after
the table was opened, none of its lines is there.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from tidemill import data
from tidemill.core import DAY
from tidemill.data import Delta, Snapshot
from tidemill.serving.ids import asked_of
from tidemill.serving.lines import ANSWERS, TIME, Form
from tidemill.serving.search import find_lines, lines_since

T = TypeVar("T")
AT_ONCE = 5_000  # rows that are held
SPAN = 128 << 20  # bytes of the log, whose rows are put in order at once
FOREVER = 253402300799 * 10**6  # microseconds: the last second of the year 9999


class Part(NamedTuple):
    """A sealed part of a log: bytes [begin, end) of all that was ever written to it."""

    path: Path
    begin: int
    end: int


class Opened(NamedTuple):
    """All places of a log at one moment: `files` with the place in each from which on it is not in the table."""

    table: Snapshot | None
    files: list[tuple[BinaryIO, int]]


@dataclass(frozen=True)
class Log:
    """A log by its `live` file, in the `folder` of all logs."""

    live: Path
    folder: Path
    form: Form

    @property
    def deployment(self) -> str:
        """Whose it is."""
        return self.live.stem

    @property
    def table(self) -> Delta:
        """The table of all such logs."""
        types = {"deployment": "VARCHAR", "day": "DATE", data.PLACE: "BIGINT", **self.form.columns}
        return Delta(self.folder / "delta" / self.form.name, self.form.what, types)

    @property
    def sealed(self) -> Path:
        """The folder of its sealed parts."""
        return self.live.parent / "sealed" / self.deployment

    @property
    def parts(self) -> list[Part]:
        """The sealed parts, in their order."""
        found = (path for path in self.sealed.glob("*-*.jsonl") if path.stem.replace("-", "").isdigit())
        return sorted((Part(path, *map(int, path.stem.split("-"))) for path in found), key=lambda one: one.begin)

    def read(self, kind: type[T], *, since: int = 0, until: int = FOREVER, like: Mapping[str, str] | None = None) -> Iterator[T]:
        """The lines asked in [since, until) (microseconds UTC), as such values, in the order of the log; one that was cut or damaged is
        none. `like`: those with other values may be left out."""
        with ExitStack() as last:
            opened = self.open(last)
            if opened.table:
                yield from self._rows(opened.table, kind, since, until, like or {})
            decode, when = msgspec.json.Decoder(kind).decode, msgspec.json.Decoder(_When).decode
            for file, begin in opened.files:
                for line in lines_since(file, since, begin):
                    try:
                        if (since == 0 and until == FOREVER) or since <= when(line).asked < until:
                            yield decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        continue

    def find(self, ids: Collection[str], kind: type[T], *, thorough: bool = False) -> dict[str, T]:
        """The lines with these ids, as such values, by id; `thorough` looks in files for those too that stand elsewhere than their time
        says. Raises DataError for what is no id."""
        times = {name: asked_of(name) for name in ids}
        found = dict[str, T]()
        for path in (self.live, *(part.path for part in self._parts_now())):
            try:
                with path.open("rb") as file:
                    found |= find_lines(file, {name: times[name] for name in times.keys() - found.keys()}, kind, thorough=thorough)
            except FileNotFoundError:
                continue  # moved on, to where is looked next
        left = times.keys() - found.keys()
        table = self.table.open() if left else None
        if table:
            names = [*{*self.form.columns_of(kind), "id"}]
            for day in sorted({day_of(times[name]) for name in left}):
                some = ", ".join(data.literal(name) for name in sorted(left) if day_of(times[name]) == day)
                for row in self._select(table, names, day, day, f"id IN ({some})"):
                    found[row["id"]] = msgspec.convert(self.form.back(dict(row)), kind)
        return found

    def _parts_now(self) -> Iterator[Part]:
        """The sealed parts, looked for when they are asked for: after the file."""
        yield from self.parts

    def open(self, last: ExitStack) -> Opened:
        """All places of the log, of one moment."""
        while True:
            with ExitStack() as own:
                live = _opened(self.live, own)
                parts = [(file, part) for part in self.parts if (file := _opened(part.path, own))]
                table = self.table.open()
                if live and not _same(live, self.live):
                    continue  # it was sealed meanwhile, and may be in the table
                moved = table.position(self.deployment) if table else 0
                files = [(file, max(0, moved - part.begin)) for file, part in parts if part.end > moved]
                last.push(own.pop_all())
                return Opened(table, [*files, *([(live, 0)] if live else [])])

    def _rows(self, table: Snapshot, kind: type[T], since: int, until: int, like: Mapping[str, str]) -> Iterator[T]:
        tests = [f"{data.quote(name)} = {data.literal(value)}" for name, value in like.items() if name in self.form.columns]
        tests += [f"epoch_us({self.form.by}) >= {since}"] if since else []
        tests += [f"epoch_us({self.form.by}) < {until}"] if until < FOREVER else []
        plain = not hasattr(kind, "__struct_fields__")
        for row in self._select(table, self.form.columns_of(kind), day_of(since), day_of(until), " AND ".join(tests)):
            line: Any = self.form.back(row)
            yield line if plain else msgspec.convert(line, kind)

    def _select(self, table: Snapshot, names: Collection[str], since: date, until: date, where: str) -> Iterator[dict[str, Any]]:
        """Rows of days in [since, until] in the order of the log, times as microseconds UTC."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for paths, first, last in _in_order(table, self.deployment, since, until):
            with data.engine() as connection, data.explained(f"{self.form.what} cannot be read", str(self.table.folder)):
                rows = f"read_parquet([{', '.join(map(data.named, paths))}], union_by_name = true, hive_partitioning = false)"
                there = {one[0] for one in connection.execute(f"SELECT * FROM {rows} LIMIT 0").description}
                told = ", ".join(f"{data.literal(name)}: {self._told(name)}" for name in names if name in there)
                also = f"AND {where}" if where else ""
                for low in range(first, last + 1, SPAN):  # what is put in order lies in memory
                    only = f"{data.PLACE} BETWEEN {low} AND {low + SPAN - 1} {also}"
                    connection.execute(f"SELECT to_json({{{told}}}) FROM {rows} WHERE {only} ORDER BY {data.PLACE}")
                    while some := connection.fetchmany(AT_ONCE):
                        for (text,) in some:
                            yield decode(text)

    def _told(self, name: str) -> str:
        return f"epoch_us({data.quote(name)})" if self.form.columns[name] == TIME else data.quote(name)


class _When(msgspec.Struct):
    asked: int


def answers_at(path: Path) -> Log:
    """The log of answers whose file that is."""
    return Log(path, path.parent, ANSWERS)


def deployments_in(folder: Path) -> list[str]:
    """The deployments that have a log of answers in a folder."""
    table = answers_at(folder / "any.jsonl").table.open()
    found = {one.deployment for one in table.files} if table else set()
    return sorted(found | {path.stem for path in folder.glob("*.jsonl")} | {path.name for path in (folder / "sealed").glob("*")})


def day_of(time: int) -> date:
    """The day of microseconds UTC.

    >>> day_of(86_400_000_000)
    datetime.date(1970, 1, 2)
    """
    return datetime.fromtimestamp(min(time, FOREVER) // DAY * 86_400, UTC).date()


def _in_order(table: Snapshot, deployment: str, since: date, until: date) -> Iterator[tuple[list[Path], int, int]]:
    """Files of a table by the places of their rows, and the first and the last place; those whose places overlap together."""
    found, first, last = list[Path](), 0, -1
    for one in sorted(table.of(deployment, since, until), key=lambda one: one.first):
        if found and one.first > last:
            yield found, first, last
            found = []
        first = first if found else one.first
        found.append(one.path)
        last = max(last, one.last)
    if found:
        yield found, first, last


def _opened(path: Path, last: ExitStack) -> BinaryIO | None:
    try:
        return last.enter_context(path.open("rb"))
    except FileNotFoundError:
        return None


def _same(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still lies under its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
