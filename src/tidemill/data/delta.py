"""Delta Lake tables in folders: rows are appended, read, deleted and tidied, each in one atomic commit of the library's.

An append moves the position of what it was taken from in the same commit, so what a killed process had moved is not moved again. Rows are
read as Parquet by the engine; Spark, Trino, Polars and DuckDB's own reader find the same.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from tidemill.core import Damaged, StoreError
from tidemill.data.engine import engine, explained, literal, named
from tidemill.store import store_error

if TYPE_CHECKING:
    from arro3.core.types import ArrowStreamExportable
    from deltalake import DeltaTable, WriterProperties

BY = ("deployment", "day")  # what tables are partitioned by
PLACE = "place"  # of each row: where it stood in what it was taken from, by which it has its order
SMALL = 8  # so many files of a day are made one
TARGET = 256 << 20  # bytes of a file, at most
BEGUN = 24  # hours for which files stay that no version has any more: who began to read goes on
ROWS = 100_000  # in a group of rows, which is left out as a whole where it cannot hold what is looked for
OTHER = "move it away, or what is in it, and run again: a new table is made"


class File(NamedTuple):
    """A file of a table: its rows are of one day, and stood in places [first, last]."""

    path: Path
    deployment: str
    day: date
    rows: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Snapshot:
    """A table as it was at one moment."""

    table: "DeltaTable"
    folder: Path

    def position(self, source: str) -> int:
        """Up to where a source was moved here."""
        return self.table.transaction_version(source) or 0

    @cached_property
    def files(self) -> Sequence[File]:
        """All files, by their days and places."""
        told = self.table.get_add_actions(flatten=True)
        names = ("path", "partition.deployment", "partition.day", "num_records", "size_bytes", f"min.{PLACE}", f"max.{PLACE}")
        if not told.num_rows:
            return []
        rows = zip(*(told.column(name).to_pylist() for name in names), strict=True)
        found = [File(self.folder / unquote(path), *rest) for path, *rest in rows]
        return sorted(found, key=lambda one: (one.deployment, one.day, one.first))

    def of(self, deployment: str, since: date = date.min, until: date = date.max) -> list[File]:
        """Those of a deployment, of days in [since, until]."""
        return [one for one in self.files if one.deployment == deployment and since <= one.day <= until]


@dataclass(frozen=True)
class Delta:
    """A table in a folder: `what` it is, for people, and its `columns` with their types, as the engine calls them."""

    folder: Path
    what: str
    columns: Mapping[str, str]

    def open(self) -> Snapshot | None:
        """The table as it is now; None where there is none. Raises Damaged, and StoreError for what is another's."""
        if not (self.folder / "_delta_log").exists():
            return None
        from deltalake import DeltaTable

        with _told(self.folder, self.what):
            table = DeltaTable(str(self.folder))
            names, by = {field.name for field in table.schema().fields}, table.metadata().partition_columns
        if tuple(by) != BY or not self._needed <= names:
            raise StoreError(f"the table there is not {self.what}", where=str(self.folder), hint=OTHER)
        _check_plain(table, self.what, self.folder)
        return Snapshot(table, self.folder)

    @property
    def _needed(self) -> set[str]:
        return {*BY, PLACE, "id"}

    def append(self, rows: "ArrowStreamExportable", source: str, position: int) -> None:
        """Add rows, and that the source was moved up to a position: both or nothing. Raises StoreError."""
        from deltalake import CommitProperties, Transaction, write_deltalake

        found = self.open()
        if found is None:
            self._check_empty()
        settings = {"delta.dataSkippingStatsColumns": PLACE, "delta.checkpointInterval": "20"}  # a log of commits without values
        moved = CommitProperties(app_transactions=[Transaction(source, position)])
        more: dict[str, Any] = {"configuration": settings, "name": self.folder.name, "description": self.what} if found is None else {}
        with _told(self.folder, self.what):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_deltalake(
                found.table if found else str(self.folder),
                rows,
                mode="append",
                partition_by=list(BY),
                schema_mode="merge",
                writer_properties=_properties(),
                commit_properties=moved,
                **more,
            )

    def _check_empty(self) -> None:
        """Raise StoreError where something else lies in the folder: what no version has is deleted there."""
        try:
            if self.folder.exists():
                odd = sorted(one.name for one in self.folder.iterdir() if not one.name.startswith((f"{BY[0]}=", "_delta_log")))
                if odd:
                    raise StoreError(f"{odd[0]} is in the place of {self.what}", where=str(self.folder), hint=OTHER)
        except NotADirectoryError as error:
            raise store_error(error, str(self.folder), self.what) from error

    def erase(self, deployment: str, ids: Collection[str]) -> int:
        """Write the days of a deployment that hold rows with these ids anew, without them, and delete all files of before, now and not when
        nobody can read them any more. The commits that tell of it name neither. Returns how many rows went. Raises StoreError."""
        from deltalake import write_deltalake

        found, rows = self.open(), 0
        if found is None or not ids:
            return 0
        for day in sorted({one.day for one in found.of(deployment)}):
            files = ", ".join(named(one.path) for one in found.of(deployment, day, day))
            held = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"
            with engine() as connection, explained(f"{self.what} cannot be read", str(self.folder)):
                connection.execute("CREATE TABLE gone AS SELECT unnest(?::VARCHAR[]) AS id", [sorted(ids)]).fetchall()
                some = connection.execute(f"SELECT count(*) FROM {held} WHERE id IN (FROM gone)").fetchall()[0][0]
                if some:
                    of = f"{literal(deployment)} AS deployment, DATE '{day}' AS day"
                    kept = connection.sql(f"SELECT *, {of} FROM {held} WHERE id NOT IN (FROM gone) ORDER BY {PLACE}")
                    part = f"deployment = {literal(deployment)} AND day = '{day}'"
                    with _told(self.folder, self.what):
                        write_deltalake(str(self.folder), kept, mode="overwrite", predicate=part, writer_properties=_properties())
            rows += some
        with _told(self.folder, self.what):
            found.table.update_incremental()
            _vacuum(found.table, 0)
        return rows

    def drop(self, before: date) -> int:
        """Delete the days before one; returns how many rows that were."""
        found = self.open()
        rows = sum(one.rows for one in found.files if one.day < before) if found else 0
        if found and rows:
            with _told(self.folder, self.what):
                found.table.delete(f"day < DATE '{before}'")
        return rows

    def tidy(self) -> None:
        """Make one file of the small ones of a day, where they are many, and delete what no version has had for a day."""
        found = self.open()
        if found is None:
            return
        days = dict[tuple[str, date], int]()
        for one in found.files:
            days[one.deployment, one.day] = days.get((one.deployment, one.day), 0) + (one.size < TARGET // 2)
        with _told(self.folder, self.what):
            for (deployment, day), small in sorted(days.items()):
                if small >= SMALL:
                    part = [("deployment", "=", deployment), ("day", "=", str(day))]
                    found.table.optimize.compact(part, target_size=TARGET, max_concurrent_tasks=1, writer_properties=_properties())
            _vacuum(found.table, BEGUN)


def files_of(folder: Path, what: str) -> list[Path]:
    """The Parquet files of the newest version of a table, of whoever made it. Raises Damaged and StoreError."""
    from deltalake import DeltaTable

    with _told(folder, what):
        table = DeltaTable(str(folder))
        _check_plain(table, what, folder)
        return sorted(folder / unquote(path) for path in table.get_add_actions(flatten=True).column("path").to_pylist())


def _check_plain(table: "DeltaTable", what: str, folder: Path) -> None:
    """Raise StoreError where Parquet files alone do not tell what the rows are: rows marked as deleted, columns under other names."""
    protocol = table.protocol()
    if protocol.reader_features or protocol.min_reader_version > 1:
        told = ", ".join(protocol.reader_features or [f"reader version {protocol.min_reader_version}"])
        hint = "copy its rows to a table without it; its writer has a setting for that"
        raise StoreError(f"{what} needs what is not known here: {told}", where=str(folder), hint=hint)


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """Turn an error of the library into ours."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except OSError as error:
        raise store_error(error, str(folder), what) from error
    except DeltaError as error:
        said, number = str(error).splitlines()[0], re.search(r"os error (\d+)", str(error))
        if number:
            raise store_error(OSError(int(number[1]), said), str(folder), what) from error
        hint = "restore the folder, or move it away: a new table is made, of what comes from now on"
        raise Damaged(f"{what} cannot be read or written: {said}", where=str(folder), hint=hint) from error


def _vacuum(table: "DeltaTable", hours: int) -> None:
    """Delete files that no version has had for so long; those too of which a killed process had not told any."""
    table.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False, full=True)


def _properties() -> "WriterProperties":
    from deltalake import WriterProperties

    return WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=ROWS)
