"""Many rows scored into a file, beside onnxruntime over a matrix that is ready: rows for each CPU second, and the peak of memory.

Eight features (two of the request, six looked up, three with a window of a day) and a hundred trees of LightGBM, compiled.
Rows ask by the key of a known request, by their own columns, or by their features; "again" is the same command once more, when all is
kept. The bound asks the same ONNX for the probabilities of the same features, ten thousand rows at a time, on as many threads: nothing is
read, checked or written. Every piece runs in its own process, which tells its CPU seconds without imports and opening.

Beside it what a user writes by hand for the features: LightGBM's own booster over chunks of a file, read and written with Polars
(`polars`), and MLflow's `pyfunc` over chunks of a pandas frame, of a matrix in memory into an array (`mlflow`, by the Python of an
environment that has it). They check nothing, keep nothing and know no times.

    .venv/bin/python benchmarks/scoring.py [ROWS] [--peer .venv-mlflow/bin/python]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from measure import BIN, say_where

parser = argparse.ArgumentParser()
parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
parser.add_argument("--peer", default="", help="the Python of an environment with mlflow and lightgbm")
ASKED = parser.parse_args()
ROWS = ASKED.rows
NAMES = ("own__size", "own__hour", "profile__d0", "profile__d1", "profile__d2", "recent__n_24h", "recent__sum_24h", "recent__mean_24h")
DRIVERS, EVENTS, ORDERS, RUNS = 5_000, 50_000, 100_000, 3
DECLARED = """
import tidemill as tm

def rows(name):
    return tm.Dataset(name, {name: tm.Source(f"{name}.parquet", format="parquet")}, event_time="since")

driver = tm.Entity("driver", key="driver_id")
profile = tm.FeatureView("profile", rows("drivers"), driver, features=["d0", "d1", "d2"], ttl="90d")
recent = tm.FeatureView("recent", rows("trips"), driver, windows=["24h"],
    features={"n": tm.count(), "sum": tm.sum("amount"), "mean": tm.mean("amount")})
orders = tm.Dataset("orders", {"orders": tm.Source("orders.parquet", format="parquet")}, key="order_id", event_time="since",
    query="SELECT order_id, since, driver_id, size FROM orders")
outcomes = tm.Dataset("outcomes", {"orders": tm.Source("orders.parquet", format="parquet")}, key="order_id", event_time="done",
    query="SELECT order_id, since + INTERVAL 1 HOUR AS done, late FROM orders")
own = tm.RequestView("own", orders, features={"size": "size", "hour": "hour(timezone('UTC', since))"})
task = tm.Task("late", request=orders, predict_at="since", features=[own, profile, recent], label=tm.Label(outcomes, "late > 0"))

@tm.model(task, seed=1)
def trees(train, params):
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=100, random_state=1, n_jobs=2, verbose=-1).fit(train.X, train.y)

serve = tm.Deployment("late", trees, gates=[tm.gates.better_than_champion("log_loss", holdout="5d")])
watch = tm.Monitor(serve, every="7d", quality=["log_loss"])
keep = tm.RetrainPolicy(watch, on=[tm.Age("60d")])
"""
SCORE = """
import resource, sys, time
import tidemill as tm
handle = tm.open(sys.argv[1]).deployments["late"]
handle.endpoint()
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
found = handle.score(sys.argv[2], to=sys.argv[3], explain=len(sys.argv) > 4)
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(cpu, time.perf_counter() - began, after.ru_maxrss / 1024, found.tally.scored, found.tally.failed)
"""
BOUND = """
import resource, sys, time
import numpy as np, onnxruntime
import duckdb
import tidemill as tm
endpoint = tm.open(sys.argv[1]).deployments["late"].endpoint()
predictor = endpoint.predictors[endpoint.standing.champion[1]]
columns = duckdb.sql(f"SELECT * FROM read_parquet('{sys.argv[2]}')").fetchnumpy()
own = [np.ma.asarray(columns[name], dtype=float) for name in predictor.signature.features]
matrix = np.stack([np.ma.filled(one, np.nan) for one in own], axis=1)
predictor.predict(matrix[:10])
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
for start in range(0, len(matrix), 10_000):
    predictor.predict(matrix[start:start + 10_000])
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(cpu, time.perf_counter() - began, after.ru_maxrss / 1024, len(matrix), 0)
"""

NATIVE = """
import sys
from pathlib import Path
import duckdb, numpy as np
import tidemill as tm
session = tm.open(sys.argv[1])
endpoint = session.deployments["late"].endpoint()
model = session.ledger.artifact_of("model", endpoint.standing.champion[1])
Path(sys.argv[2]).write_bytes(session.ledger.blobs.get(model.blob("native")))
names = endpoint.given.signature.features
columns = duckdb.sql(f"SELECT * FROM read_parquet('{sys.argv[3]}')").fetchnumpy()
np.save(sys.argv[4], np.stack([np.ma.filled(np.ma.asarray(columns[name], dtype=float), np.nan) for name in names], axis=1))
print(0, 0, 0, 0, 0)
"""
POLARS = """
import resource, sys, time
import lightgbm, polars as pl
model = lightgbm.Booster(model_file=sys.argv[1])
names = sys.argv[4].split(",")
model.predict(pl.scan_parquet(sys.argv[2]).head(10).select(names).collect().to_numpy(), num_threads=1)
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
rows, parts = 0, []
total = pl.scan_parquet(sys.argv[2]).select(pl.len()).collect().item()
for start in range(0, total, 65_536):
    frame = pl.scan_parquet(sys.argv[2]).select(["key", *names]).slice(start, 65_536).collect()
    parts.append(frame.select("key").with_columns(probability=model.predict(frame.select(names).to_numpy(), num_threads=1)))
    rows += len(frame)
