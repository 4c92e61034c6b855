"""OpenTelemetry's SDK: a span for each request, children for its parts, sent by OTLP over HTTP in a thread of its own.

Names of attributes are those of the semantic conventions (HTTP 1.27, RPC), and `tidemill.…` for what they do not know.
"""

import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_span_id, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MOST_WAITED = 2_000  # milliseconds that the end waits for the collector
FAILED = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}  # of gRPC, by the server's fault
_CODES: tuple[str, ...] = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
)
_CODES += ("RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE")
_NAMED = {"predict", "feedback", "report", "models"}  # parts of a path that a name follows
Headers = Mapping[bytes, bytes]


class Tracer:
    """Begins the spans of requests."""

    def __init__(self, address: str, service: str, version: str) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({"service.version": version, **({} if named else {"service.name": service})})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{address.rstrip('/')}/v1/traces") if address else OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer, self._read = self._provider.get_tracer("tidemill", version), TraceContextTextMapPropagator().extract

    def http(self, verb: str, path: str, headers: Headers) -> "Watch | None":
        """The span of a request over HTTP; None where it is not among those that are kept."""
        path, _, query = path.partition("?")
        route, host = route_of(path), headers.get(b"host", b"").decode("latin-1")
        name, _, port = host.rpartition(":") if host[-1:].isdigit() and ":" in host else (host, "", "")
        about: dict[str, Any] = {"http.request.method": verb, "url.scheme": "http", "url.path": path, "http.route": route}
        about |= {"url.query": query} if query else {}
        about |= {"server.address": name} | ({"server.port": int(port)} if port.isdigit() else {})
        agent = headers.get(b"user-agent", b"").decode("latin-1")
        return self._watch(f"{verb} {route}", about | ({"user_agent.original": agent} if agent else {}), headers, Watch)

    def rpc(self, path: str, headers: Headers) -> "Watch | None":
        """The span of a call over gRPC."""
        service, _, method = path[1:].rpartition("/")
        return self._watch(path[1:], {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}, headers, Called)

    def _watch(self, name: str, about: Mapping[str, Any], headers: Headers, kind: "type[Watch]") -> "Watch | None":
        context = self._read(
            {key.decode("latin-1"): headers[key].decode("latin-1") for key in (b"traceparent", b"tracestate") if key in headers}
        )
        begun = self._tracer.start_span(name, context, SpanKind.SERVER, about)
        return kind(self._tracer, begun, headers) if begun.is_recording() else None

    def close(self) -> None:
        """Send what waits."""
        self._provider.force_flush(MOST_WAITED)
        self._provider.shutdown()


class Watch:
    """The span of one request. `trace` is the id of its trace; `told` is it and the span, as W3C's `traceparent` has them."""

    def __init__(self, tracer: Any, begun: Span, headers: Headers) -> None:
        self._tracer, self._span, self._within = tracer, begun, set_span_in_context(begun)
        context = begun.get_span_context()
        self.trace = format_trace_id(context.trace_id)
        self.told = f"00-{self.trace}-{format_span_id(context.span_id)}-01".encode()
        if b"x-request-id" in headers:
            begun.set_attribute("tidemill.request", headers[b"x-request-id"].decode("latin-1"))

    def child(self, name: str, about: Mapping[str, Any]) -> "Child":
        """A part of the answer."""
        return Child(self._tracer.start_span(name, self._within, attributes={f"tidemill.{key}": value for key, value in about.items()}))

    def fail(self, error: BaseException) -> None:
        """The server's own fault."""
        self._span.record_exception(error)

    def end(self, status: int | str, about: Mapping[str, Any]) -> None:
        """It was answered."""
        self._span.set_attributes({f"tidemill.{name}": value for name, value in about.items()})
        if self._judge(status):
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _judge(self, status: int | str) -> bool:
        """Note the status; whether it is the server's fault."""
        self._span.set_attribute("http.response.status_code", status)
        return isinstance(status, int) and status >= 500


class Called(Watch):
    """The same over gRPC."""

    def _judge(self, status: int | str) -> bool:
        self._span.set_attribute("rpc.grpc.status_code", _CODES.index(str(status)) if status in _CODES else 2)
        return status in FAILED


class Child:
    """The span of a part of an answer."""

    def __init__(self, begun: Span) -> None:
        self._span = begun

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            self.fail(error)
        self._span.end()

    def fail(self, why: BaseException | str) -> None:
        """It failed: an error, or words."""
        if isinstance(why, BaseException):
            self._span.record_exception(why)
        self._span.set_attribute("error.type", why if isinstance(why, str) else type(why).__name__)
        self._span.set_status(Status(StatusCode.ERROR, str(why)[:200]))


def route_of(path: str) -> str:
    """A path without the names in it, so that there are few.

    >>> route_of("/v2/models/late/versions/boosted/13/infer"), route_of("/predict/late"), route_of("/nowhere/1")
    ('/v2/models/{name}/versions/{version}/infer', '/predict/{name}', '/nowhere')
    """
    found, parts = list[str](), path.strip("/").split("/")
    while parts:
        found.append(part := parts.pop(0))
        if part in _NAMED and parts and parts[0] != "stats":
            parts[0] = "{name}"
        elif part == "versions" and parts:
            verb = parts[-1:] if parts[-1] in ("infer", "ready", "stats") and len(parts) > 1 else []
            return "/" + "/".join([*found, "{version}", *verb])
        elif len(found) == 1 and part not in ("v2", *_NAMED):
            break
    return "/" + "/".join(found)
