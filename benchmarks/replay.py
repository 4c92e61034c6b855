"""`tidemill replay` of the flights example from an empty state, and once more from the cache: wall time, CPU, peak memory.

The reference is the issue's budget: 180 s and 4 GiB for the first, 5 s for the second.

    .venv/bin/python benchmarks/replay.py
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from measure import BIN, ROOT, say_where, shown

FLIGHTS = ROOT / "examples" / "flights"
CACHED = 3


def run(folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (GiB) of one replay with its children."""
    with (folder / "answer.json").open("w") as answer:
        started = time.monotonic()
        process = subprocess.Popen([str(BIN / "tidemill"), "-C", str(folder), "replay", "--json"], stdout=answer)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    if status:
        raise SystemExit(f"the replay ended with status {status}: {(folder / 'answer.json').read_text()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """A first and some cached replays of a copy of the example."""
    say_where("duckdb", "lightgbm", "onnxruntime")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "flights"
        shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns(".tidemill"))
        first = run(folder)
        answer = (folder / "answer.json").read_text()
        cached = [run(folder) for _ in range(CACHED)]
        same = (folder / "answer.json").read_text() == answer
        size = sum(file.stat().st_size for file in folder.glob(".tidemill/**/*") if file.is_file()) / 2**20
    print(f"\n{'':<24} {'wall':>22} {'CPU':>22} {'peak memory':>22}   budget")
    for what, runs, budget in (("from nothing", [first], "180 s, 4 GiB"), ("from the cache", cached, "5 s")):
        wall, cpu, memory = zip(*runs, strict=True)
        print(f"{what:<24} {shown(wall):>22} {shown(cpu):>22} {shown(memory, 'GiB'):>22}   {budget}")
    print(f"\nstate on disk {size:,.0f} MiB; the cached answer is {'the same' if same else 'ANOTHER'}; {CACHED} cached runs")


if __name__ == "__main__":
    main()
