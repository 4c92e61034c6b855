"""KServe's own REST client against servers, unchanged: each line of input is a server, a model, a request and what it gives, as JSON."""

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import httpx
import numpy as np

lines, sys.argv = sys.stdin.readlines(), sys.argv[:1]  # importing the client reads the arguments

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import RequestedOutput  # noqa: E402

KINDS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BYTES": np.object_}


def sent(target: dict[str, Any], *, binary: bool) -> list[InferInput]:
    """The tensors of the request as the client sends them."""
    found = []
    for one in target["inputs"]:
        array = np.array(one["data"], dtype=KINDS[one["datatype"]]).reshape(one["shape"])
        found.append(InferInput(one["name"], list(array.shape), one["datatype"]))
        found[-1].set_data_from_numpy(array, binary_data=binary)
    return found


async def check(target: dict[str, Any]) -> None:
    """All that the client offers."""
    url, model = target["url"], target["model"]
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=20))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, model)

    def same(result: Any) -> None:
        assert result.model_name == model
        for one in target["outputs"]:
            (found,) = [output for output in result.outputs if output.name == one["name"]]
            np.testing.assert_allclose(found.as_numpy(), np.reshape(one["data"], one["shape"]), rtol=1e-6)

    for binary in (True, False):
        same(await client.infer(url, InferRequest(model, sent(target, binary=binary)), model))
        asked = InferRequest(model, sent(target, binary=binary), request_id="7", parameters={"sticky_key": "a"})
        result = await client.infer(url, asked, model)
        same(result)
        assert result.id == "7"
        wanted = [RequestedOutput(one["name"], {"binary_data": binary}) for one in target["outputs"]]
        same(await client.infer(url, InferRequest(model, sent(target, binary=binary), request_outputs=wanted), model))
    same(await client.infer(url, {"inputs": target["inputs"]}, model))
    for wrong in ({"inputs": []}, {"inputs": target["inputs"], "outputs": [{"name": "nobody knows it"}]}):
        assert await refused(client.infer(url, wrong, model)) == 400
    assert not await client.is_model_ready(url, "nobody-knows-it")
    await client.close()


async def refused(call: Awaitable[Any]) -> int:
    """The status of a call that the client raises for, with the error's text."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        status, told, said = error.response.status_code, str(error), error.response.json()["error"]
    else:
        raise AssertionError("a wrong request was not refused")
    assert said in told
    return status


for line in lines:
    asyncio.run(check(json.loads(line)))
print("fine")
