"""MLflow's own client with our plugin: the scheme `tidemill` is an embedded project, written to without a server."""

from pathlib import Path

import pytest

from clients.conftest import At
from clients.test_client import NAMES
from tidemill import project


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "a home"


OVER_HTTP = {"what_is_wrong_gets_its_code", "large_files_go_up_in_parts"}
SLOW = {"autologging_of_lightgbm_and_xgboost"}  # the same calls as scikit-learn's


@pytest.mark.parametrize("scenario", [name for name in NAMES if name not in OVER_HTTP | SLOW])
def test_the_real_client_needs_no_server(plugin_at: At, home: Path, scenario: str) -> None:
    plugin_at("scenarios", scenario, f"tidemill://{home}".replace(" ", "%20"))


def test_what_the_client_wrote_is_in_the_project(plugin_at: At, tmp_path: Path) -> None:
    plugin_at("scenarios", "a_run_with_everything", f"tidemill://{tmp_path / 'home'}")
    ledger = project.find(tmp_path / "home").ledger(read_only=True)
    assert [one.status for one in ledger.executions(kind="run")] == ["finished"]
    ledger.records.close()
