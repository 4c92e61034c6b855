"""Files of runs and logged models, as MLflow's artifact proxy serves them: a path names a blob, and equal files are stored once."""

import re
import uuid
from collections.abc import Sequence
from itertools import accumulate

from tidemill.core import DataError, Refused, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Part, Row
from tidemill.tracking.experiments import FROZEN, ROOT
from tidemill.tracking.limits import check_path
from tidemill.tracking.models import STATUSES, get_model
from tidemill.tracking.values import FileInfo

MOST_FROZEN = 10_000  # files of one version
FEW, MANY = 16, 4_096  # rows that are read at once: of a folder that may end with the next one, and of one that goes on


def put_file(ledger: Ledger, path: str, part: Part) -> None:
    """Keep an uploaded file under a path, in place of what was there."""
    path = check_path(path)
    if not path:
        raise DataError("Invalid path: ''", hint="name the file")
    _refuse_frozen(path)
    above = list(accumulate(path.split("/")[:-1], "{}/{}".format))
    digest, size = part.keep()
    with ledger.records.transaction(synced=False) as sql:  # as lasting as the file itself, which is not synced either
        marks = "".join("?, " * len(above))
        query = f"SELECT path FROM artifact_file WHERE path IN ({marks}NULL) OR (path >= ? AND path < ?) LIMIT 1"
        found = sql.one(query, (*above, f"{path}/", f"{path}0"))
        if found is not None:
            what = f"'{found[0]}' is a file, and no folder" if found[0] in above else f"'{path}' is a folder"
            raise DataError(f"Invalid path: {what}", hint="give the file another name")
        sql.run(
            "INSERT INTO artifact_file (path, digest, size) VALUES (?, ?, ?) "
            "ON CONFLICT (path) DO UPDATE SET digest = excluded.digest, size = excluded.size",
            (path, digest, size),
        )


def freeze(sql: Driver, location: str) -> str:
    """A place of their own, which nobody writes to, for the files of a location as they are now, a folder or one file: a row for each,
    since equal bytes are stored once. The location itself where it has no files here. Raises DataError for one that holds more than a
    model does."""
    try:
        place = place_of(location)
    except DataError:  # elsewhere, or nowhere that files can lie
        return location
    if not place or f"{place}/" == FROZEN:
        raise DataError(f"Invalid model version source: '{location}' is no folder of a model")
    rows = _rows(sql, place)
    if len(rows) > MOST_FROZEN:
        raise DataError(
            f"Invalid model version source: '{location}' holds more than {MOST_FROZEN:,} files", hint="name the folder of one model"
        )
    alone = any(path == place for path, *_ in rows)
    folder = place.rpartition("/")[0] if alone else place
    return keep_frozen(sql, [(path.removeprefix(f"{folder}/"), *kept) for path, *kept in rows], alone=alone) if rows else location


def keep_frozen(sql: Driver, files: Sequence[Row], *, alone: bool = False) -> str:
    """A new place for files, each its path, digest and size, that nobody writes to. `alone`: the place is the one file."""
    own = f"{FROZEN}{uuid.uuid4().hex}"
    copies = [(f"{own}/{path}", digest, size) for path, digest, size in files]
    sql.many("INSERT INTO artifact_file (path, digest, size) VALUES (?, ?, ?)", copies)
    return ROOT + (copies[0][0] if alone else own)


def is_whole(sql: Driver, location: str, *makers: str) -> bool:
    """Whether a location has files here, as many as a model has, and nothing that puts them there goes on: none of the runs and logged
    models that are named, or that the location is of. What is unknown is over."""
    try:
        place = place_of(location)
    except DataError:
        return False
    if not place or f"{place}/" == FROZEN:
        return False
    ids = list({*makers, *place.split("/")} - {""})
    marks = ", ".join("?" * len(ids))
    going = (
        "SELECT 1 FROM run AS r JOIN execution AS e ON e.id = r.execution WHERE e.status IN ('running', 'scheduled') "
        f"AND r.stage = 'active' AND (r.uid IN ({marks}) OR r.uid IN (SELECT run FROM logged_model WHERE id IN ({marks})))"
    )
    if sql.one(f"{going} LIMIT 1", (*ids, *ids)):
        return False
    if sql.one(f"SELECT 1 FROM logged_model WHERE status = ? AND stage = 'active' AND id IN ({marks})", (STATUSES[0], *ids)):
        return False
    return 0 < len(_rows(sql, place)) <= MOST_FROZEN


