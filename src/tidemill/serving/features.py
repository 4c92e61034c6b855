"""HTTP: the newest features by entity keys, for consumers that are no models. It stands below the web framework: a few rows cost little.

`GET /features?view=delays&view=weather:wind&origin=JFK`, or `POST /features` with `{"views": […], "rows": [{"origin": "JFK"}]}`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tidemill.core import DataError, Refused, TidemillError
from tidemill.features import Getter
from tidemill.serving.inference import Headers, QuickCall, Reply
from tidemill.serving.refusals import CLIENT_GONE, MAX_BODY, check_origin, told, too_large, zoned
from tidemill.serving.spans import span
from tidemill.serving.threads import beside

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
FEATURES_PATH = "/features"
PATH, METHODS = FEATURES_PATH.encode(), (b"GET", b"POST")
SHORT = 1 << 16  # bytes of a body that is read in one go
MOST_ROWS, MOST_VIEWS, MOST_VALUES = 10_000, 100, 1_000_000
AT_ONCE = 1_000  # rows times views that are looked up, or computed, on the event loop
EXAMPLE = 'for example {"views": ["delays"], "rows": [{"origin": "JFK"}]}'
GET_EXAMPLE = "for example /features?view=delays&view=weather:wind&origin=JFK"
HEADERS = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """Views or features of them, and rows with the keys of their entities."""

    views: list[str]
    rows: list[dict[str, Any]]
    at: str | None = None


_decode, _encode = msgspec.json.Decoder(Ask).decode, msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Asked:
    """What is asked for: rows, or of a query the values of each key."""

    views: tuple[str, ...]
    at: str | None
    rows: list[dict[str, Any]] | None
    keys: dict[str, list[str]]

    def rows_for(self, getter: Getter) -> list[dict[str, Any]]:
        """The rows. Raises DataError for a key that the views have not, and for too many."""
        rows = _rows(self.keys, getter) if self.rows is None else self.rows
        _check_size(len(rows), len(getter.names))
        return rows


class Gone(Exception):
    """The client went away before the end of its request."""


@dataclass(frozen=True)
class Features:
    """An ASGI application. `prepared` gives what was opened before, `opened` opens: it may take a while. `client_time`: whether a client
    may state a time; `waits`: reading the store waits for another machine; `due` and `refresh` as the gateway has them."""

    prepared: Callable[[tuple[str, ...]], Getter | None]
    opened: Callable[[tuple[str, ...]], Getter]
    client_time: bool = False
    waits: bool = False
    due: Callable[[], bool] = lambda: False
    refresh: Callable[[], None] = lambda: None

    def quick(self, method: bytes, address: bytes, size: int) -> QuickCall | None:
        """What answers requests with bodies of so many bytes before others could be kept waiting; None for any other."""
        path, _, query = address.partition(b"?")
        if path != PATH or method not in METHODS or size > SHORT or self.waits:
            return None
        return partial(self._at_once, method == b"POST", query.decode("latin-1"))

    def _at_once(self, posted: bool, query: str, headers: Headers, body: bytes, now: bool) -> Reply | None:
        asked = _of_body(body) if posted else _of_query(query)
        when, getter = self._time(asked.at), self.prepared(_checked(asked.views))
        if getter is None:
            return None
        rows = asked.rows_for(getter)
        return None if _takes_long(getter, rows) else Reply(200, _read(getter, rows, when))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            status, body = 200, await self._answer(scope, receive)
        except Gone:
            status, body = CLIENT_GONE, b""
        except TidemillError as error:
            status, plain = told(error)
            body = _encode(plain)
        await send({"type": "http.response.start", "status": status, "headers": [*HEADERS, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        if b"origin" in headers:
            origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
            check_origin(origin, host, scope["path"])
        body = await _body(receive)
        if self.due():
            await beside(self.refresh)
        asked = _of_body(body) if scope["method"] == "POST" else _of_query(scope["query_string"].decode("latin-1"))
        when, getter = self._time(asked.at), self.prepared(_checked(asked.views))
        if getter is None:
            getter = await beside(self.opened, asked.views)
        rows = asked.rows_for(getter)
        if self.waits or _takes_long(getter, rows):
            return await beside(_read, getter, rows, when)
        return _read(getter, rows, when)

    def _time(self, text: str | None) -> int | None:
        if text is None:
            return None
        if not self.client_time:
            hint = "leave out `at`, or set serve.client_time = true in tidemill.toml"
            raise Refused("a request may not state its own time here", hint=hint)
        return zoned(text)


def _takes_long(getter: Getter, rows: list[dict[str, Any]]) -> bool:
    """Whether others would wait: for many rows, and for what code of the project or a model computes, however long that takes."""
    return not getter.quick or len(rows) * (len(getter.looked) + len(getter.computed)) > AT_ONCE


def _read(getter: Getter, rows: list[dict[str, Any]], when: int | None) -> bytes:
    with span("features", rows=len(rows), views=len(getter.looked) + len(getter.computed)):
        return _encode(getter.read(rows, at=when).plain())


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") or message["type"] == "http.disconnect":
        if message["type"] == "http.disconnect":
            raise Gone
        if len(body) > MAX_BODY:
            raise too_large()
        message = await receive()
        body += message.get("body", b"")
    if len(body) > MAX_BODY:
        raise too_large()
    return body


def _of_body(body: bytes) -> Asked:
    try:
        found = _decode(body)
        return Asked(tuple(found.views), found.at, found.rows, {})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the body is not what is expected: {error}", hint=EXAMPLE) from error


def _of_query(text: str) -> Asked:
    """What the query of an address asks for."""
    try:
        found = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_ROWS)
    except ValueError as error:
        raise DataError(f"the query of the address cannot be read: {error}", hint=GET_EXAMPLE) from error
    views = [name for part in found.pop("view", []) for name in part.split(",") if name]
    times = found.pop("at", [])
    if len(times) > 1:
        raise DataError(f"`at` is there {len(times)} times", hint="send one time for all rows")
    return Asked(tuple(views), times[0] if times else None, None, found)


def _rows(keys: dict[str, list[str]], getter: Getter) -> list[dict[str, Any]]:
    """The rows of a query: the first value of each key is the first row, and so on."""
    odd = next((name for name in keys if name not in getter.needed), None)
    if odd is not None:
        raise DataError(f"{odd!r} is no key of these views", available=list(getter.needed), hint=GET_EXAMPLE)
    sizes = {name: len(values) for name, values in keys.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"keys are there differently often: {sizes}", hint="send each key once for each row")
    return [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]


def _checked(views: tuple[str, ...]) -> tuple[str, ...]:
    if not views or len(views) > MOST_VIEWS:
        raise DataError(f"{len(views)} views are asked for; between 1 and {MOST_VIEWS} are answered at once", hint=GET_EXAMPLE)
    return views


def _check_size(rows: int, names: int) -> None:
    if not rows or rows > MOST_ROWS:
        raise DataError(f"{rows} rows were sent; between 1 and {MOST_ROWS} are answered at once", hint=EXAMPLE)
    if rows * names > MOST_VALUES:
        raise DataError(f"{rows} rows of {names} features are too much for one answer", hint=f"ask for at most {MOST_VALUES} values")
