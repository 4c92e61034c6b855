"""The messages of the Open Inference Protocol over gRPC (KServe's `grpc_predict_v2.proto`, with Triton's extensions), and of gRPC's health.

They stand here as fields and numbers, and become classes of protobuf in a pool of their own: the generated files of a client register the
same names in the pool that all share, and may be loaded in the same process. On the wire a map is a list of pairs, and numbers that come
packed are bytes, so they stand here as such: arrays are made of them without a step for each number. What is not named here is skipped.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as _Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FIELDS = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": "string name = 1; repeated string versions = 2; string platform = 3; repeated TensorMetadata inputs = 4; "
    "repeated TensorMetadata outputs = 5",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3",
    "ModelInferRequest": "string model_name = 1; string model_version = 2; string id = 3; repeated Parameter parameters = 4; "
    "repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7",
    "InferInputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3; InferTensorContents contents = 5",
    "InferRequestedOutputTensor": "string name = 1; repeated Parameter parameters = 2",
    "Parts": "repeated bytes parameters = 4; repeated bytes inputs = 5; repeated bytes outputs = 6",  # of a request, as they came
    "Parameter": "string key = 1; InferParameter value = 2",
    "InferParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3; "
    "oneof double double_param = 4; oneof uint64 uint64_param = 5",
    "InferTensorContents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3; "
    "repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated bytes fp32_contents = 6; "
    "repeated bytes fp64_contents = 7; repeated bytes bytes_contents = 8",
    "SingleFloats": "repeated float fp32_contents = 6; repeated double fp64_contents = 7",  # the same where each comes by itself
    "ModelInferResponse": "string model_name = 1; string model_version = 2; string id = 3; repeated Parameter parameters = 4; "
    "repeated InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6",
    "InferOutputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3; InferTensorContents contents = 5",
    "ModelStreamInferResponse": "string error_message = 1; ModelInferResponse infer_response = 2",
    "ModelConfigRequest": "string name = 1; string version = 2",
    "ModelConfigResponse": "ModelConfig config = 1",
    "ModelConfig": "string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5; "
    "repeated ModelOutput output = 6",
    "ModelInput": "string name = 1; int32 data_type = 2; repeated int64 dims = 4",
    "ModelOutput": "string name = 1; int32 data_type = 2; repeated int64 dims = 3",
    "ModelStatisticsRequest": "string name = 1; string version = 2",
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1",
    "ModelStatistics": "string name = 1; string version = 2; uint64 last_inference = 3; uint64 inference_count = 4; "
    "uint64 execution_count = 5; InferStatistics inference_stats = 6",
    "InferStatistics": "StatisticDuration success = 1; StatisticDuration fail = 2; StatisticDuration queue = 3; "
    "StatisticDuration compute_input = 4; StatisticDuration compute_infer = 5; StatisticDuration compute_output = 6",
    "StatisticDuration": "uint64 count = 1; uint64 ns = 2",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2",
    "RepositoryIndexResponse": "repeated ModelIndex models = 1",
    "ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4",
    # KServe's client names the model in the first field, Triton's in the second; each knows its own fields of the answer.
    "RepositoryModelLoadRequest": "string repository_name = 1; string model_name = 2; repeated Parameter parameters = 3",
    "RepositoryModelLoadResponse": "string model_name = 1; bool isLoaded = 2",
    "RepositoryModelUnloadRequest": "string repository_name = 1; string model_name = 2; repeated Parameter parameters = 3",
    "RepositoryModelUnloadResponse": "string model_name = 1; bool isUnloaded = 2",
    "HealthCheckRequest": "string service = 1",
    "HealthCheckResponse": "int32 status = 1",
}


def _made() -> dict[str, Any]:
    file = FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
    for message, fields in _FIELDS.items():
        made = file.message_type.add(name=message)
        if "oneof " in fields:
            made.oneof_decl.add(name="choice")
        for field in filter(None, fields.split("; ")):
            *how, kind, name, _, number = field.split(" ")
            label = _Field.LABEL_REPEATED if how == ["repeated"] else _Field.LABEL_OPTIONAL
            one = made.field.add(name=name, number=int(number), label=label)
            if kind in _FIELDS:
                one.type, one.type_name = _Field.TYPE_MESSAGE, f".inference.{kind}"
            else:
                one.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
            if how == ["oneof"]:
                one.oneof_index = 0
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _FIELDS}


MESSAGES = _made()  # protobuf's class of each
