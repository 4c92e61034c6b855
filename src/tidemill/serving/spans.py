"""Spans: what an answer took its time for, for a collector of OpenTelemetry, where one is configured. Otherwise nothing is loaded or done.

Configured by an address, or by OpenTelemetry's own environment variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidemill.core import DefinitionError, MissingExtra, TidemillError
from tidemill.serving.caller import CALLER

if TYPE_CHECKING:
    from tidemill.serving._opentelemetry import Child, Tracer

log = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Off:
    """A part of an answer that nobody watches."""

    def __enter__(self) -> "Off":
        return self

    def __exit__(self, *_: object) -> None:
        """Over."""

    def fail(self, why: Any) -> None:
        """It failed."""


OFF = Off()
_tracer: "Tracer | None" = None


def tracer() -> "Tracer | None":
    """What begins spans, where they are wanted."""
    return _tracer


def span(name: str, **about: Any) -> "Child | Off":
    """A part of the answer to the request of now; `about` becomes its attributes, `tidemill.NAME`."""
    watch = CALLER.get().watch
    return OFF if watch is None else watch.child(name, about)


@contextmanager
def traced(address: str, service: str, version: str) -> Iterator[None]:
    """Send spans to the collector at an address (`http://127.0.0.1:4318`), or to that of the environment, while the block runs; at its end
    those that wait are sent. Raises MissingExtra and DefinitionError where the address is the project's own; what the environment asks for
    and cannot be had is a line of the log."""
    global _tracer
    if not (address or any(map(os.environ.get, ENDPOINTS))) or _is_off():
        yield
        return
    try:
        _tracer = _opened(address, service, version)
    except TidemillError as error:
        if address:
            raise
        log.warning("traces=off error=%s", error)
    try:
        yield
    finally:
        if _tracer:
            _tracer.close()
            _tracer = None


def _opened(address: str, service: str, version: str) -> "Tracer":
    protocol = next((found for found in map(os.environ.get, PROTOCOLS) if found), "http/protobuf")
    if protocol != "http/protobuf" and not address:
        raise DefinitionError(
            f"spans are not sent by {protocol}", available=["http/protobuf"], hint=f"set {PROTOCOLS[0]} and the port, 4318"
        )
    if address and not address.startswith(("http://", "https://")):
        raise DefinitionError(f"serve.traces = {address!r} is no address", hint="for example http://127.0.0.1:4318")
    try:
        from tidemill.serving._opentelemetry import Tracer
    except ImportError as error:
        raise MissingExtra("OpenTelemetry is not installed", hint="pip install 'tidemill[otel]'") from error
    return Tracer(address, service, version)


def _is_off() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
