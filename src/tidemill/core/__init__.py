"""Values and pure maths that every stage may use. No I/O, no clock, no randomness."""

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

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "Approval",
    "Busy",
    "Damaged",
    "DataError",
    "Declaration",
    "DefinitionError",
    "GateResult",
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
    "show",
    "show_duration",
    "version_of",
    "walk",
]
