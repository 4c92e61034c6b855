"""Sizes in bytes as people write them."""

import re

from tidemill.core.errors import DefinitionError
from tidemill.core.problems import Problems

_UNITS = {"B": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text: str) -> int:
    """Bytes of "64MB", "1.5 GiB" or "500kB".

    >>> size("64MB"), size("2 KiB")
    (64000000, 2048)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMG]i?B|B)", text.strip())
    if not match or match[2] not in _UNITS:
        raise DefinitionError(f"{text!r} is not a size", hint='write a number and a unit, for example "64MB", "500kB" or "1GiB"')
    return int(float(match[1]) * _UNITS[match[2]])


def odd_size(what: str, text: object, example: str) -> Problems:
    """A size of at least a byte."""
    try:
        fits = isinstance(text, str) and size(text) > 0
    except DefinitionError:
        fits = False
    if not fits:
        yield DefinitionError(f"{what}: {text!r} is not a size", hint=f"write a number and a unit, for example {example}")
