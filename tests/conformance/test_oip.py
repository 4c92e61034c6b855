"""A bare model and a deployment pass the conformance suite of the inference protocol, and clients in use speak to both unchanged."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.oip.cases import CASES
from conformance.oip.server import Server
from processes import started
from serving.test_oip import echo, sums
from tidemill.serving import messages
from toy import kept as kept

MESSAGES = Path(messages.__file__)
ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
CLIENTS = ["triton", "kserve_rest", "mlserver_codecs", "triton_grpc", "kserve_grpc", "mlserver_grpc"]
Target = tuple[Server, str, bool]  # over gRPC, and whether its models are loaded and unloaded
BOTH = ("--port", "0", "--grpc-port", "0", "--json")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A model of two tensors."""
    file = tmp_path_factory.mktemp("bare") / "sums.onnx"
    file.write_bytes(sums())
    with started("serve", str(file), *BOTH) as (_, said):
        yield Server(said["url"], "sums"), said["grpc"], True


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A model of texts."""
    file = tmp_path_factory.mktemp("texts") / "texts.onnx"
    file.write_bytes(echo("BYTES"))
    with started("serve", str(file), *BOTH) as (_, said):
        yield Server(said["url"], "texts"), said["grpc"], True


@pytest.fixture(scope="module")
def up(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A project with one deployment."""
    folder = shutil.copytree(kept, tmp_path_factory.mktemp("up") / "parcels")
    with started("-C", str(folder), "up", *BOTH) as (_, said):
        yield Server(said["url"], "late"), said["grpc"], False


@pytest.fixture
def everything(up: Target) -> Target:
    """A deployment that is sent all that its metadata say at once."""
    return up


@pytest.fixture
def matrix(up: Target) -> Target:
    """The matrix of features alone."""
    return replace(up[0], request={"inputs": up[0].request["inputs"][:1]}), *up[1:]


@pytest.fixture
def columns(up: Target) -> Target:
    """A tensor for each feature."""
    return replace(up[0], request={"inputs": up[0].request["inputs"][1:]}), *up[1:]


TARGETS = ["bare", "texts", "everything", "matrix", "columns"]


@pytest.mark.parametrize("name", TARGETS)
def test_every_case_of_the_suite_holds(name: str, request: pytest.FixtureRequest) -> None:
    server, _, _ = request.getfixturevalue(name)
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
    home, _, way = client.partition("_")
    python = ROOT / ".venv-protocol" / home / "bin" / "python"
    if not (python.parents[1] / ".ready").exists():
        assert not os.environ.get("CI"), f"{python} is missing: `make test` installs it"
        pytest.skip(f"the client of {home} is not installed: `make test` installs it into .venv-protocol")
    found = [request.getfixturevalue(name) for name in ("bare", "matrix", "columns")]
    lines = [
        {
            "url": grpc if way == "grpc" else server.url,
            "model": server.model,
            "inputs": server.request["inputs"],
            "outputs": server.expected,
            "loads": loads,
        }
        for server, grpc, loads in found
    ]
    call = [python, HERE / "oip" / "clients" / f"{client}.py", MESSAGES]
    said = subprocess.run(call, input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, timeout=120, check=False)
    assert (said.returncode, said.stdout) == (0, "fine\n"), said.stderr[-3_000:]


@pytest.mark.parametrize("name", ["bare", "columns"])
def test_curl_needs_no_content_type(name: str, request: pytest.FixtureRequest) -> None:
    server, _, _ = request.getfixturevalue(name)
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
