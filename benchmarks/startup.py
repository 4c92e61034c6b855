"""`tidemill --help` and `import tidemill` beside a Python that does nothing.

.venv/bin/python benchmarks/startup.py
"""

import subprocess
import sys
from collections.abc import Sequence

from measure import BIN, compared, heading, say_where, seconds

RUNS = 11
COMMANDS = {
    "import tidemill": [sys.executable, "-c", "import tidemill"],
    "import tidemill, tm.open": [sys.executable, "-c", "import tidemill; tidemill.open"],
    "tidemill --help": [str(BIN / "tidemill"), "--help"],
    "tidemill replay --help": [str(BIN / "tidemill"), "replay", "--help"],
}


def run(command: Sequence[str]) -> None:
    """Run to the end, its output thrown away."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Each command beside the bound."""
    say_where("click")
    bound = seconds(lambda: run([sys.executable, "-c", "pass"]), times=RUNS, warm=2)
    heading("python -c pass")
    for what, command in COMMANDS.items():
        compared(what, seconds(lambda command=command: run(command), times=RUNS, warm=2), bound)
    print(f"\n{RUNS} runs with warm file caches: median (lowest–highest)")


if __name__ == "__main__":
    main()
