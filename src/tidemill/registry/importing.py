"""Takes registered models, their versions and aliases over from MLflow, with their numbers. What is there already is left as it is."""

from typing import Any

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.of_loop import looped
from tidemill.registry.values import check_alias, check_name, number_of
from tidemill.store import Driver
from tidemill.tracking import Imported, Source, freeze

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
        there_now = [pair for pair in zip(numbers, versions, strict=True) if pair[1].get("current_stage") != GONE]
        taken = {number for number, one in there_now if _version(sql, name, number, one, done)}
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


def _version(sql: Driver, name: str, number: int, one: dict[str, Any], done: Imported) -> bool:
    """A version of that number; one that is there and was made at another time is another one, which is told: False."""
    created = int(one.get("creation_timestamp") or 0)
    there = sql.one("SELECT created_at FROM registered_version WHERE name = ? AND number = ?", (name, number))
    if there is not None and there[0] != created:
        done.problems.append(f"{done.source}: {name}/{number}: another version of this number is here")
        return False
    if there is None and not done.dry:
        source = str(one.get("source") or "")
        location = _place(sql, str(one.get("location") or source), source, done)
        kept = freeze(sql, location)
        shown = location if location and not source.startswith(("models:/", "runs:/")) else source
        texts = [str(one.get(key) or "") for key in ("description", "user_id")]
        run, link, model = (str(one.get(key) or "") for key in ("run_id", "run_link", "model_id"))
        rest = (str(one.get("current_stage") or "None"), shown, kept or source, run, link, model)
        state = (str(one.get("status") or "READY"), str(one.get("status_message") or ""))
        sql.run(
            "INSERT INTO registered_version (name, number, description, who, stage, source, location, run, run_link, model, status, "
            "message, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, number, *texts, *rest, *state, created, int(one.get("last_updated_timestamp") or created)),
        )
    tags = [] if done.dry else [(name, number, str(key), str(value)) for key, value in (one.get("tags") or {}).items()]
    sql.many("INSERT INTO registered_version_tag (name, number, key, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", tags)
    done.count("versions", new=there is None)
    return True


def _place(sql: Driver, location: str, source: str, done: Imported) -> str:
    """Where the files of a version lie here; an empty text where they stayed."""
    for uri in (location, source):
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
