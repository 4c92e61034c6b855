"""The newest features by entity key, in process and over HTTP, beside the same work done by hand on the same store.

The references do nothing but read and unpack: a bare client of LMDB or Redis with a struct, and behind uvicorn an ASGI function that
reads LMDB and writes JSON. Ours knows views, statuses, TTLs and checksums besides. Five views of ten numbers each for 20,000 keys; one key
and one view (1 × 10), and 100 keys and five views (100 × 50). Ours and the reference take turns, since the machine is not always as fast.
Redis is measured where one answers at the address given; names there that begin with `tidemill-bench` are used, and deleted.

    .venv/bin/python benchmarks/online.py [SECONDS] [redis://127.0.0.1:6379/8]
"""

import csv
import json
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import redis
from measure import BIN, compared, heading, say_where
from measure.server import Load, load, serving

import tidemill as tm
from tidemill.session import Session

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
REDIS = sys.argv[2] if len(sys.argv) > 2 else "redis://127.0.0.1:6379/8"
KEYS, VIEWS, FEATURES, RUNS, CONNECTIONS, PREFIX = 20_000, 5, 10, 15, 8, "tidemill-bench"
PACK, UNPACK = struct.Struct(">Bq").pack, struct.Struct(f"<q{FEATURES}d").unpack
NAMES = [f"o{k}_f{i}" for k in range(VIEWS) for i in range(FEATURES)]
SIZES = {"1 × 10": (1, 1), "100 × 50": (100, VIEWS)}
DECLARED = """
import tidemill as tm

driver = tm.Entity("driver", key="driver_id")
for k in range({views}):
    rows = tm.Dataset(f"rows{{k}}", {{"s": tm.Source(f"rows{{k}}.csv")}}, event_time="at", timezone="UTC")
    globals()[f"o{{k}}"] = tm.FeatureView(f"o{{k}}", rows, driver, features=[f"f{{i}}" for i in range({features})])
"""
BARE = f"""
import json, socket, struct, sys, lmdb, msgspec, uvicorn, uvloop
pack, unpack = struct.Struct(">Bq").pack, struct.Struct("<q{FEATURES}d").unpack
env = lmdb.open(sys.argv[1], readonly=True, lock=False, readahead=False)
decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

def answer(asked):
    views, keys = asked["views"], asked["keys"]
    names = [f"o{{k}}_f{{i}}" for k in range(views) for i in range({FEATURES})]
    with env.begin(buffers=True) as transaction:
        rows = [sum((unpack(transaction.get(pack(view, key)))[1:] for view in range(views)), ()) for key in keys]
    return {{"names": names, "results": list(zip(*rows))}}

async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    content = encode(answer(decode(body)))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": content}})

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
print(json.dumps({{"url": f"http://127.0.0.1:{{listener.getsockname()[1]}}"}}), flush=True)
uvloop.run(uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none")).serve([listener]))
"""


