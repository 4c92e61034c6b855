"""Triton's own gRPC client against servers, unchanged: each line of input is a server, a model, a request and what it gives, as JSON. The
first argument is our file of messages, which must agree with the client's, in the same process."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from queue import SimpleQueue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

NUMBERS = {
    1: "64 bit",
    2: "32 bit",
    3: "varint",
    4: "varint",
    5: "varint",
    8: "varint",
    9: "bytes",
    11: "bytes",
    12: "bytes",
    13: "varint",
    14: "varint",
}


def sent(target: dict[str, Any]) -> list[Any]:
    """The tensors of the request as the client sends them."""
    found = []
    for one in target["inputs"]:
        array = np.array(one["data"], dtype=triton_to_np_dtype(one["datatype"])).reshape(one["shape"])
        found.append(triton.InferInput(one["name"], list(array.shape), np_to_triton_dtype(array.dtype)))
        found[-1].set_data_from_numpy(array)
    return found


def refused(call: Any, *args: Any, **named: Any) -> str:
    """The status that a call is refused with."""
    try:
        call(*args, **named)
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.") if error.message() else ""
    raise AssertionError(f"{call} was not refused")


def check(target: dict[str, Any]) -> None:
    """All that the client offers for a CPU server."""
    model, inputs = target["model"], sent(target)

    def same(result: Any) -> None:
        assert result.get_response().model_name == model
        for one in target["outputs"]:
            np.testing.assert_allclose(result.as_numpy(one["name"]), np.reshape(one["data"], one["shape"]), rtol=1e-6)

    with triton.InferenceServerClient(target["url"]) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.get_server_metadata().name
        metadata = client.get_model_metadata(model)
        assert metadata.name == model
        assert refused(client.get_model_metadata, "nobody-knows-it") == "NOT_FOUND"
        told = client.get_model_config(model).config
        assert [list(one.dims) for one in told.input] == [list(one.shape) for one in metadata.inputs]
        kinds = [service_pb2.model__config__pb2.DataType.Name(one.data_type) for one in told.input]
        assert kinds == [f"TYPE_{one.datatype}".replace("BYTES", "STRING") for one in metadata.inputs]
        assert refused(client.get_system_shared_memory_status) == "UNIMPLEMENTED"
        names = [one["name"] for one in target["outputs"]]
        classes = [triton.InferRequestedOutput(names[0], class_count=1)]
        assert refused(client.infer, model, inputs, outputs=classes) == "INVALID_ARGUMENT"
        same(client.infer(model, inputs))
        wanted = [triton.InferRequestedOutput(name) for name in names]
        result = client.infer(model, inputs, outputs=wanted, request_id="7", parameters={"sticky_key": "a"}, client_timeout=20)
        same(result)
        assert result.get_response().id == "7"
        for packing in ("gzip", "deflate"):
            same(client.infer(model, inputs, compression_algorithm=packing))
        for version in metadata.versions:
            assert client.is_model_ready(model, version)
            assert client.infer(model, inputs, model_version=version).get_response().model_version == version
        assert refused(client.infer, model, inputs, model_version="987654") == "NOT_FOUND"
        assert refused(client.infer, model, inputs, outputs=[triton.InferRequestedOutput("nobody knows it")]) == "INVALID_ARGUMENT"
        assert refused(client.infer, model, [triton.InferInput("nobody knows it", [1], "FP32")]) == "INVALID_ARGUMENT"
        before = client.get_inference_statistics(model).model_stats
        same(client.infer(model, inputs))
        after = client.get_inference_statistics(model).model_stats
        count = [sum(one.inference_stats.success.count for one in some) for some in (before, after)]
        assert count[1] == count[0] + 1
        assert client.get_inference_statistics().model_stats
        assert model in [one.name for one in client.get_model_repository_index().models]
        check_streams(client, model, inputs, same)
        if target["loads"]:
            client.unload_model(model)
            assert not client.is_model_ready(model)
            assert refused(client.infer, model, inputs) == "UNAVAILABLE"
            client.load_model(model)
        else:
            assert refused(client.load_model, model) == refused(client.unload_model, model) == "PERMISSION_DENIED"
        assert client.is_model_ready(model)


def check_streams(client: Any, model: str, inputs: list[Any], same: Any) -> None:
    """Answers to what is sent without waiting, in one stream and beside it."""
    told: SimpleQueue[Any] = SimpleQueue()
    client.async_infer(model, inputs, lambda result, error: told.put((result, error)))
    same(told.get(timeout=20)[0])
    client.start_stream(lambda result, error: told.put((result, error)))
    for number, name in enumerate((model, "nobody-knows-it", model)):
        client.async_stream_infer(name, inputs, request_id=str(number))
    for number in range(3):
        result, error = told.get(timeout=20)
        if number == 1:
            assert "nobody-knows-it" in str(error)
        else:
            same(result)
            assert result.get_response().id == str(number)
    client.stop_stream()


def check_messages(path: str) -> None:
    """Ours have the numbers, names and forms of the client's fields, and stand beside them."""
    spec = spec_from_file_location("messages", path)
    assert spec
    assert spec.loader
    ours = module_from_spec(spec)
    spec.loader.exec_module(ours)
    theirs = (service_pb2, service_pb2.model__config__pb2)
    known = {one.name: one for module in theirs for one in module.DESCRIPTOR.message_types_by_name.values()}
    known |= {one.name: one for message in [*known.values()] for one in message.nested_types}
    known["Parameter"] = known.pop("ParametersEntry")
    compared = 0
    for name, message in ours.MESSAGES.items():
        if name not in known:
            assert name in ("SingleFloats", "Parts", "HealthCheckRequest", "HealthCheckResponse"), name
            continue
        theirs = known[name].fields_by_number
        for field in message.DESCRIPTOR.fields:
            if name in ("RepositoryModelLoadResponse", "RepositoryModelUnloadResponse"):
                continue  # KServe's
            assert (theirs[field.number].name, form(theirs[field.number])) == (field.name, form(field)), (name, field.name)
            compared += 1
    assert compared > 60


def form(field: FieldDescriptor) -> tuple[bool, str]:
    """Whether there may be several, and how they are written; floats that come packed are bytes."""
    kind = "bytes" if field.is_packed and field.type in (1, 2) else NUMBERS[field.type]
    return field.is_repeated, kind


check_messages(sys.argv[1])
for line in sys.stdin:
    check(json.loads(line))
print("fine")
