"""Aliases of registered models: labels of clients, and those that a deployment follows, which no client moves."""

from tidemill.core import DataError
from tidemill.ledger import Ledger, user
from tidemill.registry.names import aliases_of, must_exist, touch
from tidemill.registry.of_loop import Found, all_versions, looped, owner_of, refuse_followed
from tidemill.registry.registered import get_version, one_version, settle
from tidemill.registry.values import ModelVersion, check_alias, check_name, number_of
from tidemill.store import Driver


def set_alias(ledger: Ledger, name: str, alias: str, version: str, *, who: str = "", why: str = "") -> None:
    """Point an alias at a version; what it pointed at before stays in its history, with who moved it and why. Who is not named is the
    user that the version's tag `mlflow.user` tells, or the one that the server runs as; the reason is the version's description."""
    check_alias(alias)
    with ledger.records.transaction() as sql:
        found = looped(sql)
        there = one_version(ledger, sql, found, check_name(name), number_of(version))
        refuse_followed(found, name, alias)
        told = next((tag.value for tag in there.tags or () if tag.key == "mlflow.user"), None)
        given = {"who": who or told or user(), "why": why or there.description or "set by a client"}
        ledger.move_alias(sql, "", owner_of(found, name), alias, str(number_of(version)), at=ledger.wall(), **given)
        settle(sql, name, number_of(version))
        touch(ledger, sql, name)


def delete_alias(ledger: Ledger, name: str, alias: str, *, who: str = "") -> None:
    """Let an alias point at nothing, if it is there."""
    with ledger.records.transaction() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        refuse_followed(found, name, alias)
        owner = owner_of(found, name)
        if alias in ledger.aliases(sql, "", owner):
            ledger.move_alias(sql, "", owner, alias, "", at=ledger.wall(), who=who or user(), why="deleted by a client")


def version_by_alias(ledger: Ledger, name: str, alias: str) -> ModelVersion:
    """The version that an alias points at; raises DataError, as the protocol has it, when there is none."""
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        must_exist(sql, found, name)
        there = _newest(sql, found, name) if alias.lower() == "latest" else aliases_of(ledger, sql, found, name).get(alias)
    if there is None:
        raise DataError(f"Registered model alias {alias} not found.")
    return get_version(ledger, name, there)


def _newest(sql: Driver, found: Found, name: str) -> str | None:
    there = all_versions(found)
    row = sql.one(f"SELECT max(number) FROM {there.text} WHERE name = ?", (*there.values, name))
    return str(row[0]) if row and row[0] else None
