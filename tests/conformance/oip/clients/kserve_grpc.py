"""KServe's own gRPC client against servers, unchanged: each line of input is a server, a model, a request and what it gives, as JSON."""

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np

lines, sys.argv = sys.stdin.readlines(), sys.argv[:1]  # importing the client reads the arguments

from kserve import InferenceGRPCClient, InferInput, InferRequest  # noqa: E402
from kserve.protocol.grpc import grpc_predict_v2_pb2  # noqa: E402

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
    model = target["model"]
    async with InferenceGRPCClient(target["url"], retries=0, timeout=20) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)
        for binary in (True, False):
            result = await client.infer(InferRequest(model, sent(target, binary=binary), request_id="7", parameters={"sticky_key": "a"}))
            assert (result.model_name, result.id) == (model, "7")
            for one in target["outputs"]:
                (found,) = [output for output in result.outputs if output.name == one["name"]]
                np.testing.assert_allclose(found.as_numpy(), np.reshape(one["data"], one["shape"]), rtol=1e-6)
        assert await refused(client.infer(InferRequest(model, []))) == "INVALID_ARGUMENT"
        assert await refused(client.infer(InferRequest("nobody-knows-it", sent(target, binary=True)))) == "NOT_FOUND"
        assert await refused(client.is_model_ready("nobody-knows-it")) == "NOT_FOUND"
        if target["loads"]:
            unload, load = (getattr(grpc_predict_v2_pb2, f"RepositoryModel{verb}Request")(model_name=model) for verb in ("Unload", "Load"))
            assert (await client._client_stub.RepositoryModelUnload(unload)).isUnloaded
            assert not await client.is_model_ready(model)
            assert (await client._client_stub.RepositoryModelLoad(load)).isLoaded
        assert await client.is_model_ready(model)


async def refused(call: Awaitable[Any]) -> str:
    """The status of a call that the client raises for, with the error's text."""
    try:
        await call
    except grpc.RpcError as error:
        return str(error.code().name) if error.details() else ""
    raise AssertionError("it was not refused")


for line in lines:
    asyncio.run(check(json.loads(line)))
print("fine")
