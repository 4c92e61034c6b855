"""Versions of registered models, by the number that they were given: what they are does not change, what is said of them does."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_plus

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.names import aliases_of, condition, must_exist, sort, touch
from tidemill.registry.of_loop import COLUMNS, Found, Looped, all_versions, known_of, looped, owner_of, refuse
from tidemill.registry.values import PROMPT, SOURCE, STAGES, ModelVersion, check_name, check_tag, number_of, stage_of
from tidemill.store import Driver, Row
from tidemill.tracking import (
    VERSIONS,
    Pair,
    all_of,
    below,
    freeze,
    frozen_place,
    is_whole,
    note_version,
    page_size,
    parse,
    parse_order,
    rows_before,
    thaw,
    write_token,
)


def create_version(
    ledger: Ledger,
    name: str,
    source: str,
    *,
    run_id: str = "",
    tags: Sequence[Pair] = (),
    run_link: str = "",
    description: str = "",
    model_id: str = "",
    who: str = "",
) -> ModelVersion:
    """The next version of a model, from where its files lie. Raises UnknownName and DataError."""
    pairs, now = [check_tag(one) for one in tags], ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        refuse(found, name, "the loop alone makes its versions; register yours under another name")
        prompt = (PROMPT, "true") in pairs  # a text has no files
        location = source if prompt else _checked_source(sql, found, source, run_id)
        run_id, model_id = _made_by(sql, source, run_id, model_id)
        location = location if prompt else freeze(sql, location)
        sql.run("UPDATE registered_model SET newest = newest + 1, updated_at = ? WHERE name = ?", (now, name))
        row = sql.one("SELECT newest FROM registered_model WHERE name = ?", (name,))
        assert row is not None
        number = int(row[0])
        sql.run(
            f"INSERT INTO registered_version ({COLUMNS}, location) VALUES (?, ?, ?, ?, ?, 'None', ?, ?, ?, 'READY', '', ?, ?, ?)",
            (name, number, now, now, who, description, source, run_id, run_link, model_id, location),
        )
        _put_version_tags(sql, name, number, pairs)
        note_version(sql, model_id, name, number)
        return one_version(ledger, sql, found, name, number)


def thaw_unnamed(sql: Driver, locations: Iterable[str]) -> None:
    """Take the files of versions away that are gone, where no other version names the same place: a prompt's source is any text."""
    places = {frozen_place(one) for one in locations} - {""}
    left = {frozen_place(one) for (one,) in sql.all("SELECT location FROM registered_version")} if places else set()
    for place in places - left:
        thaw(sql, place)


def settle(sql: Driver, name: str, number: int) -> str:
    """Where the files of a client's version lie. A version may be registered before they are there: they become its own with its first use
    after that, once the run that puts them there is over."""
    row = sql.one("SELECT location FROM registered_version WHERE name = ? AND number = ?", (name, number))
    location = str(row[0]) if row else ""
    if is_due(sql, name, number, location):
        location = freeze(sql, location)
        sql.run("UPDATE registered_version SET location = ? WHERE name = ? AND number = ?", (location, name, number))
    return location


def is_due(sql: Driver, name: str, number: int, location: str) -> bool:
    """Whether the files of a client's version at its location are still to become its own, and can by now."""
    if frozen_place(location):
        return False
    row = sql.one("SELECT run, model FROM registered_version WHERE name = ? AND number = ?", (name, number))
    prompt = "SELECT 1 FROM registered_version_tag WHERE name = ? AND number = ? AND key = ? AND value = 'true'"  # a text has no files
    return row is not None and not sql.one(prompt, (name, number, PROMPT)) and is_whole(sql, location, *map(str, row))


def _made_by(sql: Driver, source: str, run_id: str, model_id: str) -> tuple[str, str]:
    """The run and the logged model that a version comes from: a client that registers a logged model names only that one."""
    wanted = model_id or source.removeprefix("models:/")
    row = sql.one("SELECT id, run FROM logged_model WHERE id = ?", (wanted,)) if model_id or wanted != source else None
    return (run_id or row[1], row[0]) if row else (run_id, model_id)


