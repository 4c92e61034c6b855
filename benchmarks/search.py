"""Pages of a search over 100,000 runs with 20 metrics and 20 parameters each, beside the least that any search must do: to read the same
100 runs by their numbers. The first page, and the one that 30 tokens lead to. In SQLite, or with `--records` in PostgreSQL.

    .venv/bin/python benchmarks/search.py [--records ADDRESS] [--runs 100000]
"""

import argparse
import random
import tempfile
from functools import partial
from pathlib import Path

from measure import compared, heading, say_where, seconds

from tidemill import tracking
from tidemill.ledger import Ledger
from tidemill.store import Driver, MemoryBlobs, Records
from tidemill.tracking.experiments import create_experiment
from tidemill.tracking.metrics import put_metrics, remember
from tidemill.tracking.runs import PUT_PARAM, rows_of, runs_of
from tidemill.tracking.search import search_runs

PAGE, DEEP, EACH, AT_ONCE, TIMES = 100, 30, 20, 2_000, 5
SEARCHES: list[tuple[str, list[str]]] = [
    ("", []),
    ("", ["metrics.m1"]),
    ("metrics.m2 > 0.5", ["metrics.m1 DESC"]),
    ("", ["metrics.m0", "metrics.m2 DESC"]),
    ("", ["params.p0"]),
    ("", ["params.p1"]),
    ("metrics.m2 > 0.5", ["params.p1"]),
    ("params.p0 = 'adam' AND metrics.m2 > 0.5", ["params.p2"]),
    ("", ["params.p0", "metrics.m1"]),
    ("", ["end_time DESC"]),
    ("metrics.m2 > 0.5 AND metrics.m3 < 0.5", ["end_time DESC"]),
    ("status = 'FAILED'", ["end_time DESC"]),
    ("", ["status"]),
    ("", ["run_name"]),
    ("metrics.m2 > 0.5", ["run_name"]),
    ("metrics.m2 > 0.999", ["params.p1"]),
]


def fill(ledger: Ledger, many: int) -> int:
    """Runs that came one after the other, written many at a time; returns their experiment."""
    experiment, chance = int(create_experiment(ledger, f"search {many}")), random.Random(1)
    for first in range(0, many, AT_ONCE):
        with ledger.records.transaction(synced=False) as sql:
            for at in range(first, min(first + AT_ONCE, many)):
                names = write(ledger, sql, experiment, 1_700_000_000_000 + 1_000 * at, chance)
        remember(ledger.records, names)
    return experiment


def write(ledger: Ledger, sql: Driver, experiment: int, at: int, chance: random.Random) -> dict[str, int]:
    """One run that began at a time in milliseconds; returns the numbers of its metrics' names."""
    name, uid = f"run {chance.randrange(5_000)}", f"{chance.getrandbits(128):032x}"
    number = ledger.begin_execution(sql, "run", name, started_at=1_000 * at)
    sql.run(
        "INSERT INTO run (execution, uid, experiment, name, who, stage, started_at, location) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
        (number, uid, experiment, name, chance.choice(["ann", "bob", "eve"]), at, f"mlflow-artifacts:/{experiment}/{uid}/artifacts"),
    )
    points = [(f"m{i}", chance.random() if i else float(chance.randrange(100)), 0, at, 1) for i in range(EACH)]
    values = [chance.choice(["adam", "sgd", "rms"]), f"{chance.random():.6f}", *(str(chance.randrange(1_000)) for _ in range(EACH - 2))]
    sql.many(PUT_PARAM, [(number, f"p{i}", value) for i, value in enumerate(values)])
    status = chance.choice([*["finished"] * 8, "failed", "running"])
    ledger.end_execution(sql, number, status, None if status == "running" else 1_000 * (at + chance.randrange(10**7)))
    return put_metrics(sql, ledger.records, number, experiment, points)


def measure(ledger: Ledger, experiment: int) -> None:
    """Each search: its first page, a deep one, and the bound."""
    for text, order in SEARCHES:
        page = partial(search_runs, ledger, [str(experiment)], text, order_by=order, max_results=PAGE)
        runs, token = page()
        with ledger.records.snapshot() as sql:
            numbers = [sql.all("SELECT execution FROM run WHERE uid = ?", (run.info.run_id,))[0][0] for run in runs]
        bound = seconds(partial(read, ledger, numbers), times=TIMES)
        print(f"{text or 'all'}, by {', '.join(order) or 'start'}")
        compared("    the first page", seconds(page, times=TIMES), bound)
        for _ in range(DEEP):
            token = page(page_token=token)[1] if token else None
        if token:
            compared(f"    page {DEEP + 1}", seconds(partial(page, page_token=token), times=TIMES), bound)


def read(ledger: Ledger, numbers: list[int]) -> None:
    """Runs by their numbers."""
    with ledger.records.snapshot() as sql:
        runs_of(sql, rows_of(sql, numbers))


def main() -> None:
    """Fill, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", default="", help="the address of an empty database of PostgreSQL")
    parser.add_argument("--runs", type=int, default=100_000)
    asked = parser.parse_args()
    say_where("sqlalchemy")
    with tempfile.TemporaryDirectory() as scratch:
        records = Records(asked.records or Path(scratch) / "records.db")
        ledger = Ledger(records, MemoryBlobs(), lambda: 0)
        tracking.prepare(ledger)
        experiment = fill(ledger, asked.runs)
        if asked.records:
            with records.transaction() as sql:
                sql.run("ANALYZE")  # as the database does by itself within a minute
        heading("by their numbers")
        measure(ledger, experiment)
        records.close()
    print(f"\nmedian of {TIMES} calls (lowest–highest), wall time, a page of {PAGE} among {asked.runs:,} runs")


if __name__ == "__main__":
    main()
