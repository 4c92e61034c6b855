"""Rows pushed to a project's datasets."""

from collections.abc import Sequence
from typing import Any

from tidemill import data, features, project
from tidemill.core import DataError, Ref, UnknownName, show
from tidemill.data import Dataset
from tidemill.features import OnlineStore, Pusher
from tidemill.ledger import Ledger


class Pushing:
    """What pushes to the datasets of a project; each is prepared once."""

    def __init__(self, declared: project.Project, store: OnlineStore) -> None:
        self._project, self._store, self._pushers = declared, store, dict[str, Pusher]()
        self._ledger: Ledger = declared.ledger()
        self._ledger.records.ensure(data.push_tables)

    def push(self, dataset: str, rows: Any, now: int, *, source: str = "", offsets: int | Sequence[int] = ()) -> dict[str, Any]:
        """What `Session.push` gives."""
        if dataset not in self._pushers:
            declared = self._project.get(Dataset, dataset)
            try:
                types = self._ledger.artifact(Ref("dataset", dataset)).meta["types"]
            except UnknownName:
                what = f"dataset {dataset!r} has no version yet, which tells what its columns are"
                raise DataError(what, hint="`tidemill run` or `tidemill features get` makes one") from None
            self._pushers[dataset] = Pusher(self._ledger, declared, types, self._store)
        many = features.whole_rows(rows, self._pushers[dataset].columns)
        numbers = [offsets] if isinstance(offsets, int) else list(offsets)
        found = self._pushers[dataset].push(many, now, source=source, offsets=numbers)
        taken = len(found.rows) if found else 0
        return {"dataset": dataset, "rows": taken, "skipped": len(many) - taken, "known": show(found.known) if found else None}

    def offset(self, dataset: str, source: str) -> int | None:
        """What `Session.pushed_offset` gives."""
        self._project.get(Dataset, dataset)
        return data.pushed_offset(self._ledger, dataset, source)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.records.close()
