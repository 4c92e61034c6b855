"""Features of a million rows from three tables of a million rows and ten features, as known then and plainly, against hand-written DuckDB.

The rule: of the rows of a key with `t − 30 days ≤ event ≤ t` the newest, of one event time the one created last; "as known then" also
`created ≤ t`. 100,000 keys, ten history rows each, one in a hundred a correction. Every piece runs in its own process, which tells its CPU
seconds without the imports and the peak of its memory; then all thirty columns of both are compared.

    .venv/bin/python benchmarks/retrieval.py [ROWS] [--peer PYTHON]

PYTHON is an interpreter with feast[duckdb]==0.67.0; its DuckDB store then does the same work.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TABLES, FEATURES, TTL, RUNS = 3, 10, "30d", 3
START, SECOND, DAYS = 1_735_689_600_000_000, 1_000_000, 90
WORKS = ("duckdb", "views there", "views there, to a file", "first time")


def make(folder: Path, rows: int) -> None:
    """The files: `entity.parquet` and a history for each table."""
    import duckdb
    import numpy as np

    keys = max(rows // 10, 20)

    def moments(rng: Any, n: int) -> Any:
        return START + rng.integers(0, DAYS * 86_400, n) * SECOND

    def write(name: str, times: tuple[str, ...], columns: dict[str, Any]) -> None:
        with duckdb.connect() as connection:
            connection.register("columns", columns)
            shown = ", ".join(f"make_timestamptz({name}) AS {name}" if name in times else name for name in columns)
            connection.execute(f"COPY (SELECT {shown} FROM columns) TO '{folder / name}.parquet' (FORMAT parquet)")

    rng = np.random.default_rng(99)
    entity = {"row": np.arange(rows), "driver_id": rng.integers(0, keys, rows), "event_timestamp": moments(rng, rows)}
    write("entity", ("event_timestamp",), {**entity, "label": rng.integers(0, 2, rows)})
    for k in range(TABLES):
        rng, more = np.random.default_rng(k), rows // 100
        key, event = rng.integers(0, keys, rows), moments(rng, rows)
        created = event + rng.integers(0, 3600, rows) * SECOND
        corrected = rng.choice(rows - more, more, replace=False)
        key[-more:], event[-more:] = key[corrected], event[corrected]
        created[-more:] = created[corrected] + rng.integers(1, 86_400, more) * SECOND
        mixed = rng.permutation(rows)
        values = {f"v{k}_f{i}": rng.integers(0, 1000, rows) if i % 5 == 4 else rng.standard_normal(rows) for i in range(FEATURES)}
        times = {"event_timestamp": event[mixed], "created": created[mixed]}
        write(f"features{k}", tuple(times), {"driver_id": key[mixed], **times, **values})


def project(folder: Path) -> None:
    """The same tables as views of a project."""
    lines = ["import tidemill as tm", 'driver = tm.Entity("driver", key="driver_id")']
    for k in range(TABLES):
        source = f'{{"s": tm.Source("features{k}.parquet", format="parquet")}}'
        lines.append(f'd{k} = tm.Dataset("d{k}", {source}, event_time="event_timestamp", known_at="created")')
        lines.append(f'v{k} = tm.FeatureView("v{k}", d{k}, driver, ttl="{TTL}", features=[f"v{k}_f{{i}}" for i in range({FEATURES})])')
    (folder / "views.py").write_text("\n".join(lines) + "\n")
    (folder / "tidemill.toml").write_text('[project]\nname = "bench"\n')


# ── the pieces of work, each in a process of its own ────────────────────────────────────────────────────────────────


def by_duckdb(folder: Path, as_known: bool) -> dict[str, Any]:
    """Joins of row ids; columns are fetched for those that were found. As known then: only rows whose winner was not known are joined
    again, with all that was; ties of event and created time go to the later row there, as they may in the first join."""
    import duckdb

    db = duckdb.connect()
    db.execute(f"CREATE TABLE e AS SELECT * FROM '{folder}/entity.parquet'")
    for k in range(TABLES):
        db.execute(f"CREATE TABLE f{k} AS SELECT * FROM '{folder}/features{k}.parquet'")
        db.execute(f"""CREATE TABLE w{k} AS SELECT e.row, f.id, f.event_timestamp AS event, f.created FROM e ASOF JOIN
            (SELECT driver_id, event_timestamp, arg_max(rowid, created) AS id, max(created) AS created FROM f{k} GROUP BY ALL) f
            ON e.driver_id = f.driver_id AND e.event_timestamp >= f.event_timestamp""")
        winners = f"SELECT row, id, event FROM w{k}"
        if as_known:
            db.execute(f"""CREATE TABLE r{k} AS SELECT e.row, arg_max(f.rowid, (f.event_timestamp, f.created, f.rowid)) AS id,
                max(f.event_timestamp) AS event
                FROM w{k} JOIN e USING (row) JOIN f{k} f ON e.driver_id = f.driver_id AND f.event_timestamp <= e.event_timestamp
                AND f.created <= e.event_timestamp WHERE w{k}.created > e.event_timestamp GROUP BY e.row""")
            winners = f"SELECT row, id, event FROM w{k} JOIN e USING (row) WHERE created <= e.event_timestamp UNION ALL FROM r{k}"
        db.execute(f"""CREATE TABLE m{k} AS SELECT row, id FROM ({winners}) JOIN e USING (row)
            WHERE event >= e.event_timestamp - INTERVAL 30 DAY""")
    joins = "".join(f" LEFT JOIN m{k} ON m{k}.row = e.row LEFT JOIN f{k} ON f{k}.rowid = m{k}.id" for k in range(TABLES))
    names = ", ".join(f"f{k}.v{k}_f{i}" for k in range(TABLES) for i in range(FEATURES))
    found: dict[str, Any] = db.execute(f"SELECT e.*, {names} FROM e{joins} ORDER BY e.row").fetchnumpy()
    return {name.replace(f"v{k}_", f"v{k}__v{k}_"): found[name] for k in range(TABLES) for name in found if name.startswith(f"v{k}_")}


def by_tidemill(folder: Path, as_known: bool, to: Path | None = None) -> dict[str, Any]:
    """The same through a project."""
    import tidemill

    views = [f"v{k}" for k in range(TABLES)]
    return dict(tidemill.open(folder).historical_features(folder / "entity.parquet", views, as_known=as_known, to=to).columns)


def by_feast(folder: Path, as_known: bool) -> int:
    """The same through Feast's DuckDB store; the number of rows."""
    from datetime import timedelta

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    place = Path(tempfile.mkdtemp())
    config = {"project": "bench", "provider": "local", "registry": str(place / "registry.db"), "entity_key_serialization_version": 3}
    online = {"type": "sqlite", "path": str(place / "online.db")}
    store = FeatureStore(config=RepoConfig(**config, online_store=online, offline_store={"type": "duckdb"}))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    views = []
    for k in range(TABLES):
        path = str((folder / f"features{k}.parquet").resolve())
        source = FileSource(name=f"s{k}", path=path, timestamp_field="event_timestamp", created_timestamp_column="created")
        schema = [Field(name="driver_id", dtype=Int64)]
        schema += [Field(name=f"v{k}_f{i}", dtype=Int64 if i % 5 == 4 else Float64) for i in range(FEATURES)]
        views.append(FeatureView(name=f"v{k}", entities=[driver], ttl=timedelta(days=30), schema=schema, source=source))
    store.apply([driver, *views])
    names = [f"v{k}:v{k}_f{i}" for k in range(TABLES) for i in range(FEATURES)]
    entity, more = pd.read_parquet(folder / "entity.parquet"), {"filter_by_created_timestamp": True} if as_known else {}
    global begun  # the definitions are not counted
    begun = (time.process_time(), time.perf_counter())
    return len(store.get_historical_features(entity_df=entity, features=names, **more).to_df())


