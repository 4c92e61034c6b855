"""Adapters for the tests: those that we ship, in memory and on disk. What differs between them appears here and nowhere else.

And which tests go to one worker, where several share the work.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import one_thread  # noqa: F401 – before numpy
from postgres import new_schema
from redis_server import ADDRESS, new_prefix
from tidemill.features import LmdbOnline, MemoryOnline, OnlineStore, open_online
from tidemill.ledger import Ledger
from tidemill.store import Blobs, FolderBlobs, MemoryBlobs, Records

# What these share is built once in each worker, and takes long. (pytest-xdist's own groups, `--dist loadgroup`, do nothing with
# pytest 9.2: its issue 1386.)
TOGETHER = ("tests/flights/", "tests/cli/", "tests/clients/", "tests/training/test_leaks.py", "tests/loop/test_compare.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests go to the workers one by one, but those of TOGETHER as one: these first, the most numerous ahead."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return Together(config, log)


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Every implementation of `Blobs`."""
    return MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of records in PostgreSQL, where nothing is yet."""
    with new_schema() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where records outlive a process: a file, and a schema of a database. Nothing is there yet."""
    return request.getfixturevalue("postgres") if request.param == "postgres" else tmp_path / "state" / "records.db"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    """Every kind of records."""
    kinds = {"memory": lambda: None, "sqlite": lambda: tmp_path / "records.db", "postgres": lambda: request.getfixturevalue("postgres")}
    made = Records(kinds[request.param]())
    yield made
    made.close()


@pytest.fixture(params=["memory", "lmdb", "redis"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    """Every implementation of `OnlineStore`."""
    if request.param == "memory":
        yield MemoryOnline()
    elif request.param == "redis":
        with new_prefix() as prefix:
            found = open_online(ADDRESS, prefix=prefix)
            yield found
            found.close()
    else:
        store = LmdbOnline(tmp_path / "online", gigabytes=0.25)
        yield store
        store.close()


@pytest.fixture
def kind() -> str:
    """Where the rows of `ledger` lie; rooms whose SQL is by hand say `postgres` too."""
    return "memory"


@pytest.fixture
def ledger(kind: str, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A ledger in memory, or where `kind` says."""
    records = Records(request.getfixturevalue("postgres") if kind == "postgres" else None)
    yield Ledger(records, MemoryBlobs(), count().__next__)
    records.close()


@pytest.fixture
def folder_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger on disk."""
    records = Records(tmp_path / "state" / "records.db")
    yield Ledger(records, FolderBlobs(tmp_path / "state" / "blobs"), count().__next__)
    records.close()
