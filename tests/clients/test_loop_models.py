"""MLflow's own client against a project in which the loop has run: its versions are registered models like any other."""

import ast
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from clients.conftest import At
from postgres import move_records, new_schema
from processes import served

MODULE = "loop_scenarios"
FILE = Path(__file__).with_name(f"{MODULE}.py")
NAMES = [one.name for one in ast.parse(FILE.read_text()).body if isinstance(one, ast.FunctionDef)]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def replayed_server(request: pytest.FixtureRequest, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server over a copy of the toy project, its records in a file or in PostgreSQL."""
    home = shutil.copytree(kept, tmp_path_factory.mktemp("loop") / "parcels")
    with new_schema() if request.param == "postgres" else nullcontext("") as address:
        if address:
            move_records(home, address)
        with served("server", "--home", str(home), "--port", "0", "--json") as (_, url):
            yield url


@pytest.mark.parametrize("scenario", NAMES)
def test_the_real_client_sees_the_loops_models(client_at: At, replayed_server: str, scenario: str) -> None:
    client_at(MODULE, scenario, replayed_server)
