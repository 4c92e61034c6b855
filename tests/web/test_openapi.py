"""The document and the page of what can be asked: every route is there, and every example is answered."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from processes import served
from serving.test_oip import sums
from tidemill.session import Session
from tidemill.web.app import make_app
from tidemill.web.tracking import only_local
from toy import kept as kept
from web.pages import Page

URL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def app(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    return make_app(Session(shutil.copytree(kept, tmp_path_factory.mktemp("docs") / "parcels")), URL)


@pytest.fixture(scope="module")
def client(app: Starlette) -> TestClient:
    return TestClient(only_local(app), base_url=URL)


@pytest.fixture(scope="module")
def document(client: TestClient) -> Any:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            yield method.upper(), path, one


def test_every_route_is_described_and_no_other(app: Starlette, document: Any) -> None:
    routes = [route for route in app.routes if isinstance(route, Route)]
    known = {(method, route.path.replace(":path", "")) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert {(method, path) for method, path, _ in operations(document)} == known


def test_the_document_holds_together(document: Any) -> None:
    names = [one["operationId"] for _, _, one in operations(document)]
    assert len(names) == len({*names})
    schemas = document["components"]["schemas"]
    refs = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert {*refs} == {*schemas}, "each is used, and each that is used is there"
    for _, path, one in operations(document):
        said = {part["name"] for part in one["parameters"] if part["in"] == "path"}
        assert said == {*re.findall(r"{(\w+)}", path)}
        assert one["x-requires"] in ("open", "read", "predict")
        assert {*one["responses"]} <= {"200", "400", "403", "404", "503", "504"}
    assert document["openapi"] == "3.1.0"


def lines(html: str) -> list[str]:
    page = Page(html)
    assert not page.wrong
    return [text for around, text in page.texts if around[-1] == "pre"]


def asked(line: str) -> tuple[str, str, str | None]:
    """Method, path and body of a line to copy."""
    words = shlex.split(line)
    body = words[words.index("-d") + 1] if "-d" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
    (url,) = [word for word in words if word.startswith("http")]
    return method, url, body


def test_every_example_is_answered(client: TestClient, document: Any) -> None:
    found = set()
    for line in lines(client.get("/docs").text):
        method, url, body = asked(line)
        answer = client.request(method, url, content=body)
        assert answer.status_code == 200, (line, answer.text)
        found.add((method, url.removeprefix(URL).split("?")[0], body))
    assert {"/predict/late", "/features", "/v2/models/late/infer", "/v2/models/late/versions/trees%2F4/infer", "/v2", "/"} <= {
        path for _, path, _ in found
    }
    for _, path, one in operations(document):
        for media in one.get("requestBody", {}).get("content", {}).values():
            for example in media.get("examples", {}).values():
                assert json.dumps(example["value"]) in {body for _, _, body in found}, path


def test_the_examples_say_the_same_in_every_form(client: TestClient) -> None:
    told = {}
    for line in lines(client.get("/docs").text):
        method, url, body = asked(line)
        if url.endswith(("/predict/late", "/models/late/infer")):
            answer = client.request(method, url, content=body).json()
            told[body] = answer["predictions"][0]["probability"] if "predictions" in answer else answer["outputs"][0]["data"][0]
    assert len(told) == 4
    assert len({*told.values()}) <= 2, "by key the features are those of another time"


def test_a_bare_model_is_described_too(tmp_path: Path) -> None:
    (tmp_path / "sums.onnx").write_bytes(sums())
    with served("serve", str(tmp_path / "sums.onnx"), "--port", "0", "--json") as (_, url):
        html = subprocess.run(["curl", "-s", f"{url}/docs"], capture_output=True, text=True, check=True).stdout
        found = lines(html)
        assert len(found) > 10
        for line in found:
            said = subprocess.run([*shlex.split(line), "-w", "\n%{http_code}"], capture_output=True, text=True, check=True).stdout
            assert said.endswith("\n200"), (line, said)
        document = json.loads(subprocess.run(["curl", "-s", f"{url}/openapi.json"], capture_output=True, text=True, check=True).stdout)
        assert (document["servers"], document["info"]["title"]) == ([{"url": url}], "sums")