pl.concat(parts).write_parquet(sys.argv[3])
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(cpu, time.perf_counter() - began, after.ru_maxrss / 1024, rows, 0)
"""
MLFLOW = """
import resource, sys, tempfile, time
import lightgbm, mlflow, numpy as np, pandas as pd
folder, matrix = tempfile.mkdtemp() + "/model", np.load(sys.argv[2])
mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), folder)
model, names = mlflow.pyfunc.load_model(folder), sys.argv[4].split(",")
model.predict(pd.DataFrame(matrix[:10], columns=names), params={"num_threads": 1})
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
parts = []
for start in range(0, len(matrix), 65_536):
    frame = pd.DataFrame(matrix[start:start + 65_536], columns=names)
    parts.append(model.predict(frame))
np.save(sys.argv[3], np.concatenate(parts))
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(cpu, time.perf_counter() - began, after.ru_maxrss / 1024, len(matrix), 0)
"""


def make_project(folder: Path) -> None:
    """Thirty days of orders, trained and promoted; and the rows that are to be scored."""
    import duckdb

    rng, now = np.random.default_rng(1), datetime.now(UTC).replace(microsecond=0)
    folder.mkdir()
    (folder / "tidemill.toml").write_text('[project]\nname = "bench"\n')
    (folder / "declared.py").write_text(DECLARED)

    def write(name: str, days: object, **columns: object) -> None:
        with duckdb.connect() as connection:
            connection.register("given", {"ago": days, **columns})
            at = f"TIMESTAMPTZ '{now.isoformat()}' - to_microseconds((ago * 86400e6)::BIGINT) AS since"
            connection.execute(f"COPY (SELECT {at}, * EXCLUDE ago FROM given) TO '{folder / name}.parquet'")

    drivers = rng.standard_normal((DRIVERS, 3))
    write("drivers", np.full(DRIVERS, 40.0), driver_id=np.arange(DRIVERS), **{f"d{i}": drivers[:, i] for i in range(3)})
    write("trips", rng.uniform(0, 31, EVENTS), driver_id=rng.integers(0, DRIVERS, EVENTS), amount=rng.integers(1, 100, EVENTS))
    driver, size = rng.integers(0, DRIVERS, ORDERS), rng.standard_normal(ORDERS)
    late = (rng.random(ORDERS) < 1 / (1 + np.exp(-drivers[driver, 0] - size))).astype(int)
    write("orders", rng.uniform(0.1, 30, ORDERS), order_id=np.arange(ORDERS), driver_id=driver, size=size, late=late)
    for rows in (ROWS // 10, ROWS):
        more = {"driver_id": rng.integers(0, DRIVERS, rows), "size": rng.standard_normal(rows)}
        write(f"columns-{rows}", rng.uniform(0.1, 30, rows), order_id=ORDERS + np.arange(rows), **more)
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT order_id FROM '{folder}/orders.parquet') TO '{folder}/key-{ORDERS}.parquet'")
    subprocess.run([BIN / "tidemill", "-C", folder, "run"], check=True, stdout=subprocess.DEVNULL)


def ran(code: str, *arguments: object, python: str = sys.executable) -> tuple[float, float, float, int, int]:
    """CPU seconds, seconds, MiB, rows, and how many failed."""
    done = subprocess.run([python, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    cpu, wall, memory, rows, failed = done.stdout.split()[-5:]
    return float(cpu), float(wall), float(memory), int(rows), int(failed)


def main() -> None:
    """A line for each form and size."""
    say_where("duckdb", "onnxruntime", "lightgbm")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        make_project(folder)
        print(f"{'':<12}{'rows':>10}{'CPU s':>8}{'wall s':>8}{'rows a CPU s':>14}{'MiB':>7}")

        def line(name: str, rows: int, found: tuple[float, float, float, int, int]) -> None:
            cpu, wall, memory, _, failed = found
            assert not failed, json.dumps(found)
            print(f"{name:<12}{rows:>10,}{cpu:>8.1f}{wall:>8.1f}{rows / cpu:>14,.0f}{memory:>7.0f}", flush=True)

        line("key", ORDERS, ran(SCORE, folder, folder / f"key-{ORDERS}.parquet", folder / "out.parquet"))
        for rows in (ROWS // 10, ROWS):
            asked, given = folder / f"columns-{rows}.parquet", folder / f"features-{rows}.parquet"
            line("columns", rows, ran(SCORE, folder, asked, folder / "out.parquet"))
            line("again", rows, ran(SCORE, folder, asked, folder / "out.parquet"))
            ran(SCORE, folder, asked, given, "explain")
            line("features", rows, ran(SCORE, folder, given, folder / "out.parquet"))
            line("bound", rows, ran(BOUND, folder, given))
            native, matrix, names = folder / "model.txt", folder / "matrix.npy", ",".join(NAMES)
            ran(NATIVE, folder, native, given, matrix)
            line("polars", rows, ran(POLARS, native, given, folder / "peer.parquet", names))
            if ASKED.peer:
                line("mlflow", rows, ran(MLFLOW, native, matrix, folder / "peer.npy", names, python=ASKED.peer))


if __name__ == "__main__":
    main()
