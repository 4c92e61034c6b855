"""What a registered name stands for: whether it is there, where its aliases point; conditions and orders of searches by name."""

from collections.abc import Sequence

from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.registry.of_loop import Found, followed, owner_of
from tidemill.registry.values import PROMPT, check_name
from tidemill.store import Driver
from tidemill.tracking import Comparison, Order, Sql, compare


def exists(sql: Driver, found: Found, name: str) -> bool:
    """Whether a model has this name."""
    return name in found or sql.one("SELECT 1 FROM registered_model WHERE name = ?", (name,)) is not None


def must_exist(sql: Driver, found: Found, name: str) -> None:
    """Raise UnknownName for a model that is not there."""
    if not exists(sql, found, check_name(name)):
        raise UnknownName(f"Registered Model with name={name} not found")


def aliases_of(ledger: Ledger, sql: Driver, found: Found, name: str) -> dict[str, str]:
    """Where the aliases of a model point: those of clients, and those that a deployment follows."""
    own = ledger.aliases(sql, "", owner_of(found, name))
    return {**own, **(followed(sql, found[name]) if name in found else {})}


def touch(ledger: Ledger, sql: Driver, name: str) -> None:
    """A model was changed now."""
    sql.run("UPDATE registered_model SET updated_at = ? WHERE name = ?", (ledger.wall() // 1000, name))


def sort(orders: Sequence[Order], columns: dict[str, str]) -> str:
    """The keys of an order, each with a comma after it."""
    keys = [one.key for one in orders]
    if any(one.kind != "attribute" for one in orders):
        raise DataError("models are ordered by their attributes only", available=sorted(columns))
    if len(keys) != len(set(keys)):
        raise DataError(f"`order_by` contains duplicate fields: {keys}")
    return "".join(f"{columns[one.key]} {'DESC' if one.descending else 'ASC'}, " for one in orders)


def condition(sql: Driver, one: Comparison, columns: dict[str, str], tags: str, same: str) -> Sql:
    """A comparison; what is no prompt says so by having no tag of that name."""
    if one.kind == "attribute":
        return compare(sql, columns[one.key], one)
    there = Sql(f"EXISTS (SELECT 1 FROM {tags} AS t WHERE {same} AND t.key = ?", (one.key,))
    if one.value is None:
        return Sql("NOT " if one.op == "IS NULL" else "") + there + Sql(")")
    if one.key == PROMPT and (one.op, one.value) in (("=", "false"), ("!=", "true")):
        return Sql("NOT ") + there + Sql(" AND t.value = 'true')")
    return there + Sql(" AND ") + compare(sql, "t.value", one) + Sql(")")
