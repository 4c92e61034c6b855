"""Experiments, runs and what they log. Comes in: log calls, ours and those of MLflow's clients. Goes out: runs, histories, searches.

What needs the database is loaded on first use: a training that logs does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.tracking.artifacts import MOST_FROZEN as MOST_FROZEN
    from tidemill.tracking.artifacts import delete_files as delete_files
    from tidemill.tracking.artifacts import files_of_model as files_of_model
    from tidemill.tracking.artifacts import files_of_run as files_of_run
    from tidemill.tracking.artifacts import find_file as find_file
    from tidemill.tracking.artifacts import freeze as freeze
    from tidemill.tracking.artifacts import frozen_place as frozen_place
    from tidemill.tracking.artifacts import has_files as has_files
    from tidemill.tracking.artifacts import is_whole as is_whole
    from tidemill.tracking.artifacts import keep_frozen as keep_frozen
    from tidemill.tracking.artifacts import list_files as list_files
    from tidemill.tracking.artifacts import place_of as place_of
    from tidemill.tracking.artifacts import put_file as put_file
    from tidemill.tracking.artifacts import thaw as thaw
    from tidemill.tracking.client import ActiveRun as ActiveRun
    from tidemill.tracking.client import note_input as note_input
    from tidemill.tracking.client import run as run
    from tidemill.tracking.comparison import changes as changes
    from tidemill.tracking.comparison import comparison_rows as comparison_rows
    from tidemill.tracking.conditions import Sql as Sql
    from tidemill.tracking.conditions import all_of as all_of
    from tidemill.tracking.conditions import compare as compare
    from tidemill.tracking.experiments import FROZEN as FROZEN
    from tidemill.tracking.experiments import ROOT as ROOT
    from tidemill.tracking.experiments import below as below
    from tidemill.tracking.filters import REGISTERED as REGISTERED
    from tidemill.tracking.filters import VERSIONS as VERSIONS
    from tidemill.tracking.filters import Comparison as Comparison
    from tidemill.tracking.filters import Order as Order
    from tidemill.tracking.filters import parse as parse
    from tidemill.tracking.filters import parse_order as parse_order
    from tidemill.tracking.importing import Imported as Imported
    from tidemill.tracking.importing import import_tracking as import_tracking
    from tidemill.tracking.importing import keep_pieces as keep_pieces
    from tidemill.tracking.intake import Shipment as Shipment
    from tidemill.tracking.intake import ingest as ingest
    from tidemill.tracking.limits import check_path as check_path
    from tidemill.tracking.limits import page_size as page_size
    from tidemill.tracking.metrics import rows_before as rows_before
    from tidemill.tracking.metrics import write_token as write_token
    from tidemill.tracking.models import note_version as note_version
    from tidemill.tracking.plots import save as save
    from tidemill.tracking.plots import shown as shown
    from tidemill.tracking.recorded import Recorded as Recorded
    from tidemill.tracking.recorded import Runs as Runs
    from tidemill.tracking.recorded import find_run as find_run
    from tidemill.tracking.recorded import find_runs as find_runs
    from tidemill.tracking.runs import get_run as get_run
    from tidemill.tracking.schema import tables as tables
    from tidemill.tracking.segment import is_written as is_written
    from tidemill.tracking.segment import read_head as read_head
    from tidemill.tracking.shipping import SEGMENTS as SEGMENTS
    from tidemill.tracking.shipping import SEGMENTS_KIND as SEGMENTS_KIND
    from tidemill.tracking.shipping import Shipper as Shipper
    from tidemill.tracking.shipping import unpack as unpack
    from tidemill.tracking.sources import Source as Source
    from tidemill.tracking.sources import open_source as open_source
    from tidemill.tracking.sources.folder import parse_yaml as parse_yaml
    from tidemill.tracking.spool import destination_of as destination_of
    from tidemill.tracking.spool import segments as segments
    from tidemill.tracking.spool import spool_of as spool_of
    from tidemill.tracking.spool import user_spool as user_spool
    from tidemill.tracking.step import Run as Run
    from tidemill.tracking.step import prepare as prepare
    from tidemill.tracking.step import track as track
    from tidemill.tracking.uploads import abort_upload as abort_upload
    from tidemill.tracking.uploads import begin_upload as begin_upload
    from tidemill.tracking.uploads import complete_upload as complete_upload
    from tidemill.tracking.uploads import drop_uploads as drop_uploads
    from tidemill.tracking.uploads import keep_part as keep_part
    from tidemill.tracking.values import Dataset as Dataset
    from tidemill.tracking.values import Pair as Pair
    from tidemill.tracking.values import Tagging as Tagging
    from tidemill.tracking.values import Value as Value

_OFFERED = {
    "ActiveRun": "client",
    "Comparison": "filters",
    "Dataset": "values",
    "FROZEN": "experiments",
    "ROOT": "experiments",
    "keep_pieces": "importing",
    "has_files": "artifacts",
    "MOST_FROZEN": "artifacts",
    "Imported": "importing",
    "Order": "filters",
    "Pair": "values",
    "Tagging": "values",
    "REGISTERED": "filters",
    "Recorded": "recorded",
    "Run": "step",
    "Runs": "recorded",
    "SEGMENTS": "shipping",
    "SEGMENTS_KIND": "shipping",
    "Shipment": "intake",
    "Shipper": "shipping",
    "Source": "sources",
    "Sql": "conditions",
    "VERSIONS": "filters",
    "Value": "values",
    "abort_upload": "uploads",
    "all_of": "conditions",
    "begin_upload": "uploads",
    "below": "experiments",
    "changes": "comparison",
    "check_path": "limits",
    "compare": "conditions",
    "comparison_rows": "comparison",
    "complete_upload": "uploads",
    "delete_files": "artifacts",
    "destination_of": "spool",
    "drop_uploads": "uploads",
    "files_of_model": "artifacts",
    "files_of_run": "artifacts",
    "find_file": "artifacts",
    "find_run": "recorded",
    "find_runs": "recorded",
    "get_run": "runs",
    "import_tracking": "importing",
    "ingest": "intake",
    "is_written": "segment",
    "keep_part": "uploads",
    "list_files": "artifacts",
    "note_input": "client",
    "note_version": "models",
    "open_source": "sources",
    "page_size": "limits",
    "parse": "filters",
    "parse_order": "filters",
    "parse_yaml": "sources.folder",
    "place_of": "artifacts",
    "prepare": "step",
    "freeze": "artifacts",
    "frozen_place": "artifacts",
    "is_whole": "artifacts",
    "keep_frozen": "artifacts",
    "put_file": "artifacts",
    "thaw": "artifacts",
    "read_head": "segment",
    "rows_before": "metrics",
    "run": "client",
    "save": "plots",
    "segments": "spool",
    "shown": "plots",
    "spool_of": "spool",
    "tables": "schema",
    "track": "step",
    "unpack": "shipping",
    "user_spool": "spool",
    "write_token": "metrics",
}

__all__ = [*_OFFERED]  # noqa: PLE0604 – the table above is the one list


def __getattr__(name: str) -> object:
    if name not in _OFFERED:
        raise AttributeError(f"module 'tidemill.tracking' has no attribute {name!r}")
    value = getattr(import_module(f"tidemill.tracking.{_OFFERED[name]}"), name)
    globals()[name] = value
    return value
