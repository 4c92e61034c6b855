"""Values and pure maths that every stage may use. No I/O, no clock, no randomness.

What needs numpy is loaded on first use, so that the command line's help does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tidemill.core.axis import steps
from tidemill.core.call import Call, answer, page
from tidemill.core.declaration import Declaration, Where, caller, definition, version_of, walk
from tidemill.core.digests import canonical, differences, digest_bytes, digest_value
from tidemill.core.errors import (
    Busy,
    ClientGone,
    Damaged,
    DataError,
    DeadlineExceeded,
    DefinitionError,
    Erased,
    MissingExtra,
    MissingFile,
    NoExactForm,
    Refused,
    StoreError,
    Taken,
    TidemillError,
    Unavailable,
    UnknownName,
    store_error,
)
from tidemill.core.event import Event
from tidemill.core.instants import DAY, HOUR, MINUTE, SECOND, duration, instant, microseconds, midnights, moment, show, show_duration
from tidemill.core.problems import Problems, odd_duration, odd_list, odd_name, odd_number, odd_text, odd_type
from tidemill.core.ref import Ref
from tidemill.core.sizes import odd_size, size
from tidemill.core.verdict import Approval, GateResult, Verdict

if TYPE_CHECKING:
    from tidemill.core.arrays import Array as Array
    from tidemill.core.arrays import Bools as Bools
    from tidemill.core.arrays import Floats as Floats
    from tidemill.core.arrays import Instants as Instants
    from tidemill.core.arrays import Ints as Ints
    from tidemill.core.arrays import pack as pack
    from tidemill.core.arrays import packed as packed
    from tidemill.core.arrays import unpack as unpack
    from tidemill.core.coded import Coded as Coded
    from tidemill.core.coded import find as find
    from tidemill.core.coded import place_of as place_of
    from tidemill.core.drift import DriftResult as DriftResult
    from tidemill.core.drift import DriftTest as DriftTest
    from tidemill.core.drift import Profile as Profile
    from tidemill.core.drift import build_profile as build_profile
    from tidemill.core.drift import profile_like as profile_like
    from tidemill.core.exact import Sums as Sums
    from tidemill.core.exact import partials as partials
    from tidemill.core.exact import total as total
    from tidemill.core.metrics import METRICS as METRICS
    from tidemill.core.metrics import calibration_curve as calibration_curve
    from tidemill.core.metrics import calibration_error as calibration_error
    from tidemill.core.metrics import roc_auc as roc_auc
    from tidemill.core.metrics import row_log_loss as row_log_loss
    from tidemill.core.ranges import Ranges as Ranges
    from tidemill.core.statistics import Interval as Interval
    from tidemill.core.statistics import bonferroni as bonferroni
    from tidemill.core.statistics import cluster_bootstrap_mean as cluster_bootstrap_mean
    from tidemill.core.statistics import mean_of_monthly_auc_bootstrap as mean_of_monthly_auc_bootstrap
    from tidemill.core.statistics import paired_bootstrap as paired_bootstrap
    from tidemill.core.statistics import paired_cluster_test as paired_cluster_test
    from tidemill.core.statistics import share_interval as share_interval
    from tidemill.core.statistics import spend as spend
    from tidemill.core.statistics import t_cdf as t_cdf

_WITH_NUMPY = {
    "Interval": "statistics",
    "DriftResult": "drift",
    "DriftTest": "drift",
    "METRICS": "metrics",
    "Profile": "drift",
    "bonferroni": "statistics",
    "build_profile": "drift",
    "calibration_curve": "metrics",
    "calibration_error": "metrics",
    "cluster_bootstrap_mean": "statistics",
    "mean_of_monthly_auc_bootstrap": "statistics",
    "paired_bootstrap": "statistics",
    "paired_cluster_test": "statistics",
    "profile_like": "drift",
    "roc_auc": "metrics",
    "row_log_loss": "metrics",
    "share_interval": "statistics",
    "spend": "statistics",
    "t_cdf": "statistics",
    "Array": "arrays",
    "Bools": "arrays",
    "Coded": "coded",
    "find": "coded",
    "place_of": "coded",
    "Floats": "arrays",
    "Instants": "arrays",
    "Ints": "arrays",
    "Ranges": "ranges",
    "Sums": "exact",
    "partials": "exact",
    "total": "exact",
    "pack": "arrays",
    "packed": "arrays",
    "unpack": "arrays",
}

__all__ = [
    "DAY",
    "HOUR",
    "METRICS",
    "MINUTE",
    "SECOND",
    "Approval",
    "Array",
    "Bools",
    "Busy",
    "Call",
    "ClientGone",
    "Coded",
    "Damaged",
    "DataError",
    "DeadlineExceeded",
    "Declaration",
    "DefinitionError",
    "DriftResult",
    "DriftTest",
    "Erased",
    "Event",
    "Floats",
    "GateResult",
    "Instants",
    "Interval",
    "Ints",
    "MissingExtra",
    "MissingFile",
    "NoExactForm",
    "Problems",
    "Profile",
    "Ranges",
    "Ref",
    "Refused",
    "StoreError",
    "Sums",
    "Taken",
    "TidemillError",
    "Unavailable",
    "UnknownName",
    "Verdict",
    "Where",
    "answer",
    "bonferroni",
    "build_profile",
    "calibration_curve",
    "calibration_error",
    "caller",
    "canonical",
    "cluster_bootstrap_mean",
    "definition",
    "differences",
    "digest_bytes",
    "digest_value",
    "duration",
    "find",
    "instant",
    "mean_of_monthly_auc_bootstrap",
    "microseconds",
    "midnights",
    "moment",
    "odd_duration",
    "odd_list",
    "odd_name",
    "odd_number",
    "odd_size",
    "odd_text",
    "odd_type",
    "pack",
    "packed",
    "page",
    "paired_bootstrap",
    "paired_cluster_test",
    "partials",
    "place_of",
    "profile_like",
    "roc_auc",
    "row_log_loss",
    "share_interval",
    "show",
    "show_duration",
    "size",
    "spend",
    "steps",
    "store_error",
    "t_cdf",
    "total",
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
