"""MLflow's REST protocol over HTTP: finds the call of a path, reads its request, carries its answer or its error.

It stands below the web framework: one look in a table for each request, one write for each answer.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec

from tidemill.core import Busy, Call, DataError, MissingFile, Refused, StoreError, Taken, TidemillError, UnknownName
from tidemill.ledger import Ledger
from tidemill.store import Occupied, Records

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
MAX_BODY = 64 * 2**20
MOST_TEXT = 20_000  # characters of a text of a request
_OTHER = {"value": MAX_BODY, "model_json": MAX_BODY, "description": 100_000}  # the first two have limits of their own, by what they are
PREFIXES = {"/api/": "/api/", "/ajax-api/": "/api/"}
_CODES: list[tuple[type[TidemillError], int, str]] = [
    (MissingFile, 404, "RESOURCE_DOES_NOT_EXIST"),
    (Taken, 400, "RESOURCE_ALREADY_EXISTS"),
    (UnknownName, 404, "RESOURCE_DOES_NOT_EXIST"),
    (Busy, 503, "TEMPORARILY_UNAVAILABLE"),
    (StoreError, 503, "TEMPORARILY_UNAVAILABLE"),
    (Refused, 403, "PERMISSION_DENIED"),
    (DataError, 400, "INVALID_PARAMETER_VALUE"),
    (TidemillError, 400, "INVALID_PARAMETER_VALUE"),
]
_WAITING = ThreadPoolExecutor(1, "waiting-writer")  # writers come one after the other: more threads would only wait too
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class _Reader:
    """What turns a request of a call into its value."""

    call: Call
    decoder: msgspec.json.Decoder[Any]
    lists: frozenset[str]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, call: Call) -> "_Reader":
        fields = msgspec.structs.fields(call.ask)
        lists = frozenset(one.name for one in fields if getattr(one.type, "__origin__", None) is list)
        texts = tuple(one.name for one in fields if one.type in (str, str | None))
        return cls(call, msgspec.json.Decoder(call.ask, strict=False), lists, texts)

    def body(self, data: bytes, parts: Mapping[str, str]) -> Any:
        """From a JSON body, and the parts of the path. Raises DataError with the field and the value."""
        try:
            ask = self._decode(data or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            ask = self._convert({})  # as the protocol has it: what is no JSON has no fields
        for name, value in parts.items():
            setattr(ask, name, value)
        return self._checked(ask)

    def _decode(self, data: bytes) -> Any:
        try:
            return self.decoder.decode(data)
        except msgspec.ValidationError:
            return self._convert(_loads(data))

    def query(self, text: str, parts: Mapping[str, str]) -> Any:
        """From the query of an address."""
        found = parse_qs(text, keep_blank_values=True)
        plain = {name: values if name in self.lists else values[-1] for name, values in found.items()}
        return self._checked(self._convert({**plain, **parts}))

    def _convert(self, plain: Any) -> Any:
        """As the decoder does, for what it refused: a null is a field that is not there."""
        plain = _without_nulls(plain) if isinstance(plain, dict) else {}
        try:
            return msgspec.convert(plain, self.call.ask, strict=False)
        except msgspec.ValidationError as error:
            why, _, path = str(error).partition(" - at `$.")
            path = path.rstrip("`")
            shown = json.dumps(_at(plain, path), default=str)[:500]
            raise DataError(f"Invalid value {shown} for parameter '{path}' supplied: {why}") from error

    def _checked(self, ask: Any) -> Any:
        for name in self.call.required:
            value = getattr(ask, name) or (getattr(ask, "run_uuid", None) if name == "run_id" else getattr(ask, name))
            if value is None or value == "" or value == []:
                why = "See the API docs for more information about request parameters."
                raise DataError(f"Missing value for required parameter '{name}'. {why}")
        for name in self.texts:
            size = len(getattr(ask, name) or "")
            if size > MOST_TEXT and size > (most := _OTHER.get(name, MOST_TEXT)):
                raise DataError(f"Invalid value for parameter '{name}' supplied: it has {size} characters, and at most {most} are taken")
        return ask


def _loads(data: bytes) -> Any:
    try:
        found = json.loads(data)
        json.dumps(found, ensure_ascii=False).encode()  # half of a pair of code points is no text that could be stored
    except ValueError:
        return {}
    return found


def _without_nulls(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: _without_nulls(value) for name, value in plain.items() if value is not None}
    return [_without_nulls(value) for value in plain] if isinstance(plain, list) else plain


def _at(plain: Any, path: str) -> Any:
    """The value at a path such as `metrics[0].key`."""
    for part in re.findall(r"[^.\[\]]+", path):
        try:
            plain = plain[int(part)] if isinstance(plain, list) else plain[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return plain


def error_of(error: TidemillError) -> tuple[int, bytes]:
    """Status and body of an error."""
    status, code = next((status, code) for kind, status, code in _CODES if isinstance(error, kind))
    return status, _encode({"error_code": code, "message": error.what})


class Protocol:
    """The calls of the stages over a ledger. What is none of them is left to `otherwise`."""

    def __init__(self, ledger: Ledger, calls: list[Call], otherwise: App) -> None:
        self.ledger, self.otherwise = ledger, otherwise
        readers = [_Reader.of(call) for call in calls]
        self.exact = {(reader.call.method, reader.call.path): reader for reader in readers if "{" not in reader.call.path}
        self.patterns = [(reader.call.method, _pattern(reader.call.path), reader) for reader in readers if "{" in reader.call.path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self.otherwise(scope, receive, send)
        else:
            status, body = await self._answer(*found, scope, receive)
            await respond(send, status, body)

    def ask(self, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a request that came without HTTP."""
        found = self._find(method, path)
        if found is None:
            return 404, _encode({"error_code": "ENDPOINT_NOT_FOUND", "message": f"nothing is at {path}"})
        reader, parts = found
        try:
            ask = reader.query(query, parts) if method == "GET" else reader.body(body, parts)
            return 200, _encode(reader.call.act(self.ledger, ask) or {})
        except TidemillError as error:
            return error_of(error)

    def _find(self, method: str, path: str) -> tuple[_Reader, dict[str, str]] | None:
        for prefix, own in PREFIXES.items():
            if path.startswith(prefix):
                path = f"{own}{path[len(prefix) :]}"
                break
        else:
            return None
        reader = self.exact.get((method, path))
        if reader is not None:
            return reader, {}
        for wanted, pattern, one in self.patterns:
            match = pattern.fullmatch(path) if wanted == method else None
            if match is not None:
                return one, {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    async def _answer(self, reader: _Reader, parts: dict[str, str], scope: Scope, receive: Receive) -> tuple[int, bytes]:
        try:
            if reader.call.method == "GET":
                ask = reader.query(query_of(scope), parts)
            else:
                refuse_form(scope)
                data = await read_body(receive, MAX_BODY)
                ask = reader.body(data, parts)
            run = asyncio.to_thread if reader.call.slow else partial(promptly, self.ledger.records)
            return 200, _encode(await run(reader.call.act, self.ledger, ask) or {})
        except TidemillError as error:
            return error_of(error)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


async def promptly(records: Records, act: Callable[..., T], *given: Any) -> T:
    """Do a moment's work right here, on the event loop; in a thread where it would wait for another writer, so that nobody waits
    with it."""
    try:
        with records.at_once():
            return act(*given)
    except Occupied:
        return await asyncio.get_running_loop().run_in_executor(_WAITING, partial(act, *given))


def refuse_form(scope: Scope) -> None:
    """Raise DataError for a body that is not said to be JSON: a form of another site could send it unasked."""
    kind = headers_of(scope).get(b"content-type", b"")
    if kind and kind.split(b";")[0].strip().lower() != b"application/json":
        raise DataError(f"Bad Request. Content-Type should be application/json, not {kind.decode(errors='replace')[:100]}")


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers of a request; of one that is there more than once, the first."""
    return dict(reversed(scope["headers"]))


def query_of(scope: Scope) -> str:
    """The query of a request's address; raises DataError for bytes that are no text."""
    try:
        text: str = scope["query_string"].decode()
    except UnicodeDecodeError as error:
        raise DataError(f"the query of the address is no UTF-8: {error}") from error
    return text


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body; raises DataError when it is larger than `most` bytes, and when the client went away before its end."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DataError("the request ended before its end")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise DataError(f"the body is larger than {most} bytes", hint="send less at once")
        more = message.get("more_body", False)
    return b"".join(parts) if len(parts) > 1 else parts[0]


async def respond(
    send: Send, status: int, body: bytes, kind: bytes = b"application/json", headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """One answer."""
    headers = [*headers, (b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
