"""Where the files of a version lie. Those of a version of the loop are laid there when they are first asked for."""

from collections.abc import Iterator
from pathlib import Path

from tidemill.core import Refused, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.mlflow_model import mlflow_model
from tidemill.registry.of_loop import Looped, all_versions, digest_of, known_of, loop_versions, looped
from tidemill.registry.registered import one_version
from tidemill.registry.values import check_name, number_of
from tidemill.store import store_error
from tidemill.tracking import check_path, find_file, list_files, place_of, put_file


def download_uri(ledger: Ledger, name: str, version: str) -> str:
    """Where the files of a version lie; raises UnknownName."""
    number = number_of(version)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        there = all_versions(found)
        one_version(ledger, sql, found, check_name(name), number)
        row = sql.one(f"SELECT location FROM {there.text} WHERE name = ? AND number = ?", (*there.values, name, number))
        assert row is not None
        own = loop_versions(found)  # a version that a client copied has the files of one of the loop
        same = sql.all(f"SELECT name, number FROM {own.text} WHERE location = ?", (*own.values, row[0])) if own else []
    for model, made in same[:1]:
        lay_out(ledger, found[model], made, str(row[0]))
    return str(row[0])


def export(ledger: Ledger, name: str, version: str, into: Path) -> list[str]:
    """Write the files of a version into a folder, byte for byte as they are kept; returns their paths. Nothing is loaded. Raises Refused
    for a folder that holds something, UnknownName where no files are kept here, and StoreError."""
    root = place_of(download_uri(ledger, name, version))
    names = list(files_below(ledger, root))
    if not names:
        raise UnknownName(f"{name}/{version} has no files here", where=root, hint="its source lies elsewhere: download it from there")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise Refused("the folder holds something already", where=str(into), hint="name one that is empty or not there")
    inside = into.absolute()
    try:
        for path in names:
            target = inside / check_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            digest, _ = find_file(ledger, f"{root}/{path}")
            target.write_bytes(ledger.blobs.get(digest))
    except OSError as error:
        raise store_error(error, str(into)) from error
    return names


def files_below(ledger: Ledger, root: str, path: str = "") -> Iterator[str]:
    """The paths of all files below a place, relative to it."""
    for one in list_files(ledger, root, path):
        if one.is_dir:
            yield from files_below(ledger, root, one.path)
        else:
            yield one.path


def lay_out(ledger: Ledger, one: Looped, number: int, location: str) -> None:
    """Put the model directory of a version of the loop where it lies, if it is not there yet. Equal files are stored once."""
    place = place_of(location)
    if _there(ledger, f"{place}/MLmodel"):
        return
    for name, content in directory(ledger, one, number).items():
        part = ledger.blobs.part()
        try:
            part.write(content)
            put_file(ledger, f"{place}/{name}", part)
        finally:
            part.discard()


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
