"""A full or read-only disk: an error that helps, and nothing that was acknowledged is lost."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from processes import run_python
from tidemill.core import Ref, StoreError, digest_bytes
from tidemill.features import LmdbOnline
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.store import FolderBlobs, Records, writer


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


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
    ledger = Ledger(records, FolderBlobs(disk / "blobs"))
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


def test_a_step_that_fails_on_a_full_disk_shows_its_own_error(disk: Path) -> None:
    ledger = Ledger(Records(disk / "records.db"), FolderBlobs(disk / "blobs"))

    def make() -> Made:
        while True:
            ledger.blobs.put(os.urandom(50_000))

    with pytest.raises(StoreError, match="No space left"):
        ledger.once("step", "greedy", {}, make)


def test_a_full_disk_is_said_by_the_lock(disk: Path) -> None:
    fill(disk)
    with pytest.raises(StoreError, match="No space left"), writer(disk / "state" / "writer.lock", "test"):
        pass


def test_a_read_only_disk_refuses_writing_and_lets_read(disk: Path) -> None:
    path, blobs = disk / "records.db", FolderBlobs(disk / "blobs")
    records = Records(path)
    Ledger(records, blobs).once("step", "first", {}, lambda: artifact("first"))
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
    reader = Ledger(Records(path, read_only=True), blobs, read_only=True)
    assert [execution.name for execution in reader.executions()] == ["first"]
    reader.records.close()
    remount(disk, "rw")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_a_folder_of_another_user_can_be_read_and_not_written(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"tidemill-test-{os.getpid()}"  # above it all may enter, unlike pytest's folder
    folder.mkdir(mode=0o755)
    try:
        records = Records(folder / "records.db")
        blobs = FolderBlobs(folder / "blobs")
        Ledger(records, blobs).once("step", "first", {}, lambda: artifact("first"))
        kept = blobs.put(b"kept")
        records.close()
        code = """
import os, sys
from pathlib import Path
from tidemill.core import StoreError
from tidemill.ledger import Ledger
from tidemill.store import FolderBlobs, Records, writer
import sqlalchemy.dialects.sqlite.pysqlite
os.setuid(65534)
folder, kept = Path(sys.argv[1]), sys.argv[2]
blobs = FolderBlobs(folder / "blobs")
print(bytes(blobs.get(kept)))
print([e.name for e in Ledger(Records(folder / "records.db", read_only=True), blobs, read_only=True).executions()])
def open_records(): Ledger(Records(folder / "records.db"), blobs)
def take_lock(): writer(folder / "w.lock", "x").__enter__()
for act in (lambda: blobs.put(b"new"), open_records, take_lock):
    try: act()
    except StoreError as error: print("right to write" in error.hint)
"""
        done = run_python(code, folder, kept)
        assert done.stdout.split("\n") == ["b'kept'", "['first']", "True", "True", "True", ""], done.stderr
    finally:
        shutil.rmtree(folder)
