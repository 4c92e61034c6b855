"""A full or read-only disk: an error that helps, and nothing that was acknowledged is lost."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from disks import small_disk
from processes import heed_modes, run_python
from tidemill.core import Ref, StoreError, digest_bytes
from tidemill.features import LmdbOnline
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.store import FolderBlobs, Records, writer


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
    return file


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def artifact(name: str) -> Made:
    return Made({"it": Artifact(Ref.of("thing", name, digest_bytes(name.encode())), {})})


def test_a_full_disk_loses_no_blob(disk: Path) -> None:
    blobs = FolderBlobs(disk / "blobs")
    kept = blobs.put(b"kept")
    filler = fill(disk)
    with pytest.raises(StoreError, match="No space left") as error:
        blobs.put(b"too much" * 10_000)
    assert "free some space" in error.value.hint
    assert list(blobs.digests()) == [kept]
    blobs.verify(kept)
    assert not list(disk.rglob(".part-*"))
    filler.unlink()
    blobs.verify(blobs.put(b"too much" * 10_000))


def test_a_full_disk_loses_no_record(disk: Path) -> None:
    records = Records(disk / "records.db")
    ledger = Ledger(records, FolderBlobs(disk / "blobs"), count().__next__)
    ledger.once("step", "first", {}, lambda: artifact("first"))
    filler = fill(disk)

    def record_more() -> None:
        for i in range(200):
            ledger.once("step", f"second {i}", {"x": "x" * 3000}, lambda: artifact("second"))

    with pytest.raises(StoreError) as error:
        record_more()
    assert "free some space" in error.value.hint
    assert ledger.once("step", "first", {}, lambda: artifact("first")).cached  # reading goes on
    filler.unlink()
    assert records.check() == []
    assert not ledger.once("step", "third", {}, lambda: artifact("third")).cached
    records.close()


def test_a_full_disk_lets_read_what_was_closed(disk: Path) -> None:
    path, blobs = disk / "records.db", FolderBlobs(disk / "blobs")
    records = Records(path)
    ledger = Ledger(records, blobs, count().__next__)
    ledger.once("step", "first", {}, lambda: artifact("first"))
    records.close()
    filler = fill(disk)
    reader = Ledger(Records(path, read_only=True), blobs, count().__next__, read_only=True)
    assert [execution.name for execution in reader.executions()] == ["first"]
    assert reader.records.check() == []
    filler.unlink()
    records = Records(path)
    Ledger(records, blobs, count().__next__).once("step", "second", {}, lambda: artifact("second"))
    assert [execution.name for execution in reader.executions()] == ["second", "first"], "a writer that comes is seen"
    reader.records.close()
    records.close()


def test_a_full_disk_is_said_where_a_log_of_a_killed_writer_waits(disk: Path) -> None:
    path = disk / "records.db"
    records = Records(path)
    ledger = Ledger(records, FolderBlobs(disk / "blobs"), count().__next__)
    ledger.once("step", "first", {}, lambda: artifact("first"))
    left = (disk / "records.db-wal").read_bytes()
    records.close()
    (disk / "records.db-wal").write_bytes(left)
    filler = fill(disk)
    with pytest.raises(StoreError, match="the disk is full") as error:
        Records(path, read_only=True)
    assert "free some space" in error.value.hint
    filler.unlink()
    assert Records(path, read_only=True).check() == []


def test_a_step_that_fails_on_a_full_disk_shows_its_own_error(disk: Path) -> None:
    ledger = Ledger(Records(disk / "records.db"), FolderBlobs(disk / "blobs"), count().__next__)

    def make() -> Made:
        while True:
            ledger.blobs.put(os.urandom(50_000))

    with pytest.raises(StoreError, match="No space left"):
        ledger.once("step", "greedy", {}, make)


def test_a_full_disk_is_said_by_the_lock(disk: Path) -> None:
    fill(disk)
    with pytest.raises(StoreError, match="No space left"), writer(disk / "state" / "writer.lock", "test"):
        pass


def test_a_full_disk_is_said_by_the_online_store(disk: Path) -> None:
    filler = fill(disk)
    for _ in range(2):
        with pytest.raises(StoreError, match="No space left") as error:
            LmdbOnline(disk / "online", gigabytes=0.1)
        assert "free some space" in error.value.hint
    filler.unlink()
    LmdbOnline(disk / "online", gigabytes=0.1).close()


def test_a_read_only_disk_refuses_writing_and_lets_read(disk: Path) -> None:
    path, blobs = disk / "records.db", FolderBlobs(disk / "blobs")
    records = Records(path)
    Ledger(records, blobs, count().__next__).once("step", "first", {}, lambda: artifact("first"))
    kept = blobs.put(b"kept")
    records.close()
    remount(disk, "ro")
    with pytest.raises(StoreError, match="Read-only") as error:
        blobs.put(b"new")
    assert "mount it for writing" in error.value.hint
    with pytest.raises(StoreError, match="Read-only"):
        blobs.delete(kept)
    with pytest.raises(StoreError):
        Records(path)
    with pytest.raises(StoreError, match="Read-only"), writer(disk / "writer.lock", "test"):
        pass
    with pytest.raises(StoreError, match="Read-only"):
        LmdbOnline(disk / "online")
    blobs.verify(kept)
    reader = Ledger(Records(path, read_only=True), blobs, count().__next__, read_only=True)
    assert [execution.name for execution in reader.executions()] == ["first"]
    reader.records.close()
    remount(disk, "rw")


def test_a_folder_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    blobs = FolderBlobs(tmp_path / "blobs")
    Ledger(records, blobs, count().__next__).once("step", "first", {}, lambda: artifact("first"))
    kept = blobs.put(b"kept")
    records.close()
    code = """
import sys
from pathlib import Path
from tidemill.core import StoreError
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records, writer
folder, kept = Path(sys.argv[1]), sys.argv[2]
blobs = FolderBlobs(folder / "blobs")
print(bytes(blobs.get(kept)))
print([e.name for e in Ledger(Records(folder / "records.db", read_only=True), blobs, lambda: 0, read_only=True).executions()])
def open_records(): Ledger(Records(folder / "records.db"), blobs, lambda: 0)
def take_lock(): writer(folder / "w.lock", "x").__enter__()
for act in (lambda: blobs.put(b"new"), open_records, take_lock):
    try: act()
    except StoreError as error: print("right to write" in error.hint)
"""
    subprocess.run(["chmod", "-R", "a-w", tmp_path], check=True)
    done = run_python(code, tmp_path, kept, prepare=heed_modes)
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)
    assert done.stdout.split("\n") == ["b'kept'", "['first']", "True", "True", "True", ""], done.stderr
