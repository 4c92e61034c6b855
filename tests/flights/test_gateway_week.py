"""A day of flights, in torture a week, row by row through HTTP: what the batch path gives, bit by bit, offline and online."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette

from flights.conftest import ZONE, Flights
from tidemill import loop
from tidemill.core import instant, show
from tidemill.data import segments
from tidemill.features import MemoryOnline
from tidemill.ledger import Branch
from tidemill.monitoring import Skew
from tidemill.serving import AnswerLog, Endpoint, Gateway, gateway_routes, read_log, sample_answers
from tidemill.session.session import open_endpoint

MONDAY, DAY = instant("2013-04-08", ZONE), 86_400_000_000
Asked = list[tuple[int, dict[str, Any]]]


def app_of(endpoint: Endpoint, log: Path) -> Starlette:
    gateway = Gateway({"late": endpoint}, {"late": AnswerLog(log)}, lambda: MONDAY, True)
    return Starlette(routes=[*gateway_routes(gateway)])


SCOPE = {"type": "http", "method": "POST", "path": "/predict/late", "query_string": b"", "headers": [(b"host", b"tidemill")]}


async def ask_one_by_one(app: Starlette, bodies: Asked, before: Callable[[int], object]) -> list[dict[str, Any]]:
    """One HTTP request for each body; `before` is told its time first. (A client library takes longer than the gateway.)"""
    found, told = [], list[Any]()
    body = b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        told.append(message)

    for at, asked in bodies:
        before(at)
        told.clear()
        body = json.dumps(asked).encode()
        await app(dict(SCOPE), receive, send)
        answer = b"".join(one.get("body", b"") for one in told[1:])
        assert told[0]["status"] == 200, answer
        found += json.loads(answer)["predictions"]
    return found


@pytest.mark.parametrize("days", [1, pytest.param(7, marks=pytest.mark.torture)])
@pytest.mark.parametrize("kind", ["offline", "online"])
def test_row_by_row(year: Flights, spring: Branch, tmp_path: Path, kind: str, days: int) -> None:
    """Every request of those days, asked at its own time. The online store is brought up to that time first, as a live one is."""
    store = MemoryOnline()
    endpoint = open_endpoint(year.ledger, year.declared, spring, store if kind == "online" else None)
    first = endpoint.standing.previous or endpoint.standing.champion
    assert first[0] == "boosted/1", "the champion of that week"
    endpoint.standing, endpoint.timeout = replace(endpoint.standing, champion=first, previous=None), 10_000_000
    examples = year.built.examples
    rows = np.flatnonzero((examples.at >= MONDAY) & (examples.at < MONDAY + days * DAY)).tolist()
    assert len(rows) > 850 * days
    keys, times = examples.requests.keys, examples.at.tolist()
    bodies = [(times[row], {"rows": [{"flight_id": keys[row].decode()}], "at": show(times[row]), "explain": True}) for row in rows]
    before = endpoint.reader.materialise if kind == "online" else lambda at: None
    answers = asyncio.run(ask_one_by_one(app_of(endpoint, tmp_path / "late.jsonl"), bodies, before))

    scores: dict[bytes, float] = {}
    for _, segment in segments(year.ledger, spring.id, "late"):
        scores |= dict(zip(segment.keys.tolist(), segment.shadows["champion"][1].tolist(), strict=True))
    names, words = examples.matrix.names, examples.matrix.vocabularies
    for row, answer in zip(rows, answers, strict=True):
        values = examples.matrix.values[row].tolist()
        expected = {n: None if v != v else words[n][int(v)] if n in words else v for n, v in zip(names, values, strict=True)}
        assert answer["inputs"] == expected
        assert answer["probability"] == scores[keys[row]]
        assert (answer["rung"], answer["version"], answer["features_from"]) == ("champion", "boosted/1", kind)
        assert answer["features_missing"] == examples.matrix.problems(row)
    logged = list(read_log(tmp_path / "late.jsonl"))
    assert [one["key"] for one in logged] == [keys[row].decode() for row in rows]
    sample = sample_answers(tmp_path / "late.jsonl", spring.id, MONDAY, MONDAY + 1, len(rows))
    skew = loop.measure(year.ledger, spring.id, "late", sample, Skew()).found
    assert (skew.rows, skew.left_out, skew.over) == (len(rows), {}, ())
    assert all(one.equal == one.rows == len(rows) for one in skew.features), "computed again, it is the same to the bit"
