"""A bare model and a deployment pass the conformance suite of the inference protocol, and clients in use speak to both unchanged."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.oip.cases import CASES
from conformance.oip.server import Server
from processes import served
from serving.test_oip import echo, sums
from toy import kept as kept

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
CLIENTS = {"triton": "triton", "kserve": "kserve_rest", "mlserver": "mlserver_codecs"}
Target = tuple[Server, bool]  # whether its models are loaded and unloaded


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A model of two tensors."""
    file = tmp_path_factory.mktemp("bare") / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (_, url):
        yield Server(url, "sums"), True


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A model of texts."""
    file = tmp_path_factory.mktemp("texts") / "texts.onnx"
    file.write_bytes(echo("BYTES"))
    with served("serve", str(file), "--port", "0", "--json") as (_, url):
        yield Server(url, "texts"), True


@pytest.fixture(scope="module")
def up(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a project with one deployment."""
    folder = shutil.copytree(kept, tmp_path_factory.mktemp("up") / "parcels")
    with served("-C", str(folder), "up", "--port", "0", "--json") as (_, url):
        yield url


@pytest.fixture
def everything(up: str) -> Target:
    """A deployment that is sent all that its metadata say at once."""
    return Server(up, "late"), False


@pytest.fixture
def matrix(up: str) -> Target:
    """The matrix of features alone."""
    whole = Server(up, "late")
    return Server(up, "late", {"inputs": whole.request["inputs"][:1]}), False


@pytest.fixture
def columns(up: str) -> Target:
    """A tensor for each feature."""
    whole = Server(up, "late")
    return Server(up, "late", {"inputs": whole.request["inputs"][1:]}), False


TARGETS = ["bare", "texts", "everything", "matrix", "columns"]


@pytest.mark.parametrize("name", TARGETS)
def test_every_case_of_the_suite_holds(name: str, request: pytest.FixtureRequest) -> None:
    server, _ = request.getfixturevalue(name)
    failed = list[str]()
    for one in CASES:
        try:
            one.check(server)
        except Exception as error:  # noqa: BLE001 – the first does not hide the others
            failed.append(f"{one}: {type(error).__name__} {error}"[:500])
    assert not failed
    assert len(CASES) > 100


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_in_use_speaks_to_bare_models_and_deployments(client: str, request: pytest.FixtureRequest) -> None:
    python = ROOT / ".venv-protocol" / client / "bin" / "python"
    if not (python.parents[1] / ".ready").exists():
        assert not os.environ.get("CI"), f"{python} is missing: `make test` installs it"
        pytest.skip(f"the client of {client} is not installed: `make test` installs it into .venv-protocol")
    found = [request.getfixturevalue(name) for name in ("bare", "matrix", "columns")]
    lines = [
        {"url": server.url, "model": server.model, "inputs": server.request["inputs"], "outputs": server.expected, "loads": loads}
        for server, loads in found
    ]
    script = HERE / "oip" / "clients" / f"{CLIENTS[client]}.py"
    said = subprocess.run(
        [python, script], input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, timeout=120, check=False
    )
    assert (said.returncode, said.stdout) == (0, "fine\n"), said.stderr[-3_000:]


@pytest.mark.parametrize("name", ["bare", "columns"])
def test_curl_needs_no_content_type(name: str, request: pytest.FixtureRequest) -> None:
    server, _ = request.getfixturevalue(name)
    call = ["curl", "-s", f"{server.url}{server.path}/infer", "-d", json.dumps(server.request)]
    for more in ([], ["-H", "Content-Type:"], ["--compressed"]):
        said = subprocess.run([*call, *more], capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(said.stdout)["outputs"] == server.expected


def test_the_suite_is_a_command_that_tells_what_fails(bare: Target) -> None:
    call = [sys.executable, str(HERE / "oip"), bare[0].url]
    said = subprocess.run([*call, "sums"], capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout.count("FAILED"), "MUST passed" in said.stdout) == (0, 0, True), said.stdout
    broken = subprocess.run([*call, "nobody-knows-it"], capture_output=True, text=True, timeout=60, check=False)
    assert broken.returncode == 1
