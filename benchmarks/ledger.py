"""The price of writing things down: `log_metric`, and `once` for a step that is known, beside raw sqlite3 with the same promise.

The bound for `log_metric` is one INSERT in one transaction, with the same pragmas, so that the disk's share is in both; the bound for
`once` is one SELECT of the row by its key and one `stat` of the blob. The same in memory shows the share of our own code.

    .venv/bin/python benchmarks/ledger.py
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import compared, heading, say_where

from tidemill import loop
from tidemill.core import Ref
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.store import FolderBlobs, MemoryBlobs, Records
from tidemill.tracking import Run

CALLS, RUNS = 300, 5


def per_call(function: Callable[[], Any]) -> list[float]:
    """The median time of a call, for each of several runs."""
    found = []
    for _ in range(RUNS):
        times = []
        for _ in range(CALLS):
            started = time.perf_counter()
            function()
            times.append(time.perf_counter() - started)
        found.append(statistics.median(times))
    return found


def ours(ledger: Ledger) -> dict[str, list[float]]:
    """`log_metric` of one run, and `once` of one step that was made before."""
    loop.prepare(ledger)

    def make() -> Made:
        digest = ledger.blobs.put(b"made")
        return Made({"out": Artifact(Ref.of("thing", "it", digest), {"blobs": {"bytes": digest}})})

    inputs = {"params": {"limit": 15, "name": "x"}, "code": "0" * 64}
    run = Run(ledger, ledger.once("step", "it", inputs, make).execution)
    return {
        "log_metric": per_call(lambda: run.log_metric("loss", 0.5, 1)),
        "once, known": per_call(lambda: ledger.once("step", "it", inputs, make)),
    }


def raw(path: str, blob: Path) -> dict[str, list[float]]:
    """The same row, and a row found by the same kind of key."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=full")
    connection.execute("CREATE TABLE metric (id INTEGER PRIMARY KEY, execution INTEGER, key TEXT, step INTEGER, value REAL)")
    connection.execute("CREATE INDEX of_execution ON metric (execution)")
    connection.execute("CREATE TABLE execution (id INTEGER PRIMARY KEY, key TEXT, outputs TEXT)")
    connection.execute("CREATE INDEX of_key ON execution (key)")
    connection.execute("INSERT INTO execution (key, outputs) VALUES ('k', '{}')")

    def insert() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO metric (execution, key, step, value) VALUES (?, ?, ?, ?)", (1, "loss", 1, 0.5))
        connection.execute("COMMIT")

    def select() -> None:
        connection.execute("SELECT id, outputs FROM execution WHERE key = ?", ("k",)).fetchone()
        blob.stat()

    found = {"log_metric": per_call(insert), "once, known": per_call(select)}
    connection.close()
    return found


def main() -> None:
    """On disk and in memory."""
    say_where("sqlalchemy")
    heading("raw sqlite3")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "blob").write_bytes(b"made")
        on_disk = Records(folder / "records.db")
        pairs = {
            "on disk": (
                ours(Ledger(on_disk, FolderBlobs(folder / "blobs"), lambda: 0)),
                raw(str(folder / "raw.db"), folder / "blob"),
            ),
            "in memory": (ours(Ledger(Records(None), MemoryBlobs(), lambda: 0)), raw(":memory:", folder / "blob")),
        }
        for place, (mine, other) in pairs.items():
            for what, values in mine.items():
                compared(f"{what}, {place}", values, other[what])
        on_disk.close()
    print(f"\nmedian of {CALLS} calls, {RUNS} runs: median (lowest–highest); every write is committed and synchronised")


if __name__ == "__main__":
    main()
