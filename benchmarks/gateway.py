"""One prediction over loopback HTTP: by entity keys, which looks features up, beside the same model by its features; both are logged.

Ten features from three views in LMDB (the newest values of a driver and of a shop, a driver's last 24 hours), a logistic regression of
scikit-learn, compiled, behind `tidemill up`. By features, a row names them itself: it is checked and logged, and nothing is looked up. As
tensors they come by the Open Inference Protocol. The bound is a bare uvicorn + starlette route. CPU is that of the
server's process.

    .venv/bin/python benchmarks/gateway.py [SECONDS]
"""

import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from measure import BIN, say_where, shown
from measure.server import Load, load, serving

from tidemill.serving.log import read_log

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
RUNS, DRIVERS, SHOPS, EVENTS, ORDERS, ASKED = 5, 5_000, 500, 50_000, 20_000, 1_000
FEATURES = [
    *(f"profile__d{i}" for i in range(4)),
    *(f"place__s{i}" for i in range(3)),
    *(f"recent__{one}_24h" for one in ("n", "sum", "mean")),
]
DECLARED = """
import tidemill as tm

def rows(name):
    return tm.Dataset(name, {name: tm.Source(f"{name}.csv")}, event_time="since")

driver, shop = tm.Entity("driver", key="driver_id"), tm.Entity("shop", key="shop_id")
profile = tm.FeatureView("profile", rows("drivers"), driver, features=[f"d{i}" for i in range(4)], ttl="60d")
place = tm.FeatureView("place", rows("shops"), shop, features=[f"s{i}" for i in range(3)], ttl="60d")
recent = tm.FeatureView("recent", rows("trips"), driver, windows=["24h"],
    features={"n": tm.count(), "sum": tm.sum("amount"), "mean": tm.mean("amount")})
orders = tm.Dataset("orders", {"orders": tm.Source("orders.csv")}, key="order_id", event_time="since",
    query="SELECT order_id, since, driver_id, shop_id FROM orders")
outcomes = tm.Dataset("outcomes", {"orders": tm.Source("orders.csv")}, key="order_id", event_time="done",
    query="SELECT order_id, since + INTERVAL 1 HOUR AS done, late FROM orders")
task = tm.Task("late", request=orders, predict_at="since", features=[profile, place, recent], label=tm.Label(outcomes, "late > 0"))

@tm.model(task, seed=1)
def linear(train, params):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(train.X, train.y)

serve = tm.Deployment("late", linear, gates=[tm.gates.better_than_champion("log_loss", holdout="5d")])
watch = tm.Monitor(serve, every="7d", quality=["log_loss"])
keep = tm.RetrainPolicy(watch, on=[tm.Age("60d")])
"""
HELLO = """
import socket, uvicorn, uvloop
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def hello(request):
    await request.body()
    return Response(b'{"hello": "world"}', media_type="application/json")

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle on: 40 ms
listener.bind(("127.0.0.1", 0))
print(f'{{"url": "http://127.0.0.1:{listener.getsockname()[1]}"}}', flush=True)
app = Starlette(routes=[Route("/hello", hello, methods=["POST"])])
uvloop.run(uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")).serve([listener]))
"""


def make_project(folder: Path) -> None:
    """Thirty days of orders until now, of which a shop's first value and a driver's say which are late; trained and promoted."""
    import duckdb

    rng, now = np.random.default_rng(1), datetime.now(UTC).replace(microsecond=0)
    folder.mkdir()
    (folder / "tidemill.toml").write_text('[project]\nname = "bench"\n')
    (folder / "declared.py").write_text(DECLARED)

    def write(name: str, days: object, **columns: object) -> None:
        with duckdb.connect() as connection:
            connection.register("given", {"ago": days, **columns})
            at = f"TIMESTAMPTZ '{now.isoformat()}' - to_microseconds((ago * 86400e6)::BIGINT) AS since"
            connection.execute(f"COPY (SELECT {at}, * EXCLUDE ago FROM given) TO '{folder / name}.csv' (HEADER)")

    drivers, shops = rng.standard_normal((DRIVERS, 4)), rng.standard_normal((SHOPS, 3))
    write("drivers", np.full(DRIVERS, 31.0), driver_id=np.arange(DRIVERS), **{f"d{i}": drivers[:, i] for i in range(4)})
    write("shops", np.full(SHOPS, 31.0), shop_id=np.arange(SHOPS), **{f"s{i}": shops[:, i] for i in range(3)})
    of = rng.integers(0, DRIVERS, EVENTS)
    write("trips", rng.uniform(0, 10, EVENTS), driver_id=of, amount=rng.integers(1, 100, EVENTS))
    driver, shop = rng.integers(0, DRIVERS, ORDERS), rng.integers(0, SHOPS, ORDERS)
    late = (rng.random(ORDERS) < 1 / (1 + np.exp(-drivers[driver, 0] - shops[shop, 0]))).astype(int)
    write("orders", rng.uniform(0.1, 30, ORDERS), order_id=np.arange(ORDERS), driver_id=driver, shop_id=shop, late=late)
    subprocess.run([BIN / "tidemill", "-C", folder, "run"], check=True, stdout=subprocess.DEVNULL)


