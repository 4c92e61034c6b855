"""Whatever comes in is answered by a status of the protocol: no request ends in an error that nobody thought of."""

import asyncio
import json
import re
import struct
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postgres import new_schema
from tidemill import registry, tracking
from tidemill.core import Call, Damaged, DataError, Refused
from tidemill.ledger import Ledger
from tidemill.registry import web as registry_web
from tidemill.store import MemoryBlobs, Records
from tidemill.tracking import Shipment, ingest, write_token
from tidemill.tracking import web as tracking_web
from tidemill.tracking.runs import create_run
from tidemill.tracking.segment import MAGIC, Head
from tidemill.web.tracking import protocol, tracking_app

pytestmark = pytest.mark.torture
CALLS = [*tracking_web.CALLS, *registry_web.CALLS]
KNOWN = {200, 400, 403, 404}
ODD = [
    "",
    "0",
    "a",
    "..",
    "../x",
    "a/b",
    "a\0b",
    "\udc80",
    "ä" * 300,
    "x" * 9000,
    "metrics.m > 1",
    "m = 'a' AND",
    "'",
    "%",
    "NaN",
    "1e999",
    "-1",
]
texts = st.sampled_from(ODD) | st.text(max_size=20)
numbers = st.integers() | st.sampled_from([2**63 - 1, 2**63, -(2**63) - 1, 10**30]) | st.floats(allow_nan=False, allow_infinity=False)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    def over(place: str | None) -> Ledger:
        made = Ledger(Records(place), MemoryBlobs(), count(1_000_000).__next__)
        tracking.prepare(made)
        made.records.ensure(registry.tables)
        return made

    if request.param == "memory":
        yield over(None)
    else:
        with new_schema() as address:
            yield (made := over(address))
            made.records.close()


FILTERS = [
    "metrics.m > 1",
    "params.`a b` LIKE '%x'",
    "tags.k IS NULL",
    "attributes.start_time > 0 AND status = 'FINISHED'",
    "name = 'm'",
    "trace.x = 'y'",
]
ORDERS = ["metrics.m DESC", "params.k", "attributes.start_time ASC", "name", "timestamp_ms DESC", "tags.k", "creation_time"]
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "experiment_id": st.just("0"),
    "experiment_ids": st.just(["0"]),
    "name": st.sampled_from(["m", "new"]),
    "version": st.just("1"),
    "key": st.sampled_from(["k", "m"]),
    "metric_key": st.just("m"),
    "filter": st.sampled_from(FILTERS),
    "order_by": st.lists(st.sampled_from(ORDERS), max_size=2),
    "max_results": st.integers(1, 3),
    "page_token": st.lists(st.sampled_from([True, False, None, 0, 1, -1, 2**63, 0.5, "", "x"]), max_size=5).map(write_token),
    "timestamp": st.integers(0, 10**13),
    "step": st.integers(0, 9),
    "stage": st.sampled_from(["Staging", "production", "None"]),
    "status": st.sampled_from(["FINISHED", "LOGGED_MODEL_READY", "RUNNING"]),
    "path": st.sampled_from(["", "a", "a/b"]),
    "source": st.just("s3://somewhere"),
}