def _checked_source(sql: Driver, found: Found, source: str, run_id: str) -> str:
    """Where the files of a source lie. A path of the server itself must belong to the run that is named."""
    if not source:
        raise DataError("Missing value for required parameter 'source'. See the API docs for more information about request parameters.")
    if len(source) > SOURCE:
        raise DataError(f"Invalid model version source: '{source[:300]}...'. It is longer than {SOURCE} characters.")
    if source.startswith("models:/"):
        wanted = source.removeprefix("models:/")
        row = sql.one("SELECT location FROM logged_model WHERE id = ? AND stage = 'active'", (wanted,))
        if row is None and "/" in wanted:
            name, _, version = wanted.partition("/")
            number = int(version) if version.isdecimal() else -1
            settle(sql, name, number)
            row = location_of(sql, found, name, number)
        if row is None:
            raise DataError(f"Unable to fetch model from model URI source artifact location '{source}'.")
        return str(row[0])
    _check_place(sql, source, run_id)
    if source.startswith("runs:/"):
        run, _, path = source.removeprefix("runs:/").partition("/")
        row = sql.one("SELECT location FROM run WHERE uid = ?", (run,))
        if row is None:
            raise DataError(f"Unable to find the run of '{source}': Run with id={run} not found")
        return below(str(row[0]), *filter(None, [path]))
    return source


def _check_place(sql: Driver, source: str, run_id: str) -> None:
    """Raises DataError for a source with a way out of where it says to lie, and for a path of the server that is not the run's."""
    plain, before = source, ""
    while plain != before:  # a client may have encoded it more than once
        plain, before = unquote_plus(plain), plain
    leads_out = "\0" in plain or ".." in re.split(r"[/\\]", plain)
    if re.match(r"(?:file:|/|[A-Za-z]:[\\/]|\.)", source) or ":" not in source.split("/")[0]:
        row = sql.one("SELECT location FROM run WHERE uid = ?", (run_id,)) if run_id else None
        inside = row is not None and (source == row[0] or source.startswith(f"{str(row[0]).rstrip('/')}/"))
        if not inside or leads_out:
            raise DataError(
                f"Invalid model version source: '{source[:300]}'. To use a local path as a model version source, the run_id request "
                "parameter has to be specified and the local path has to be contained within the artifact directory of the run specified "
                "by the run_id."
            )
    elif leads_out:
        raise DataError(
            f"Invalid model version source: '{source[:300]}'. If supplying a source as an http, https, local file path, ftp, objectstore, "
            "or mlflow-artifacts uri, an absolute path must be provided without relative path references present."
        )


def _put_version_tags(sql: Driver, name: str, number: int, pairs: Sequence[tuple[str, str]]) -> None:
    put = (
        "INSERT INTO registered_version_tag (name, number, key, value) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, number, key) DO UPDATE SET value = excluded.value"
    )
    sql.many(put, [(name, number, key, value) for key, value in pairs])


def location_of(sql: Driver, found: Found, name: str, number: int) -> Row | None:
    """Where the files of a version lie as yet, in a row."""
    there = all_versions(found)
    return sql.one(f"SELECT location FROM {there.text} WHERE name = ? AND number = ?", (*there.values, name, number))


def get_version(ledger: Ledger, name: str, version: str) -> ModelVersion:
    """One version; raises UnknownName and DataError."""
    with ledger.records.snapshot() as sql:
        return one_version(ledger, sql, looped(sql), check_name(name), number_of(version))


def one_version(ledger: Ledger, sql: Driver, found: Found, name: str, number: int) -> ModelVersion:
    """One version, in an open transaction; raises UnknownName."""
    there = all_versions({name: found[name]} if name in found else {})
    rows = sql.all(f"SELECT {COLUMNS} FROM {there.text} WHERE name = ? AND number = ?", (*there.values, name, number))
    if not rows:
        raise UnknownName(f"Model Version (name={name}, version={number}) not found")
    return _versions(ledger, sql, found, rows)[0]


