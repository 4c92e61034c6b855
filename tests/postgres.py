"""A PostgreSQL server for tests: the one that TIDEMILL_TEST_POSTGRES names, or one on this machine; a schema of its own for each test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg
import pytest

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


def ask(sql: str) -> list[tuple[object, ...]]:
    """The rows of a statement, in a transaction of its own."""
    with psycopg.connect(ADDRESS, autocommit=True) as connection:
        found = connection.execute(sql)  # type: ignore[call-overload]
        return list(found.fetchall()) if found.description else []
