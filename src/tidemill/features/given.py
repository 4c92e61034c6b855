"""A few rows as a user has them (a dict, several, columns, a frame) as a list of dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.core import DataError
from tidemill.data import TWINS, twins

Row = Mapping[str, Any]
FLOATS = {float, np.float64, np.float32, np.float16}


def rows_of(rows: Any, needed: Sequence[str]) -> Sequence[Row]:
    """Rows from what a user gives: a dict, a list of dicts, columns as a dict of lists, or a frame; of the last two these columns alone.
    Raises DataError.

    >>> rows_of({"origin": "JFK"}, ["origin"]), rows_of({"origin": ["JFK", "LGA"]}, ["origin"])
    ([{'origin': 'JFK'}], [{'origin': 'JFK'}, {'origin': 'LGA'}])
    """
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        odd = next((i for i, row in enumerate(rows) if not isinstance(row, Mapping)), None)
        if odd is not None:
            raise DataError(f"row {odd} is {rows[odd]!r}", hint=_example(needed))
        return with_gaps(rows)
    if isinstance(rows, Mapping) and not any(_several(rows[name]) for name in needed or rows if name in rows):
        return with_gaps([rows])
    try:
        columns = {name: _listed(rows[name], whole=hasattr(rows, "columns")) for name in needed or _names(rows)}
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{type(rows).__name__} is no rows with {', '.join(needed)}", hint=_example(needed)) from error
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the columns have different lengths: {sizes}", hint="give a value for each row")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def whole_rows(rows: Any, columns: Sequence[str]) -> Sequence[Any]:
    """The same with all columns that are there; `columns` are those that should be. Other rows are left as they are. Raises DataError."""
    if isinstance(rows, Mapping) and not (rows and all(map(_several, rows.values()))):
        return [rows]
    if not isinstance(rows, Mapping) and not hasattr(rows, "columns"):
        return list(rows)
    names = _names(rows)
    if both := twins(names):
        raise DataError(f"the rows have {both}", available=names, hint=TWINS)
    return rows_of(rows, names or columns)


def _names(rows: Any) -> list[str]:
    """The columns of a frame of pandas or polars, a table of pyarrow, or a dict."""
    return list(rows) if isinstance(rows, Mapping) else list(getattr(rows, "column_names", None) or rows.columns)


def _several(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _listed(column: Any, *, whole: bool) -> list[Any]:
    """The values of a column of numpy, pandas, polars or pyarrow, as Python's own; of a `whole` frame of polars NaN is no gap."""
    if not _several(column):
        raise TypeError
    if isinstance(column, np.ndarray) and column.dtype.kind in "Mm":  # of nanoseconds Python has no time
        column = column.astype(f"{column.dtype.kind}8[us]")
    how = next((name for name in ("tolist", "to_list", "to_pylist") if hasattr(column, name)), None)
    values = list(getattr(column, how)() if how else column)
    if (whole and how not in ("tolist", None)) or not FLOATS & set(map(type, values)):
        return values
    return [_or_gap(value) for value in values]


def with_gaps(rows: Sequence[Any]) -> Sequence[Row]:
    """Rows with null for each NaN: Python, numpy and pandas have gaps so, while polars has both."""
    for row in rows:
        if not isinstance(row, Mapping):  # who reads it says so
            return rows
        for value in row.values():
            if value.__class__ in FLOATS and value != value:
                return [{name: _or_gap(value) for name, value in row.items()} if isinstance(row, Mapping) else row for row in rows]
    return rows


def _or_gap(value: Any) -> Any:
    return None if value.__class__ in FLOATS and value != value else value


def _example(needed: Sequence[str]) -> str:
    return f"for example {{{', '.join(f'{name!r}: …' for name in needed)}}}, or a list of such, or a dict of lists"