def _versions(ledger: Ledger, sql: Driver, found: Found, rows: Sequence[Row]) -> list[ModelVersion]:
    aliases = {name: aliases_of(ledger, sql, found, name) for name in {str(row[0]) for row in rows}}
    versions = []
    for name, number, created, updated, who, stage, *rest in rows:
        own = sorted(alias for alias, version in aliases[str(name)].items() if version == str(number))
        pairs = [Pair(key, value) for key, value in _tags_of(sql, found, str(name), int(number))]
        plain = [text or None for text in rest]
        description, source, run, status, message, link, model = plain
        texts = (
            str(name),
            str(number),
            created,
            updated,
            str(who),
            str(stage),
            description or "",
            source,
            run,
            status,
            message,
            link,
            model,
        )
        versions.append(ModelVersion(*texts, pairs or None, own or None))
    return versions


def _tags_of(sql: Driver, found: Found, name: str, number: int) -> list[tuple[str, str]]:
    """The tags of a version; of one of the loop also what the loop knows of it, under names of our own."""
    query = "SELECT key, value FROM registered_version_tag WHERE name = ? AND number = ? ORDER BY key"
    tags = {str(key): str(value) for key, value in sql.all(query, (owner_of(found, name), number))}
    if name in found:
        tags |= known_of(sql, found[name], number)
    return sorted(tags.items())


def latest(ledger: Ledger, sql: Driver, found: Found, name: str) -> list[ModelVersion]:
    """The newest version of each stage of a model."""
    there = all_versions({name: found[name]} if name in found else {})
    query = f"SELECT {COLUMNS} FROM {there.text} WHERE name = ? ORDER BY number"
    newest = {row[5]: row for row in sql.all(query, (*there.values, name))}
    return _versions(ledger, sql, found, sorted(newest.values(), key=lambda row: int(row[1])))


def change_label(ledger: Ledger, sql: Driver, one: Looped, number: int, column: str, value: str) -> None:
    """What clients say of a version of the loop, or with number 0 of the whole model: its description, its stage."""
    now = ledger.wall() // 1000
    sql.run(
        "INSERT INTO version_label (branch, name, number, stage, description, updated_at) VALUES (?, ?, ?, 'None', '', ?) "
        "ON CONFLICT DO NOTHING",
        (one.branch, one.model, number, now),
    )
    query = f"UPDATE version_label SET {column} = ?, updated_at = ? WHERE branch = ? AND name = ? AND number = ?"
    sql.run(query, (value, now, one.branch, one.model, number))


