"""SQL that would give other rows tomorrow: calls of the clock, of chance, of the session, and samples. SQL in, the first of them out.

What cannot be seen: an order that the query leaves open, as `row_number() OVER ()`, and statements that are no plain SELECT (PIVOT).
"""

import json
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tidemill.core import DefinitionError
from tidemill.data.engine import engine

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CLOCK = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}  # called without parentheses
MACROS = {"ago", "pg_conf_load_time", "pg_postmaster_start_time"}  # the engine states no stability for these
HARMLESS = {"error", "vector_type", "stats"}  # VOLATILE for the engine, but of no other value tomorrow
STABLE = "a version must be the same whenever it is made: use a time of the data, or hash(…) of a key where chance is meant"


def refuse_volatile(connection: "DuckDBPyConnection", sql: str, columns: Collection[str], what: str, where: str) -> None:
    """Raises DefinitionError with the line where SQL is not reproducible; `columns` are names that mean columns, clock or not."""
    for found in _nodes(_parsed(connection, sql)):
        name = _volatile(found, _functions(), {column.casefold() for column in columns})
        if name:
            text = sql.encode()  # places count bytes; a sample has none of its own
            places = [place for node in _nodes(found) if (place := node.get("query_location", len(text))) < len(text)]
            line = text[: min(places, default=0)].count(b"\n") + 1
            problem = f"{what} cannot be reproduced: {name} gives another value each time"
            raise DefinitionError(problem, where=f"{where}:{line}" if where.endswith(".sql") else where, hint=STABLE)


def _volatile(node: dict[str, Any], functions: Collection[str], columns: Collection[str]) -> str:
    name = str(node.get("function_name", "")).casefold()
    if node.get("type") == "FUNCTION" and (name in functions or (name == "age" and len(node["arguments"]) == 1)):
        return f"{name}(…)" if node["arguments"] else f"{name}()"
    names = node.get("column_names") if node.get("type") == "COLUMN_REF" else None
    if names and len(names) == 1 and names[0].casefold() in CLOCK - set(columns):
        return str(names[0])
    return "a sample" if node.get("sample") else ""


def _parsed(connection: "DuckDBPyConnection", sql: str) -> Any:
    """The syntax tree; without nodes where the engine has none to give: it will say itself what is wrong with the SQL."""
    row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
    return json.loads(row[0])


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(part)


@cache
def _functions() -> frozenset[str]:
    """Functions of the engine that give one row another value at another time; looked up once, it takes 20 ms."""
    with engine() as connection:
        rows = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'").fetchall()
    return frozenset({row[0] for row in rows} | MACROS) - HARMLESS
