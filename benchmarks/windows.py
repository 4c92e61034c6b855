"""24 window features of a million events at a million moments: six functions over four windows, beside hand-written numpy.

Few users have most events (Zipf). The reference is the quickest that we know to write: one sort, prefix sums in extended precision, a table
of extremes; its windows begin at any moment, not at a hop, and its sums are rounded by what stood before. Then ours alone: late events, and
the functions that the reference has not; and one row of the 24, as a request reads them.

    .venv/bin/python benchmarks/windows.py [ROWS]
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import compared, heading, say_where, shown

import tidemill as tm
from tidemill.core import DAY, HOUR, MINUTE, Coded
from tidemill.features import Looked, ViewLog, materialise, of_arrays, open_online

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
RUNS, KEYS, START = 3, 100_000, 20_000 * DAY
WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
SIX = {
    "count": tm.count("amount"),
    "sum": tm.sum("amount"),
    "mean": tm.mean("amount"),
    "min": tm.min("amount"),
    "max": tm.max("amount"),
    "last": tm.last("amount"),
}
OTHERS = {
    "std": tm.std("amount"),
    "first": tm.first("amount"),
    "different": tm.count_distinct("amount"),
    "median": tm.approx_quantile("amount", 0.5),
}
EVENTS = tm.Dataset("payments", {"s": tm.Source("payments.csv")}, event_time="at", known_at="known")


def view_log(events: dict[str, Any], features: dict[str, Any], late: Any = 0) -> ViewLog:
    """Events that lie sorted, as a view keeps them."""
    view = tm.FeatureView("v", EVENTS, entity=tm.Entity("user", key="user"), windows=list(WINDOWS), features=features)
    order = np.lexsort((events["at"] + late, events["at"], events["user"]))
    user, at, amount = (events[name][order] for name in ("user", "at", "amount"))
    known = (events["at"] + late)[order]
    arrays = {"entity": user.astype(np.int32), "event": at, "known": known, **dict.fromkeys(view.kept, amount)}
    return of_arrays(view, tuple(f"{i:06}" for i in range(KEYS)), arrays, {})


def by_hand(events: dict[str, Any], asked: dict[str, Any]) -> list[Any]:
    """The reference."""
    span = 200 * DAY
    place = events["user"] * span + (events["at"] - START)
    order = np.argsort(place, kind="stable")
    place, value = place[order], events["amount"][order]
    prefix = np.concatenate([[0], np.cumsum(value, dtype=np.longdouble)])
    needle = asked["user"] * span + (asked["at"] - START)
    end, found = np.searchsorted(place, needle, side="right"), []
    for width in WINDOWS.values():
        start = np.searchsorted(place, np.maximum(needle - width, asked["user"] * span))
        size = end - start
        some = np.flatnonzero(size)
        total = (prefix[end] - prefix[start]).astype(np.float64)
        last = np.where(size > 0, np.append(value, np.nan)[end - 1], np.nan)
        found += [
            size,
            total,
            total / np.maximum(size, 1),
            *(extremes(f, value, start, size, some) for f in (np.minimum, np.maximum)),
            last,
        ]
    return found


def extremes(ufunc: np.ufunc, table: Any, start: Any, size: Any, some: Any) -> Any:
    """Of two overlapping stretches of a power of two."""
    found, level = np.full(len(size), np.nan), np.frexp(size[some].astype(np.float64))[1] - 1
    for k in range(int(level.max(initial=-1)) + 1):
        these = some[level == k]
        found[these] = ufunc(table[start[these]], table[start[these] + size[these] - (1 << k)])
        table = ufunc(table[: -(1 << k)], table[1 << k :])
    return found


def cpu(function: Callable[[], Any], times: int = RUNS) -> list[float]:
    """CPU seconds of each call."""
    found = []
    for _ in range(times):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return found


def main() -> None:
    """Make the data, then measure."""
    random = np.random.default_rng(1)
    user = (random.zipf(1.5, ROWS) - 1) % KEYS
    events = {"user": user, "at": START + np.sort(random.integers(0, 90 * DAY, ROWS)), "amount": np.round(random.lognormal(3, 1, ROWS), 2)}
    asked = {"user": user[random.integers(0, ROWS, ROWS)], "at": START + random.integers(0, 90 * DAY, ROWS)}
    say_where("numpy")
    heading("numpy by hand")

    def read(features: dict[str, Any], late: Any = 0) -> Any:
        log = view_log(events, features, late)
        return log.read(Coded(asked["user"].astype(np.int32), log.entities), asked["at"])

    compared("24 features, CPU", cpu(lambda: read(SIX)), cpu(lambda: by_hand(events, asked)))
    print(f"{'16 others, CPU':<38} {shown(cpu(lambda: read(OTHERS))):>24}")
    for name, late in (("a minute", MINUTE), ("an hour", HOUR)):
        delays = random.integers(0, late, ROWS)
        print(f"{f'24 features, events up to {name} late, CPU':<38} {shown(cpu(lambda late=delays: read(SIX, late), 1)):>24}")
    log = view_log(events, SIX)
    one, at = Coded(np.array([7], np.int32), log.entities), np.array([START + 90 * DAY])
    log.read(one, at)
    print(f"{'24 features of one row, CPU':<38} {shown([t / 1_000 for t in cpu(lambda: [log.read(one, at) for _ in range(1_000)])]):>24}")
    with tempfile.TemporaryDirectory() as folder:
        store, looked, texts = open_online(Path(folder)), Looked(log), [*log.entities[::100]]
        materialise(store, log, int(at[0]))

        def online() -> None:
            for text in texts:
                found = looked.online(store, store.read([(looked.space, [text])])[0], [text], int(at[0]))
                assert not found.why

        times = [t / len(texts) for t in cpu(online)]
        store.close()
    print(f"{'24 features of one user online, CPU':<38} {shown(times):>24}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"\n{ROWS:,} events and moments, {RUNS} runs: median (lowest–highest); peak {peak:,} MiB")


if __name__ == "__main__":
    main()
