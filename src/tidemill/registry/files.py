"""Where the files of a version lie. Those of a version of the loop are laid there when they are first asked for."""

from tidemill.core import UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.mlflow_model import mlflow_model
from tidemill.registry.of_loop import Looped, all_versions, digest_of, known_of, looped
from tidemill.registry.registered import one_version
from tidemill.registry.values import check_name, number_of
from tidemill.tracking import find_file, place_of, put_file


def download_uri(ledger: Ledger, name: str, version: str) -> str:
    """Where the files of a version lie; raises UnknownName."""
    number = number_of(version)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        there = all_versions(found)
        one_version(ledger, sql, found, check_name(name), number)
        row = sql.one(f"SELECT location FROM {there.text} WHERE name = ? AND number = ?", (*there.values, name, number))
        assert row is not None
        same = sql.all(
            f"SELECT name, number FROM {there.text} WHERE location = ?", (*there.values, row[0])
        )  # a copy has the files of another
    for model, own in same:
        if model in found:
            lay_out(ledger, found[model], own, str(row[0]))
    return str(row[0])


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
