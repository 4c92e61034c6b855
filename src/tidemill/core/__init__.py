"""Values and pure maths that every stage may use. No I/O, no clock, no randomness.

What needs numpy is loaded on first use, so that the command line's help does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tidemill.core.declaration import Declaration, Where, caller, definition, version_of, walk
from tidemill.core.digests import canonical, differences, digest_bytes, digest_value
from tidemill.core.errors import (
    Busy,
    Damaged,
    DataError,
    DefinitionError,
    MissingExtra,
    MissingFile,
    NoExactForm,
    Refused,
    StoreError,
    TidemillError,
    UnknownName,
)
from tidemill.core.instants import DAY, HOUR, MINUTE, SECOND, duration, instant, midnights, moment, show, show_duration
from tidemill.core.ref import Ref
from tidemill.core.verdict import Approval, GateResult, Verdict

if TYPE_CHECKING:
    from tidemill.core.arrays import Array as Array
    from tidemill.core.arrays import pack as pack
    from tidemill.core.arrays import unpack as unpack
    from tidemill.core.coded import Bools as Bools
    from tidemill.core.coded import Coded as Coded
    from tidemill.core.coded import Codes as Codes
    from tidemill.core.coded import Floats as Floats
    from tidemill.core.coded import Instants as Instants

_WITH_NUMPY = {
    "Array": "arrays",
    "Bools": "coded",
    "Coded": "coded",
    "Codes": "coded",
    "Floats": "coded",
    "Instants": "coded",
    "pack": "arrays",
    "unpack": "arrays",
}

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "Approval",
    "Array",
    "Bools",
    "Busy",
    "Coded",
    "Codes",
    "Damaged",
    "DataError",
    "Declaration",
    "DefinitionError",
    "Floats",
    "GateResult",
    "Instants",
    "MissingExtra",
    "MissingFile",
    "NoExactForm",
    "Ref",
    "Refused",
    "StoreError",
    "TidemillError",
    "UnknownName",
    "Verdict",
    "Where",
    "caller",
    "canonical",
    "definition",
    "differences",
    "digest_bytes",
    "digest_value",
    "duration",
    "instant",
    "midnights",
    "moment",
    "pack",
    "show",
    "show_duration",
    "unpack",
    "version_of",
    "walk",
]


def __getattr__(name: str) -> object:
    if name not in _WITH_NUMPY:
        raise AttributeError(f"module 'tidemill.core' has no attribute {name!r}")
    value = getattr(import_module(f"tidemill.core.{_WITH_NUMPY[name]}"), name)
    globals()[name] = value
    return value
