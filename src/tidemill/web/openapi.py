"""What a server answers as OpenAPI 3.1, and as a page. Comes in: the operations that each stage offers. Goes out: JSON, HTML."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from tidemill.serving import SCHEMAS, Operation
from tidemill.web.templates import fill

SAID = {400: "The request is wrong", 403: "It may not be done", 404: "There is no such thing"}
SAID |= {503: "It cannot be answered now", 504: "It was not answered in time"}
RAW = "application/octet-stream"  # raw tensors behind the JSON


def document(operations: Sequence[Operation], title: str, version: str, url: str) -> dict[str, Any]:
    """The document of a server at an address."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": url}],
        "tags": [{"name": name} for name in dict.fromkeys(one.group for one in operations)],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(one: Operation) -> dict[str, Any]:
    name = "_".join([one.method.lower(), *(part.strip("{}") for part in one.path.split("/") if part)])
    answers = {str(code): {"description": SAID[code], "content": _content("Error")} for code in one.codes}
    found: dict[str, Any] = {
        "operationId": name,
        "tags": [one.group],
        "summary": one.summary,
        "x-requires": one.requires,
        "parameters": [*_parameters(one)],
        "responses": {"200": {"description": one.summary, "content": _content(one.gives)}, **answers},
    }
    if one.takes:
        content = _content(one.takes)
        content["application/json"]["examples"] = {
            f"{place} {example.path}": {"summary": example.shows, "value": example.body} for place, example in enumerate(one.examples, 1)
        }
        found["requestBody"] = {"content": content, "required": one.takes != "IndexRequest"}
    return found


def _content(schema: str) -> dict[str, Any]:
    if "/" in schema:
        return {schema: {"schema": {"type": "string"}}}
    found: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return found | ({RAW: {"schema": {}}} if schema.startswith("Inference") else {})


def _parameters(one: Operation) -> Iterator[dict[str, Any]]:
    for name, values in one.known.items():
        schema = {"type": "string"} | ({"enum": [*values]} if values else {})
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name in one.query:
        yield {"name": name, "in": "query", "required": name == "view", "schema": {"type": "string"}}
    if one.query:  # the keys of an entity, each by its name
        keys = {"type": "object", "additionalProperties": {"type": "string"}}
        yield {"name": "keys", "in": "query", "style": "form", "explode": True, "schema": keys}
    if one.takes.startswith("Inference"):
        yield {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer", "minimum": 0}}


def render_docs(operations: Sequence[Operation], title: str, url: str) -> str:
    """The page: what can be asked, and a line to copy for each example."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in operations:
        examples = [{"shows": example.shows, "line": line(url, one.method, example.path, example.body)} for example in one.examples]
        groups.setdefault(one.group, []).append({"asked": one, "examples": examples})
    return fill("docs.html", title=title, url=url, groups=groups)


def line(url: str, method: str, path: str, body: Any) -> str:
    """A line to copy."""
    parts = ["curl", "-s", *(["-X", method] if method != ("GET" if body is None else "POST") else []), url + path]
    return shlex.join([*parts, *(["-d", json.dumps(body)] if body is not None else [])])
