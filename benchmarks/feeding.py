"""What it costs to bring features online, beside Feast: the newest of a million rows for 100,000 keys, five tables of 20,000 keys, and one
pushed event of ten features. Every piece runs in its own process, which tells its CPU seconds without the imports of what makes it ready.

    .venv/bin/python benchmarks/feeding.py [ROWS] [--peer PYTHON]

PYTHON is an interpreter with feast[duckdb]==0.67.0; its DuckDB and SQLite stores then do the same work. Ours is in LMDB. "From the dataset"
begins where Feast begins, at the rows in the store that training reads: the view's version is made, as `historical_features` makes it, and
brought online. "From the view": it
was made before, for a training set. "From files": the dataset's version is made first – read, checked, profiled and stored –, which Feast
does not have.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

FEATURES, TABLES, PUSHES, RUNS = 10, 5, 1_000, 3
START, SECOND, DAYS = 1_735_689_600_000_000, 1_000_000, 90
NOW = START + DAYS * 86_400 * SECOND
WORKS = (
    "history, from the dataset",
    "history, from the view",
    "history, from files",
    "five tables, from the datasets",
    "five tables, from the views",
    "five tables, from files",
    "push of one event",
    "push of 1,000",
)


def make(folder: Path, rows: int) -> None:
    """The files: `history.parquet`, `table0.parquet` and so on, and one row to push to."""
    import duckdb
    import numpy as np

    def write(name: str, keys: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        event = START + rng.integers(0, DAYS * 86_400, len(keys)) * SECOND
        values = {f"f{i}": rng.standard_normal(len(keys)) for i in range(FEATURES)}
        with duckdb.connect() as connection:
            connection.register("columns", {"driver_id": keys, "event_timestamp": event, **values})
            shown = f"driver_id, make_timestamptz(event_timestamp) AS event_timestamp, {', '.join(values)}"
            connection.execute(f"COPY (SELECT {shown} FROM columns) TO '{folder / name}.parquet' (FORMAT parquet)")

    write("history", np.random.default_rng(7).integers(0, max(rows // 10, 1), rows), 1)
    for k in range(TABLES):
        write(f"table{k}", np.arange(max(rows // 50, 1)), 10 + k)
    write("push", np.arange(1), 99)


# ── the pieces of work ──────────────────────────────────────────────────────────────────────────────────────────────


def by_tidemill(name: str, folder: Path) -> Callable[[], str]:
    """What is to be measured, made ready."""
    import tidemill as tm
    from tidemill.core import Where
    from tidemill.data import ingest, kept_open
    from tidemill.features import Feed, Pusher, build, load, materialise, open_online
    from tidemill.ledger import Ledger
    from tidemill.store import FolderBlobs, Records

    scratch = Path(tempfile.mkdtemp(dir=folder))
    ledger, where = Ledger(Records(scratch / "records.db"), FolderBlobs(scratch / "blobs"), lambda: 0), Where(str(folder / "views.py"), 1)
    files = ["history"] if "history" in name else [f"table{k}" for k in range(TABLES)] if "tables" in name else ["push"]
    views = []
    for file in files:
        dataset = tm.Dataset(
            file, {"s": tm.Source(f"{file}.parquet", format="parquet", where=where)}, event_time="event_timestamp", where=where
        )
        views.append(tm.FeatureView(file, dataset, tm.Entity("driver", key="driver_id"), features=[f"f{i}" for i in range(FEATURES)]))
    store = open_online(scratch / "online")

    @cache
    def datasets() -> list[Any]:
        return [ingest(ledger, view.dataset).output for view in views]

    def made() -> list[Any]:
        found = datasets()
        with kept_open():
            return [build(ledger, view, dataset).output for view, dataset in zip(views, found, strict=True)]

    def put() -> str:
        logs = [(load(ledger, view, version), version) for view, version in zip(views, made(), strict=True)]
        written = sum(materialise(store, log, NOW, version=version.ref.digest) for log, version in logs)
        return f"{written:,} entities"

    if "from the dataset" in name:
        datasets()
    if "from the view" in name:
        made()
    if "push" not in name:
        return put
    (version,) = made()
    materialise(store, load(ledger, views[0], version), NOW, version=version.ref.digest, feed=Feed.of(ledger, views[0], version))
    pusher, chance = Pusher(ledger, views[0].dataset, version.meta["types"], store), random.Random(1)
    rows = [{"driver_id": 1, "event_timestamp": stamp(n), **{f"f{i}": chance.random() for i in range(FEATURES)}} for n in range(PUSHES)]
    pusher.push(rows[:1], NOW)

    def push() -> str:
        for n, row in enumerate(rows):
            pusher.push([row], NOW + n * SECOND)
        return f"{PUSHES:,} pushes"

    def push_all() -> str:
        pusher.push(rows, NOW)
        return "1 push"

    return push_all if "1,000" in name else push


def stamp(n: int) -> str:
    """The time of a pushed event."""
    return (datetime.fromtimestamp(NOW / 1e6, UTC) + timedelta(seconds=n)).isoformat()


def by_feast(name: str, folder: Path) -> Callable[[], str]:
    """The same through Feast."""
    import pandas as pd
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
    from feast.data_source import PushMode
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    place = Path(tempfile.mkdtemp(dir=folder))
    config = {"project": "bench", "provider": "local", "registry": str(place / "registry.db"), "entity_key_serialization_version": 3}
    online = {"type": "sqlite", "path": str(place / "online.db")}
    store = FeatureStore(config=RepoConfig(**config, online_store=online, offline_store={"type": "duckdb"}))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    schema = [Field(name="driver_id", dtype=Int64), *(Field(name=f"f{i}", dtype=Float64) for i in range(FEATURES))]
    tables = [f"table{k}" for k in range(TABLES)]
    files = ["history"] if "history" in name else tables if "tables" in name else ["push", "history", *tables]
    views = []
    for file in files:
        source: Any = FileSource(name=file, path=str((folder / f"{file}.parquet").resolve()), timestamp_field="event_timestamp")
        source = PushSource(name="pushes", batch_source=source) if file == "push" else source
        views.append(
            FeatureView(name=f"v_{file}", entities=[driver], ttl=timedelta(days=36_500), schema=schema, source=source, online=True)
        )
    services = [FeatureService(name="one", features=views[-1:]), FeatureService(name="several", features=views[-TABLES:])]
    store.apply([driver, *views, *services])
    if "push" not in name:

        def put() -> str:
            store.materialize(datetime.fromtimestamp(START / 1e6 - 1, UTC), datetime.fromtimestamp(NOW / 1e6, UTC))
            return ""

        return put
    chance = random.Random(1)
    rows = [
        {"driver_id": 1, "event_timestamp": pd.Timestamp(stamp(n)), **{f"f{i}": chance.random() for i in range(FEATURES)}}
        for n in range(PUSHES)
    ]
    store.push("pushes", pd.DataFrame(rows[:1]), to=PushMode.ONLINE)

    def push() -> str:
        for row in rows[: PUSHES // 10]:
            store.push("pushes", pd.DataFrame([row]), to=PushMode.ONLINE)
        return "tenth"

    def push_all() -> str:
        store.push("pushes", pd.DataFrame(rows), to=PushMode.ONLINE)
        return ""

    return push_all if "1,000" in name else push


def work(name: str, folder: Path, rows: int, *, peer: bool) -> None:
    """Do a piece of work and print what it cost."""
    ready: Callable[[], Any] = (lambda: make(folder, rows)) if name == "make" else (by_feast if peer else by_tidemill)(name, folder)
    begun, wall = time.process_time(), time.perf_counter()
    told = ready()
    scale = 10 if told == "tenth" else 1
    cpu, wall = (time.process_time() - begun) * scale, (time.perf_counter() - wall) * scale
    print(json.dumps({"cpu": cpu, "wall": wall, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "told": told}))


def cost(name: str, folder: Path, rows: int, peer: str = "") -> dict[str, Any]:
    """What a piece of work costs in a process of its own."""
    command = [peer or sys.executable, __file__, str(rows), "--work", name, "--folder", str(folder), *(["--theirs"] if peer else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(rows: int, peer: str) -> None:
    """Measure and print."""
    from measure import say_where

    say_where("numpy", "duckdb", "lmdb")
    print(f"\n{'':<30} {'CPU s':>22} {'peak MiB':>9} {'Feast CPU s':>12} {'Feast ÷ ours':>13}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cost("make", folder, rows)
        for name in WORKS:
            runs = [cost(name, folder, rows) for _ in range(RUNS)]
            cpu = sorted(run["cpu"] for run in runs)
            theirs = cost(name, folder, rows, peer)["cpu"] if peer else 0.0
            shown = f"{statistics.median(cpu):.3f} ({cpu[0]:.3f}–{cpu[-1]:.3f})"
            beside = f"{theirs:>12.2f} {theirs / statistics.median(cpu):>13.0f}" if peer else ""
            print(f"{name:<30} {shown:>22} {max(run['mib'] for run in runs):>9,} {beside}")
    print(f"\nmedian of {RUNS} processes (lowest–highest); {rows:,} rows of history; {PUSHES:,} pushes of one event together")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--peer", default="", help="an interpreter with feast[duckdb]==0.67.0")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.folder, given.rows, peer=given.theirs)
    else:
        main(given.rows, given.peer)
