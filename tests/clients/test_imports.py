"""What MLflow's own client reads of a store, it reads of a project after an import: from a folder, a SQLite file, another server."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from clients.conftest import At
from disks import unpacked
from postgres import new_schema
from processes import served
from tidemill import project, registry

HERE = Path(__file__).parent
MODULE = "import_scenarios"
SOURCES = {"folder": "mlruns", "sqlite": "db/mlflow.db"}
SCENARIOS = {"folder": "the_folder_reads_as_before", "sqlite": "the_sqlite_file_reads_as_before"}


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stores, which is not where they were made."""
    folder = tmp_path_factory.mktemp("stores")
    unpacked(HERE / "stores" / "stores.tar.xz", folder)
    return folder


def take(home: Path, source: str) -> dict[str, dict[str, int]]:
    """The result of `tidemill import` as a process."""
    call = [sys.executable, "-c", "from tidemill.cli import main; main()", "-C", str(home), "import", source, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(("store", "into"), [("folder", "sqlite"), ("sqlite", "postgres")])
def test_the_real_client_reads_what_it_read_before(client_at: At, stores: Path, tmp_path: Path, store: str, into: str) -> None:
    with new_schema() if into == "postgres" else nullcontext("") as address:
        if address:
            (tmp_path / "two").mkdir()
            (tmp_path / "two" / "tidemill.toml").write_text(f'[project]\nname = "two"\n[store]\nrecords = "{address}"\n')
        _takes_twice(client_at, stores, tmp_path, store)


def _takes_twice(client_at: At, stores: Path, tmp_path: Path, store: str) -> None:
    first = take(tmp_path / "one", str(stores / SOURCES[store]))
    assert first["new"]["runs"] == 5
    with served("server", "--home", str(tmp_path / "one"), "--port", "0", "--json") as (_, url):
        client_at(MODULE, SCENARIOS[store], url)
        again = take(tmp_path / "two", url)
        assert again["new"]["values"] == first["new"]["values"]
    with served("server", "--home", str(tmp_path / "two"), "--port", "0", "--json") as (_, url):
        client_at(MODULE, SCENARIOS[store], url)


def test_the_loops_versions_on_another_server_come_with_their_files(kept: Path, tmp_path: Path) -> None:
    home = shutil.copytree(kept, tmp_path / "parcels")
    with served("server", "--home", str(home), "--port", "0", "--json") as (_, url):
        assert take(tmp_path / "two", url)["new"]["versions"] == 5
        assert take(tmp_path / "two", url)["new"] == {}
    ledger = project.find(tmp_path / "two").ledger()
    names = [set(registry.export(ledger, "trees", str(number), tmp_path / str(number))) for number in range(1, 6)]
    ledger.records.close()
    assert all({"MLmodel", "model.onnx"} <= one for one in names)
