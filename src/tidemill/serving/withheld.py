"""Columns that the log of answers does not keep, or keeps as a keyed digest: of what a request sent, and of its features."""

import hashlib
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core import DefinitionError, canonical
from tidemill.serving.declarations import PredictionLog
from tidemill.store import store_error

PARTS = ("inputs", "sent")
Line = dict[str, Any]


@dataclass(frozen=True)
class Withheld:
    """What is left out (`omit`), and what is replaced (`hash`) by a digest with the secret `key`: equal values have equal ones, and who
    has no key cannot try values."""

    omit: Collection[str] = ()
    hash: Collection[str] = ()
    key: bytes = b""

    def of(self, line: Line) -> Line:
        """A line as it may be kept; `withheld` tells which names of which part are not as they were.

        >>> Withheld({"name"}, {"tail"}, b"k").of({"sent": {"name": "Ann", "tail": None, "size": 1}})
        {'sent': {'tail': None, 'size': 1}, 'withheld': {'sent': ['name', 'tail']}}
        """
        found, told = dict(line), dict[str, list[str]]()
        for part in PARTS:
            values: Mapping[str, Any] = line.get(part) or {}
            names = [name for name in values if name in self.omit or name in self.hash]
            if names:
                told[part] = sorted(names)
                found[part] = {name: self._value(name, value) for name, value in values.items() if name not in self.omit}
        if "unexpected" in line:
            found["unexpected"] = {name: self._said(name, text) for name, text in line["unexpected"].items()}
        return found | {"withheld": told} if told else found

    def _value(self, name: str, value: Any) -> Any:
        if value is None or name not in self.hash:
            return value
        return digest_of(value, self.key)

    def _said(self, name: str, text: str) -> str:
        """What was not as expected, without the value: `-3, below 0: clipped`."""
        return f"withheld: {text.rpartition(': ')[2]}" if name in self.omit or name in self.hash else text


def digest_of(value: Any, key: bytes) -> str:
    """What a log has in place of a value."""
    text = value.encode() if isinstance(value, str) else canonical(value)
    return "#" + hashlib.blake2b(text, key=key, digest_size=10).hexdigest()


def secret_of(folder: Path) -> bytes:
    """The key of digests in the logs of a folder; empty where there is none."""
    path = folder / "key"
    return path.read_bytes() if path.exists() else b""


def withheld_by(declared: PredictionLog, folder: Path, keys: Collection[str], columns: Collection[str]) -> Withheld | None:
    """What a declaration withholds; None for nothing. `keys` are the columns of the request's key, `columns` those of the request and the
    features of the model. The secret lies in the folder of the log. Raises DefinitionError for a name that is none of them."""
    for name in (*declared.omit, *declared.hash):
        if name in keys:
            hint = "a request is found by its key when its outcome is known: give it a key that says nothing of a person"
            raise DefinitionError(f"the log cannot be without the key {name!r}", where=str(declared.where), hint=hint)
        if name not in columns:
            what = f"the log is to withhold {name!r}, which is neither a column of the request nor a feature"
            raise DefinitionError(what, where=str(declared.where), available=sorted({*columns} - {*keys}))
    if not declared.omit and not declared.hash:
        return None
    return Withheld(frozenset(declared.omit), frozenset(declared.hash), _secret(folder / "key") if declared.hash else b"")


def _secret(path: Path) -> bytes:
    """The key of digests, made once: whole when it is there."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}.part")
            aside.touch(0o600)
            aside.write_text(secrets.token_hex(32))
            try:
                os.link(aside, path)
            except FileExistsError:
                pass  # another server was first
            finally:
                aside.unlink()
        return path.read_bytes()
    except OSError as error:
        raise store_error(error, str(path), "the key of digests in the log") from error
