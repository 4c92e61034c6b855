"""Triton's own client against servers, unchanged: each line of input is a server, a model, a request and what it gives, as JSON."""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype


def arrays(target: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the request."""
    return {one["name"]: np.array(one["data"], dtype=triton_to_np_dtype(one["datatype"])).reshape(one["shape"]) for one in target["inputs"]}


def sent(target: dict[str, Any], *, binary: bool) -> list[Any]:
    """The same as the client sends them."""
    found = []
    for name, array in arrays(target).items():
        one = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array, binary_data=binary)
        found.append(one)
    return found


def refused(call: Any, *args: Any, **named: Any) -> str:
    """What a call is refused with."""
    try:
        call(*args, **named)
    except InferenceServerException as error:
        return str(error.message())
    raise AssertionError(f"{call} was not refused")


def check(target: dict[str, Any]) -> None:
    """All that the client offers for a CPU server."""
    model = target["model"]
    with triton.InferenceServerClient(target["url"].removeprefix("http://"), concurrency=4) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.get_server_metadata()["name"]
        metadata = client.get_model_metadata(model)
        assert metadata["name"] == model
        assert not client.is_model_ready("nobody-knows-it")
        assert refused(client.get_model_metadata, "nobody-knows-it")
        told = client.get_model_config(model)
        assert [one["dims"] for one in told["input"]] == [one["shape"] for one in metadata["inputs"]]
        assert refused(client.get_model_config, "nobody-knows-it")
        assert refused(client.get_system_shared_memory_status)

        def same(result: Any) -> None:
            assert result.get_response()["model_name"] == model
            for one in target["outputs"]:
                np.testing.assert_allclose(result.as_numpy(one["name"]), np.reshape(one["data"], one["shape"]), rtol=1e-6)

        names = [one["name"] for one in target["outputs"]]
        for binary in (True, False):
            same(client.infer(model, sent(target, binary=binary)))
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
            same(client.infer(model, sent(target, binary=binary), outputs=wanted, request_id="7"))
        assert client.infer(model, sent(target, binary=True), request_id="7").get_response()["id"] == "7"
        same(client.infer(model, sent(target, binary=True), parameters={"sticky_key": "a"}))
        same(client.async_infer(model, sent(target, binary=True)).get_result())
        for packing in ("gzip", "deflate"):
            same(client.infer(model, sent(target, binary=True), request_compression_algorithm=packing))
            same(client.infer(model, sent(target, binary=True), response_compression_algorithm=packing))
        classes = [triton.InferRequestedOutput(names[0], class_count=1)]
        assert refused(client.infer, model, sent(target, binary=True), outputs=classes)
        assert refused(client.load_model, model, config='{"max_batch_size": 8}')
        for version in metadata["versions"]:
            assert client.is_model_ready(model, version)
            assert client.get_model_metadata(model, version)["name"] == model
            result = client.infer(model, sent(target, binary=True), model_version=version)
            assert result.get_response()["model_version"] == version
        assert refused(client.infer, model, sent(target, binary=True), model_version="987654")
        assert refused(client.infer, model, sent(target, binary=True)[:0])
        assert refused(
            client.infer, model, [triton.InferInput("nobody knows it", [1], "FP32").set_data_from_numpy(np.zeros(1, np.float32))]
        )
        before = client.get_inference_statistics(model)["model_stats"]
        same(client.infer(model, sent(target, binary=True)))
        after = client.get_inference_statistics(model)["model_stats"]
        count = [sum(one["inference_stats"]["success"]["count"] for one in some) for some in (before, after)]
        assert count[1] == count[0] + 1
        assert client.get_inference_statistics()["model_stats"]
        assert model in [one["name"] for one in client.get_model_repository_index()]
        if target["loads"]:
            client.unload_model(model)
            assert not client.is_model_ready(model)
            client.load_model(model)
        else:
            assert refused(client.load_model, model)
            assert refused(client.unload_model, model)
        assert client.is_model_ready(model)


for line in sys.stdin:
    check(json.loads(line))
print("fine")
