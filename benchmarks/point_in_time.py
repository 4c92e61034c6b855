"""`Reader.read` of a million rows against hand-written DuckDB SQL with the same meaning over the same rows.

The data have the shape of a year of flights: 330,000 departures at 3 airports by 4,000 aircraft, hourly weather that is known
an hour later; a million requests at any time of the year. Numbers are whole, so that sums are exact in any order and every value
is compared. DuckDB may use all cores and holds its tables in memory; ours is one thread.

    .venv/bin/python benchmarks/point_in_time.py [ROWS]
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from measure import compared, heading, say_where, seconds

import tidemill as tm
from tidemill.core import DAY, HOUR, MINUTE, Coded, duration
from tidemill.data import ingest
from tidemill.features import Reader, Requests, build, load
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
RUNS = 3
START, YEAR = 15_706 * DAY, 365 * DAY
AIRPORTS = ("EWR", "JFK", "LGA")
AIRCRAFT = tuple(sorted(f"N{number:05}" for number in range(4_000)))
WINDOWS = {"1h": 5 * MINUTE, "4h": 5 * MINUTE, "24h": HOUR}  # with the hop by which each one's tail moves


def make_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Departures, weather and requests, the same each time."""
    random = np.random.default_rng(1)
    events = 330_000
    departures = {
        "origin": random.choice(AIRPORTS, events),
        "tailnum": random.choice(AIRCRAFT, events),
        "event": START + random.permutation(YEAR // 1_000_000)[:events] * 1_000_000,  # no two at once: SQL's ASOF leaves ties open
        "delay": random.integers(-20, 200, events).astype(np.float64),
    }
    hours = np.repeat(np.arange(START, START + YEAR, HOUR), 3)
    weather = {"origin": np.tile(AIRPORTS, len(hours) // 3), "event": hours, "known": hours + HOUR}
    weather |= {name: random.integers(0, 100, len(hours)).astype(np.float64) for name in ("temp", "wind", "precip", "visib")}
    requests = {
        "place": np.arange(ROWS),
        "origin": random.choice(AIRPORTS, ROWS),
        "tailnum": random.choice(AIRCRAFT, ROWS),
        "asked": START + np.sort(random.integers(0, YEAR, ROWS)),
    }
    for name, table in (("departures", departures), ("weather", weather), ("requests", requests)):
        connection.register("columns", table)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM columns")
        connection.unregister("columns")


def declare(folder: Path) -> list[tm.FeatureView]:
    """The views, over the tables as files."""
    airport, aircraft = tm.Entity("airport", key="origin"), tm.Entity("aircraft", key="tailnum")
    tables = {name: tm.Source(str(folder / f"{name}.parquet"), format="parquet") for name in ("departures", "weather")}
    departures = tm.Dataset(
        "departures", {"t": tables["departures"]}, query="SELECT *, make_timestamptz(event) AS happened FROM t", event_time="happened"
    )
    weather = tm.Dataset(
        "weather",
        {"t": tables["weather"]},
        query="SELECT *, make_timestamptz(event) AS observed, make_timestamptz(known) AS published FROM t",
        event_time="observed",
        known_at="published",
    )
    folds = {"mean_delay": tm.mean("delay"), "late_share": tm.mean("delay > 15"), "departed": tm.count()}
    return [
        tm.FeatureView("last_row", departures, entity=aircraft, ttl="2d", features={"delay": tm.last("delay")}),
        tm.FeatureView("last_weather", weather, entity=airport, ttl="3h", features=["temp", "wind", "precip", "visib"]),
        tm.FeatureView("windows", departures, entity=airport, windows=list(WINDOWS), features=folds),
    ]


def open_readers(connection: duckdb.DuckDBPyConnection, folder: Path) -> tuple[dict[str, Reader], Requests]:
    """A reader for each view and one for all, the whole way from files; and the requests."""
    for name in ("departures", "weather"):
        connection.execute(f"COPY {name} TO '{folder / name}.parquet'")
    ledger = Ledger(Records(None), MemoryBlobs(), lambda: 0)
    readers, logs, views = {}, {}, declare(folder)
    for view in views:
        version = build(ledger, view, ingest(ledger, view.dataset).output).output
        logs[view.name] = load(ledger, view, version)
        readers[view.name] = Reader([view], {view.name: logs[view.name]}, {view.name: version.ref.digest})
    readers["all"] = Reader(views, logs, {name: name for name in logs})
    columns = connection.execute("SELECT * FROM requests ORDER BY place").fetchnumpy()
    texts = {name: Coded.of(columns[name].tolist()) for name in ("origin", "tailnum")}
    at = columns["asked"].astype(np.int64)
    keys = np.arange(ROWS).astype("S8")
    return readers, Requests(keys, at, at, at, texts, [], np.empty((ROWS, 0)), {})


# ── the reference ───────────────────────────────────────────────────────────────────────────────────────────────────

LAST_ROW = f"""
SELECT place, CASE WHEN asked - event <= {duration("2d")} THEN delay END AS delay
FROM requests ASOF LEFT JOIN departures d ON requests.tailnum = d.tailnum AND asked >= event"""

# Each row of the weather is known an hour after its event, so the newest known one is also the newest: one ASOF join is enough.
WEATHER = ", ".join(
    f"CASE WHEN asked - event <= {duration('3h')} THEN {name} END AS {name}" for name in ("temp", "wind", "precip", "visib")
)
LAST_WEATHER = f"""
SELECT place, {WEATHER}
FROM requests ASOF LEFT JOIN weather w ON requests.origin = w.origin AND asked >= known"""


def _range_frames() -> str:
    """Requests and events in one table, and a RANGE frame for each window whose start is the request's own."""
    folds = ", ".join(
        f"avg(delay) OVER w{w} AS mean_{w}, avg((delay > 15)::DOUBLE) OVER w{w} AS share_{w}, count(delay) OVER w{w} AS n_{w}"
        for w in WINDOWS
    )
    frames = ", ".join(
        f"w{w} AS (PARTITION BY origin ORDER BY t RANGE BETWEEN (t - (t - {duration(w)}) // {hop} * {hop}) PRECEDING AND CURRENT ROW)"
        for w, hop in WINDOWS.items()
    )
    both = "SELECT NULL AS place, origin, event AS t, delay FROM departures UNION ALL SELECT place, origin, asked, NULL FROM requests"
    return f"SELECT * EXCLUDE (origin, t, delay) FROM (SELECT *, {folds} FROM ({both}) WINDOW {frames}) WHERE place IS NOT NULL"


def _running_sums() -> str:
    """Running sums over all events, and two ASOF joins for each window: cheaper, but exact only where the numbers are whole."""
    sums = """SELECT origin, event, sum(delay) OVER w AS s, sum((delay > 15)::INT) OVER w AS late, count(*) OVER w AS n
        FROM departures WINDOW w AS (PARTITION BY origin ORDER BY event)"""
    parts, chosen = "", []
    for w, hop in WINDOWS.items():
        begin = f"(asked - {duration(w)}) // {hop} * {hop}"
        parts += f" ASOF LEFT JOIN sums s{w} ON q.origin = s{w}.origin AND {begin} > s{w}.event"
        n = f"(e.n - coalesce(s{w}.n, 0))"
        chosen += [f"(e.s - coalesce(s{w}.s, 0)) / nullif({n}, 0) AS mean_{w}"]
        chosen += [f"(e.late - coalesce(s{w}.late, 0)) / nullif({n}, 0) AS share_{w}", f"{n} AS n_{w}"]
    return (
        f"WITH sums AS MATERIALIZED ({sums}) SELECT q.place, {', '.join(chosen)} FROM requests q "
        f"ASOF LEFT JOIN sums e ON q.origin = e.origin AND asked >= e.event{parts}"
    )


def asked_of(connection: duckdb.DuckDBPyConnection, sql: str) -> Callable[[], Any]:
    """The query's answer as a matrix in the order of the requests, as ours is."""

    def answer() -> Any:
        found = connection.execute(sql).fetchnumpy()
        matrix = np.empty((ROWS, len(found) - 1))
        for i, name in enumerate(name for name in found if name != "place"):
            matrix[np.ma.getdata(found["place"]).astype(np.int64), i] = np.ma.filled(found[name].astype(np.float64), np.nan)
        return matrix

    return answer


def check_equal(ours: Any, theirs: Any, what: str) -> None:
    """Every value, bit for bit; a request before the first event of its entity has no count here and 0 in SQL."""
    theirs = np.where(np.isnan(ours) & (theirs == 0), np.nan, theirs)
    equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if not equal.all():
        row, column = np.argwhere(~equal)[0]
        raise SystemExit(
            f"{what}: {np.sum(~equal):,} values differ, first at row {row}, column {column}: {ours[row, column]} {theirs[row, column]}"
        )


def main() -> None:
    """Compare view by view, then all at once with the faster SQL of each."""
    say_where("numpy", "duckdb")
    connection = duckdb.connect()
    make_tables(connection)
    with tempfile.TemporaryDirectory() as folder:
        readers, requests = open_readers(connection, Path(folder))
    queries = {
        "last row of 4,000 aircraft": ("last_row", LAST_ROW),
        "last row of 3 airports, 4 columns": ("last_weather", LAST_WEATHER),
        "3 windows × 3 folds, RANGE frames": ("windows", _range_frames()),
        "3 windows × 3 folds, running sums": ("windows", _running_sums()),
    }
    heading("DuckDB SQL")
    ours: dict[str, list[float]] = {}
    best: dict[str, list[float]] = {}
    for what, (name, sql) in queries.items():
        answer = asked_of(connection, sql)
        check_equal(readers[name].read(requests, requests.at).values, answer(), what)  # and warms both
        if name not in ours:
            ours[name] = seconds(lambda reader=readers[name]: reader.read(requests, requests.at), times=RUNS, warm=0)
        theirs = seconds(answer, times=1 if "RANGE" in what else RUNS, warm=0)
        best[name] = min(best.get(name, theirs), theirs)
        compared(what, ours[name], theirs)
    together = [sum(runs) for runs in zip(*best.values(), strict=True)]
    compared("all three views, the faster SQL", seconds(lambda: readers["all"].read(requests, requests.at), times=RUNS, warm=0), together)
    print(f"\n{ROWS:,} rows, {RUNS} runs (RANGE frames once): median (lowest–highest); all values equal")


if __name__ == "__main__":
    main()
