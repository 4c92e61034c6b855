"""Models that are registered by name: the registry of MLflow's protocol. The loop's models are among them (`of_loop`).

Aliases, stages and tags of clients are labels. What a deployment serves moves only by `promote`, with a verdict.
"""

from collections.abc import Sequence

from tidemill.core import Taken, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.names import aliases_of, condition, exists, must_exist, sort, touch
from tidemill.registry.of_loop import Found, all_models, looped, owner_of, refuse
from tidemill.registry.registered import change_label, latest, thaw_unnamed
from tidemill.registry.values import PROMPT, Alias, RegisteredModel, check_name, check_tag
from tidemill.store import Driver
from tidemill.tracking import REGISTERED, Pair, all_of, page_size, parse, parse_order, rows_before, write_token


def create_model(ledger: Ledger, name: str, *, tags: Sequence[Pair] = (), description: str = "", job: str = "") -> RegisteredModel:
    """A new registered model; raises Taken."""
    check_name(name)
    pairs, now = [check_tag(one) for one in tags], ledger.wall() // 1000
    with ledger.records.transaction() as sql:
        found = looped(sql)
        if exists(sql, found, name):
            kind = "Prompt" if (PROMPT, "true") in _tags_of(sql, owner_of(found, name)) else "Registered Model"
            raise Taken(f"{kind} (name={name}) already exists.")
        sql.run(
            "INSERT INTO registered_model (name, description, job, newest, created_at, updated_at) VALUES (?, ?, ?, 0, ?, ?)",
            (name, description, job, now, now),
        )
        _put_model_tags(sql, name, pairs)
        return _model(ledger, sql, found, name)


def _tags_of(sql: Driver, owner: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in sql.all("SELECT key, value FROM registered_model_tag WHERE name = ? ORDER BY key", (owner,))]


def _put_model_tags(sql: Driver, owner: str, pairs: Sequence[tuple[str, str]]) -> None:
    put = (
        "INSERT INTO registered_model_tag (name, key, value) VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET value = excluded.value"
    )
    sql.many(put, [(owner, key, value) for key, value in pairs])


def get_model(ledger: Ledger, name: str) -> RegisteredModel:
    """A registered model; raises UnknownName."""
    with ledger.records.snapshot() as sql:
        return _model(ledger, sql, looped(sql), name)


def _model(ledger: Ledger, sql: Driver, found: Found, name: str) -> RegisteredModel:
    there = all_models({name: found[name]} if name in found else {})
    query = f"SELECT created_at, updated_at, description, job FROM {there.text} WHERE name = ?"
    row = sql.one(query, (*there.values, check_name(name)))
    if row is None:
        raise UnknownName(f"Registered Model with name={name} not found")
    aliases = [Alias(alias, version) for alias, version in sorted(aliases_of(ledger, sql, found, name).items())]
    tags = [Pair(key, value) for key, value in _tags_of(sql, owner_of(found, name))]
    newest = latest(ledger, sql, found, name)
    return RegisteredModel(name, row[0], row[1], row[2] or None, row[3] or None, newest or None, tags or None, aliases or None)


def rename_model(ledger: Ledger, name: str, to: str) -> RegisteredModel:
    """Give a model another name, with all that belongs to it; raises Taken."""
    check_name(to)
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        refuse(found, name, "it keeps its name")
        if to != name and exists(sql, found, to):
            raise Taken(f"Registered Model (name={to}) already exists.")
        for table in ("registered_model", "registered_model_tag", "registered_version", "registered_version_tag"):
            sql.run(f"UPDATE {table} SET name = ? WHERE name = ?", (to, name))
        sql.run("UPDATE alias SET name = ? WHERE branch = '' AND name = ?", (to, name))
        touch(ledger, sql, to)
        sql.run("UPDATE registered_version SET updated_at = ? WHERE name = ?", (ledger.wall() // 1000, to))
        return _model(ledger, sql, found, to)


def update_model(ledger: Ledger, name: str, description: str | None = None, job: str | None = None) -> RegisteredModel:
    """Describe a model anew."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        if name in found and description is not None:
            change_label(ledger, sql, found[name], 0, "description", description)
        for column, value in (("description", description), ("job", job)):
            if value is not None and name not in found:
                sql.run(f"UPDATE registered_model SET {column} = ? WHERE name = ?", (value, name))
        touch(ledger, sql, name)
        return _model(ledger, sql, found, name)


def delete_model(ledger: Ledger, name: str) -> None:
    """Take a model with its versions, tags and aliases away. The history of the aliases stays."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        refuse(found, name, "it is kept with its verdicts and its lineage")
        for alias in ledger.aliases(sql, "", name):
            ledger.move_alias(sql, "", name, alias, "", at=ledger.wall(), who="", why="the model was deleted")
        locations = [str(row[0]) for row in sql.all("SELECT location FROM registered_version WHERE name = ?", (name,))]
        for table in ("registered_version_tag", "registered_version", "registered_model_tag", "registered_model"):
            sql.run(f"DELETE FROM {table} WHERE name = ?", (name,))
        thaw_unnamed(sql, locations)


def set_model_tag(ledger: Ledger, name: str, one: Pair) -> None:
    """Set a tag of a model."""
    pair = check_tag(one)
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        _put_model_tags(sql, owner_of(found, name), [pair])


def delete_model_tag(ledger: Ledger, name: str, key: str) -> None:
    """Take a tag of a model away, if it is there."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        sql.run("DELETE FROM registered_model_tag WHERE name = ? AND key = ?", (owner_of(found, name), key))


def search_registered(
    ledger: Ledger, text: str = "", *, order_by: Sequence[str] = (), max_results: int | None = None, page_token: str = ""
) -> tuple[list[RegisteredModel], str | None]:
    """A page of registered models by name, or in a given order, and the token of the next. Raises DataError."""
    size, wanted, orders = page_size(max_results, 100, 1_000), parse(text, REGISTERED), parse_order(order_by, REGISTERED)
    columns = {"name": "m.name", "creation_timestamp": "m.created_at", "last_updated_timestamp": "m.updated_at"}
    before = rows_before(page_token)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        there = all_models(found)
        chosen = all_of([condition(sql, one, columns, "registered_model_tag", "t.name = m.owner") for one in wanted])
        query = f"SELECT m.name FROM {there.text} WHERE {chosen.text} ORDER BY {sort(orders, columns)}m.name LIMIT ? OFFSET ?"
        names = [row[0] for row in sql.all(query, (*there.values, *chosen.values, size + 1, before))]
        models = [_model(ledger, sql, found, name) for name in names[:size]]
        return models, write_token([before + size]) if len(names) > size else None
