"""Rows of a key that are to be erased: where they lie in files, blobs and the log of pushed rows; and the digests of keys that were
erased, so that no later version brings their rows back.

A key is its parts as texts, in whatever spelling of the values; several sets of columns may hold it: one entity under several names.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Integer, Table, Text, select, update

from tidemill.core import digest_bytes
from tidemill.data.engine import ask, confine, engine, kept_open, literal, quote, table
from tidemill.data.pushes import AT_ONCE, ERASED, chained, push_tables
from tidemill.ledger import Ledger
from tidemill.store import upsert

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Columns = tuple[str, ...]
FLOATS = ("DOUBLE", "FLOAT")
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|DOUBLE$|FLOAT$|DECIMAL")
_keys = Table(
    "erased_key",
    push_tables,
    Column("key_columns", Text, primary_key=True),  # JSON
    Column("digest", Text, primary_key=True),  # of the key: who has the key finds it, who has the table does not read it
    Column("at", BigInteger, nullable=False),
    Column("done", Integer, nullable=False),  # 0 while bytes may still be there
)
_push = push_tables.tables["push"]


@dataclass(frozen=True)
class Key:
    """The parts (n,) of a key, and the sets of n columns each under which it is looked for."""

    parts: Columns
    columns: tuple[Columns, ...]

    @property
    def digest(self) -> str:
        """What is kept of it.

        >>> Key(("1", "11"), (("a", "b"),)).digest == Key(("11", "1"), (("a", "b"),)).digest
        False
        """
        return _digest(self.parts)

    def among(self, names: Collection[str]) -> list[Columns]:
        """The sets of columns that are all there."""
        return [columns for columns in self.columns if set(columns) <= set(names)]

    def condition(self, types: Mapping[str, str]) -> str:
        """SQL for whether a row is of the key, null for none; FALSE where no set of its columns is there."""
        rows = []
        for columns in self.among(types):
            texts = self.spelled([types[name] for name in columns])
            same = zip(columns, texts or (), strict=texts is not None)
            rows.append(" AND ".join(f"CAST({quote(name)} AS VARCHAR) = {literal(text)}" for name, text in same) or "FALSE")
        return " OR ".join(f"({row})" for row in rows) or "FALSE"

    @kept_open()
    def spelled(self, kinds: Sequence[str]) -> Columns | None:
        """The parts as the engine spells them in columns of these types; None where one cannot be there."""
        texts = tuple(map(_spelled, self.parts, kinds))
        return None if None in texts else texts  # type: ignore[return-value]

    def forms(self, shapes: Iterable[Mapping[str, str]]) -> set[Columns]:
        """All that it may be spelled as in rows of these columns, also once whole numbers are held as floats, or the other way."""
        found = {self.parts}
        for types in shapes:
            for columns in self.among(types):
                kinds = [{types[name], *(("BIGINT", "DOUBLE") if is_number(types[name]) else ())} for name in columns]
                found |= {texts for each in product(*kinds) if (texts := self.spelled(each))}
        return found


def is_number(kind: str) -> bool:
    """Whether a type is one of numbers."""
    return _NUMBER.match(kind) is not None


def _digest(parts: Columns) -> str:
    return sha256("".join(sha256(part.encode()).hexdigest() for part in parts).encode()).hexdigest()


@lru_cache(1_000)
def _spelled(part: str, kind: str) -> str | None:
    """A part of a key as the engine spells it in a type: 2 is 2.0 among floats, and 2.5 nothing among whole numbers."""
    if kind == "VARCHAR":
        return part
    exact = "d IS NULL OR TRY_CAST(v AS DECIMAL(38, 9)) IS NOT DISTINCT FROM d" if is_number(kind) and kind not in FLOATS else "TRUE"
    value = f"(SELECT TRY_CAST(p AS {kind}) AS v, TRY_CAST(p AS DECIMAL(38, 9)) AS d FROM (SELECT ? AS p))"
    found: str | None = ask(f"SELECT CASE WHEN {exact} THEN CAST(v AS VARCHAR) END FROM {value}", part)
    return found


# ── where rows of a key lie ─────────────────────────────────────────────────────────────────────────────────────────


def rows_in(file: Path, key: Key) -> int:
    """How many rows of a Parquet file are of the key."""
    with engine() as connection:
        confine(connection, file=file)
        shape = connection.execute(f"SELECT * FROM {table(file)} LIMIT 0").description
        return count(connection, table(file), key.condition({one[0]: str(one[1]) for one in shape}))


def texts_in(file: Path, expression: str, key: Key) -> set[str]:
    """What an expression gives, as text, of the rows of a Parquet file that are of the key."""
    with engine() as connection:
        confine(connection, file=file)
        shape = connection.execute(f"SELECT * FROM {table(file)} LIMIT 0").description
        condition = key.condition({one[0]: str(one[1]) for one in shape})
        rows = connection.execute(f"SELECT DISTINCT {expression} FROM {table(file)} WHERE {condition}").fetchall()
    return {str(row[0]) for row in rows if row[0] is not None}


def count(connection: "DuckDBPyConnection", rows: str, condition: str) -> int:
    """How many rows fulfil a condition."""
    found = connection.execute(f"SELECT count(*) FROM {rows} WHERE {condition}").fetchone()
    return int(found[0]) if found else 0


def erase_pushed(connection: Connection, dataset: str, numbers: Collection[int]) -> None:
    """Empty rows of a dataset's log: the others keep their numbers, and offsets stay. Its digests are made anew from there on."""
    gone, after = set(numbers), min(numbers) - 1
    own = _push.c.dataset == dataset
    before = (
        connection.execute(select(_push.c.digest).where(own, _push.c.last <= after).order_by(_push.c.last.desc()).limit(1)).scalar() or ""
    )
    query = select(_push.c.last, _push.c.known, _push.c.content).where(own).order_by(_push.c.last).limit(AT_ONCE)
    while found := connection.execute(query.where(_push.c.last > after)).all():
        for last, known, content in found:
            rows: list[dict[str, Any]] = msgspec.json.decode(content)
            first = last - len(rows) + 1
            if not gone.isdisjoint(range(first, last + 1)):
                content = msgspec.json.encode([ERASED if number in gone else row for number, row in enumerate(rows, first)])
            before = chained(before, known, content)
            connection.execute(update(_push).where(own, _push.c.last == last).values(content=content, digest=before))
            after = last


