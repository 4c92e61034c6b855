"""The database's own driver under the records, for statements that run thousands of times a second.

SQL is written with `?` and runs on SQLite and PostgreSQL alike; docs/design/ledger.md says how. Five times less work for each
statement than through SQLAlchemy (`benchmarks/ledger.py`), and the same transactions.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tidemill.core import Busy

T = TypeVar("T")
Row = tuple[Any, ...]


class Occupied(Busy):
    """Another writer is at the records just now, and the caller was not to wait."""


class Driver:
    """One open transaction on a connection of the driver: SQLite's here, PostgreSQL's in its own file."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def like(self, expression: str, pattern: str, *, any_case: bool, make: Callable[[str, tuple[Any, ...]], T]) -> T:
        """The condition that a text fits a pattern of `%` and `_`, as `make(sql, values)`. `any_case`: of the letters A to Z."""
        if any_case:
            return make(f"{expression} LIKE ?", (pattern,))  # SQLite's ignores the case
        escaped = re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", pattern)
        return make(f"{expression} GLOB ?", (escaped.replace("%", "*").replace("_", "?"),))

    def unindexed(self, column: str) -> str:
        """A column of numbers, where an index of it is of no help: SQLite takes one that there is."""
        return f"+{column}"

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Every row of a query."""
        found: list[Row] = self._connection.execute(sql, values).fetchall()
        return found

    def search(self, sql: str, values: Sequence[Any], *, as_written: bool) -> list[Row]:
        """Every row of a query whose best plan depends on its values; `as_written`: its tables are read in the order that it names them in,
        which for SQLite CROSS JOIN says."""
        return self.all(sql, values)

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        found: Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change rows; returns how many."""
        return int(self._connection.execute(sql, values).rowcount)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Change rows once for each of `rows`."""
        self._connection.cursor().executemany(sql, rows)
