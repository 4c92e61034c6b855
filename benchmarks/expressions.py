"""Ten request-time features of one row: compiled, by a prepared query of DuckDB, and by a function of Python written by hand; and of a
million rows.

The row arrives as a client sends it: numbers, texts and times as text. All values are compared, to the last bit, with DuckDB's.

    .venv/bin/python benchmarks/expressions.py [ROWS]
"""

import math
import sys
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
from measure import compared, heading, say_where, seconds

import tidemill as tm
from tidemill.features import OwnColumns

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
CALLS, RUNS = 2_000, 7
TEN = {
    "hour": "hour(asked)",
    "weekend": "isodow(asked) IN (6, 7)",
    "km": """2 * 6371 * asin(sqrt(pow(sin(radians(lat2 - lat1) / 2), 2)
        + cos(radians(lat1)) * cos(radians(lat2)) * pow(sin(radians(lon2 - lon1) / 2), 2)))""",
    "share": "amount / nullif(most, 0)",
    "log_amount": "ln(amount + 1)",
    "large": "amount > 1000 AND country <> 'DE'",
    "band": "CASE WHEN amount < 10 THEN 0 WHEN amount < 100 THEN 1 ELSE 2 END",
    "domain": "length(mail) - strpos(mail, '@')",
    "wait": "epoch(asked - signed)",
    "month": "month(date_trunc('month', signed))",
}
NUMBERS = ("lat1", "lon1", "lat2", "lon2", "amount", "most")
TYPES = {"id": "BIGINT", "asked": "TIMESTAMP WITH TIME ZONE", "signed": "TIMESTAMP WITH TIME ZONE"}
TYPES |= dict.fromkeys(NUMBERS, "DOUBLE") | {"country": "VARCHAR", "mail": "VARCHAR"}
ROW = {"id": 1, "asked": "2026-05-01T12:00:00Z", "signed": "2026-04-01T09:30:00Z", "lat1": 52.5, "lon1": 13.4, "lat2": 48.1, "lon2": 11.6,
       "amount": 120.5, "most": 1000.0, "country": "AT", "mail": "someone@example.org"}  # fmt: skip
SQL = ", ".join(f"CAST(({sql}) AS DOUBLE) AS {name}" for name, sql in TEN.items())


def by_hand(row: dict[str, Any]) -> list[float | None]:
    """What a person writes who knows that nothing is null."""
    asked, signed = datetime.fromisoformat(row["asked"]), datetime.fromisoformat(row["signed"])
    lat1, lon1, lat2, lon2 = (math.radians(row[name]) for name in ("lat1", "lon1", "lat2", "lon2"))
    a = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    amount = row["amount"]
    return [
        float(asked.hour),
        float(asked.isoweekday() >= 6),
        2 * 6371 * math.asin(math.sqrt(a)),
        amount / row["most"] if row["most"] else None,
        math.log(amount + 1),
        float(amount > 1000 and row["country"] != "DE"),
        0.0 if amount < 10 else 1.0 if amount < 100 else 2.0,
        float(len(row["mail"]) - row["mail"].index("@") - 1),
        (asked - signed).total_seconds(),
        float(signed.month),
    ]


def own_columns() -> OwnColumns:
    """The features as a project declares them, compiled."""
    trips = tm.Dataset("trips", {"s": tm.Source("trips.csv")}, key="id", event_time="asked")
    view = tm.RequestView("trip", trips, features=TEN)
    return OwnColumns.of(trips, TYPES, [view], "asked")


def many() -> duckdb.DuckDBPyConnection:
    """A table of random rows, the same each time."""
    random = np.random.default_rng(1)
    start = 1_767_225_600_000_000
    table: dict[str, Any] = {
        "id": np.arange(ROWS),
        "a": start + random.integers(0, 10**13, ROWS),
        "b": start - random.integers(0, 10**14, ROWS),
    }
    table |= {name: random.uniform(-60, 60, ROWS) for name in NUMBERS[:4]} | {name: random.lognormal(4, 2, ROWS) for name in NUMBERS[4:]}
    table |= {"country": random.choice(["AT", "DE", "FR"], ROWS), "mail": random.choice(["a@b.org", "someone@example.org"], ROWS)}
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("columns", table)
    connection.execute(
        "CREATE TABLE many AS SELECT * EXCLUDE (a, b), make_timestamptz(a) AS asked, make_timestamptz(b) AS signed FROM columns"
    )
    return connection


def check_equal(own: OwnColumns, connection: duckdb.DuckDBPyConnection) -> int:
    """Rows as clients send them, against the query over all of them."""
    some = max(ROWS // 20_000, 1)
    names = ", ".join(f"CAST({name} AS VARCHAR)" if "TIME" in kind else name for name, kind in TYPES.items())
    sent = connection.execute(f"SELECT {names} FROM many WHERE id % {some} = 0 ORDER BY id").fetchall()
    theirs = np.array(connection.execute(f"SELECT {SQL} FROM many WHERE id % {some} = 0 ORDER BY id").fetchall(), dtype=np.float64)
    ours = own.requests([dict(zip(TYPES, row, strict=True)) for row in sent]).values
    if ours.tobytes() != theirs.tobytes():
        raise SystemExit(f"{int(np.sum(ours != theirs))} of {ours.size:,} values differ")
    return ours.size


def main() -> None:
    """One row three ways, then all of them."""
    say_where("numpy", "duckdb")
    own, connection = own_columns(), many()
    print(f"{check_equal(own, connection):,} values are equal to DuckDB's")
    casts = ", ".join(f"CAST(? AS {kind}) AS {name}" for name, kind in TYPES.items())
    connection.execute(f"PREPARE ten AS SELECT {SQL} FROM (SELECT {casts})")
    execute = f"EXECUTE ten({', '.join(repr(value) for value in ROW.values())})"
    taken = [own.taken(name, ROW[name]) for name in TYPES]
    values = [value for name, value in own.values.items() if name.startswith("x:")]
    ways = {
        "ten features of typed values": lambda: [value(taken) for value in values],
        "a row as it is sent, with key and times": lambda: own.requests([ROW]),
        "by hand, in Python": lambda: by_hand(ROW),
    }
    heading("DuckDB, prepared")
    theirs = per_call(lambda: connection.execute(execute).fetchall(), CALLS // 4)
    for what, way in ways.items():
        compared(what, per_call(way, CALLS), theirs)
    heading("DuckDB, one table")
    whole = seconds(lambda: connection.execute(f"SELECT {SQL} FROM many").fetchnumpy(), times=3)
    rows = [ROW | {"id": number, "amount": float(number)} for number in range(10_000)]
    ours = [one * ROWS / len(rows) for one in seconds(lambda: own.requests(rows), times=3)]
    compared(f"{ROWS:,} as they are sent, by {len(rows):,}", ours, whole)


def per_call(way: Any, calls: int) -> list[float]:
    """Seconds of one call, in each run."""

    def run() -> None:
        for _ in range(calls):
            way()

    return [one / calls for one in seconds(run, times=RUNS)]


if __name__ == "__main__":
    main()
