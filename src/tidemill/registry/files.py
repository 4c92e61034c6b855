"""Where the files of a version lie. Those of a version of the loop are laid there when they are first asked for."""

from collections.abc import Iterator
from pathlib import Path

from tidemill.core import Refused, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.mlflow_model import mlflow_model
from tidemill.registry.of_loop import Looped, digest_of, known_of, loop_versions, looped
from tidemill.registry.registered import is_due, location_of, one_version, settle
from tidemill.registry.values import check_name, number_of
from tidemill.store import store_error
from tidemill.tracking import check_path, find_file, list_files, place_of


def download_uri(ledger: Ledger, name: str, version: str) -> str:
    """Where the files of a version lie, which are its own from their first use on (`settle`); raises UnknownName."""
    number = number_of(version)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        one_version(ledger, sql, found, check_name(name), number)
        row = location_of(sql, found, name, number)
        assert row is not None
        own = loop_versions(found)  # a version that a client copied has the files of one of the loop
        same = sql.all(f"SELECT name, number FROM {own.text} WHERE ? IN (location, source)", (*own.values, row[0])) if own else []
        location = str(row[0])
        due = name not in found and (bool(same) or is_due(sql, name, number, location))
    for model, made in same[:1]:
        lay_out(ledger, found[model], made, location)
    if due:
        with ledger.records.transaction() as sql:
            location = settle(sql, name, number) or location
    return location


def export(ledger: Ledger, name: str, version: str, into: Path) -> list[str]:
    """Write the files of a version into a folder, byte for byte as they are kept; returns their paths. Nothing is loaded. Raises Refused
    for a folder that holds something, UnknownName where no files are kept here, and StoreError."""
    root = place_of(download_uri(ledger, name, version))
    places = {path: f"{root}/{path}" for path in files_below(ledger, root)}
    if not places and _there(ledger, root):  # the version is one file
        places = {root.rpartition("/")[2]: root}
    if not places:
        raise UnknownName(f"{name}/{version} has no files here", where=root, hint="its source lies elsewhere: download it from there")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise Refused("the folder holds something already", where=str(into), hint="name one that is empty or not there")
    inside = into.absolute()
    try:
        for path, place in places.items():
            target = inside / check_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            digest, _ = find_file(ledger, place)
            target.write_bytes(ledger.blobs.get(digest))
    except OSError as error:
        raise store_error(error, str(into)) from error
    return list(places)


def files_below(ledger: Ledger, root: str, path: str = "") -> Iterator[str]:
    """The paths of all files below a place, relative to it."""
    for one in list_files(ledger, root, path):
        if one.is_dir:
            yield from files_below(ledger, root, one.path)
        else:
            yield one.path


def lay_out(ledger: Ledger, one: Looped, number: int, location: str) -> None:
    """Put the model directory of a version of the loop where it lies, if it is not there yet: whole or not at all, since others make
    versions of it. Equal files are stored once."""
    place = place_of(location)
    if _there(ledger, f"{place}/MLmodel"):
        return
    files = directory(ledger, one, number)
    rows = [(f"{place}/{name}", ledger.blobs.put(content), len(content)) for name, content in files.items()]
    with ledger.records.transaction() as sql:
        put = "INSERT INTO artifact_file (path, digest, size) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
        sql.many(f"{put}digest = excluded.digest, size = excluded.size", rows)


def directory(ledger: Ledger, one: Looped, number: int) -> dict[str, bytes]:
    """The model directory of a version of the loop, by file."""
    with ledger.records.snapshot() as sql:
        artifact = digest_of(sql, one, number)
        version = one_version(ledger, sql, {one.name: one}, one.name, number)
        tags = {key.removeprefix("tidemill."): value for key, value in known_of(sql, one, number).items()}
    model, at = ledger.artifact_of("model", artifact), version.creation_timestamp * 1000
    return mlflow_model(ledger, model, label=f"{one.model}/{number}", run_id=version.run_id or "", at=at, tags=tags)


def _there(ledger: Ledger, path: str) -> bool:
    try:
        find_file(ledger, path)
    except UnknownName:
        return False
    return True
