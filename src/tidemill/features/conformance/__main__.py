"""`python -m tidemill.features.conformance module:Store`: a line for each case that a store gets wrong, and a count."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tidemill.features.conformance import Store, check


def main(name: str) -> int:
    """Print the outcome; the number of wrong cases."""
    sys.path.insert(0, str(Path.cwd()))
    module, _, attribute = name.partition(":")
    make: Callable[[], Store] = getattr(import_module(module), attribute)
    found = check(make)
    wrong = [outcome for outcome in found if outcome.wrong]
    for outcome in wrong:
        sys.stdout.write(f"{outcome.case.name}: {outcome.wrong}\n")
    sys.stdout.write(f"{len(found) - len(wrong)} of {len(found)} cases are right\n")
    return len(wrong)


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        raise SystemExit("usage: python -m tidemill.features.conformance module:Store")
    raise SystemExit(min(main(sys.argv[1]), 1))
