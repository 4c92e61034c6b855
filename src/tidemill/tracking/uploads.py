"""Files that come in several parts, in any order and at once: each part is a blob; completed, they are one file. Parts of an upload that is
never completed, and what is left of the others, go with `tidemill gc`."""

import uuid
from collections.abc import Sequence

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Part
from tidemill.tracking.artifacts import put_file
from tidemill.tracking.limits import check_path

MOST = 10_000  # parts of one file, as S3 has it
DONE = 0  # parts of an upload that is complete
_CHUNK = 1 << 20


def begin_upload(ledger: Ledger, path: str, parts: int) -> str:
    """Begin the upload of a file; returns its id. Raises DataError for a path that is none, and for too many parts."""
    place = check_path(path)
    if not place or not 1 <= parts <= MOST:
        raise DataError(f"Invalid upload of {parts} parts to {path[:200]!r}", hint=f"a path, and 1 to {MOST} parts")
    upload = uuid.uuid4().hex
    row = (upload, place, parts, ledger.wall() // 1000)
    with ledger.records.transaction() as sql:
        sql.run("INSERT INTO upload (id, path, parts, begun_at) VALUES (?, ?, ?, ?)", row)
    return upload


def keep_part(ledger: Ledger, upload: str, number: int, part: Part) -> str:
    """Keep one part, numbered from 1, in place of what came before under its number; returns its digest. Raises UnknownName."""
    _, parts = _find(ledger, upload)
    if parts == DONE:
        raise DataError("the upload is complete: it takes no more parts")
    if not 1 <= number <= parts:
        raise DataError(f"the upload has {parts} parts and no part {number}")
    digest, size = part.keep()
    with ledger.records.transaction(synced=False) as sql:
        sql.run(
            "INSERT INTO upload_part (upload, number, digest, size) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (upload, number) DO UPDATE SET digest = excluded.digest, size = excluded.size",
            (upload, number, digest, size),
        )
    return digest


def complete_upload(ledger: Ledger, upload: str, path: str, given: Sequence[tuple[int, str]]) -> None:
    """Make one file of the parts, by their numbers; `given` is what the client says it has sent (number, digest). Again, it changes
    nothing: an answer may be lost. Raises UnknownName, and DataError for parts that are missing or other than was sent."""
    place, parts = _find(ledger, upload)
    if check_path(path) != place:
        raise DataError(f"the upload belongs to {place!r}, not to {path[:200]!r}")
    if parts == DONE:
        return
    with ledger.records.snapshot() as sql:
        there: dict[int, str] = dict(sql.all("SELECT number, digest FROM upload_part WHERE upload = ?", (upload,)))
    missing = [number for number in range(1, parts + 1) if number not in there]
    wrong = missing or [number for number, digest in given if there.get(number) != digest.strip('"')]
    if missing and _find(ledger, upload)[1] == DONE:
        return  # the same call, sent twice, ended in between
    if wrong:
        raise DataError(f"part {wrong[0]} of {parts} is missing or not what was sent", hint="send it again, then complete the upload")
    whole = ledger.blobs.part()
    try:
        for number in range(1, parts + 1):
            view = ledger.blobs.get(there[number])
            for at in range(0, len(view), _CHUNK):
                whole.write(bytes(view[at : at + _CHUNK]))
        put_file(ledger, place, whole)
    finally:
        whole.discard()
    with ledger.records.transaction() as sql:
        sql.run("UPDATE upload SET parts = ? WHERE id = ?", (DONE, upload))
        sql.run("DELETE FROM upload_part WHERE upload = ?", (upload,))


def abort_upload(ledger: Ledger, upload: str) -> None:
    """Forget an upload; one that is not there is fine."""
    with ledger.records.transaction() as sql:
        sql.run("DELETE FROM upload_part WHERE upload = ?", (upload,))
        sql.run("DELETE FROM upload WHERE id = ?", (upload,))


def drop_uploads(sql: Driver, before: int) -> int:
    """Forget uploads that were begun before an instant (milliseconds); returns how many of them were never completed."""
    open_ones = sql.run("DELETE FROM upload WHERE begun_at < ? AND parts <> ?", (before, DONE))
    sql.run("DELETE FROM upload WHERE begun_at < ?", (before,))
    sql.run("DELETE FROM upload_part WHERE upload NOT IN (SELECT id FROM upload WHERE parts <> ?)", (DONE,))
    return open_ones


def _find(ledger: Ledger, upload: str) -> tuple[str, int]:
    row = ledger.records.row("SELECT path, parts FROM upload WHERE id = ?", (upload,))
    if row is None:
        raise UnknownName(f"No such upload: '{upload[:100]}'", hint="it was aborted, forgotten, or never begun")
    return row[0], row[1]
