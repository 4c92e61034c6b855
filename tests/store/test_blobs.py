"""Acceptance suite of `Blobs`: every implementation passes it (the fixture `blobs` makes them)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core import Damaged, MissingFile, digest_bytes
from tidemill.store import Blobs, FolderBlobs, MemoryBlobs, put_pieces

UNKNOWN = digest_bytes(b"never stored")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=2000))
def test_what_goes_in_comes_out(blobs: Blobs, data: bytes) -> None:
    digest = blobs.put(data)
    assert digest == digest_bytes(data)
    assert bytes(blobs.get(digest)) == data
    assert blobs.path(digest).read_bytes() == data
    blobs.verify(digest)


def test_storing_again_changes_nothing(blobs: Blobs) -> None:
    assert blobs.put(b"same") == blobs.put(b"same")
    assert list(blobs.digests()) == [digest_bytes(b"same")]


def test_all_that_is_stored_is_listed(blobs: Blobs) -> None:
    assert list(blobs.digests()) == []
    stored = {blobs.put(bytes([i])) for i in range(20)}
    assert set(blobs.digests()) == stored


def test_what_is_discarded_is_gone_and_its_size_is_told(blobs: Blobs) -> None:
    digest = blobs.put(b"four")
    assert blobs.discard(digest, 2**62) == 4
    assert not blobs.has(digest)
    assert blobs.discard(digest, 2**62) is None


def test_what_was_stored_again_since_is_not_discarded(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"x")
    assert blobs.discard(digest, 1) is None
    blobs.verify(digest)
    part = blobs.part()
    part.write(b"x")
    os.utime(tmp_path / digest[:2] / digest[2:], ns=(0, 0))
    assert part.keep()[0] == digest
    assert blobs.discard(digest, 1) is None, "to keep it again counts as storing it now"


@pytest.mark.parametrize("pieces", [0, 1, 3, 200])
def test_a_part_that_is_kept_again_is_the_same(blobs: Blobs, pieces: int) -> None:
    part, whole = blobs.part(), b"".join(bytes([i]) * 1000 for i in range(pieces))
    for i in range(pieces):
        part.write(bytes([i]) * 1000)
    assert part.keep() == part.keep() == (digest_bytes(whole), len(whole))
    part.discard()
    assert list(blobs.digests()) == [digest_bytes(whole)]
    assert blobs.get(digest_bytes(whole)) == whole


def test_a_view_cannot_be_written(blobs: Blobs) -> None:
    view = blobs.get(blobs.put(b"fixed"))
    assert view.readonly


def test_what_was_deleted_is_missing(blobs: Blobs) -> None:
    digest = blobs.put(b"gone soon")
    blobs.path(digest)
    view = blobs.get(digest)
    assert blobs.has(digest)
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.has(digest)
    assert bytes(view) == b"gone soon"  # what is open stays readable
    for read in (blobs.get, blobs.path, blobs.verify):
        with pytest.raises(MissingFile, match="is not stored"):
            read(digest)


@pytest.mark.parametrize("digest", [UNKNOWN, "", "../../etc/passwd", "..", "/etc/passwd", "ab/../../..", UNKNOWN.upper()])
def test_what_was_never_stored_is_missing_wherever_its_name_leads(blobs: Blobs, digest: str) -> None:
    assert not blobs.has(digest)
    for read in (blobs.get, blobs.path):
        with pytest.raises(MissingFile):
            read(digest)


def test_damage_in_a_file_is_found_by_all_that_read_it(tmp_path: Path) -> None:
    digest = FolderBlobs(tmp_path).put(b"x" * 1000)
    path = FolderBlobs(tmp_path).path(digest)
    for damaged in (b"x" * 999 + b"y", b"x" * 999, b""):
        path.write_bytes(damaged)
        blobs = FolderBlobs(tmp_path)  # as a process does that begins
        for read in (blobs.get, blobs.path, blobs.verify):
            with pytest.raises(Damaged, match="not what was written") as error:
                read(digest)
            assert error.value.where == str(path)
            assert "run again" in error.value.hint


def test_damage_that_comes_later_is_found_by_verify(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"sound")
    blobs.get(digest)
    blobs.path(digest).write_bytes(b"SOUND")
    for read in (blobs.verify, blobs.get):  # and is remembered
        with pytest.raises(Damaged):
            read(digest)


@pytest.mark.parametrize("damaged", [b"SOUND", b"sou", b""])
def test_storing_again_mends_a_damaged_file(tmp_path: Path, damaged: bytes) -> None:
    blobs = FolderBlobs(tmp_path)
    path = blobs.path(blobs.put(b"sound"))
    path.write_bytes(damaged)
    with path.open("rb") as reader:
        digest = blobs.put(b"sound")
        assert reader.read() == damaged  # replaced, not written over
    assert bytes(blobs.get(digest)) == b"sound"
    blobs.verify(digest)


@pytest.mark.parametrize("size", [5, 1 << 16, 1 << 17])
def test_sending_pieces_again_mends_a_damaged_file(tmp_path: Path, size: int) -> None:
    blobs, data = FolderBlobs(tmp_path), b"x" * size

    def sent() -> str:
        part = blobs.part()
        part.write(data)
        return part.keep()[0]

    path = blobs.path(sent())
    for damaged in (b"", data[1:], data + b"x", b"y" * size):
        path.write_bytes(damaged)
        blobs.verify(sent())


def test_what_another_machine_writes_is_swept_by_its_age_alone(tmp_path: Path) -> None:
    """A number of a process says nothing about processes elsewhere."""
    blobs = FolderBlobs(tmp_path)
    mine = blobs.part()
    mine.write(b"x" * (1 << 17))
    (own,) = tmp_path.iterdir()
    _, pid, host, _ = own.name.split("-")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".part-{pid}-elsewhere-a", f".part-{dead.pid}-elsewhere-b", f".part-{dead.pid}-elsewhere-c", f".part-{dead.pid}-{host}-d"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / names[2], (1, 1))
    blobs.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {own.name, *names[:2]}
    mine.discard()


def test_a_file_that_was_left_half_written_is_not_a_blob(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"whole")
    (blobs.path(digest).parent / ".part-killed").write_bytes(b"hal")
    assert list(blobs.digests()) == [digest]
    blobs.sweep()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [digest[2:]]


def test_sweeping_keeps_what_is_stored(blobs: Blobs) -> None:
    blobs.sweep()
    digest = blobs.put(b"kept")
    blobs.sweep()
    assert bytes(blobs.get(digest)) == b"kept"


def test_memory_forgets_with_its_object() -> None:
    digest = MemoryBlobs().put(b"x")
    assert not MemoryBlobs().has(digest)


def test_what_comes_in_pieces_and_shall_last_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, synced = FolderBlobs(tmp_path), list[tuple[bool, bool]]()
    whole = b"x" * 200_000
    place = tmp_path / digest_bytes(whole)[:2] / digest_bytes(whole)[2:]
    plain = os.fsync

    def fsync(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").is_dir(), place.exists()))
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(2):  # the second time it is there
        assert put_pieces(blobs, [whole[:150_000], memoryview(whole)[150_000:]]) == digest_bytes(whole)
    assert synced == [(False, False), (True, True)]
    place.write_bytes(b"damaged")
    put_pieces(blobs, [whole])
    assert len(synced) == 4
    part = blobs.part()
    part.write(b"small")
    part.keep()
    assert len(synced) == 4
    put_pieces(blobs, [b"small"])  # it lay there, but nobody had seen to it that it lasts
    assert len(synced) == 6
    blobs.verify(digest_bytes(whole))


def test_what_comes_in_pieces_can_be_read_by_other_users_and_counts_bytes(tmp_path: Path) -> None:
    blobs, before = FolderBlobs(tmp_path), os.umask(0o077)
    try:
        digest = put_pieces(blobs, [np.arange(20_000.0).data])
    finally:
        os.umask(before)
    assert digest == digest_bytes(np.arange(20_000.0).tobytes())
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o644
    blobs.verify(digest)