def has_files(sql: Driver, location: str) -> bool:
    """Whether a location of this server has files; raises DataError for one that lies elsewhere."""
    return bool(_rows(sql, place_of(location), most=1))


def _rows(sql: Driver, place: str, most: int = MOST_FROZEN + 1) -> list[Row]:
    """The files of a place, a folder or one file; of more than a model has, not all."""
    query = "SELECT path, digest, size FROM artifact_file WHERE path = ? OR (path >= ? AND path < ?) LIMIT ?"
    return sql.all(query, (place, f"{place}/", f"{place}0", most))


def frozen_place(location: str) -> str:
    """The folder that `freeze` made, where a location is that folder or the one file in it; else an empty text."""
    found = re.fullmatch(rf"({ROOT}{FROZEN}[0-9a-f]{{32}})(/[^/]+)?", location)
    return found[1] if found else ""


def thaw(sql: Driver, location: str) -> None:
    """Take the files of a place away that `freeze` made; what lies elsewhere stays."""
    place = frozen_place(location).removeprefix(ROOT)
    if place:
        sql.run("DELETE FROM artifact_file WHERE path >= ? AND path < ?", (f"{place}/", f"{place}0"))


def _refuse_frozen(path: str) -> None:
    if f"{path}/".startswith(FROZEN):
        raise Refused(f"'{path}' is of a registered version, whose files do not change", hint="register a new version")


def find_file(ledger: Ledger, path: str) -> tuple[str, int]:
    """(digest, size) of the file of a path; raises UnknownName."""
    row = ledger.records.row("SELECT digest, size FROM artifact_file WHERE path = ?", (check_path(path),))
    if row is None:
        raise UnknownName(f"No such artifact: '{path}'")
    return row[0], row[1]


def list_files(ledger: Ledger, root: str, path: str = "") -> list[FileInfo]:
    """What lies directly in a folder below a root, by name, with paths relative to the root. A path that is a file lists nothing."""
    root, path = check_path(root), check_path(path)
    folder = "/".join(part for part in (root, path) if part)
    prefix = f"{folder}/" if folder else ""
    found: dict[str, FileInfo] = {}
    shown = f"{path}/" if path else ""
    after, few = prefix, FEW
    query = "SELECT path, size FROM artifact_file WHERE path > ? AND path < ? ORDER BY path LIMIT ?"
    with ledger.records.snapshot() as sql:
        while rows := sql.all(query, (after, f"{prefix}\U0010ffff", few)):
            few = min(2 * few, MANY)
            for name, size in rows:
                head, slash, _ = name[len(prefix) :].partition("/")
                found.setdefault(head, FileInfo(f"{shown}{head}", bool(slash), None if slash else size))
                after = name
                if slash:  # the rest of a folder is passed over: it may hold any number of files
                    after, few = f"{prefix}{head}/\U0010ffff", FEW
                    break
    return [found[name] for name in sorted(found)]


def delete_files(ledger: Ledger, path: str) -> int:
    """Take a file, or a folder with all that is in it, away; returns how many files. The bytes go with the next clean-up."""
    path = check_path(path)
    if not path:
        raise DataError("Invalid path: ''", hint="name a file or a folder")
    _refuse_frozen(path)
    with ledger.records.transaction() as sql:
        there = sql.run("DELETE FROM artifact_file WHERE path = ? OR (path >= ? AND path < ?)", (path, f"{path}/", f"{path}/\U0010ffff"))
    if not there:
        raise UnknownName(f"No such artifact: '{path}'")
    return there


def place_of(location: str) -> str:
    """The path below the proxy's root of an artifact location; raises DataError for one that lies elsewhere."""
    if not location.startswith(ROOT):
        raise DataError(f"{location!r} does not lie on this server", hint="the client reads and writes it itself")
    return check_path(location.removeprefix(ROOT).lstrip("/"))


def files_of_model(ledger: Ledger, model_id: str) -> str:
    """Where the files of a logged model lie; raises UnknownName."""
    return get_model(ledger, model_id).info.artifact_uri


def files_of_run(ledger: Ledger, run_id: str) -> str:
    """Where the files of a run lie; raises UnknownName."""
    row = ledger.records.row("SELECT location FROM run WHERE uid = ?", (run_id,))
    if row is None:
        raise UnknownName(f"Run with id={run_id} not found")
    return str(row[0])
