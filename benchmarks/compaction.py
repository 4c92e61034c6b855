"""What it takes to move a day of answers into their table, and to read them there.

python benchmarks/compaction.py [--rows 1000000]
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.core import canonical
from tidemill.serving import answers_at, compact, find_answers, prediction_table, read_log, sample_answers

DAY = 1_795_219_200_000_000  # 2026-11-21, microseconds UTC


def line(number: int, rows: int, chance: random.Random) -> bytes:
    """An answer as the gateway writes it: twenty features, one of them a text."""
    asked = DAY + number * 86_400_000_000 // rows
    numbers = {f"weather__feature_{place}": round(chance.random() * 100, 3) for place in range(1, 20)}
    told: dict[str, Any] = {"id": f"{asked:013x}-9f3a01c2{number:x}", "asked": asked, "branch": "live-late", "route": "predict"}
    told |= {"key": f"DL-{chance.randrange(10**6)}-JFK", "at_us": asked, "at": "2026-11-21T00:00:00Z", "latency_us": chance.randrange(900)}
    told |= {"probability": chance.random(), "version": "boosted/13", "rung": "champion", "features_from": "online", "features_missing": {}}
    told |= {"inputs": numbers | {"calendar__carrier": chance.choice(["DL", "AA", "UA"])}}
    return canonical(told | {"versions": {"requests": "1f3c9a", "view weather": "77ab01"}}) + b"\n"


def timed(what: str, rows: int, call: Callable[[], object]) -> None:
    """Print how long a call took, by the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    took, used = time.perf_counter() - clock, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<44} {took:8.2f} s  {used:8.2f} s of CPU  {used / rows * 1e6:8.2f} µs a row  peak {peak:,.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        path, chance = Path(scratch) / "late.jsonl", random.Random(7)
        with path.open("wb") as file:
            file.writelines(line(number, rows, chance) for number in range(rows))
        size = path.stat().st_size
        timed("compact", rows, lambda: compact(path.parent))
        stored = sum(one.size for one in answers_at(path).table.open().of("late"))  # type: ignore[union-attr]
        print(f"{size / rows:.0f} bytes a line before, {stored / rows:.0f} a row after ({size / stored:.1f} times less)")
        ids = [f"{DAY + rows // 2 * 86_400_000_000 // rows:013x}-9f3a01c2{rows // 2:x}"]
        timed("one by its id", 1, lambda: answers_at(path).find(ids, dict))
        timed("answers of a key (lineage)", 1, lambda: find_answers(path, "live-late", "DL-77-JFK"))
        timed("answers of a branch (the loop)", rows, lambda: find_answers(path, "live-late"))
        timed("a sample of 2,000 (skew)", rows, lambda: sample_answers(path, "live-late", 0, 2**60, 2_000))
        timed("all as lines", rows, lambda: sum(1 for _ in read_log(path)))
        timed(
            "two columns of the table, polars",
            rows,
            lambda: pl.scan_delta(str(path.parent / "delta" / "predictions")).select("key", "probability").collect(),
        )
        timed("prediction_table, polars", rows, lambda: pl.DataFrame(prediction_table(path)))


if __name__ == "__main__":
    main()
