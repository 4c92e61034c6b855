"""Sources, dataset versions, checks and profiles. Comes in: files and SQL. Goes out: immutable, checked rows with two times."""

from tidemill.data.declarations import Check, Dataset, Source, fresh, in_range, not_null, unique
from tidemill.data.delimited import CommaNumbers, OddValue, comma_numbers, csv_names, csv_table, load_csv, odd_values, read_as_csv
from tidemill.data.engine import Column, Columns, confine, engine, explained, fetch, has_zone, instant_of, literal, named, quote
from tidemill.data.predictions import (
    Prediction,
    Predictions,
    Segment,
    append_predictions,
    broken,
    find_predictions,
    logged,
    pack_predictions,
    prediction_tables,
    segments,
)
from tidemill.data.said import plain_type
from tidemill.data.versions import CODE, ingest, scan, source_ref, stale

__all__ = [
    "CODE",
    "Check",
    "Column",
    "Columns",
    "CommaNumbers",
    "Dataset",
    "OddValue",
    "Prediction",
    "Predictions",
    "Segment",
    "Source",
    "append_predictions",
    "broken",
    "comma_numbers",
    "confine",
    "csv_names",
    "csv_table",
    "engine",
    "explained",
    "fetch",
    "find_predictions",
    "fresh",
    "has_zone",
    "in_range",
    "ingest",
    "instant_of",
    "literal",
    "load_csv",
    "logged",
    "named",
    "not_null",
    "odd_values",
    "pack_predictions",
    "plain_type",
    "prediction_tables",
    "quote",
    "read_as_csv",
    "scan",
    "segments",
    "source_ref",
    "stale",
    "unique",
]
