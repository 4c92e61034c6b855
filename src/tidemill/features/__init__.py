"""Entities, views, windows, and point-in-time reading by `read(keys, at)`, offline and online.

Comes in: dataset versions and declarations. Goes out: view versions, and matrices of values as known at each row's time.
"""

from tidemill.features._lmdb import LmdbOnline
from tidemill.features._lmdb_folder import is_whole
from tidemill.features.again import make_again
from tidemill.features.arrays import Function
from tidemill.features.catalogue import Hit, View, made_by, search, source_of, summarise, values_of
from tidemill.features.declarations import (
    LIFETIME,
    Entity,
    Feature,
    FeatureView,
    RequestView,
    approx_quantile,
    category,
    count,
    count_distinct,
    first,
    from_definition,
    functions_of,
    last,
    max,
    mean,
    min,
    request_view,
    std,
    sum,
)
from tidemill.features.erasing import EraseLines, Erasure, apply_erasure, plan_erasure
from tidemill.features.frames import open_rows, types_of, writable, write_rows
from tidemill.features.getter import Getter, OnlineFeatures
from tidemill.features.given import whole_rows
from tidemill.features.growth import differ_since
from tidemill.features.historical import Chosen, Historical, Listen, Opened, Question, choose, historical, quiet
from tidemill.features.keys import Keys, joined_sql, joined_text, key_column, key_sql, key_text, parts_of
from tidemill.features.looked import Looked
from tidemill.features.matching import time_sql
from tidemill.features.materialising import bring_up, materialise
from tidemill.features.online import MemoryOnline, OnlineStore, space_of
from tidemill.features.outputs import Output, bound, learned_until, output_of
from tidemill.features.own import OwnColumns
from tidemill.features.pushing import Feed, Pusher, catch_up
from tidemill.features.reader import Matrix, Reader
from tidemill.features.request_build import build_requests
from tidemill.features.request_rows import Computed
from tidemill.features.requests import Requests, load_requests
from tidemill.features.saved import KIND as SAVED
from tidemill.features.saved import Brought, bring, digest_of, load_rows, rows_of, save_rows
from tidemill.features.sharing import withdraw_unshared
from tidemill.features.stores import open_online
from tidemill.features.taking import SharedView, as_declared, shared
from tidemill.features.values import check_values
from tidemill.features.views import CODE, Block, ViewLog, build, load, of_arrays
from tidemill.features.windows import PRESENT, STATUS, Events

__all__ = [
    "CODE",
    "LIFETIME",
    "PRESENT",
    "SAVED",
    "STATUS",
    "Block",
    "Brought",
    "Chosen",
    "Computed",
    "Entity",
    "EraseLines",
    "Erasure",
    "Events",
    "Feature",
    "FeatureView",
    "Feed",
    "Function",
    "Getter",
    "Historical",
    "Hit",
    "Keys",
    "Listen",
    "LmdbOnline",
    "Looked",
    "Matrix",
    "MemoryOnline",
    "OnlineFeatures",
    "OnlineStore",
    "Opened",
    "Output",
    "OwnColumns",
    "Pusher",
    "Question",
    "Reader",
    "RequestView",
    "Requests",
    "SharedView",
    "View",
    "ViewLog",
    "apply_erasure",
    "approx_quantile",
    "as_declared",
    "bound",
    "bring",
    "bring_up",
    "build",
    "build_requests",
    "catch_up",
    "category",
    "check_values",
    "choose",
    "count",
    "count_distinct",
    "differ_since",
    "digest_of",
    "first",
    "from_definition",
    "functions_of",
    "historical",
    "is_whole",
    "joined_sql",
    "joined_text",
    "key_column",
    "key_sql",
    "key_text",
    "last",
    "learned_until",
    "load",
    "load_requests",
    "load_rows",
    "made_by",
    "make_again",
    "materialise",
    "max",
    "mean",
    "min",
    "of_arrays",
    "open_online",
    "open_rows",
    "output_of",
    "parts_of",
    "plan_erasure",
    "quiet",
    "request_view",
    "rows_of",
    "save_rows",
    "search",
    "shared",
    "source_of",
    "space_of",
    "std",
    "sum",
    "summarise",
    "time_sql",
    "types_of",
    "values_of",
    "whole_rows",
    "withdraw_unshared",
    "writable",
    "write_rows",
]
