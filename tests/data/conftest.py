"""A project's folder with one CSV file, and what becomes of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tidemill.core import Ref, TidemillError, UnknownName, Where
from tidemill.data import Columns, Dataset, Source, ingest, scan
from tidemill.ledger import Artifact, Ledger, Once

ROWS = "id,t,v,origin\n1,2013-01-01T10:00:00Z,5,JFK\n2,2013-01-01T11:00:00Z,,LGA\n3,2013-01-01T09:00:00Z,7,JFK\n"


class Folder:
    """A project's folder with one file, and datasets declared there at line 3 of flights.py."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger = folder, ledger
        self.where = Where(str(folder / "flights.py"), 3)
        folder.mkdir(exist_ok=True)

    def dataset(self, file: str = "rows.csv", null_values: Sequence[str] = (), **more: Any) -> Dataset:
        source = Source(file, null_values=null_values, where=self.where)
        return Dataset("d", {"s": source}, where=self.where, **({"event_time": "t"} | more))

    def ingest(self, rows: str | None = ROWS, **more: Any) -> Once:
        if rows is not None:
            (self.folder / "rows.csv").write_text(rows)
        return ingest(self.ledger, self.dataset(**more))

    def scan(self, version: Artifact, columns: dict[str, tuple[str, str]], where: str = "TRUE", **more: Any) -> Columns:
        return scan(self.ledger, self.dataset(), version, columns, where, **more)

    def refuses(self, kind: type[TidemillError], what: str, rows: str | None = ROWS, **more: Any) -> TidemillError:
        """The error of rows that cannot be taken; the failure is recorded and no version made."""
        with pytest.raises(kind, match=what) as error:
            self.ingest(rows, **more)
        assert error.type is kind
        assert {found.status for found in self.ledger.executions(kind="dataset")} <= {"failed"}
        with pytest.raises(UnknownName):
            self.ledger.artifact(Ref("dataset", "d"))
        return error.value


@pytest.fixture
def here(tmp_path: Path, ledger: Ledger) -> Folder:
    return Folder(tmp_path / "project", ledger)
