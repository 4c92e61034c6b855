"""Experiments, runs and what they log. Comes in: log calls, ours and those of MLflow's clients. Goes out: runs, histories, searches."""

from tidemill.tracking.artifacts import check_path, delete_files, files_of_model, files_of_run, find_file, list_files, place_of, put_file
from tidemill.tracking.filters import REGISTERED, VERSIONS, Comparison, Order, parse, parse_order
from tidemill.tracking.limits import page_size
from tidemill.tracking.metrics import read_token, write_token
from tidemill.tracking.run import Run, prepare, track
from tidemill.tracking.runs import get_run
from tidemill.tracking.search import Sql, all_of, compare
from tidemill.tracking.tables import tables
from tidemill.tracking.values import Pair, Value

__all__ = [
    "REGISTERED",
    "VERSIONS",
    "Comparison",
    "Order",
    "Pair",
    "Run",
    "Sql",
    "Value",
    "all_of",
    "check_path",
    "compare",
    "delete_files",
    "files_of_model",
    "files_of_run",
    "find_file",
    "get_run",
    "list_files",
    "page_size",
    "parse",
    "parse_order",
    "place_of",
    "prepare",
    "put_file",
    "read_token",
    "tables",
    "track",
    "write_token",
]
