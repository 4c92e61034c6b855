"""MLflow's own client against the tracking server: everything that it offers for runs, metrics, artifacts, models and versions."""

import ast
from pathlib import Path

import pytest

from clients.conftest import Run

FILE = Path(__file__).with_name("scenarios.py")
NAMES = [one.name for one in ast.parse(FILE.read_text()).body if isinstance(one, ast.FunctionDef) and not one.name.startswith(("_", "run"))]


@pytest.mark.parametrize("scenario", NAMES)
def test_the_real_client(client: Run, scenario: str) -> None:
    client(scenario)
