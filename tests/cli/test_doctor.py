"""`tidemill doctor` beside a writer and on a full disk, where nothing of the project is wrong."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from cli.conftest import Command
from disks import small_disk
from tidemill import project
from tidemill.data import logged
from tidemill.features import LmdbOnline


def test_doctor_tells_a_writer_of_now_from_one_that_was(tidemill: Command, copied: Path) -> None:
    assert "last held by process" in tidemill("doctor", folder=copied).stdout
    with project.find(copied).writing("sweep"):
        assert f"held now by process {os.getpid()} (sweep)" in tidemill("doctor", folder=copied).stdout


def test_on_a_full_or_read_only_disk_reading_works_and_doctor_finds_the_disk_alone(tidemill: Command, kept: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "128m") as disk:
        folder = shutil.copytree(kept, disk / "parcels")
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(2**16))
        for command in ("status", "lineage late"):
            found = tidemill(*command.split(), folder=folder)
            assert found.returncode == 0, found.stderr
        found = tidemill("doctor", "--json", folder=folder)
        assert [one["check"] for one in json.loads(found.stdout) if not one["ok"]] == ["disk"]
        assert "the disk is full" in found.stdout
        (disk / "filler").unlink()
        assert " MiB free" in tidemill("doctor", folder=folder).stdout
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        found = tidemill("doctor", "--json", folder=folder)
        assert [one["check"] for one in json.loads(found.stdout) if not one["ok"]] == ["disk"]
        assert "nothing can be written here" in found.stdout


def test_doctor_finds_lost_answers_and_a_replay_gives_them_again(tidemill: Command, copied: Path) -> None:
    with project.find(copied).writing("test") as ledger:
        (branch,) = ledger.branches("replay")
        ledger.blobs.delete(logged(ledger, branch.id)[3].digest)
    found = tidemill("doctor", "--json", folder=copied)
    assert [one["check"] for one in json.loads(found.stdout) if not one["ok"]] == ["answers"]
    assert "`tidemill replay` gives those of a replay again" in found.stdout
    assert tidemill("replay", folder=copied).returncode == 0
    assert tidemill("doctor", folder=copied).returncode == 0


def test_doctor_finds_a_damaged_online_store(tidemill: Command, copied: Path) -> None:
    assert "none yet" in tidemill("doctor", folder=copied).stdout
    store = project.find(copied).state / "online"
    online = LmdbOnline(store)
    online.update("a" * 40, [], lambda *_: (b"mark", {"x": bytes(10_000)}))
    online.close()
    assert tidemill("doctor", folder=copied).returncode == 0
    data = bytearray((store / "data.mdb").read_bytes())
    data[8392::997] = bytes(byte ^ 0xFF for byte in data[8392::997])
    (store / "data.mdb").write_bytes(data)
    found = tidemill("doctor", "--json", folder=copied)
    assert [one["check"] for one in json.loads(found.stdout) if not one["ok"]] == ["online store"]
    assert "makes it anew" in found.stdout
