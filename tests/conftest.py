"""Adapters for the tests: those that we ship, in memory and on disk. What differs between them appears here and nowhere else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.features import LmdbOnline, MemoryOnline, OnlineStore
from tidemill.ledger import Ledger
from tidemill.store import Blobs, FolderBlobs, MemoryBlobs, Records


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Every implementation of `Blobs`."""
    return MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path / "blobs")


@pytest.fixture(params=["memory", "sqlite"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    """Records in memory and in a file."""
    made = Records(None if request.param == "memory" else tmp_path / "state" / "records.db")
    yield made
    made.close()


@pytest.fixture(params=["memory", "lmdb"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    """Every implementation of `OnlineStore`."""
    if request.param == "memory":
        yield MemoryOnline()
    else:
        store = LmdbOnline(tmp_path / "online", gigabytes=0.25)
        yield store
        store.close()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger in memory."""
    records = Records(None)
    yield Ledger(records, MemoryBlobs())
    records.close()


@pytest.fixture
def folder_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger on disk."""
    records = Records(tmp_path / "state" / "records.db")
    yield Ledger(records, FolderBlobs(tmp_path / "state" / "blobs"))
    records.close()
