"""`python -m tidemill.features.conformance module:Store [--online]`: a line for each case that a store gets wrong, and a count."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tidemill.features.conformance import check, check_online


def main(name: str, *, online: bool = False) -> int:
    """Print the outcome of the cases, or of the probes of its online half; the number of wrong ones."""
    sys.path.insert(0, str(Path.cwd()))
    module, _, attribute = name.partition(":")
    make: Callable[[], Any] = getattr(import_module(module), attribute)
    found = check_online(make) if online else check(make)
    wrong, unable = [one for one in found if one.wrong], [one for one in found if one.cannot]
    for outcome in [*wrong, *unable]:
        sys.stdout.write(f"{outcome.case.name}: {outcome.wrong or f'cannot be asked: {outcome.cannot}'}\n")
    asked = len(found) - len(unable)
    unasked = f"; {len(unable)} cannot be asked" if unable else ""
    sys.stdout.write(f"{asked - len(wrong)} of {asked} {'probes' if online else 'cases'} are right{unasked}\n")
    return len(wrong)


if __name__ == "__main__":
    names = [one for one in sys.argv[1:] if one != "--online"]
    if len(names) != 1 or ":" not in names[0]:
        raise SystemExit("usage: python -m tidemill.features.conformance module:Store [--online]")
    raise SystemExit(min(main(names[0], online="--online" in sys.argv), 1))
