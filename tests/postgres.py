"""A PostgreSQL server for tests: the one that TIDEMILL_TEST_POSTGRES names, or one on this machine; a schema of its own for each test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import inspect, text

from tidemill import loop
from tidemill.ledger import Ledger
from tidemill.store import MemoryBlobs, Records

ADDRESS = os.environ.get("TIDEMILL_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@cache
def _missing() -> str:
    """Why there is no server; empty when there is one."""
    try:
        psycopg.connect(ADDRESS, connect_timeout=5).close()
    except psycopg.Error as error:
        return str(error)
    return ""


@contextmanager
def new_schema() -> Iterator[str]:
    """The address of a schema that is not there yet; it is dropped at the end."""
    missing = _missing()
    if missing:
        assert not os.environ.get("CI"), f"no PostgreSQL: {missing}"
        pytest.skip(f"no PostgreSQL (TIDEMILL_TEST_POSTGRES names one): {missing}")
    name = f"tidemill_test_{uuid.uuid4().hex[:12]}"
    yield f"{ADDRESS}{'&' if '?' in ADDRESS else '?'}schema={name}"
    ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def move_records(folder: Path, address: str) -> None:
    """Move what a project on disk has recorded into a database: every row of every table of its file."""
    records = Records(address)
    loop.prepare(Ledger(records, MemoryBlobs(), lambda: 0))
    before = Records(folder / ".tidemill" / "records.db", read_only=True)
    with before.read() as source, records.begin() as target:
        quoted = target.dialect.identifier_preparer.quote
        for table in inspect(source).get_table_names():
            target.execute(text(f"DELETE FROM {quoted(table)}"))
            rows = [dict(row) for row in source.execute(text(f"SELECT * FROM {quoted(table)}")).mappings()]
            if rows:
                target.execute(text(f"INSERT INTO {quoted(table)} ({', '.join(rows[0])}) VALUES (:{', :'.join(rows[0])})"), rows)
                if "id" in rows[0] and target.execute(text(f"SELECT pg_get_serial_sequence('{table}', 'id')")).scalar():
                    numbers = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {quoted(table)}))"
                    target.execute(text(numbers))
    before.close()
    records.close()
    with (folder / "tidemill.toml").open("a") as settings:
        settings.write(f'\n[store]\nrecords = "{address}"\n')


def ask(sql: str) -> list[tuple[object, ...]]:
    """The rows of a statement, in a transaction of its own."""
    with psycopg.connect(ADDRESS, autocommit=True) as connection:
        found = connection.execute(sql)  # type: ignore[call-overload]
        return list(found.fetchall()) if found.description else []
