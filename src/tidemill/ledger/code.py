"""Code and environment as digests, captured without a call.

`code_of(function)` hashes what a function does and reaches (`reach.py`); a comment or a blank line changes nothing. What it
cannot see is listed in `unseen`: fitted models, frames and the like that are neither plain, nor code, nor a container of
these; and what only running shows: names made up at run time, files read inside.
"""

import hashlib
import os
import platform
import pwd
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from tidemill.core import digest_value
from tidemill.ledger.reach import Reach, library_version

_OWN = Path(__file__).parent.parent


@dataclass(frozen=True)
class Code:
    """Digest of a function and all that it reaches; the libraries with their versions; what could not be seen."""

    digest: str
    libraries: dict[str, str]
    unseen: tuple[str, ...] = ()


def code_of(function: Callable[..., Any]) -> Code:
    """What a function is, by content.

    >>> one, two = (eval(f"lambda x: x + {number}", {}) for number in (1, 2))
    >>> code_of(one).digest == code_of(two).digest
    False
    """
    reach = Reach()
    reach.visit(getattr(function, "__name__", type(function).__name__), function)
    libraries = dict(sorted(reach.libraries.items()))
    return Code(digest_value([reach.parts, libraries]), libraries, tuple(sorted(set(reach.unseen))))


@cache
def own_code(*stages: str) -> str:
    """Digest of the source of stages of Tidemill itself, of the libraries that it imports, and of the kind of machine: a step
    made by other code is another step."""
    files = [path for stage in stages for path in sorted((_OWN / stage).rglob("*.py"))]
    sources = {path.relative_to(_OWN).as_posix(): path.read_text(encoding="utf-8") for path in files}
    imported = {name for text in sources.values() for name in re.findall(r"^ *(?:import|from(?= [\w.]+ import)) (\w+)", text, re.MULTILINE)}
    libraries = {name: library_version(name) for name in sorted(imported - {*sys.stdlib_module_names, "tidemill"})}
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sources.items()}
    return digest_value([digests, libraries, sys.version_info[:2], _machine()])


def _machine() -> str:
    return f"{sys.platform}-{platform.machine()}"


@cache
def environment() -> dict[str, Any]:
    """Python, machine kind, and every installed distribution with its version."""
    lock = sorted({line for line in map(_pinned, metadata.distributions()) if line})
    return {"python": platform.python_version(), "machine": _machine(), "lock": lock}


def _pinned(installed: metadata.Distribution) -> str:
    """`name==version`. Of the metadata only the head is read: parsing it all, as a mail, takes ten times longer."""
    text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    found = dict(re.findall(r"^(Name|Version): *(\S+)", text.partition("\n\n")[0], re.MULTILINE))
    return f"{found['Name'].lower()}=={found['Version']}" if len(found) == 2 else ""


def user() -> str:
    """Who runs this for the operating system, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, perhaps
        return str(os.getuid())
