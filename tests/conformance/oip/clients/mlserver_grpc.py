"""MLServer's own gRPC stub, types and codecs against servers: each line of input is a server, a model, a request and what it gives, as
JSON."""

import json
import sys
from typing import Any

import grpc
import numpy as np
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.grpc import dataplane_pb2 as messages
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter, ModelMetadataResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, RequestInput

KINDS = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64}


def sent(one: dict[str, Any]) -> RequestInput:
    """A tensor as the codecs make it."""
    if one["datatype"] == "BYTES":
        return StringCodec.encode_input(one["name"], one["data"])
    return NumpyCodec.encode_input(one["name"], np.array(one["data"], dtype=KINDS[one["datatype"]]).reshape(one["shape"]))


def check(target: dict[str, Any]) -> None:
    """Health, metadata and inference, typed and raw."""
    model = target["model"]
    with grpc.insecure_channel(target["url"]) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(messages.ServerLiveRequest()).live
        assert stub.ModelReady(messages.ModelReadyRequest(name=model)).ready
        metadata = ModelMetadataResponseConverter.to_types(stub.ModelMetadata(messages.ModelMetadataRequest(name=model)))
        assert [one.name for one in metadata.outputs] == [one["name"] for one in target["outputs"]]
        for raw in (False, True):
            request = InferenceRequest(id="7", inputs=[sent(one) for one in target["inputs"]])
            asked = ModelInferRequestConverter.from_types(request, model_name=model, model_version=None, use_raw=raw)
            found = ModelInferResponseConverter.to_types(stub.ModelInfer(asked))
            assert (found.model_name, found.id) == (model, "7")
            for one, output in zip(target["outputs"], found.outputs, strict=True):
                np.testing.assert_allclose(NumpyCodec.decode_output(output), np.reshape(one["data"], one["shape"]), rtol=1e-6)


for line in sys.stdin:
    check(json.loads(line))
print("fine")