def _change(ledger: Ledger, sql: Driver, found: Found, name: str, number: int, column: str, value: str) -> None:
    one_version(ledger, sql, found, name, number)
    if name in found:
        return change_label(ledger, sql, found[name], number, column, value)
    query = f"UPDATE registered_version SET {column} = ?, updated_at = ? WHERE name = ? AND number = ?"
    sql.run(query, (value, ledger.wall() // 1000, name, number))
    return touch(ledger, sql, name) if column == "stage" else None  # what is said of a version is no change of its model


def update_version(ledger: Ledger, name: str, version: str, description: str) -> ModelVersion:
    """Describe a version anew."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        _change(ledger, sql, found, check_name(name), number_of(version), "description", description)
        return one_version(ledger, sql, found, name, number_of(version))


def move_stage(ledger: Ledger, name: str, version: str, stage: str, *, archive: bool = False) -> ModelVersion:
    """Give a version a stage; with `archive` the others of that stage become Archived."""
    wanted, number = stage_of(stage), number_of(version)
    if archive and wanted not in ("Staging", "Production"):
        raise DataError(
            f"Model version transition cannot archive existing model versions because '{wanted}' is not an Active stage. "
            "Valid stages are Staging, Production"
        )
    with ledger.records.transaction() as sql:
        found = looped(sql)
        _change(ledger, sql, found, check_name(name), number, "stage", wanted)
        there = all_versions(found)
        query = f"SELECT number FROM {there.text} WHERE name = ? AND stage = ? AND number != ?"
        for (other,) in sql.all(query, (*there.values, name, wanted, number)) if archive else ():
            _change(ledger, sql, found, name, other, "stage", "Archived")
        return one_version(ledger, sql, found, name, number)


def delete_version(ledger: Ledger, name: str, version: str) -> None:
    """Take a version away, with its tags and the aliases that point at it."""
    number = number_of(version)
    with ledger.records.transaction() as sql:
        found = looped(sql)
        one_version(ledger, sql, found, check_name(name), number)
        refuse(found, name, "a version is kept with its verdict and its lineage")
        for alias, target in ledger.aliases(sql, "", name).items():
            if target == str(number):
                ledger.move_alias(sql, "", name, alias, "", at=ledger.wall(), who="", why="the version was deleted")
        location = str((location_of(sql, found, name, number) or ("",))[0])
        for table in ("registered_version_tag", "registered_version"):
            sql.run(f"DELETE FROM {table} WHERE name = ? AND number = ?", (name, number))
        thaw_unnamed(sql, [location])
        touch(ledger, sql, name)


def latest_versions(ledger: Ledger, name: str, stages: Sequence[str] = ()) -> list[ModelVersion]:
    """The newest version of each stage, or of these."""
    wanted = [stage_of(stage) for stage in stages] or list(STAGES)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        return [version for version in latest(ledger, sql, found, name) if version.current_stage in wanted]


def set_version_tag(ledger: Ledger, name: str, version: str, one: Pair) -> None:
    """Set a tag of a version."""
    pair = check_tag(one)
    with ledger.records.transaction() as sql:
        found = looped(sql)
        one_version(ledger, sql, found, check_name(name), number_of(version))
        _put_version_tags(sql, owner_of(found, name), number_of(version), [pair])


def delete_version_tag(ledger: Ledger, name: str, version: str, key: str) -> None:
    """Take a tag of a version away, if it is there."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        one_version(ledger, sql, found, check_name(name), number_of(version))
        query = "DELETE FROM registered_version_tag WHERE name = ? AND number = ? AND key = ?"
        sql.run(query, (owner_of(found, name), number_of(version), key))


def search_versions(
    ledger: Ledger, text: str = "", *, order_by: Sequence[str] = (), max_results: int | None = None, page_token: str = ""
) -> tuple[list[ModelVersion], str | None]:
    """A page of versions by name, the newest first, or in a given order, and the token of the next. Raises DataError."""
    size, wanted, orders = page_size(max_results, 10_000, 200_000), parse(text, VERSIONS), parse_order(order_by, VERSIONS)
    columns = {"name": "v.name", "run_id": "v.run", "source_path": "v.source", "version_number": "v.number"}
    columns |= {"creation_timestamp": "v.created_at", "last_updated_timestamp": "v.updated_at"}
    before = rows_before(page_token)
    same = "t.name = v.owner AND t.number = v.number"
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        there = all_versions(found)
        chosen = all_of([condition(sql, one, columns, "registered_version_tag", same) for one in wanted])
        keys = f"{sort(orders, columns)}{'v.updated_at DESC, ' if not orders else ''}v.name, v.number DESC"
        fields = ", ".join(f"v.{name}" for name in COLUMNS.split(", "))
        query = f"SELECT {fields} FROM {there.text} WHERE {chosen.text} ORDER BY {keys} LIMIT ? OFFSET ?"
        rows = sql.all(query, (*there.values, *chosen.values, size + 1, before))
        return _versions(ledger, sql, found, rows[:size]), write_token([before + size]) if len(rows) > size else None
