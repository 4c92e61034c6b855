"""MLServer's types and codecs against servers, as its own test client uses them: each line of input is a server, a model, a request and
what it gives, as JSON."""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RequestInput,
    RequestOutput,
)

KINDS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64}


def ask(target: dict[str, Any], path: str, body: str | None = None) -> bytes:
    """The answer of a server."""
    request = urllib.request.Request(target["url"] + path, body and body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def sent(target: dict[str, Any]) -> list[RequestInput]:
    """The tensors of the request as the codecs make them."""
    found = []
    for one in target["inputs"]:
        if one["datatype"] == "BYTES":
            found.append(StringCodec.encode_input(one["name"], one["data"]))
        else:
            found.append(NumpyCodec.encode_input(one["name"], np.array(one["data"], dtype=KINDS[one["datatype"]]).reshape(one["shape"])))
    return found


def check(target: dict[str, Any]) -> None:
    """Metadata, inference and repository."""
    model = f"/v2/models/{target['model']}"
    assert MetadataServerResponse.model_validate_json(ask(target, "/v2")).name
    metadata = MetadataModelResponse.model_validate_json(ask(target, model))
    assert metadata.inputs
    assert metadata.outputs

    def same(request: InferenceRequest, dumped: str) -> None:
        found = InferenceResponse.model_validate_json(ask(target, f"{model}/infer", dumped))
        assert found.model_name == target["model"]
        assert not request.id or found.id == request.id
        for one in target["outputs"]:
            (output,) = [output for output in found.outputs if output.name == one["name"]]
            np.testing.assert_allclose(NumpyCodec.decode_output(output), np.reshape(one["data"], one["shape"]), rtol=1e-6)

    outputs = [RequestOutput(name=one["name"]) for one in target["outputs"]]
    for request in (
        InferenceRequest(inputs=sent(target)),
        InferenceRequest(id="7", inputs=sent(target), outputs=outputs, parameters=Parameters(content_type="np", headers={"a": "b"})),
    ):
        same(request, request.model_dump_json())  # with null for all that is left out
        same(request, request.model_dump_json(exclude_none=True))
    if len(target["inputs"]) == 1 and target["inputs"][0]["datatype"] != "BYTES":
        (one,) = target["inputs"]
        array = np.array(one["data"], dtype=KINDS[one["datatype"]]).reshape(one["shape"])
        request = NumpyRequestCodec.encode_request(array)
        request.inputs[0].name = one["name"]
        same(request, request.model_dump_json())
    if all(len(one["shape"]) == 1 for one in target["inputs"]):  # a column for each
        request = PandasCodec.encode_request(pd.DataFrame({one["name"]: one["data"] for one in target["inputs"]}))
        same(request, request.model_dump_json())
    status = 200
    try:
        ask(target, f"{model}/infer", InferenceRequest(inputs=[]).model_dump_json())
    except urllib.error.HTTPError as error:
        status, said = error.code, json.load(error)["error"]
    assert status == 400
    assert said
    index = ask(target, "/v2/repository/index", RepositoryIndexRequest(ready=True).model_dump_json())
    assert target["model"] in [item.name for item in RepositoryIndexResponse.model_validate_json(index).root]


for line in sys.stdin:
    check(json.loads(line))
print("fine")
