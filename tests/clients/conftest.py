"""A tracking server of ours, and MLflow's own client in an environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import tidemill
from postgres import new_schema
from processes import served
from toy import kept as kept

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / ".venv-mlflow" / "bin" / "python"
Run = Callable[[str], None]
At = Callable[[str, str, str], None]


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server over a new project, its records in a file or in PostgreSQL."""
    home = tmp_path_factory.mktemp("tracking") / "home"
    with new_schema() if request.param == "postgres" else nullcontext("") as address:
        if address:
            home.mkdir()
            (home / "tidemill.toml").write_text(f'[project]\nname = "tracking"\n[store]\nrecords = "{address}"\n')
        with served("server", "--home", str(home), "--port", "0", "--json") as (_, url):
            yield url


@pytest.fixture(scope="session")
def client_at() -> Iterator[At]:
    """Runs a scenario of a module against a server with the real client; an assertion that fails there fails here."""
    yield from worker(client_python())


@pytest.fixture(scope="session")
def plugin_at() -> Iterator[At]:
    """The same where Tidemill is installed beside the client: its plugin is there, and what the client's environment lacks."""
    places = [str(Path(tidemill.__file__).parents[1]), *(path for path in sys.path if path.endswith("-packages"))]
    yield from worker(client_python(), *places)


def client_python() -> Path:
    """The Python of the client's environment; skips the test where it is not there."""
    if not CLIENT.exists():
        assert not os.environ.get("CI"), f"{CLIENT} is missing: `make test` installs it"
        pytest.skip("MLflow's client is not installed: `make test` installs it into .venv-mlflow")
    return CLIENT


def worker(python: Path, *places: str) -> Iterator[At]:
    """A process that runs scenarios in an environment with the client."""
    process = subprocess.Popen(
        [str(python), str(Path(__file__).with_name("worker.py")), *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def run(module: str, scenario: str, uri: str) -> None:
        stdin.write(json.dumps({"module": module, "scenario": scenario, "uri": uri}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        assert not answer["error"], answer["error"]

    yield run
    stdin.close()
    process.wait(30)


@pytest.fixture
def client(client_at: At, server: str) -> Run:
    """Runs a scenario with the real client against a new project."""
    return lambda scenario: client_at("scenarios", scenario, server)