def asked() -> dict[str, tuple[str, list[bytes]]]:
    """The path and the bodies of each kind of request."""
    rng, now = np.random.default_rng(2), datetime.now(UTC).isoformat()
    pairs = zip(rng.integers(0, DRIVERS, ASKED).tolist(), rng.integers(0, SHOPS, ASKED).tolist(), strict=True)
    keys = [{"order_id": ORDERS + i, "since": now, "driver_id": driver, "shop_id": shop} for i, (driver, shop) in enumerate(pairs)]
    known = [{"order_id": order} for order in rng.integers(0, ORDERS, ASKED).tolist()]
    features = rng.normal(size=(ASKED, 10)).tolist()
    tensors = [[{"name": "features", "shape": [1, 10], "datatype": "FP64", "data": row}] for row in features]
    each = [[{"name": n, "shape": [1], "datatype": "FP64", "data": [x]} for n, x in zip(FEATURES, row, strict=True)] for row in features]
    return {
        "by entity keys": ("/predict/late", [json.dumps({"rows": [row]}).encode() for row in keys]),
        "by a known key": ("/predict/late", [json.dumps({"rows": [row]}).encode() for row in known]),
        "by features": ("/predict/late", [json.dumps({"rows": [dict(zip(FEATURES, row, strict=True))]}).encode() for row in features]),
        "by features, tensors": ("/v2/models/late/infer", [json.dumps({"inputs": one}).encode() for one in tensors]),
        "… a tensor each": ("/v2/models/late/infer", [json.dumps({"inputs": one}).encode() for one in each]),
    }


def check(folder: Path) -> None:
    """Raise AssertionError unless every answer of the log was the champion's over all ten features from the online store."""
    lines = [*read_log(folder / ".tidemill" / "log" / "late.jsonl")]  # some may lie in its table by now
    odd = [
        one for one in lines if one["rung"] != "champion" or one["features_from"] not in ("online", "request") or len(one["inputs"]) != 10
    ]
    assert lines
    assert not odd, odd[0]


def tell(at_once: int, found: dict[str, list[Load]]) -> None:
    """A table of one concurrency, beside the same model by its features."""
    print(f"\n{at_once} at once {'CPU of the server':>37} {'p50':>22} {'p99':>22} {'requests/s':>24} {'CPU ÷ by features':>18}")
    base = statistics.median(run.cpu for run in found["by features"])
    for name, runs in found.items():
        wall = [shown([float(np.percentile(run.times, q)) for run in runs]) for q in (50, 99)]
        cpu, rate = [run.cpu for run in runs], shown([run.rate for run in runs], "/s")
        print(f"{name:<22} {shown(cpu):>24} {wall[0]:>22} {wall[1]:>22} {rate:>24} {statistics.median(cpu) / base:>18.2f}")


def main() -> None:
    """Make the project, then measure."""
    say_where("starlette", "uvicorn", "onnxruntime", "lmdb")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        make_project(folder)
        up = [str(BIN / "tidemill"), "-C", str(folder), "up", "--port", "0", "--json"]
        with serving(up) as ours, serving([sys.executable, "-c", HELLO]) as bare:
            works = {name: (*ours, *work) for name, work in asked().items()}
            works["bare route"] = (*bare, "/hello", works["by entity keys"][3])
            for at_once in (1, 16):
                found: dict[str, list[Load]] = {name: [] for name in works}
                for run in range(RUNS + 1):  # in turns: the machine is not always as fast
                    for name, work in works.items():
                        one = load(*work, SECONDS if run else 0.5, at_once)
                        found[name] += [one] if run else []
                tell(at_once, found)
        check(folder)
    print(f"\none row each over connections that stay open, {RUNS} runs of {SECONDS:g} s: median (lowest–highest)")


if __name__ == "__main__":
    main()
