"""A million rows are scored in the memory of a hundred thousand. Run by `make torture`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from toy import copied as copied
from toy import kept as kept

pytestmark = pytest.mark.torture

SCORE = """
import sys
from pathlib import Path
import tidemill as tm
found = tm.open(sys.argv[1]).deployments["late"].score(sys.argv[2], to=sys.argv[3], at="2024-04-30T00:00:00Z")
assert found.tally.scored == found.tally.rows
status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the process which began this one
print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
"""
FEATURES = (
    "booking__weight",
    "booking__hour",
    "depot_recent__late_share_12h",
    "depot_recent__late_share_3d",
    "depot_recent__delivered_12h",
)


def peak(folder: Path, tmp_path: Path, rows: int) -> float:
    """MiB of a process that scores so many rows."""
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({name: rng.random(rows) for name in (*FEATURES, "depot_recent__delivered_3d", "courier_last__late")})
    frame = frame.with_columns(booking__grade=pl.Series(rng.choice(["x", "y", "z"], rows)), parcel=pl.Series(np.arange(rows).astype(str)))
    frame.write_parquet(tmp_path / "rows.parquet")
    asked = [sys.executable, "-c", SCORE, str(folder), str(tmp_path / "rows.parquet"), str(tmp_path / f"{rows}.parquet")]
    done = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True)
    assert len(pl.read_parquet(tmp_path / f"{rows}.parquet", columns=["rung"])) == rows
    return float(done.stdout)


def test_a_million_rows_are_scored_in_the_memory_of_a_hundred_thousand(copied: Path, tmp_path: Path) -> None:
    few, many = (peak(copied, tmp_path, rows) for rows in (100_000, 1_000_000))
    print(f"{few:.0f} MiB for 100,000 rows, {many:.0f} MiB for 1,000,000")
    assert many < min(few + 140, 400)  # the engine takes up to 128 MB, and a hundred thousand rows do not fill them
