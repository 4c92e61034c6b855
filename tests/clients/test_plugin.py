"""MLflow's own client with our plugin: the scheme `tidemill` is an embedded project, written to without a server."""

from pathlib import Path

import pytest

from clients.conftest import At
from clients.test_client import NAMES
from tidemill import project


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "a home"


@pytest.mark.parametrize("scenario", [name for name in NAMES if name != "what_is_wrong_gets_its_code"])  # that one speaks HTTP itself
def test_the_real_client_needs_no_server(plugin_at: At, home: Path, scenario: str) -> None:
    plugin_at("scenarios", scenario, f"tidemill://{home}".replace(" ", "%20"))


def test_what_the_client_wrote_is_in_the_project(home: Path) -> None:
    ledger = project.find(home).ledger(read_only=True)
    assert len(ledger.executions(kind="run")) > 20
    ledger.records.close()
