"""What a server answers, as data: each operation with what it requires, its schemas, and examples that work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from tidemill.serving.repository import Model, Models

INFERENCE = "Open Inference Protocol"


class Example(NamedTuple):
    """A request that is answered, with its whole path; what it shows, for people."""

    shows: str
    path: str
    body: Any = None


@dataclass(frozen=True)
class Operation:
    """One method of one path, whose `{parts}` have the values of `known`. `takes` and `gives` name schemas, of JSON; `gives` may
    be another media type, and nothing is taken where `takes` is empty. `codes` are those of its errors."""

    method: str
    path: str
    requires: str
    group: str
    summary: str
    gives: str = "text/html"
    takes: str = ""
    codes: Sequence[int] = ()
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    query: Sequence[str] = ()
    examples: Sequence[Example] = ()


def operation(method: str, path: str, requires: str, summary: str, gives: str, takes: str = "", *codes: int) -> Operation:
    """One of the inference protocol."""
    return Operation(method, path, requires, INFERENCE, summary, gives, takes, codes)


VERSION = "/v2/models/{name}/versions/{version}"
PROTOCOL = [
    operation("GET", "/v2", "open", "The server's name, version and extensions", "ServerMetadata"),
    operation("GET", "/v2/health/live", "open", "Whether it is alive", "Live"),
    operation("GET", "/v2/health/ready", "open", "Whether all models can answer", "Ready", "", 503),
    operation("GET", "/v2/models/stats", "read", "What all models answered so far", "Statistics"),
    operation("GET", "/v2/models/{name}", "read", "Versions, inputs and outputs of a model", "ModelMetadata", "", 404),
    operation("GET", "/v2/models/{name}/ready", "open", "Whether a model can answer", "Ready", "", 404, 503),
    operation("GET", "/v2/models/{name}/config", "read", "The same as Triton's clients ask for it", "ModelConfiguration", "", 404),
    operation("GET", "/v2/models/{name}/stats", "read", "What a model answered so far", "Statistics", "", 404),
    operation(
        "POST", "/v2/models/{name}/infer", "predict", "Tensors in, tensors out", "InferenceResponse", "InferenceRequest", 400, 404, 503, 504
    ),
    operation("GET", f"{VERSION}/ready", "open", "Whether a version can answer", "Ready", "", 404, 503),
    operation(
        "GET",
        f"{VERSION}/config",
        "read",
        "Inputs and outputs of a version, as Triton's clients ask for them",
        "ModelConfiguration",
        "",
        404,
    ),
    operation("GET", f"{VERSION}/stats", "read", "What a version answered so far", "Statistics", "", 404),
    operation(
        "POST", f"{VERSION}/infer", "predict", "The answer of one version", "InferenceResponse", "InferenceRequest", 400, 404, 503, 504
    ),
    operation("GET", VERSION, "read", "Inputs and outputs of a version", "ModelMetadata", "", 404),
    operation("POST", "/v2/repository/index", "read", "Every version, with its state", "Index", "IndexRequest", 400),
    operation("POST", "/v2/repository/models/{name}/load", "read", "Load a bare model", "Object", "", 400, 403, 404),
    operation("POST", "/v2/repository/models/{name}/unload", "read", "Unload a bare model", "Object", "", 403, 404),
]


def of_protocol(models: Models) -> list[Operation]:
    """Those of the inference protocol over models, with examples for each."""
    every = [*models]
    known = {"name": [*dict.fromkeys(one.name for one in every)], "version": [*dict.fromkeys(one.version for one in every)]}
    found = []
    for one in PROTOCOL:
        parts = {name: values for name, values in known.items() if f"{{{name}}}" in one.path}
        found.append(Operation(**{**vars(one), "known": parts, "examples": [*_examples(one, models, every, known["name"])]}))
    return found


def _examples(one: Operation, models: Models, every: Sequence[Model], names: Sequence[str]) -> Iterable[Example]:
    if one.path.endswith("load"):  # who tries the examples in turn shall find all as it was
        return
    if "{version}" in one.path:
        asked = every
    elif "{name}" in one.path:
        asked = [models.find(name) for name in names]
    else:
        yield Example(one.summary.lower(), one.path, {} if one.takes else None)
        return
    for model in asked:
        path = one.path.format(name=quote(model.name, safe=""), version=quote(model.version, safe=""))
        if one.takes:
            yield from (Example(shows, path, {"id": "1", "inputs": inputs}) for shows, inputs in model.examples().items())
        else:
            yield Example(model.name, path)


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


TEXT, WHOLE, NUMBER, TRUTH, ANY = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"}
NAMED = _object("name datatype shape", name=TEXT, datatype=TEXT, shape=_list(WHOLE))
SIZED = _object("name data_type dims", name=TEXT, data_type=TEXT, dims=_list(WHOLE))
SIZES = _list({"type": "integer", "minimum": 0})
TENSOR = _object("name datatype shape", name=TEXT, datatype=TEXT, shape=SIZES, parameters=ANY, data=_list({}))
TIME = {"type": "string", "format": "date-time"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object("error", error=TEXT, detail=ANY),
    "Object": ANY,
    "ServerMetadata": _object("name version extensions", name=TEXT, version=TEXT, extensions=_list(TEXT)),
    "Live": _object("live", live=TRUTH),
    "Ready": _object("ready", ready=TRUTH, name=TEXT),
    "ModelMetadata": _object(
        "name versions platform inputs outputs", name=TEXT, versions=_list(TEXT), platform=TEXT, inputs=_list(NAMED), outputs=_list(NAMED)
    ),
    "ModelConfiguration": _object(
        "name platform max_batch_size input output", name=TEXT, platform=TEXT, max_batch_size=WHOLE, input=_list(SIZED), output=_list(SIZED)
    ),
    "Statistics": _object("model_stats", model_stats=_list(_object("name version", name=TEXT, version=TEXT, inference_stats=ANY))),
    "InferenceRequest": _object(
        "inputs",
        inputs=_list(TENSOR) | {"minItems": 1},
        id=TEXT,
        parameters=_object("", sticky_key={}, binary_data_output=TRUTH),
        outputs=_list(_object("name", name=TEXT, parameters=ANY)),
    ),
    "InferenceResponse": _object(
        "model_name model_version outputs", model_name=TEXT, model_version=TEXT, outputs=_list(TENSOR), id=TEXT, parameters=ANY
    ),
    "IndexRequest": _object("", ready=TRUTH),
    "Index": _list(_object("name version state reason", name=TEXT, version=TEXT, state=TEXT, reason=TEXT)),
    "PredictRequest": _object(
        "rows",
        rows=_list(ANY) | {"minItems": 1, "maxItems": 10_000},
        at={"anyOf": [TIME, _list(TIME) | {"minItems": 1}, {"type": "null"}]},
        explain=TRUTH,
    )
    | {"additionalProperties": False},
    "Predictions": _object(
        "deployment predictions",
        deployment=TEXT,
        predictions=_list(_object("key probability version rung at", key=TEXT, probability=NUMBER, version=TEXT, rung=TEXT, at=TIME)),
    ),
    "FeedbackRequest": _object(
        "rows",
        rows=_list(_object("id", id=TEXT | {"minLength": 1}, label={"type": ["integer", "number", "boolean", "null"]}, comment=TEXT))
        | {"minItems": 1},
    )
    | {"additionalProperties": False},
    "Feedback": _object("deployment added labelled_at", deployment=TEXT, added=WHOLE, labelled_at=TIME),
    "FeaturesRequest": _object(
        "views rows", views=_list(TEXT) | {"minItems": 1}, rows=_list(ANY) | {"minItems": 1}, at=TIME | {"type": ["string", "null"]}
    )
    | {"additionalProperties": False},
    "Features": _object("at features rows views", at=TIME, features=_list(TEXT), rows=_list(_list({})), views=ANY),
}
