"""Models that are registered by name, with versions that are numbered, labelled and found again: the registry of MLflow's protocol.

Aliases, stages and tags of clients are labels. What a deployment serves moves only by `promote`, with a verdict.
"""

import re
from collections.abc import Sequence

from tidemill.core import DataError, Taken, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Driver, Row
from tidemill.tracking import (
    REGISTERED,
    VERSIONS,
    Comparison,
    Order,
    Pair,
    Sql,
    Value,
    all_of,
    compare,
    page_size,
    parse,
    parse_order,
    read_token,
    write_token,
)

STAGES = ("None", "Staging", "Production", "Archived")
KEY, TAG_VALUE, ALIAS = 250, 100_000, 255
PROMPT = "mlflow.prompt.is_prompt"
_COLUMNS = "name, number, created_at, updated_at, who, stage, description, source, run, status, message, run_link, model"


class Alias(Value):
    """A name for one version."""

    alias: str
    version: str


class ModelVersion(Value):
    """One version of a registered model."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str
    current_stage: str
    description: str | None = None
    source: str | None = None
    run_id: str | None = None
    status: str | None = None
    status_message: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    tags: list[Pair] | None = None
    aliases: list[str] | None = None


class RegisteredModel(Value):
    """A registered model, with the newest version of each stage."""

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    deployment_job_id: str | None = None
    latest_versions: list[ModelVersion] | None = None
    tags: list[Pair] | None = None
    aliases: list[Alias] | None = None


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_name(name: str) -> str:
    """The name of a model; raises DataError."""
    if not name:
        raise DataError("Registered model name cannot be empty.")
    if "/" in name or ":" in name or len(name) > 256:
        raise DataError(
            f"Invalid name: '{name[:300]}'. Registered model name must be non-empty, without / or :, of at most 256 characters."
        )
    return name


def check_alias(alias: str) -> str:
    """The name of an alias; raises DataError."""
    if not re.fullmatch(r"[\w\-]{1,255}", alias):
        raise DataError(
            f"Invalid alias name: '{alias[:300]}'. Names may only contain alphanumerics, underscores (_), and dashes (-), at most {ALIAS}."
        )
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        reason = (
            "'latest' alias name (case insensitive) is reserved."
            if alias.lower() == "latest"
            else f"Version alias name '{alias}' is reserved."
        )
        raise DataError(reason)
    return alias


def check_tag(one: Pair) -> tuple[str, str]:
    """A tag; raises DataError."""
    value = one.value or ""
    if not one.key or len(one.key) > KEY or len(value) > TAG_VALUE:
        raise DataError(f"Invalid tag '{one.key[:300]}': 'key' is needed, at most {KEY} characters long, and 'value' at most {TAG_VALUE}")
    return one.key, value


def number_of(version: str) -> int:
    """The number of a version; raises DataError."""
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise DataError(f"Parameter 'version' must be an integer, got '{version[:100]}'.")
    return int(version)


def stage_of(text: str) -> str:
    """A stage as it is written; raises DataError."""
    found = next((stage for stage in STAGES if stage.lower() == text.lower()), None)
    if found is None:
        raise DataError(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")
    return found


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def create_model(ledger: Ledger, name: str, *, tags: Sequence[Pair] = (), description: str = "", job: str = "") -> RegisteredModel:
    """A new registered model; raises Taken."""
    check_name(name)
    pairs, now = [check_tag(one) for one in tags], ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        if sql.one("SELECT 1 FROM registered_model WHERE name = ?", (name,)):
            kind = "Prompt" if (PROMPT, "true") in _tags_of(sql, name) else "Registered Model"
            raise Taken(f"{kind} (name={name}) already exists.")
        sql.run(
            "INSERT INTO registered_model (name, description, job, newest, created_at, updated_at) VALUES (?, ?, ?, 0, ?, ?)",
            (name, description, job, now, now),
        )
        _put_model_tags(sql, name, pairs)
        return _model(ledger, sql, name)


def _tags_of(sql: Driver, name: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in sql.all("SELECT key, value FROM registered_model_tag WHERE name = ? ORDER BY key", (name,))]


def _put_model_tags(sql: Driver, name: str, pairs: Sequence[tuple[str, str]]) -> None:
    put = (
        "INSERT INTO registered_model_tag (name, key, value) VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET value = excluded.value"
    )
    sql.many(put, [(name, key, value) for key, value in pairs])


def get_model(ledger: Ledger, name: str) -> RegisteredModel:
    """A registered model; raises UnknownName."""
    with ledger.records.snapshot() as sql:
        return _model(ledger, sql, name)


def _must_exist(sql: Driver, name: str) -> None:
    if not sql.one("SELECT 1 FROM registered_model WHERE name = ?", (check_name(name),)):
        raise UnknownName(f"Registered Model with name={name} not found")


def _model(ledger: Ledger, sql: Driver, name: str) -> RegisteredModel:
    row = sql.one("SELECT created_at, updated_at, description, job FROM registered_model WHERE name = ?", (check_name(name),))
    if row is None:
        raise UnknownName(f"Registered Model with name={name} not found")
    newest = (
        f"SELECT {_COLUMNS} FROM registered_version AS v WHERE name = ? AND number = "
        "(SELECT max(number) FROM registered_version AS w WHERE w.name = v.name AND w.stage = v.stage) ORDER BY number"
    )
    latest = _versions(ledger, sql, sql.all(newest, (name,)))
    aliases = [Alias(alias, version) for alias, version in ledger.aliases(sql, "", name).items()]
    tags = [Pair(key, value) for key, value in _tags_of(sql, name)]
    return RegisteredModel(name, row[0], row[1], row[2] or None, row[3] or None, latest or None, tags or None, aliases or None)


def rename_model(ledger: Ledger, name: str, to: str) -> RegisteredModel:
    """Give a model another name, with all that belongs to it; raises Taken."""
    check_name(to)
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        if to != name and sql.one("SELECT 1 FROM registered_model WHERE name = ?", (to,)):
            raise Taken(f"Registered Model (name={to}) already exists.")
        for table in ("registered_model", "registered_model_tag", "registered_version", "registered_version_tag"):
            sql.run(f"UPDATE {table} SET name = ? WHERE name = ?", (to, name))
        sql.run("UPDATE alias SET name = ? WHERE branch = '' AND name = ?", (to, name))
        _touch(ledger, sql, to)
        sql.run("UPDATE registered_version SET updated_at = ? WHERE name = ?", (ledger.wall() // 1000, to))
        return _model(ledger, sql, to)


def _touch(ledger: Ledger, sql: Driver, name: str) -> None:
    sql.run("UPDATE registered_model SET updated_at = ? WHERE name = ?", (ledger.wall() // 1000, name))


def update_model(ledger: Ledger, name: str, description: str | None = None, job: str | None = None) -> RegisteredModel:
    """Describe a model anew."""
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        for column, value in (("description", description), ("job", job)):
            if value is not None:
                sql.run(f"UPDATE registered_model SET {column} = ? WHERE name = ?", (value, name))
        _touch(ledger, sql, name)
        return _model(ledger, sql, name)


def delete_model(ledger: Ledger, name: str) -> None:
    """Take a model with its versions, tags and aliases away. The history of the aliases stays."""
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        for alias in ledger.aliases(sql, "", name):
            ledger.move_alias(sql, "", name, alias, "", at=ledger.wall(), who="", why="the model was deleted")
        for table in ("registered_version_tag", "registered_version", "registered_model_tag", "registered_model"):
            sql.run(f"DELETE FROM {table} WHERE name = ?", (name,))


def set_model_tag(ledger: Ledger, name: str, one: Pair) -> None:
    """Set a tag of a model."""
    pair = check_tag(one)
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        _put_model_tags(sql, name, [pair])


def delete_model_tag(ledger: Ledger, name: str, key: str) -> None:
    """Take a tag of a model away, if it is there."""
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        sql.run("DELETE FROM registered_model_tag WHERE name = ? AND key = ?", (name, key))


def search_registered(
    ledger: Ledger, text: str = "", *, order_by: Sequence[str] = (), max_results: int | None = None, page_token: str = ""
) -> tuple[list[RegisteredModel], str | None]:
    """A page of registered models by name, or in a given order, and the token of the next. Raises DataError."""
    size, wanted, orders = page_size(max_results, 100, 1_000), parse(text, REGISTERED), parse_order(order_by, REGISTERED)
    columns = {"name": "m.name", "creation_timestamp": "m.created_at", "last_updated_timestamp": "m.updated_at"}
    before = int(str(read_token(page_token, 1)[0] or 0)) if page_token else 0
    with ledger.records.snapshot() as sql:
        chosen = all_of([_condition(sql, one, columns, "registered_model_tag", "t.name = m.name") for one in wanted])
        query = f"SELECT m.name FROM registered_model AS m WHERE {chosen.text} ORDER BY {_sort(orders, columns)}m.name LIMIT ? OFFSET ?"
        names = [row[0] for row in sql.all(query, (*chosen.values, size + 1, before))]
        found = [_model(ledger, sql, name) for name in names[:size]]
        return found, write_token([before + size]) if len(names) > size else None


def _sort(orders: Sequence[Order], columns: dict[str, str]) -> str:
    keys = [one.key for one in orders]
    if any(one.kind != "attribute" for one in orders):
        raise DataError("models are ordered by their attributes only", available=sorted(columns))
    if len(keys) != len(set(keys)):
        raise DataError(f"`order_by` contains duplicate fields: {keys}")
    return "".join(f"{columns[one.key]} {'DESC' if one.descending else 'ASC'}, " for one in orders)


def _condition(sql: Driver, one: Comparison, columns: dict[str, str], tags: str, same: str) -> Sql:
    """A comparison; what is no prompt says so by having no tag of that name."""
    if one.kind == "attribute":
        return compare(sql, columns[one.key], one)
    there = Sql(f"EXISTS (SELECT 1 FROM {tags} AS t WHERE {same} AND t.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    if one.key == PROMPT and (one.op, one.value) in (("=", "false"), ("!=", "true")):
        return Sql("NOT ") + there + Sql(" AND t.value = 'true')")
    return there + Sql(" AND ") + compare(sql, "t.value", one) + Sql(")")


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────


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
        _must_exist(sql, name)
        prompt = (PROMPT, "true") in pairs  # a text has no files
        location = source if prompt else _checked_source(sql, source, run_id)
        sql.run("UPDATE registered_model SET newest = newest + 1, updated_at = ? WHERE name = ?", (now, name))
        row = sql.one("SELECT newest FROM registered_model WHERE name = ?", (name,))
        assert row is not None
        number = int(row[0])
        sql.run(
            f"INSERT INTO registered_version ({_COLUMNS}, location) VALUES (?, ?, ?, ?, ?, 'None', ?, ?, ?, 'READY', '', ?, ?, ?)",
            (name, number, now, now, who, description, source, run_id, run_link, model_id, location),
        )
        _put_version_tags(sql, name, number, pairs)
        return _version(ledger, sql, name, number)


def _checked_source(sql: Driver, source: str, run_id: str) -> str:
    """Where the files of a source lie. A path of the server itself must belong to the run that is named."""
    if not source:
        raise DataError("Missing value for required parameter 'source'. See the API docs for more information about request parameters.")
    if source.startswith("models:/"):
        wanted = source.removeprefix("models:/")
        row = sql.one("SELECT location FROM logged_model WHERE id = ? AND stage = 'active'", (wanted,))
        if row is None and "/" in wanted:
            name, _, version = wanted.partition("/")
            number = int(version) if version.isdecimal() else -1
            row = sql.one("SELECT location FROM registered_version WHERE name = ? AND number = ?", (name, number))
        if row is None:
            raise DataError(f"Unable to fetch model from model URI source artifact location '{source}'.")
        return str(row[0])
    if source.startswith("runs:/"):
        run, _, path = source.removeprefix("runs:/").partition("/")
        row = sql.one("SELECT location FROM run WHERE uid = ?", (run,))
        return f"{row[0]}/{path}" if row else source
    if re.match(r"(?:file:|/|[A-Za-z]:[\\/]|\.)", source) or ":" not in source.split("/")[0]:
        row = sql.one("SELECT location FROM run WHERE uid = ?", (run_id,)) if run_id else None
        inside = (
            row is not None and (source == row[0] or source.startswith(f"{str(row[0]).rstrip('/')}/")) and ".." not in source.split("/")
        )
        if not inside:
            raise DataError(
                f"Invalid model version source: '{source[:300]}'. To use a local path as a model version source, the run_id request "
                "parameter has to be specified and the local path has to be contained within the artifact directory of the run specified "
                "by the run_id."
            )
    elif ".." in source.split("/") or "%2e%2e" in source.lower():
        raise DataError(
            f"Invalid model version source: '{source[:300]}'. If supplying a source as an http, https, local file path, ftp, objectstore, "
            "or mlflow-artifacts uri, an absolute path must be provided without relative path references present."
        )
    return source


def _put_version_tags(sql: Driver, name: str, number: int, pairs: Sequence[tuple[str, str]]) -> None:
    put = (
        "INSERT INTO registered_version_tag (name, number, key, value) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, number, key) DO UPDATE SET value = excluded.value"
    )
    sql.many(put, [(name, number, key, value) for key, value in pairs])


def get_version(ledger: Ledger, name: str, version: str) -> ModelVersion:
    """One version; raises UnknownName and DataError."""
    with ledger.records.snapshot() as sql:
        return _version(ledger, sql, check_name(name), number_of(version))


def _version(ledger: Ledger, sql: Driver, name: str, number: int) -> ModelVersion:
    rows = sql.all(f"SELECT {_COLUMNS} FROM registered_version WHERE name = ? AND number = ?", (name, number))
    if not rows:
        raise UnknownName(f"Model Version (name={name}, version={number}) not found")
    return _versions(ledger, sql, rows)[0]


def _versions(ledger: Ledger, sql: Driver, rows: Sequence[Row]) -> list[ModelVersion]:
    aliases = {name: ledger.aliases(sql, "", name) for name in {str(row[0]) for row in rows}}
    found = []
    for name, number, created, updated, who, stage, *rest in rows:
        own = [alias for alias, version in aliases[str(name)].items() if version == str(number)]
        tags = sql.all("SELECT key, value FROM registered_version_tag WHERE name = ? AND number = ? ORDER BY key", (name, number))
        pairs = [Pair(key, value) for key, value in tags]
        plain = [text or None for text in rest]
        description, source, run, status, message, link, model = plain
        texts = (str(name), str(number), created, updated, str(who), str(stage), description, source, run, status, message, link, model)
        found.append(ModelVersion(*texts, pairs or None, own or None))
    return found


def _change(ledger: Ledger, sql: Driver, name: str, number: int, column: str, value: str) -> None:
    now = ledger.wall() // 1000
    query = f"UPDATE registered_version SET {column} = ?, updated_at = ? WHERE name = ? AND number = ?"
    if not sql.run(query, (value, now, name, number)):
        raise UnknownName(f"Model Version (name={name}, version={number}) not found")
    _touch(ledger, sql, name)


def update_version(ledger: Ledger, name: str, version: str, description: str) -> ModelVersion:
    """Describe a version anew."""
    with ledger.records.transaction() as sql:
        _change(ledger, sql, check_name(name), number_of(version), "description", description)
        return _version(ledger, sql, name, number_of(version))


def move_stage(ledger: Ledger, name: str, version: str, stage: str, *, archive: bool = False) -> ModelVersion:
    """Give a version a stage; with `archive` the others of that stage become Archived."""
    wanted, number = stage_of(stage), number_of(version)
    if archive and wanted not in ("Staging", "Production"):
        raise DataError(
            f"Model version transition cannot archive existing model versions because '{wanted}' is not an Active stage. "
            "Valid stages are Staging, Production"
        )
    with ledger.records.transaction() as sql:
        _change(ledger, sql, check_name(name), number, "stage", wanted)
        if archive:
            query = "UPDATE registered_version SET stage = 'Archived', updated_at = ? WHERE name = ? AND stage = ? AND number != ?"
            sql.run(query, (ledger.wall() // 1000, name, wanted, number))
        return _version(ledger, sql, name, number)


def delete_version(ledger: Ledger, name: str, version: str) -> None:
    """Take a version away, with its tags and the aliases that point at it."""
    number = number_of(version)
    with ledger.records.transaction() as sql:
        _version(ledger, sql, check_name(name), number)
        for alias, target in ledger.aliases(sql, "", name).items():
            if target == str(number):
                ledger.move_alias(sql, "", name, alias, "", at=ledger.wall(), who="", why="the version was deleted")
        for table in ("registered_version_tag", "registered_version"):
            sql.run(f"DELETE FROM {table} WHERE name = ? AND number = ?", (name, number))
        _touch(ledger, sql, name)


def download_uri(ledger: Ledger, name: str, version: str) -> str:
    """Where the files of a version lie."""
    with ledger.records.snapshot() as sql:
        _version(ledger, sql, check_name(name), number_of(version))
        row = sql.one("SELECT location FROM registered_version WHERE name = ? AND number = ?", (name, number_of(version)))
        assert row is not None
        return str(row[0])


def latest_versions(ledger: Ledger, name: str, stages: Sequence[str] = ()) -> list[ModelVersion]:
    """The newest version of each stage, or of these."""
    wanted = [stage_of(stage) for stage in stages] or list(STAGES)
    found = get_model(ledger, name).latest_versions or []
    return [version for version in found if version.current_stage in wanted]


def set_version_tag(ledger: Ledger, name: str, version: str, one: Pair) -> None:
    """Set a tag of a version."""
    pair = check_tag(one)
    with ledger.records.transaction() as sql:
        _version(ledger, sql, check_name(name), number_of(version))
        _put_version_tags(sql, name, number_of(version), [pair])


def delete_version_tag(ledger: Ledger, name: str, version: str, key: str) -> None:
    """Take a tag of a version away, if it is there."""
    with ledger.records.transaction() as sql:
        _version(ledger, sql, check_name(name), number_of(version))
        query = "DELETE FROM registered_version_tag WHERE name = ? AND number = ? AND key = ?"
        sql.run(query, (name, number_of(version), key))


def search_versions(
    ledger: Ledger, text: str = "", *, order_by: Sequence[str] = (), max_results: int | None = None, page_token: str = ""
) -> tuple[list[ModelVersion], str | None]:
    """A page of versions by name, the newest first, or in a given order, and the token of the next. Raises DataError."""
    size, wanted, orders = page_size(max_results, 10_000, 200_000), parse(text, VERSIONS), parse_order(order_by, VERSIONS)
    columns = {"name": "v.name", "run_id": "v.run", "source_path": "v.source", "version_number": "v.number"}
    columns |= {"creation_timestamp": "v.created_at", "last_updated_timestamp": "v.updated_at"}
    before = int(str(read_token(page_token, 1)[0] or 0)) if page_token else 0
    same = "t.name = v.name AND t.number = v.number"
    with ledger.records.snapshot() as sql:
        chosen = all_of([_condition(sql, one, columns, "registered_version_tag", same) for one in wanted])
        sort = f"{_sort(orders, columns)}{'v.updated_at DESC, ' if not orders else ''}v.name, v.number DESC"
        fields = ", ".join(f"v.{name}" for name in _COLUMNS.split(", "))
        query = f"SELECT {fields} FROM registered_version AS v WHERE {chosen.text} ORDER BY {sort} LIMIT ? OFFSET ?"
        rows = sql.all(query, (*chosen.values, size + 1, before))
        return _versions(ledger, sql, rows[:size]), write_token([before + size]) if len(rows) > size else None


# ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────────


def set_alias(ledger: Ledger, name: str, alias: str, version: str, *, who: str = "", why: str = "") -> None:
    """Point an alias at a version; what it pointed at before stays in its history."""
    check_alias(alias)
    with ledger.records.transaction() as sql:
        _version(ledger, sql, check_name(name), number_of(version))
        ledger.move_alias(sql, "", name, alias, str(number_of(version)), at=ledger.wall(), who=who, why=why or "set by a client")
        _touch(ledger, sql, name)


def delete_alias(ledger: Ledger, name: str, alias: str, *, who: str = "") -> None:
    """Let an alias point at nothing, if it is there."""
    with ledger.records.transaction() as sql:
        _must_exist(sql, name)
        if alias in ledger.aliases(sql, "", name):
            ledger.move_alias(sql, "", name, alias, "", at=ledger.wall(), who=who, why="deleted by a client")


def version_by_alias(ledger: Ledger, name: str, alias: str) -> ModelVersion:
    """The version that an alias points at; raises DataError, as the protocol has it, when there is none."""
    with ledger.records.snapshot() as sql:
        _must_exist(sql, name)
        if alias.lower() == "latest":
            row = sql.one("SELECT max(number) FROM registered_version WHERE name = ?", (name,))
            found = str(row[0]) if row and row[0] else None
        else:
            found = ledger.aliases(sql, "", name).get(alias)
        if found is None:
            raise DataError(f"Registered model alias {alias} not found.")
        return _version(ledger, sql, name, int(found))
