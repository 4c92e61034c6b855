"""Several processes at the same things at once: names and numbers are given once, and nothing is lost. In a file and in a database."""

import asyncio
import json
from collections.abc import MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from processes import several
from tidemill import registry
from tidemill.ledger import Ledger
from tidemill.registry import registered
from tidemill.store import MemoryBlobs, Records
from tidemill.tracking import prepare
from tidemill.tracking.experiments import get_experiment_by_name
from tidemill.tracking.metrics import history
from tidemill.tracking.runs import create_run, get_run
from tidemill.web.tracking import tracking_app

API = "/api/2.0/mlflow"

TIMES, ROUNDS = 4, 12
RACE = """
import json, sys
from collections import Counter
from pathlib import Path
from tidemill import registry, tracking
from tidemill.core import Busy, DataError, Taken
from tidemill.ledger import Artifact, Ledger, Made
from tidemill.core import Ref
from tidemill.registry import aliases, models, registered
from tidemill.store import MemoryBlobs, Records
from tidemill.tracking import experiments, runs
from tidemill.tracking.values import Metric, Pair

place, run, rounds, me = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
ledger = Ledger(Records(place), MemoryBlobs(), lambda: 5)
won = Counter()
print("ready"); input()
for i in range(rounds):
    try:
        experiments.create_experiment(ledger, f"experiment {i}", tags=[Pair("of", me)])
        won["experiment"] += 1
    except Taken:
        pass
    try:
        models.create_model(ledger, f"model {i}")
        won["model"] += 1
    except Taken:
        pass
    number = registered.create_version(ledger, f"model {i}", "s3://somewhere").version
    aliases.set_alias(ledger, f"model {i}", "newest", number, who=me)
    try:
        runs.log_param(ledger, run, Pair(f"p{i}", me))
        won["param"] += 1
    except DataError:
        pass
    names = [f"m{j}" for j in range(i, i + 3)]
    runs.log_batch(ledger, run, [Metric(name, i, i, 1000 * int(me) + i) for name in (names if int(me) % 2 else names[::-1])], [], [])
    branch = ledger.open_branch("live", "one", {})
    with ledger.records.begin() as connection:
        ledger.decide(connection, branch.id, at=i, who=me, kind="k", subject="s", why="w", evidence={})
    while True:
        state = ledger.branch(branch.id).state
        try:
            with ledger.records.begin() as connection:
                ledger.save_branch(connection, branch.id, state, {"n": state.get("n", 0) + 1})
            break
        except Busy:
            won["lost"] += 1
    made = Artifact(Ref.of("thing", "same", f"{i:040d}"), {})
    won["once"] += ledger.once("step", "same", {"i": i}, lambda: Made({"it": made})).output.ref == made.ref
print(json.dumps(won))
"""


@pytest.fixture
def ledger(place: Path | str) -> Ledger:
    records = Records(place)
    ledger = Ledger(records, MemoryBlobs(), count().__next__)
    prepare(ledger)
    records.ensure(registry.tables)
    return ledger


def test_a_request_that_waits_for_another_writer_keeps_nobody_waiting(ledger: Ledger, place: Path | str) -> None:
    run = create_run(ledger, "0").info.run_id
    app = tracking_app(ledger)
    tag = f'{{"run_id": "{run}", "key": "k", "value": "v"}}'.encode()
    other = Records(place)

    async def ask(method: str, path: str, query: str = "", body: bytes = b"") -> dict[str, Any]:
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            told.append(dict(message))

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": []}
        await app(scope, receive, send)
        assert told[0]["status"] == 200, told
        return dict(json.loads(told[1]["body"] or b"{}"))

    async def talk() -> None:
        file = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/f"
        with other.transaction():
            waiting = [asyncio.create_task(ask("POST", f"{API}/runs/set-tag", body=tag)), asyncio.create_task(ask("PUT", file, body=b"x"))]
            await asyncio.sleep(0)  # they have begun
            found = await ask("GET", f"{API}/runs/get", f"run_id={run}")  # this would never come: the transaction ends after it
            assert "k" not in {one["key"] for one in found["run"]["data"].get("tags", [])}
            assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting)
        found = await ask("GET", f"{API}/runs/get", f"run_id={run}")
        assert {"key": "k", "value": "v"} in found["run"]["data"]["tags"]

    asyncio.run(talk())
    other.close()
    ledger.records.close()


def test_several_processes_at_the_same_things(ledger: Ledger, place: Path | str) -> None:
    run = create_run(ledger, "0").info.run_id
    with several(RACE, place, run, ROUNDS, times=TIMES) as others:
        for one in others:
            assert one.says() == "ready"
        for one in others:
            one.go_on()
        told = [json.loads(one.says()) for one in others]
    for what in ("experiment", "model", "param"):
        assert sum(one.get(what, 0) for one in told) == ROUNDS, what
    assert all(one["once"] == ROUNDS for one in told)
    for i in range(ROUNDS):
        assert len(get_experiment_by_name(ledger, f"experiment {i}").tags or ()) == 1
        found, _ = registered.search_versions(ledger, f"name = 'model {i}'")
        assert sorted(int(one.version) for one in found) == list(range(1, TIMES + 1))
        assert sum(one.aliases == ["newest"] for one in found) == 1
    logged = [point for j in range(ROUNDS + 2) for point in history(ledger, run, f"m{j}")[0]]
    assert len(logged) == TIMES * ROUNDS * 3
    assert len(get_run(ledger, run).data.params or ()) == ROUNDS
    assert ledger.verify_decisions() == TIMES * ROUNDS
    branch = ledger.branch("live-one")
    assert branch is not None
    assert branch.state == {"n": TIMES * ROUNDS}
    ledger.records.close()
