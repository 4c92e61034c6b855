"""What `/openapi.json` says is what the servers do: schemathesis makes requests of it, right and wrong ones, and compares the answers."""

import os
import subprocess
from pathlib import Path

import pytest

from conformance.test_oip import ROOT
from conformance.test_oip import bare as bare
from conformance.test_oip import up as up
from toy import kept as kept

TOOL = ROOT / ".venv-protocol" / "schemathesis" / "bin" / "schemathesis"
# A row may fit its schema and ask for what there is not; a model that was unloaded answers 503, and that is all that could be seen.
LEFT_OUT = ["--exclude-checks", "positive_data_acceptance", "--exclude-path-regex", "load$"]


@pytest.mark.parametrize("phases", ["examples,coverage", pytest.param("fuzzing", marks=pytest.mark.torture)])
@pytest.mark.parametrize("name", ["bare", "up"])
def test_every_operation_answers_as_it_is_documented(name: str, phases: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not (TOOL.parents[1] / ".ready").exists():
        assert not os.environ.get("CI"), f"{TOOL} is missing: `make test` installs it"
        pytest.skip("schemathesis is not installed: `make test` installs it into .venv-protocol")
    url = request.getfixturevalue(name)[0].url
    call = [TOOL, "run", f"{url}/openapi.json", "--phases", phases, "-n", "5", "--seed", "1", *LEFT_OUT]
    said = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert said.returncode == 0, said.stdout[-6_000:]
    assert " passed" in said.stdout
