"""The worked lineage of docs/design/ledger.md prints what is written there."""

import subprocess
import sys
from pathlib import Path

DESIGN = Path(__file__).parents[2] / "docs" / "design"


def test_the_page_shows_what_the_example_prints() -> None:
    done = subprocess.run([sys.executable, DESIGN / "worked_lineage.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"```text\n{done.stdout}```" in (DESIGN / "ledger.md").read_text(encoding="utf-8")