def make_project(folder: Path, values: Any, online: str) -> Session:
    """A project whose views have the values, in its online store."""
    folder.mkdir()
    (folder / "tidemill.toml").write_text(f'[project]\nname = "bench"\n[store]\nonline = "{online}"\n')
    (folder / "views.py").write_text(DECLARED.format(views=VIEWS, features=FEATURES))
    for k in range(VIEWS):
        with (folder / f"rows{k}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["driver_id", "at", *(f"f{i}" for i in range(FEATURES))])
            writer.writerows([key, "2024-01-01T00:00:00Z", *row] for key, row in enumerate(values[k].tolist()))
    session = tm.open(folder)
    written = session.materialise()
    assert set(written.values()) == {KEYS}, written
    return session


def packed(values: Any) -> list[tuple[bytes, bytes]]:
    """The same rows, packed by hand."""
    row = struct.Struct(f"<q{FEATURES}d").pack
    return [(PACK(k, key), row(0, *found)) for k in range(VIEWS) for key, found in enumerate(values[k].tolist())]


def by_hand(read: Callable[[list[bytes]], list[Any]]) -> Callable[[list[int], int], list[dict[str, float]]]:
    """The reference, over a client that gives the bytes of keys."""

    def ask(keys: list[int], views: int) -> list[dict[str, float]]:
        found = [UNPACK(data)[1:] for data in read([PACK(view, key) for key in keys for view in range(views)])]
        return [dict(zip(NAMES, sum(found[n : n + views], ()), strict=False)) for n in range(0, len(found), views)]

    return ask


def turns(mine: Callable[[], Any], other: Callable[[], Any], calls: int) -> tuple[list[float], list[float]]:
    """CPU seconds of a call of each, taken in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS + 1):
        for function, times in zip((mine, other), found, strict=True):
            started = time.process_time()
            for _ in range(calls):
                function()
            times.append((time.process_time() - started) / calls)
    return found[0][1:], found[1][1:]


def in_process(name: str, session: Session, reference: Callable[[list[int], int], list[dict[str, float]]]) -> None:
    """Compare a getter with a bare client."""
    pick = random.Random(0)
    for size, (rows, views) in SIZES.items():
        getter = session.online([f"o{k}" for k in range(views)])
        keys = [pick.randrange(KEYS) for _ in range(rows)]
        assert [list(row.values()) for row in getter.get_many({"driver_id": keys})] == [list(r.values()) for r in reference(keys, views)]
        assert not getter.read({"driver_id": keys}).offline

        def ours(getter: Any = getter, rows: int = rows) -> Any:
            if rows == 1:
                return getter.get({"driver_id": pick.randrange(KEYS)})
            return getter.get_many([{"driver_id": pick.randrange(KEYS)} for _ in range(rows)])

        compared(
            f"{size}, {name}, CPU",
            *turns(ours, lambda r=rows, v=views: reference([pick.randrange(KEYS) for _ in range(r)], v), 1 + 500 // rows),
        )


def over_http(folder: Path, bare: Path) -> None:
    """Compare the gateway with a bare server."""
    pick = random.Random(0)
    with (
        serving([str(BIN / "tidemill"), "-C", str(folder), "up", "--port", "0", "--json"]) as mine,
        serving([sys.executable, "-c", BARE, str(bare)]) as other,
    ):
        for size, (rows, views) in SIZES.items():
            asked = [[pick.randrange(KEYS) for _ in range(rows)] for _ in range(200)]
            ours = [
                json.dumps({"views": [f"o{k}" for k in range(views)], "rows": [{"driver_id": key} for key in keys]}).encode()
                for keys in asked
            ]
            theirs = [json.dumps({"views": views, "keys": keys}).encode() for keys in asked]
            found, reference = list[Load](), list[Load]()
            for run in range(4):
                one = load(*mine, "/features", ours, SECONDS if run else 0.5, CONNECTIONS)
                two = load(*other, "/", theirs, SECONDS if run else 0.5, CONNECTIONS)
                if run:
                    found, reference = [*found, one], [*reference, two]
            compared(f"{size}, HTTP, CPU of the server", [run.cpu for run in found], [run.cpu for run in reference])
            compared(f"{size}, HTTP, requests/s", [run.rate for run in found], [run.rate for run in reference], "/s")


def main() -> None:
    """Make the data, then measure."""
    values = np.random.default_rng(1).normal(size=(VIEWS, KEYS, FEATURES))
    say_where("lmdb", "redis", "uvicorn", "msgspec")
    heading("by hand")
    with tempfile.TemporaryDirectory() as scratch:
        folder, bare = Path(scratch) / "project", Path(scratch) / "bare"
        environment = lmdb.open(str(bare), map_size=4 << 30, sync=False, readahead=False)
        with environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(packed(values))

        def read(keys: list[bytes]) -> list[bytes]:
            with environment.begin(buffers=True) as transaction:
                return [bytes(transaction.get(key)) for key in keys]

        session = make_project(folder, values, ".tidemill/online")
        in_process("LMDB", session, by_hand(read))
        session.close()
        with suppress(redis.ConnectionError):
            in_redis(Path(scratch) / "redis", values)
        environment.close()
        over_http(folder, bare)
    print(f"\n{KEYS:,} keys; in process {RUNS} turns, HTTP 3 × {SECONDS:g} s from {CONNECTIONS} connections: median (lowest–highest)")


def in_redis(folder: Path, values: Any) -> None:
    """The same beside a bare client of Redis, whose own CPU is not counted; what was written there is deleted."""
    client = redis.Redis.from_url(REDIS)
    client.ping()
    items = [(PREFIX.encode() + key, data) for key, data in packed(values)]
    try:
        for start in range(0, len(items), 5_000):
            client.mset(dict(items[start : start + 5_000]))
        session = make_project(folder, values, f"{REDIS}?prefix={PREFIX}-own")
        in_process("Redis", session, by_hand(lambda keys: client.mget([PREFIX.encode() + key for key in keys])))
    finally:
        names = list(client.scan_iter(f"{PREFIX}*", count=1_000))
        for start in range(0, len(names), 5_000):
            client.unlink(*names[start : start + 5_000])


if __name__ == "__main__":
    main()
