"""Digests of content: bytes, and plain values in one canonical form. Times, paths and hosts never enter a digest."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec
from blake3 import blake3

_encoder = msgspec.json.Encoder(order="deterministic")


def digest_bytes(*parts: bytes | memoryview) -> str:
    """BLAKE3 of the parts, each preceded by its length, as 40 hex digits (160 bits).

    >>> digest_bytes(b"ab", b"c") == digest_bytes(b"a", b"bc")
    False
    """
    hasher = blake3()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()[:40]


def canonical(value: Any) -> bytes:
    """Plain data (None, bool, numbers, text, lists, mappings, dataclasses) as JSON with sorted keys; NaN and infinities as null."""
    return _encoder.encode(value)


def digest_value(value: Any) -> str:
    """Digest of plain data; equal data give equal digests whatever the order of their keys.

    >>> digest_value({"a": 1, "b": 2}) == digest_value({"b": 2, "a": 1})
    True
    >>> digest_value({"limit": float("inf")}) == digest_value({"limit": None})
    False
    """
    text = canonical(value)
    if b"null" in text:  # JSON has no infinity and no NaN
        text = canonical(_spelled(msgspec.to_builtins(value, order="deterministic")))
    return digest_bytes(text)


def _spelled(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, (list, tuple, set, frozenset)) else value


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two plain mappings differ: (path, before, after), None where one side lacks it.

    >>> differences({"a": {"x": 1}}, {"a": {"x": 2}, "b": 3})
    [('a.x', 1, 2), ('b', None, 3)]
    """
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*before, *after}):
        one, two, here = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += differences(one, two, f"{here}.")
        elif one != two:
            found.append((here, one, two))
    return found
