"""The methods of the Open Inference Protocol over gRPC, and of gRPC's health: the bytes of a message in, those of an answer out. Nothing of
sockets.

An answer has its tensors as the request had: raw, or typed where those of the request were; FP16 has no typed form.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tidemill.core import Array, DataError, StoreError, TidemillError, UnknownName
from tidemill.serving import oip
from tidemill.serving.caller import caller, heed_parameters, request_of
from tidemill.serving.inference import Inference, check_load, configuration, index, metadata, stats
from tidemill.serving.messages import MESSAGES
from tidemill.serving.oip import LARGE, MANY, Asked, Found
from tidemill.serving.repository import Model

SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
_RIGHTS = {
    SERVICE: {
        "open": ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady"],
        "read": ["ModelConfig", "ModelMetadata", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"],
        "predict": ["ModelInfer", "ModelStreamInfer"],
    },
    HEALTH: {"open": ["Check", "Watch"]},
}
# By path, the right that a method will need when there are users; what does not stand here is not answered.
REQUIRES = {f"/{service}/{name}": right for service, rights in _RIGHTS.items() for right, names in rights.items() for name in names}
# Of datatypes, in the order of Triton's numbers for them.
TYPES = ["", "BOOL", *(f"{sign}INT{size}" for sign in ("U", "") for size in (8, 16, 32, 64)), "FP16", "FP32", "FP64", "STRING", "BF16"]
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_CONTENTS = {"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
_CONTENTS |= {f"{sign}INT{size}": f"{sign.lower()}int_contents" for sign in ("", "U") for size in (8, 16, 32)}
_CONTENTS |= {"INT64": "int64_contents", "UINT64": "uint64_contents"}

Method = Callable[[bytes], bytes]  # raises what is wrong


class Procedures:
    """What answers each method, by its path; `stream` answers one message of those that come in a stream."""

    def __init__(self, inference: Inference) -> None:
        self._server, self._models = inference.server, inference.models
        named: dict[str, Callable[[Any], Mapping[str, Any]]] = {
            "ServerLive": lambda request: {"live": True},
            "ServerReady": lambda request: {"ready": self._models.ready},
            "ServerMetadata": lambda request: self._server(),
            "ModelReady": lambda request: {"ready": self._models.find(request.name, request.version).is_ready},
            "ModelMetadata": self._metadata,
            "ModelConfig": self._configuration,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": lambda request: {"models": index(self._models, only_ready=request.ready)},
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        self.methods: dict[str, Method] = {f"/{SERVICE}/{name}": partial(_called, name, does) for name, does in named.items()}
        self.methods[f"/{SERVICE}/ModelInfer"] = lambda body: self._infer(asked_of(body)).SerializeToString()
        self.methods[f"/{HEALTH}/Check"] = self._check
        self.gone = health_of(NOT_SERVING)  # for who watches, at the end

    def stream(self, body: bytes) -> bytes:
        """The answer to one message of a stream; what is wrong with it is told there, and the stream goes on."""
        request = None
        try:
            request = asked_of(body)
            answer = self._infer(request)
            answer.parameters.add(key="triton_final_response", value={"bool_param": True})  # there is one for each request
            told = MESSAGES["ModelStreamInferResponse"](infer_response=answer)
        except TidemillError as error:
            asked = {} if request is None else {name: getattr(request, name) for name in ("model_name", "model_version", "id")}
            told = MESSAGES["ModelStreamInferResponse"](error_message=str(error), infer_response=asked)
        return told.SerializeToString()  # type: ignore[no-any-return]

    def _health(self, service: str) -> int:
        if service not in ("", SERVICE, HEALTH):
            return SERVICE_UNKNOWN
        return SERVING if self._models.ready else NOT_SERVING

    def _check(self, body: bytes) -> bytes:
        service = decoded("HealthCheckRequest", body).service
        status = self._health(service)
        if status == SERVICE_UNKNOWN:
            raise UnknownName(f"there is no service {service!r}", available=[SERVICE, HEALTH])
        return health_of(status)

    def watch(self, body: bytes) -> bytes:
        """The health of a service for who watches it: that of an unknown one is known as such."""
        return health_of(self._health(decoded("HealthCheckRequest", body).service))

    def _infer(self, request: Any) -> Any:
        one = self._ready(request.model_name, request.model_version)
        asked = read(request)
        if asked.parameters:
            heed_parameters(asked.parameters)
        return write(one.name, asked, one.infer(asked))

    def _ready(self, name: str, version: str) -> Model:
        one = self._models.find(name, version)
        if not one.is_loaded:
            raise StoreError(f"the model {name!r} is not ready: {one.why}", hint="RepositoryModelLoad loads it")
        return one

    def _metadata(self, request: Any) -> Mapping[str, Any]:
        one = self._ready(request.name, request.version)
        return metadata(one, self._models.versions(one.name))

    def _configuration(self, request: Any) -> Mapping[str, Any]:
        plain = configuration(self._ready(request.name, request.version))
        for one in (*plain["input"], *plain["output"]):
            one["data_type"] = TYPES.index(one["data_type"].removeprefix("TYPE_"))
        return {"config": plain}

    def _statistics(self, request: Any) -> Mapping[str, Any]:
        if not request.name:
            return {"model_stats": stats([*self._models])}
        versions = [self._models.find(request.name, request.version)] if request.version else self._models.versions(request.name)
        return {"model_stats": stats(versions)}

    def _load(self, request: Any) -> Mapping[str, Any]:
        check_load(one.key for one in request.parameters)
        self._models.load(name := _named(request))
        return {"model_name": name, "isLoaded": True}

    def _unload(self, request: Any) -> Mapping[str, Any]:
        self._models.unload(name := _named(request))
        return {"model_name": name, "isUnloaded": True}


def _called(name: str, does: Callable[[Any], Mapping[str, Any]], body: bytes) -> bytes:
    return MESSAGES[f"{name}Response"](**does(decoded(f"{name}Request", body))).SerializeToString()  # type: ignore[no-any-return]


def _named(request: Any) -> str:
    return str(request.model_name or request.repository_name)


def decoded(name: str, body: bytes) -> Any:
    """A message of its bytes. Raises DataError."""
    try:
        return MESSAGES[name].FromString(body)
    except DecodeError as error:
        raise DataError(f"the {len(body)} bytes are no {name}: {error}", hint="send what a client of the protocol sends") from None


def asked_of(body: bytes) -> Any:
    """The message of a request. Raises DataError, also where it has more parts than anybody needs: two bytes of one become a hundred."""
    if len(body) > LARGE:
        parts = decoded("Parts", body)
        if (many := len(parts.inputs) + len(parts.outputs) + len(parts.parameters)) > MANY:
            raise DataError(f"a request of {many} inputs, outputs and parameters", hint=f"send {MANY} at most")
    return decoded("ModelInferRequest", body)


def health_of(status: int) -> bytes:
    """The answer that tells a health."""
    return MESSAGES["HealthCheckResponse"](status=status).SerializeToString()  # type: ignore[no-any-return]


def read(request: Any) -> Asked:
    """The request of a message. Raises DataError with the path of the fault."""
    raw, tensors = request.raw_input_contents, dict[str, Array]()
    if raw and len(raw) != len(request.inputs):
        what = f"{len(raw)} raw contents came for {len(request.inputs)} inputs"
        raise DataError(what, where="raw_input_contents", hint="send one for each input, in their order; shared memory is not offered")
    for place, one in enumerate(request.inputs):
        where = f"inputs[{place}]"
        if one.name in tensors:
            raise DataError(f"the input {one.name!r} comes twice", where=where)
        if raw and one.contents.ByteSize():  # MLServer sends empty ones
            raise DataError("it has contents, and there are raw ones", where=f"{where}.contents", hint="send all inputs in one way")
        tensors[one.name] = (
            oip.of_raw(one.datatype, list(one.shape), memoryview(raw[place]), f"raw_input_contents[{place}]") if raw else _typed(one, where)
        )
    is_raw = bool(raw) or not request.inputs
    for place, wants in enumerate(request.outputs):
        oip.is_raw(_parameters(wants.parameters), place)
    wanted = {one.name: is_raw for one in request.outputs}
    parameters = _parameters(request.parameters)
    return Asked(tensors, wanted, is_raw, request.id, parameters, request_of(caller().headers))


def _parameters(given: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("choice") or "", None) for one in given}


def _typed(one: Any, where: str) -> Array:
    """A tensor whose values come in the field for its datatype."""
    shape = list(one.shape)
    kind, name = oip.kind_of(one.datatype, shape, where), _CONTENTS.get(one.datatype)
    if name is None:
        raise DataError(f"{one.datatype} has no typed contents", where=f"{where}.contents", hint="send raw_input_contents, or FP32")
    given = {field.name: data for field, data in one.contents.ListFields()}
    if given.keys() - {name}:
        raise DataError(f"{one.datatype} came in {', '.join(given)}", where=f"{where}.contents", hint=f"send it in {name}")
    where = f"{where}.contents.{name}"
    try:
        array = _values(one.contents, name, kind, given.get(name, ()))
    except (ValueError, OverflowError) as error:
        raise DataError(f"the data are not {one.datatype}: {error}", where=where) from None
    if array.size != prod(shape):
        hint = "send typed contents or raw_input_contents; shared memory is not offered"
        raise DataError(f"{array.size} values came for the shape {shape}", where=where, hint=hint)
    return oip.shaped(array, shape, where)


def _values(contents: Any, name: str, kind: np.dtype[Any], data: Any) -> Array:
    if kind.kind == "O":
        return np.array([text.decode() for text in data], dtype=object)
    if kind.kind != "f":
        return np.fromiter(data, kind, len(data))
    if not data:  # there are none, or they came one by one, as the format allows
        data = getattr(MESSAGES["SingleFloats"].FromString(contents.SerializeToString()), name)
        return np.fromiter(data, kind, len(data))
    return np.frombuffer(b"".join(data), dtype=kind)


def write(name: str, asked: Asked, found: Found) -> Any:
    """The message of an answer."""
    answer = MESSAGES["ModelInferResponse"](model_name=name, model_version=found.version, id=asked.id)
    outputs = {one: found.outputs[one] for one in asked.wanted or found.outputs}
    raw = asked.raw or any(oip.datatype_of(array) not in _CONTENTS for array in outputs.values())
    for one, array in outputs.items():
        datatype = oip.datatype_of(array)
        told = answer.outputs.add(name=one, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(oip.raw_of(array))
        else:
            getattr(told.contents, _CONTENTS[datatype]).extend(_plain(array))
    for key, text in found.parameters.items():
        answer.parameters.add(key=key, value={"string_param": text})
    return answer


def _plain(array: Array) -> list[Any]:
    """Values as the field for them takes them: floats packed."""
    if array.dtype.kind == "f":
        return [array.tobytes()]
    values = array.ravel().tolist()
    return [text.encode() if isinstance(text, str) else bytes(text) for text in values] if array.dtype == object else values
