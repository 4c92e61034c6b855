"""Run the suite against any server: `python tests/conformance/oip URL MODEL [REQUEST.json]`; exits with 1 where a MUST fails."""

import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from conformance.oip.cases import CASES
from conformance.oip.server import Server


def main(url: str, model: str, request: str = "") -> int:
    """How many MUSTs fail, and a line for each case that does."""
    server = Server(url, model, json.loads(Path(request).read_text()) if request else {})
    found = Counter[str]()
    for one in CASES:
        try:
            one.check(server)
            found[f"{one.level} passed"] += 1
        except Exception as error:  # noqa: BLE001 – whatever a server does is told
            found[f"{one.level} failed"] += 1
            print(f"FAILED {one}\n       {type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}")
    print(", ".join(f"{what} {count}" for what, count in sorted(found.items())))
    return found["MUST failed"]


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
