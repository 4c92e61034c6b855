"""What the benchmarks share: repeated runs, figures with their noise, and where they were measured."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the processes that are measured keep byte code, as a user's do

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv" / "bin"
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def say_where(*packages: str) -> None:
    """Machine, load and versions: a figure without them means nothing."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor() or "unknown processor")
    memory = psutil.virtual_memory().total / 2**30
    print(f"machine   {os.cpu_count()} × {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}")
    print(f"load      {os.getloadavg()[0]:.1f} when it began (this benchmark not counted)")
    print(f"versions  Python {platform.python_version()}" + "".join(f", {name} {version(name)}" for name in ("tidemill", *packages)))


def seconds(function: Callable[[], Any], *, times: int, warm: int = 1) -> list[float]:
    """How long each of several calls took, after some that are not counted."""
    for _ in range(warm):
        function()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return found


def shown(values: Sequence[float], unit: str = "") -> str:
    """The median with the range of all runs; seconds in a fitting unit unless another unit is given."""
    middle = statistics.median(values)
    name, size = next(((name, size) for name, size in _UNITS if middle >= size), _UNITS[-1]) if not unit else (unit, 1.0)
    low, high = min(values) / size, max(values) / size
    digits = max(0, 2 - len(str(int(middle / size)))) if middle else 0
    between = f" ({low:,.{digits}f}–{high:,.{digits}f})" if len(values) > 1 else ""
    return f"{middle / size:,.{digits}f} {name}{between}"


def compared(what: str, ours: Sequence[float], reference: Sequence[float], unit: str = "") -> None:
    """One line: ours, the reference and their ratio, each as the median of the runs and their range."""
    ratios = [mine / other for mine in ours for other in reference]
    ratio = f"{statistics.median(ours) / statistics.median(reference):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    print(f"{what:<38} {shown(ours, unit):>24} {shown(reference, unit):>24} {ratio:>18}")


def heading(reference: str) -> None:
    """The names of the columns of `compared`."""
    print(f"\n{'':<38} {'ours':>24} {reference:>24} {'ours ÷ reference':>18}")
