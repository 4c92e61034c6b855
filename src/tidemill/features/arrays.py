"""One function of Python on arrays, for what expressions cannot say: the same for all rows of a training set and for one request.

Comes in: a read-only array for each column that it asks for. Numbers, DECIMAL and BOOLEAN are float64 with NaN for null, texts an object
array with None, dates and times datetime64[us] with NaT. Goes out: by name an array of numbers for each feature, as long as those.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidemill.core import Array, Coded, DataError, DefinitionError, Floats
from tidemill.data import Column, Columns, quote
from tidemill.features.kinds import kind_of

NOT_A_TIME = f"CAST({-(2**63)} AS BIGINT)"  # as numpy holds NaT
READ = ("f:", "m:")  # how the names of columns begin that a function, or a model, reads
GONE = "send a known key alone; or bring the function back as it was, or run `tidemill run` with the new one"


@dataclass(frozen=True)
class Function:
    """A function by the columns that it reads, the features that it gives, and the digest of its code with all that it calls; `call` is
    the function itself, None where only its record is known."""

    columns: Sequence[str]
    returns: Sequence[str]
    code: str
    call: Callable[[Mapping[str, Array]], Any] | None = field(default=None, compare=False, repr=False)

    def definition(self) -> dict[str, Any]:
        """Plain data: the code by its digest."""
        return {"columns": list(self.columns), "returns": list(self.returns), "code": self.code}

    def kinds(self, types: Mapping[str, str], where: str) -> dict[str, tuple[str, str]]:
        """SQL and kind of the columns that it reads. Raises DefinitionError for one that is not there, or cannot be an array."""
        found = {}
        for name in self.columns:
            letter = kind_of(types[name]).letter if name in types else ""
            if not letter or letter in "v0":
                known = sorted(column for column, kind in types.items() if kind_of(kind).letter not in ("", "v", "0"))
                what = f"is {types[name]}, which is no array" if name in types else "is not there"
                problem = f"the column {name!r} that the function reads {what}"
                raise DefinitionError(problem, where=where, available=known, hint="name another, or cast it in the query of the dataset")
            time = f"coalesce(epoch_us(CAST({quote(name)} AS TIMESTAMP)), {NOT_A_TIME})"
            found[f"f:{name}"] = (time, "instant") if letter in "atz" else (quote(name), "text" if letter == "s" else "number")
        return found

    def features(self, raw: Columns, view: str, where: str) -> dict[str, Floats]:
        """The features of rows. Raises DataError where the function fails, or gives something else than its features."""
        if self.call is None:
            raise DefinitionError(f"the function of view {view!r} is not here as it was when its model was trained", hint=GONE)
        given = {name: _array(raw[f"f:{name}"]) for name in self.columns}
        try:
            found = self.call(given)
        except Exception as error:
            what = f"the function of view {view!r} fails: {type(error).__name__}: {error}"
            raise DataError(what, where=where, hint="it is given arrays, of one row too, and nulls as NaN, None and NaT") from error
        if not isinstance(found, Mapping) or set(found) != set(self.returns):
            given_back = f"gives {', '.join(map(str, found))}" if isinstance(found, Mapping) else f"gives a {type(found).__name__}"
            hint = f"return a dict with an array for each of: {', '.join(self.returns)}"
            raise DataError(f"the function of view {view!r} {given_back}", where=where, hint=hint)
        rows = len(next(iter(given.values())))
        return {name: _feature(found[name], rows, f"{name!r} of the function of view {view!r}", where) for name in self.returns}

    def difference(self, raw: Columns, rows: int, view: str, where: str) -> str:
        """What is another value for one row than among these, to the last bit; empty for nothing."""
        return difference(lambda some: self.features(some, view, where), raw, rows, f"the function of view {view!r}")


def difference(features: Callable[[Columns], Mapping[str, Floats]], raw: Columns, rows: int, what: str) -> str:
    """What is another value for one row than among the first so many, to the last bit; empty for nothing."""
    read = {name: column for name, column in raw.items() if name.startswith(READ)}
    whole = features(read)
    for row in range(rows):
        for name, value in features({name: column.take([row]) for name, column in read.items()}).items():
            alone, among = repr(value[0].item()), repr(whole[name][row].item())
            if alone != among:
                return f"{name!r} of {what} gives {alone} for one request, and {among} among all rows"
    return ""


def _array(column: Column) -> Array:
    if isinstance(column, Coded):
        array = np.array([*column.vocabulary, None], dtype=object)[column.codes]
    else:
        array = column.view("datetime64[us]" if column.dtype == np.int64 else column.dtype)
    array.flags.writeable = False
    return array


def _feature(values: Any, rows: int, what: str, where: str) -> Floats:
    array = np.ma.asarray(values)
    if array.shape != (rows,):
        raise DataError(f"{what} has the shape {array.shape} for {rows} rows", where=where, hint="give one number for each row")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} holds {array.dtype}", where=where, hint="give numbers, and NaN for null")
    return np.ma.filled(array.astype(np.float64), np.nan)
