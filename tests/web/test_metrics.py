"""What Prometheus may ask, read by its own client's parser."""

import re
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from processes import served
from serving.test_bare import BODY
from serving.test_oip import sums
from tidemill.serving import Counters
from tidemill.session import Session
from tidemill.web.app import make_app
from tidemill.web.metrics import BOUNDS, Family, Traffic, exposition
from toy import copied as copied
from toy import kept as kept

Read = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Read:
    found: Read = {}
    kinds = dict[str, str]()
    for family in text_string_to_metric_families(text):
        assert family.name not in kinds, "a family is told once"
        kinds[family.name] = family.type
        for one in family.samples:
            found[one.name, tuple(sorted(one.labels.items()))] = one.value
    assert "unknown" not in kinds.values()
    return found


def check_names(text: str) -> None:
    """The conventions of Prometheus (https://prometheus.io/docs/practices/naming), as `promtool check metrics` asks for them."""
    for family in text_string_to_metric_families(text):
        name, kind = family.name, family.type
        assert family.documentation.endswith("."), name
        assert re.fullmatch(r"(tidemill|process)_[a-z]+(_[a-z]+)*", name), name
        assert not re.search(r"_(count|sum|bucket|ms|us|kilobytes|minutes|percent|counter|gauge|histogram)$", name), name
        samples = {one.name for one in family.samples}
        assert (samples == {f"{name}_total"}) == (kind == "counter"), name
        if kind == "histogram":
            assert name.endswith("_seconds"), name
            assert samples == {f"{name}_{part}" for part in ("bucket", "sum", "count")}


def total(found: Read, name: str, **labels: str) -> float:
    return sum(value for (one, own), value in found.items() if one == name and labels.items() <= dict(own).items())


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.floats(allow_nan=False), st.just(float("inf"))), max_size=5))
def test_any_label_and_any_number_can_be_read_back(values: dict[str, float]) -> None:
    text = exposition([Family("some_value", "gauge", "Some.", [("", (("of", of),), value) for of, value in values.items()])]).decode()
    if any("\r" in of or len(of.splitlines()) > 1 for of in values):
        return  # the parser splits lines there, and not where the format does
    assert {dict(labels)["of"]: value for (_, labels), value in read(text).items()} == values


@given(
    st.lists(
        st.tuples(st.sampled_from(["/predict/a", "/predict/b?x=1", "/", "/never", "/v2/models/a/infer"]), st.floats(0, 20)), max_size=40
    )
)
def test_durations_are_told_as_a_histogram(requests: list[tuple[str, float]]) -> None:
    """Beside a list of all durations."""
    traffic, by = Traffic(Counters()), defaultdict[str, list[float]](list)
    for path, seconds in requests:
        traffic.noted(path)(200, seconds)
        by[{"/predict/a": "/predict", "/predict/b?x=1": "/predict", "/": "/", "/never": "other"}.get(path, "/v2")].append(seconds)
    found = read(exposition(traffic.families()).decode())
    for route, all_ in by.items():
        assert (
            total(found, "tidemill_request_seconds_count", route=route) == len(all_) == total(found, "tidemill_requests_total", route=route)
        )
        assert total(found, "tidemill_request_seconds_sum", route=route) == pytest.approx(sum(all_))
        for bound in BOUNDS:
            assert total(found, "tidemill_request_seconds_bucket", route=route, le=repr(bound)) == sum(one <= bound for one in all_)
        assert total(found, "tidemill_request_seconds_bucket", route=route, le="+Inf") == len(all_)


def test_a_server_tells_what_it_answered_and_how(copied: Path) -> None:
    client = TestClient(make_app(Session(copied), "http://127.0.0.1"), base_url="http://127.0.0.1")
    endpoint: Any = client.app.state.gateway.endpoints["late"]  # type: ignore[attr-defined]
    assert client.post("/predict/late", json={"rows": [{"parcel": "p118-003"}, {"parcel": "p117-003"}]}).status_code == 200
    endpoint.ladder.count("champion: too late", 3)
    endpoint.ladder.count("unexpected booking__weight: clip", 2)
    answer = client.get("/metrics")
    check_names(answer.text)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = read(answer.text)
    assert total(found, "tidemill_answers_total", deployment="late", rung="champion") == 2
    assert total(found, "tidemill_rung_misses_total", deployment="late", rung="champion", why="too late") == 3
    of = {"deployment": "late", "rung": "champion"}
    assert total(found, "tidemill_rung_seconds_count", **of) == total(found, "tidemill_rung_seconds_bucket", **of, le="+Inf") == 1, (
        "two rows in one go"
    )
    assert 0 < total(found, "tidemill_rung_seconds_sum", **of) < 60
    assert total(found, "tidemill_unexpected_total", deployment="late", value="booking__weight", otherwise="clip") == 2
    assert total(found, "tidemill_version_info", role="champion", version=endpoint.standing.champion[0]) == 1
    assert total(found, "process_start_time_seconds") > 0
    assert total(found, "process_resident_memory_bytes") > 1e6
    assert client.get("/metrics", headers={"origin": "https://evil.example"}).status_code == 403


def test_requests_below_and_in_the_framework_are_counted(tmp_path: Path) -> None:
    """A bare model: what is asked most goes past the framework."""
    file = tmp_path / "sums.onnx"
    file.write_bytes(sums())
    with served("serve", str(file), "--port", "0", "--json") as (_, url):
        for _ in range(3):
            urllib.request.urlopen(f"{url}/v2/models/sums/infer", BODY).read()
        urllib.request.urlopen(f"{url}/v2").read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/v2/models/never")
        found = read(urllib.request.urlopen(f"{url}/metrics").read().decode())
    assert total(found, "tidemill_requests_total", route="/v2", status="200") == 4
    assert total(found, "tidemill_requests_total", route="/v2", status="404") == 1
    assert total(found, "tidemill_inference_requests_total", model="sums") == 3
    assert total(found, "tidemill_inference_rows_total", model="sums") == 3
    assert total(found, "tidemill_inference_run_seconds_total", model="sums") > 0
