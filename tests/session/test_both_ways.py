"""Lineage both ways: what a version came from, and what was made from a thing, down to deployments and monitors."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidemill
from postgres import move_records, new_schema
from tidemill import loop, project
from tidemill.ledger import Node
from tidemill.registry.aliases import set_alias
from tidemill.registry.models import create_model
from tidemill.registry.registered import create_version
from tidemill.tracking.runs import create_run, log_inputs
from tidemill.tracking.values import Dataset, DatasetInput


def told(node: Node) -> Iterator[tuple[str, str]]:
    """Role and ref of a thing and of all below it."""
    yield node.role, str(node.ref)
    for below in node.parents:
        yield from told(below)


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, kept: Path, tmp_path: Path) -> Iterator[Path]:
    """The project with its replay, its records in a file or in PostgreSQL."""
    if request.param == "sqlite":
        yield kept
        return
    with new_schema() as address:
        folder = shutil.copytree(kept, tmp_path / "parcels")
        move_records(folder, address)
        yield folder


def test_the_way_forward_ends_at_deployments_and_monitors(either: Path) -> None:
    session = tidemill.open(either)
    found = list(told(session.lineage("dataset:deliveries", forward=True)))
    assert found[0][1].startswith("dataset:deliveries@")
    versions = [(role, ref) for role, ref in found if role.startswith("version")]
    assert sorted(ref for _, ref in versions) == [f"model:trees@{n}" for n in (1, 2, 3, 4, 5)]
    assert {role for role, ref in versions if ref.endswith("@3")} == {"version, refused by the gates"}
    deployments = [role for role, ref in found if ref.startswith("deployment:late@")]
    assert sorted(deployments) == ["champion before", "champion before", "champion since 2024-04-20T04:00:00Z"]
    assert found.count(("watched every 4d by", "monitor:late")) == 3
    assert len([ref for _, ref in found if ref.startswith("training set:")]) == 8, "each is expanded once"


def test_a_version_goes_back_and_forward_by_any_of_its_names(kept: Path) -> None:
    session = tidemill.open(kept)
    back = [list(told(session.lineage(name))) for name in ("trees/4", "models:/trees/4", "models:/trees@champion")]
    assert back[0] == back[1] == back[2]
    assert any(ref.startswith("source:parcels.csv@") for _, ref in back[0])
    forward = list(told(session.lineage("trees/4", forward=True)))
    assert [ref.partition("@")[0] for _, ref in forward] == ["model:trees", "model:trees", "deployment:late", "monitor:late"]


def test_a_clients_version_goes_back_to_its_run(kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept, tmp_path / "parcels")
    with project.find(folder).writing("test") as ledger:
        loop.prepare(ledger)
        run = create_run(ledger, "0", name="by hand").info.run_id
        log_inputs(ledger, run, [DatasetInput(Dataset("rows", "abc"))])
        create_model(ledger, "mine")
        create_version(ledger, "mine", f"runs:/{run}/model", run_id=run)
        set_alias(ledger, "mine", "best", "1")
    session = tidemill.open(folder)
    assert [ref for _, ref in told(session.lineage("models:/mine@best"))] == [
        "registered model:mine@1",
        f"run:by hand@{run}",
        "dataset:rows@abc",
    ]
    assert [ref for _, ref in told(session.lineage("models:/mine/1", forward=True))] == ["registered model:mine@1", "alias:mine@best"]
