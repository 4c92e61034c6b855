"""Many rows of one form, read by columns: as `rows.py` reads each by itself, to the bit.

Comes in: rows in the engine, whose columns have types. Goes out: one part of all rows that need no look of their own, and which do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.core import Bools, Floats, Instants
from tidemill.data import quote
from tidemill.features import Requests, joined_sql
from tidemill.serving.asked import FLOATING, WHOLE, Chunk
from tidemill.serving.given import Given
from tidemill.serving.rows import Part, Rows

SIZES = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
TIMES = {  # of which nothing is odd: a text of four digits tells the year, and the engine subtracts to the microsecond
    "DATE": "{0} < '0002-01-01' OR {0} > '9998-12-31'",
    "TIMESTAMP": "{0} < '0002-01-01' OR {0} > '9998-12-31'",
    "TIMESTAMP WITH TIME ZONE": "{0} < '1970-01-02 00:00:00+00' OR {0} > '9998-12-31 00:00:00+00'",
}
Found = tuple[Part | None, Bools]


@dataclass(frozen=True)
class Columnar:
    """How rows of a form are read. The types of their columns say whether that can be done: a text in place of a time, or of a number, is
    for each row to be looked at."""

    form: str
    rows: Rows
    given: Given

    def part(self, chunk: Chunk, when: Instants) -> Found:
        """The rows that are as most are, and which are not; None where there are no such."""
        if self.form == "features":
            return self._of_features(chunk, when)
        return self._of_keys(chunk) if self.form == "key" else self._of_columns(chunk)

    def _of_features(self, chunk: Chunk, when: Instants) -> Found:
        types = chunk.asked.types
        if not any(part in types for part in self.rows.dataset.keys):
            keys, odd = [""] * len(chunk), np.zeros(len(chunk), dtype=bool)
        else:
            found = self._keys(chunk)
            if found is None:
                return _none(chunk)
            keys, odd = found
        some = chunk.part(~odd) if odd.any() else chunk
        if not len(some):
            return _none(chunk)
        places = np.flatnonzero(~odd)
        numbers = {name: _number(types[name], quote(f"c:{name}")) for name in self.given.signature.features}
        wanted = {name: sql for name, sql in numbers.items() if sql and name not in self.given.signature.categories}
        columns: dict[str, Sequence[object] | Floats] = {name: _filled(one) for name, one in some.columns(wanted).items()} if wanted else {}
        columns |= {name: some.values(name) for name in numbers if name not in wanted}
        own = [key for key, apart in zip(keys, odd.tolist(), strict=True) if not apart]
        return Part(places, Requests.bare(own, when[places]), None, self.given.of_columns(columns, places)), odd

    def _of_keys(self, chunk: Chunk) -> Found:
        found = self._keys(chunk)
        if found is None:
            return _none(chunk)
        keys, odd = found
        rows = self.rows.known.find_all(keys)
        odd |= rows < 0
        places = np.flatnonzero(~odd)
        return (Part(places, self.rows.known.take(rows[places])) if len(places) else None), odd

    def _keys(self, chunk: Chunk) -> tuple[list[str], Bools] | None:
        """The texts of the rows' keys, and which of them are to be looked at."""
        own, types = {part: self.rows.types[part] for part in self.rows.dataset.keys}, chunk.asked.types
        if not all(part in types and _spelt(types[part], kind) for part, kind in own.items()):
            return None
        texts = [f"CAST({quote(f'c:{part}')} AS VARCHAR)" for part in own]
        odd = " OR ".join(f"{text} IS NULL OR contains({text}, chr(0))" for text in texts)
        found = chunk.columns({"key": f"coalesce({joined_sql(texts)}, '')", "odd": odd})
        return found["key"].tolist(), np.array(found["odd"], dtype=bool)

    def _of_columns(self, chunk: Chunk) -> Found:
        own, types = self.rows.own, chunk.asked.types
        taken = {name: _taken(types[name], kind, quote(f"c:{name}")) for name, kind in own.types.items()}
        if not own.as_the_engine or not all(taken.values()):
            return _none(chunk)
        odd = [f"coalesce({one}, FALSE)" for name, kind in own.types.items() if (one := _odd(kind, taken[name]))]
        texts = [f"CAST({quote(f'c:{part}')} AS VARCHAR)" for part in self.rows.dataset.keys]
        odd += [f"{text} IS NULL OR contains({text}, chr(0))" for text in texts]
        apart = np.array(chunk.columns({"odd": " OR ".join(odd)})["odd"], dtype=bool)
        some = chunk.part(~apart) if apart.any() else chunk
        if not len(some):
            return _none(chunk)
        shown = ", ".join(f"{sql} AS {quote(name)}" for name, sql in taken.items())
        requests = own.by_engine(chunk.asked.connection, f"SELECT {shown} FROM {some.table}")
        return Part(np.flatnonzero(~apart), requests), apart


def _none(chunk: Chunk) -> Found:
    return None, np.ones(len(chunk), dtype=bool)


def _filled(column: object) -> Floats:
    """Numbers, NaN for null."""
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)


def _number(kind: str, column: str) -> str:
    """SQL for a column as the numbers that its values are; empty where they are none, or the engine might round otherwise."""
    return f"CAST({column} AS DOUBLE)" if kind in WHOLE or kind in FLOATING or kind.startswith("DECIMAL") else ""


def _spelt(kind: str, of_key: str) -> bool:
    """Whether the engine's text of a column is the key that a client would send."""
    if kind in WHOLE:
        return of_key in WHOLE or of_key == "VARCHAR"
    return kind == of_key and kind in ("VARCHAR", *TIMES)


def _taken(kind: str, of_request: str, column: str) -> str:
    """SQL for a column in the type that requests have it in; empty where its values have another meaning, or need a look."""
    if kind == of_request and (kind in WHOLE or kind in FLOATING or kind in TIMES or kind in ("VARCHAR", "BOOLEAN", "HUGEINT")):
        return column
    if kind == of_request and kind.startswith("DECIMAL"):
        return column
    narrower = kind in SIZES and of_request in SIZES and SIZES[kind] < SIZES[of_request]
    if narrower or (kind in WHOLE and of_request in ("DOUBLE", "VARCHAR")) or (kind, of_request) == ("FLOAT", "DOUBLE"):
        return f"CAST({column} AS {of_request})"
    return ""


def _odd(kind: str, column: str) -> str:
    """SQL for whether a value of a type is refused by some, or read otherwise."""
    return f"isinf({column})" if kind in FLOATING else TIMES[kind].format(column) if kind in TIMES else ""