begun = (0.0, 0.0)


def work(name: str, folder: Path, as_known: bool, rows: int) -> None:
    """Do a piece of work and print what it cost."""
    global begun
    if name == "feast":
        import feast  # noqa: F401 – not counted
    else:
        import duckdb  # noqa: F401 – not counted
        import numpy  # noqa: F401, ICN001 – not counted

        import tidemill.session  # noqa: F401 – not counted
    begun = (time.process_time(), time.perf_counter())
    told = ""
    if name == "feast":
        told = f"{by_feast(folder, as_known):,} rows"
    elif name == "make":
        make(folder, rows)
    elif name == "compare":
        told = compare(folder, as_known)
    elif name == "duckdb":
        by_duckdb(folder, as_known)
    else:
        by_tidemill(folder, as_known, folder / "out.parquet" if "file" in name else None)
    cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    print(json.dumps({"cpu": cpu, "wall": wall, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "told": told}))


def cost(name: str, folder: Path, as_known: bool, python: str = sys.executable, rows: int = 0) -> dict[str, Any]:
    """What a piece of work costs in a process of its own. This one stays small: a process begins with the peak of its parent."""
    command = [python, __file__, str(rows), "--work", name, "--folder", str(folder), *(["--known"] if as_known else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(folder: Path, as_known: bool) -> str:
    """Stop where any value of any column differs."""
    import numpy as np

    ours, theirs = by_tidemill(folder, as_known), by_duckdb(folder, as_known)
    for name, column in theirs.items():
        found = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
        if not ((ours[name] == found) | (np.isnan(ours[name]) & np.isnan(found))).all():
            raise SystemExit(f"{name} differs, as known then: {as_known}")
    nulls = sum(int(np.isnan(ours[name]).sum()) for name in theirs)
    return f"{len(theirs)} columns of {len(found):,} rows are equal, {nulls:,} values are null"


def main(rows: int, peer: str) -> None:
    """Measure both modes and print them."""
    from measure import say_where

    say_where("numpy", "duckdb")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cost("make", folder, False, rows=rows)
        project(folder)
        first = cost("first time", folder, True)
        for as_known in (True, False):
            print(f"\n{'as known then' if as_known else 'plain'}: {rows:,} rows × {TABLES} tables × {FEATURES} features")
            print(cost("compare", folder, as_known)["told"])
            found = {name: [cost(name, folder, as_known) for _ in range(RUNS)] for name in WORKS[:-1]}
            if as_known:
                found["first time: files, versions, views"] = [first]
            if peer:
                found["Feast, DuckDB store"] = [cost("feast", folder, as_known, peer)]
            base = statistics.median(run["cpu"] for run in found["duckdb"])
            print(f"{'':<36} {'CPU s':>18} {'÷ DuckDB':>9} {'wall s':>8} {'peak MiB':>9}")
            for name, runs in found.items():
                cpu = sorted(run["cpu"] for run in runs)
                middle, wall = statistics.median(cpu), statistics.median(run["wall"] for run in runs)
                shown = f"{middle:.2f} ({cpu[0]:.2f}–{cpu[-1]:.2f})"
                print(f"{name:<36} {shown:>18} {middle / base:>9.2f} {wall:>8.2f} {max(run['mib'] for run in runs):>9,.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--peer", default="", help="an interpreter with feast[duckdb]==0.67.0")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--known", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.folder, given.known, given.rows)
    else:
        main(given.rows, given.peer)
