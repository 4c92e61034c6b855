"""Training rows: rows that somebody brings, with their features, as an artifact that is made again to the same digest.

Comes in: rows by their content, the views with their versions, and a knowledge cut-off. Goes out: a Parquet file among the blobs.
"""

import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core import DataError, MissingFile, Ref, definition, digest_bytes
from tidemill.data import CODE as DATA_CODE
from tidemill.data import engine, table
from tidemill.features.frames import TAKEN, Arrow, Stored, open_rows, write_rows
from tidemill.features.historical import MEMORY, Historical, Listen, Question, Report, historical, quiet
from tidemill.features.outputs import code_for, models_of
from tidemill.features.request_rows import Computed
from tidemill.ledger import Artifact, Execution, Ledger, Made, Once
from tidemill.store import put_file

KIND = "training rows"


@dataclass(frozen=True)
class Brought:
    """Rows, and what they are by their content: `given` is what they are read from, `file` where that lies, `meta` what is recorded. Rows
    of no file of the user's are `kept` in the ledger."""

    ref: Ref
    given: object
    file: Path
    meta: Mapping[str, Any]
    kept: bool = False

    def record(self, ledger: Ledger) -> None:
        """Write down that there are such rows, and keep those that lie nowhere else."""
        meta = {**self.meta, "blobs": {"rows": self.ref.digest}} if self.kept else dict(self.meta)
        ledger.put_artifact(Artifact(self.ref, meta))
        if self.kept and not ledger.blobs.has(self.ref.digest):
            put_file(ledger.blobs, self.file)

    def check(self) -> None:
        """Raise DataError for a file that was written to since: the rows would be told to come from another content."""
        if self.ref.kind == "source" and digest_of(self.file) != self.ref.digest:
            raise DataError(f"{self.file.name} changed while it was read", where=str(self.file), hint="ask again when it is written")


@contextmanager
def bring(rows: object, name: str) -> Iterator[Brought]:
    """Rows of anything that `historical` takes, by their content; what is no file is written to one as it comes, some at a time. Raises
    MissingFile and DataError."""
    if isinstance(rows, (str, Path)):
        path = Path(rows)
        if not path.is_file():
            raise MissingFile(f"there is no file {path.name!r}", where=str(path), hint=f"give {TAKEN}")
        yield Brought(Ref.of("source", path.name, digest_of(path)), path, path, {"file": path.name, "bytes": path.stat().st_size})
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch:
        file = Path(scratch) / "brought.parquet"
        with engine(str(Path(scratch) / "rows.db")) as connection:
            connection.execute(f"SET memory_limit = '{MEMORY}'")
            given = open_rows(connection, rows, (), whole=True)
            write_rows(connection, f"SELECT * FROM {given.table}", file, "zstd")
        yield Brought(Ref.of("rows", name, digest_of(file)), Stored(given.what, f"SELECT * FROM {table(file)}"), file, {}, kept=True)


def rows_of(ledger: Ledger, version: Artifact, until: int | None) -> Brought:
    """The rows of a dataset version that were known by `until`, in its order."""
    file = ledger.blobs.path(version.blob("rows"))
    known = "" if until is None else f" WHERE __known <= {until}"
    sql = f"SELECT * EXCLUDE (__event, __known) FROM {table(file)}{known}"
    return Brought(version.ref, Stored(f"dataset {version.ref.name!r}", sql), file, version.meta)


def save_rows(ledger: Ledger, name: str, brought: Brought, question: Question, *, chunk: int = 0, listen: Listen = quiet) -> Once:
    """The training rows of a question: from the cache where all of it is known, otherwise made, `chunk` rows at a time, and recorded with
    their lineage."""
    brought.record(ledger)

    def make() -> Made:
        with made(brought, question, chunk, listen) as (file, report):
            digest = put_file(ledger.blobs, file)
        meta = {"blobs": {"rows": digest}, "rows": report.rows, "features": question.names}
        datasets = {one.view.dataset.name: definition(one.view.dataset) for one in question.computed.values()}
        params = {"report": report.plain(), "file": str(brought.file.absolute()), "datasets": datasets}
        return Made({"rows": Artifact(Ref.of(KIND, name, digest), meta)}, params, {"rows": float(report.rows)})

    code = code_for((one.view for one in question.computed.values()), (*DATA_CODE, "features"))
    return ledger.once(KIND, name, _inputs(brought, question), make, code=code)


@contextmanager
def made(brought: Brought, question: Question, chunk: int, listen: Listen) -> Iterator[tuple[Path, Report]]:
    """The file with the features of rows, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="tidemill-") as scratch:
        file = Path(scratch) / "rows.parquet"
        found = historical(brought.given, question, file, chunk=chunk, compression="zstd", listen=listen)
        brought.check()
        yield file, found.report


def _inputs(brought: Brought, question: Question) -> dict[str, Any]:
    """All that decides what comes out."""
    views = {name: one.version.ref for name, one in question.opened.items() if one.version}
    own = {name: _request_view(one) for name, one in question.computed.items()}
    definitions = {name: definition(one.log.view) for name, one in question.opened.items()}
    keys = {name: {column: one.types[column] for column in one.log.view.entity.keys} for name, one in question.opened.items()}
    asked = {"features": question.names, "at": question.at, "timezone": question.timezone, "until": question.until}
    asked |= {"as_known": question.as_known, "status": question.status}
    found = {"rows": brought.ref, "views": views, "definitions": definitions, "keys": keys, "request views": own, **asked}
    return {**found, **models_of(one.view for one in question.computed.values())}


def _request_view(one: Computed) -> dict[str, Any]:
    """What decides of a request view: how it is defined, and how the columns that it reads are held."""
    return {"definition": definition(one.view), "types": dict(one.types), "timezone": one.view.dataset.timezone}


def load_rows(ledger: Ledger, saved: Artifact, execution: int = 0, why: str = "") -> Historical:
    """Saved rows, as they lie in the ledger: nothing is read before it is asked for. `execution` made them, by default the newest that did;
    `why` it ran."""
    file = ledger.blobs.path(saved.blob("rows"))
    with ExitStack() as stack:
        frame = Arrow(stack.enter_context(engine()), f"SELECT * FROM {table(file)}", {}, stack.pop_all())
    report = Report.of((ledger.execution(execution) if execution else execution_of(ledger, saved.ref)).params["report"])
    return Historical(frame, {}, report, file, saved.ref, why)


def execution_of(ledger: Ledger, ref: Ref) -> Execution:
    """The newest execution that made saved rows."""
    return ledger.execution(max(edge.execution for edge in ledger.parents(ref)))


def digest_of(file: Path) -> str:
    """The digest of the bytes of a file."""
    with file.open("rb") as opened:
        if not file.stat().st_size:
            return digest_bytes(b"")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return digest_bytes(memoryview(view))