def pushed_datasets(ledger: Ledger) -> list[str]:
    """The datasets that have a log."""
    with ledger.records.read() as connection:
        return list(connection.execute(select(_push.c.dataset).distinct().order_by(_push.c.dataset)).scalars())


# ── keys that were erased ───────────────────────────────────────────────────────────────────────────────────────────


def remember(connection: Connection, key: Key, forms: Iterable[Columns], at: int, *, done: bool) -> None:
    """Note that a key is erased, by all that it may be spelled as: rows of files that are of it are left out from now on."""
    for columns, digest in product(key.columns, sorted({key.digest, *map(_digest, forms)})):
        row = {"key_columns": msgspec.json.encode(columns).decode(), "digest": digest, "at": at, "done": int(done)}
        changes = {"done": int(done)} if done else {"at": at, "done": 0}
        statement = upsert(connection, _keys).values(row)
        connection.execute(statement.on_conflict_do_update(index_elements=list(_keys.primary_key), set_=changes))


def unfinished(ledger: Ledger, key: Key) -> bool:
    """Whether an erasure of the key was begun and did not come to its end."""
    with ledger.records.read() as connection:
        query = select(_keys.c.digest).where(_keys.c.digest == key.digest, _keys.c.done == 0)
        return connection.execute(query.limit(1)).first() is not None


def erased_keys(ledger: Ledger) -> dict[Columns, list[str]]:
    """The digests of the keys that were erased, by their columns."""
    found = dict[Columns, list[str]]()
    with ledger.records.read() as connection:
        for columns, digest in connection.execute(
            select(_keys.c.key_columns, _keys.c.digest).order_by(_keys.c.key_columns, _keys.c.digest)
        ):
            found.setdefault(tuple(msgspec.json.decode(columns)), []).append(digest)
    return found


def erased_inputs(erased: Mapping[Columns, Sequence[str]], names: Collection[str] | None) -> str:
    """The digest of the keys whose columns are among some names (None: all); empty where there is none."""
    own = [[columns, digests] for columns, digests in erased.items() if names is None or set(columns) <= set(names)]
    return digest_bytes(msgspec.json.encode(own)) if own else ""


def left_out(erased: Mapping[Columns, Sequence[str]], names: Collection[str]) -> str:
    """SQL for whether a row is of a key that was erased."""
    tests = [
        f"sha256({' || '.join(f'sha256(CAST({quote(name)} AS VARCHAR))' for name in columns)}) IN ({', '.join(map(literal, digests))})"
        for columns, digests in erased.items()
        if set(columns) <= set(names)
    ]
    return f"coalesce({' OR '.join(tests)}, FALSE)" if tests else "FALSE"
