"""Takes registered models, their versions and aliases over from MLflow, with their numbers. What is there already is left as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tidemill.core import DataError, StoreError, TidemillError, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.of_loop import looped
from tidemill.registry.values import PROMPT, check_alias, check_name, number_of
from tidemill.store import Driver, Row
from tidemill.tracking import (
    MOST_FROZEN,
    ROOT,
    Imported,
    Source,
    check_path,
    freeze,
    frozen_place,
    has_files,
    is_whole,
    keep_frozen,
    keep_pieces,
)

GONE = "Deleted_Internal"  # the stage of versions that were deleted


def import_registry(ledger: Ledger, source: Source, done: Imported) -> None:
    """Take over all registered models; runs and logged models must have been taken over before."""
    for model in source.registered():
        try:
            _model(ledger, source, model, done)
        except (DataError, UnknownName) as error:
            done.problems.append(f"{done.source}: registered model {str(model.get('name'))[:300]!r}: {error.what}")


def _model(ledger: Ledger, source: Source, model: dict[str, Any], done: Imported) -> None:
    name = check_name(str(model["name"]))
    versions = list(source.versions(name))
    numbers = [number_of(str(one["version"])) for one in versions]
    with ledger.records.transaction() as sql:
        if name in looped(sql):
            raise DataError("the loop has a model of this name: rename one of the two")
        there = sql.one("SELECT newest FROM registered_model WHERE name = ?", (name,))
        if not done.dry:
            _put_model(sql, model, max([*numbers, int(there[0]) if there else 0]), new=there is None)
    done.count("registered models", new=there is None)
    taken = set[int]()
    for number, one in zip(numbers, versions, strict=True):
        try:
            if one.get("current_stage") != GONE and _version(ledger, source, name, number, one, done):
                taken.add(number)
        except (DataError, UnknownName, StoreError, OSError) as error:
            what = error.what if isinstance(error, TidemillError) else error
            done.problems.append(f"{done.source}: {name[:300]}/{number}: {what}")
    with ledger.records.transaction() as sql:
        _aliases(ledger, sql, name, dict(model.get("aliases") or {}), taken, done)


def _put_model(sql: Driver, model: dict[str, Any], newest: int, *, new: bool) -> None:
    name, created = model["name"], int(model.get("creation_timestamp") or 0)
    if new:
        sql.run(
            "INSERT INTO registered_model (name, description, job, newest, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            (name, model.get("description") or "", "", newest, created, int(model.get("last_updated_timestamp") or created)),
        )
    else:
        sql.run("UPDATE registered_model SET newest = ? WHERE name = ?", (newest, name))
    tags = [(name, str(key), str(value)) for key, value in (model.get("tags") or {}).items()]
    sql.many("INSERT INTO registered_model_tag (name, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", tags)


def _version(ledger: Ledger, source: Source, name: str, number: int, one: dict[str, Any], done: Imported) -> bool:
    """A version of that number; one that is there and was made at another time is another one, which is told: False."""
    created = int(one.get("creation_timestamp") or 0)
    with ledger.records.snapshot() as sql:
        there = sql.one("SELECT created_at FROM registered_version WHERE name = ? AND number = ?", (name, number))
    if there is not None and there[0] != created:
        done.problems.append(f"{done.source}: {name}/{number}: another version of this number is here")
        return False
    own = _own_files(ledger, source, f"{name}/{number}", one, done) if there is None else _Files()
    if not done.dry:
        with ledger.records.transaction() as sql:
            if there is None:
                _put_version(sql, name, number, one, own, done)
            tags = [(name, number, str(key), str(value)) for key, value in (one.get("tags") or {}).items()]
            sql.many("INSERT INTO registered_version_tag (name, number, key, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", tags)
    done.count("versions", new=there is None)
    return True


def _put_version(sql: Driver, name: str, number: int, one: dict[str, Any], own: "_Files", done: Imported) -> None:
    source = str(one.get("source") or "")
    place, said = _places(sql, one, done)
    run, link, model = (str(one.get(key) or "") for key in ("run_id", "run_link", "model_id"))
    kept = place or said
    if own.rows:
        kept = keep_frozen(sql, own.rows, alone=own.alone)
    elif is_whole(sql, kept, run, model):
        kept = freeze(sql, kept)
    shown = source if source.startswith(("models:/", "runs:/")) else said or place or source
    texts = [str(one.get(key) or "") for key in ("description", "user_id")]
    rest = (str(one.get("current_stage") or "None"), shown, kept or source, run, link, model)
    state = (str(one.get("status") or "READY"), str(one.get("status_message") or ""))
    created = int(one.get("creation_timestamp") or 0)
    sql.run(
        "INSERT INTO registered_version (name, number, description, who, stage, source, location, run, run_link, model, status, "
        "message, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (name, number, *texts, *rest, *state, created, int(one.get("last_updated_timestamp") or created)),
    )


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Files:
    """Files of a version that were fetched: path, digest and size of each, relative to its place; or the place is the one file."""

    rows: Sequence[Row] = ()
    alone: bool = False


def _own_files(ledger: Ledger, source: Source, label: str, one: dict[str, Any], done: Imported) -> _Files:
    """The files of a version that did not come over with its run or logged model, kept as bytes that nothing names yet: those that the
    source froze, and those that lie outside. Where they cannot be listed, its source has to do, which is told; not so for frozen ones,
    since the source may have changed. Raises DataError, UnknownName and StoreError."""
    uri = str(one.get("location") or one.get("source") or "").rstrip("/")
    with ledger.records.snapshot() as sql:
        place, _ = _places(sql, one, done)
        here = bool(place) and (done.dry or not place.startswith(ROOT) or has_files(sql, place))
    if here or not uri or (done.dry and uri.startswith(("models:/", "runs:/"))) or str((one.get("tags") or {}).get(PROMPT)) == "true":
        return _Files()
    try:
        root, files = _listed(source, label, uri)
    except (DataError, UnknownName, StoreError, OSError) as error:
        if frozen_place(uri):
            raise
        done.problems.append(f"{done.source}: files of version {label}: {error.what if isinstance(error, TidemillError) else error}")
        return _Files()
    rows = []
    for path, size in dict(files).items():
        if path.startswith("/") or not check_path(path):
            raise DataError(f"Invalid path: {path[:200]!r}")
        if not done.dry:
            digest, size = keep_pieces(ledger, source.read("version", label, root, path))
            rows.append((check_path(path), digest, size))
        done.count("files", new=True)
        done.count("bytes", new=True, many=size)
    return _Files(rows, alone=root != uri)


def _listed(source: Source, label: str, uri: str) -> tuple[str, list[tuple[str, int]]]:
    """The files of a version that lies at a URI, and what their paths are relative to: of a frozen file, its folder."""
    folder, _, name = uri.rpartition("/")
    root = folder if frozen_place(folder) else uri
    files = list(islice(source.files("version", label, root), MOST_FROZEN + 1))
    if len(files) > MOST_FROZEN:
        raise DataError(f"{uri[:300]} holds more than {MOST_FROZEN:,} files")
    return root, [one for one in files if root == uri or one[0] == name]


def _places(sql: Driver, one: dict[str, Any], done: Imported) -> tuple[str, str]:
    """Where the files of a version lie here, and those of its source; an empty text for what did not come over with a run or model."""
    source = str(one.get("source") or "")
    return _place(sql, str(one.get("location") or source), done), _place(sql, source, done)


def _place(sql: Driver, uri: str, done: Imported) -> str:
    """Where the files of a URI there lie here; an empty text where they stayed."""
    if uri.startswith("models:/"):
        row = sql.one("SELECT location FROM logged_model WHERE id = ?", (uri.removeprefix("models:/"),))
        version = uri.removeprefix("models:/").rpartition("/")
        if row is None and version[2].isdecimal() and len(version[2]) < 10:
            query = "SELECT location FROM registered_version WHERE name = ? AND number = ?"
            row = sql.one(query, (version[0], int(version[2])))
        if row:
            return str(row[0])
    if uri.startswith("runs:/"):
        run, _, path = uri.removeprefix("runs:/").partition("/")
        row = sql.one("SELECT location FROM run WHERE uid = ?", (run,))
        if row:
            return f"{row[0]}/{path}"
    head, rest = uri.rstrip("/"), ""
    while head:
        if head in done.moved:
            return f"{done.moved[head]}{rest}"
        head, slash, name = head.rpartition("/")
        rest = f"{slash}{name}{rest}"
    return ""


def _aliases(ledger: Ledger, sql: Driver, name: str, aliases: dict[str, str], taken: set[int], done: Imported) -> None:
    """Aliases that were never set here, of versions that came from there; one that was is moved here alone."""
    for alias, version in aliases.items():
        check_alias(alias)
        known = sql.one("SELECT 1 FROM alias WHERE branch = '' AND name = ? AND alias = ?", (name, alias))
        if known is None and number_of(str(version)) not in taken:
            done.problems.append(f"{done.source}: {name}: the alias {alias[:300]!r} is of version {version}, which was not taken over")
            continue
        if known is None and not done.dry:
            told: dict[str, Any] = {"at": ledger.wall(), "who": "import", "why": f"imported from {done.source}"}
            ledger.move_alias(sql, "", name, alias, str(number_of(str(version))), **told)
        done.count("aliases", new=known is None)
