"""The log of bare models: for each request that was answered a line of JSON, appended before the answer leaves; those of a moment with a
single write.

A line has the tensors of both in the words of the protocol, so its `inputs` are a request's that may be sent again.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tidemill.serving import oip
from tidemill.serving.appending import OwnLines
from tidemill.serving.caller import LONGEST
from tidemill.serving.ids import new_id
from tidemill.serving.oip import Asked


class _Line(msgspec.Struct, omit_defaults=True):
    id: str
    asked: int
    model: str
    version: str
    latency_us: int
    inputs: Sequence[Any]
    outputs: msgspec.Raw
    request: str = ""
    cached: bool = False


_encode = msgspec.json.Encoder().encode


class InferenceLog(OwnLines):
    """The requests to one model, with their answers."""

    what = "the log of requests"

    def __init__(self, folder: Path, model: str) -> None:
        """Raises StoreError for a folder that cannot be written."""
        super().__init__(folder / f"{quote(model, safe='')}.jsonl")
        self.model = model

    def line(self, version: str, asked: Asked, shown: bytes, now: int, begun: int, *, cached: bool = False) -> tuple[str, bytes]:
        """The id of a prediction, and its line: of a request that is answered at `now` (microseconds UTC) and `begun` by
        `time.perf_counter_ns`, and of the outputs as JSON that a version gave it; `cached` where it gave them to equal tensors before."""
        name = new_id(now)
        took, request = (time.perf_counter_ns() - begun) // 1_000, (asked.id or asked.request)[:LONGEST]
        line = _encode(_Line(name, now, self.model, version, took, oip.told(asked), msgspec.Raw(shown), request, cached))
        return name, line.replace(b"\n", b" ").replace(b"\r", b" ")  # between values: within a text JSON has none