def often(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The one, and now and then the other."""
    return st.sampled_from([good] * 12 + [odd]).flatmap(lambda chosen: chosen)


def fits(name: str, kind: Any, known: dict[str, str]) -> st.SearchStrategy[Any]:
    """Values of a field of a request: most are of its type, and name what is there."""
    if name in known:
        return often(st.just(known[name]), texts | plain)
    if name in GOOD:
        return often(GOOD[name], texts | numbers | plain)
    if isinstance(kind, msgspec.inspect.StructType):
        return of_struct(kind.fields, known)
    if isinstance(kind, msgspec.inspect.ListType):
        return often(st.lists(fits("", kind.item_type, known), max_size=3), plain)
    if isinstance(kind, msgspec.inspect.UnionType):
        return st.one_of([fits("", one, known) for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)])
    found: dict[type, st.SearchStrategy[Any]] = {msgspec.inspect.IntType: numbers, msgspec.inspect.FloatType: numbers}
    return often(found.get(type(kind), texts), plain)


def of_struct(fields: Any, known: dict[str, str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have most of their fields."""
    chances = [st.tuples(st.just(one.encode_name), fits(one.encode_name, one.type, known), st.integers(0, 5)) for one in fields]
    return st.tuples(*chances).map(lambda found: {name: value for name, value, chance in found if chance})


@pytest.fixture
def known(ledger: Ledger) -> dict[str, str]:
    """Ids of what is there: a run, a registered version, a logged model, a trace."""
    server = protocol(ledger)

    def ask(path: str, **body: Any) -> Any:
        status, told = server.ask("POST", path, "", json.dumps(body).encode())
        assert status == 200, told
        return json.loads(told)

    run = create_run(ledger, "0").info.run_id
    ask("/api/2.0/mlflow/registered-models/create", name="m")
    ask("/api/2.0/mlflow/model-versions/create", name="m", source="s3://somewhere/m")
    model = ask("/api/2.0/mlflow/logged-models", experiment_id="0", name="l")["model"]["info"]["model_id"]
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    trace = {"trace_id": "tr-1", "trace_location": place, "request_time": "2024-01-01T00:00:00Z", "state": "OK"}
    ask("/api/3.0/mlflow/traces", trace={"trace_info": trace})
    return {"run_id": run, "run_uuid": run, "model_id": model, "trace_id": "tr-1", "request_id": "tr-1"}


@pytest.mark.parametrize("call", CALLS, ids=[f"{one.method} {one.path}" for one in CALLS])
def test_any_request_has_an_answer_of_the_protocol(ledger: Ledger, known: dict[str, str], call: Call) -> None:
    server = protocol(ledger)
    fields = msgspec.inspect.type_info(call.ask).fields  # type: ignore[attr-defined]
    parts = re.findall(r"\{(\w+)\}", call.path)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(of_struct(fields, known), st.tuples(*(fits(part, None, known) for part in parts)))
    def any_request(asked: dict[str, Any], found: tuple[Any, ...]) -> None:
        path = call.path
        for part, value in zip(parts, found, strict=True):
            path = path.replace(f"{{{part}}}", quote(str(value), safe="", errors="replace") or "x")
        query = urlencode(asked, doseq=True, errors="replace")
        status, told = server.ask(call.method, path, query, json.dumps(asked).encode())
        assert status in KNOWN, (asked, told)
        assert status == 200 or {"error_code", "message"} <= json.loads(told).keys()

    any_request()


async def _asked(app: Any, method: str, path: bytes, query: bytes, body: bytes) -> int:
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        told.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"range", query[:20])]
    scope = {
        "type": "http",
        "method": method,
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
    }
    await app(scope, receive, send)
    return int(told[0]["status"])


PLACES = [
    b"/api/2.0/mlflow-artifacts/artifacts",
    b"/api/2.0/mlflow-artifacts/mpu/create",
    b"/api/2.0/mlflow-artifacts/parts/u",
    b"/get-artifact",
]
PLACES += [
    b"/api/2.0/mlflow-artifacts/mpu/complete",
    b"/api/2.0/mlflow-artifacts/presigned",
    b"/model-versions/get-artifact",
    b"/api/tidemill/segments",
]


def test_any_bytes_have_an_answer(ledger: Ledger) -> None:
    app = tracking_app(ledger)
    methods = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"])
    tails = st.binary(max_size=20) | st.sampled_from([b"%2e%2e/x", b"a/b", b"%00", b"%ff", b"a%2fb", b".", b"//"])
    queries = st.binary(max_size=20) | st.sampled_from([b"path=..", b"run_id=x&path=a", b"path=%ff", b"bytes=0-", b"bytes=9-1"])

    @settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(methods, st.sampled_from(PLACES), tails, queries, st.binary(max_size=30) | plain.map(lambda one: json.dumps(one).encode()))
    def any_bytes(method: str, place: bytes, tail: bytes, query: bytes, body: bytes) -> None:
        status = asyncio.run(_asked(app, method, place + b"/" + tail, query, body))
        assert status in {*KNOWN, 206, 405, 416}

    any_bytes()


def _frame(kind: int, text: bytes) -> bytes:
    return struct.pack("<BxxxII", kind, len(text), zlib.crc32(text)) + text


LOGS = ["head", "params", "tags", "input", "captured", "file", "end", "odd"]
FIELDS = [
    "run",
    "to",
    "at",
    "values",
    "name",
    "digest",
    "source",
    "type",
    "context",
    "ref",
    "tags",
    "environment",
    "seeds",
    "diff",
    "status",
    "error",
]
events = st.dictionaries(st.sampled_from(FIELDS), plain | st.dictionaries(texts, texts, max_size=3), max_size=12)
frames = st.builds(lambda log, event: _frame(3, json.dumps({"log": log, **event}).encode()), st.sampled_from(LOGS), events)
names = st.builds(lambda number, text: _frame(2, json.dumps([number, text]).encode()), st.integers(-1, 3), texts)
points = st.builds(
    struct.Struct("<BxxxIqqd").pack,
    st.just(1),
    st.integers(0, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
)


def test_any_stretch_of_a_segment_is_taken_in_whole_or_refused(ledger: Ledger, tmp_path: Path) -> None:
    number = count()

    @settings(max_examples=1_500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(frames | names | points | st.binary(max_size=40), max_size=6), texts, texts, texts)
    def any_stretch(parts: list[bytes], experiment: str, name: str, who: str) -> None:
        head = Head(f"run{next(number)}", "here", 5, experiment, name, who)
        data = MAGIC + b"".join(parts)
        try:
            receipt = ingest(ledger, Shipment(f"s{next(number)}", head, 0), data)
        except (DataError, Damaged, Refused):
            return
        assert receipt.offset == len(data)

    any_stretch()
